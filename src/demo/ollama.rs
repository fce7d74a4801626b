//! Implements Ollama's API.

use serde_json::Value;

use super::{
    DemoCall, DemoError, embed,
    json::{Json, object},
    models::{self, DemoModel, DemoModelKind},
    openai::read_function,
    reply::{BodyPiece, DemoReply, NDJSON},
};
use crate::demo::{
    answers::{self, DemoAnswer, DemoFinish},
    request::{DemoRequest, DemoTool, count_tokens, text_of, text_tokens},
};

pub(super) fn answer_call(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    match (call.is_get, call.path) {
        (true, "api/version") => Ok(DemoReply::json(object! { "version": "0.12.0" })),
        (true, "api/tags") => {
            let rows = models::ALL.iter().map(|model| model_row(call, model)).collect::<Vec<_>>();
            Ok(DemoReply::json(object! { "models": rows }))
        }
        (false, "api/show") => show_model(call),
        (false, "api/chat") => generate_text(call, OllamaEndpoint::Chat),
        (false, "api/generate") => generate_text(call, OllamaEndpoint::Generate),
        (false, "api/embed") => answer_embeddings(call),
        _ => Err(call.unknown_path()),
    }
}

pub(super) fn write_error(error: &DemoError) -> Json {
    object! { "error": &error.message }
}

fn model_details() -> Json {
    object! {
        "parent_model": "",
        "format": "demo",
        "family": "demo",
        "families": vec!["demo".into()],
        "parameter_size": "0",
        "quantization_level": "none",
    }
}

fn model_row(call: &DemoCall<'_>, model: &DemoModel) -> Json {
    let name = format!("{}:latest", model.name);
    let digest = "0".repeat(64);
    object! {
        "name": &name,
        "model": &name,
        "modified_at": call.now.to_string(),
        "size": 0_u64,
        "digest": &digest,
        "details": model_details(),
    }
}

fn show_model(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    let name =
        call.body["model"].as_str().or_else(|| call.body["name"].as_str()).unwrap_or_default();
    let Some(model) = models::find_model(name) else {
        return DemoCall::find_model(name, DemoModelKind::Chat).and(Err(call.unknown_path()));
    };
    let capabilities = match model.kind {
        DemoModelKind::Chat => vec!["completion".into(), "tools".into()],
        DemoModelKind::Embed => vec!["embedding".into()],
    };
    Ok(DemoReply::json(object! {
        "license": "MIT",
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": model_details(),
        "model_info": object! { "general.architecture": "demo", "demo.context_length": models::CONTEXT_TOKENS },
        "capabilities": capabilities,
        "modified_at": call.now.to_string(),
    }))
}

/// The two endpoints that generate text.
#[derive(Clone, Copy, PartialEq)]
enum OllamaEndpoint {
    Chat,
    Generate,
}

fn generate_text(call: &DemoCall<'_>, endpoint: OllamaEndpoint) -> Result<DemoReply, DemoError> {
    let model = call.requested_model(DemoModelKind::Chat)?;
    let name = call.body["model"].as_str().unwrap_or(model.name);
    let request = read_request(call.body, endpoint);
    let answer = answers::compose_answer(model, &request, call)?;
    let line = |text: &str,
                tool: Option<&answers::DemoToolCall>,
                thought: Option<&str>,
                last: bool| {
        let mut fields =
            vec![("model", Json::from(name)), ("created_at", (&call.now.to_string()).into())];
        match endpoint {
            OllamaEndpoint::Chat => fields.push(("message", write_message(text, tool, thought))),
            OllamaEndpoint::Generate => fields.push(("response", text.into())),
        }
        if last {
            fields.extend(final_fields(&answer));
        } else {
            fields.push(("done", false.into()));
        }
        Json::object(&fields)
    };
    if !request.stream {
        return Ok(DemoReply::full(
            &answer,
            line(&answer.text(), answer.tool_call.as_ref(), answer.thought.as_deref(), true),
        ));
    }
    let row = |json: &Json| format!("{}\n", json.as_str());
    let mut out: Vec<_> = answer
        .paced_pieces()
        .map(|(after, text)| BodyPiece::delayed(after, row(&line(text, None, None, false))))
        .collect();
    if answer.thought.is_some() {
        out.insert(0, BodyPiece::immediate(row(&line("", None, answer.thought.as_deref(), false))));
    }
    if answer.tool_call.is_some() {
        out.push(BodyPiece::delayed(
            answer.delay_before(0),
            row(&line("", answer.tool_call.as_ref(), None, false)),
        ));
    }
    out.push(BodyPiece::immediate(row(&line("", None, None, true))));
    Ok(DemoReply::streaming(&answer, NDJSON, out))
}

