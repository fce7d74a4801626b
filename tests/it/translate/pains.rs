//! Known problems of translating proxies, one test each.

use serde_json::{Value, json};

use super::scenes::{
    DIALECTS, ReadAnswer, anthropic_event, anthropic_events, anthropic_message, ask_and_read,
    chat_request, full_scene, proxy_before, read_answer, stream_events, stream_scene,
};
use crate::support::{
    client::Request,
    proxy::{CLIENT_KEY, Proxy, Setup},
    upstream::{Gate, Scene, Upstream, chunk},
};

/// Bytes that a careless re-encoding would change.
const SIGNATURE: &str = "EqQB+/==\u{e9}\\\"</sig>";

fn weather_tool() -> Value {
    json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}})
}

fn thinking_call() -> Value {
    anthropic_message(
        &json!([{"type": "thinking", "thinking": "I should look.", "signature": SIGNATURE}, {"type": "redacted_thinking", "data": "sealed+/="},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Łódź"}}]),
        "tool_use",
    )
}

fn has_signature(body: &Value) -> bool {
    let content = body["messages"][1]["content"].as_array().cloned().unwrap_or_default();
    content.first()
        == Some(&json!({"type": "thinking", "thinking": "I should look.", "signature": SIGNATURE}))
        && content.get(1) == Some(&json!({"type": "redacted_thinking", "data": "sealed+/="}))
}

#[test]
fn signatures_are_restored_for_clients_that_drop_them() {
    let (upstream, proxy) = proxy_before(
        "anthropic",
        vec![Scene::json(200, &thinking_call()), full_scene("anthropic", "sunny")],
    );
    let first = proxy.ask(&json!({"model": "m", "tools": [weather_tool()], "messages": [{"role": "user", "content": "?"}]})).json();
    let printed = &first["choices"][0]["message"];
    let call = &printed["tool_calls"][0];

    let answer = proxy.ask(&json!({"model": "m", "tools": [weather_tool()], "messages": [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}]}));

    assert_eq!(answer.chat_text(), "sunny", "{}", answer.text());
    let sent = upstream.nth_request(1).json();
    assert!(has_signature(&sent), "{sent:#}");
    assert_eq!(answer.header("x-aiproxy-losses"), None);
}

#[test]
fn streamed_signatures_are_restored() {
    let content = thinking_call()["content"].clone();
    let mut events = vec![anthropic_event(
        &json!({"type": "message_start", "message": anthropic_message(&json!([]), "tool_use")}),
    )];
    for (at, block) in content.as_array().expect("blocks").iter().enumerate() {
        let mut head = block.clone();
        for key in ["thinking", "signature"] {
            if head.get(key).is_some() {
                head[key] = json!("");
            }
        }
        let delta = |delta: Value| {
            anthropic_event(&json!({"type": "content_block_delta", "index": at, "delta": delta}))
        };
        if block["type"] == "tool_use" {
            head["input"] = json!({});
        }
        events.push(anthropic_event(
            &json!({"type": "content_block_start", "index": at, "content_block": head}),
        ));
        match block["type"].as_str() {
            Some("thinking") => {
                events
                    .push(delta(json!({"type": "thinking_delta", "thinking": block["thinking"]})));
                events.push(delta(
                    json!({"type": "signature_delta", "signature": block["signature"]}),
                ));
            }
            Some("tool_use") => events.push(delta(
                json!({"type": "input_json_delta", "partial_json": block["input"].to_string()}),
            )),
            _ => {}
        }
        events.push(anthropic_event(&json!({"type": "content_block_stop", "index": at})));
    }
    events.push(anthropic_event(&json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}})));
    events.push(anthropic_event(&json!({"type": "message_stop"})));
    let (upstream, proxy) =
        proxy_before("anthropic", vec![Scene::events(events), full_scene("anthropic", "sunny")]);

    let tools = json!([weather_tool()]);
    let first = proxy.ask(&json!({"model": "m", "stream": true, "tools": tools, "messages": [{"role": "user", "content": "?"}]}));
    let printed = read_answer("openai", true, &first);
    assert_eq!(
        (printed.reasoning.as_str(), printed.calls),
        ("I should look.", vec![("weather".to_owned(), json!({"city": "Łódź"}))])
    );
    proxy.ask(&json!({"model": "m", "tools": tools, "messages": [
        {"role": "user", "content": "?"},
        {"role": "assistant", "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Łódź\"}"}}]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "sunny"}]}));

    assert!(has_signature(&upstream.nth_request(1).json()), "{:#}", upstream.nth_request(1).json());
}

