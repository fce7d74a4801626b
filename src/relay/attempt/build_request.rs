//! Builds an attempt's request from the client's: splices in the model name and leaves the rest
//! unchanged, or encodes the parsed conversation.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use crate::relay::{
    attempt::body_names,
    request::proxy_request::{ModelLocation, ProxyRequest},
};
use crate::{
    base::json::scan,
    config::settings::Patch,
    dialect::Framing,
    ir::op::{Dialect, Op},
    routing::candidate::Target,
};

/// What aiproxy sends to the upstream, except the address and the credential.
pub struct PreparedRequest {
    pub path: Cow<'static, str>,
    /// Without `?`.
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Strips usage from the stream, because aiproxy requested it and the client did not.
    pub hide_usage: bool,
    /// The path is relative to the host rather than to the base URL.
    pub from_origin: bool,
}

/// Characters of a model name that are escaped in a path. `/` and `:` are not, because providers
/// use both in names.
pub(in crate::relay) const MODEL_NAME_ESCAPES: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Splices the target's model name into the path or body. Adds `stream_options.include_usage` if
/// the upstream needs it, and applies the upstream's patch.
#[must_use]
pub fn build_request(request: &ProxyRequest, target: &Target) -> PreparedRequest {
    let upstream = &target.upstream;
    let mut out = request.headers.clone();
    let path = match &request.endpoint.model {
        ModelLocation::Path(_) => {
            let model = utf8_percent_encode(&target.model, MODEL_NAME_ESCAPES).to_string();
            request.endpoint.path.replace("{model}", &model).into()
        }
        _ => request.endpoint.path.clone(),
    };
    let ask_usage = upstream.ask_usage
        && request.stream
        && !request.include_usage
        && request.framing == Framing::Sse
        && request.endpoint.dialect == Dialect::Openai
        && matches!(request.endpoint.op, Op::Chat | Op::Completions);

    let (mut edits, mut added) = (Vec::new(), Vec::new());
    if request.add_stream {
        added.push("\"stream\":true");
    }
    if let Some(span) =
        request.model_span.clone().filter(|_| *request.requested_model != *target.model)
    {
        edits.push((
            span,
            if request.is_multipart {
                Bytes::copy_from_slice(target.model.as_bytes())
            } else {
                scan::json_string(&target.model)
            },
        ));
    }
    if request.endpoint.dialect == Dialect::Gemini
        && matches!(request.endpoint.model, ModelLocation::Path(_))
        && *request.requested_model != *target.model
    {
        edits.extend(body_names::edits(&request.body, &target.model));
    }
    if ask_usage {
        match (&request.stream_options, request.object_end) {
            (Some(span), _) => {
                edits.push((span.clone(), with_include_usage(&request.body[span.clone()])));
            }
            (None, Some(_)) => added.push("\"stream_options\":{\"include_usage\":true}"),
            (None, None) => {}
        }
    }
    if let Some((end, empty)) = request.object_end.filter(|_| !added.is_empty()) {
        let comma = if empty { "" } else { "," };
        edits.push((end..end, format!("{comma}{}", added.join(",")).into()));
    }
    edits.sort_by_key(|(span, _)| span.start);
    let untouched = edits.is_empty() && upstream.patch.is_empty();
    let mut body = scan::splice(&request.body, &edits);
    if !upstream.patch.is_empty() && !request.is_multipart {
        body = apply_patch(body, &upstream.patch);
    }
    if let Some((coded, coding)) =
        request.encoded_body.as_ref().filter(|_| untouched && upstream.accepts_compressed)
    {
        body = coded.clone();
        out.insert(header::CONTENT_ENCODING, coding.clone());
    }
    if let Some((name, value)) = required_header(request.endpoint.dialect)
        && !out.contains_key(&name)
    {
        out.insert(name, value);
    }
    PreparedRequest {
        path,
        query: request.query.clone(),
        headers: out,
        body,
        hide_usage: ask_usage,
        from_origin: false,
    }
}

/// Returns the header without which a dialect's providers refuse a request.
pub(in crate::relay) fn required_header(dialect: Dialect) -> Option<(HeaderName, HeaderValue)> {
    // https://docs.anthropic.com/en/api/versioning
    (dialect == Dialect::Anthropic).then(|| {
        (HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01"))
    })
}

/// Adds the usage option to the client's `stream_options` and preserves its other members.
fn with_include_usage(options: &[u8]) -> Bytes {
    let mut value = serde_json::from_slice::<Value>(options).unwrap_or(Value::Null);
    match &mut value {
        Value::Object(members) => {
            members.insert("include_usage".to_owned(), Value::Bool(true));
        }
        other => *other = serde_json::json!({ "include_usage": true }),
    }
    value.to_string().into()
}

/// Applies the patch; leaves a body that is not JSON unchanged. Numbers preserve their value but
/// not always their spelling, so patches are for vendor quirks only.
pub(in crate::relay) fn apply_patch(body: Bytes, patch: &Patch) -> Bytes {
    let Ok(mut value) = serde_json::from_slice::<Value>(&body) else { return body };
    for (pointer, wanted) in &patch.default {
        if value.pointer(pointer).is_none() {
            set_at_pointer(&mut value, pointer, wanted);
        }
    }
    for (pointer, wanted) in &patch.set {
        set_at_pointer(&mut value, pointer, wanted);
    }
    for pointer in &patch.remove {
        if let Some((parent, name)) = pointer.rsplit_once('/') {
            let name = name.replace("~1", "/").replace("~0", "~");
            match value.pointer_mut(parent) {
                Some(Value::Object(members)) => drop(members.remove(&name)),
                Some(Value::Array(items)) => {
                    if let Some(index) =
                        name.parse().ok().filter(|index: &usize| *index < items.len())
                    {
                        items.remove(index);
                    }
                }
                _ => {}
            }
        }
    }
    value.to_string().into()
}

/// Sets the value at a pointer; creates missing objects on the path.
fn set_at_pointer(root: &mut Value, pointer: &str, wanted: &Value) {
    let mut at = root;
    for name in pointer.split('/').skip(1) {
        let name = name.replace("~1", "/").replace("~0", "~");
        at = match at {
            Value::Array(items) => {
                match name.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                    Some(item) => item,
                    None => return,
                }
            }
            other => {
                if !other.is_object() {
                    *other = Value::Object(serde_json::Map::new());
                }
                match other {
                    Value::Object(members) => members.entry(name).or_insert(Value::Null),
                    _ => return,
                }
            }
        };
    }
    *at = wanted.clone();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_sets_defaults_and_removes_fields() {
        let patch = Patch {
            set: vec![("/a/b".to_owned(), serde_json::json!(1))],
            default: vec![
                ("/kept".to_owned(), serde_json::json!(2)),
                ("/made".to_owned(), serde_json::json!(3)),
            ],
            remove: vec!["/gone".to_owned(), "/list/0".to_owned()],
        };
        let body = apply_patch(Bytes::from_static(br#"{"kept":0,"gone":1,"list":[1,2]}"#), &patch);
        let value: Value = serde_json::from_slice(&body).expect("json");
        assert_eq!(value, serde_json::json!({"kept": 0, "made": 3, "a": {"b": 1}, "list": [2]}));
    }

    #[test]
    fn stream_options_of_the_client_are_preserved() {
        let value: Value =
            serde_json::from_slice(&with_include_usage(br#"{"x":1,"include_usage":false}"#))
                .expect("json");
        assert_eq!(value, serde_json::json!({"x": 1, "include_usage": true}));
    }
}
