//! The cases of the Open Responses compliance suite, over HTTP and WebSocket, for every kind of
//! upstream. The shapes follow the published schema: <https://www.openresponses.org/specification>.

use serde_json::{Value, json};

use super::scenes::{DIALECTS, anthropic_message, full_scene, response};
use crate::{
    support::{
        client::Request,
        proxy::{CLIENT_KEY, Proxy, Setup},
        upstream::{Scene, Upstream},
    },
    websocket::connect,
};

/// The members that objects must have: name and type. A type is `string`, `integer`, `number`,
/// `boolean`, `object`, `any`, a list of one in brackets, one of some words between bars, or an
/// object named here; `?` allows null.
const SHAPES: &[(&str, &[(&str, &str)])] = &[
    (
        "response",
        &[
            ("id", "string"),
            ("object", "|response|"),
            ("created_at", "integer"),
            ("completed_at", "integer?"),
            ("status", "string"),
            ("incomplete_details", "incomplete?"),
            ("model", "string"),
            ("previous_response_id", "string?"),
            ("instructions", "string?"),
            ("output", "[item]"),
            ("error", "error?"),
            ("tools", "[tool]"),
            ("tool_choice", "any"),
            ("truncation", "|auto|disabled|"),
            ("parallel_tool_calls", "boolean"),
            ("text", "text"),
            ("top_p", "number"),
            ("presence_penalty", "number"),
            ("frequency_penalty", "number"),
            ("top_logprobs", "integer"),
            ("temperature", "number"),
            ("reasoning", "reasoning_settings?"),
            ("usage", "usage?"),
            ("max_output_tokens", "integer?"),
            ("max_tool_calls", "integer?"),
            ("store", "boolean"),
            ("background", "boolean"),
            ("service_tier", "string"),
            ("metadata", "any"),
            ("safety_identifier", "string?"),
            ("prompt_cache_key", "string?"),
        ],
    ),
    ("incomplete", &[("reason", "string")]),
    ("error", &[("code", "string"), ("message", "string")]),
    (
        "tool",
        &[
            ("type", "|function|"),
            ("name", "string"),
            ("description", "string?"),
            ("parameters", "object?"),
            ("strict", "boolean?"),
        ],
    ),
    ("text", &[("format", "format")]),
    ("format", &[("type", "|text|json_object|json_schema|")]),
    ("reasoning_settings", &[("effort", "string?"), ("summary", "string?")]),
    (
        "usage",
        &[
            ("input_tokens", "integer"),
            ("output_tokens", "integer"),
            ("total_tokens", "integer"),
            ("input_tokens_details", "input_details"),
            ("output_tokens_details", "output_details"),
        ],
    ),
    ("input_details", &[("cached_tokens", "integer")]),
    ("output_details", &[("reasoning_tokens", "integer")]),
    (
        "message",
        &[
            ("id", "string"),
            ("status", "|in_progress|completed|incomplete|"),
            ("role", "|assistant|"),
            ("content", "[part]"),
        ],
    ),
    (
        "function_call",
        &[
            ("id", "string"),
            ("call_id", "string"),
            ("name", "string"),
            ("arguments", "string"),
            ("status", "|in_progress|completed|incomplete|"),
        ],
    ),
    ("reasoning", &[("id", "string"), ("summary", "[part]")]),
    ("output_text", &[("text", "string"), ("annotations", "[annotation]")]),
    ("summary_text", &[("text", "string")]),
    ("reasoning_text", &[("text", "string")]),
    ("refusal", &[("refusal", "string")]),
    (
        "url_citation",
        &[
            ("url", "string"),
            ("title", "string"),
            ("start_index", "integer"),
            ("end_index", "integer"),
        ],
    ),
    ("response.created", &[("response", "response")]),
    ("response.in_progress", &[("response", "response")]),
    ("response.completed", &[("response", "response")]),
    ("response.incomplete", &[("response", "response")]),
    ("response.output_item.added", &[("output_index", "integer"), ("item", "item")]),
    ("response.output_item.done", &[("output_index", "integer"), ("item", "item")]),
    ("response.content_part.added", PART_EVENT),
    ("response.content_part.done", PART_EVENT),
    ("response.reasoning_summary_part.added", SUMMARY_PART_EVENT),
    ("response.reasoning_summary_part.done", SUMMARY_PART_EVENT),
    (
        "response.output_text.delta",
        &[
            ("item_id", "string"),
            ("output_index", "integer"),
            ("content_index", "integer"),
            ("delta", "string"),
        ],
    ),
    (
        "response.output_text.done",
        &[
            ("item_id", "string"),
            ("output_index", "integer"),
            ("content_index", "integer"),
            ("text", "string"),
        ],
    ),
    (
        "response.reasoning_summary_text.delta",
        &[
            ("item_id", "string"),
            ("output_index", "integer"),
            ("summary_index", "integer"),
            ("delta", "string"),
        ],
    ),
    (
        "response.reasoning_summary_text.done",
        &[
            ("item_id", "string"),
            ("output_index", "integer"),
            ("summary_index", "integer"),
            ("text", "string"),
        ],
    ),
    (
        "response.function_call_arguments.delta",
        &[("item_id", "string"), ("output_index", "integer"), ("delta", "string")],
    ),
    (
        "response.function_call_arguments.done",
        &[("item_id", "string"), ("output_index", "integer"), ("arguments", "string")],
    ),
    (
        "response.output_text.annotation.added",
        &[
            ("item_id", "string"),
            ("output_index", "integer"),
            ("content_index", "integer"),
            ("annotation_index", "integer"),
            ("annotation", "annotation?"),
        ],
    ),
];