#[test]
fn foreign_reasoning_is_dropped_and_listed_as_a_loss() {
    for dialect in ["openai", "gemini", "responses", "ollama"] {
        let (upstream, proxy) = proxy_before(dialect, vec![full_scene(dialect, "on")]);
        let body = json!({"model": "m", "max_tokens": 99, "messages": [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": SIGNATURE}, {"type": "redacted_thinking", "data": "sealed+/="}, {"type": "text", "text": "a"}]},
            {"role": "user", "content": "and?"}]});

        let answer = proxy.send(&Request::post("/v1/messages", &body));

        assert_eq!(
            answer.header("x-aiproxy-losses"),
            Some("reasoning.proof"),
            "{dialect}: {:?}",
            answer.headers
        );
        let sent = String::from_utf8_lossy(&upstream.nth_request(0).body).into_owned();
        assert!(!sent.contains("EqQB") && !sent.contains("sealed"), "{dialect}: {sent}");
    }
}

#[test]
fn cache_control_is_preserved_on_every_block_type() {
    let (upstream, proxy) = proxy_before("anthropic", vec![full_scene("anthropic", "ok")]);
    let mark = json!({"type": "ephemeral", "ttl": "1h"});
    let png = json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="});
    // A request in the format of a Claude agent, sent to the chat endpoint.
    let body = json!({"model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "s", "cache_control": mark}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}, "cache_control": mark}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "t", "cache_control": mark}, {"type": "image", "source": png, "cache_control": mark},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}, "cache_control": mark}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}, "cache_control": mark}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "r", "cache_control": mark}]}]});

    let answer = proxy.ask(&body);

    assert_eq!(answer.chat_text(), "ok", "{}", answer.text());
    let sent = upstream.nth_request(0).json();
    for place in [
        "/system/0",
        "/tools/0",
        "/messages/0/content/0",
        "/messages/0/content/1",
        "/messages/0/content/2",
        "/messages/1/content/0",
        "/messages/2/content/0",
    ] {
        assert_eq!(
            sent.pointer(place).map(|block| &block["cache_control"]),
            Some(&mark),
            "{place} of {sent:#}"
        );
    }
}

#[test]
fn cache_control_of_chat_clients_is_preserved() {
    let (upstream, proxy) = proxy_before("anthropic", vec![full_scene("anthropic", "ok")]);
    let mark = json!({"type": "ephemeral"});
    let mut tool = weather_tool();
    tool["cache_control"] = mark.clone();
    let call =
        json!({"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}});

    let answer = proxy.ask(&json!({"model": "m", "tools": [tool], "messages": [
        {"role": "system", "content": [{"type": "text", "text": "s", "cache_control": mark}]},
        {"role": "user", "content": [{"type": "text", "text": "t", "cache_control": mark},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}, "cache_control": mark}]},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "r", "cache_control": mark}]}]}));

    let sent = upstream.nth_request(0).json();
    assert_eq!(answer.header("x-aiproxy-losses"), None);
    for place in ["/system/0", "/tools/0", "/messages/0/content/0", "/messages/0/content/1"] {
        assert_eq!(
            sent.pointer(place).map(|block| &block["cache_control"]),
            Some(&mark),
            "{place} of {sent:#}"
        );
    }
    let result = &sent["messages"][2]["content"][0];
    assert!(
        result["cache_control"] == mark || result["content"][0]["cache_control"] == mark,
        "{result:#}"
    );
}

