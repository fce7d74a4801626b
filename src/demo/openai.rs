//! Implements OpenAI's chat completions and the related endpoints.

use http::StatusCode;
use serde_json::Value;

use super::{
    DemoCall, DemoError, embed,
    json::{Json, object},
    models::{self, DemoModelKind},
    reply::{BodyPiece, DemoReply, SSE},
};
use crate::demo::{
    answers::{self, DemoAnswer, DemoFinish},
    request::{DemoRequest, DemoTool, DemoToolChoice, count_tokens, text_of, text_tokens},
};

pub(super) fn answer_call(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    match (call.is_get, call.path) {
        (true, "models") => Ok(DemoReply::json(write_model_list(call))),
        (true, path) if path.starts_with("models/") => answer_model(call, &path["models/".len()..]),
        (false, "chat/completions") => answer_chat(call),
        (false, "completions") => answer_completion(call),
        (false, "embeddings") => answer_embeddings(call),
        (false, "moderations") => answer_moderation(call),
        _ => Err(call.unknown_path()),
    }
}

pub(super) fn write_error(error: &DemoError) -> Json {
    let kind = match error.status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let code = error
        .code
        .or((error.status == StatusCode::TOO_MANY_REQUESTS).then_some("rate_limit_exceeded"));
    object! { "error": object! { "message": &error.message, "type": kind, "param": Json::NULL, "code": code } }
}

/// Writes the model list, which the Responses dialect shares.
pub(super) fn write_model_list(call: &DemoCall<'_>) -> Json {
    let rows = models::ALL.iter().map(|model| model_row(call, model)).collect::<Vec<_>>();
    object! { "object": "list", "data": rows }
}

/// Answers with the card of one model.
pub(super) fn answer_model(call: &DemoCall<'_>, name: &str) -> Result<DemoReply, DemoError> {
    let model = models::find_model(name).ok_or_else(|| call.unknown_path())?;
    Ok(DemoReply::json(model_row(call, model)))
}

fn model_row(call: &DemoCall<'_>, model: &models::DemoModel) -> Json {
    object! { "id": model.name, "object": "model", "created": call.created_seconds(), "owned_by": "demo" }
}

fn answer_chat(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    let model = call.requested_model(DemoModelKind::Chat)?;
    let request = read_request(call.body)?;
    let answer = answers::compose_answer(model, &request, call)?;
    if !request.stream {
        return Ok(DemoReply::full(&answer, write_completion(call, model.name, &answer)));
    }
    let wants_usage = call.body["stream_options"]["include_usage"].as_bool() == Some(true);
    Ok(DemoReply::streaming(&answer, SSE, write_chunks(call, model.name, &answer, wants_usage)))
}

