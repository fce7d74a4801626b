//! The built-in upstream `demo`: imitates a provider in every dialect, without an account or a
//! network.
//!
//! The dialects read requests and write answers, as for clients of aiproxy. `request` takes what the
//! demo uses, `answers` decides the content, `chat` turns it into events, and `reply` delivers it at
//! the pace of the model.

mod answers;
mod call;
mod chat;
mod embed;
mod errors;
mod lists;
pub mod models;
mod reply;
mod request;
mod sample;
mod strict;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use self::{
    call::{DemoCall, DemoError},
    chat::StreamChoice,
    models::{DemoModel, DemoModelKind},
    reply::DemoReply,
};
use crate::{
    base::{clock::Clock, framing::Framing},
    dialect::{ChatEndpoint, ops::count},
    ir::{fault::TransportFault, op::Dialect},
};

/// An upstream inside the process. Answers depend only on the request, except for ids, times and
/// the sequence of `flaky`.
pub struct Demo {
    clock: Arc<dyn Clock>,
    request_count: AtomicU64,
    flaky_count: AtomicU64,
}

impl Demo {
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, request_count: AtomicU64::new(0), flaky_count: AtomicU64::new(0) }
    }

    /// Answers one request as a provider of this dialect would. The path is relative to the base
    /// URL, with or without the dialect's version prefix.
    ///
    /// The content is decided immediately; the future and the body only wait. A body ends in a
    /// fault if the request asked `flaky` to be cut.
    pub fn answer(
        &self,
        dialect: Dialect,
        request: &Request<Bytes>,
    ) -> impl Future<Output = Response<UnsyncBoxBody<Bytes, TransportFault>>> + Send + use<> {
        self.build_reply(dialect, request).into_response()
    }

    fn build_reply(&self, dialect: Dialect, request: &Request<Bytes>) -> DemoReply {
        let now = self.clock.unix();
        let number = self.request_count.fetch_add(1, Ordering::Relaxed);
        let path = strip_version(request.uri().path());
        let get = request.method() == Method::GET || request.method() == Method::HEAD;
        let body = match (get, serde_json::from_slice::<Value>(request.body())) {
            (true, _) => Value::Null,
            (false, Ok(body @ Value::Object(_))) => body,
            (false, _) => {
                let error = DemoError::bad_request("the body is not a JSON object");
                let reply = errors::error_reply(dialect, &error);
                return reply.with_request_id(dialect, now, number);
            }
        };
        let call = DemoCall {
            dialect,
            is_get: get,
            path,
            query: request.uri().query().unwrap_or_default(),
            body: &body,
            body_text: request.body(),
            now,
            request_number: number,
            flaky_count: &self.flaky_count,
        };
        let reply = if dialect == Dialect::Gemini { answer_gemini(&call) } else { answer(&call) };
        reply
            .unwrap_or_else(|error| errors::error_reply(dialect, &error))
            .with_request_id(dialect, now, number)
    }
}

/// Answers a request in a dialect whose body names the model.
fn answer(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    let chat = |endpoint| {
        let model = call.requested_model(DemoModelKind::Chat)?;
        chat::answer_chat(call, model, endpoint, StreamChoice::Body)
    };
    match (call.dialect, call.is_get, call.path) {
        (Dialect::Anthropic, false, "messages")
        | (Dialect::Ollama, false, "api/chat")
        | (Dialect::Openai, false, "chat/completions")
        | (Dialect::Responses, false, "responses") => chat(ChatEndpoint::Chat),
        (Dialect::Openai, false, "completions") => chat(ChatEndpoint::Completions),
        (Dialect::Ollama, false, "api/generate") => chat(ChatEndpoint::Generate),
        (Dialect::Anthropic, false, "messages/count_tokens")
        | (Dialect::Responses, false, "responses/input_tokens") => {
            call.requested_model(DemoModelKind::Chat)?;
            Ok(count_tokens(call))
        }
        (Dialect::Openai, false, "embeddings") | (Dialect::Ollama, false, "api/embed") => {
            embed::answer_embeddings(call, call.requested_model(DemoModelKind::Embed)?, call.path)
        }
        (Dialect::Openai, false, "moderations") => lists::moderate(call),
        (Dialect::Ollama, true, "api/tags") => Ok(lists::list_models(call)),
        (Dialect::Ollama, false, "api/show") => lists::show_ollama_model(call),
        (Dialect::Ollama, true, "api/version") => Ok(lists::ollama_version()),
        (Dialect::Ollama, ..) => Err(call.unknown_path()),
        (_, true, "models") => Ok(lists::list_models(call)),
        (_, true, path) if path.starts_with("models/") => {
            lists::show_model(call, &path["models/".len()..])
        }
        (Dialect::Responses, _, path) if path.starts_with("responses/") => {
            let text = "no response with this id; demo stores none";
            Err(DemoError::new(StatusCode::NOT_FOUND, text))
        }
        _ => Err(call.unknown_path()),
    }
}

/// Answers a Gemini request, whose path names model and method.
fn answer_gemini(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    let path = percent_decode_str(call.path).decode_utf8_lossy();
    if call.is_get {
        return match path.split_once('/') {
            None if path == "models" => Ok(lists::list_models(call)),
            Some(("models", name)) => {
                let model = models::find_model(name);
                let model = model.ok_or_else(|| gemini_not_found(name, "generateContent"))?;
                Ok(DemoReply::json(lists::model_card(call, model)))
            }
            _ => Err(call.unknown_path()),
        };
    }
    let target = path.strip_prefix("models/").and_then(|target| target.rsplit_once(':'));
    let (name, method) = target.ok_or_else(|| call.unknown_path())?;
    let find_model = |wanted: DemoModelKind| -> Result<&'static DemoModel, DemoError> {
        models::find_model(name)
            .filter(|model| model.kind == wanted)
            .ok_or_else(|| gemini_not_found(name, method))
    };
    let chat = |stream| {
        let model = find_model(DemoModelKind::Chat)?;
        chat::answer_chat(call, model, ChatEndpoint::Chat, stream)
    };
    match method {
        "generateContent" => chat(StreamChoice::Never),
        "streamGenerateContent" => {
            let sse = call.query.split('&').any(|pair| pair == "alt=sse");
            let framing = if sse { Framing::Sse } else { Framing::JsonArray };
            chat(StreamChoice::Always(framing))
        }
        "countTokens" => {
            find_model(DemoModelKind::Chat)?;
            Ok(count_tokens(call))
        }
        "embedContent" | "batchEmbedContents" => {
            embed::answer_embeddings(call, find_model(DemoModelKind::Embed)?, &path)
        }
        _ => Err(call.unknown_path()),
    }
}

fn gemini_not_found(name: &str, method: &str) -> DemoError {
    let text = format!(
        "models/{} is not found for API version v1beta, or is not supported for {method}.",
        name.escape_debug()
    );
    DemoError::new(StatusCode::NOT_FOUND, text)
}

fn count_tokens(call: &DemoCall<'_>) -> DemoReply {
    DemoReply::json(count::write_response(call.dialect, chat::count_input(call)))
}

/// Strips slashes at both ends and version segments, because base URLs come with and without them.
fn strip_version(path: &str) -> &str {
    let mut path = path.trim_matches('/');
    while let Some(rest) = path.strip_prefix("v1beta/").or_else(|| path.strip_prefix("v1/")) {
        path = rest.trim_start_matches('/');
    }
    path
}
