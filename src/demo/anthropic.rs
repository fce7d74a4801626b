//! Speaks Anthropic's Messages.

use http::StatusCode;
use serde_json::Value;

use super::{
    Call, Refusal,
    asked::{Asked, Choice, Tool, text_of, weigh},
    json::{Json, object},
    models::{self, Kind, Model},
    reply::{Piece, Reply, SSE},
    script::{self, Finish, PROOF, Said},
};

pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    match (call.get, call.path) {
        (true, "models") => Ok(Reply::json(list())),
        (true, path) if path.starts_with("models/") => {
            let model = models::find(&path["models/".len()..]).ok_or_else(|| call.unknown())?;
            Ok(Reply::json(card(model)))
        }
        (false, "messages") => messages(call),
        (false, "messages/count_tokens") => {
            call.model(Kind::Chat)?;
            Ok(Reply::json(object! { "input_tokens": weight(call.body) }))
        }
        _ => Err(call.unknown()),
    }
}

pub(super) fn error(refusal: &Refusal) -> Json {
    let kind = match refusal.status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    object! { "type": "error", "error": object! { "type": kind, "message": &refusal.message }, "request_id": Json::NULL }
}

fn list() -> Json {
    let rows = models::ALL.iter().map(card).collect::<Vec<_>>();
    let end = |model: Option<&Model>| model.map(|model| model.name);
    object! { "data": rows, "has_more": false, "first_id": end(models::ALL.first()), "last_id": end(models::ALL.last()) }
}

fn card(model: &Model) -> Json {
    object! {
        "type": "model",
        "id": model.name,
        "display_name": model.about,
        "created_at": "2026-01-01T00:00:00Z",
        "max_input_tokens": models::CONTEXT,
        "max_tokens": models::OUTPUT,
    }
}

fn weight(body: &Value) -> u64 {
    weigh(&[&body["system"], &body["messages"], &body["tools"]]).max(1)
}

fn messages(call: &Call<'_>) -> Result<Reply, Refusal> {
    let model = call.model(Kind::Chat)?;
    let asked = read(call.body)?;
    let said = script::say(model, &asked, call)?;
    if asked.stream {
        return Ok(Reply::stream(&said, SSE, events(call, model.name, &said)));
    }
    let block = said.call.as_ref().map_or_else(
        || object! { "type": "text", "text": said.text() },
        |tool| object! { "type": "tool_use", "id": call.id("toolu_"), "name": &tool.name, "input": &tool.arguments },
    );
    let thought = said
        .thought
        .as_ref()
        .map(|thought| object! { "type": "thinking", "thinking": thought, "signature": PROOF });
    let (reason, sequence) = finish(&said);
    Ok(Reply::whole(
        &said,
        message(
            call,
            model.name,
            thought.into_iter().chain([block]).collect(),
            Some(reason),
            sequence,
            usage(said.input, said.output),
        ),
    ))
}

fn read(body: &Value) -> Result<Asked, Refusal> {
    let bad = |text: &str| Refusal::new(StatusCode::BAD_REQUEST, text);
    let messages = body["messages"].as_array().filter(|messages| !messages.is_empty());
    let messages = messages.ok_or_else(|| bad("messages: at least one message is required"))?;
    let limit = body["max_tokens"].as_u64().ok_or_else(|| bad("max_tokens: Field required"))?;
    let tools = body["tools"].as_array().into_iter().flatten().filter_map(|tool| {
        // The provider's own tools have no schema; nobody could call them here.
        Some(Tool {
            name: tool["name"].as_str()?.to_owned(),
            schema: tool.get("input_schema")?.clone(),
        })
    });
    let schema = [&body["output_config"]["format"]["schema"], &body["output_format"]["schema"]];
    let mut asked = Asked {
        tools: tools.collect(),
        choice: match (body["tool_choice"]["type"].as_str(), body["tool_choice"]["name"].as_str()) {
            (Some("none"), _) => Choice::Never,
            (Some("tool"), Some(name)) => Choice::Named(name.to_owned()),
            _ => Choice::Free,
        },
        format: schema.into_iter().find(|schema| schema.is_object()).cloned(),
        limit: Some(limit),
        input: weight(body),
        stream: body["stream"].as_bool() == Some(true),
        ..Asked::default()
    };
    asked.stops(&body["stop_sequences"]);
    let thoughts =
        messages.iter().flat_map(|message| message["content"].as_array().into_iter().flatten());
    asked.proven = thoughts
        .filter(|block| block["type"] == "thinking")
        .any(|block| block["signature"] == PROOF);
    for message in messages.iter().filter(|message| message["role"] == "user") {
        let content = &message["content"];
        let result =
            content.as_array().into_iter().flatten().rfind(|block| block["type"] == "tool_result");
        match result {
            Some(block) => asked.result(text_of(&block["content"])),
            None => asked.user(text_of(content)),
        }
    }
    Ok(asked)
}

