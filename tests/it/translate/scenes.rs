//! Scripted responses, requests and response readers for each dialect.

use serde_json::{Value, json};

use crate::support::{
    client::{HttpAnswer, Request, events},
    proxy::{CLIENT_KEY, Proxy, Setup},
    upstream::{Scene, Upstream, chunk},
};

pub(super) const DIALECTS: [&str; 5] = ["openai", "responses", "anthropic", "gemini", "ollama"];

/// Starts a proxy before one upstream of this dialect.
pub(super) fn proxy_before(dialect: &str, scenes: Vec<Scene>) -> (Upstream, Proxy) {
    proxy_before_with(dialect, scenes, "")
}

/// Starts the same with more lines of TOML for the upstream.
pub(super) fn proxy_before_with(
    dialect: &str,
    scenes: Vec<Scene>,
    more: &str,
) -> (Upstream, Proxy) {
    let upstream = Upstream::start(scenes);
    let proxy = Setup::new().upstream_with_dialect(dialect, "one", &upstream, more).start();
    (upstream, proxy)
}

/// Returns a server-sent event with a name.
pub(super) fn named_event(kind: &str, data: &Value) -> String {
    format!("event: {kind}\ndata: {data}\n\n")
}

/// Returns an Anthropic event, named after its type.
pub(super) fn anthropic_event(data: &Value) -> String {
    named_event(data["type"].as_str().expect("a type"), data)
}

/// Returns a complete upstream response with 7 input and 5 output tokens.
pub(super) fn full_scene(dialect: &str, text: &str) -> Scene {
    let body = match dialect {
        "openai" => {
            json!({"id": "chatcmpl-up", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}})
        }
        "responses" => response(
            &json!([{"type": "message", "id": "msg_up", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}]}]),
        ),
        "anthropic" => anthropic_message(&json!([{"type": "text", "text": text}]), "end_turn"),
        "gemini" => {
            json!({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}, "modelVersion": "m"})
        }
        _ => {
            json!({"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": text}, "done": true,
            "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 5})
        }
    };
    Scene::json(200, &body)
}

/// Returns a Responses object with this output.
pub(super) fn response(output: &Value) -> Value {
    json!({"id": "resp_up", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": output,
        "usage": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}})
}

/// Returns an Anthropic message with this content.
pub(super) fn anthropic_message(content: &Value, reason: &str) -> Value {
    json!({"id": "msg_up", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": reason,
        "stop_sequence": null, "usage": {"input_tokens": 7, "output_tokens": 5}})
}

/// Returns the events of an Anthropic stream with these texts in one block.
pub(super) fn anthropic_events(texts: &[&str]) -> Vec<String> {
    let mut out = vec![
        anthropic_event(
            &json!({"type": "message_start", "message": anthropic_message(&json!([]), "end_turn")}),
        ),
        anthropic_event(
            &json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        ),
    ];
    out.extend(
        texts.iter().map(|text| anthropic_event(&json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}))),
    );
    out.push(anthropic_event(&json!({"type": "content_block_stop", "index": 0})));
    out.push(anthropic_event(
        &json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": 5}}),
    ));
    out.push(anthropic_event(&json!({"type": "message_stop"})));
    out
}

/// Returns the events of a stream of this dialect with these texts.
pub(super) fn stream_events(dialect: &str, texts: &[&str]) -> Vec<String> {
    match dialect {
        "openai" => {
            let mut out = vec![chunk(&json!({"role": "assistant", "content": ""}), None)];
            out.extend(texts.iter().map(|text| chunk(&json!({"content": text}), None)));
            out.push(chunk(&json!({}), Some("stop")));
            out.push("data: [DONE]\n\n".to_owned());
            out
        }
        "responses" => {
            let all = texts.concat();
            let part = json!({"type": "output_text", "text": all, "annotations": []});
            let item = json!({"type": "message", "id": "msg_up", "role": "assistant", "status": "completed", "content": [part]});
            let mut out = vec![
                anthropic_event(
                    &json!({"type": "response.created", "sequence_number": 0, "response": {"id": "resp_up", "model": "m", "status": "in_progress", "output": []}}),
                ),
                anthropic_event(
                    &json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "msg_up", "role": "assistant", "content": []}}),
                ),
            ];
            out.extend(texts.iter().map(|text| {
                anthropic_event(&json!({"type": "response.output_text.delta", "item_id": "msg_up", "output_index": 0, "content_index": 0, "delta": text}))
            }));
            out.push(anthropic_event(
                &json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
            ));
            out.push(anthropic_event(
                &json!({"type": "response.completed", "response": response(&json!([item]))}),
            ));
            out
        }
        "anthropic" => anthropic_events(texts),
        "gemini" => {
            let chunk = |part: Value, finish: Value| {
                format!(
                    "data: {}\n\n",
                    json!({"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": finish, "index": 0}],
                "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}, "modelVersion": "m"})
                )
            };
            let mut out: Vec<String> =
                texts.iter().map(|text| chunk(json!({"text": text}), Value::Null)).collect();
            out.push(chunk(json!({"text": ""}), json!("STOP")));
            out
        }
        _ => {
            let line = |text: &str, done: bool| {
                format!(
                    "{}\n",
                    json!({"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": text}, "done": done,
                    "done_reason": done.then_some("stop"), "prompt_eval_count": 7, "eval_count": 5})
                )
            };
            let mut out: Vec<String> = texts.iter().map(|text| line(text, false)).collect();
            out.push(line("", true));
            out
        }
    }
}

