//! Finds the fields of a request that routing needs, with one scan of its body.

use std::sync::Arc;

use http::{HeaderMap, header};

use crate::relay::request::{
    multipart, preferences,
    proxy_request::{Endpoint, ModelLocation, ProxyRequest, StreamMode},
};
use crate::{
    base::{
        dot_segment::has_dot_segment,
        json::{
            scan::{self, RequestScan},
            scan_error::ScanError,
        },
        sanitize,
    },
    config::Settings,
    dialect::Framing,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
    },
};

/// Maximum bytes of a model name.
const MAX_MODEL_NAME: usize = 256;
/// Maximum bytes of a service tier's name, on which a price may depend.
const MAX_TIER_NAME: usize = 32;
/// Fills in the fields that routing needs.
pub(super) fn scan_fields(
    request: &mut ProxyRequest,
    settings: &Settings,
) -> Result<(), ProxyError> {
    if let StreamMode::Always(framing) = request.endpoint.stream {
        (request.stream, request.framing) = (true, framing);
    } else if request.endpoint.dialect == Dialect::Ollama {
        request.framing = Framing::Ndjson;
    }
    if !read_model_outside_json(request)? {
        return Ok(());
    }
    check_content_type(request)?;
    let body = request.body.clone();
    let scan = scan::scan(&body).map_err(|e| invalid_json(&e))?;
    if scan.has_routing_preferences
        && request.preferences.is_none()
        && matches!(request.endpoint.op, Op::Chat | Op::Completions | Op::Embed)
    {
        let known = |name: &str| {
            settings.upstreams.iter().any(|upstream| upstream.name.eq_ignore_ascii_case(name))
        };
        if let Some((preferences, rest)) = preferences::extract(&body, &known)? {
            (request.preferences, request.body, request.encoded_body) =
                (Some(Box::new(preferences)), rest, None);
            return scan_fields(request, settings);
        }
    }
    apply_scan(request, &scan, &body)
}

/// Reads a model that is in the path or in a form; returns whether the body is JSON to be scanned.
fn read_model_outside_json(request: &mut ProxyRequest) -> Result<bool, ProxyError> {
    let content_type = content_type(&request.headers);
    match &request.endpoint.model {
        ModelLocation::Upstream(name) => {
            request.requested_model =
                Arc::from(sanitize::truncate_end(&sanitize::clean(name), MAX_MODEL_NAME).as_ref());
            Ok(false)
        }
        ModelLocation::AnyUpstream => Ok(false),
        ModelLocation::Path(model) => {
            check_model_name(model)?;
            request.requested_model = Arc::from(model.as_str());
            Ok(true)
        }
        ModelLocation::Body if starts_with_ignoring_case(content_type, "multipart/form-data") => {
            let boundary = multipart::boundary(content_type)
                .ok_or_else(|| bad_form("its content type has no usable boundary"))?;
            let span = multipart::find_field(&request.body, boundary, "model")
                .map_err(|error| bad_form(&error.to_string()))?;
            let name = span
                .clone()
                .and_then(|span| std::str::from_utf8(&request.body[span]).ok())
                .ok_or_else(missing_model)?;
            check_model_name(name)?;
            request.requested_model = Arc::from(name);
            (request.model_span, request.is_multipart) = (span, true);
            Ok(false)
        }
        ModelLocation::Body => Ok(true),
    }
}

/// The model of `POST /api/show` in the older field `name`, which Ollama still reads.
/// <https://github.com/ollama/ollama/blob/main/api/types.go> `ShowRequest`
fn older_name(op: Op, body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct OlderName {
        name: String,
    }
    let older = |body| serde_json::from_slice::<OlderName>(body).ok();
    (op == Op::ModelCard).then(|| older(body)).flatten().map(|older| older.name)
}

/// Copies what the scan found.
fn apply_scan(
    request: &mut ProxyRequest,
    scan: &RequestScan<'_>,
    body: &[u8],
) -> Result<(), ProxyError> {
    if request.endpoint.model == ModelLocation::Body {
        if let Some(found) = &scan.model {
            check_model_name(&found.text)?;
            request.requested_model = Arc::from(found.text.as_ref());
            request.model_span = Some(found.span.clone());
        } else {
            match older_name(request.endpoint.op, body) {
                Some(name) => {
                    check_model_name(&name)?;
                    request.requested_model = Arc::from(name);
                }
                // Their APIs have a default.
                None if matches!(request.endpoint.op, Op::Moderate | Op::Image) => {
                    request.endpoint.model = ModelLocation::AnyUpstream;
                }
                None => return Err(missing_model()),
            }
        }
    }
    if let StreamMode::Body { default } = request.endpoint.stream {
        request.add_stream = scan.stream.is_none()
            && !default
            && accepts_event_stream(&request.headers, request.endpoint.op);
        request.stream = scan.stream.unwrap_or(default || request.add_stream);
    }
    request.body_dialect = detect_body_dialect(&request.endpoint, scan, body);
    if request.body_dialect == Dialect::Openai
        && request.endpoint.dialect == Dialect::Openai
        && request.endpoint.op == Op::Chat
        && !scan.has_messages
    {
        return Err(ProxyError::new(
            ProxyErrorKind::BadRequest,
            "Missing required parameter: 'messages'.",
        )
        .code("missing_required_parameter")
        .param("messages"));
    }
    request.must_rewrite = contains_unsigned_reasoning(request.endpoint.dialect, body);
    request.previous_response_id = scan
        .previous_response_id
        .as_deref()
        .filter(|_| request.endpoint.dialect == Dialect::Responses)
        .map(Box::from);
    request.include_usage = scan.include_usage.unwrap_or(false);
    request.stream_options = scan.stream_options.clone();
    request.object_end = Some((scan.closing_brace, scan.is_empty));
    request.estimate = (body.len() / 4) as u64;
    request.max_tokens = scan.max_tokens;
    request.tier =
        scan.service_tier.as_deref().filter(|tier| tier.len() <= MAX_TIER_NAME).map(Box::from);
    if request.session.is_none() {
        request.session = scan.session.as_deref().map(short_name);
    }
    if request.records_caller {
        request.user = scan.user.as_deref().map(short_name);
    }
    Ok(())
}

