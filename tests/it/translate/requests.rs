//! The forms of client requests, and the errors and hints that clients receive.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::scenes::{
    DIALECTS, ReadAnswer, ask_and_read, chat_request, full_scene, proxy_before, proxy_before_with,
    read_answer, stream_scene,
};
use crate::support::{
    client::Request,
    proxy::{CLIENT_KEY, Setup},
    upstream::{Scene, Upstream, chunk},
};

#[test]
fn every_client_is_answered_by_every_upstream() {
    for upstream in DIALECTS {
        let scene = move |streamed: bool| {
            if streamed {
                stream_scene(upstream, &["hel", "lo"])
            } else {
                full_scene(upstream, "hello")
            }
        };
        let (_upstream, proxy) = {
            let upstream_server = Upstream::with_director(move |seen, _| {
                let body = seen.json();
                scene(body["stream"] == true || seen.path.contains("streamGenerateContent"))
            });
            let proxy =
                Setup::new().upstream_with_dialect(upstream, "one", &upstream_server, "").start();
            (upstream_server, proxy)
        };
        for client in DIALECTS {
            for streamed in [false, true] {
                assert_eq!(
                    ask_and_read(&proxy, client, streamed),
                    ReadAnswer::text("hello"),
                    "{client} over {upstream}, streamed: {streamed}"
                );
            }
        }
    }
}

#[test]
fn losses_are_named_and_strict_requests_refused() {
    let (upstream, proxy) = proxy_before("anthropic", vec![full_scene("anthropic", "ok")]);
    let request = Request::post(
        "/v1/chat/completions",
        &json!({"model": "m", "seed": 1, "logit_bias": {"1": 2}, "messages": [{"role": "user", "content": "hi"}]}),
    );

    let reported = proxy.send(&request);
    let strict = proxy.send(&request.header("x-aiproxy-strict", "1"));

    assert_eq!(
        (reported.status, reported.header("x-aiproxy-losses")),
        (200, Some("logit_bias, seed"))
    );
    assert_eq!(
        (strict.status, &strict.json()["error"]["code"]),
        (400, &json!("translation_loss")),
        "{}",
        strict.text()
    );
    assert!(strict.text().contains("`seed` (there is no such setting)"), "{}", strict.text());
    assert_eq!(upstream.requests().len(), 1);
    let lossless = Request::post(
        "/v1/chat/completions",
        &json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    );
    let lossless = proxy.send(&lossless.header("x-aiproxy-strict", "1"));
    assert_eq!(
        (lossless.status, lossless.header("x-aiproxy-losses")),
        (200, None),
        "{}",
        lossless.text()
    );
}

#[test]
fn configured_losses_are_refused_and_another_target_is_tried() {
    let (lossy, lossless) = (
        Upstream::start(vec![full_scene("anthropic", "lossy")]),
        Upstream::start(vec![full_scene("openai", "lossless")]),
    );
    let proxy = Setup::new()
        .config("[translation]\nlosses = \"refuse\"")
        .upstream_with_dialect("anthropic", "first", &lossy, "priority = 1")
        .upstream_with_dialect("openai", "second", &lossless, "priority = 2")
        .start();
    let answer = proxy
        .ask(&json!({"model": "m", "seed": 1, "messages": [{"role": "user", "content": "hi"}]}));
    assert_eq!(answer.chat_text(), "lossless", "{}", answer.text());
    assert!(lossy.requests().is_empty());
}

