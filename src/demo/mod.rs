//! The built-in upstream `demo`: imitates a provider in every dialect, without an account or a
//! network.
//!
//! The dialect's file parses a request into `request::DemoRequest`, `answers` decides the content,
//! and the same file writes it in the provider's format. `reply` delivers it at the pace of the
//! model.

mod anthropic;
mod embed;
mod gemini;
mod json;
pub mod models;
mod ollama;
mod openai;
mod reply;
mod responses;
mod sample;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::Value;

use self::{
    models::{DemoModel, DemoModelKind},
    reply::DemoReply,
};
use crate::{
    base::clock::{Clock, UnixMillis},
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
                let error =
                    DemoError::new(StatusCode::BAD_REQUEST, "the body is not a JSON object");
                return error_reply(dialect, &error).with_request_id(dialect, now, number);
            }
        };
        let call = DemoCall {
            is_get: get,
            path,
            query: request.uri().query().unwrap_or_default(),
            body: &body,
            now,
            request_number: number,
            flaky_count: &self.flaky_count,
        };
        let reply = match dialect {
            Dialect::Anthropic => anthropic::answer_call(&call),
            Dialect::Gemini => gemini::answer_call(&call),
            Dialect::Ollama => ollama::answer_call(&call),
            Dialect::Openai => openai::answer_call(&call),
            Dialect::Responses => responses::answer_call(&call),
        };
        reply
            .unwrap_or_else(|error| error_reply(dialect, &error))
            .with_request_id(dialect, now, number)
    }
}

/// One request while a dialect file handles it.
struct DemoCall<'a> {
    is_get: bool,
    /// The path without version prefix and leading slash: `chat/completions`.
    path: &'a str,
    query: &'a str,
    body: &'a Value,
    now: UnixMillis,
    request_number: u64,
    flaky_count: &'a AtomicU64,
}

impl DemoCall<'_> {
    /// Creates an id that no other answer has, in this process or an earlier one.
    fn new_id(&self, prefix: &str) -> String {
        format_id(prefix, self.now, self.request_number)
    }

    /// Returns the time in Unix seconds.
    fn created_seconds(&self) -> i64 {
        self.now.0 / 1_000
    }

    /// Returns the model that the body names, if it has the wanted kind.
    fn requested_model(&self, wanted: DemoModelKind) -> Result<&'static DemoModel, DemoError> {
        let name = self.body["model"].as_str().or_else(|| self.body["name"].as_str());
        let name = name
            .ok_or_else(|| DemoError::new(StatusCode::BAD_REQUEST, "you must provide a model"))?;
        Self::find_model(name, wanted)
    }

    fn find_model(name: &str, wanted: DemoModelKind) -> Result<&'static DemoModel, DemoError> {
        let model = models::find_model(name).ok_or_else(|| DemoError {
            status: StatusCode::NOT_FOUND,
            message: format!(
                "the model `{}` does not exist; demo has {}",
                name.escape_debug(),
                models::model_names()
            ),
            code: Some("model_not_found"),
            retry_after: None,
        })?;
        if model.kind == wanted {
            return Ok(model);
        }
        let suitable = models::ALL
            .iter()
            .find(|other| other.kind == wanted)
            .map_or("another", |other| other.name);
        let text = format!("the model `{}` cannot do this; ask `{suitable}`", model.name);
        Err(DemoError::new(StatusCode::BAD_REQUEST, text))
    }

    /// Returns how many requests `flaky` has received before.
    fn next_flaky_turn(&self) -> u64 {
        self.flaky_count.fetch_add(1, Ordering::Relaxed)
    }

    fn unknown_path(&self) -> DemoError {
        DemoError::new(
            StatusCode::NOT_FOUND,
            format!("demo has no such path: /{}", self.path.escape_debug()),
        )
    }
}

/// An error, before a dialect file writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DemoError {
    status: StatusCode,
    message: String,
    code: Option<&'static str>,
    /// In seconds.
    retry_after: Option<u64>,
}

impl DemoError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: None, retry_after: None }
    }
}

fn error_reply(dialect: Dialect, error: &DemoError) -> DemoReply {
    let body = match dialect {
        Dialect::Anthropic => anthropic::write_error(error),
        Dialect::Gemini => gemini::write_error(error),
        Dialect::Ollama => ollama::write_error(error),
        Dialect::Openai | Dialect::Responses => openai::write_error(error),
    };
    DemoReply::json(body).with_status(error.status).with_retry_after(error.retry_after)
}

fn format_id(prefix: &str, now: UnixMillis, number: u64) -> String {
    format!("{prefix}demo{:011x}{number:06x}", now.0)
}

/// Strips slashes at both ends and version segments, because base URLs come with and without them.
fn strip_version(path: &str) -> &str {
    let mut path = path.trim_matches('/');
    while let Some(rest) = path.strip_prefix("v1beta/").or_else(|| path.strip_prefix("v1/")) {
        path = rest.trim_start_matches('/');
    }
    path
}

mod answers;
mod request;
#[cfg(test)]
mod tests;
