//! Reads an upstream's error body, in any format, into a fault.
//!
//! All dialects share this reader, because compatible upstreams, gateways and proxies answer in
//! each other's formats.

use std::time::Duration;

use crate::{
    base::{
        framing::{splitter::NextFrame, sse},
        json::{
            grammar::{self, JsonError},
            reader::{self, JsonRef},
        },
    },
    dialect::errors::{
        fault_rules::{self, ErrorFields},
        sanitize::{self, MAX_MESSAGE_CHARS},
    },
    ir::fault::{Fault, FaultKind},
};

/// The code for a conversation that is longer than the model's context window.
const CONTEXT_LENGTH_EXCEEDED: &str = "context_length_exceeded";

/// Returns the fault in an error answer, or in a 200 (or a redirect) that is not an answer.
#[must_use]
pub(in crate::dialect) fn from_body(status: u16, content_type: &str, body: &[u8]) -> Fault {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    if (300..400).contains(&status) {
        return message_fault(
            FaultKind::CaptivePortal,
            502,
            format!("network requires sign-in or a proxy answered with a redirect (HTTP {status})"),
        );
    }
    if is_html(content_type, body) {
        return from_html(status, &String::from_utf8_lossy(body));
    }
    let fails = status >= 400;
    let implied_status = if fails { status } else { 502 };
    if body.is_empty() {
        return message_fault(
            fault_rules::classify(implied_status, &ErrorFields::default()),
            implied_status,
            format!("provider answered HTTP {status} with an empty body"),
        );
    }
    if let Some(data) = first_event_data(body) {
        return match reader::parse(&data) {
            Ok(json) if fails || is_error(json) => from_json(fails.then_some(status), json),
            _ => {
                let message =
                    sanitize::one_line(&String::from_utf8_lossy(&data), MAX_MESSAGE_CHARS);
                message_fault(
                    fault_rules::classify(
                        implied_status,
                        &ErrorFields { message: message.to_lowercase(), ..ErrorFields::default() },
                    ),
                    implied_status,
                    message,
                )
            }
        };
    }
    match reader::parse(body) {
        Ok(json) if fails || is_error(json) => from_json(fails.then_some(status), json),
        Ok(json) => unexpected_shape(json.kind()),
        Err(_) if fails && body.len() >= MIN_TRUNCATED_BYTES && matches!(body[0], b'{' | b'[') => {
            from_truncated_json(status, body)
        }
        Err(bad) if !fails || matches!(body[0], b'{' | b'[') => {
            let message = format!(
                "provider answered HTTP {status} with broken JSON: {}: {}",
                bad.describe(body),
                sanitize::excerpt(body)
            );
            message_fault(
                fault_rules::classify(implied_status, &ErrorFields::default()),
                implied_status,
                sanitize::one_line(&message, MAX_MESSAGE_CHARS),
            )
        }
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            let message = if body[0] == b'<' {
                sanitize::markup_text(&text)
            } else {
                sanitize::one_line(&text, MAX_MESSAGE_CHARS)
            };
            message_fault(
                fault_rules::classify(
                    status,
                    &ErrorFields { message: message.to_lowercase(), ..ErrorFields::default() },
                ),
                status,
                message,
            )
        }
    }
}

/// The minimum length of a body that may have been cut before its end.
const MIN_TRUNCATED_BYTES: usize = 60 << 10;

/// Reads the fault from the beginning of a JSON text whose end was not read.
fn from_truncated_json(status: u16, body: &[u8]) -> Fault {
    let (mut message, mut codes) = (None, Vec::new());
    // The text was cut at the point where it stops being valid JSON.
    let _ = grammar::validate(body, |depth, key, value| match (depth, key) {
        (1 | 2, b"message") if message.is_none() => {
            message = reader::string_prefix(&value[..value.len().min(MAX_MESSAGE_CHARS * 8)]);
        }
        (1 | 2, b"code" | b"status" | b"type") => {
            codes.extend(reader::string_prefix(&value[..value.len().min(100)]));
        }
        _ => {}
    });
    let message = match message {
        Some(text) => sanitize::one_line(&text, MAX_MESSAGE_CHARS),
        None => sanitize::one_line(
            &format!(
                "provider answered HTTP {status} with more JSON than is read: {}",
                sanitize::excerpt(body)
            ),
            MAX_MESSAGE_CHARS,
        ),
    };
    let fields = ErrorFields {
        codes: codes.iter().map(|code| code.to_lowercase()).collect(),
        message: message.to_lowercase(),
        ..ErrorFields::default()
    };
    message_fault(fault_rules::classify(status, &fields), status, message)
}

