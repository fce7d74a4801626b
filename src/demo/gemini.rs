//! Speaks Gemini's generateContent family.

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{
    Call, Refusal,
    asked::{Asked, Choice, Tool, text_of, tokens, weigh},
    embed,
    json::{Json, object},
    models::{self, Kind, Model},
    reply::{Piece, Reply, SSE},
    script::{self, Finish, PROOF, Said},
};

pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let path = percent_decode_str(call.path).decode_utf8_lossy();
    match (call.get, path.split_once('/')) {
        (true, None) if path == "models" => {
            let rows = models::ALL.iter().map(card).collect::<Vec<_>>();
            Ok(Reply::json(object! { "models": rows }))
        }
        (true, Some(("models", name))) => {
            let model = models::find(name).ok_or_else(|| missing(name, "generateContent"))?;
            Ok(Reply::json(card(model)))
        }
        (false, Some(("models", target))) => {
            let (name, method) = target.rsplit_once(':').ok_or_else(|| call.unknown())?;
            match method {
                "generateContent" | "streamGenerateContent" => generate(call, name, method),
                "countTokens" => {
                    named(name, Kind::Chat, method)?;
                    Ok(Reply::json(count(call.body)))
                }
                "embedContent" | "batchEmbedContents" => {
                    named(name, Kind::Embed, method)?;
                    Ok(Reply::json(embeddings(call.body, method)))
                }
                _ => Err(call.unknown()),
            }
        }
        _ => Err(call.unknown()),
    }
}

pub(super) fn error(refusal: &Refusal) -> Json {
    let status = match refusal.status.as_u16() {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "FAILED_PRECONDITION",
    };
    let mut fields = vec![
        ("code", u64::from(refusal.status.as_u16()).into()),
        ("message", Json::from(&refusal.message)),
        ("status", status.into()),
    ];
    if let Some(seconds) = refusal.retry_after {
        let hint = object! { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": &format!("{seconds}s") };
        fields.push(("details", vec![hint].into()));
    }
    object! { "error": Json::object(&fields) }
}

fn missing(name: &str, method: &str) -> Refusal {
    let text = format!(
        "models/{} is not found for API version v1beta, or is not supported for {method}.",
        name.escape_debug()
    );
    Refusal::new(StatusCode::NOT_FOUND, text)
}

fn named(name: &str, wanted: Kind, method: &str) -> Result<&'static Model, Refusal> {
    models::find(name).filter(|model| model.kind == wanted).ok_or_else(|| missing(name, method))
}

fn card(model: &Model) -> Json {
    let methods = match model.kind {
        Kind::Chat => vec!["generateContent".into(), "countTokens".into()],
        Kind::Embed => vec!["embedContent".into()],
    };
    object! {
        "name": format!("models/{}", model.name),
        "version": "001",
        "displayName": &format!("Demo {}", model.name),
        "description": model.about,
        "inputTokenLimit": models::CONTEXT,
        "outputTokenLimit": models::OUTPUT,
        "supportedGenerationMethods": methods,
    }
}

fn generate(call: &Call<'_>, name: &str, method: &str) -> Result<Reply, Refusal> {
    let model = named(name, Kind::Chat, method)?;
    let asked = read(call.body)?;
    let said = script::say(model, &asked, call)?;
    let answer = Answer { model: model.name, said: &said, id: call.id("") };
    if method == "generateContent" {
        let part = said
            .call
            .as_ref()
            .map_or_else(|| object! { "text": said.text() }, |tool| function(call, tool, &said));
        return Ok(Reply::whole(
            &said,
            answer.chunk(answer.thought().into_iter().chain([part]).collect(), true, said.output),
        ));
    }
    let chunks = answer.chunks(call);
    if call.query.split('&').any(|pair| pair == "alt=sse") {
        let frames = chunks
            .into_iter()
            .map(|(after, chunk)| Piece::after(after, format!("data: {}\r\n\r\n", chunk.text())));
        return Ok(Reply::stream(&said, SSE, frames.collect()));
    }
    let last = chunks.len().saturating_sub(1);
    let frames = chunks.into_iter().enumerate().map(|(index, (after, chunk))| {
        let (before, behind) =
            (if index == 0 { "[" } else { ",\r\n" }, if index == last { "\n]\n" } else { "\n" });
        Piece::after(after, format!("{before}{}{behind}", chunk.text()))
    });
    Ok(Reply::stream(&said, "application/json; charset=UTF-8", frames.collect()))
}

/// A field that clients write in either case.
fn field<'a>(object: &'a Value, camel: &str, snake: &str) -> &'a Value {
    if object[camel].is_null() { &object[snake] } else { &object[camel] }
}

