//! Tools of the Responses dialect over upstreams that support only functions (problem 17).

use serde_json::{Value, json};

use super::scenes::{anthropic_event, anthropic_message, full_scene, proxy_before, read_answer};
use crate::support::{
    client::{Request, events},
    upstream::{Scene, chunk},
};

const PATCH: &str =
    "*** Begin Patch\n*** Update File: a.rs\n-\"old\"\n+\"new\" \\ ü\n*** End Patch";

fn custom_tools() -> Value {
    json!([
        {"type": "custom", "name": "apply_patch", "description": "Patches files.", "format": {"type": "grammar", "syntax": "lark", "definition": "start: begin"}},
        {"type": "namespace", "name": "files", "description": "d", "tools": [{"type": "function", "name": "read", "parameters": {"type": "object"}}]},
        {"type": "web_search"}])
}

fn tool_call_scene(dialect: &str, name: &str, arguments: &Value) -> Scene {
    match dialect {
        "openai" => {
            let call = json!({"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments.to_string()}});
            Scene::json(
                200,
                &json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": null, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}),
            )
        }
        _ => Scene::json(
            200,
            &anthropic_message(
                &json!([{"type": "tool_use", "id": "c1", "name": name, "input": arguments}]),
                "tool_use",
            ),
        ),
    }
}

/// Returns name, description and schema of the first tool that the upstream received.
fn first_tool(dialect: &str, sent: &Value) -> (Value, Value, Value) {
    let tool = &sent["tools"][0];
    let (tool, schema) = if dialect == "openai" {
        (&tool["function"], "parameters")
    } else {
        (tool, "input_schema")
    };
    (tool["name"].clone(), tool["description"].clone(), tool[schema].clone())
}

#[test]
fn custom_tools_work_over_chat_and_anthropic_upstreams() {
    for dialect in ["openai", "anthropic"] {
        let (upstream, proxy) = proxy_before(
            dialect,
            vec![
                tool_call_scene(dialect, "apply_patch", &json!({"input": PATCH})),
                full_scene(dialect, "done"),
            ],
        );

        let first = proxy.send(&Request::post(
            "/v1/responses",
            &json!({"model": "m", "input": "fix", "tools": custom_tools()}),
        ));
        let call = first.json()["output"][0].clone();
        let next = json!({"model": "m", "tools": custom_tools(), "input": [{"role": "user", "content": "fix"}, call,
            {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "ok"}]});
        let second = proxy.send(&Request::post("/v1/responses", &next));

        assert_eq!(
            (&call["type"], &call["name"], &call["input"]),
            (&json!("custom_tool_call"), &json!("apply_patch"), &json!(PATCH)),
            "{dialect}"
        );
        let sent = upstream.nth_request(0).json();
        let (name, description, schema) = first_tool(dialect, &sent);
        assert_eq!(
            (&name, &schema["required"]),
            (&json!("apply_patch"), &json!(["input"])),
            "{sent:#}"
        );
        assert!(
            description.as_str().is_some_and(|text| text.contains("start: begin")),
            "{description}"
        );
        assert_eq!(read_answer("responses", false, &second).text, "done", "{}", second.text());
        let again = upstream.nth_request(1).json().to_string();
        assert!(again.contains("Begin Patch") && again.contains("\"ok\""), "{again}");
    }
}

#[test]
fn streamed_custom_call_arrives_as_free_text() {
    let arguments = json!({"input": PATCH}).to_string();
    let cuts: Vec<&str> = [0, 3, 11, 14, 30, 75, arguments.len()]
        .windows(2)
        .map(|pair| arguments.get(pair[0]..pair[1]).expect("a boundary"))
        .collect();
    let openai = {
        let call = |call: Value| chunk(&json!({"tool_calls": [call]}), None);
        let mut out = vec![call(
            json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "apply_patch", "arguments": ""}}),
        )];
        out.extend(
            cuts.iter().map(|cut| call(json!({"index": 0, "function": {"arguments": cut}}))),
        );
        out.extend([chunk(&json!({}), Some("tool_calls")), "data: [DONE]\n\n".to_owned()]);
        out
    };
    let anthropic = {
        let mut out = vec![
            anthropic_event(
                &json!({"type": "message_start", "message": anthropic_message(&json!([]), "tool_use")}),
            ),
            anthropic_event(
                &json!({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "c1", "name": "apply_patch", "input": {}}}),
            ),
        ];
        let delta = |cut: &&str| {
            anthropic_event(
                &json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": cut}}),
            )
        };
        out.extend(cuts.iter().map(delta));
        out.extend([
            anthropic_event(&json!({"type": "content_block_stop", "index": 0})),
            anthropic_event(&json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}})),
            anthropic_event(&json!({"type": "message_stop"})),
        ]);
        out
    };
    for (dialect, pieces) in [("openai", openai), ("anthropic", anthropic)] {
        let (_upstream, proxy) = proxy_before(dialect, vec![Scene::events(pieces)]);

        let body = json!({"model": "m", "input": "fix", "tools": custom_tools(), "stream": true});
        let answer = proxy.send(&Request::post("/v1/responses", &body));

        assert_eq!(
            read_answer("responses", true, &answer).calls,
            [("apply_patch".to_owned(), json!(PATCH))],
            "{dialect}"
        );
        let all: Vec<Value> = events(&answer.body)
            .iter()
            .map(|data| serde_json::from_str(data).expect("json"))
            .collect();
        let deltas =
            all.iter().filter(|event| event["type"] == "response.custom_tool_call_input.delta");
        assert_eq!(
            deltas.map(|event| event["delta"].as_str().unwrap_or_default()).collect::<String>(),
            PATCH,
            "{dialect}"
        );
    }
}

#[test]
fn namespaced_tools_round_trip_and_hosted_ones_are_losses() {
    let (upstream, proxy) = proxy_before(
        "openai",
        vec![tool_call_scene("openai", "files__read", &json!({"path": "a"}))],
    );

    let answer = proxy.send(&Request::post(
        "/v1/responses",
        &json!({"model": "m", "input": "fix", "tools": custom_tools()}),
    ));

    let sent = upstream.nth_request(0).json();
    assert_eq!(sent["tools"][1]["function"]["name"], "files__read", "{sent:#}");
    assert_eq!(
        answer.header("x-aiproxy-losses").map(|all| all.contains("tools.web_search")),
        Some(true),
        "{:?}",
        answer.headers
    );
    let call = &answer.json()["output"][0];
    assert_eq!(
        (&call["type"], &call["namespace"], &call["name"]),
        (&json!("function_call"), &json!("files"), &json!("read")),
        "{call:#}"
    );
}
