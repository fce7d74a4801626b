//! Speaks OpenAI's Responses. Nothing is stored.

use http::StatusCode;
use serde_json::Value;

use super::{
    Call, Refusal,
    asked::{Asked, text_of, weigh},
    json::{Json, object},
    models::Kind,
    openai::{self, choice, function},
    reply::{Piece, Reply, SSE},
    script::{self, Finish, PROOF, Said},
};

pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    match (call.get, call.path) {
        (true, "models") => Ok(Reply::json(openai::list(call))),
        (true, path) if path.starts_with("models/") => openai::card(call, &path["models/".len()..]),
        (false, "responses") => respond(call),
        (false, "responses/input_tokens") => {
            call.model(Kind::Chat)?;
            Ok(Reply::json(
                object! { "object": "response.input_tokens", "input_tokens": weight(call.body) },
            ))
        }
        (_, path) if path.starts_with("responses/") => {
            Err(Refusal::new(StatusCode::NOT_FOUND, "no response with this id; demo stores none"))
        }
        _ => Err(call.unknown()),
    }
}

fn weight(body: &Value) -> u64 {
    weigh(&[&body["input"], &body["instructions"], &body["tools"]]).max(1)
}

fn respond(call: &Call<'_>) -> Result<Reply, Refusal> {
    let model = call.model(Kind::Chat)?;
    let asked = read(call.body)?;
    let said = script::say(model, &asked, call)?;
    let answer = Answer {
        call,
        model: model.name,
        said: &said,
        id: call.id("resp_"),
        item_id: call.id(item_prefix(&said)),
    };
    if asked.stream {
        return Ok(Reply::stream(&said, SSE, answer.events()));
    }
    Ok(Reply::whole(&said, answer.response(State::Done)))
}

fn read(body: &Value) -> Result<Asked, Refusal> {
    let mut asked = Asked {
        tools: body["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|tool| tool["type"] == "function")
            .filter_map(function)
            .collect(),
        choice: choice(&body["tool_choice"]),
        format: match body["text"]["format"]["type"].as_str() {
            Some("json_schema") => Some(body["text"]["format"]["schema"].clone()),
            Some("json_object") => Some(Value::Null),
            _ => None,
        },
        limit: body["max_output_tokens"].as_u64(),
        input: weight(body),
        stream: body["stream"].as_bool() == Some(true),
        ..Asked::default()
    };
    match &body["input"] {
        Value::String(text) => asked.user(text.clone()),
        Value::Array(items) => {
            for item in items {
                asked.proven |= item["type"] == "reasoning" && item["encrypted_content"] == PROOF;
                match (item["type"].as_str(), item["role"].as_str()) {
                    (Some("function_call_output" | "custom_tool_call_output"), _) => {
                        asked.result(text_of(&item["output"]))
                    }
                    (_, Some("user")) => asked.user(text_of(&item["content"])),
                    _ => {}
                }
            }
        }
        _ => {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "`input` must be a string or a list of items",
            ));
        }
    }
    Ok(asked)
}

fn item_prefix(said: &Said) -> &'static str {
    if said.call.is_some() { "fc_" } else { "msg_" }
}

/// How far the answer is.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Begun,
    Done,
}

/// One answer and its names.
struct Answer<'a> {
    call: &'a Call<'a>,
    model: &'a str,
    said: &'a Said,
    id: String,
    item_id: String,
}

