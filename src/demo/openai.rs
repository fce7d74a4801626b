//! Speaks OpenAI's chat completions and what stands around them.

use http::StatusCode;
use serde_json::Value;

use super::{
    Call, Refusal,
    asked::{Asked, Choice, Tool, text_of, tokens, weigh},
    embed,
    json::{Json, object},
    models::{self, Kind},
    reply::{Piece, Reply, SSE},
    script::{self, Finish, Said},
};

pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    match (call.get, call.path) {
        (true, "models") => Ok(Reply::json(list(call))),
        (true, path) if path.starts_with("models/") => card(call, &path["models/".len()..]),
        (false, "chat/completions") => chat(call),
        (false, "completions") => completion(call),
        (false, "embeddings") => embeddings(call),
        (false, "moderations") => moderation(call),
        _ => Err(call.unknown()),
    }
}

pub(super) fn error(refusal: &Refusal) -> Json {
    let kind = match refusal.status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let code = refusal
        .code
        .or((refusal.status == StatusCode::TOO_MANY_REQUESTS).then_some("rate_limit_exceeded"));
    object! { "error": object! { "message": &refusal.message, "type": kind, "param": Json::NULL, "code": code } }
}

/// The model list, which the Responses dialect shares.
pub(super) fn list(call: &Call<'_>) -> Json {
    let rows = models::ALL.iter().map(|model| row(call, model)).collect::<Vec<_>>();
    object! { "object": "list", "data": rows }
}

/// One model's card.
pub(super) fn card(call: &Call<'_>, name: &str) -> Result<Reply, Refusal> {
    let model = models::find(name).ok_or_else(|| call.unknown())?;
    Ok(Reply::json(row(call, model)))
}

fn row(call: &Call<'_>, model: &models::Model) -> Json {
    object! { "id": model.name, "object": "model", "created": call.created(), "owned_by": "demo" }
}

fn chat(call: &Call<'_>) -> Result<Reply, Refusal> {
    let model = call.model(Kind::Chat)?;
    let asked = read(call.body)?;
    let said = script::say(model, &asked, call)?;
    if !asked.stream {
        return Ok(Reply::whole(&said, completed(call, model.name, &said)));
    }
    let wants_usage = call.body["stream_options"]["include_usage"].as_bool() == Some(true);
    Ok(Reply::stream(&said, SSE, streamed(call, model.name, &said, wants_usage)))
}

fn read(body: &Value) -> Result<Asked, Refusal> {
    let Some(messages) = body["messages"].as_array().filter(|messages| !messages.is_empty()) else {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "`messages` must be a list with at least one message",
        ));
    };
    let mut asked = Asked {
        tools: body["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|tool| function(&tool["function"]))
            .collect(),
        choice: choice(&body["tool_choice"]),
        format: match body["response_format"]["type"].as_str() {
            Some("json_schema") => Some(body["response_format"]["json_schema"]["schema"].clone()),
            Some("json_object") => Some(Value::Null),
            _ => None,
        },
        limit: body["max_completion_tokens"].as_u64().or_else(|| body["max_tokens"].as_u64()),
        input: weigh(&[&body["messages"], &body["tools"]]),
        stream: body["stream"].as_bool() == Some(true),
        ..Asked::default()
    };
    asked.stops(&body["stop"]);
    for message in messages {
        asked.proven |= message["tool_calls"].is_array()
            && message["reasoning_content"].as_str().is_some_and(|text| !text.is_empty());
        match message["role"].as_str() {
            Some("user") => asked.user(text_of(&message["content"])),
            Some("tool" | "function") => asked.result(text_of(&message["content"])),
            _ => {}
        }
    }
    Ok(asked)
}

/// A function as chat and Responses declare it, whatever stands around it.
pub(super) fn function(value: &Value) -> Option<Tool> {
    let name = value["name"].as_str()?.to_owned();
    Some(Tool { name, schema: value["parameters"].clone() })
}

