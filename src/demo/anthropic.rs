//! Implements Anthropic's Messages API.

use http::StatusCode;
use serde_json::Value;

use super::{
    DemoCall, DemoError,
    json::{Json, object},
    models::{self, DemoModel, DemoModelKind},
    reply::{BodyPiece, DemoReply, SSE},
};
use crate::demo::{
    answers::{self, DemoAnswer, DemoFinish, THOUGHT_SIGNATURE},
    request::{DemoRequest, DemoTool, DemoToolChoice, count_tokens, text_of},
};

pub(super) fn answer_call(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    match (call.is_get, call.path) {
        (true, "models") => Ok(DemoReply::json(write_model_list())),
        (true, path) if path.starts_with("models/") => {
            let model =
                models::find_model(&path["models/".len()..]).ok_or_else(|| call.unknown_path())?;
            Ok(DemoReply::json(model_card(model)))
        }
        (false, "messages") => answer_messages(call),
        (false, "messages/count_tokens") => {
            call.requested_model(DemoModelKind::Chat)?;
            Ok(DemoReply::json(object! { "input_tokens": input_tokens(call.body) }))
        }
        _ => Err(call.unknown_path()),
    }
}

pub(super) fn write_error(error: &DemoError) -> Json {
    let kind = match error.status.as_u16() {
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
    object! { "type": "error", "error": object! { "type": kind, "message": &error.message }, "request_id": Json::NULL }
}

fn write_model_list() -> Json {
    let rows = models::ALL.iter().map(model_card).collect::<Vec<_>>();
    let end = |model: Option<&DemoModel>| model.map(|model| model.name);
    object! { "data": rows, "has_more": false, "first_id": end(models::ALL.first()), "last_id": end(models::ALL.last()) }
}

fn model_card(model: &DemoModel) -> Json {
    object! {
        "type": "model",
        "id": model.name,
        "display_name": model.description,
        "created_at": "2026-01-01T00:00:00Z",
        "max_input_tokens": models::CONTEXT_TOKENS,
        "max_tokens": models::MAX_OUTPUT_TOKENS,
    }
}

fn input_tokens(body: &Value) -> u64 {
    count_tokens(&[&body["system"], &body["messages"], &body["tools"]]).max(1)
}

fn answer_messages(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    let model = call.requested_model(DemoModelKind::Chat)?;
    let request = read_request(call.body)?;
    let answer = answers::compose_answer(model, &request, call)?;
    if request.stream {
        return Ok(DemoReply::streaming(&answer, SSE, write_events(call, model.name, &answer)));
    }
    let block = answer.tool_call.as_ref().map_or_else(
        || object! { "type": "text", "text": answer.text() },
        |tool| object! { "type": "tool_use", "id": call.new_id("toolu_"), "name": &tool.name, "input": &tool.arguments },
    );
    let thought = answer
        .thought
        .as_ref()
        .map(|thought| object! { "type": "thinking", "thinking": thought, "signature": THOUGHT_SIGNATURE });
    let (reason, sequence) = stop_reason(&answer);
    Ok(DemoReply::full(
        &answer,
        write_message(
            call,
            model.name,
            thought.into_iter().chain([block]).collect(),
            Some(reason),
            sequence,
            write_usage(answer.input_tokens, answer.output_tokens),
        ),
    ))
}

fn read_request(body: &Value) -> Result<DemoRequest, DemoError> {
    let bad = |text: &str| DemoError::new(StatusCode::BAD_REQUEST, text);
    let messages = body["messages"].as_array().filter(|messages| !messages.is_empty());
    let messages = messages.ok_or_else(|| bad("messages: at least one message is required"))?;
    let limit = body["max_tokens"].as_u64().ok_or_else(|| bad("max_tokens: Field required"))?;
    let tools = body["tools"].as_array().into_iter().flatten().filter_map(|tool| {
        // The provider's built-in tools have no schema, so the demo cannot call them.
        Some(DemoTool {
            name: tool["name"].as_str()?.to_owned(),
            schema: tool.get("input_schema")?.clone(),
        })
    });
    let schema = [&body["output_config"]["format"]["schema"], &body["output_format"]["schema"]];
    let mut request = DemoRequest {
        tools: tools.collect(),
        tool_choice: match (
            body["tool_choice"]["type"].as_str(),
            body["tool_choice"]["name"].as_str(),
        ) {
            (Some("none"), _) => DemoToolChoice::None,
            (Some("tool"), Some(name)) => DemoToolChoice::Named(name.to_owned()),
            _ => DemoToolChoice::Auto,
        },
        json_schema: schema.into_iter().find(|schema| schema.is_object()).cloned(),
        max_tokens: Some(limit),
        input_tokens: input_tokens(body),
        stream: body["stream"].as_bool() == Some(true),
        ..DemoRequest::default()
    };
    request.read_stop_sequences(&body["stop_sequences"]);
    let blocks =
        messages.iter().flat_map(|message| message["content"].as_array().into_iter().flatten());
    request.has_valid_signature = blocks
        .filter(|block| block["type"] == "thinking")
        .any(|block| block["signature"] == THOUGHT_SIGNATURE);
    for message in messages.iter().filter(|message| message["role"] == "user") {
        let content = &message["content"];
        let result =
            content.as_array().into_iter().flatten().rfind(|block| block["type"] == "tool_result");
        match result {
            Some(block) => request.set_tool_result(text_of(&block["content"])),
            None => request.set_prompt(text_of(content)),
        }
    }
    Ok(request)
}

fn write_message(
    call: &DemoCall<'_>,
    model: &str,
    content: Vec<Json>,
    reason: Option<&str>,
    sequence: Option<&String>,
    usage: Json,
) -> Json {
    object! {
        "model": model,
        "id": call.new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage,
    }
}

fn stop_reason(answer: &DemoAnswer) -> (&'static str, Option<&String>) {
    match &answer.finish {
        DemoFinish::Length => ("max_tokens", None),
        DemoFinish::Stop => ("end_turn", None),
        DemoFinish::StopSequence(sequence) => ("stop_sequence", Some(sequence)),
        DemoFinish::ToolCall => ("tool_use", None),
    }
}

fn write_usage(input: u64, output: u64) -> Json {
    object! {
        "input_tokens": input,
        "cache_creation_input_tokens": 0_u64,
        "cache_read_input_tokens": 0_u64,
        "cache_creation": object! { "ephemeral_5m_input_tokens": 0_u64, "ephemeral_1h_input_tokens": 0_u64 },
        "output_tokens": output,
        "service_tier": "standard",
    }
}

fn write_events(call: &DemoCall<'_>, model: &str, answer: &DemoAnswer) -> Vec<BodyPiece> {
    let number = u64::from(answer.thought.is_some());
    let at = |index: u64, delta: Json| {
        sse_event("content_block_delta", vec![("index", index.into()), ("delta", delta)])
    };
    let delta = |delta: Json| at(number, delta);
    let begin =
        write_message(call, model, Vec::new(), None, None, write_usage(answer.input_tokens, 1));
    let block = answer.tool_call.as_ref().map_or_else(
        || object! { "type": "text", "text": "" },
        |tool| object! { "type": "tool_use", "id": call.new_id("toolu_"), "name": &tool.name, "input": Json::empty_object() },
    );
    let mut out = vec![
        BodyPiece::immediate(sse_event("message_start", vec![("message", begin)])),
        BodyPiece::immediate(sse_event("ping", Vec::new())),
    ];
    if let Some(thought) = &answer.thought {
        let open = object! { "type": "thinking", "thinking": "", "signature": "" };
        out.push(BodyPiece::immediate(sse_event(
            "content_block_start",
            vec![("index", 0_u64.into()), ("content_block", open)],
        )));
        out.push(BodyPiece::immediate(at(
            0,
            object! { "type": "thinking_delta", "thinking": thought },
        )));
        out.push(BodyPiece::immediate(at(
            0,
            object! { "type": "signature_delta", "signature": THOUGHT_SIGNATURE },
        )));
        out.push(BodyPiece::immediate(sse_event(
            "content_block_stop",
            vec![("index", 0_u64.into())],
        )));
    }
    out.push(BodyPiece::immediate(sse_event(
        "content_block_start",
        vec![("index", number.into()), ("content_block", block)],
    )));
    for (after, text) in answer.paced_pieces() {
        out.push(BodyPiece::delayed(after, delta(object! { "type": "text_delta", "text": text })));
    }
    for (index, text) in answer.tool_call.iter().flat_map(DemoAnswer::argument_pieces).enumerate() {
        out.push(BodyPiece::delayed(
            answer.delay_before(index),
            delta(object! { "type": "input_json_delta", "partial_json": &text }),
        ));
    }
    let (reason, sequence) = stop_reason(answer);
    let counts = object! {
        "input_tokens": answer.input_tokens,
        "cache_creation_input_tokens": 0_u64,
        "cache_read_input_tokens": 0_u64,
        "output_tokens": answer.output_tokens,
    };
    let end = object! { "stop_reason": reason, "stop_sequence": sequence };
    out.push(BodyPiece::immediate(sse_event("content_block_stop", vec![("index", number.into())])));
    out.push(BodyPiece::immediate(sse_event(
        "message_delta",
        vec![("delta", end), ("usage", counts)],
    )));
    out.push(BodyPiece::immediate(sse_event("message_stop", Vec::new())));
    out
}

fn sse_event(name: &str, fields: Vec<(&str, Json)>) -> String {
    let data = Json::object(&[vec![("type", name.into())], fields].concat());
    format!("event: {name}\ndata: {}\n\n", data.as_str())
}
