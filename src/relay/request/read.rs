//! Reads a request once, with bounds and without a full parse, into a `ProxyRequest`.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use crate::relay::{
    engine::{Engine, Generation},
    request::{
        multipart, preferences,
        proxy_request::{Caller, Endpoint, ModelLocation, ProxyRequest, StreamMode, empty_str},
    },
    state::permits::BufferReservation,
};
use crate::{
    base::{
        clock::{Mono, UnixMillis},
        id::RequestId,
        json::scan,
        sanitize,
    },
    config::{
        Settings,
        settings::{KeyId, UpstreamId},
    },
    dialect::Framing,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
    },
    upstream::{
        decode::{self, ContentCoding, DecodeError},
        headers,
    },
};

/// Maximum bytes of a model name.
const MAX_MODEL_NAME: usize = 256;
/// Maximum bytes of a service tier's name, on which a price may depend.
const MAX_TIER_NAME: usize = 32;
/// An encoded body above this size is not stored for forwarding unchanged.
const MAX_ENCODED_BYTES: usize = 8 << 20;

/// What the server knows after it has read the head and admitted the caller.
pub struct RequestHead {
    pub id: RequestId,
    pub endpoint: Endpoint,
    pub caller: Caller,
    pub method: Method,
    pub query: Option<String>,
    pub headers: HeaderMap,
    /// Use only this upstream and key.
    pub owner: Option<(UpstreamId, Option<KeyId>)>,
}

/// Reads the body and finds the fields that routing needs.
///
/// # Errors
///
/// Any problem found before the first attempt: too large, too slow, undecodable, not JSON, no
/// model.
pub async fn read_request(
    engine: &Arc<Engine>,
    generation: &Generation,
    head: RequestHead,
    body: Incoming,
) -> Result<Box<ProxyRequest>, ProxyError> {
    let (at, received) = (engine.clock.unix(), engine.clock.mono());
    let mut reservation = BufferReservation::empty(&engine.buffered_bytes);
    let limits = request_limits(generation);
    let raw = read_body(body, &limits, &mut reservation).await?;
    parse_request(
        UnparsedBody { at, received, raw, replay_of: None },
        head,
        (generation, &limits),
        reservation,
    )
}

/// Reads a stored body as the request that it was.
///
/// # Errors
///
/// As [`read_request`].
pub(in crate::relay) fn from_replay(
    engine: &Engine,
    generation: &Generation,
    head: RequestHead,
    body: Bytes,
    of: RequestId,
) -> Result<Box<ProxyRequest>, ProxyError> {
    let (at, received) = (engine.clock.unix(), engine.clock.mono());
    let limits = request_limits(generation);
    let mut reservation = BufferReservation::empty(&engine.buffered_bytes);
    if !reservation.try_grow(body.len() as u64, limits.buffer_limit) {
        return Err(buffer_full(limits.buffer_limit));
    }
    parse_request(
        UnparsedBody { at, received, raw: body, replay_of: Some(of) },
        head,
        (generation, &limits),
        reservation,
    )
}

/// A complete body and when it arrived.
struct UnparsedBody {
    at: UnixMillis,
    received: Mono,
    raw: Bytes,
    replay_of: Option<RequestId>,
}

fn parse_request(
    arrived: UnparsedBody,
    head: RequestHead,
    (generation, limits): (&Generation, &RequestLimits),
    mut held: BufferReservation,
) -> Result<Box<ProxyRequest>, ProxyError> {
    let UnparsedBody { at, received, raw, replay_of } = arrived;
    let mut map = head.headers;
    let (body, coded) = decode_body(raw, &mut map, limits, &mut held)?;

    let control = ControlHeaders::read(&map);
    // Boxed at creation, because it is large and often moved.
    let mut request = Box::new(ProxyRequest {
        id: head.id,
        replay_of,
        at,
        received,
        caller: head.caller,
        method: head.method,
        query: head.query,
        encoded_body: coded,
        model_span: None,
        is_multipart: false,
        requested_model: empty_str(),
        stream: false,
        add_stream: false,
        framing: Framing::Sse,
        include_usage: false,
        stream_options: None,
        object_end: None,
        session: control.session,
        estimate: (body.len() / 4) as u64,
        max_tokens: None,
        tier: None,
        client_timeout: control.client_timeout,
        pinned_upstream: control.pinned_upstream,
        body_dialect: head.endpoint.dialect,
        previous_response_id: None,
        must_rewrite: false,
        owner: head.owner,
        strict: control.strict,
        preferences: None,
        buffer_reservation: held,
        headers: map,
        body,
        endpoint: head.endpoint,
    });
    scan_fields(&mut request, &generation.settings)?;
    headers::filter_request_headers(&mut request.headers);
    Ok(request)
}

struct RequestLimits {
    max_body: u64,
    buffer_limit: u64,
    idle_timeout: Duration,
}

fn request_limits(generation: &Generation) -> RequestLimits {
    let settings = &generation.settings;
    RequestLimits {
        max_body: settings.server.max_request_bytes,
        buffer_limit: settings.server.max_buffered.unwrap_or(u64::MAX),
        idle_timeout: settings.timeouts.client_idle,
    }
}