#[test]
fn arguments_of_interleaved_calls_are_not_mixed() {
    let call = |at: usize, mut call: Value| {
        call["index"] = json!(at);
        chunk(&json!({"tool_calls": [call]}), None)
    };
    let events = vec![
        call(0, json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}})),
        call(
            1,
            json!({"id": "b", "type": "function", "function": {"name": "g", "arguments": "{\"x\""}}),
        ),
        call(0, json!({"function": {"arguments": "{\"city\":"}})),
        call(1, json!({"function": {"arguments": ":[1,"}})),
        call(0, json!({"function": {"arguments": "\"Łódź\"}"}})),
        call(1, json!({"function": {"arguments": "2]}"}})),
        chunk(&json!({}), Some("tool_calls")),
        "data: [DONE]\n\n".to_owned(),
    ];
    let (_upstream, proxy) = proxy_before("openai", vec![Scene::events(events)]);
    for client in ["anthropic", "gemini", "ollama", "responses"] {
        let heard = ask_and_read(&proxy, client, true);
        let want =
            vec![("f".to_owned(), json!({"city": "Łódź"})), ("g".to_owned(), json!({"x": [1, 2]}))];
        assert_eq!((heard.calls, heard.success, heard.error), (want, true, None), "{client}");
    }
}

#[test]
fn truncated_stream_ends_in_an_error_of_the_client_dialect() {
    for upstream in DIALECTS {
        let all = stream_events(upstream, &["half", " more"]);
        // Drops the end of the stream: both the finish and the terminal event.
        let cut = all.len() - if upstream == "openai" || upstream == "anthropic" { 2 } else { 1 };
        let kind = if upstream == "ollama" { "application/x-ndjson" } else { "text/event-stream" };
        let (_upstream, proxy) =
            proxy_before(upstream, vec![Scene::stream(kind, all[..cut].to_vec())]);
        for client in DIALECTS.into_iter().filter(|client| *client != upstream) {
            let heard = ask_and_read(&proxy, client, true);
            assert!(!heard.success && heard.error.is_some(), "{client} over {upstream}: {heard:?}");
        }
    }
}

/// A proxy with a failing upstream of one dialect before a working one of another.
fn proxy_with_bad_then_good(
    dialect: &str,
    bad: Scene,
    good: Vec<Scene>,
) -> (Upstream, Upstream, Proxy) {
    let (first, second) = (Upstream::start(vec![bad]), Upstream::start(good));
    let proxy = Setup::new()
        .upstream_with_dialect(dialect, "bad", &first, "priority = 1")
        .upstream_with_dialect("gemini", "good", &second, "priority = 2")
        .start();
    (first, second, proxy)
}

#[test]
fn error_inside_a_200_of_another_dialect_fails_over() {
    let error =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let started = anthropic_event(
        &json!({"type": "message_start", "message": anthropic_message(&json!([]), "end_turn")}),
    );
    for (streamed, bad) in [
        (true, Scene::events([started, anthropic_event(&error)])),
        (true, Scene::json(200, &error)),
        (false, Scene::json(200, &error)),
    ] {
        let good =
            if streamed { stream_scene("gemini", &["good"]) } else { full_scene("gemini", "good") };
        let (first, _second, proxy) = proxy_with_bad_then_good("anthropic", bad, vec![good]);

        let heard = ask_and_read(&proxy, "openai", streamed);

        assert_eq!(heard, ReadAnswer::text("good"), "streamed: {streamed}");
        assert!(!first.requests().is_empty());
    }
}

#[test]
fn nothing_is_replayed_after_content() {
    let mut events = anthropic_events(&["rm -rf /tmp/a"]);
    events.truncate(3);
    events.push(anthropic_event(
        &json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    ));
    for client in ["openai", "responses", "gemini", "ollama"] {
        let (_first, second, proxy) = proxy_with_bad_then_good(
            "anthropic",
            Scene::events(events.clone()),
            vec![stream_scene("gemini", &["again"])],
        );

        let heard = ask_and_read(&proxy, client, true);

        assert!(
            !heard.success && heard.error.as_deref().is_some_and(|e| e.contains("verloaded")),
            "{client}: {heard:?}"
        );
        assert!(!heard.text.contains("again"), "{client}: {heard:?}");
        assert!(second.requests().is_empty());
    }
}

#[test]
fn silent_translated_stream_gets_pings_in_the_client_dialect() {
    let gate = Gate::closed();
    let (_upstream, proxy) = proxy_before("openai", vec![Scene::sse(&["a", "b"]).gate(2, &gate)]);
    let waits: Vec<_> = [("anthropic", "event: ping"), ("responses", ": "), ("gemini", "\n\n\n\n")]
        .into_iter()
        .map(|(client, ping)| {
            let mut connection =
                chat_request(client, true, "hi").bearer(CLIENT_KEY).open(proxy.addr);
            std::thread::spawn(move || {
                let mut seen = connection.read_until("\"a\"");
                if client != "gemini" {
                    seen += &connection.read_until(ping);
                }
                (client, connection, seen)
            })
        })
        .collect();
    let waited: Vec<_> = waits.into_iter().map(|wait| wait.join().expect("a ping")).collect();

    gate.open();

    for (client, mut connection, _) in waited {
        let rest = connection.read_answer();
        assert!(rest.complete && rest.text().contains("\"b\""), "{client}: {}", rest.text());
    }
}

