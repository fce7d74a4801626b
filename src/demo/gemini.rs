//! Implements Gemini's generateContent API family.

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{
    DemoCall, DemoError, embed,
    json::{Json, object},
    models::{self, DemoModel, DemoModelKind},
    reply::{BodyPiece, DemoReply, SSE},
};
use crate::demo::{
    answers::{self, DemoAnswer, DemoFinish, THOUGHT_SIGNATURE},
    request::{DemoRequest, DemoTool, DemoToolChoice, count_tokens, text_of, text_tokens},
};

pub(super) fn answer_call(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    let path = percent_decode_str(call.path).decode_utf8_lossy();
    match (call.is_get, path.split_once('/')) {
        (true, None) if path == "models" => {
            let rows = models::ALL.iter().map(model_card).collect::<Vec<_>>();
            Ok(DemoReply::json(object! { "models": rows }))
        }
        (true, Some(("models", name))) => {
            let model =
                models::find_model(name).ok_or_else(|| model_not_found(name, "generateContent"))?;
            Ok(DemoReply::json(model_card(model)))
        }
        (false, Some(("models", target))) => {
            let (name, method) = target.rsplit_once(':').ok_or_else(|| call.unknown_path())?;
            match method {
                "generateContent" | "streamGenerateContent" => generate_content(call, name, method),
                "countTokens" => {
                    find_model(name, DemoModelKind::Chat, method)?;
                    Ok(DemoReply::json(write_token_count(call.body)))
                }
                "embedContent" | "batchEmbedContents" => {
                    find_model(name, DemoModelKind::Embed, method)?;
                    Ok(DemoReply::json(write_embeddings(call.body, method)))
                }
                _ => Err(call.unknown_path()),
            }
        }
        _ => Err(call.unknown_path()),
    }
}

pub(super) fn write_error(error: &DemoError) -> Json {
    let status = match error.status.as_u16() {
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
        ("code", u64::from(error.status.as_u16()).into()),
        ("message", Json::from(&error.message)),
        ("status", status.into()),
    ];
    if let Some(seconds) = error.retry_after {
        let hint = object! { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": &format!("{seconds}s") };
        fields.push(("details", vec![hint].into()));
    }
    object! { "error": Json::object(&fields) }
}

fn model_not_found(name: &str, method: &str) -> DemoError {
    let text = format!(
        "models/{} is not found for API version v1beta, or is not supported for {method}.",
        name.escape_debug()
    );
    DemoError::new(StatusCode::NOT_FOUND, text)
}

fn find_model(
    name: &str,
    wanted: DemoModelKind,
    method: &str,
) -> Result<&'static DemoModel, DemoError> {
    models::find_model(name)
        .filter(|model| model.kind == wanted)
        .ok_or_else(|| model_not_found(name, method))
}

fn model_card(model: &DemoModel) -> Json {
    let methods = match model.kind {
        DemoModelKind::Chat => vec!["generateContent".into(), "countTokens".into()],
        DemoModelKind::Embed => vec!["embedContent".into()],
    };
    object! {
        "name": format!("models/{}", model.name),
        "version": "001",
        "displayName": &format!("Demo {}", model.name),
        "description": model.description,
        "inputTokenLimit": models::CONTEXT_TOKENS,
        "outputTokenLimit": models::MAX_OUTPUT_TOKENS,
        "supportedGenerationMethods": methods,
    }
}