const PART_EVENT: &[(&str, &str)] = &[
    ("item_id", "string"),
    ("output_index", "integer"),
    ("content_index", "integer"),
    ("part", "part"),
];
const SUMMARY_PART_EVENT: &[(&str, &str)] = &[
    ("item_id", "string"),
    ("output_index", "integer"),
    ("summary_index", "integer"),
    ("part", "part"),
];

/// Collects what in a value does not have its type.
fn check(value: &Value, kind: &str, place: &str, wrong: &mut Vec<String>) {
    if let Some(kind) = kind.strip_suffix('?') {
        if !value.is_null() {
            check(value, kind, place, wrong);
        }
        return;
    }
    if let Some(of) = kind.strip_prefix('[') {
        let Some(list) = value.as_array() else {
            return wrong.push(format!("{place} is no list: {value}"));
        };
        for (index, entry) in list.iter().enumerate() {
            check(entry, of.trim_end_matches(']'), &format!("{place}[{index}]"), wrong);
        }
        return;
    }
    let fits = match kind {
        "any" => true,
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        words if words.starts_with('|') => {
            value.as_str().is_some_and(|word| words.split('|').any(|known| known == word))
        }
        "item" | "part" | "annotation" => {
            let kind = value["type"].as_str().unwrap_or_default();
            return check_members(value, kind, place, wrong);
        }
        name => return check_members(value, name, place, wrong),
    };
    if !fits {
        wrong.push(format!("{place} is no {kind}: {value}"));
    }
}

fn check_members(value: &Value, name: &str, place: &str, wrong: &mut Vec<String>) {
    let Some((_, members)) = SHAPES.iter().find(|(known, _)| *known == name) else {
        return wrong.push(format!("{place} has the unknown type `{name}`"));
    };
    for (member, kind) in *members {
        match value.get(*member) {
            Some(found) => check(found, kind, &format!("{place}.{member}"), wrong),
            None => wrong.push(format!("{place}.{member} is missing")),
        }
    }
}

fn assert_shape(value: &Value, kind: &str, what: &str) {
    let mut wrong = Vec::new();
    check(value, kind, kind, &mut wrong);
    assert_eq!(wrong, Vec::<String>::new(), "{what}");
}