async fn read_body(
    mut body: Incoming,
    limits: &RequestLimits,
    reservation: &mut BufferReservation,
) -> Result<Bytes, ProxyError> {
    if body.size_hint().lower() > limits.max_body {
        return Err(body_too_large(body.size_hint().lower(), limits.max_body));
    }
    let (mut first, mut rest): (Option<Bytes>, Option<BytesMut>) = (None, None);
    let mut total = 0_u64;
    loop {
        let frame = if body.is_end_stream() {
            None
        } else {
            timeout(limits.idle_timeout, body.frame())
                .await
                .map_err(|_| body_timeout(limits.idle_timeout))?
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| {
            ProxyError::new(ProxyErrorKind::BadRequest, format!("the request body broke off: {e}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        total += data.len() as u64;
        if total > limits.max_body {
            return Err(body_too_large(total, limits.max_body));
        }
        if !reservation.try_grow(data.len() as u64, limits.buffer_limit) {
            return Err(buffer_full(limits.buffer_limit));
        }
        match (&mut first, &mut rest) {
            (None, None) => first = Some(data),
            (Some(_), None) => {
                let mut all = BytesMut::with_capacity((total + body.size_hint().lower()) as usize);
                all.extend_from_slice(&first.take().unwrap_or_default());
                all.extend_from_slice(&data);
                rest = Some(all);
            }
            (_, Some(all)) => all.extend_from_slice(&data),
        }
    }
    Ok(rest.map(BytesMut::freeze).or(first).unwrap_or_default())
}

fn decode_body(
    raw: Bytes,
    headers: &mut HeaderMap,
    limits: &RequestLimits,
    reservation: &mut BufferReservation,
) -> Result<(Bytes, Option<(Bytes, HeaderValue)>), ProxyError> {
    let refused = |headers: &HeaderMap, error: DecodeError| {
        let name =
            headers.get(header::CONTENT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or("?");
        let name = sanitize::clean(name);
        match error {
            DecodeError::TooLarge => body_too_large(limits.max_body + 1, limits.max_body),
            DecodeError::Unknown => {
                let message = format!(
                    "content-encoding `{name}` is not known; gzip, br, zstd and deflate are, one at a time"
                );
                ProxyError::new(ProxyErrorKind::UnsupportedMedia, message)
            }
            DecodeError::Corrupt(_) | DecodeError::Truncated(_) => ProxyError::new(
                ProxyErrorKind::BadRequest,
                format!("the request body is not {name}: {error}"),
            ),
        }
    };
    let Some(found) = ContentCoding::from_headers(headers).map_err(|e| refused(headers, e))? else {
        return Ok((raw, None));
    };
    let max = usize::try_from(limits.max_body).unwrap_or(usize::MAX);
    let decoded = decode::decode_all(found, &raw, max).map_err(|e| refused(headers, e))?;
    let Some(coding) = headers.remove(header::CONTENT_ENCODING) else { return Ok((decoded, None)) };
    if !reservation.try_grow(decoded.len() as u64, limits.buffer_limit) {
        return Err(buffer_full(limits.buffer_limit));
    }
    let keep_encoded = raw.len() <= MAX_ENCODED_BYTES;
    Ok((decoded, keep_encoded.then_some((raw, coding))))
}

fn scan_fields(request: &mut ProxyRequest, settings: &Settings) -> Result<(), ProxyError> {
    if let StreamMode::Always(framing) = request.endpoint.stream {
        (request.stream, request.framing) = (true, framing);
    } else if request.endpoint.dialect == Dialect::Ollama {
        request.framing = Framing::Ndjson;
    }
    let content_type =
        request.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match &request.endpoint.model {
        ModelLocation::Upstream(name) => {
            request.requested_model =
                Arc::from(sanitize::truncate_end(&sanitize::clean(name), MAX_MODEL_NAME).as_ref());
            return Ok(());
        }
        ModelLocation::Path(model) => {
            check_model_name(model)?;
            request.requested_model = Arc::from(model.as_str());
        }
        ModelLocation::Body if starts_with_ignoring_case(content_type, "multipart/form-data") => {
            let span = multipart::boundary(content_type)
                .and_then(|boundary| multipart::find_field(&request.body, boundary, "model"));
            let name = span
                .clone()
                .and_then(|span| std::str::from_utf8(&request.body[span]).ok())
                .ok_or_else(missing_model)?;
            check_model_name(name)?;
            request.requested_model = Arc::from(name);
            (request.model_span, request.is_multipart) = (span, true);
            return Ok(());
        }
        ModelLocation::Body => {}
    }
    check_content_type(request.endpoint.dialect, request.endpoint.op, content_type)?;
    let body = request.body.clone();
    let scan = scan::scan(&body).map_err(|e| {
        let error = ProxyError::new(ProxyErrorKind::BadRequest, e.message()).code("invalid_json");
        match e.field() {
            Some(field) => ProxyError { code: None, ..error }.param(field),
            None => error,
        }
    })?;
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
    if request.endpoint.model == ModelLocation::Body {
        let found = scan.model.as_ref().ok_or_else(missing_model)?;
        check_model_name(&found.text)?;
        request.requested_model = Arc::from(found.text.as_ref());
        request.model_span = Some(found.span.clone());
    }
    if let StreamMode::Body { default } = request.endpoint.stream {
        request.add_stream = scan.stream.is_none()
            && !default
            && accepts_event_stream(&request.headers, request.endpoint.op);
        request.stream = scan.stream.unwrap_or(default || request.add_stream);
    }
    request.body_dialect = detect_body_dialect(&request.endpoint, &scan, &body);
    request.must_rewrite = contains_unsigned_reasoning(request.endpoint.dialect, &body);
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
        request.session = scan
            .session
            .as_deref()
            .map(|s| Arc::from(sanitize::truncate_end(&sanitize::clean(s), 128).as_ref()));
    }
    Ok(())
}

/// Detects a body's dialect: chat clients also send bodies in the Anthropic or Gemini dialect.
fn detect_body_dialect(endpoint: &Endpoint, scan: &scan::RequestScan<'_>, body: &[u8]) -> Dialect {
    if endpoint.dialect != Dialect::Openai || endpoint.op != Op::Chat {
        return endpoint.dialect;
    }
    let has = |key: &[u8]| memchr::memmem::find(body, key).is_some();
    match scan {
        scan::RequestScan { has_messages: false, has_contents: true, .. } => Dialect::Gemini,
        scan::RequestScan { has_messages: true, has_system: true, .. } => Dialect::Anthropic,
        scan::RequestScan { has_messages: true, has_tools: true, .. }
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
        Dialect::Anthropic => b"\"aiproxy-unsigned",
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
    if *sanitize::clean(name) != *name {
        return invalid(format!(
            "the model name `{}` holds control characters",
            sanitize::clean(name)
        ));
    }
    Ok(())
}

fn check_content_type(dialect: Dialect, op: Op, content_type: &str) -> Result<(), ProxyError> {
    let essence = content_type.split(';').next().unwrap_or("").trim();
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

fn missing_model() -> ProxyError {
    ProxyError::new(
        ProxyErrorKind::BadRequest,
        "you must provide a model parameter; GET /v1/models lists the names",
    )
    .param("model")
}

fn body_too_large(size: u64, limit: u64) -> ProxyError {
    ProxyError::new(
        ProxyErrorKind::TooLarge,
        format!(
            "the request body has {size} bytes or more; {limit} are allowed (`max_request_bytes` under [server] in the config)"
        ),
    )
}

fn buffer_full(limit: u64) -> ProxyError {
    ProxyError::new(
        ProxyErrorKind::Overloaded,
        format!("request and answer bodies already hold the {limit} bytes that `max_buffered` under [server] allows; try again shortly"),
    )
    .retry_after(Some(Duration::from_secs(1)))
}

fn body_timeout(idle: Duration) -> ProxyError {
    ProxyError::new(
        ProxyErrorKind::BadRequest,
        format!(
            "no byte of the request body came for {}s (`client_idle` under [timeouts])",
            idle.as_secs()
        ),
    )
    .status(408)
}

fn starts_with_ignoring_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The client's headers for aiproxy rather than for an upstream; the first one wins if a name is
/// repeated.
#[derive(Default)]
struct ControlHeaders {
    session: Option<Arc<str>>,
    pinned_upstream: Option<Arc<str>>,
    strict: bool,
    client_timeout: Option<Duration>,
}

impl ControlHeaders {
    /// Reads all headers in one pass, because a lookup per name costs more.
    fn read(headers: &HeaderMap) -> Self {
        let (mut session, mut pin, mut strict) = (None, None, None);
        // Timeouts in the headers of the SDK families, in order of precedence.
        let mut waits = [None; 3];
        for (name, value) in headers {
            let slot = match name.as_str() {
                "x-session-id" => &mut session,
                "x-aiproxy-upstream" => &mut pin,
                "x-aiproxy-strict" => &mut strict,
                "x-stainless-read-timeout" => &mut waits[0],
                "x-stainless-timeout" => &mut waits[1],
                "x-server-timeout" => &mut waits[2],
                _ => continue,
            };
            *slot = slot.or(Some(value));
        }
        fn text(value: &HeaderValue) -> Option<&str> {
            value.to_str().ok()
        }
        let (session, pin) = (session.and_then(text), pin.and_then(text));
        Self {
            session: session
                .map(|s| Arc::from(sanitize::truncate_end(&sanitize::clean(s), 128).as_ref())),
            pinned_upstream: pin.map(Arc::from),
            strict: strict.is_some_and(|v| matches!(v.as_bytes(), b"1" | b"true")),
            client_timeout: waits
                .into_iter()
                .flatten()
                .next()
                .and_then(text)
                .and_then(parse_timeout),
        }
    }
}

/// Parses the read timeout of the client's SDK, in seconds.
fn parse_timeout(seconds: &str) -> Option<Duration> {
    let seconds: f64 = seconds.parse().ok()?;
    (seconds.is_finite() && seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(86_400.0)))
}