fn generate_content(call: &DemoCall<'_>, name: &str, method: &str) -> Result<DemoReply, DemoError> {
    let model = find_model(name, DemoModelKind::Chat, method)?;
    let request = read_request(call.body)?;
    let answer = answers::compose_answer(model, &request, call)?;
    let writer = GeminiAnswerWriter { model: model.name, answer: &answer, id: call.new_id("") };
    if method == "generateContent" {
        let part = answer.tool_call.as_ref().map_or_else(
            || object! { "text": answer.text() },
            |tool| function_call_part(call, tool, &answer),
        );
        return Ok(DemoReply::full(
            &answer,
            writer.write_chunk(
                writer.thought_part().into_iter().chain([part]).collect(),
                true,
                answer.output_tokens,
            ),
        ));
    }
    let chunks = writer.write_chunks(call);
    if call.query.split('&').any(|pair| pair == "alt=sse") {
        let frames = chunks.into_iter().map(|(after, chunk)| {
            BodyPiece::delayed(after, format!("data: {}\r\n\r\n", chunk.as_str()))
        });
        return Ok(DemoReply::streaming(&answer, SSE, frames.collect()));
    }
    let last = chunks.len().saturating_sub(1);
    let frames = chunks.into_iter().enumerate().map(|(index, (after, chunk))| {
        let (before, behind) =
            (if index == 0 { "[" } else { ",\r\n" }, if index == last { "\n]\n" } else { "\n" });
        BodyPiece::delayed(after, format!("{before}{}{behind}", chunk.as_str()))
    });
    Ok(DemoReply::streaming(&answer, "application/json; charset=UTF-8", frames.collect()))
}

/// Returns a field that clients write in camel case or in snake case.
fn either_case<'a>(object: &'a Value, camel: &str, snake: &str) -> &'a Value {
    if object[camel].is_null() { &object[snake] } else { &object[camel] }
}

fn read_request(body: &Value) -> Result<DemoRequest, DemoError> {
    let contents = content_list(body);
    if contents.is_empty() {
        return Err(DemoError::new(StatusCode::BAD_REQUEST, "contents is not specified"));
    }
    let declared = body["tools"].as_array().into_iter().flatten();
    let declared = declared.flat_map(|tool| {
        either_case(tool, "functionDeclarations", "function_declarations")
            .as_array()
            .into_iter()
            .flatten()
    });
    let tools = declared.filter_map(|tool| {
        let schema =
            [&tool["parametersJsonSchema"], &tool["parameters_json_schema"], &tool["parameters"]];
        let schema =
            schema.into_iter().find(|schema| schema.is_object()).cloned().unwrap_or_default();
        Some(DemoTool { name: tool["name"].as_str()?.to_owned(), schema })
    });
    let config = either_case(body, "generationConfig", "generation_config");
    let calling = either_case(
        either_case(body, "toolConfig", "tool_config"),
        "functionCallingConfig",
        "function_calling_config",
    );
    let allowed = either_case(calling, "allowedFunctionNames", "allowed_function_names");
    let schema =
        [&config["responseJsonSchema"], &config["responseSchema"], &config["response_schema"]];
    let json = either_case(config, "responseMimeType", "response_mime_type") == "application/json";
    let mut request = DemoRequest {
        tools: tools.collect(),
        tool_choice: match (calling["mode"].as_str(), allowed[0].as_str()) {
            (Some("NONE"), _) => DemoToolChoice::None,
            (Some("ANY"), Some(name)) => DemoToolChoice::Named(name.to_owned()),
            _ => DemoToolChoice::Auto,
        },
        json_schema: schema
            .into_iter()
            .find(|schema| schema.is_object())
            .cloned()
            .or(json.then_some(Value::Null)),
        max_tokens: either_case(config, "maxOutputTokens", "max_output_tokens").as_u64(),
        input_tokens: input_tokens(body),
        ..DemoRequest::default()
    };
    request.read_stop_sequences(either_case(config, "stopSequences", "stop_sequences"));
    let parts =
        contents.iter().flat_map(|content| content["parts"].as_array().into_iter().flatten());
    request.has_valid_signature =
        parts.filter(|part| !either_case(part, "functionCall", "function_call").is_null()).any(
            |part| either_case(part, "thoughtSignature", "thought_signature") == THOUGHT_SIGNATURE,
        );
    for content in contents.iter().filter(|content| content["role"] != "model") {
        let parts = content["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let result = parts
            .iter()
            .map(|part| either_case(part, "functionResponse", "function_response"))
            .rfind(|response| !response.is_null());
        match result {
            Some(response) => request.set_tool_result(response["response"].to_string()),
            None => request.set_prompt(text_of(&content["parts"])),
        }
    }
    Ok(request)
}

/// Returns the entries of `contents`, which may be one object instead of a list.
fn content_list(body: &Value) -> &[Value] {
    match &body["contents"] {
        Value::Array(items) => items,
        Value::Null => &[],
        one => std::slice::from_ref(one),
    }
}

fn input_tokens(body: &Value) -> u64 {
    count_tokens(&[
        &body["contents"],
        either_case(body, "systemInstruction", "system_instruction"),
        &body["tools"],
    ])
    .max(1)
}

fn function_call_part(
    call: &DemoCall<'_>,
    tool: &answers::DemoToolCall,
    answer: &DemoAnswer,
) -> Json {
    let fields =
        object! { "id": call.new_id("call_"), "name": &tool.name, "args": &tool.arguments };
    match answer.thought {
        Some(_) => object! { "functionCall": fields, "thoughtSignature": THOUGHT_SIGNATURE },
        None => object! { "functionCall": fields },
    }
}

/// Writes one answer with its model and id.
struct GeminiAnswerWriter<'a> {
    model: &'a str,
    answer: &'a DemoAnswer,
    id: String,
}