/// The requests of the suite, and the type of the item that each must bring.
fn cases() -> Vec<(&'static str, Value, &'static str)> {
    let user = |content: Value| json!({"type": "message", "role": "user", "content": content});
    let picture = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let weather = json!({"type": "function", "name": "get_weather", "description": "Weather of a place",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}});
    vec![
        ("text", json!({"input": [user(json!("Say hello."))]}), "message"),
        (
            "system",
            json!({"input": [{"type": "message", "role": "system", "content": "Be brief."}, user(json!("Hello"))]}),
            "message",
        ),
        (
            "tools",
            json!({"input": [user(json!("Weather in Paris?"))], "tools": [weather]}),
            "function_call",
        ),
        (
            "image",
            json!({"input": [user(json!([{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": picture}]))]}),
            "message",
        ),
        (
            "turns",
            json!({"input": [user(json!("My name is Ada.")), {"type": "message", "role": "assistant", "content": "Hello Ada."}, user(json!("My name?"))]}),
            "message",
        ),
    ]
}

/// The answer of an upstream to one of the cases.
fn scene(dialect: &str, wanted: &str) -> Scene {
    if wanted == "message" {
        return match dialect {
            "responses" => Scene::json(
                200,
                &own_response(&json!([{"type": "message", "id": "msg_1", "role": "assistant",
                "status": "completed", "content": [{"type": "output_text", "text": "hello", "annotations": []}]}])),
            ),
            _ => full_scene(dialect, "hello"),
        };
    }
    let arguments = r#"{"location":"Paris"}"#;
    Scene::json(
        200,
        &match dialect {
            "openai" => {
                json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,
                "message": {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function",
                    "function": {"name": "get_weather", "arguments": arguments}}]}, "finish_reason": "tool_calls"}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}})
            }
            "anthropic" => anthropic_message(
                &json!([{"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"location": "Paris"}}]),
                "tool_use",
            ),
            "gemini" => {
                json!({"candidates": [{"content": {"role": "model", "parts": [{"functionCall": {"name": "get_weather",
                "args": {"location": "Paris"}}}]}, "finishReason": "STOP", "index": 0}],
                "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}})
            }
            "ollama" => {
                json!({"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": "",
                "tool_calls": [{"function": {"name": "get_weather", "arguments": {"location": "Paris"}}}]},
                "done": true, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 5})
            }
            _ => own_response(
                &json!([{"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "get_weather",
                "arguments": arguments, "status": "completed"}]),
            ),
        },
    )
}

/// A response of a provider that complies itself.
fn own_response(output: &Value) -> Value {
    let mut body = response(output);
    let more = json!({"completed_at": 2, "incomplete_details": null, "previous_response_id": null, "instructions": null,
        "error": null, "tools": [], "tool_choice": "auto", "truncation": "disabled", "parallel_tool_calls": true,
        "text": {"format": {"type": "text"}}, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "top_logprobs": 0, "temperature": 1.0, "reasoning": {"effort": null, "summary": null}, "max_output_tokens": null,
        "max_tool_calls": null, "store": true, "background": false, "service_tier": "default", "metadata": {},
        "safety_identifier": null, "prompt_cache_key": null});
    body["usage"]["input_tokens_details"] = json!({"cached_tokens": 0});
    body["usage"]["output_tokens_details"] = json!({"reasoning_tokens": 0});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

fn check_response(response: &Value, wanted: &str, what: &str) {
    assert_shape(response, "response", what);
    assert_eq!(response["status"], "completed", "{what}");
    let has = |kind: &str| {
        response["output"]
            .as_array()
            .is_some_and(|items| items.iter().any(|item| item["type"] == kind))
    };
    assert!(has(wanted), "{what}: {response:#}");
}

fn check_events(events: &[Value], wanted: &str, what: &str) {
    for (number, event) in events.iter().enumerate() {
        let kind = event["type"].as_str().unwrap_or_default();
        assert_shape(event, kind, what);
        assert_eq!(event["sequence_number"], number, "{what}: {event}");
    }
    let has = |kind: &str, item: &str| {
        events.iter().any(|event| {
            event["type"] == kind && (item.is_empty() || event["item"]["type"] == item)
        })
    };
    assert!(
        has("response.output_item.added", wanted) && has("response.output_item.done", wanted),
        "{what}"
    );
    if wanted == "function_call" {
        assert!(has("response.function_call_arguments.delta", ""), "{what}");
        assert!(has("response.function_call_arguments.done", ""), "{what}");
    }
    check_response(&events.last().expect("an end")["response"], wanted, what);
}

/// Asks in every way. Streams are asked for over HTTP only if the upstream's answers are one.
fn run_cases(proxy: &Proxy, model: &str, upstream: &str, streams: bool) {
    for (name, request, wanted) in cases() {
        let mut body = request.clone();
        body["model"] = json!(model);
        let what = format!("{upstream} {name}");
        let ask =
            |body: &Value| proxy.send(&Request::post("/v1/responses", body).bearer(CLIENT_KEY));
        let whole = ask(&body);
        assert_eq!(whole.status, 200, "{what}: {}", whole.text());
        check_response(&whole.json(), wanted, &what);
        if !streams {
            continue;
        }
        body["stream"] = json!(true);
        let events: Vec<Value> = crate::support::client::events(&ask(&body).body)
            .iter()
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect();
        check_events(&events, wanted, &format!("{what} streamed"));
        let mut client = connect(proxy);
        body["type"] = json!("response.create");
        body.as_object_mut().expect("an object").remove("stream");
        client.send(&body);
        check_events(&client.response(), wanted, &format!("{what} over a WebSocket"));
    }
}

#[test]
fn compliance_suite_passes_over_every_dialect() {
    for dialect in DIALECTS {
        // An upstream that answers a streamed request in one piece streams all the same.
        let upstream = Upstream::with_director(move |request, _| {
            let has_tools = String::from_utf8_lossy(&request.body).contains("get_weather");
            scene(dialect, if has_tools { "function_call" } else { "message" })
        });
        let proxy = Setup::new().upstream_with_dialect(dialect, "one", &upstream, "").start();
        run_cases(&proxy, "m", dialect, dialect != "responses");
    }
}

#[test]
fn compliance_suite_passes_over_the_demo() {
    let proxy = Setup::new().start();
    run_cases(&proxy, "demo/tools", "demo", true);
    run_cases(&proxy, "demo/think", "a model that thinks", true);
}

#[test]
fn errors_over_a_websocket_have_a_status_and_a_code() {
    let upstream = Upstream::start(vec![Scene::status(400)]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut client = connect(&proxy);

    client.create(&json!({"input": "hi", "generate": false}));
    check_events_without_output(&client.response());
    for message in [
        json!({"type": "response.create", "model": "m"}),
        json!({}),
        json!({"type": "response.create", "model": "m", "input": "hi"}),
    ] {
        client.send(&message);
        let error = client.response().pop().expect("an event");
        assert_eq!((&error["type"], &error["status"]), (&json!("error"), &json!(400)), "{error}");
        assert_shape(&error["error"], "error", &error.to_string());
    }
}

fn check_events_without_output(events: &[Value]) {
    for event in events {
        assert_shape(event, event["type"].as_str().unwrap_or_default(), "without output");
    }
    assert_eq!(events.last().expect("an end")["response"]["output"], json!([]));
}
