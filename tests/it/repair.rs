//! Requests that an upstream refuses for one part of them are repaired, once, and remembered.

use serde_json::{Value, json};

use crate::support::{
    client::Request,
    proxy::{CLIENT_KEY, Proxy, Setup, chat_body},
    upstream::{Scene, Upstream},
};

const NO_TEMPERATURE: &str = "Unsupported value: 'temperature' does not support 0.5 with this \
                              model. Only the default (1) value is supported.";

/// An error of OpenAI's form.
fn refusal(status: u16, message: &str, code: Option<&str>) -> Scene {
    let error =
        json!({"message": message, "type": "invalid_request_error", "param": null, "code": code});
    Scene::json(status, &json!({ "error": error }))
}

fn warm_chat() -> Value {
    json!({"model": "m", "temperature": 0.5, "extra" : [1, 2.50], "messages": [{"role": "user", "content": "hi"}]})
}

fn without(body: &Value, field: &str) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().remove(field);
    body
}

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn metrics(proxy: &Proxy) -> String {
    proxy.send(&Request::get("/metrics").bearer(CLIENT_KEY)).text()
}

#[test]
fn refused_field_is_omitted_on_retry_and_in_later_requests() {
    let refuse = refusal(400, NO_TEMPERATURE, Some("unsupported_value"));
    let upstream = Upstream::start(vec![refuse, Scene::chat("one"), Scene::chat("two")]);
    let proxy = Setup::new().upstream("up", &upstream, &["work"]).start();

    let answer = proxy.ask(&warm_chat());
    assert_eq!((answer.status, answer.chat_text().as_str()), (200, "one"), "{}", answer.text());
    assert_eq!(answer.header("x-aiproxy-losses"), Some("temperature"));
    assert_eq!(upstream.nth_request(0).json(), warm_chat());
    let repaired = without(&warm_chat(), "temperature");
    assert_eq!(upstream.nth_request(1).json(), repaired);
    assert_eq!(proxy.ask(&warm_chat()).chat_text(), "two");
    assert_eq!(upstream.nth_request(2).json(), repaired);
    assert_eq!(upstream.requests().len(), 3);

    let counter = "aiproxy_repaired_requests_total{upstream=\"up\"} 1";
    assert!(metrics(&proxy).contains(counter), "{}", metrics(&proxy));
    let shown = proxy.cli(&["model", "show", "up:m"]);
    assert!(stdout(&shown).contains("it takes no temperature"), "{shown:?}");
    let id = answer.header("x-request-id").unwrap();
    let explained = stdout(&proxy.cli(&["explain", id]));
    let attempts = ["does not support 0.5", "sent again: the model takes no temperature"];
    assert!(attempts.iter().all(|text| explained.contains(text)), "{explained}");
    assert_eq!(answer.header("x-aiproxy-attempts"), Some("2"));

    // A restart does not forget it; the command does.
    let proxy = proxy.restart();
    proxy.ask(&warm_chat());
    assert_eq!(upstream.nth_request(3).json(), repaired);
    let forgot = proxy.cli(&["model", "forget", "m"]);
    assert!(stdout(&forgot).contains("models: 1"), "{forgot:?}");
    proxy.ask(&warm_chat());
    assert_eq!(upstream.nth_request(4).json(), warm_chat());
    let nothing = proxy.cli(&["model", "forget", "--all"]);
    assert!(stdout(&nothing).contains("nothing was learned"), "{nothing:?}");
}

#[test]
fn upstream_refusing_everything_is_asked_at_most_twice() {
    let refuse = refusal(400, NO_TEMPERATURE, Some("unsupported_value"));
    let upstream = Upstream::start(vec![refuse]);
    let proxy = Setup::new().upstream("up", &upstream, &["work"]).start();

    let answer = proxy.ask(&warm_chat());
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("'temperature' does not support"), "{}", answer.text());
    assert_eq!(upstream.requests().len(), 2);
    assert_eq!(proxy.ask(&warm_chat()).status, 400);
    assert_eq!(upstream.requests().len(), 3, "what did not help is not tried again");
    assert_eq!(upstream.nth_request(2).json(), warm_chat(), "nor is anything left out for it");
    let shown = stdout(&proxy.cli(&["model", "show", "up:m"]));
    assert!(!shown.contains("learned"), "{shown}");
}

