//! Speaks Ollama.

use serde_json::Value;

use super::{
    Call, Refusal,
    asked::{Asked, Tool, text_of, tokens, weigh},
    embed,
    json::{Json, object},
    models::{self, Kind, Model},
    openai::function,
    reply::{NDJSON, Piece, Reply},
    script::{self, Finish, Said},
};

pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    match (call.get, call.path) {
        (true, "api/version") => Ok(Reply::json(object! { "version": "0.12.0" })),
        (true, "api/tags") => {
            let rows = models::ALL.iter().map(|model| row(call, model)).collect::<Vec<_>>();
            Ok(Reply::json(object! { "models": rows }))
        }
        (false, "api/show") => show(call),
        (false, "api/chat") => speak(call, Kin::Chat),
        (false, "api/generate") => speak(call, Kin::Generate),
        (false, "api/embed") => embeddings(call),
        _ => Err(call.unknown()),
    }
}

pub(super) fn error(refusal: &Refusal) -> Json {
    object! { "error": &refusal.message }
}

fn details() -> Json {
    object! {
        "parent_model": "",
        "format": "demo",
        "family": "demo",
        "families": vec!["demo".into()],
        "parameter_size": "0",
        "quantization_level": "none",
    }
}

fn row(call: &Call<'_>, model: &Model) -> Json {
    let name = format!("{}:latest", model.name);
    let digest = "0".repeat(64);
    object! {
        "name": &name,
        "model": &name,
        "modified_at": call.now.to_string(),
        "size": 0_u64,
        "digest": &digest,
        "details": details(),
    }
}

fn show(call: &Call<'_>) -> Result<Reply, Refusal> {
    let name =
        call.body["model"].as_str().or_else(|| call.body["name"].as_str()).unwrap_or_default();
    let Some(model) = models::find(name) else {
        return Call::named(name, Kind::Chat).and(Err(call.unknown()));
    };
    let abilities = match model.kind {
        Kind::Chat => vec!["completion".into(), "tools".into()],
        Kind::Embed => vec!["embedding".into()],
    };
    Ok(Reply::json(object! {
        "license": "MIT",
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": details(),
        "model_info": object! { "general.architecture": "demo", "demo.context_length": models::CONTEXT },
        "capabilities": abilities,
        "modified_at": call.now.to_string(),
    }))
}

/// The two ways to ask for text.
#[derive(Clone, Copy, PartialEq)]
enum Kin {
    Chat,
    Generate,
}

fn speak(call: &Call<'_>, kin: Kin) -> Result<Reply, Refusal> {
    let model = call.model(Kind::Chat)?;
    let name = call.body["model"].as_str().unwrap_or(model.name);
    let asked = read(call.body, kin);
    let said = script::say(model, &asked, call)?;
    let line = |text: &str, tool: Option<&script::ToolCall>, thought: Option<&str>, last: bool| {
        let mut fields =
            vec![("model", Json::from(name)), ("created_at", (&call.now.to_string()).into())];
        match kin {
            Kin::Chat => fields.push(("message", message(text, tool, thought))),
            Kin::Generate => fields.push(("response", text.into())),
        }
        if last {
            fields.extend(ending(&said));
        } else {
            fields.push(("done", false.into()));
        }
        Json::object(&fields)
    };
    if !asked.stream {
        return Ok(Reply::whole(
            &said,
            line(&said.text(), said.call.as_ref(), said.thought.as_deref(), true),
        ));
    }
    let row = |json: &Json| format!("{}\n", json.text());
    let mut out: Vec<_> = said
        .paced()
        .map(|(after, text)| Piece::after(after, row(&line(text, None, None, false))))
        .collect();
    if said.thought.is_some() {
        out.insert(0, Piece::now(row(&line("", None, said.thought.as_deref(), false))));
    }
    if said.call.is_some() {
        out.push(Piece::after(said.pause(0), row(&line("", said.call.as_ref(), None, false))));
    }
    out.push(Piece::now(row(&line("", None, None, true))));
    Ok(Reply::stream(&said, NDJSON, out))
}

fn read(body: &Value, kin: Kin) -> Asked {
    let mut asked = Asked {
        tools: body["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|tool| function(&tool["function"]))
            .collect::<Vec<Tool>>(),
        format: match &body["format"] {
            Value::Object(_) => Some(body["format"].clone()),
            Value::String(text) if text == "json" => Some(Value::Null),
            _ => None,
        },
        limit: body["options"]["num_predict"].as_u64(),
        input: weigh(&[&body["messages"], &body["system"], &body["prompt"], &body["tools"]]),
        stream: body["stream"].as_bool() != Some(false),
        ..Asked::default()
    };
    asked.stops(&body["options"]["stop"]);
    if kin == Kin::Generate {
        asked.user(text_of(&body["prompt"]));
    }
    for message in body["messages"].as_array().into_iter().flatten() {
        asked.proven |= message["tool_calls"].is_array()
            && message["thinking"].as_str().is_some_and(|text| !text.is_empty());
        match message["role"].as_str() {
            Some("user") => asked.user(text_of(&message["content"])),
            Some("tool") => asked.result(text_of(&message["content"])),
            _ => {}
        }
    }
    asked
}

fn message(text: &str, tool: Option<&script::ToolCall>, thought: Option<&str>) -> Json {
    let mut fields = vec![("role", Json::from("assistant")), ("content", text.into())];
    fields.extend(thought.map(|thought| ("thinking", thought.into())));
    if let Some(tool) = tool {
        let call =
            object! { "function": object! { "name": &tool.name, "arguments": &tool.arguments } };
        fields.push(("tool_calls", vec![call].into()));
    }
    Json::object(&fields)
}

/// What the last line tells; durations in nanoseconds.
fn ending(said: &Said) -> Vec<(&'static str, Json)> {
    let took = u64::try_from(said.duration().as_nanos()).unwrap_or(u64::MAX);
    let reason = if said.finish == Finish::Length { "length" } else { "stop" };
    vec![
        ("done_reason", reason.into()),
        ("done", true.into()),
        ("total_duration", took.saturating_add(2_000_000).into()),
        ("load_duration", 1_000_000_u64.into()),
        ("prompt_eval_count", said.input.into()),
        ("prompt_eval_duration", 1_000_000_u64.into()),
        ("eval_count", said.output.into()),
        ("eval_duration", took.into()),
    ]
}

fn embeddings(call: &Call<'_>) -> Result<Reply, Refusal> {
    call.model(Kind::Embed)?;
    let texts = embed::texts(&call.body["input"]);
    let rows = texts
        .iter()
        .map(|text| embed::list(&embed::vector(text, call.body["dimensions"].as_u64())));
    Ok(Reply::json(object! {
        "model": call.body["model"].as_str().unwrap_or_default(),
        "embeddings": rows.collect::<Vec<_>>(),
        "total_duration": 1_000_000_u64,
        "load_duration": 500_000_u64,
        "prompt_eval_count": texts.iter().map(|text| tokens(text)).sum::<u64>(),
    }))
}