impl GeminiAnswerWriter<'_> {
    fn write_chunks(&self, call: &DemoCall<'_>) -> Vec<(std::time::Duration, Json)> {
        if let Some(tool) = &self.answer.tool_call {
            let parts = self
                .thought_part()
                .into_iter()
                .chain([function_call_part(call, tool, self.answer)])
                .collect();
            return vec![(
                self.answer.delay_before(0),
                self.write_chunk(parts, true, self.answer.output_tokens),
            )];
        }
        let (last, mut text) = (self.answer.pieces.len().saturating_sub(1), String::new());
        let paced = self.answer.paced_pieces().enumerate().map(|(index, (after, piece))| {
            text.push_str(piece);
            (
                after,
                self.write_chunk(
                    vec![object! { "text": piece }],
                    index == last,
                    text_tokens(&text),
                ),
            )
        });
        let thought = self
            .thought_part()
            .map(|part| (std::time::Duration::ZERO, self.write_chunk(vec![part], false, 0)));
        let chunks: Vec<_> = thought.into_iter().chain(paced).collect();
        if chunks.is_empty() {
            vec![(
                self.answer.delay_before(0),
                self.write_chunk(vec![object! { "text": "" }], true, 1),
            )]
        } else {
            chunks
        }
    }

    fn thought_part(&self) -> Option<Json> {
        self.answer.thought.as_ref().map(|thought| object! { "text": thought, "thought": true })
    }

    fn write_chunk(&self, parts: Vec<Json>, last: bool, output: u64) -> Json {
        let output = output.saturating_sub(if last { self.answer.thought_tokens() } else { 0 });
        let mut candidate = vec![("content", object! { "parts": parts, "role": "model" })];
        if last {
            let reason =
                if self.answer.finish == DemoFinish::Length { "MAX_TOKENS" } else { "STOP" };
            candidate.push(("finishReason", reason.into()));
        }
        candidate.push(("index", 0_u64.into()));
        object! {
            "candidates": vec![Json::object(&candidate)],
            "usageMetadata": object! {
                "promptTokenCount": self.answer.input_tokens,
                "candidatesTokenCount": output,
                "thoughtsTokenCount": self.answer.thought_tokens(),
                "totalTokenCount": self.answer.input_tokens + output + self.answer.thought_tokens(),
                "promptTokensDetails": vec![object! { "modality": "TEXT", "tokenCount": self.answer.input_tokens }],
            },
            "modelVersion": self.model,
            "responseId": &self.id,
        }
    }
}

fn write_token_count(body: &Value) -> Json {
    let inner = either_case(body, "generateContentRequest", "generate_content_request");
    let count = input_tokens(if inner.is_null() { body } else { inner });
    object! { "totalTokens": count, "promptTokensDetails": vec![object! { "modality": "TEXT", "tokenCount": count }] }
}

fn write_embeddings(body: &Value, method: &str) -> Json {
    let one = |request: &Value| {
        let dimensions =
            either_case(request, "outputDimensionality", "output_dimensionality").as_u64();
        object! { "values": embed::write_numbers(&embed::embed_text(&text_of(&request["content"]["parts"]), dimensions)) }
    };
    if method == "embedContent" {
        return object! { "embedding": one(body) };
    }
    let rows = body["requests"].as_array().into_iter().flatten().take(2_048).map(one);
    object! { "embeddings": rows.collect::<Vec<_>>() }
}
