//! One request to the demo, and the errors that it answers with.

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use serde_json::Value;

use crate::{
    base::clock::UnixMillis,
    demo::models::{self, DemoModel, DemoModelKind},
    ir::op::Dialect,
};

/// One request while the demo handles it.
pub(super) struct DemoCall<'a> {
    pub(super) dialect: Dialect,
    pub(super) is_get: bool,
    /// The path without version prefix and leading slash: `chat/completions`.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) body: &'a Value,
    pub(super) body_text: &'a [u8],
    pub(super) now: UnixMillis,
    pub(super) request_number: u64,
    pub(super) flaky_count: &'a AtomicU64,
}

impl DemoCall<'_> {
    /// Creates an id that no other answer has, in this process or an earlier one.
    pub(super) fn new_id(&self, prefix: &str) -> String {
        format_id(prefix, self.now, self.request_number)
    }

    /// Returns the time in Unix seconds.
    pub(super) fn created_seconds(&self) -> i64 {
        self.now.0 / 1_000
    }

    /// Returns the name of the model in the body, if there is one.
    pub(super) fn model_name(&self) -> Option<&str> {
        self.body["model"].as_str().or_else(|| self.body["name"].as_str())
    }

    /// Returns the model that the body names, if it has the wanted kind.
    pub(super) fn requested_model(
        &self,
        wanted: DemoModelKind,
    ) -> Result<&'static DemoModel, DemoError> {
        let name =
            self.model_name().ok_or_else(|| DemoError::bad_request("you must provide a model"))?;
        let model = find_model(name)?;
        if model.kind == wanted {
            return Ok(model);
        }
        let suitable = models::ALL
            .iter()
            .find(|other| other.kind == wanted)
            .map_or("another", |other| other.name);
        let text = format!("the model `{}` cannot do this; ask `{suitable}`", model.name);
        Err(DemoError::bad_request(text))
    }

    /// Returns how many requests `flaky` has received before.
    pub(super) fn next_flaky_turn(&self) -> u64 {
        self.flaky_count.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn unknown_path(&self) -> DemoError {
        DemoError::new(
            StatusCode::NOT_FOUND,
            format!("demo has no such path: /{}", self.path.escape_debug()),
        )
    }
}

/// Returns the model with this name.
pub(super) fn find_model(name: &str) -> Result<&'static DemoModel, DemoError> {
    models::find_model(name).ok_or_else(|| DemoError {
        status: StatusCode::NOT_FOUND,
        message: format!(
            "the model `{}` does not exist; demo has {}",
            name.escape_debug(),
            models::model_names()
        ),
        code: Some("model_not_found"),
        retry_after: None,
    })
}

/// Forms an id from its prefix, the time and the number of the request.
pub(super) fn format_id(prefix: &str, now: UnixMillis, number: u64) -> String {
    format!("{prefix}demo{:011x}{number:06x}", now.0)
}

/// An error, before it is written in a dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DemoError {
    pub(super) status: StatusCode,
    pub(super) message: String,
    pub(super) code: Option<&'static str>,
    /// In seconds.
    pub(super) retry_after: Option<u64>,
}

impl DemoError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: None, retry_after: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}