#[test]
fn other_errors_and_strict_requests_are_not_repaired() {
    let errors = [
        (400, "This request was flagged: 'temperature' is not supported", Some("content_filter")),
        (400, "Unsupported parameter: 'messages'", Some("unsupported_parameter")),
        (400, "maximum context length is 10 tokens", Some("context_length_exceeded")),
        (401, NO_TEMPERATURE, Some("invalid_api_key")),
        (403, NO_TEMPERATURE, None),
        (429, NO_TEMPERATURE, Some("insufficient_quota")),
    ];
    for (status, message, code) in errors {
        let upstream =
            Upstream::start(vec![refusal(status, message, code), Scene::chat("repaired")]);
        let proxy = Setup::new().upstream("up", &upstream, &["work"]).start();
        let answer = proxy.ask(&warm_chat());
        for request in upstream.requests() {
            assert_eq!(request.json(), warm_chat(), "{message}: {}", answer.text());
        }
        assert!(!metrics(&proxy).contains("aiproxy_repaired_requests_total{"), "{message}");
    }

    let refuse = refusal(400, NO_TEMPERATURE, Some("unsupported_value"));
    let upstream = Upstream::start(vec![refuse, Scene::chat("repaired")]);
    let proxy = Setup::new().upstream("up", &upstream, &["work"]).start();
    let strict = Request::post("/v1/chat/completions", &warm_chat())
        .bearer(CLIENT_KEY)
        .header("x-aiproxy-strict", "1");
    assert_eq!(proxy.send(&strict).status, 400);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn translated_requests_are_repaired_in_the_upstream_dialect() {
    let limit = "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
                 'max_completion_tokens' instead.";
    let upstream = Upstream::start(vec![
        refusal(400, limit, Some("unsupported_parameter")),
        Scene::chat("one"),
        Scene::chat("two"),
    ]);
    let proxy = Setup::new().upstream("up", &upstream, &["work"]).start();
    let message = Request::post(
        "/v1/messages",
        &json!({"model": "m", "max_tokens": 77, "messages": [{"role": "user", "content": "hi"}]}),
    )
    .bearer(CLIENT_KEY)
    .header("anthropic-version", "2023-06-01");

    let answer = proxy.send(&message);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(upstream.nth_request(0).json()["max_tokens"], 77);
    let sent = upstream.nth_request(1).json();
    assert_eq!((&sent["max_completion_tokens"], &sent["max_tokens"]), (&json!(77), &Value::Null));
    proxy.send(&message);
    assert_eq!(upstream.nth_request(2).json(), sent);

    // What is not in the request cannot be why it is refused.
    let upstream = Upstream::start(vec![
        refusal(400, "Unknown parameter: 'metadata_x'.", Some("unknown_parameter")),
        Scene::chat("never"),
    ]);
    let proxy = Setup::new().upstream("up", &upstream, &["work"]).start();
    assert_eq!(proxy.send(&message).status, 400);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn system_messages_move_to_the_beginning() {
    let upstream = Upstream::start(vec![
        refusal(400, "System message must be at the beginning.", None),
        Scene::chat("one"),
        Scene::chat("two"),
    ]);
    let proxy = Setup::new().upstream("up", &upstream, &["work"]).start();
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "hi"}, {"role": "system", "content": "be brief"},
        {"role": "user", "content": "well?"}]});

    for nth in [1, 2] {
        let answer = proxy.ask(&body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let sent = upstream.nth_request(nth).json();
        let roles: Vec<&str> = sent["messages"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|m| m["role"].as_str())
            .collect();
        assert_eq!(roles.iter().rposition(|role| *role == "system").unwrap_or(0), 0, "{sent:#}");
        assert!(sent.to_string().contains("be brief"), "{sent:#}");
    }
}

#[test]
fn strict_demo_model_answers_in_every_dialect() {
    let proxy = Setup::new().start();
    let user = json!([{"role": "user", "content": "hello there"}]);
    let requests = [
        (
            "/v1/chat/completions",
            json!({"model": "demo/strict", "temperature": 0.3, "messages": user}),
        ),
        (
            "/v1/chat/completions",
            json!({"model": "demo/strict", "max_tokens": 50, "messages": user}),
        ),
        ("/v1/chat/completions", json!({"model": "demo/strict", "invented": 1, "messages": user})),
        (
            "/v1/chat/completions",
            json!({"model": "demo/strict", "reasoning_effort": "low", "messages": user,
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}),
        ),
        (
            "/v1/responses",
            json!({"model": "demo/strict", "temperature": 0.3, "input": "hello there"}),
        ),
        ("/v1/responses", json!({"model": "demo/strict", "invented": 1, "input": "hello there"})),
        (
            "/v1/messages",
            json!({"model": "demo/strict", "max_tokens": 50, "top_k": 3, "messages": user}),
        ),
        (
            "/v1/messages",
            json!({"model": "demo/strict", "max_tokens": 50, "invented": {}, "messages": user}),
        ),
        (
            "/v1beta/models/demo%2Fstrict:generateContent",
            json!({"contents": [{"role": "user", "parts": [{"text": "hello there"}]}], "generationConfig": {"presencePenalty": 1}}),
        ),
        (
            "/api/chat",
            json!({"model": "demo/strict", "think": true, "stream": false, "messages": user}),
        ),
    ];
    for (path, body) in requests {
        let mut request = Request::post(path, &body).bearer(CLIENT_KEY);
        if path == "/v1/messages" {
            request = request.header("anthropic-version", "2023-06-01");
        }
        let answer = proxy.send(&request);
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
        assert!(answer.text().contains("hello there"), "{path}: {}", answer.text());
        // Each is alone, as the first of its kind.
        proxy.cli(&["model", "forget", "--all"]);
    }
    let plain = proxy.ask(&chat_body("demo/strict", "hello there", true));
    assert_eq!(plain.status, 200);
}
