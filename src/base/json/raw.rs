//! JSON text carried verbatim: number text, key order and nesting survive.

use std::sync::Arc;

use crate::base::json::reader::{self, JsonRef};

/// One validated JSON value, cheap to clone. Two are equal if their texts are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawJson(Arc<str>);

impl RawJson {
    /// Copies the text of a value inside a validated one.
    #[must_use]
    pub fn from_json(json: JsonRef<'_>) -> Self {
        Self(Arc::from(json.text()))
    }

    /// Parses a text; `None` if it is not JSON.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        reader::parse(text.as_bytes()).ok().map(Self::from_json)
    }

    /// Returns `text` as a JSON string.
    #[must_use]
    pub fn string(text: &str) -> Self {
        let mut out = String::with_capacity(text.len() + 2);
        crate::base::json::writer::push_string(&mut out, text);
        Self(out.into())
    }

    /// Returns the text that a [`writer`](crate::base::json::writer) closure builds.
    #[must_use]
    pub fn object(build: impl FnOnce(&mut crate::base::json::writer::ObjectWriter<'_>)) -> Self {
        Self(crate::base::json::writer::object(build).into())
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn json(&self) -> JsonRef<'_> {
        JsonRef::from_validated(&self.0)
    }

    /// Returns a tree, for the few places that must rewrite it. Numbers retain their value, but not
    /// always their spelling.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).unwrap_or(serde_json::Value::Null)
    }
}

impl From<&serde_json::Value> for RawJson {
    fn from(value: &serde_json::Value) -> Self {
        Self(value.to_string().into())
    }
}

impl From<u64> for RawJson {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl From<bool> for RawJson {
    fn from(yes: bool) -> Self {
        Self(Arc::from(if yes { "true" } else { "false" }))
    }
}