/// Returns a stream of this dialect with these texts, one event per piece.
pub(super) fn stream_scene(dialect: &str, texts: &[&str]) -> Scene {
    Scene::stream(
        if dialect == "ollama" { "application/x-ndjson" } else { "text/event-stream" },
        stream_events(dialect, texts),
    )
}

/// Returns a chat request for model `m` in this dialect.
pub(super) fn chat_request(dialect: &str, stream: bool, prompt: &str) -> Request {
    let messages = json!([{"role": "user", "content": prompt}]);
    match dialect {
        "openai" => Request::post(
            "/v1/chat/completions",
            &json!({"model": "m", "messages": messages, "stream": stream}),
        ),
        "responses" => Request::post(
            "/v1/responses",
            &json!({"model": "m", "input": prompt, "stream": stream}),
        ),
        "anthropic" => Request::post(
            "/v1/messages",
            &json!({"model": "m", "max_tokens": 500, "messages": messages, "stream": stream}),
        ),
        "gemini" => {
            let action = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
            Request::post(
                &format!("/v1beta/models/m:{action}"),
                &json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}]}),
            )
        }
        _ => Request::post(
            "/api/chat",
            &json!({"model": "m", "messages": messages, "stream": stream}),
        ),
    }
}

/// A response as parsed by a client of this dialect.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ReadAnswer {
    pub(super) text: String,
    pub(super) reasoning: String,
    /// Tool calls: names and arguments.
    pub(super) calls: Vec<(String, Value)>,
    /// The response has a terminal event or a finish that means success.
    pub(super) success: bool,
    pub(super) error: Option<String>,
}

impl ReadAnswer {
    pub(super) fn text(text: &str) -> Self {
        Self { text: text.to_owned(), success: true, ..Self::default() }
    }
}

fn as_text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Parses a response as a client of this dialect does.
pub(super) fn read_answer(dialect: &str, streamed: bool, answer: &HttpAnswer) -> ReadAnswer {
    let parts: Vec<Value> = match (dialect, streamed) {
        ("ollama", true) => answer
            .text()
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).expect("json"))
            .collect(),
        (_, true) => events(&answer.body)
            .iter()
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).expect("json"))
            .collect(),
        _ => vec![answer.json()],
    };
    let mut heard = ReadAnswer::default();
    match dialect {
        "openai" => openai(&parts, answer, streamed, &mut heard),
        "responses" => responses(&parts, &mut heard),
        "anthropic" => anthropic(&parts, streamed, &mut heard),
        "gemini" => gemini(&parts, &mut heard),
        _ => ollama(&parts, &mut heard),
    }
    let error = parts.iter().find_map(|part| part.get("error").filter(|error| !error.is_null()));
    heard.error = heard.error.or_else(|| {
        error.map(|error| {
            error["message"].as_str().or(error.as_str()).unwrap_or_default().to_owned()
        })
    });
    heard
}