/// Returns the data of the first event that has any, if the body is an event stream.
fn first_event_data(body: &[u8]) -> Option<Vec<u8>> {
    if !["data:", "event:", "id:", "retry:", ":"]
        .iter()
        .any(|field| body.starts_with(field.as_bytes()))
    {
        return None;
    }
    let (mut splitter, mut at) = (sse::SseSplitter::default(), 0);
    loop {
        let data = match splitter.next(body, &mut at) {
            NextFrame::Borrowed(span) => sse::read_event(&body[span]).data.trim_ascii().to_vec(),
            NextFrame::Joined(frame) => sse::read_event(&frame).data.trim_ascii().to_vec(),
            NextFrame::Incomplete => {
                return Some(sse::read_event(&splitter.remainder()).data.trim_ascii().to_vec())
                    .filter(|data| !data.is_empty());
            }
            NextFrame::TooLong => return None,
        };
        if !data.is_empty() {
            return Some(data);
        }
    }
}

/// Returns whether the JSON of a 200 is an error instead of an answer.
#[must_use]
pub(in crate::dialect) fn is_error(json: JsonRef<'_>) -> bool {
    let json = unwrap_list(json);
    let text = |key| json.get(key).and_then(JsonRef::str);
    json.get("error").is_some_and(|e| matches!(e.kind(), "object" | "string") && !e.is_blank())
        || text("type").as_deref() == Some("error")
        || text("object").as_deref() == Some("error")
        || text("__type").is_some() && text("message").is_some()
}

/// Reads an error object. Without a status (inside a 200, in a stream) its text implies one.
#[must_use]
pub(in crate::dialect) fn from_json(status: Option<u16>, json: JsonRef<'_>) -> Fault {
    let root = unwrap_list(json);
    let error = root.get("error").filter(|e| e.is_object()).unwrap_or(root);
    let text = |from: JsonRef<'_>, key: &str| from.get(key).and_then(scalar_text);
    let details = || error.get("details").into_iter().flat_map(JsonRef::items);

    let message = text(error, "message")
        .or_else(|| root.string_at("error"))
        .or_else(|| text(root, "message"))
        .or_else(|| root.get("detail").or_else(|| error.get("detail")).map(detail_text))
        .or_else(|| root.get("errors").map(detail_text))
        .filter(|text| !text.trim().is_empty());
    let reason = details().find_map(|d| text(d, "reason"));
    let retry =
        details().find_map(|d| d.get("retryDelay")?.str().and_then(|text| parse_seconds(&text)));
    // Google's `code` repeats the status, and its `status` contains the error's name.
    let google = error.string_at("status");
    let code = text(error, "code");
    // A namespace may precede the name of an exception.
    let exception = || Some(text(root, "__type")?.rsplit('#').next()?.to_owned());
    let kind_name = google
        .clone()
        .or_else(|| text(error, "type"))
        .filter(|name| name != "error")
        .or_else(exception);

    let mut fields = ErrorFields {
        codes: [&code, &kind_name, &reason]
            .into_iter()
            .flatten()
            .map(|text| text.to_lowercase())
            .collect(),
        message: message.as_deref().unwrap_or_default().to_lowercase(),
        body: root.text().chars().take(8192).collect::<String>().to_lowercase(),
    };
    if let Some(nested) =
        error.get("details").filter(|d| d.is_object()).and_then(|d| text(d, "error_code"))
    {
        fields.codes.push(nested.to_lowercase());
    }
    let status = status.unwrap_or_else(|| fault_rules::implied_status(&fields));
    let message = match message {
        Some(text) => sanitize::one_line(&text, MAX_MESSAGE_CHARS),
        None => format!(
            "provider answered HTTP {status} without a message: {}",
            sanitize::excerpt(root.text().as_bytes())
        ),
    };
    let clip = |text: String| sanitize::one_line(&text, 100);
    let kind = fault_rules::classify(status, &fields);
    // Clients shorten the conversation when they see this code, so all vendors' wordings map to it.
    let overflow = kind == FaultKind::BadRequest && fault_rules::is_context_overflow(&fields);
    Fault {
        kind,
        status,
        message,
        code: if overflow {
            Some(CONTEXT_LENGTH_EXCEEDED.to_owned())
        } else {
            if google.is_some() { reason } else { code }.map(clip)
        },
        error_type: kind_name.map(clip),
        param: text(error, "param").map(clip),
        retry_after: retry,
    }
}