fn read_request(body: &Value) -> Result<DemoRequest, DemoError> {
    let Some(messages) = body["messages"].as_array().filter(|messages| !messages.is_empty()) else {
        return Err(DemoError::new(
            StatusCode::BAD_REQUEST,
            "`messages` must be a list with at least one message",
        ));
    };
    let mut request = DemoRequest {
        tools: body["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|tool| read_function(&tool["function"]))
            .collect(),
        tool_choice: read_tool_choice(&body["tool_choice"]),
        json_schema: match body["response_format"]["type"].as_str() {
            Some("json_schema") => Some(body["response_format"]["json_schema"]["schema"].clone()),
            Some("json_object") => Some(Value::Null),
            _ => None,
        },
        max_tokens: body["max_completion_tokens"].as_u64().or_else(|| body["max_tokens"].as_u64()),
        input_tokens: count_tokens(&[&body["messages"], &body["tools"]]),
        stream: body["stream"].as_bool() == Some(true),
        ..DemoRequest::default()
    };
    request.read_stop_sequences(&body["stop"]);
    for message in messages {
        request.has_valid_signature |= message["tool_calls"].is_array()
            && message["reasoning_content"].as_str().is_some_and(|text| !text.is_empty());
        match message["role"].as_str() {
            Some("user") => request.set_prompt(text_of(&message["content"])),
            Some("tool" | "function") => request.set_tool_result(text_of(&message["content"])),
            _ => {}
        }
    }
    Ok(request)
}

/// Reads a function declaration; chat and Responses share its format.
pub(super) fn read_function(value: &Value) -> Option<DemoTool> {
    let name = value["name"].as_str()?.to_owned();
    Some(DemoTool { name, schema: value["parameters"].clone() })
}

/// Reads `tool_choice` of chat (`function.name`) and of Responses (`name`). `required` needs no
/// handling, because `tools` always calls a tool.
pub(super) fn read_tool_choice(value: &Value) -> DemoToolChoice {
    let named = value["function"]["name"].as_str().or_else(|| value["name"].as_str());
    match (value.as_str(), named) {
        (Some("none"), _) => DemoToolChoice::None,
        (_, Some(name)) => DemoToolChoice::Named(name.to_owned()),
        _ => DemoToolChoice::Auto,
    }
}

fn write_completion(call: &DemoCall<'_>, model: &str, answer: &DemoAnswer) -> Json {
    let calls = answer.tool_call.as_ref().map(|tool| {
        vec![object! {
            "id": call.new_id("call_"),
            "type": "function",
            "function": object! { "name": &tool.name, "arguments": tool.arguments.to_string() },
        }]
    });
    let content = answer.tool_call.is_none().then(|| answer.text());
    let mut message = vec![("role", "assistant".into()), ("content", content.as_ref().into())];
    message.extend(answer.thought.as_ref().map(|thought| ("reasoning_content", thought.into())));
    message.extend(calls.map(|calls| ("tool_calls", calls.into())));
    message.extend([("refusal", Json::NULL.into()), ("annotations", Vec::new().into())]);
    let one = object! { "index": 0_u64, "message": Json::object(&message), "logprobs": Json::NULL, "finish_reason": finish_reason(answer) };
    object! {
        "id": call.new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": call.created_seconds(),
        "model": model,
        "choices": vec![one],
        "usage": write_usage(answer),
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }
}

fn write_chunks(
    call: &DemoCall<'_>,
    model: &str,
    answer: &DemoAnswer,
    wants_usage: bool,
) -> Vec<BodyPiece> {
    let id = call.new_id("chatcmpl-");
    let chunk = |choices: Vec<Json>, usage: Option<Json>| {
        let mut fields = vec![
            ("id", Json::from(&id)),
            ("object", "chat.completion.chunk".into()),
            ("created", call.created_seconds().into()),
            ("model", model.into()),
            ("service_tier", "default".into()),
            ("system_fingerprint", "fp_demo".into()),
            ("choices", choices.into()),
        ];
        if wants_usage {
            fields.push(("usage", usage.into()));
        }
        sse_frame(&Json::object(&fields))
    };
    let delta = |delta: Json, finish: Option<&str>| {
        let choice = object! { "index": 0_u64, "delta": delta, "logprobs": Json::NULL, "finish_reason": finish };
        chunk(vec![choice], None)
    };
    let content = if answer.tool_call.is_some() { Json::NULL.into() } else { Json::from("") };
    let mut out = vec![BodyPiece::immediate(delta(
        object! { "role": "assistant", "content": content, "refusal": Json::NULL },
        None,
    ))];
    if let Some(thought) = &answer.thought {
        out.push(BodyPiece::immediate(delta(object! { "reasoning_content": thought }, None)));
    }
    for (after, text) in answer.paced_pieces() {
        out.push(BodyPiece::delayed(after, delta(object! { "content": text }, None)));
    }
    if let Some(tool) = &answer.tool_call {
        let head = object! {
            "index": 0_u64,
            "id": call.new_id("call_"),
            "type": "function",
            "function": object! { "name": &tool.name, "arguments": "" },
        };
        out.push(BodyPiece::delayed(
            answer.delay_before(0),
            delta(object! { "tool_calls": vec![head] }, None),
        ));
        for part in DemoAnswer::argument_pieces(tool) {
            let more = object! { "index": 0_u64, "function": object! { "arguments": &part } };
            out.push(BodyPiece::delayed(
                answer.delay_before(1),
                delta(object! { "tool_calls": vec![more] }, None),
            ));
        }
    }
    let mut end = delta(Json::empty_object(), Some(finish_reason(answer)));
    if wants_usage {
        end += &chunk(Vec::new(), Some(write_usage(answer)));
    }
    end += "data: [DONE]\n\n";
    out.push(BodyPiece::immediate(end));
    out
}

fn sse_frame(data: &Json) -> String {
    format!("data: {}\n\n", data.as_str())
}

fn finish_reason(answer: &DemoAnswer) -> &'static str {
    match answer.finish {
        DemoFinish::Length => "length",
        DemoFinish::Stop | DemoFinish::StopSequence(_) => "stop",
        DemoFinish::ToolCall => "tool_calls",
    }
}

fn write_usage(answer: &DemoAnswer) -> Json {
    object! {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": object! { "cached_tokens": 0_u64, "audio_tokens": 0_u64 },
        "completion_tokens_details": object! {
            "reasoning_tokens": answer.thought_tokens(),
            "audio_tokens": 0_u64,
            "accepted_prediction_tokens": 0_u64,
            "rejected_prediction_tokens": 0_u64,
        },
    }
}

