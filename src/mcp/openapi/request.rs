//! Turns the arguments of a call into a request.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    form::{BodyEncoding, BodyForm, Parameter, ParameterStyle},
    operation::Operation,
};
use crate::base::json::{
    raw::RawJson,
    reader::JsonRef,
    writer::{self, ArrayWriter, ObjectWriter},
};

/// What stays as it is in addresses.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request without its credential.
pub(super) struct ApiRequest {
    pub(super) method: Method,
    pub(super) url: reqwest::Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Encodes a text for an address.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// Builds the request of a call.
///
/// # Errors
///
/// A sentence: an argument is missing or cannot be sent.
pub(super) fn build(
    operation: &Operation,
    arguments: Option<&RawJson>,
) -> Result<ApiRequest, String> {
    let json = arguments.map(RawJson::json);
    let argument = |parameter: &Parameter| {
        json.and_then(|json| json.get(parameter.place)?.get(&parameter.argument))
    };
    let mut path = operation.path.clone();
    let (mut query, mut cookies) = (Vec::new(), Vec::new());
    let mut headers = HeaderMap::new();
    for parameter in &operation.parameters {
        let Some(value) = argument(parameter) else {
            if parameter.required {
                return Err(format!("`{}.{}` is missing", parameter.place, parameter.argument));
            }
            continue;
        };
        match parameter.place {
            "path" => {
                let text = joined(value, ',', &encode);
                if matches!(text.as_str(), "." | ".." | "") {
                    return Err(format!("`path.{}` cannot be `{text}`", parameter.argument));
                }
                path = path.replace(&format!("{{{}}}", parameter.name), &text);
            }
            "query" => add_pairs(parameter, value, &mut query),
            "header" => {
                let name = HeaderName::from_bytes(parameter.name.as_bytes());
                let value = HeaderValue::from_str(&joined(value, ',', &str::to_owned));
                let (Ok(name), Ok(value)) = (name, value) else {
                    return Err(format!("`header.{}` cannot be sent", parameter.argument));
                };
                let is_own = matches!(
                    name,
                    header::HOST
                        | header::CONTENT_LENGTH
                        | header::AUTHORIZATION
                        | header::TRANSFER_ENCODING
                        | header::CONNECTION
                );
                if !is_own {
                    headers.insert(name, value);
                }
            }
            _ => {
                let text = joined(value, ',', &encode);
                cookies.push(format!("{}={text}", parameter.name));
            }
        }
    }
    if !cookies.is_empty() {
        let value = HeaderValue::from_str(&cookies.join("; "));
        headers.insert(header::COOKIE, value.map_err(|_| "a cookie cannot be sent".to_owned())?);
    }
    let mut url = operation.base.clone();
    let base = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{base}{path}"));
    if !query.is_empty() {
        url.set_query(Some(&query.join("&")));
    }
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
    let body = match (&operation.body, json.and_then(|json| json.get("body"))) {
        (Some(form), Some(value)) => {
            let value = restore_names(value, operation);
            let (kind, bytes) = write_body(form, value.json())?;
            let kind = HeaderValue::from_str(&kind);
            headers.insert(
                header::CONTENT_TYPE,
                kind.map_err(|_| "the content type cannot be sent".to_owned())?,
            );
            bytes
        }
        (Some(form), None) if form.required => return Err("`body` is missing".to_owned()),
        _ => Bytes::new(),
    };
    Ok(ApiRequest { method: operation.method.clone(), url, headers, body })
}

/// Writes a value with a separator between its parts.
fn joined(value: JsonRef<'_>, separator: char, write: &dyn Fn(&str) -> String) -> String {
    let parts: Vec<String> = if value.is_array() {
        value.items().map(|item| write(&item.plain_text())).collect()
    } else if value.is_object() {
        value.members().flat_map(|(key, item)| [write(key), write(&item.plain_text())]).collect()
    } else {
        vec![write(&value.plain_text())]
    };
    parts.join(&separator.to_string())
}

fn add_pairs(parameter: &Parameter, value: JsonRef<'_>, pairs: &mut Vec<String>) {
    let name = encode(&parameter.name);
    let pair = |name: &str, value: &str| format!("{name}={}", encode(value));
    match parameter.style {
        ParameterStyle::Json => pairs.push(pair(&name, value.text())),
        ParameterStyle::DeepObject if value.is_object() => {
            for (key, item) in value.members() {
                let name = format!("{name}%5B{}%5D", encode(key));
                if item.is_array() {
                    pairs.extend(item.items().map(|one| pair(&name, &one.plain_text())));
                } else {
                    pairs.push(pair(&name, &item.plain_text()));
                }
            }
        }
        ParameterStyle::Joined(separator) => {
            let text = joined(value, separator, &str::to_owned);
            // The commas in between stay readable.
            let text = if separator == ',' { joined(value, ',', &encode) } else { encode(&text) };
            pairs.push(format!("{name}={text}"));
        }
        ParameterStyle::DeepObject | ParameterStyle::Repeated => {
            if value.is_array() {
                pairs.extend(value.items().map(|item| pair(&name, &item.plain_text())));
            } else if value.is_object() {
                pairs.extend(
                    value.members().map(|(key, item)| pair(&encode(key), &item.plain_text())),
                );
            } else {
                pairs.push(pair(&name, &value.plain_text()));
            }
        }
    }
}

/// Gives properties that were renamed in the schema their own names again.
fn restore_names(value: JsonRef<'_>, operation: &Operation) -> RawJson {
    if operation.renamed.is_empty() {
        return RawJson::from_json(value);
    }
    let text = writer::array(|a| restore_item(value, operation, a));
    RawJson::parse(&text[1..text.len() - 1]).unwrap_or_else(|| RawJson::from_json(value))
}

fn restore_item(value: JsonRef<'_>, operation: &Operation, out: &mut ArrayWriter<'_>) {
    if value.is_object() {
        out.object(|o| restore_members(value, operation, o));
    } else if value.is_array() {
        out.array(|a| value.items().for_each(|item| restore_item(item, operation, a)));
    } else {
        out.raw_text(value.text());
    }
}

fn restore_members(value: JsonRef<'_>, operation: &Operation, out: &mut ObjectWriter<'_>) {
    for (key, item) in value.members() {
        let own = operation.renamed.get(key).map(|own| {
            let quoted = RawJson::string(own);
            quoted.text().trim_matches('"').to_owned()
        });
        let key = own.as_deref().unwrap_or(key);
        if item.is_object() {
            out.object(key, |o| restore_members(item, operation, o));
        } else if item.is_array() {
            out.array(key, |a| item.items().for_each(|one| restore_item(one, operation, a)));
        } else {
            out.json(key, item);
        }
    }
}

fn decode_file(text: &str) -> Result<Vec<u8>, String> {
    let data = text.split_once(";base64,").map_or(text, |(_, data)| data);
    let data: String = data.chars().filter(|c| !c.is_whitespace()).collect();
    STANDARD.decode(data).map_err(|_| "a file has to be in Base64".to_owned())
}

fn write_body(form: &BodyForm, value: JsonRef<'_>) -> Result<(String, Bytes), String> {
    let kind = form.content_type.clone();
    match form.kind {
        BodyEncoding::Json => {
            let kind = if kind.contains('*') { "application/json".to_owned() } else { kind };
            Ok((kind, Bytes::copy_from_slice(value.text().as_bytes())))
        }
        BodyEncoding::Text => Ok((kind, value.plain_text().into())),
        BodyEncoding::Bytes => {
            let kind =
                if kind.contains('*') { "application/octet-stream".to_owned() } else { kind };
            Ok((kind, decode_file(&value.plain_text())?.into()))
        }
        BodyEncoding::Form => {
            let mut pairs = Vec::new();
            for (key, item) in value.members() {
                let key = encode_form(key);
                if item.is_array() {
                    pairs.extend(
                        item.items().map(|one| format!("{key}={}", encode_form(&one.plain_text()))),
                    );
                } else {
                    pairs.push(format!("{key}={}", encode_form(&item.plain_text())));
                }
            }
            Ok((kind, pairs.join("&").into()))
        }
        BodyEncoding::Multipart => write_parts(form, value),
    }
}

fn encode_form(text: &str) -> String {
    encode(text).replace("%20", "+")
}

fn write_parts(form: &BodyForm, value: JsonRef<'_>) -> Result<(String, Bytes), String> {
    let boundary =
        crate::mcp::servers::parts::random_token().ok_or("no randomness for a boundary")?;
    let mut out = Vec::new();
    for (key, item) in value.members() {
        let items: Vec<JsonRef<'_>> = if item.is_array() && form.files.contains(key) {
            item.items().collect()
        } else {
            vec![item]
        };
        for item in items {
            let name: String = key.chars().filter(|c| !matches!(c, '"' | '\r' | '\n')).collect();
            let is_file = form.files.contains(key);
            let given = form.part_types.get(key).cloned();
            let (kind, bytes) = if is_file {
                let kind = given.unwrap_or_else(|| "application/octet-stream".to_owned());
                (Some(kind), decode_file(&item.plain_text())?)
            } else if item.is_object() || item.is_array() {
                let kind = given.unwrap_or_else(|| "application/json".to_owned());
                (Some(kind), item.text().as_bytes().to_vec())
            } else {
                (given, item.plain_text().into_bytes())
            };
            let mut head =
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"");
            if is_file {
                head.push_str(&format!("; filename=\"{name}\""));
            }
            if let Some(kind) = kind {
                head.push_str(&format!("\r\nContent-Type: {kind}"));
            }
            head.push_str("\r\n\r\n");
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(&bytes);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Ok((format!("multipart/form-data; boundary={boundary}"), out.into()))
}
