//! Reads a request once, with bounds and without a full parse, into a `ProxyRequest`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use hyper::body::Incoming;

use crate::relay::{
    engine::{Engine, Generation},
    request::{
        body::{RequestLimits, buffer_full, decode_body, read_body, request_limits},
        control_headers::ControlHeaders,
        fields::scan_fields,
        proxy_request::{Caller, Endpoint, ProxyRequest, empty_str},
    },
    state::permits::BufferReservation,
};
use crate::{
    base::{
        clock::{Mono, UnixMillis},
        id::RequestId,
    },
    config::settings::{KeyId, UpstreamId},
    dialect::Framing,
    ir::fault::ProxyError,
    upstream::headers,
};

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

/// A request, and what its body takes of the memory for bodies.
pub struct ReceivedRequest {
    pub request: Box<ProxyRequest>,
    pub buffer_reservation: BufferReservation,
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
) -> Result<ReceivedRequest, ProxyError> {
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

/// Reads a body that did not come over HTTP. `replay_of` is the request that it repeats.
///
/// # Errors
///
/// As [`read_request`].
pub(in crate::relay) fn from_bytes(
    engine: &Engine,
    generation: &Generation,
    head: RequestHead,
    body: Bytes,
    replay_of: Option<RequestId>,
) -> Result<ReceivedRequest, ProxyError> {
    let (at, received) = (engine.clock.unix(), engine.clock.mono());
    let limits = request_limits(generation);
    let mut reservation = BufferReservation::empty(&engine.buffered_bytes);
    if !reservation.try_grow(body.len() as u64, limits.buffer_limit) {
        return Err(buffer_full(limits.buffer_limit));
    }
    parse_request(
        UnparsedBody { at, received, raw: body, replay_of },
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
    mut buffer_reservation: BufferReservation,
) -> Result<ReceivedRequest, ProxyError> {
    let UnparsedBody { at, received, raw, replay_of } = arrived;
    let mut map = head.headers;
    let (body, coded) = decode_body(raw, &mut map, limits, &mut buffer_reservation)?;

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
        requested_model: Arc::clone(empty_str()),
        stream: false,
        add_stream: false,
        framing: Framing::Sse,
        include_usage: false,
        stream_options: None,
        object_end: None,
        session: control.session,
        user: None,
        records_caller: generation.settings.ledger.callers,
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
        headers: map,
        body,
        endpoint: head.endpoint,
    });
    scan_fields(&mut request, &generation.settings)?;
    headers::filter_request_headers(&mut request.headers);
    Ok(ReceivedRequest { request, buffer_reservation })
}
