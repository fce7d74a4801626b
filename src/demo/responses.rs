//! Implements OpenAI's Responses API; stores nothing.

use http::StatusCode;
use serde_json::Value;

use super::{
    DemoCall, DemoError,
    json::{Json, object},
    models::DemoModelKind,
    openai::{self, read_function, read_tool_choice},
    reply::{BodyPiece, DemoReply, SSE},
};
use crate::demo::{
    answers::{self, DemoAnswer, DemoFinish, THOUGHT_SIGNATURE},
    request::{DemoRequest, count_tokens, text_of},
};

pub(super) fn answer_call(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    match (call.is_get, call.path) {
        (true, "models") => Ok(DemoReply::json(openai::write_model_list(call))),
        (true, path) if path.starts_with("models/") => {
            openai::answer_model(call, &path["models/".len()..])
        }
        (false, "responses") => create_response(call),
        (false, "responses/input_tokens") => {
            call.requested_model(DemoModelKind::Chat)?;
            Ok(DemoReply::json(
                object! { "object": "response.input_tokens", "input_tokens": input_tokens(call.body) },
            ))
        }
        (_, path) if path.starts_with("responses/") => {
            Err(DemoError::new(StatusCode::NOT_FOUND, "no response with this id; demo stores none"))
        }
        _ => Err(call.unknown_path()),
    }
}

fn input_tokens(body: &Value) -> u64 {
    count_tokens(&[&body["input"], &body["instructions"], &body["tools"]]).max(1)
}

fn create_response(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    let model = call.requested_model(DemoModelKind::Chat)?;
    let request = read_request(call.body)?;
    let answer = answers::compose_answer(model, &request, call)?;
    let writer = ResponsesAnswerWriter {
        call,
        model: model.name,
        answer: &answer,
        id: call.new_id("resp_"),
        item_id: call.new_id(item_id_prefix(&answer)),
    };
    if request.stream {
        return Ok(DemoReply::streaming(&answer, SSE, writer.write_events()));
    }
    Ok(DemoReply::full(&answer, writer.write_response(DemoResponseState::Done)))
}

fn read_request(body: &Value) -> Result<DemoRequest, DemoError> {
    let mut request = DemoRequest {
        tools: body["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|tool| tool["type"] == "function")
            .filter_map(read_function)
            .collect(),
        tool_choice: read_tool_choice(&body["tool_choice"]),
        json_schema: match body["text"]["format"]["type"].as_str() {
            Some("json_schema") => Some(body["text"]["format"]["schema"].clone()),
            Some("json_object") => Some(Value::Null),
            _ => None,
        },
        max_tokens: body["max_output_tokens"].as_u64(),
        input_tokens: input_tokens(body),
        stream: body["stream"].as_bool() == Some(true),
        ..DemoRequest::default()
    };
    match &body["input"] {
        Value::String(text) => request.set_prompt(text.clone()),
        Value::Array(items) => {
            for item in items {
                request.has_valid_signature |=
                    item["type"] == "reasoning" && item["encrypted_content"] == THOUGHT_SIGNATURE;
                match (item["type"].as_str(), item["role"].as_str()) {
                    (Some("function_call_output" | "custom_tool_call_output"), _) => {
                        request.set_tool_result(text_of(&item["output"]));
                    }
                    (_, Some("user")) => request.set_prompt(text_of(&item["content"])),
                    _ => {}
                }
            }
        }
        _ => {
            return Err(DemoError::new(
                StatusCode::BAD_REQUEST,
                "`input` must be a string or a list of items",
            ));
        }
    }
    Ok(request)
}

fn item_id_prefix(answer: &DemoAnswer) -> &'static str {
    if answer.tool_call.is_some() { "fc_" } else { "msg_" }
}

/// The progress of the answer.
#[derive(Clone, Copy, PartialEq)]
enum DemoResponseState {
    InProgress,
    Done,
}

/// Writes one answer with its model and ids.
struct ResponsesAnswerWriter<'a> {
    call: &'a DemoCall<'a>,
    model: &'a str,
    answer: &'a DemoAnswer,
    id: String,
    item_id: String,
}