fn arguments(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

fn openai(parts: &[Value], answer: &HttpAnswer, streamed: bool, heard: &mut ReadAnswer) {
    let mut calls: Vec<(String, String)> = Vec::new();
    for choice in parts.iter().map(|part| &part["choices"][0]) {
        let printed = if streamed { &choice["delta"] } else { &choice["message"] };
        heard.text += as_text(&printed["content"]);
        heard.reasoning += as_text(&printed["reasoning_content"]);
        for (at, call) in printed["tool_calls"].as_array().into_iter().flatten().enumerate() {
            let at = call["index"].as_u64().map_or(at, |at| at as usize);
            calls.resize(calls.len().max(at + 1), Default::default());
            calls[at].0 += as_text(&call["function"]["name"]);
            calls[at].1 += as_text(&call["function"]["arguments"]);
        }
        heard.success |= choice["finish_reason"].is_string();
    }
    if streamed {
        heard.success = events(&answer.body).iter().any(|data| data == "[DONE]");
    }
    heard.calls = calls.into_iter().map(|(name, text)| (name, arguments(&text))).collect();
}

fn responses(parts: &[Value], heard: &mut ReadAnswer) {
    for part in parts {
        let object = match as_text(&part["type"]) {
            "" => part,
            "response.completed" | "response.failed" => &part["response"],
            "error" => {
                heard.error = Some(as_text(&part["message"]).to_owned());
                continue;
            }
            _ => continue,
        };
        heard.success |= object["status"] == "completed";
        heard.error = object["error"]["message"].as_str().map(str::to_owned);
        for item in object["output"].as_array().into_iter().flatten() {
            match as_text(&item["type"]) {
                "message" => item["content"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .for_each(|part| heard.text += as_text(&part["text"])),
                "reasoning" => {
                    let both = [&item["summary"], &item["content"]];
                    both.into_iter()
                        .flat_map(|list| list.as_array().into_iter().flatten())
                        .for_each(|part| heard.reasoning += as_text(&part["text"]));
                }
                "function_call" => heard.calls.push((
                    as_text(&item["name"]).to_owned(),
                    arguments(as_text(&item["arguments"])),
                )),
                "custom_tool_call" => {
                    heard.calls.push((as_text(&item["name"]).to_owned(), item["input"].clone()));
                }
                _ => {}
            }
        }
    }
}

fn anthropic(parts: &[Value], streamed: bool, heard: &mut ReadAnswer) {
    let mut open: Vec<(Value, String)> = Vec::new();
    for part in parts {
        match as_text(&part["type"]) {
            "message" => {
                heard.success = part["stop_reason"].is_string();
                open = part["content"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|block| (block.clone(), String::new()))
                    .collect();
            }
            "content_block_start" => open.push((part["content_block"].clone(), String::new())),
            "content_block_delta" => {
                let at = part["index"].as_u64().expect("an index") as usize;
                let delta = &part["delta"];
                for key in ["text", "thinking", "partial_json"] {
                    open[at].1 += as_text(&delta[key]);
                }
            }
            "message_stop" => heard.success = true,
            _ => {}
        }
    }
    for (block, more) in open {
        match as_text(&block["type"]) {
            "text" => heard.text += &(as_text(&block["text"]).to_owned() + &more),
            "thinking" => heard.reasoning += &(as_text(&block["thinking"]).to_owned() + &more),
            "tool_use" => {
                let input = if streamed {
                    arguments(if more.is_empty() { "{}" } else { &more })
                } else {
                    block["input"].clone()
                };
                heard.calls.push((as_text(&block["name"]).to_owned(), input));
            }
            _ => {}
        }
    }
}

fn gemini(parts: &[Value], heard: &mut ReadAnswer) {
    let parts = parts
        .iter()
        .flat_map(|part| part.as_array().cloned().unwrap_or_else(|| vec![part.clone()]));
    for candidate in parts.map(|part| part["candidates"][0].clone()) {
        for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
            if part["thought"] == true {
                heard.reasoning += as_text(&part["text"]);
            } else if let Some(call) = part.get("functionCall") {
                heard.calls.push((as_text(&call["name"]).to_owned(), call["args"].clone()));
            } else {
                heard.text += as_text(&part["text"]);
            }
        }
        heard.success |= candidate["finishReason"].is_string();
    }
}

fn ollama(parts: &[Value], heard: &mut ReadAnswer) {
    for part in parts {
        heard.text += as_text(&part["message"]["content"]);
        heard.reasoning += as_text(&part["message"]["thinking"]);
        for call in part["message"]["tool_calls"].as_array().into_iter().flatten() {
            heard.calls.push((
                as_text(&call["function"]["name"]).to_owned(),
                call["function"]["arguments"].clone(),
            ));
        }
        heard.success |= part["done"] == true;
    }
}

/// Sends a request and parses the response.
pub(super) fn ask_and_read(proxy: &Proxy, dialect: &str, stream: bool) -> ReadAnswer {
    let answer = chat_request(dialect, stream, "hi").bearer(CLIENT_KEY).send(proxy.addr);
    read_answer(dialect, stream, &answer)
}