fn read_request(body: &Value, endpoint: OllamaEndpoint) -> DemoRequest {
    let mut request = DemoRequest {
        tools: body["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|tool| read_function(&tool["function"]))
            .collect::<Vec<DemoTool>>(),
        json_schema: match &body["format"] {
            Value::Object(_) => Some(body["format"].clone()),
            Value::String(text) if text == "json" => Some(Value::Null),
            _ => None,
        },
        max_tokens: body["options"]["num_predict"].as_u64(),
        input_tokens: count_tokens(&[
            &body["messages"],
            &body["system"],
            &body["prompt"],
            &body["tools"],
        ]),
        stream: body["stream"].as_bool() != Some(false),
        ..DemoRequest::default()
    };
    request.read_stop_sequences(&body["options"]["stop"]);
    if endpoint == OllamaEndpoint::Generate {
        request.set_prompt(text_of(&body["prompt"]));
    }
    for message in body["messages"].as_array().into_iter().flatten() {
        request.has_valid_signature |= message["tool_calls"].is_array()
            && message["thinking"].as_str().is_some_and(|text| !text.is_empty());
        match message["role"].as_str() {
            Some("user") => request.set_prompt(text_of(&message["content"])),
            Some("tool") => request.set_tool_result(text_of(&message["content"])),
            _ => {}
        }
    }
    request
}

fn write_message(text: &str, tool: Option<&answers::DemoToolCall>, thought: Option<&str>) -> Json {
    let mut fields = vec![("role", Json::from("assistant")), ("content", text.into())];
    fields.extend(thought.map(|thought| ("thinking", thought.into())));
    if let Some(tool) = tool {
        let call =
            object! { "function": object! { "name": &tool.name, "arguments": &tool.arguments } };
        fields.push(("tool_calls", vec![call].into()));
    }
    Json::object(&fields)
}

/// Returns the fields of the last line; durations are in nanoseconds.
fn final_fields(answer: &DemoAnswer) -> Vec<(&'static str, Json)> {
    let duration = u64::try_from(answer.duration().as_nanos()).unwrap_or(u64::MAX);
    let reason = if answer.finish == DemoFinish::Length { "length" } else { "stop" };
    vec![
        ("done_reason", reason.into()),
        ("done", true.into()),
        ("total_duration", duration.saturating_add(2_000_000).into()),
        ("load_duration", 1_000_000_u64.into()),
        ("prompt_eval_count", answer.input_tokens.into()),
        ("prompt_eval_duration", 1_000_000_u64.into()),
        ("eval_count", answer.output_tokens.into()),
        ("eval_duration", duration.into()),
    ]
}

fn answer_embeddings(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    call.requested_model(DemoModelKind::Embed)?;
    let texts = embed::read_texts(&call.body["input"]);
    let rows = texts.iter().map(|text| {
        embed::write_numbers(&embed::embed_text(text, call.body["dimensions"].as_u64()))
    });
    Ok(DemoReply::json(object! {
        "model": call.body["model"].as_str().unwrap_or_default(),
        "embeddings": rows.collect::<Vec<_>>(),
        "total_duration": 1_000_000_u64,
        "load_duration": 500_000_u64,
        "prompt_eval_count": texts.iter().map(|text| text_tokens(text)).sum::<u64>(),
    }))
}