#[test]
fn tokens_are_counted_locally_if_no_upstream_counts() {
    let (_upstream, proxy) = proxy_before("openai", vec![full_scene("openai", "never asked")]);
    let schema: Value = (0..40)
        .map(|n| {
            (
                format!("property_{n}"),
                json!({"type": "string", "description": "a long description of it"}),
            )
        })
        .collect();
    let tool = json!({"name": "f", "description": "d", "input_schema": {"type": "object", "properties": schema}});
    let count = |tools: Value| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "hello there"}], "tools": tools});
        let answer = proxy.send(&Request::post("/v1/messages/count_tokens", &body));
        assert_eq!(
            (answer.status, answer.header("x-aiproxy-estimated").is_some()),
            (200, true),
            "{}",
            answer.text()
        );
        answer.json()["input_tokens"].as_u64().expect("a number")
    };
    let (without, with) = (count(json!([])), count(json!([tool])));
    assert!(without > 2 && with > without + 400, "{without} {with}");

    let gemini = proxy.send(&Request::post(
        "/v1beta/models/m:countTokens",
        &json!({"contents": [{"parts": [{"text": "hello there"}]}]}),
    ));
    assert!(
        gemini.json()["totalTokens"].as_u64().is_some_and(|count| count > 2),
        "{}",
        gemini.text()
    );
    assert!(gemini.header("x-aiproxy-estimated").is_some());
}

#[test]
fn token_counts_come_from_an_upstream_that_counts() {
    let (upstream, proxy) =
        proxy_before("anthropic", vec![Scene::json(200, &json!({"input_tokens": 42}))]);
    for (path, body, field) in [
        (
            "/v1beta/models/m:countTokens",
            json!({"contents": [{"parts": [{"text": "hi"}]}]}),
            "totalTokens",
        ),
        (
            "/v1/messages/count_tokens",
            json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
            "input_tokens",
        ),
        ("/v1/responses/input_tokens", json!({"model": "m", "input": "hi"}), "input_tokens"),
    ] {
        let answer = proxy.send(&Request::post(path, &body));
        assert_eq!(
            (&answer.json()[field], answer.header("x-aiproxy-estimated")),
            (&json!(42), None),
            "{path}: {}",
            answer.text()
        );
    }
    assert!(upstream.requests().iter().all(|seen| seen.path.ends_with("/messages/count_tokens")));
}

#[test]
fn schemas_are_rewritten_for_gemini_and_losses_named() {
    let (upstream, proxy) = proxy_before("gemini", vec![full_scene("gemini", "ok")]);
    let schema = json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["to"], "additionalProperties": false,
        "properties": {"to": {"$ref": "#/$defs/person"}, "kind": {"const": "a"}, "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": true}},
        "$defs": {"person": {"type": "object", "properties": {"name": {"type": "string"}, "friend": {"$ref": "#/$defs/person"}}}}});
    let tool = json!({"type": "function", "function": {"name": "send", "parameters": schema}});

    let answer = proxy.ask(
        &json!({"model": "m", "tools": [tool], "messages": [{"role": "user", "content": "?"}]}),
    );

    assert_eq!(answer.chat_text(), "ok", "{}", answer.text());
    assert_eq!(
        answer.header("x-aiproxy-losses"),
        Some("tools.schema.$ref, tools.schema.uniqueItems")
    );
    let sent = upstream.nth_request(0).json();
    let sent = &sent["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"];
    assert_eq!(sent["properties"]["to"]["properties"]["name"]["type"], "string");
    assert_eq!(sent["properties"]["kind"]["enum"], json!(["a"]));
    for gone in ["$ref", "$defs", "$schema", "uniqueItems", "const"] {
        assert!(!sent.to_string().contains(&format!("\"{gone}\"")), "{gone} in {sent:#}");
    }
}