/// Returns the fault for an answer that is JSON but not of the requested kind.
#[must_use]
pub(in crate::dialect) fn unexpected_shape(what: &str) -> Fault {
    message_fault(
        FaultKind::Server,
        502,
        format!("provider answered with an unexpected shape ({what})"),
    )
}

/// Returns the fault for an invalid stream event; `number` counts from 1.
#[must_use]
pub(in crate::dialect) fn invalid_event(number: u32, bad: JsonError, event: &[u8]) -> Fault {
    message_fault(
        FaultKind::Server,
        502,
        format!("bad stream event {number}: {}: {}", bad.describe(event), sanitize::excerpt(event)),
    )
}

/// Returns the fault for a stream event above the size limit.
#[must_use]
pub(in crate::dialect) fn oversized_event(number: u32, limit: usize) -> Fault {
    message_fault(
        FaultKind::Server,
        502,
        format!("bad stream event {number}: longer than {} MiB", limit >> 20),
    )
}

/// Reads an error event whose data is text instead of JSON.
#[must_use]
pub(in crate::dialect) fn from_text(text: &[u8]) -> Fault {
    let message = sanitize::one_line(&String::from_utf8_lossy(text), MAX_MESSAGE_CHARS);
    let fields = ErrorFields { message: message.to_lowercase(), ..ErrorFields::default() };
    message_fault(fault_rules::classify(502, &fields), 502, message)
}

/// Returns the unframed error after the events of a stream that ended before its answer was
/// complete.
#[must_use]
pub(in crate::dialect) fn trailing_error(rest: &[u8]) -> Option<Fault> {
    let rest = rest.trim_ascii();
    if !matches!(rest.first(), Some(b'{' | b'[')) {
        return None;
    }
    reader::parse(rest).ok().filter(|json| is_error(*json)).map(|json| from_json(None, json))
}

fn message_fault(kind: FaultKind, status: u16, message: String) -> Fault {
    Fault { kind, status, message, code: None, error_type: None, param: None, retry_after: None }
}

/// Unwraps an error that Google put into a list of one.
fn unwrap_list(json: JsonRef<'_>) -> JsonRef<'_> {
    json.items().next().unwrap_or(json)
}

/// Returns a text, or a number as text.
fn scalar_text(json: JsonRef<'_>) -> Option<String> {
    match json.kind() {
        "string" => json.string(),
        "number" => Some(json.text().to_owned()),
        _ => None,
    }
    .filter(|text| !text.is_empty())
}

/// Reads FastAPI's `detail`: a text, or a list of messages with locations.
fn detail_text(json: JsonRef<'_>) -> String {
    if let Some(text) = json.str() {
        return text.into_owned();
    }
    let one = |item: JsonRef<'_>| {
        let message = item
            .string()
            .or_else(|| scalar_text(item.get("msg").or_else(|| item.get("message"))?))?;
        let location: Vec<_> =
            item.get("loc").into_iter().flat_map(JsonRef::items).filter_map(scalar_text).collect();
        Some(if location.is_empty() {
            message
        } else {
            format!("{message} ({})", location.join("."))
        })
    };
    let all: Vec<_> = json.items().filter_map(one).take(5).collect();
    if all.is_empty() { one(json).unwrap_or_default() } else { all.join("; ") }
}

/// Parses Protobuf's text form of a duration: "31s", "0.5s".
fn parse_seconds(text: &str) -> Option<Duration> {
    let span: f64 = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(span.min(1e9)).ok()
}

fn is_html(content_type: &str, body: &[u8]) -> bool {
    let begins =
        |word: &[u8]| body.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    let markup = body.first() == Some(&b'<');
    begins(b"<!doctype")
        || begins(b"<html")
        || markup && content_type.to_ascii_lowercase().contains("html")
}