fn read(body: &Value) -> Result<Asked, Refusal> {
    let contents = contents(body);
    if contents.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "contents is not specified"));
    }
    let declared = body["tools"].as_array().into_iter().flatten();
    let declared = declared.flat_map(|tool| {
        field(tool, "functionDeclarations", "function_declarations")
            .as_array()
            .into_iter()
            .flatten()
    });
    let tools = declared.filter_map(|tool| {
        let schema =
            [&tool["parametersJsonSchema"], &tool["parameters_json_schema"], &tool["parameters"]];
        let schema =
            schema.into_iter().find(|schema| schema.is_object()).cloned().unwrap_or_default();
        Some(Tool { name: tool["name"].as_str()?.to_owned(), schema })
    });
    let config = field(body, "generationConfig", "generation_config");
    let calling = field(
        field(body, "toolConfig", "tool_config"),
        "functionCallingConfig",
        "function_calling_config",
    );
    let allowed = field(calling, "allowedFunctionNames", "allowed_function_names");
    let schema =
        [&config["responseJsonSchema"], &config["responseSchema"], &config["response_schema"]];
    let json = field(config, "responseMimeType", "response_mime_type") == "application/json";
    let mut asked = Asked {
        tools: tools.collect(),
        choice: match (calling["mode"].as_str(), allowed[0].as_str()) {
            (Some("NONE"), _) => Choice::Never,
            (Some("ANY"), Some(name)) => Choice::Named(name.to_owned()),
            _ => Choice::Free,
        },
        format: schema
            .into_iter()
            .find(|schema| schema.is_object())
            .cloned()
            .or(json.then_some(Value::Null)),
        limit: field(config, "maxOutputTokens", "max_output_tokens").as_u64(),
        input: weight(body),
        ..Asked::default()
    };
    asked.stops(field(config, "stopSequences", "stop_sequences"));
    let parts =
        contents.iter().flat_map(|content| content["parts"].as_array().into_iter().flatten());
    asked.proven = parts
        .filter(|part| !field(part, "functionCall", "function_call").is_null())
        .any(|part| field(part, "thoughtSignature", "thought_signature") == PROOF);
    for content in contents.iter().filter(|content| content["role"] != "model") {
        let parts = content["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let result = parts
            .iter()
            .map(|part| field(part, "functionResponse", "function_response"))
            .rfind(|answer| !answer.is_null());
        match result {
            Some(answer) => asked.result(answer["response"].to_string()),
            None => asked.user(text_of(&content["parts"])),
        }
    }
    Ok(asked)
}

/// `contents` may be one object instead of a list.
fn contents(body: &Value) -> &[Value] {
    match &body["contents"] {
        Value::Array(items) => items,
        Value::Null => &[],
        one => std::slice::from_ref(one),
    }
}

fn weight(body: &Value) -> u64 {
    weigh(&[
        &body["contents"],
        field(body, "systemInstruction", "system_instruction"),
        &body["tools"],
    ])
    .max(1)
}

fn function(call: &Call<'_>, tool: &script::ToolCall, said: &Said) -> Json {
    let what = object! { "id": call.id("call_"), "name": &tool.name, "args": &tool.arguments };
    match said.thought {
        Some(_) => object! { "functionCall": what, "thoughtSignature": PROOF },
        None => object! { "functionCall": what },
    }
}

/// One answer and its names.
struct Answer<'a> {
    model: &'a str,
    said: &'a Said,
    id: String,
}

impl Answer<'_> {
    fn chunks(&self, call: &Call<'_>) -> Vec<(std::time::Duration, Json)> {
        if let Some(tool) = &self.said.call {
            let parts =
                self.thought().into_iter().chain([function(call, tool, self.said)]).collect();
            return vec![(self.said.pause(0), self.chunk(parts, true, self.said.output))];
        }
        let (last, mut text) = (self.said.pieces.len().saturating_sub(1), String::new());
        let paced = self.said.paced().enumerate().map(|(index, (after, piece))| {
            text.push_str(piece);
            (after, self.chunk(vec![object! { "text": piece }], index == last, tokens(&text)))
        });
        let thought = self
            .thought()
            .map(|part| (std::time::Duration::ZERO, self.chunk(vec![part], false, 0)));
        let chunks: Vec<_> = thought.into_iter().chain(paced).collect();
        if chunks.is_empty() {
            vec![(self.said.pause(0), self.chunk(vec![object! { "text": "" }], true, 1))]
        } else {
            chunks
        }
    }

    fn thought(&self) -> Option<Json> {
        self.said.thought.as_ref().map(|thought| object! { "text": thought, "thought": true })
    }

    fn chunk(&self, parts: Vec<Json>, last: bool, output: u64) -> Json {
        let output = output.saturating_sub(if last { self.said.thinking() } else { 0 });
        let mut candidate = vec![("content", object! { "parts": parts, "role": "model" })];
        if last {
            let reason = if self.said.finish == Finish::Length { "MAX_TOKENS" } else { "STOP" };
            candidate.push(("finishReason", reason.into()));
        }
        candidate.push(("index", 0_u64.into()));
        object! {
            "candidates": vec![Json::object(&candidate)],
            "usageMetadata": object! {
                "promptTokenCount": self.said.input,
                "candidatesTokenCount": output,
                "thoughtsTokenCount": self.said.thinking(),
                "totalTokenCount": self.said.input + output + self.said.thinking(),
                "promptTokensDetails": vec![object! { "modality": "TEXT", "tokenCount": self.said.input }],
            },
            "modelVersion": self.model,
            "responseId": &self.id,
        }
    }
}

fn count(body: &Value) -> Json {
    let inner = field(body, "generateContentRequest", "generate_content_request");
    let count = weight(if inner.is_null() { body } else { inner });
    object! { "totalTokens": count, "promptTokensDetails": vec![object! { "modality": "TEXT", "tokenCount": count }] }
}

fn embeddings(body: &Value, method: &str) -> Json {
    let one = |request: &Value| {
        let dimensions = field(request, "outputDimensionality", "output_dimensionality").as_u64();
        object! { "values": embed::list(&embed::vector(&text_of(&request["content"]["parts"]), dimensions)) }
    };
    if method == "embedContent" {
        return object! { "embedding": one(body) };
    }
    let rows = body["requests"].as_array().into_iter().flatten().take(2_048).map(one);
    object! { "embeddings": rows.collect::<Vec<_>>() }
}
