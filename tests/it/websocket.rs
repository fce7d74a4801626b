//! Responses over a WebSocket, asked for by a WebSocket client.

use std::{net::TcpStream, time::Duration};

use serde_json::{Value, json};
use tungstenite::{
    Error, Message, WebSocket,
    client::{ClientRequestBuilder, client},
};

use crate::support::{
    proxy::{CLIENT_KEY, Proxy, Setup},
    upstream::{Gate, Scene, Upstream},
};

pub(crate) struct Client(WebSocket<TcpStream>);

fn try_connect(
    proxy: &Proxy,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Client, (u16, String)> {
    let address = format!("ws://{}{path}", proxy.addr);
    let request = headers.iter().fold(
        ClientRequestBuilder::new(address.parse().expect("an address")),
        |request, (name, value)| request.with_header(*name, *value),
    );
    let stream = TcpStream::connect(proxy.addr).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    match client(request, stream) {
        Ok((socket, _)) => Ok(Client(socket)),
        Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
            let body = response.body().clone().unwrap_or_default();
            Err((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn connect(proxy: &Proxy) -> Client {
    let key = format!("Bearer {CLIENT_KEY}");
    try_connect(proxy, "/v1/responses", &[("authorization", &key)])
        .unwrap_or_else(|(status, body)| panic!("{status} {body}"))
}

impl Client {
    pub(crate) fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).expect("sent");
    }

    /// Sends a request with `response.create`.
    pub(crate) fn create(&mut self, more: &Value) {
        let mut message = json!({"type": "response.create", "model": "m", "store": false});
        let members = more.as_object().expect("an object").clone();
        message.as_object_mut().expect("an object").extend(members);
        self.send(&message);
    }

    fn next(&mut self) -> Value {
        loop {
            match self.0.read().expect("a message") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Reads events up to the end of a response or an error.
    pub(crate) fn response(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            events.push(self.next());
            let kind = events.last().expect("an event")["type"].as_str().unwrap_or_default();
            if matches!(
                kind,
                "response.completed" | "response.incomplete" | "response.failed" | "error"
            ) {
                return events;
            }
        }
    }

    fn close_code(&mut self) -> u16 {
        loop {
            match self.0.read() {
                Ok(Message::Close(frame)) => return frame.expect("a reason").code.into(),
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn text_of(events: &[Value]) -> String {
    let delta = |event: &Value| event["delta"].as_str().unwrap_or_default().to_owned();
    let is_text = |event: &&Value| event["type"] == "response.output_text.delta";
    events.iter().filter(is_text).map(delta).collect()
}

fn last_id(events: &[Value]) -> String {
    events.last().expect("an event")["response"]["id"].as_str().expect("an id").to_owned()
}

fn before(scenes: Vec<Scene>) -> (Upstream, Proxy) {
    let upstream = Upstream::start(scenes);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    (upstream, proxy)
}

#[test]
fn responses_run_one_after_another_on_one_connection() {
    let (upstream, proxy) =
        before(vec![Scene::sse(&["a", "b"]), Scene::sse(&["c"]), Scene::sse(&["d"])]);
    let mut client = connect(&proxy);

    client.create(&json!({"input": "hi"}));
    let first = client.response();
    // The next two are sent before the answer to either.
    client.create(&json!({"input": "more", "previous_response_id": last_id(&first)}));
    client.create(&json!({"input": "else"}));
    let second = client.response();
    let third = client.response();

    assert_eq!(first[0]["type"], "response.created", "{first:#?}");
    assert_eq!(
        (text_of(&first), text_of(&second), text_of(&third)),
        ("ab".into(), "c".into(), "d".into())
    );
    let sent = |number: usize| upstream.nth_request(number).json()["messages"].clone();
    assert_eq!(sent(0), json!([{"role": "user", "content": "hi"}]));
    assert_eq!(
        sent(1),
        json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ab"}, {"role": "user", "content": "more"}])
    );
    assert_eq!(sent(2), json!([{"role": "user", "content": "else"}]));
    assert!(first.iter().all(|event| event.get("stream_id").is_none()));
}

#[test]
fn request_without_generation_can_be_continued() {
    let (upstream, proxy) = before(vec![Scene::sse(&["a"])]);
    let mut client = connect(&proxy);

    client.create(&json!({"input": [{"role": "user", "content": "one"}], "generate": false}));
    let warm = client.response();
    client.send(&json!({"type": "response.processed", "response_id": last_id(&warm)}));
    client.create(&json!({"input": "two", "previous_response_id": last_id(&warm)}));
    let answer = client.response();

    assert_eq!(warm.last().expect("an event")["response"]["output"], json!([]), "{warm:#?}");
    assert_eq!(text_of(&answer), "a", "{answer:#?}");
    assert_eq!(
        upstream.nth_request(0).json()["messages"],
        json!([{"role": "user", "content": "one"}, {"role": "user", "content": "two"}])
    );
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn streams_of_one_connection_run_concurrently() {
    let gate = Gate::closed();
    let slow = gate.clone();
    let upstream = Upstream::with_director(move |request, _| {
        if request.json()["messages"].to_string().contains("slow") {
            Scene::sse(&["s"]).gate(1, &slow)
        } else {
            Scene::sse(&["f"])
        }
    });
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut client = connect(&proxy);

    client.create(&json!({"input": "slow", "stream_id": "left"}));
    upstream.nth_request(0);
    client.create(&json!({"input": "fast", "stream_id": "right"}));
    let mut events = Vec::new();
    while !events
        .iter()
        .any(|event: &Value| event["stream_id"] == "right" && event["type"] == "response.completed")
    {
        events.push(client.next());
    }
    gate.open();
    let rest = client.response();

    let right: Vec<Value> =
        events.iter().filter(|event| event["stream_id"] == "right").cloned().collect();
    assert_eq!(text_of(&right), "f");
    assert_eq!(text_of(&rest), "s");
    assert!(rest.iter().all(|event| event["stream_id"] == "left"), "{rest:#?}");
    // A stream may continue what another one said.
    client.create(
        &json!({"input": "on", "stream_id": "third", "previous_response_id": last_id(&right)}),
    );
    client.response();
    let sent = upstream.nth_request(2).json()["messages"].to_string();
    assert!(sent.contains("fast") && sent.contains("\"f\"") && sent.contains("on"), "{sent}");
}

#[test]
fn errors_are_events_and_the_connection_stays_open() {
    let (_upstream, proxy) = before(vec![Scene::status(400), Scene::sse(&["a"])]);
    let mut client = connect(&proxy);

    client.create(&json!({"input": "hi"}));
    let refused = client.response().pop().expect("an event");
    client.send(&json!({"type": "session.update"}));
    let unknown = client.response().pop().expect("an event");
    client
        .create(&json!({"input": "hi", "previous_response_id": "resp_unknown", "stream_id": "s"}));
    let lost = client.response().pop().expect("an event");
    client.create(&json!({"input": "hi"}));
    let good = client.response();

    assert_eq!((&refused["type"], &refused["status"]), (&json!("error"), &json!(400)));
    assert_eq!(refused["error"]["message"], "scripted 400", "{refused}");
    assert!(
        unknown["error"]["message"].as_str().is_some_and(|text| text.contains("session.update")),
        "{unknown}"
    );
    assert_eq!(lost["error"]["code"], "previous_response_not_found", "{lost}");
    assert_eq!(lost["stream_id"], "s", "{lost}");
    assert_eq!(text_of(&good), "a");
}

#[test]
fn client_disconnect_cancels_its_response() {
    let upstream = Upstream::start(vec![Scene::sse(&["a", "b"]).gate(2, &Gate::closed())]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut client = connect(&proxy);

    client.create(&json!({"input": "hi"}));
    while client.next()["type"] != "response.output_text.delta" {}
    drop(client);

    upstream.wait_for_request(0, "the end of the request", |seen| seen.hung_up_at.is_some());
}

#[test]
fn connection_passes_the_same_guards_as_requests() {
    let (_upstream, proxy) = before(vec![Scene::sse(&["never"])]);
    let key = format!("Bearer {CLIENT_KEY}");
    let refused = |path: &str, headers: &[(&str, &str)]| {
        try_connect(&proxy, path, headers).err().map(|(status, _)| status)
    };

    assert_eq!(refused("/v1/responses", &[]), Some(401));
    assert_eq!(refused("/v1/responses", &[("authorization", "Bearer wrong")]), Some(401));
    let evil = [("authorization", &*key), ("origin", "https://evil.example")];
    assert_eq!(refused("/v1/responses", &evil), Some(403));
    let auth = [("authorization", &*key)];
    assert_eq!(refused("/v1/chat/completions", &auth), Some(400));
    assert_eq!(refused("/v1/realtime", &auth), Some(400));
    assert_eq!(refused("/v1/responses", &auth), None);
}

#[test]
fn binary_or_too_large_message_closes_with_its_reason() {
    let upstream = Upstream::start(vec![Scene::sse(&["never"])]);
    let config = "[server]\nmax_request_bytes = \"100KiB\"";
    let proxy = Setup::new().config(config).upstream("one", &upstream, &["work"]).start();

    let mut client = connect(&proxy);
    client.0.send(Message::binary(vec![1])).expect("sent");
    assert_eq!(client.close_code(), 1003);
    let mut client = connect(&proxy);
    client.create(&json!({"input": "x".repeat(200 << 10)}));
    assert_eq!(client.close_code(), 1009);
}

#[test]
fn stop_ends_the_response_before_the_connection() {
    let gate = Gate::closed();
    let (_upstream, mut proxy) = before(vec![Scene::sse(&["a", "b"]).gate(2, &gate)]);
    let mut busy = connect(&proxy);
    let mut idle = connect(&proxy);

    busy.create(&json!({"input": "hi"}));
    while busy.next()["type"] != "response.output_text.delta" {}
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(idle.close_code(), 1001);
    gate.open();
    assert_eq!(text_of(&busy.response()), "b");
    assert_eq!(busy.close_code(), 1001);
    assert_eq!(proxy.exit_code(), Some(0));
}