impl ResponsesAnswerWriter<'_> {
    /// Writes the response object; a finished one has output and usage.
    fn write_response(&self, state: DemoResponseState) -> Json {
        let (body, done) = (self.call.body, state == DemoResponseState::Done);
        let or =
            |key: &str, value: Json| if body[key].is_null() { value } else { (&body[key]).into() };
        let cut_short = done && self.answer.finish == DemoFinish::Length;
        let status = match (done, cut_short) {
            (false, _) => "in_progress",
            (true, false) => "completed",
            (true, true) => "incomplete",
        };
        let format = if body["text"]["format"].is_null() {
            object! { "type": "text" }
        } else {
            (&body["text"]["format"]).into()
        };
        object! {
            "id": &self.id,
            "object": "response",
            "created_at": self.call.created_seconds(),
            "status": status,
            "background": false,
            "completed_at": (done && !cut_short).then(|| self.call.created_seconds()),
            "error": Json::NULL,
            "incomplete_details": cut_short.then(|| object! { "reason": "max_output_tokens" }),
            "instructions": &body["instructions"],
            "max_output_tokens": &body["max_output_tokens"],
            "max_tool_calls": Json::NULL,
            "model": self.model,
            "output": if done { self.reasoning_item().into_iter().chain([self.output_item(DemoResponseState::Done)]).collect() } else { Vec::new() },
            "parallel_tool_calls": or("parallel_tool_calls", true.into()),
            "previous_response_id": &body["previous_response_id"],
            "prompt_cache_key": &body["prompt_cache_key"],
            "reasoning": object! { "effort": Json::NULL, "summary": Json::NULL },
            "safety_identifier": Json::NULL,
            "service_tier": "default",
            "store": or("store", true.into()),
            "temperature": or("temperature", Json::float(1.0)),
            "text": object! { "format": format, "verbosity": "medium" },
            "tool_choice": or("tool_choice", "auto".into()),
            "tools": or("tools", Vec::new().into()),
            "top_logprobs": 0_u64,
            "top_p": or("top_p", Json::float(1.0)),
            "truncation": or("truncation", "disabled".into()),
            "usage": done.then(|| self.write_usage()),
            "user": &body["user"],
            "metadata": or("metadata", Json::empty_object()),
        }
    }

    fn write_usage(&self) -> Json {
        object! {
            "input_tokens": self.answer.input_tokens,
            "input_tokens_details": object! { "cached_tokens": 0_u64 },
            "output_tokens": self.answer.output_tokens,
            "output_tokens_details": object! { "reasoning_tokens": self.answer.thought_tokens() },
            "total_tokens": self.answer.input_tokens + self.answer.output_tokens,
        }
    }

    /// Returns the reasoning as a separate output item.
    fn reasoning_item(&self) -> Option<Json> {
        let thought = self.answer.thought.as_ref()?;
        let summary = vec![object! { "type": "summary_text", "text": thought }];
        Some(
            object! { "id": self.call.new_id("rs_"), "type": "reasoning", "summary": summary, "encrypted_content": THOUGHT_SIGNATURE },
        )
    }

    /// Returns the last output item: a message or a function call.
    fn output_item(&self, state: DemoResponseState) -> Json {
        let done = state == DemoResponseState::Done;
        let status = match (done, &self.answer.finish) {
            (false, _) => "in_progress",
            (true, DemoFinish::Length) => "incomplete",
            (true, _) => "completed",
        };
        if let Some(tool) = &self.answer.tool_call {
            let arguments = if done { tool.arguments.to_string() } else { String::new() };
            return object! {
                "id": &self.item_id,
                "type": "function_call",
                "status": status,
                "arguments": arguments,
                "call_id": self.call.new_id("call_"),
                "name": &tool.name,
            };
        }
        let content = if done { vec![text_part(&self.answer.text())] } else { Vec::new() };
        object! { "id": &self.item_id, "type": "message", "status": status, "content": content, "role": "assistant" }
    }

    fn write_events(&self) -> Vec<BodyPiece> {
        let mut out = NumberedEvents::default();
        for name in ["response.created", "response.in_progress"] {
            out.push(name, vec![("response", self.write_response(DemoResponseState::InProgress))]);
        }
        let number = u64::from(self.answer.thought.is_some());
        if let (Some(item), Some(thought)) = (self.reasoning_item(), &self.answer.thought) {
            let id = self.call.new_id("rs_");
            let open = object! { "id": &id, "type": "reasoning", "summary": Vec::new() };
            let at = || {
                vec![
                    ("item_id", Json::from(&id)),
                    ("output_index", 0_u64.into()),
                    ("summary_index", 0_u64.into()),
                ]
            };
            let part = |text: &str| object! { "type": "summary_text", "text": text };
            out.push(
                "response.output_item.added",
                vec![("item", open), ("output_index", 0_u64.into())],
            );
            out.push(
                "response.reasoning_summary_part.added",
                [at(), vec![("part", part(""))]].concat(),
            );
            out.push(
                "response.reasoning_summary_text.delta",
                [at(), vec![("delta", thought.into())]].concat(),
            );
            out.push(
                "response.reasoning_summary_text.done",
                [at(), vec![("text", thought.into())]].concat(),
            );
            out.push(
                "response.reasoning_summary_part.done",
                [at(), vec![("part", part(thought))]].concat(),
            );
            out.push(
                "response.output_item.done",
                vec![("item", item), ("output_index", 0_u64.into())],
            );
        }
        out.push(
            "response.output_item.added",
            vec![
                ("item", self.output_item(DemoResponseState::InProgress)),
                ("output_index", number.into()),
            ],
        );
        let at = |content: bool| {
            let mut fields =
                vec![("item_id", Json::from(&self.item_id)), ("output_index", number.into())];
            if content {
                fields.push(("content_index", 0_u64.into()));
            }
            fields
        };
        if let Some(tool) = &self.answer.tool_call {
            for (index, text) in DemoAnswer::argument_pieces(tool).iter().enumerate() {
                let fields = [at(false), vec![("delta", text.into())]].concat();
                out.push_delayed(
                    self.answer.delay_before(index),
                    "response.function_call_arguments.delta",
                    fields,
                );
            }
            let arguments =
                [at(false), vec![("arguments", (&tool.arguments.to_string()).into())]].concat();
            out.push("response.function_call_arguments.done", arguments);
        } else {
            out.push(
                "response.content_part.added",
                [at(true), vec![("part", text_part(""))]].concat(),
            );
            for (after, text) in self.answer.paced_pieces() {
                let fields =
                    [at(true), vec![("delta", text.into()), ("logprobs", Vec::new().into())]]
                        .concat();
                out.push_delayed(after, "response.output_text.delta", fields);
            }
            let text = self.answer.text();
            out.push(
                "response.output_text.done",
                [at(true), vec![("text", (&text).into()), ("logprobs", Vec::new().into())]]
                    .concat(),
            );
            out.push(
                "response.content_part.done",
                [at(true), vec![("part", text_part(&text))]].concat(),
            );
        }
        out.push(
            "response.output_item.done",
            vec![
                ("item", self.output_item(DemoResponseState::Done)),
                ("output_index", number.into()),
            ],
        );
        let last = if self.answer.finish == DemoFinish::Length {
            "response.incomplete"
        } else {
            "response.completed"
        };
        out.push(last, vec![("response", self.write_response(DemoResponseState::Done))]);
        out.pieces
    }
}

fn text_part(text: &str) -> Json {
    object! { "type": "output_text", "annotations": Vec::new(), "logprobs": Vec::new(), "text": text }
}

/// Writes events with their sequence number.
#[derive(Default)]
struct NumberedEvents {
    pieces: Vec<BodyPiece>,
}

impl NumberedEvents {
    fn push(&mut self, name: &str, fields: Vec<(&str, Json)>) {
        self.push_delayed(std::time::Duration::ZERO, name, fields);
    }

    fn push_delayed(&mut self, after: std::time::Duration, name: &str, fields: Vec<(&str, Json)>) {
        let number = self.pieces.len() as u64;
        let data = Json::object(
            &[vec![("type", name.into())], fields, vec![("sequence_number", number.into())]]
                .concat(),
        );
        self.pieces
            .push(BodyPiece::delayed(after, format!("event: {name}\ndata: {}\n\n", data.as_str())));
    }
}