/// `tool_choice` of chat (`function.name`) and of Responses (`name`). `required` is for `tools`,
/// which calls anyway.
pub(super) fn choice(value: &Value) -> Choice {
    let named = value["function"]["name"].as_str().or_else(|| value["name"].as_str());
    match (value.as_str(), named) {
        (Some("none"), _) => Choice::Never,
        (_, Some(name)) => Choice::Named(name.to_owned()),
        _ => Choice::Free,
    }
}

fn completed(call: &Call<'_>, model: &str, said: &Said) -> Json {
    let calls = said.call.as_ref().map(|tool| {
        vec![object! {
            "id": call.id("call_"),
            "type": "function",
            "function": object! { "name": &tool.name, "arguments": tool.arguments.to_string() },
        }]
    });
    let content = said.call.is_none().then(|| said.text());
    let mut message = vec![("role", "assistant".into()), ("content", content.as_ref().into())];
    message.extend(said.thought.as_ref().map(|thought| ("reasoning_content", thought.into())));
    message.extend(calls.map(|calls| ("tool_calls", calls.into())));
    message.extend([("refusal", Json::NULL.into()), ("annotations", Vec::new().into())]);
    let one = object! { "index": 0_u64, "message": Json::object(&message), "logprobs": Json::NULL, "finish_reason": finish(said) };
    object! {
        "id": call.id("chatcmpl-"),
        "object": "chat.completion",
        "created": call.created(),
        "model": model,
        "choices": vec![one],
        "usage": usage(said),
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }
}

fn streamed(call: &Call<'_>, model: &str, said: &Said, wants_usage: bool) -> Vec<Piece> {
    let id = call.id("chatcmpl-");
    let chunk = |choices: Vec<Json>, usage: Option<Json>| {
        let mut fields = vec![
            ("id", Json::from(&id)),
            ("object", "chat.completion.chunk".into()),
            ("created", call.created().into()),
            ("model", model.into()),
            ("service_tier", "default".into()),
            ("system_fingerprint", "fp_demo".into()),
            ("choices", choices.into()),
        ];
        if wants_usage {
            fields.push(("usage", usage.into()));
        }
        frame(&Json::object(&fields))
    };
    let delta = |delta: Json, finish: Option<&str>| {
        let choice = object! { "index": 0_u64, "delta": delta, "logprobs": Json::NULL, "finish_reason": finish };
        chunk(vec![choice], None)
    };
    let content = if said.call.is_some() { Json::NULL.into() } else { Json::from("") };
    let mut out = vec![Piece::now(delta(
        object! { "role": "assistant", "content": content, "refusal": Json::NULL },
        None,
    ))];
    if let Some(thought) = &said.thought {
        out.push(Piece::now(delta(object! { "reasoning_content": thought }, None)));
    }
    for (after, text) in said.paced() {
        out.push(Piece::after(after, delta(object! { "content": text }, None)));
    }
    if let Some(tool) = &said.call {
        let head = object! {
            "index": 0_u64,
            "id": call.id("call_"),
            "type": "function",
            "function": object! { "name": &tool.name, "arguments": "" },
        };
        out.push(Piece::after(said.pause(0), delta(object! { "tool_calls": vec![head] }, None)));
        for part in Said::argument_pieces(tool) {
            let more = object! { "index": 0_u64, "function": object! { "arguments": &part } };
            out.push(Piece::after(
                said.pause(1),
                delta(object! { "tool_calls": vec![more] }, None),
            ));
        }
    }
    let mut end = delta(Json::empty(), Some(finish(said)));
    if wants_usage {
        end += &chunk(Vec::new(), Some(usage(said)));
    }
    end += "data: [DONE]\n\n";
    out.push(Piece::now(end));
    out
}

fn frame(data: &Json) -> String {
    format!("data: {}\n\n", data.text())
}

fn finish(said: &Said) -> &'static str {
    match said.finish {
        Finish::Length => "length",
        Finish::Stop | Finish::Stopped(_) => "stop",
        Finish::Tool => "tool_calls",
    }
}

