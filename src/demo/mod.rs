//! The built-in upstream `demo`: speaks like a real provider in every dialect, without an account
//! or a network.
//!
//! A request is read by its dialect's file into `asked::Asked`, `script` decides what is said, and
//! the same file writes that down as its provider would; `reply` delivers it at the pace of the
//! model.

mod anthropic;
mod asked;
mod embed;
mod gemini;
mod json;
pub mod models;
mod ollama;
mod openai;
mod reply;
mod responses;
mod sample;
mod script;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::Value;

use self::{
    models::{Kind, Model},
    reply::Reply,
};
use crate::{
    base::clock::{Clock, UnixMillis},
    ir::{fault::TransportFault, op::Dialect},
};

/// An upstream inside the process. Answers depend on the request alone, but for ids, times and the
/// turns of `flaky`.
pub struct Demo {
    clock: Arc<dyn Clock>,
    answered: AtomicU64,
    flaky: AtomicU64,
}

impl Demo {
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, answered: AtomicU64::new(0), flaky: AtomicU64::new(0) }
    }

    /// Answers one request as a provider of this dialect would. The path is the one below the base
    /// URL, with or without the dialect's version prefix.
    ///
    /// What is said is settled at once; the future and the body only pass time. A body ends in a
    /// fault where the request asked `flaky` to be cut.
    pub fn answer(
        &self,
        dialect: Dialect,
        request: &Request<Bytes>,
    ) -> impl Future<Output = Response<UnsyncBoxBody<Bytes, TransportFault>>> + Send + use<> {
        self.reply(dialect, request).deliver()
    }

    fn reply(&self, dialect: Dialect, request: &Request<Bytes>) -> Reply {
        let now = self.clock.unix();
        let number = self.answered.fetch_add(1, Ordering::Relaxed);
        let path = bare(request.uri().path());
        let get = request.method() == Method::GET || request.method() == Method::HEAD;
        let body = match (get, serde_json::from_slice::<Value>(request.body())) {
            (true, _) => Value::Null,
            (false, Ok(body @ Value::Object(_))) => body,
            (false, _) => {
                let refusal =
                    Refusal::new(StatusCode::BAD_REQUEST, "the body is not a JSON object");
                return refused(dialect, &refusal).with_id(dialect, now, number);
            }
        };
        let call = Call {
            get,
            path,
            query: request.uri().query().unwrap_or_default(),
            body: &body,
            now,
            number,
            flaky: &self.flaky,
        };
        let reply = match dialect {
            Dialect::Anthropic => anthropic::answer(&call),
            Dialect::Gemini => gemini::answer(&call),
            Dialect::Ollama => ollama::answer(&call),
            Dialect::Openai => openai::answer(&call),
            Dialect::Responses => responses::answer(&call),
        };
        reply.unwrap_or_else(|refusal| refused(dialect, &refusal)).with_id(dialect, now, number)
    }
}

/// One request on its way through the dialect files.
struct Call<'a> {
    get: bool,
    /// Without version prefix and leading slash: `chat/completions`.
    path: &'a str,
    query: &'a str,
    body: &'a Value,
    now: UnixMillis,
    number: u64,
    flaky: &'a AtomicU64,
}

impl Call<'_> {
    /// An id that no other answer of this or an earlier process has.
    fn id(&self, prefix: &str) -> String {
        id(prefix, self.now, self.number)
    }

    /// Unix seconds.
    fn created(&self) -> i64 {
        self.now.0 / 1_000
    }

    /// The model of the body, of the wanted kind.
    fn model(&self, wanted: Kind) -> Result<&'static Model, Refusal> {
        let name = self.body["model"].as_str().or_else(|| self.body["name"].as_str());
        let name =
            name.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "you must provide a model"))?;
        Self::named(name, wanted)
    }

    fn named(name: &str, wanted: Kind) -> Result<&'static Model, Refusal> {
        let model = models::find(name).ok_or_else(|| Refusal {
            status: StatusCode::NOT_FOUND,
            message: format!(
                "the model `{}` does not exist; demo has {}",
                name.escape_debug(),
                models::names()
            ),
            code: Some("model_not_found"),
            retry_after: None,
        })?;
        if model.kind == wanted {
            return Ok(model);
        }
        let fits = models::ALL
            .iter()
            .find(|other| other.kind == wanted)
            .map_or("another", |other| other.name);
        let text = format!("the model `{}` cannot do this; ask `{fits}`", model.name);
        Err(Refusal::new(StatusCode::BAD_REQUEST, text))
    }

    /// How many times `flaky` was asked before.
    fn turn(&self) -> u64 {
        self.flaky.fetch_add(1, Ordering::Relaxed)
    }

    fn unknown(&self) -> Refusal {
        Refusal::new(
            StatusCode::NOT_FOUND,
            format!("demo has no such path: /{}", self.path.escape_debug()),
        )
    }
}

/// A failure, chosen or deserved, before a dialect words it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    message: String,
    code: Option<&'static str>,
    /// Seconds.
    retry_after: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: None, retry_after: None }
    }
}

fn refused(dialect: Dialect, refusal: &Refusal) -> Reply {
    let body = match dialect {
        Dialect::Anthropic => anthropic::error(refusal),
        Dialect::Gemini => gemini::error(refusal),
        Dialect::Ollama => ollama::error(refusal),
        Dialect::Openai | Dialect::Responses => openai::error(refusal),
    };
    Reply::json(body).status(refusal.status).retry_after(refusal.retry_after)
}

fn id(prefix: &str, now: UnixMillis, number: u64) -> String {
    format!("{prefix}demo{:011x}{number:06x}", now.0)
}

/// The path without slashes at its ends and without version segments: base URLs come with and
/// without them.
fn bare(path: &str) -> &str {
    let mut path = path.trim_matches('/');
    while let Some(rest) = path.strip_prefix("v1beta/").or_else(|| path.strip_prefix("v1/")) {
        path = rest.trim_start_matches('/');
    }
    path
}

#[cfg(test)]
mod tests;