/// Answers the legacy completions endpoint, which takes a prompt.
fn answer_completion(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    let model = call.requested_model(DemoModelKind::Chat)?;
    let mut request = DemoRequest {
        max_tokens: call.body["max_tokens"].as_u64(),
        input_tokens: count_tokens(&[&call.body["prompt"]]),
        stream: call.body["stream"].as_bool() == Some(true),
        ..DemoRequest::default()
    };
    request.read_stop_sequences(&call.body["stop"]);
    request.set_prompt(text_of(&call.body["prompt"]));
    let answer = answers::compose_answer(model, &request, call)?;
    let (id, wants_usage) = (
        call.new_id("cmpl-"),
        call.body["stream_options"]["include_usage"].as_bool() == Some(true),
    );
    let usage = || object! { "prompt_tokens": answer.input_tokens, "completion_tokens": answer.output_tokens, "total_tokens": answer.input_tokens + answer.output_tokens };
    let body = |choices: Vec<Json>, usage: Option<Json>| {
        let mut fields = vec![
            ("id", Json::from(&id)),
            ("object", "text_completion".into()),
            ("created", call.created_seconds().into()),
            ("model", model.name.into()),
            ("choices", choices.into()),
        ];
        fields.extend(usage.map(|usage| ("usage", usage)));
        Json::object(&fields)
    };
    let choice = |text: &str, finish: Option<&str>| {
        vec![
            object! { "text": text, "index": 0_u64, "logprobs": Json::NULL, "finish_reason": finish },
        ]
    };
    if !request.stream {
        return Ok(DemoReply::full(
            &answer,
            body(choice(&answer.text(), Some(finish_reason(&answer))), Some(usage())),
        ));
    }
    let mut out: Vec<_> = answer
        .paced_pieces()
        .map(|(after, text)| BodyPiece::delayed(after, sse_frame(&body(choice(text, None), None))))
        .collect();
    let mut end = sse_frame(&body(choice("", Some(finish_reason(&answer))), None));
    if wants_usage {
        end += &sse_frame(&body(Vec::new(), Some(usage())));
    }
    end += "data: [DONE]\n\n";
    out.push(BodyPiece::immediate(end));
    Ok(DemoReply::streaming(&answer, SSE, out))
}

fn answer_embeddings(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    let model = call.requested_model(DemoModelKind::Embed)?;
    let texts = embed::read_texts(&call.body["input"]);
    if texts.is_empty() {
        return Err(DemoError::new(
            StatusCode::BAD_REQUEST,
            "`input` must be a string or a list of strings",
        ));
    }
    let packed = call.body["encoding_format"].as_str() == Some("base64");
    let rows = texts.iter().zip(0_u64..).map(|(text, index)| {
        let vector = embed::embed_text(text, call.body["dimensions"].as_u64());
        let vector =
            if packed { embed::write_base64(&vector) } else { embed::write_numbers(&vector) };
        object! { "object": "embedding", "index": index, "embedding": vector }
    });
    let count = texts.iter().map(|text| text_tokens(text)).sum::<u64>();
    Ok(DemoReply::json(object! {
        "object": "list",
        "data": rows.collect::<Vec<_>>(),
        "model": model.name,
        "usage": object! { "prompt_tokens": count, "total_tokens": count },
    }))
}

/// Answers that nothing is flagged. Accepts any model name, because clients send the moderation
/// model of their provider.
fn answer_moderation(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    const CATEGORIES: [&str; 11] = [
        "harassment",
        "harassment/threatening",
        "hate",
        "hate/threatening",
        "self-harm",
        "self-harm/instructions",
        "self-harm/intent",
        "sexual",
        "sexual/minors",
        "violence",
        "violence/graphic",
    ];
    let texts = embed::read_texts(&call.body["input"]);
    if texts.is_empty() {
        return Err(DemoError::new(
            StatusCode::BAD_REQUEST,
            "`input` must be a string or a list of strings",
        ));
    }
    let each = |value: Json| Json::object(&CATEGORIES.map(|name| (name, value.clone())));
    let one = || object! { "flagged": false, "categories": each(false.into()), "category_scores": each(Json::float(0.0001)) };
    Ok(DemoReply::json(object! {
        "id": call.new_id("modr-"),
        "model": call.body["model"].as_str().unwrap_or("demo"),
        "results": texts.iter().map(|_| one()).collect::<Vec<_>>(),
    }))
}