impl Answer<'_> {
    /// The response object; a finished one has output and usage.
    fn response(&self, state: State) -> Json {
        let (body, done) = (self.call.body, state == State::Done);
        let or =
            |key: &str, value: Json| if body[key].is_null() { value } else { (&body[key]).into() };
        let cut_short = done && self.said.finish == Finish::Length;
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
            "created_at": self.call.created(),
            "status": status,
            "background": false,
            "completed_at": (done && !cut_short).then(|| self.call.created()),
            "error": Json::NULL,
            "incomplete_details": cut_short.then(|| object! { "reason": "max_output_tokens" }),
            "instructions": &body["instructions"],
            "max_output_tokens": &body["max_output_tokens"],
            "max_tool_calls": Json::NULL,
            "model": self.model,
            "output": if done { self.thought().into_iter().chain([self.item(State::Done)]).collect() } else { Vec::new() },
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
            "usage": done.then(|| self.usage()),
            "user": &body["user"],
            "metadata": or("metadata", Json::empty()),
        }
    }

    fn usage(&self) -> Json {
        object! {
            "input_tokens": self.said.input,
            "input_tokens_details": object! { "cached_tokens": 0_u64 },
            "output_tokens": self.said.output,
            "output_tokens_details": object! { "reasoning_tokens": self.said.thinking() },
            "total_tokens": self.said.input + self.said.output,
        }
    }

    /// What was thought, as an item of its own.
    fn thought(&self) -> Option<Json> {
        let thought = self.said.thought.as_ref()?;
        let summary = vec![object! { "type": "summary_text", "text": thought }];
        Some(
            object! { "id": self.call.id("rs_"), "type": "reasoning", "summary": summary, "encrypted_content": PROOF },
        )
    }

    /// The last output item: a message or a function call.
    fn item(&self, state: State) -> Json {
        let done = state == State::Done;
        let status = match (done, &self.said.finish) {
            (false, _) => "in_progress",
            (true, Finish::Length) => "incomplete",
            (true, _) => "completed",
        };
        if let Some(tool) = &self.said.call {
            let arguments = if done { tool.arguments.to_string() } else { String::new() };
            return object! {
                "id": &self.item_id,
                "type": "function_call",
                "status": status,
                "arguments": arguments,
                "call_id": self.call.id("call_"),
                "name": &tool.name,
            };
        }
        let content = if done { vec![part(&self.said.text())] } else { Vec::new() };
        object! { "id": &self.item_id, "type": "message", "status": status, "content": content, "role": "assistant" }
    }

    fn events(&self) -> Vec<Piece> {
        let mut out = Events::default();
        for name in ["response.created", "response.in_progress"] {
            out.push(name, vec![("response", self.response(State::Begun))]);
        }
        let number = u64::from(self.said.thought.is_some());
        if let (Some(item), Some(thought)) = (self.thought(), &self.said.thought) {
            let id = self.call.id("rs_");
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
            vec![("item", self.item(State::Begun)), ("output_index", number.into())],
        );
        let at = |content: bool| {
            let mut fields =
                vec![("item_id", Json::from(&self.item_id)), ("output_index", number.into())];
            if content {
                fields.push(("content_index", 0_u64.into()));
            }
            fields
        };
        if let Some(tool) = &self.said.call {
            for (index, text) in Said::argument_pieces(tool).iter().enumerate() {
                let fields = [at(false), vec![("delta", text.into())]].concat();
                out.paced(self.said.pause(index), "response.function_call_arguments.delta", fields);
            }
            let arguments =
                [at(false), vec![("arguments", (&tool.arguments.to_string()).into())]].concat();
            out.push("response.function_call_arguments.done", arguments);
        } else {
            out.push("response.content_part.added", [at(true), vec![("part", part(""))]].concat());
            for (after, text) in self.said.paced() {
                let fields =
                    [at(true), vec![("delta", text.into()), ("logprobs", Vec::new().into())]]
                        .concat();
                out.paced(after, "response.output_text.delta", fields);
            }
            let text = self.said.text();
            out.push(
                "response.output_text.done",
                [at(true), vec![("text", (&text).into()), ("logprobs", Vec::new().into())]]
                    .concat(),
            );
            out.push(
                "response.content_part.done",
                [at(true), vec![("part", part(&text))]].concat(),
            );
        }
        out.push(
            "response.output_item.done",
            vec![("item", self.item(State::Done)), ("output_index", number.into())],
        );
        let last = if self.said.finish == Finish::Length {
            "response.incomplete"
        } else {
            "response.completed"
        };
        out.push(last, vec![("response", self.response(State::Done))]);
        out.pieces
    }
}

fn part(text: &str) -> Json {
    object! { "type": "output_text", "annotations": Vec::new(), "logprobs": Vec::new(), "text": text }
}

/// Events with their running number.
#[derive(Default)]
struct Events {
    pieces: Vec<Piece>,
}

impl Events {
    fn push(&mut self, name: &str, fields: Vec<(&str, Json)>) {
        self.paced(std::time::Duration::ZERO, name, fields);
    }

    fn paced(&mut self, after: std::time::Duration, name: &str, fields: Vec<(&str, Json)>) {
        let number = self.pieces.len() as u64;
        let data = Json::object(
            &[vec![("type", name.into())], fields, vec![("sequence_number", number.into())]]
                .concat(),
        );
        self.pieces.push(Piece::after(after, format!("event: {name}\ndata: {}\n\n", data.text())));
    }
}
