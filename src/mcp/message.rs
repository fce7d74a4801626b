//! JSON-RPC messages, carried as the text that the other side wrote: fields that this program does
//! not know, the order of keys and the spelling of numbers survive.

use crate::base::json::{
    raw::RawJson,
    reader::{self, JsonRef},
    writer::{self, ObjectWriter},
};

pub const PARSE_ERROR: i64 = -32_700;
pub const INVALID_REQUEST: i64 = -32_600;
pub const METHOD_NOT_FOUND: i64 = -32_601;
pub const INVALID_PARAMS: i64 = -32_602;
pub const INTERNAL_ERROR: i64 = -32_603;
/// The server is gone or cannot be reached.
pub const CONNECTION_CLOSED: i64 = -32_000;
/// The server did not answer in time.
pub const REQUEST_TIMEOUT: i64 = -32_001;
/// More calls than the row allows.
pub const RATE_LIMITED: i64 = -32_003;
/// Headers and body of a stateless request contradict each other.
pub const HEADER_MISMATCH: i64 = -32_020;
/// The client did not declare a capability that the request needs.
pub const MISSING_CAPABILITY: i64 = -32_021;
pub const UNSUPPORTED_VERSION: i64 = -32_022;

/// An error of JSON-RPC.
#[derive(Clone, Debug)]
pub struct RpcError {
    pub code: i64,
    pub message: String,
    pub data: Option<RawJson>,
}

impl RpcError {
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// Reads the `error` member of an answer.
    #[must_use]
    pub fn read(json: JsonRef<'_>) -> Self {
        Self {
            code: json.get("code").and_then(JsonRef::i64).unwrap_or(INTERNAL_ERROR),
            message: json.string_at("message").unwrap_or_default(),
            data: json.get("data").map(RawJson::from_json),
        }
    }

    fn write(&self, out: &mut ObjectWriter<'_>) {
        out.num("code", self.code).str("message", &self.message);
        out.opt_raw("data", self.data.as_ref());
    }

    /// Returns the error as JSON.
    #[must_use]
    pub fn to_json(&self) -> RawJson {
        RawJson::object(|o| self.write(o))
    }
}

/// A message of either side.
#[derive(Clone, Debug)]
pub enum RpcMessage {
    Answer { id: RawJson, result: Result<RawJson, RpcError> },
    Notification { method: String, params: Option<RawJson> },
    Request { id: RawJson, method: String, params: Option<RawJson> },
}

impl RpcMessage {
    /// Reads one message.
    ///
    /// # Errors
    ///
    /// The text is not JSON, or not a single message of JSON-RPC 2.0.
    pub fn parse(text: &[u8]) -> Result<Self, RpcError> {
        let json = reader::parse(text).map_err(|fault| {
            RpcError::new(PARSE_ERROR, format!("not JSON: {}", fault.describe(text)))
        })?;
        let invalid = |why: &str| RpcError::new(INVALID_REQUEST, why);
        if json.is_array() {
            return Err(invalid("batches are not accepted: send one message at a time"));
        }
        if json.string_at("jsonrpc").as_deref() != Some("2.0") {
            return Err(invalid("not a message of JSON-RPC 2.0"));
        }
        let id = json.get("id").map(RawJson::from_json);
        if id.as_ref().is_some_and(|id| id.text().starts_with(['{', '[', 't', 'f'])) {
            return Err(invalid("`id` is a text or a number"));
        }
        let raw = |name: &str| json.get(name).map(RawJson::from_json);
        match (json.string_at("method"), id) {
            (Some(method), Some(id)) => Ok(Self::Request { id, method, params: raw("params") }),
            (Some(method), None) => Ok(Self::Notification { method, params: raw("params") }),
            (None, Some(id)) => match (raw("result"), json.get("error")) {
                (_, Some(error)) => Ok(Self::Answer { id, result: Err(RpcError::read(error)) }),
                (Some(result), None) => Ok(Self::Answer { id, result: Ok(result) }),
                (None, None) => Err(invalid("neither `method` nor `result` nor `error`")),
            },
            (None, None) => Err(invalid("neither `method` nor `id`")),
        }
    }
}