fn from_html(status: u16, html: &str) -> Fault {
    let text = sanitize::html_text(html);
    if status < 400 || status == 511 {
        let what = if text.is_empty() { "HTML".to_owned() } else { format!("HTML: {text}") };
        return message_fault(
            FaultKind::CaptivePortal,
            502,
            sanitize::one_line(
                &format!(
                    "network requires sign-in or a proxy answered instead of the provider ({what})"
                ),
                MAX_MESSAGE_CHARS,
            ),
        );
    }
    let maker = fault_rules::html_page_vendor(html)
        .map_or_else(|| format!("HTTP {status}"), |name| format!("{name} {status}"));
    let message = format!(
        "provider returned an HTML error page ({maker}){}{text}",
        if text.is_empty() { "" } else { ": " }
    );
    message_fault(
        fault_rules::classify(status, &ErrorFields::default()),
        status,
        sanitize::one_line(&message, MAX_MESSAGE_CHARS),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_format_is_read() {
        use FaultKind as K;
        let cloudflare = "<!DOCTYPE html>\n<html><head><title>x | 524: A timeout occurred</title></head><body><div id=\"cf-error-details\">Cloudflare Ray ID</div></body>";
        for (status, body, kind, message) in [
            (
                400,
                r#"{"error":{"message":"bad","type":"invalid_request_error","param":"x","code":null}}"#,
                K::BadRequest,
                "bad",
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}"#,
                K::KeyRejected,
                "API key not valid. Please pass a valid API key.",
            ),
            (
                401,
                r#"{"error":{"code":"401","message":"Access denied"}}"#,
                K::KeyRejected,
                "Access denied",
            ),
            (402, r#"{"error":{"message":"no","type":"x"}}"#, K::Quota, "no"),
            (
                403,
                r#"{"error":{"code":403,"message":"no","status":"PERMISSION_DENIED"}}"#,
                K::Forbidden,
                "no",
            ),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}"#,
                K::Quota,
                "Your credit balance is too low to access the API.",
            ),
            (
                429,
                r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","code":"insufficient_quota"}}"#,
                K::Quota,
                "You exceeded your current quota, please check your plan and billing details.",
            ),
            (
                429,
                r#"[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.5s"}]}}]"#,
                K::RateLimited,
                "You exceeded your current quota, please check your plan and billing details.",
            ),
            (
                429,
                r#"{"error":{"message":"Rate limit reached for m in organization o on tokens per min"}}"#,
                K::AccountLimited,
                "Rate limit reached for m in organization o on tokens per min",
            ),
            (429, r#"{"error":{"message":"slow down","code":429}}"#, K::RateLimited, "slow down"),
            (
                404,
                r#"{"type":"error","error":{"type":"not_found_error","message":"model: x"}}"#,
                K::ModelNotFound,
                "model: x",
            ),
            (404, r#"{"error":"model 'x' not found"}"#, K::ModelNotFound, "model 'x' not found"),
            (
                404,
                r#"{"error":{"code":404,"message":"models/x is not found for API version v1beta","status":"NOT_FOUND"}}"#,
                K::ModelNotFound,
                "models/x is not found for API version v1beta",
            ),
            (
                400,
                r#"{"error":{"code":"model_not_found","message":"gone"}}"#,
                K::ModelNotFound,
                "gone",
            ),
            (
                404,
                r#"{"error":{"message":"Invalid URL (POST /v1/x)"}}"#,
                K::BadRequest,
                "Invalid URL (POST /v1/x)",
            ),
            (
                422,
                r#"{"detail":[{"loc":["body","max"],"msg":"field required","type":"missing"}]}"#,
                K::BadRequest,
                "field required (body.max)",
            ),
            (422, r#"{"detail":"nope"}"#, K::BadRequest, "nope"),
            (500, r#"{"message":"oh"}"#, K::Server, "oh"),
            (500, r#"{"error":"evil: something broke"}"#, K::Server, "evil: something broke"),
            (500, "", K::Server, "provider answered HTTP 500 with an empty body"),
            (
                500,
                "upstream connect error\n or reset",
                K::Server,
                "upstream connect error or reset",
            ),
            (
                500,
                r#"{"error": {"message": "ev"#,
                K::Server,
                "provider answered HTTP 500 with broken JSON: EOF while parsing a string at line 1 column 25: {\"error\": {\"message\": \"ev",
            ),
            (
                403,
                "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>evil &amp; words</Message></Error>",
                K::Forbidden,
                "AccessDenied evil & words",
            ),
            (
                429,
                "event: error\ndata: {\"error\":{\"message\":\"slow\",\"code\":\"insufficient_quota\"}}\n\n",
                K::Quota,
                "slow",
            ),
            (503, ": hi\n\ndata: all busy", K::Server, "all busy"),
            (
                429,
                r#"{"message":"slow","__type":"com.x#ThrottlingException"}"#,
                K::RateLimited,
                "slow",
            ),
            (
                500,
                r#"{"x":null}"#,
                K::Server,
                "provider answered HTTP 500 without a message: {\"x\":null}",
            ),
            (500, "null", K::Server, "provider answered HTTP 500 without a message: null"),
            (
                524,
                cloudflare,
                K::Server,
                "provider returned an HTML error page (Cloudflare 524): x | 524: A timeout occurred",
            ),
            (
                429,
                "<html><h1>429 Too Many Requests</h1></html>",
                K::RateLimited,
                "provider returned an HTML error page (HTTP 429): 429 Too Many Requests",
            ),
            (408, "{}", K::Transient, "provider answered HTTP 408 without a message: {}"),
            (409, r#"{"message":"busy"}"#, K::Conflict, "busy"),
            (
                529,
                r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
                K::Server,
                "Overloaded",
            ),
        ] {
            let fault = from_body(status, "", body.as_bytes());
            assert_eq!(
                (fault.kind, fault.message.as_str(), fault.status),
                (kind, message, status),
                "{body}"
            );
        }
    }

    #[test]
    fn beginning_of_a_long_error_body_is_read() {
        let long = "x\\n\u{e9}".repeat(30_000);
        for (body, kind, message) in [
            (
                format!(
                    r#"{{"error":{{"type":"t","code":"insufficient_quota","message":"evil {long}"#
                ),
                FaultKind::Quota,
                "evil x é",
            ),
            (
                format!(r#"{{"error":{{"message":"evil","debug":"{long}"#),
                FaultKind::RateLimited,
                "evil",
            ),
            (
                format!(r#"{{"debug":"{long}"#),
                FaultKind::RateLimited,
                "provider answered HTTP 429 with more JSON than is read: {\"debug\"",
            ),
        ] {
            let fault = from_body(429, "application/json", &body.as_bytes()[..64 << 10]);
            assert_eq!(fault.kind, kind);
            assert!(
                fault.message.starts_with(message)
                    && fault.message.chars().count() <= MAX_MESSAGE_CHARS + 1,
                "{}",
                fault.message
            );
        }
    }

    #[test]
    fn error_codes_types_and_hints_are_read() {
        let fault =
            from_body(429, "", br#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"1.5s"}]}}]"#);
        assert_eq!(
            (fault.retry_after, fault.code, fault.error_type.as_deref()),
            (Some(Duration::from_millis(1500)), None, Some("RESOURCE_EXHAUSTED"))
        );
        let fault =
            from_body(400, "", br#"{"error":{"message":"m","type":"t","param":"p","code":17}}"#);
        assert_eq!(
            (fault.code.as_deref(), fault.error_type.as_deref(), fault.param.as_deref()),
            (Some("17"), Some("t"), Some("p"))
        );
    }

    #[test]
    fn context_overflow_has_one_code_for_every_provider() {
        for body in [
            r#"{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 215000 tokens > 200000 maximum"}}"#,
            r#"{"error":{"code":400,"message":"The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}"#,
            r#"{"error":"the request exceeds the available context size"}"#,
        ] {
            assert_eq!(
                from_body(400, "", body.as_bytes()).code.as_deref(),
                Some("context_length_exceeded"),
                "{body}"
            );
        }
        assert_eq!(from_body(400, "", br#"{"error":{"message":"bad image"}}"#).code, None);
    }

    #[test]
    fn error_inside_a_200_gets_its_implied_status() {
        for (body, status, kind) in [
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
                529,
                FaultKind::Server,
            ),
            (
                r#"{"error":{"message":"m","type":"requests","code":"rate_limit_exceeded"}}"#,
                429,
                FaultKind::RateLimited,
            ),
            (
                r#"{"error":{"message":"m","type":"server_error","code":null}}"#,
                502,
                FaultKind::Server,
            ),
            (r#"{"error":{"message":"m","type":"insufficient_quota"}}"#, 429, FaultKind::Quota),
            (r#"{"error":{"code":500,"message":"m","status":"INTERNAL"}}"#, 500, FaultKind::Server),
            (r#"{"message":"m","__type":"ThrottlingException"}"#, 429, FaultKind::RateLimited),
            (r#"{"id":"x"}"#, 502, FaultKind::Server),
            ("", 502, FaultKind::Server),
            ("hello", 502, FaultKind::Server),
            (
                "<html><body>Please log in to Hotel WiFi</body></html>",
                502,
                FaultKind::CaptivePortal,
            ),
        ] {
            let fault = from_body(200, "text/html", body.as_bytes());
            assert_eq!((fault.status, fault.kind), (status, kind), "{body}");
        }
        assert_eq!(from_body(302, "", b"").kind, FaultKind::CaptivePortal);
        assert!(
            from_body(200, "", b"<html>x")
                .message
                .starts_with("network requires sign-in or a proxy answered")
        );
    }
}