/// Cleans and bounds a name that a client chose.
fn short_name(name: &str) -> Arc<str> {
    sanitize::truncate_end(&sanitize::clean(name), 128).as_ref().into()
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Detects a body's dialect: chat clients also send bodies in the Anthropic or Gemini dialect.
fn detect_body_dialect(endpoint: &Endpoint, scan: &RequestScan<'_>, body: &[u8]) -> Dialect {
    if endpoint.dialect != Dialect::Openai || endpoint.op != Op::Chat {
        return endpoint.dialect;
    }
    let has = |key: &[u8]| memchr::memmem::find(body, key).is_some();
    match scan {
        RequestScan { has_messages: false, has_contents: true, .. } => Dialect::Gemini,
        RequestScan { has_messages: false, has_input: true, .. } => Dialect::Responses,
        RequestScan { has_messages: true, has_claude_field: true, .. } => Dialect::Anthropic,
        RequestScan { has_messages: true, has_system: true, .. } => Dialect::Anthropic,
        RequestScan { has_messages: true, has_tools: true, .. }
            if has(b"\"input_schema\"") && !has(b"\"parameters\"") =>
        {
            Dialect::Anthropic
        }
        _ => Dialect::Openai,
    }
}

/// Returns whether a body contains reasoning that aiproxy wrote in this dialect without a
/// signature. The dialect's provider would reject it.
fn contains_unsigned_reasoning(dialect: Dialect, body: &[u8]) -> bool {
    let marker: &[u8] = match dialect {
        // Part of the signatures and of the ids of searches that aiproxy made.
        Dialect::Anthropic => b"aiproxy-unsigned",
        Dialect::Responses => b"\"rs_aip_",
        Dialect::Gemini | Dialect::Ollama | Dialect::Openai => return false,
    };
    memchr::memmem::find(body, marker).is_some()
}

/// Returns whether the client asks for an event stream by its `Accept` alone.
fn accepts_event_stream(headers: &HeaderMap, op: Op) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    matches!(op, Op::Chat | Op::Completions)
        && accept.split(',').any(|each| starts_with_ignoring_case(each.trim(), "text/event-stream"))
}

fn check_model_name(name: &str) -> Result<(), ProxyError> {
    let invalid =
        |message: String| Err(ProxyError::new(ProxyErrorKind::BadRequest, message).param("model"));
    if name.is_empty() {
        return Err(missing_model());
    }
    if name.len() > MAX_MODEL_NAME {
        return invalid(format!(
            "the model name is {} characters long; {MAX_MODEL_NAME} are allowed",
            name.chars().count()
        ));
    }
    // The name may become a part of the upstream's path.
    if has_dot_segment(name) {
        return invalid(format!(
            "the model name `{}` has a part `.` or `..`",
            sanitize::clean(name)
        ));
    }
    if *sanitize::clean(name) != *name {
        return invalid(format!(
            "the model name `{}` holds control characters",
            sanitize::clean(name)
        ));
    }
    Ok(())
}

fn check_content_type(request: &ProxyRequest) -> Result<(), ProxyError> {
    let (dialect, op) = (request.endpoint.dialect, request.endpoint.op);
    let essence = content_type(&request.headers).split(';').next().unwrap_or("").trim();
    let json = essence.eq_ignore_ascii_case("application/json")
        || essence.to_ascii_lowercase().ends_with("+json");
    // Ollama accepts the content type that curl sends by default, and its clients rely on that.
    if json || dialect == Dialect::Ollama || op == Op::Raw {
        return Ok(());
    }
    let got = if essence.is_empty() {
        "none".to_owned()
    } else {
        format!("`{}`", sanitize::clean(essence))
    };
    Err(ProxyError::new(
        ProxyErrorKind::UnsupportedMedia,
        format!("expected content-type application/json, got {got}"),
    ))
}

fn invalid_json(problem: &ScanError) -> ProxyError {
    let error = ProxyError::new(ProxyErrorKind::BadRequest, problem.message()).code("invalid_json");
    match problem.field() {
        Some(field) => ProxyError { code: None, ..error }.param(field),
        None => error,
    }
}

fn bad_form(why: &str) -> ProxyError {
    let message = format!("the form in the request body cannot be read without doubt: {why}");
    ProxyError::new(ProxyErrorKind::BadRequest, message).param("model")
}

fn missing_model() -> ProxyError {
    ProxyError::new(
        ProxyErrorKind::BadRequest,
        "you must provide a model parameter; GET /v1/models lists the names",
    )
    .param("model")
}

fn starts_with_ignoring_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