fn message(
    call: &Call<'_>,
    model: &str,
    content: Vec<Json>,
    reason: Option<&str>,
    sequence: Option<&String>,
    usage: Json,
) -> Json {
    object! {
        "model": model,
        "id": call.id("msg_"),
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage,
    }
}

fn finish(said: &Said) -> (&'static str, Option<&String>) {
    match &said.finish {
        Finish::Length => ("max_tokens", None),
        Finish::Stop => ("end_turn", None),
        Finish::Stopped(sequence) => ("stop_sequence", Some(sequence)),
        Finish::Tool => ("tool_use", None),
    }
}

fn usage(input: u64, output: u64) -> Json {
    object! {
        "input_tokens": input,
        "cache_creation_input_tokens": 0_u64,
        "cache_read_input_tokens": 0_u64,
        "cache_creation": object! { "ephemeral_5m_input_tokens": 0_u64, "ephemeral_1h_input_tokens": 0_u64 },
        "output_tokens": output,
        "service_tier": "standard",
    }
}

fn events(call: &Call<'_>, model: &str, said: &Said) -> Vec<Piece> {
    let number = u64::from(said.thought.is_some());
    let at = |index: u64, delta: Json| {
        event("content_block_delta", vec![("index", index.into()), ("delta", delta)])
    };
    let delta = |delta: Json| at(number, delta);
    let begin = message(call, model, Vec::new(), None, None, usage(said.input, 1));
    let block = said.call.as_ref().map_or_else(
        || object! { "type": "text", "text": "" },
        |tool| object! { "type": "tool_use", "id": call.id("toolu_"), "name": &tool.name, "input": Json::empty() },
    );
    let mut out = vec![
        Piece::now(event("message_start", vec![("message", begin)])),
        Piece::now(event("ping", Vec::new())),
    ];
    if let Some(thought) = &said.thought {
        let open = object! { "type": "thinking", "thinking": "", "signature": "" };
        out.push(Piece::now(event(
            "content_block_start",
            vec![("index", 0_u64.into()), ("content_block", open)],
        )));
        out.push(Piece::now(at(0, object! { "type": "thinking_delta", "thinking": thought })));
        out.push(Piece::now(at(0, object! { "type": "signature_delta", "signature": PROOF })));
        out.push(Piece::now(event("content_block_stop", vec![("index", 0_u64.into())])));
    }
    out.push(Piece::now(event(
        "content_block_start",
        vec![("index", number.into()), ("content_block", block)],
    )));
    for (after, text) in said.paced() {
        out.push(Piece::after(after, delta(object! { "type": "text_delta", "text": text })));
    }
    for (index, text) in said.call.iter().flat_map(Said::argument_pieces).enumerate() {
        out.push(Piece::after(
            said.pause(index),
            delta(object! { "type": "input_json_delta", "partial_json": &text }),
        ));
    }
    let (reason, sequence) = finish(said);
    let counts = object! {
        "input_tokens": said.input,
        "cache_creation_input_tokens": 0_u64,
        "cache_read_input_tokens": 0_u64,
        "output_tokens": said.output,
    };
    let end = object! { "stop_reason": reason, "stop_sequence": sequence };
    out.push(Piece::now(event("content_block_stop", vec![("index", number.into())])));
    out.push(Piece::now(event("message_delta", vec![("delta", end), ("usage", counts)])));
    out.push(Piece::now(event("message_stop", Vec::new())));
    out
}

fn event(name: &str, fields: Vec<(&str, Json)>) -> String {
    let data = Json::object(&[vec![("type", name.into())], fields].concat());
    format!("event: {name}\ndata: {}\n\n", data.text())
}