#[test]
fn adjusted_token_limit_is_a_loss() {
    let (upstream, proxy) = proxy_before("responses", vec![full_scene("responses", "ok")]);
    let answer = proxy.ask(
        &json!({"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]}),
    );
    assert_eq!(
        (answer.header("x-aiproxy-losses"), &upstream.nth_request(0).json()["max_output_tokens"]),
        (Some("max_tokens"), &json!(16))
    );
}

#[test]
fn bodies_of_other_dialects_are_recognised_at_the_chat_endpoint() {
    let (upstream, proxy) = proxy_before("openai", vec![full_scene("openai", "ok")]);
    for body in [
        json!({"model": "m", "contents": [{"role": "user", "parts": [{"text": "hi"}]}], "systemInstruction": {"parts": [{"text": "be"}]}}),
        json!({"model": "m", "system": "be", "max_tokens": 50, "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}),
    ] {
        let answer = proxy.ask(&body);
        assert_eq!(answer.chat_text(), "ok", "{}", answer.text());
        let sent = upstream.requests().last().expect("a request").json();
        assert_eq!(
            sent["messages"],
            json!([{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}]),
            "{sent:#}"
        );
    }
}

#[test]
fn accept_header_requests_a_stream_unless_the_body_declines() {
    for upstream in ["openai", "anthropic"] {
        let (seen, proxy) = proxy_before(
            upstream,
            vec![stream_scene(upstream, &["hel", "lo"]), full_scene(upstream, "hello")],
        );
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        let streamed = proxy.send(
            &Request::post("/v1/chat/completions", &body).header("accept", "text/event-stream"),
        );
        assert_eq!(
            read_answer("openai", true, &streamed),
            ReadAnswer::text("hello"),
            "{upstream}: {}",
            streamed.text()
        );
        assert_eq!(seen.nth_request(0).json()["stream"], true);
        let mut body = body;
        body["stream"] = json!(false);
        let plain = proxy.send(
            &Request::post("/v1/chat/completions", &body).header("accept", "text/event-stream"),
        );
        assert_eq!(read_answer("openai", false, &plain), ReadAnswer::text("hello"), "{upstream}");
    }
}

#[test]
fn keyless_listener_serves_its_dialects_with_all_other_guards() {
    let upstream = Upstream::start(vec![full_scene("openai", "hello")]);
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let rows =
        format!("[[keyless]]\nlisten = \"{port}\"\nproject = \"it\"\ndialects = [\"ollama\"]");
    let _proxy =
        Setup::new().config(&rows).upstream_with_dialect("openai", "one", &upstream, "").start();

    let plain = chat_request("ollama", false, "hi").send(port);
    let tags = Request::get("/api/tags").send(port);
    // An Ollama server answers OpenAI's chat completions too.
    let compatible = chat_request("openai", false, "hi").send(port);
    let other = chat_request("anthropic", false, "hi").send(port);
    let rebound = chat_request("ollama", false, "hi").header("host", "evil.example").send(port);
    let page =
        chat_request("ollama", false, "hi").header("origin", "https://evil.example").send(port);
    let raw = Request::get("/u/one/v1/files").send(port);
    let control = Request::get("/aiproxy/v1/snapshot").send(port);

    assert_eq!(read_answer("ollama", false, &plain), ReadAnswer::text("hello"), "{}", plain.text());
    assert_eq!(tags.status, 200);
    assert_eq!(compatible.status, 200, "{}", compatible.text());
    for (what, answer) in [
        ("another dialect", other),
        ("host", rebound),
        ("origin", page),
        ("raw", raw),
        ("control", control),
    ] {
        assert!(
            matches!(answer.status, 401 | 403 | 421),
            "{what}: {} {}",
            answer.status,
            answer.text()
        );
    }
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn think_split_converts_think_tags_to_reasoning() {
    for upstream in ["openai", "ollama"] {
        let cuts = ["<th", "ink>let me", " see</thi", "nk>the ", "answer <think> stays"];
        let (_upstream, proxy) = proxy_before_with(
            upstream,
            vec![stream_scene(upstream, &cuts), full_scene(upstream, &cuts.concat())],
            "think_split = true",
        );
        for (client, streamed) in
            [("openai", true), ("openai", false), ("anthropic", false), ("ollama", false)]
        {
            let heard = ask_and_read(&proxy, client, streamed);
            assert_eq!(
                (heard.reasoning.as_str(), heard.text.as_str()),
                ("let me see", "the answer <think> stays"),
                "{client} over {upstream}, {streamed}"
            );
        }
    }
}

#[test]
fn stream_keepalive_requests_a_stream_for_a_whole_answer() {
    for upstream in DIALECTS {
        let (seen, proxy) = proxy_before_with(
            upstream,
            vec![stream_scene(upstream, &["hel", "lo"])],
            "stream_keepalive = true",
        );
        for client in DIALECTS {
            assert_eq!(
                ask_and_read(&proxy, client, false),
                ReadAnswer::text("hello"),
                "{client} over {upstream}"
            );
        }
        let request = seen.nth_request(0);
        assert!(
            request.json()["stream"] == true || request.path.contains("streamGenerateContent"),
            "{upstream}: {}",
            request.path
        );
    }
}

#[test]
fn reasoning_reaches_every_client() {
    let events = vec![
        chunk(&json!({"role": "assistant", "reasoning_content": "hm, "}), None),
        chunk(&json!({"reasoning_content": "well"}), None),
        chunk(&json!({"content": "yes"}), None),
        chunk(&json!({}), Some("stop")),
        "data: [DONE]\n\n".to_owned(),
    ];
    let (_upstream, proxy) = proxy_before("openai", vec![Scene::events(events)]);
    for client in ["responses", "anthropic", "gemini", "ollama"] {
        let heard = ask_and_read(&proxy, client, true);
        assert_eq!(
            (heard.reasoning.as_str(), heard.text.as_str()),
            ("hm, well", "yes"),
            "{client}"
        );
    }
}

#[test]
fn errors_have_the_client_format_and_the_upstream_meaning() {
    let limited = Scene::json(
        429,
        &json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}),
    )
    .header("retry-after", "7200");
    let upstream = Upstream::start(vec![limited]);
    let proxy = Setup::new()
        .config("[retry]\nqueue_for = \"0s\"")
        .upstream_with_dialect("anthropic", "one", &upstream, "")
        .start();
    for (client, place) in [
        ("openai", "/error/type"),
        ("responses", "/error/type"),
        ("gemini", "/error/status"),
        ("ollama", "/error"),
    ] {
        let answer = chat_request(client, true, "hi").bearer(CLIENT_KEY).send(proxy.addr);
        assert_eq!(answer.status, 429, "{client}: {}", answer.text());
        assert!(
            answer.json().pointer(place).is_some_and(Value::is_string),
            "{client}: {}",
            answer.text()
        );
        assert!(answer.header("retry-after").is_some(), "{client}");
    }
}

#[test]
fn raw_values_with_line_breaks_stay_inside_their_event() {
    // A provider's objects printed over several lines are sent to clients inside single-line
    // events.
    let citation = "{\n  \"type\": \"url_citation\",\n  \"url_citation\": {\n    \"url\": \"https://x/y\",\n    \"title\": \"t\",\n    \"start_index\": 0,\n    \"end_index\": 2\n  }\n}";
    let pretty = "{\n\t\"type\": \"web_search_call\",\r\n\t\"id\": \"ws_1\",\n\t\"status\": \"completed\",\n\t\"action\": {\n\t\t\"type\": \"search\",\n\t\t\"query\": \"q\"\n\t}\n}";
    let chat = format!(
        "{{\"id\": \"x\", \"object\": \"chat.completion\", \"model\": \"m\", \"choices\": [{{\"index\": 0, \"message\": {{\"role\": \"assistant\", \"content\": \"hello\", \"annotations\": [{citation}]}}, \"finish_reason\": \"stop\"}}]}}"
    );
    let responses = format!(
        "{{\"id\": \"resp_up\", \"object\": \"response\", \"status\": \"completed\", \"model\": \"m\", \"output\": [{pretty}, {{\"type\": \"message\", \"role\": \"assistant\", \"content\": [{{\"type\": \"output_text\", \"text\": \"hello\", \"annotations\": []}}]}}]}}"
    );
    let tool = "{\n \"type\": \"function\",\n \"name\": \"f\",\n \"parameters\": {\n  \"type\": \"object\"\n }\n}";
    for (upstream, body) in [("openai", chat), ("responses", responses)] {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let (_upstream, proxy) = proxy_before(upstream, vec![Scene::raw(head + &body)]);
        for client in DIALECTS {
            let request = match client {
                "responses" => {
                    let text = format!(
                        "{{\"model\": \"m\",\n \"input\": \"hi\", \"stream\": true,\n \"metadata\": {{\n\"a\":\r\n \"b\"}}, \"tools\": [{tool}]}}"
                    );
                    Request::post_bytes("/v1/responses", text.into_bytes())
                        .header("content-type", "application/json")
                }
                client => chat_request(client, true, "hi"),
            };
            let answer = request.bearer(CLIENT_KEY).send(proxy.addr);
            let text = answer.text();
            let known = |line: &str| {
                line.is_empty()
                    || line.starts_with("data: ")
                    || line.starts_with("event: ")
                    || line.starts_with(": ")
            };
            assert!(
                client == "ollama" || text.split(['\n', '\r']).all(known),
                "{client} over {upstream}: {text}"
            );
            let got = read_answer(client, true, &answer);
            assert!(got.success && got.text == "hello", "{client} over {upstream}: {got:?} {text}");
        }
    }
}