/// Writes a request on one line.
#[must_use]
pub fn request(id: &RawJson, method: &str, params: Option<&RawJson>) -> String {
    single_line(writer::object(|o| {
        o.str("jsonrpc", "2.0").raw("id", id).str("method", method).opt_raw("params", params);
    }))
}

/// Writes a notification on one line.
#[must_use]
pub fn notification(method: &str, params: Option<&RawJson>) -> String {
    single_line(writer::object(|o| {
        o.str("jsonrpc", "2.0").str("method", method).opt_raw("params", params);
    }))
}

/// Writes an answer on one line.
#[must_use]
pub fn answer(id: &RawJson, result: &Result<RawJson, RpcError>) -> String {
    single_line(writer::object(|o| {
        o.str("jsonrpc", "2.0").raw("id", id);
        match result {
            Ok(result) => o.raw("result", result),
            Err(error) => o.object("error", |o| error.write(o)),
        };
    }))
}

/// Writes an error that belongs to no request.
#[must_use]
pub fn stray_error(error: &RpcError) -> String {
    writer::object(|o| {
        o.str("jsonrpc", "2.0").null("id").object("error", |o| error.write(o));
    })
}

/// Line ends can only occur between tokens: inside strings they are escaped.
fn single_line(text: String) -> String {
    if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text }
}

/// Returns an object in which these members have these values; a member with `None` is left out.
/// The rest stays as it is, in its order. Anything but an object counts as an empty one.
#[must_use]
pub fn with_members(json: Option<&RawJson>, changes: &[(&str, Option<&RawJson>)]) -> RawJson {
    RawJson::object(|o| {
        for (key, value) in json.map(RawJson::json).into_iter().flat_map(JsonRef::members) {
            match changes.iter().find(|(name, _)| *name == key) {
                Some((_, Some(changed))) => {
                    o.raw(key, changed);
                }
                Some((_, None)) => {}
                None => {
                    o.json(key, value);
                }
            }
        }
        for (name, value) in changes {
            let is_there =
                json.is_some_and(|json| json.json().members().any(|(key, _)| key == *name));
            if !is_there {
                o.opt_raw(name, *value);
            }
        }
    })
}

/// Returns a member of the params, as text.
#[must_use]
pub fn text_param(params: Option<&RawJson>, name: &str) -> Option<String> {
    params?.json().string_at(name)
}

/// Returns `{}`.
#[must_use]
pub fn empty_object() -> RawJson {
    RawJson::object(|_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_and_come_back_unchanged() {
        let text = br#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"big":9007199254740993,"f":1.50}}"#;
        let Ok(RpcMessage::Request { id, method, params }) = RpcMessage::parse(text) else {
            panic!("a request");
        };
        assert_eq!(request(&id, &method, params.as_ref()).as_bytes(), text);
        for (text, code) in [
            (&b"{nope"[..], PARSE_ERROR),
            (b"[]", INVALID_REQUEST),
            (b"{\"jsonrpc\":\"2.0\"}", INVALID_REQUEST),
            (b"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"x\"}", INVALID_REQUEST),
            (b"{\"id\":1,\"method\":\"x\"}", INVALID_REQUEST),
        ] {
            assert_eq!(RpcMessage::parse(text).map_err(|e| e.code).err(), Some(code));
        }
    }

    #[test]
    fn members_are_changed_in_their_place() {
        let json = RawJson::parse(r#"{"b":1.0,"a":{"x":[1, 2]},"c":null}"#).expect("json");
        let changed = with_members(
            Some(&json),
            &[("b", Some(&RawJson::from(2))), ("c", None), ("d", Some(&RawJson::string("é")))],
        );
        assert_eq!(changed.text(), r#"{"b":2,"a":{"x":[1, 2]},"d":"é"}"#);
    }
}
