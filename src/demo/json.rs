//! Writes JSON with the fields in the order in which the provider writes them.

use std::fmt::Write as _;

use serde_json::Value;

/// JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Json(String);

/// `object! { "id": id, "created": 1 }`
macro_rules! object {
    ($($key:literal : $value:expr),* $(,)?) => {
        $crate::demo::json::Json::object(&[$(($key, $crate::demo::json::Json::from($value))),*])
    };
}
pub(super) use object;

impl Json {
    pub(super) const NULL: Option<Self> = None;

    /// Builds an object with these fields; see the macro of the same name.
    pub(super) fn object(fields: &[(&str, Self)]) -> Self {
        let mut out = String::from("{");
        for (index, (key, value)) in fields.iter().enumerate() {
            // Keys are literals of this crate and need no escaping. Writing to a string cannot
            // fail.
            write!(out, "{}\"{key}\":{}", if index > 0 { "," } else { "" }, value.0)
                .unwrap_or_default();
        }
        Self(out + "}")
    }

    /// `{}`
    pub(super) fn empty_object() -> Self {
        Self("{}".to_owned())
    }

    /// Writes a number as in an embedding.
    pub(super) fn float(number: f32) -> Self {
        Self(number.to_string())
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self(Value::from(text).to_string())
    }
}

impl From<&String> for Json {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Self {
        Self(number.to_string())
    }
}

impl From<i64> for Json {
    fn from(number: i64) -> Self {
        Self(number.to_string())
    }
}

impl From<bool> for Json {
    fn from(yes: bool) -> Self {
        Self(yes.to_string())
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        Self(value.to_string())
    }
}

impl<T: Into<Self>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or_else(|| Self("null".to_owned()), Into::into)
    }
}

impl From<Vec<Self>> for Json {
    fn from(items: Vec<Self>) -> Self {
        let items: Vec<_> = items.into_iter().map(Self::into_string).collect();
        Self(format!("[{}]", items.join(",")))
    }
}