#[test]
fn results_follow_their_calls_with_their_images() {
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}});
    let body = json!({"model": "m", "max_tokens": 9, "tools": [{"name": "f", "input_schema": {"type": "object"}}], "messages": [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}, {"type": "tool_use", "id": "2", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "tool_result", "tool_use_id": "2", "content": "two"},
            {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "one"}, image]}]}]});
    for dialect in ["openai", "responses", "gemini", "ollama"] {
        let (upstream, proxy) = proxy_before(dialect, vec![full_scene(dialect, "ok")]);

        let answer = proxy.send(&Request::post("/v1/messages", &body));

        assert_eq!(answer.status, 200, "{dialect}: {}", answer.text());
        let sent = upstream.nth_request(0).json();
        assert!(sent.to_string().contains("iVBORw0KGgo="), "{dialect}: {sent:#}");
        let order: Vec<&str> = match dialect {
            "openai" | "ollama" => sent["messages"]
                .as_array()
                .expect("messages")
                .iter()
                .map(|m| m["role"].as_str().expect("a role"))
                .collect(),
            "responses" => sent["input"]
                .as_array()
                .expect("items")
                .iter()
                .map(|i| i["type"].as_str().expect("a type"))
                .collect(),
            _ => sent["contents"][2]["parts"]
                .as_array()
                .expect("parts")
                .iter()
                .map(|p| p.as_object().expect("a part").keys().next().expect("a key").as_str())
                .collect(),
        };
        let want: &[&str] = match dialect {
            "openai" => &["user", "assistant", "tool", "tool", "user", "user"],
            "ollama" => &["user", "assistant", "tool", "tool", "user"],
            "responses" => &[
                "message",
                "function_call",
                "function_call",
                "function_call_output",
                "function_call_output",
                "message",
            ],
            // A model of which nothing is known gets media after the results.
            _ => &["functionResponse", "functionResponse", "inlineData", "text"],
        };
        assert_eq!(order, want, "{dialect}: {sent:#}");
    }
}

#[test]
fn stream_split_at_every_byte_is_read() {
    for upstream in DIALECTS {
        let bytes = stream_events(upstream, &["zażółć ", "🎉", " gęślą"]).concat().into_bytes();
        let kind = if upstream == "ollama" { "application/x-ndjson" } else { "text/event-stream" };
        let (_upstream, proxy) =
            proxy_before(upstream, vec![Scene::stream(kind, bytes.iter().map(|byte| vec![*byte]))]);
        for client in DIALECTS {
            assert_eq!(
                ask_and_read(&proxy, client, true),
                ReadAnswer::text("zażółć 🎉 gęślą"),
                "{client} over {upstream}"
            );
        }
    }
}

#[test]
fn gemini_clients_work_over_every_upstream() {
    for upstream in ["openai", "responses", "anthropic", "ollama"] {
        let (_upstream, proxy) = proxy_before(
            upstream,
            vec![
                full_scene(upstream, "one"),
                stream_scene(upstream, &["t", "wo"]),
                stream_scene(upstream, &["th", "ree"]),
            ],
        );
        let body = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 50}});
        let post =
            |action: &str| proxy.send(&Request::post(&format!("/v1beta/models/m:{action}"), &body));

        let whole = post("generateContent");
        assert_eq!(read_answer("gemini", false, &whole), ReadAnswer::text("one"), "{upstream}");
        assert_eq!(whole.json()["modelVersion"], "m");
        assert!(
            whole.json()["usageMetadata"]["totalTokenCount"]
                .as_u64()
                .is_some_and(|total| total == 12),
            "{}",
            whole.text()
        );

        let sse = post("streamGenerateContent?alt=sse");
        assert_eq!(read_answer("gemini", true, &sse), ReadAnswer::text("two"), "{upstream}");
        assert!(
            sse.text().lines().all(|line| line.is_empty() || line.starts_with("data: ")),
            "{}",
            sse.text()
        );

        let array = post("streamGenerateContent");
        assert!(array.json().is_array(), "{upstream}: {}", array.text());
        assert_eq!(read_answer("gemini", false, &array), ReadAnswer::text("three"), "{upstream}");
    }
}