fn usage(said: &Said) -> Json {
    object! {
        "prompt_tokens": said.input,
        "completion_tokens": said.output,
        "total_tokens": said.input + said.output,
        "prompt_tokens_details": object! { "cached_tokens": 0_u64, "audio_tokens": 0_u64 },
        "completion_tokens_details": object! {
            "reasoning_tokens": said.thinking(),
            "audio_tokens": 0_u64,
            "accepted_prediction_tokens": 0_u64,
            "rejected_prediction_tokens": 0_u64,
        },
    }
}

/// The old endpoint: prompt in, text out.
fn completion(call: &Call<'_>) -> Result<Reply, Refusal> {
    let model = call.model(Kind::Chat)?;
    let mut asked = Asked {
        limit: call.body["max_tokens"].as_u64(),
        input: weigh(&[&call.body["prompt"]]),
        stream: call.body["stream"].as_bool() == Some(true),
        ..Asked::default()
    };
    asked.stops(&call.body["stop"]);
    asked.user(text_of(&call.body["prompt"]));
    let said = script::say(model, &asked, call)?;
    let (id, wants_usage) =
        (call.id("cmpl-"), call.body["stream_options"]["include_usage"].as_bool() == Some(true));
    let usage = || object! { "prompt_tokens": said.input, "completion_tokens": said.output, "total_tokens": said.input + said.output };
    let body = |choices: Vec<Json>, usage: Option<Json>| {
        let mut fields = vec![
            ("id", Json::from(&id)),
            ("object", "text_completion".into()),
            ("created", call.created().into()),
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
    if !asked.stream {
        return Ok(Reply::whole(
            &said,
            body(choice(&said.text(), Some(finish(&said))), Some(usage())),
        ));
    }
    let mut out: Vec<_> = said
        .paced()
        .map(|(after, text)| Piece::after(after, frame(&body(choice(text, None), None))))
        .collect();
    let mut end = frame(&body(choice("", Some(finish(&said))), None));
    if wants_usage {
        end += &frame(&body(Vec::new(), Some(usage())));
    }
    end += "data: [DONE]\n\n";
    out.push(Piece::now(end));
    Ok(Reply::stream(&said, SSE, out))
}

fn embeddings(call: &Call<'_>) -> Result<Reply, Refusal> {
    let model = call.model(Kind::Embed)?;
    let texts = embed::texts(&call.body["input"]);
    if texts.is_empty() {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "`input` must be a string or a list of strings",
        ));
    }
    let packed = call.body["encoding_format"].as_str() == Some("base64");
    let rows = texts.iter().zip(0_u64..).map(|(text, index)| {
        let vector = embed::vector(text, call.body["dimensions"].as_u64());
        let vector = if packed { embed::packed(&vector) } else { embed::list(&vector) };
        object! { "object": "embedding", "index": index, "embedding": vector }
    });
    let count = texts.iter().map(|text| tokens(text)).sum::<u64>();
    Ok(Reply::json(object! {
        "object": "list",
        "data": rows.collect::<Vec<_>>(),
        "model": model.name,
        "usage": object! { "prompt_tokens": count, "total_tokens": count },
    }))
}

/// Finds nothing objectionable in anything. Any model name will do: clients send the moderation
/// model of their provider.
fn moderation(call: &Call<'_>) -> Result<Reply, Refusal> {
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
    let texts = embed::texts(&call.body["input"]);
    if texts.is_empty() {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "`input` must be a string or a list of strings",
        ));
    }
    let each = |value: Json| Json::object(&CATEGORIES.map(|name| (name, value.clone())));
    let one = || object! { "flagged": false, "categories": each(false.into()), "category_scores": each(Json::float(0.0001)) };
    Ok(Reply::json(object! {
        "id": call.id("modr-"),
        "model": call.body["model"].as_str().unwrap_or("demo"),
        "results": texts.iter().map(|_| one()).collect::<Vec<_>>(),
    }))
}
