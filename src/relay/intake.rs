//! Reads a request: bounded, once, shallowly; what comes out is an `Ask`.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use super::{
    ask::{Ask, Caller, Endpoint, ModelPlace, StreamPlace, nothing},
    engine::{Engine, Generation, Held},
    form, wishes,
};
use crate::{
    base::{
        clean,
        clock::{Mono, UnixMillis},
        id::RequestId,
        splice,
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

/// Longest model name that is looked up.
const MODEL_NAME: usize = 256;
/// Longest name of a service tier that a price may depend on.
const TIER: usize = 32;
/// Beyond this a coded body is not kept for forwarding as it came.
const KEEP_CODED: usize = 8 << 20;

/// What the server knows when the head was read and the caller let in.
pub struct Head {
    pub id: RequestId,
    pub endpoint: Endpoint,
    pub caller: Caller,
    pub method: Method,
    pub query: Option<String>,
    pub headers: HeaderMap,
    /// Only this upstream, only this key.
    pub home: Option<(UpstreamId, Option<KeyId>)>,
}

/// Reads the body and looks for what routing needs.
///
/// # Errors
///
/// Everything that is wrong with a request before anybody is asked: too large, slow, undecodable,
/// not JSON, no model.
pub async fn read(
    engine: &Arc<Engine>,
    generation: &Generation,
    head: Head,
    body: Incoming,
) -> Result<Box<Ask>, ProxyError> {
    let (at, received) = (engine.clock.unix(), engine.clock.mono());
    let mut held = Held::none(engine);
    let limits = limits(generation);
    let raw = collect(body, &limits, &mut held).await?;
    understand(Arrived { at, received, raw, replay_of: None }, head, (generation, &limits), held)
}

/// Reads a body that was kept, as the request that it was.
///
/// # Errors
///
/// As [`read`].
pub(super) fn again(
    engine: &Arc<Engine>,
    generation: &Generation,
    head: Head,
    body: Bytes,
    of: RequestId,
) -> Result<Box<Ask>, ProxyError> {
    let (at, received) = (engine.clock.unix(), engine.clock.mono());
    let limits = limits(generation);
    let mut held = Held::none(engine);
    if !held.grow(body.len() as u64, limits.held) {
        return Err(full(limits.held));
    }
    understand(
        Arrived { at, received, raw: body, replay_of: Some(of) },
        head,
        (generation, &limits),
        held,
    )
}

/// A body that is there, and since when.
struct Arrived {
    at: UnixMillis,
    received: Mono,
    raw: Bytes,
    replay_of: Option<RequestId>,
}

fn understand(
    arrived: Arrived,
    head: Head,
    (generation, limits): (&Generation, &Limits),
    mut held: Held,
) -> Result<Box<Ask>, ProxyError> {
    let Arrived { at, received, raw, replay_of } = arrived;
    let mut map = head.headers;
    let (body, coded) = open(raw, &mut map, limits, &mut held)?;

    let said = Said::of(&map);
    // Boxed where it is made: it is large, and goes through many hands.
    let mut ask = Box::new(Ask {
        id: head.id,
        replay_of,
        at,
        received,
        caller: head.caller,
        method: head.method,
        query: head.query,
        coded,
        model_span: None,
        form: false,
        asked: nothing(),
        stream: false,
        add_stream: false,
        framing: Framing::Sse,
        include_usage: false,
        stream_options: None,
        object_end: None,
        session: said.session,
        estimate: (body.len() / 4) as u64,
        max_tokens: None,
        tier: None,
        patience: said.patience,
        pin: said.pin,
        read_as: head.endpoint.dialect,
        previous: None,
        rewrite: false,
        home: head.home,
        strict: said.strict,
        wishes: None,
        held,
        headers: map,
        body,
        endpoint: head.endpoint,
    });
    find_model(&mut ask, &generation.settings)?;
    headers::filter_request_headers(&mut ask.headers);
    Ok(ask)
}

struct Limits {
    body: u64,
    held: u64,
    idle: Duration,
}

fn limits(generation: &Generation) -> Limits {
    let settings = &generation.settings;
    Limits {
        body: settings.server.max_request_bytes,
        held: settings.server.max_buffered.unwrap_or(u64::MAX),
        idle: settings.timeouts.client_idle,
    }
}

async fn collect(
    mut body: Incoming,
    limits: &Limits,
    held: &mut Held,
) -> Result<Bytes, ProxyError> {
    if body.size_hint().lower() > limits.body {
        return Err(too_large(body.size_hint().lower(), limits.body));
    }
    let (mut first, mut rest): (Option<Bytes>, Option<BytesMut>) = (None, None);
    let mut total = 0_u64;
    loop {
        let frame = if body.is_end_stream() {
            None
        } else {
            timeout(limits.idle, body.frame()).await.map_err(|_| slow(limits.idle))?
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| {
            ProxyError::new(ProxyErrorKind::BadRequest, format!("the request body broke off: {e}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        total += data.len() as u64;
        if total > limits.body {
            return Err(too_large(total, limits.body));
        }
        if !held.grow(data.len() as u64, limits.held) {
            return Err(full(limits.held));
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

fn open(
    raw: Bytes,
    headers: &mut HeaderMap,
    limits: &Limits,
    held: &mut Held,
) -> Result<(Bytes, Option<(Bytes, HeaderValue)>), ProxyError> {
    let refused = |headers: &HeaderMap, error: DecodeError| {
        let name =
            headers.get(header::CONTENT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or("?");
        let name = clean::clean(name);
        match error {
            DecodeError::TooLarge => too_large(limits.body + 1, limits.body),
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
    let most = usize::try_from(limits.body).unwrap_or(usize::MAX);
    let opened = decode::decode_all(found, &raw, most).map_err(|e| refused(headers, e))?;
    let Some(coding) = headers.remove(header::CONTENT_ENCODING) else { return Ok((opened, None)) };
    if !held.grow(opened.len() as u64, limits.held) {
        return Err(full(limits.held));
    }
    let keep = raw.len() <= KEEP_CODED;
    Ok((opened, keep.then_some((raw, coding))))
}

fn find_model(ask: &mut Ask, settings: &Settings) -> Result<(), ProxyError> {
    if let StreamPlace::Yes(framing) = ask.endpoint.stream {
        (ask.stream, ask.framing) = (true, framing);
    } else if ask.endpoint.dialect == Dialect::Ollama {
        ask.framing = Framing::Ndjson;
    }
    let content_type =
        ask.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match &ask.endpoint.model {
        ModelPlace::Upstream(name) => {
            ask.asked = Arc::from(clean::truncate_end(&clean::clean(name), MODEL_NAME).as_ref());
            return Ok(());
        }
        ModelPlace::Path(model) => {
            check_name(model)?;
            ask.asked = Arc::from(model.as_str());
        }
        ModelPlace::Body if starts_with_ignoring_case(content_type, "multipart/form-data") => {
            let span = form::boundary(content_type)
                .and_then(|boundary| form::field(&ask.body, boundary, "model"));
            let name = span
                .clone()
                .and_then(|span| std::str::from_utf8(&ask.body[span]).ok())
                .ok_or_else(no_model)?;
            check_name(name)?;
            ask.asked = Arc::from(name);
            (ask.model_span, ask.form) = (span, true);
            return Ok(());
        }
        ModelPlace::Body => {}
    }
    json_type(ask.endpoint.dialect, ask.endpoint.op, content_type)?;
    let body = ask.body.clone();
    let scan = splice::scan(&body).map_err(|e| {
        let error = ProxyError::new(ProxyErrorKind::BadRequest, e.message()).code("invalid_json");
        match e.field() {
            Some(field) => ProxyError { code: None, ..error }.param(field),
            None => error,
        }
    })?;
    if scan.has_routing_preferences
        && ask.wishes.is_none()
        && matches!(ask.endpoint.op, Op::Chat | Op::Completions | Op::Embed)
    {
        let known = |name: &str| {
            settings.upstreams.iter().any(|upstream| upstream.name.eq_ignore_ascii_case(name))
        };
        if let Some((wishes, rest)) = wishes::take(&body, &known)? {
            (ask.wishes, ask.body, ask.coded) = (Some(Box::new(wishes)), rest, None);
            return find_model(ask, settings);
        }
    }
    if ask.endpoint.model == ModelPlace::Body {
        let found = scan.model.as_ref().ok_or_else(no_model)?;
        check_name(&found.text)?;
        ask.asked = Arc::from(found.text.as_ref());
        ask.model_span = Some(found.span.clone());
    }
    if let StreamPlace::Body { default } = ask.endpoint.stream {
        ask.add_stream =
            scan.stream.is_none() && !default && wants_events(&ask.headers, ask.endpoint.op);
        ask.stream = scan.stream.unwrap_or(default || ask.add_stream);
    }
    ask.read_as = read_as(&ask.endpoint, &scan, &body);
    ask.rewrite = holds_ours(ask.endpoint.dialect, &body);
    ask.previous = scan
        .previous_response_id
        .as_deref()
        .filter(|_| ask.endpoint.dialect == Dialect::Responses)
        .map(Box::from);
    ask.include_usage = scan.include_usage.unwrap_or(false);
    ask.stream_options = scan.stream_options.clone();
    ask.object_end = Some((scan.closing_brace, scan.is_empty));
    ask.estimate = (body.len() / 4) as u64;
    ask.max_tokens = scan.max_tokens;
    ask.tier = scan.service_tier.as_deref().filter(|tier| tier.len() <= TIER).map(Box::from);
    if ask.session.is_none() {
        ask.session = scan
            .session
            .as_deref()
            .map(|s| Arc::from(clean::truncate_end(&clean::clean(s), 128).as_ref()));
    }
    Ok(())
}

/// Whose request a body is: chat clients also send what looks like Anthropic's or Gemini's.
fn read_as(endpoint: &Endpoint, scan: &splice::RequestScan<'_>, body: &[u8]) -> Dialect {
    if endpoint.dialect != Dialect::Openai || endpoint.op != Op::Chat {
        return endpoint.dialect;
    }
    let has = |key: &[u8]| memchr::memmem::find(body, key).is_some();
    match scan {
        splice::RequestScan { has_messages: false, has_contents: true, .. } => Dialect::Gemini,
        splice::RequestScan { has_messages: true, has_system: true, .. } => Dialect::Anthropic,
        splice::RequestScan { has_messages: true, has_tools: true, .. }
            if has(b"\"input_schema\"") && !has(b"\"parameters\"") =>
        {
            Dialect::Anthropic
        }
        _ => Dialect::Openai,
    }
}

/// Whether a body holds reasoning that we told in this dialect without its provider's proof, which
/// would refuse it.
fn holds_ours(dialect: Dialect, body: &[u8]) -> bool {
    let mark: &[u8] = match dialect {
        Dialect::Anthropic => b"\"aiproxy-unsigned",
        Dialect::Responses => b"\"rs_aip_",
        Dialect::Gemini | Dialect::Ollama | Dialect::Openai => return false,
    };
    memchr::memmem::find(body, mark).is_some()
}

/// Whether the client asks for an event stream by its `Accept` alone.
fn wants_events(headers: &HeaderMap, op: Op) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    matches!(op, Op::Chat | Op::Completions)
        && accept.split(',').any(|each| starts_with_ignoring_case(each.trim(), "text/event-stream"))
}

fn check_name(name: &str) -> Result<(), ProxyError> {
    let bad =
        |message: String| Err(ProxyError::new(ProxyErrorKind::BadRequest, message).param("model"));
    if name.is_empty() {
        return Err(no_model());
    }
    if name.len() > MODEL_NAME {
        return bad(format!(
            "the model name is {} characters long; {MODEL_NAME} are allowed",
            name.chars().count()
        ));
    }
    if *clean::clean(name) != *name {
        return bad(format!("the model name `{}` holds control characters", clean::clean(name)));
    }
    Ok(())
}

fn json_type(dialect: Dialect, op: Op, content_type: &str) -> Result<(), ProxyError> {
    let essence = content_type.split(';').next().unwrap_or("").trim();
    let json = essence.eq_ignore_ascii_case("application/json")
        || essence.to_ascii_lowercase().ends_with("+json");
    // Ollama takes what curl sends by default, and so do its clients rely on.
    if json || dialect == Dialect::Ollama || op == Op::Raw {
        return Ok(());
    }
    let got =
        if essence.is_empty() { "none".to_owned() } else { format!("`{}`", clean::clean(essence)) };
    Err(ProxyError::new(
        ProxyErrorKind::UnsupportedMedia,
        format!("expected content-type application/json, got {got}"),
    ))
}

fn no_model() -> ProxyError {
    ProxyError::new(
        ProxyErrorKind::BadRequest,
        "you must provide a model parameter; GET /v1/models lists the names",
    )
    .param("model")
}

fn too_large(size: u64, limit: u64) -> ProxyError {
    ProxyError::new(
        ProxyErrorKind::TooLarge,
        format!(
            "the request body has {size} bytes or more; {limit} are allowed (`max_request_bytes` under [server] in the config)"
        ),
    )
}

fn full(limit: u64) -> ProxyError {
    ProxyError::new(
        ProxyErrorKind::Overloaded,
        format!("request and answer bodies already hold the {limit} bytes that `max_buffered` under [server] allows; try again shortly"),
    )
    .retry_after(Some(Duration::from_secs(1)))
}

fn slow(idle: Duration) -> ProxyError {
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

/// What a client's headers say to us rather than to an upstream; of several of one name the first.
#[derive(Default)]
struct Said {
    session: Option<Arc<str>>,
    pin: Option<Arc<str>>,
    strict: bool,
    patience: Option<Duration>,
}

impl Said {
    /// One pass, as looking for each by its name costs more.
    fn of(headers: &HeaderMap) -> Self {
        let (mut session, mut pin, mut strict) = (None, None, None);
        // Timeouts as the headers of SDK families tell them, in the order in which they count.
        let mut waits = [None; 3];
        for (name, value) in headers {
            let place = match name.as_str() {
                "x-session-id" => &mut session,
                "x-aiproxy-upstream" => &mut pin,
                "x-aiproxy-strict" => &mut strict,
                "x-stainless-read-timeout" => &mut waits[0],
                "x-stainless-timeout" => &mut waits[1],
                "x-server-timeout" => &mut waits[2],
                _ => continue,
            };
            *place = place.or(Some(value));
        }
        fn text(value: &HeaderValue) -> Option<&str> {
            value.to_str().ok()
        }
        let (session, pin) = (session.and_then(text), pin.and_then(text));
        Self {
            session: session
                .map(|s| Arc::from(clean::truncate_end(&clean::clean(s), 128).as_ref())),
            pin: pin.map(Arc::from),
            strict: strict.is_some_and(|v| matches!(v.as_bytes(), b"1" | b"true")),
            patience: waits.into_iter().flatten().next().and_then(text).and_then(patience),
        }
    }
}

/// How long the client's SDK says it waits: its read timeout in seconds.
fn patience(seconds: &str) -> Option<Duration> {
    let seconds: f64 = seconds.parse().ok()?;
    (seconds.is_finite() && seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(86_400.0)))
}