#[test]
fn cut_call_is_never_written_as_complete() {
    let call = |arguments: &str| {
        let call = json!({"index": 0, "id": "c", "type": "function", "function": {"name": "weather", "arguments": arguments}});
        chunk(&json!({ "tool_calls": [call] }), None)
    };
    for client in DIALECTS {
        for stream in [true, false] {
            let end = || "data: [DONE]\n\n".to_owned();
            let half = Scene::events([call("{\"city\": \"Z"), end()]);
            let (_upstream, proxy) = proxy_before("openai", vec![half; 6]);
            let reported = ask_and_read(&proxy, client, stream);
            assert!(
                reported.error.is_some() && !reported.success,
                "{client} {stream}: {reported:?}"
            );

            let rest = chunk(
                &json!({"tool_calls": [{"index": 0, "function": {"arguments": "\"Z\"}"}}]}),
                None,
            );
            let (_upstream, proxy) =
                proxy_before("openai", vec![Scene::events([call("{\"city\": "), rest, end()])]);
            let reported = ask_and_read(&proxy, client, stream);
            assert_eq!(
                (&reported.error, reported.calls),
                (&None, vec![("weather".to_owned(), json!({"city": "Z"}))]),
                "{client} {stream}"
            );
        }
    }
}

#[test]
fn split_character_is_joined_for_every_client() {
    for client in DIALECTS {
        for stream in [true, false] {
            let halves = ["\\ud83c", "\\udf89"]
                .map(|half| chunk(&json!({"content": "HALF"}), None).replace("HALF", half));
            let pieces = halves
                .into_iter()
                .chain([chunk(&json!({}), Some("stop")), "data: [DONE]\n\n".to_owned()]);
            let (_upstream, proxy) = proxy_before("openai", vec![Scene::events(pieces)]);
            if (client, stream) == ("openai", true) {
                continue; // Its bytes pass as they came.
            }
            let reported = ask_and_read(&proxy, client, stream);
            assert_eq!(
                (reported.text.as_str(), reported.error),
                ("\u{1f389}", None),
                "{client} {stream}"
            );
        }
    }
}

#[test]
fn gemini_array_becomes_events_and_a_cut_one_is_an_error() {
    let part = |text: &str, finish: Option<&str>| {
        let content = json!({"role": "model", "parts": [{ "text": text }]});
        json!({"candidates": [{"content": content, "index": 0, "finishReason": finish}]})
    };
    let whole = json!([part("a", None), part("b", Some("STOP"))]);
    let cut = json!([part("a", None), part("b", None)]);
    let failed = json!([part("a", None), {"error": {"code": 503, "message": "all busy", "status": "UNAVAILABLE"}}]);
    for client in DIALECTS {
        let (_upstream, proxy) = proxy_before("gemini", vec![Scene::json(200, &whole)]);
        let reported = ask_and_read(&proxy, client, true);
        assert_eq!(
            (reported.text.as_str(), reported.success, reported.error),
            ("ab", true, None),
            "{client}"
        );
        for (bad, words) in [(&cut, "before the answer was complete"), (&failed, "all busy")] {
            let (_upstream, proxy) = proxy_before("gemini", vec![Scene::json(200, bad); 6]);
            let answer = chat_request(client, true, "hi").bearer(CLIENT_KEY).send(proxy.addr);
            let reported = read_answer(client, answer.status == 200, &answer);
            assert!(
                !reported.success
                    && reported.error.as_ref().is_some_and(|error| error.contains(words)),
                "{client}: {reported:?}"
            );
        }
    }
}

#[test]
fn mid_stream_errors_have_their_code() {
    for (client, code, want) in [
        ("anthropic", "insufficient_quota", "billing_error"),
        ("anthropic", "rate_limit_exceeded", "rate_limit_error"),
        ("responses", "rate_limit_exceeded", "\"code\":\"rate_limit_exceeded\""),
    ] {
        let error = format!(
            "data: {}\n\n",
            json!({"error": {"message": "no more", "type": code, "code": code}})
        );
        let (_upstream, proxy) = proxy_before(
            "openai",
            vec![Scene::events([chunk(&json!({"content": "a"}), None), error])],
        );
        let answer = chat_request(client, true, "hi").bearer(CLIENT_KEY).send(proxy.addr);
        assert!(answer.text().contains(want), "{client} {code}: {}", answer.text());
    }
}
