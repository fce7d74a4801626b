//! The forms of parameters and bodies.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

/// A parameter.
pub(super) struct Parameter {
    pub(super) place: &'static str,
    /// Its name in the arguments.
    pub(super) argument: String,
    pub(super) name: String,
    pub(super) required: bool,
    pub(super) style: ParameterStyle,
}

/// How lists and objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParameterStyle {
    /// `name[key]=value`.
    DeepObject,
    /// Values after each other with this character in between.
    Joined(char),
    /// As JSON.
    Json,
    /// `name=1&name=2`, or `key=value` for objects.
    Repeated,
}

/// How a body is written.
pub(super) struct BodyForm {
    pub(super) kind: BodyEncoding,
    pub(super) content_type: String,
    pub(super) required: bool,
    /// Content types of single parts.
    pub(super) part_types: BTreeMap<String, String>,
    /// Parts that are files.
    pub(super) files: HashSet<String>,
}

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEncoding {
    /// Base64 in the argument.
    Bytes,
    Form,
    Json,
    Multipart,
    Text,
}

/// Returns the schema that a parameter of Swagger 2 is itself.
pub(super) fn old_schema(parameter: &Value) -> Value {
    let mut schema = parameter.clone();
    if let Some(object) = schema.as_object_mut() {
        for key in ["name", "in", "required", "description", "style", "explode"] {
            object.remove(key);
        }
        if object.get("type").and_then(Value::as_str) == Some("file") {
            object.insert("description".to_owned(), "Content of the file in Base64".into());
        }
    }
    schema
}

pub(super) fn is_file(schema: &Value) -> bool {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    matches!(text("format"), Some("binary" | "byte"))
        || text("contentEncoding") == Some("base64")
        || text("contentMediaType") == Some("application/octet-stream")
}

pub(super) fn preferred(content: &Map<String, Value>) -> Option<(&str, &Value)> {
    let order = |kind: &str| match encoding(kind) {
        BodyEncoding::Json => 0,
        BodyEncoding::Multipart => 1,
        BodyEncoding::Form => 2,
        BodyEncoding::Text => 3,
        BodyEncoding::Bytes => 4,
    };
    content.iter().map(|(kind, media)| (kind.as_str(), media)).min_by_key(|(kind, _)| order(kind))
}

pub(super) fn encoding(content_type: &str) -> BodyEncoding {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/json" | "*/*" | "application/*" => BodyEncoding::Json,
        "multipart/form-data" => BodyEncoding::Multipart,
        "application/x-www-form-urlencoded" => BodyEncoding::Form,
        _ if kind.ends_with("+json") => BodyEncoding::Json,
        _ if kind.starts_with("text/") || kind.ends_with("xml") => BodyEncoding::Text,
        _ => BodyEncoding::Bytes,
    }
}
