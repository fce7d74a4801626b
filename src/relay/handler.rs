//! Handles one request: reads it, dispatches it and answers it.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::relay::{
    attempt::{
        result::{AttemptResponse, FullResponse, RawResponse, StreamResponse},
        translate,
    },
    context::{ActiveRequest, RequestContext},
    dispatch::{self, local_answer},
    engine::{Engine, Generation},
    record::recorder::RequestRecorder,
    request::{
        read::{self, ReceivedRequest, RequestHead},
        replay::{self, Replay},
    },
    response::{
        self, ResponseBody,
        keepalive::{KeepAliveBody, ResponseFuture},
        raw::RawBody,
        stream::{PING_AFTER, StreamBody},
    },
    state::{
        in_flight::{self, InFlightPermit, NoPlace},
        permits,
        reasoning_cache::TurnsHash,
    },
};
use crate::{
    base::id::RequestId,
    config::settings::Project,
    dialect::{Framing, registry},
    events::record::RequestState,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Op,
    },
    routing::{health::record::AttemptEnd, name_resolver::ModelOverrides},
};

/// Marks a token count that is an estimate, not a provider's.
const ESTIMATED_HEADER: HeaderName = HeaderName::from_static("x-aiproxy-estimated");

/// Serves one request of an admitted caller.
pub async fn serve(
    engine: &Arc<Engine>,
    head: RequestHead,
    body: Incoming,
) -> Response<ResponseBody> {
    let (dialect, id) = (head.endpoint.dialect, head.id);
    let generation = engine.generation();
    let permit = match take_place(engine, &generation, &head.caller.project) {
        Ok(permit) => permit,
        Err(message) => {
            return response::error_response(dialect, id, &no_place(message));
        }
    };
    let received = match read::read_request(engine, &generation, head, body).await {
        Ok(received) => received,
        Err(error) => {
            tracing::debug!(request = %id, error = %error.message, "request refused");
            return response::error_response(dialect, id, &error);
        }
    };
    start(engine, generation, received, permit).await
}

/// Serves a request whose body did not come over HTTP.
pub async fn serve_bytes(
    engine: &Arc<Engine>,
    head: RequestHead,
    body: Bytes,
) -> Response<ResponseBody> {
    let (dialect, id) = (head.endpoint.dialect, head.id);
    let generation = engine.generation();
    let refuse = |error: ProxyError| response::error_response(dialect, id, &error);
    let permit = match take_place(engine, &generation, &head.caller.project) {
        Ok(permit) => permit,
        Err(message) => return refuse(no_place(message)),
    };
    match read::from_bytes(engine, &generation, head, body, None) {
        Ok(received) => start(engine, generation, received, permit).await,
        Err(error) => refuse(error),
    }
}

fn no_place(message: String) -> ProxyError {
    ProxyError::new(ProxyErrorKind::Overloaded, message).retry_after(Some(Duration::from_secs(1)))
}

/// Takes a place among the requests in flight.
fn take_place(
    engine: &Engine,
    generation: &Generation,
    project: &Project,
) -> Result<InFlightPermit, String> {
    let server = &generation.settings.server;
    let max = in_flight::max_in_flight(server.max_requests, server.max_connections);
    engine.in_flight.try_acquire(&project.name, max).map_err(|problem| match problem {
        NoPlace::Full => {
            format!("too many requests in flight ({max}, `max_requests` under [server])")
        }
        NoPlace::ShareTaken => format!(
            "project `{}` has its share of the requests in flight, and the rest of {max} \
             (`max_requests` under [server]) is left for other projects",
            project.name
        ),
    })
}

/// Answers a parsed request, which came over a socket or is a replay of an earlier one.
async fn start(
    engine: &Arc<Engine>,
    generation: Arc<Generation>,
    received: ReceivedRequest,
    permit: InFlightPermit,
) -> Response<ResponseBody> {
    let ReceivedRequest { request, buffer_reservation } = received;
    let (dialect, id) = (request.endpoint.dialect, request.id);
    let recorder = RequestRecorder::open(engine, &request);
    let cancel = engine.cancellations.register(id);
    let waits_for_content =
        request.stream && matches!(request.endpoint.op, Op::Chat | Op::Completions);
    let framing = request.framing;
    let ingress = registry::ingress(dialect);
    let context = RequestContext {
        refusal: None,
        engine: Arc::clone(engine),
        generation,
        request,
        buffer_reservation,
        ingress,
        overrides: ModelOverrides::default(),
        hide_usage: false,
        parsed: None,
        turns_hash: TurnsHash::default(),
        no_upstream_dialect: false,
        losses: Vec::new(),
        attempt_context: None,
        rescue_targets: None,
        is_continuation: false,
        attempt_target: None,
    };
    let active = Box::new(ActiveRequest { context, recorder, cancel, permit });
    if let Some(preload_body) = local_answer::preload_response(&active.context) {
        let kind =
            if active.context.request.stream { "application/x-ndjson" } else { "application/json" };
        let mut response = local_response(active, preload_body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().remove(ESTIMATED_HEADER);
        return response;
    }
    // Boxed because it is large and finished when the response starts, while the memory of this
    // future lives as long as the client's connection.
    let mut future: ResponseFuture = Box::pin(dispatch::dispatch_cancellable(active));
    if !waits_for_content {
        let (mut active, result) = future.await;
        return match result {
            Err(error) if local_answer::can_be_translated(&active.context, &error) => {
                active.context.request.must_rewrite = true;
                let (active, result) = Box::pin(dispatch::dispatch_cancellable(active)).await;
                into_response(active, result)
            }
            Err(error) => {
                match Box::pin(local_answer::fallback(&mut active.context, error)).await {
                    Ok(body) => local_response(active, body),
                    Err(error) => into_response(active, Err(error)),
                }
            }
            result => into_response(active, result),
        };
    }
    match timeout(PING_AFTER, &mut future).await {
        Ok((active, result)) => into_response(active, result),
        Err(_) => {
            let mut response = Response::new(ResponseBody::KeepAlive(Box::new(
                KeepAliveBody::new(ingress, framing, future),
            )));
            let headers = response.headers_mut();
            let content_type = match framing {
                Framing::Sse => "text/event-stream",
                Framing::Ndjson => "application/x-ndjson",
                Framing::JsonArray => "application/json",
            };
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            response::set_unbuffered(headers);
            response::set_request_id(headers, id);
            response
        }
    }
}

fn into_response(
    mut active: Box<ActiveRequest>,
    result: Result<AttemptResponse, ProxyError>,
) -> Response<ResponseBody> {
    match result {
        Ok(AttemptResponse::Full(full)) => {
            let FullResponse { status, headers, body, summary, mut guard } = *full;
            let ttft = active.recorder.attempt_age();
            active.recorder.record_first_content(status.as_u16());
            active.recorder.record_bytes(&body, 0);
            translate::remember_upstream_response(&active.context, None, &body);
            guard.finish(AttemptEnd::Finished { ttft: Some(ttft), usage: summary.usage });
            active.recorder.finish(RequestState::Done, Some(&summary), None);
            let body = permits::hold_body(body, &mut active.context.buffer_reservation);
            build_response(&active, status, headers, ResponseBody::Full(Some(body)))
        }
        Ok(AttemptResponse::Stream(committed)) => {
            let mut committed: StreamResponse = *committed;
            let (status, mut headers) = (committed.status, std::mem::take(&mut committed.headers));
            response::set_unbuffered(&mut headers);
            let mut response = build_response(&active, status, headers, ResponseBody::Full(None));
            *response.body_mut() =
                ResponseBody::Stream(Box::new(StreamBody::new(active, committed)));
            response
        }
        Ok(AttemptResponse::Raw(opaque)) => {
            let mut opaque: RawResponse = *opaque;
            let (status, mut headers) = (opaque.status, std::mem::take(&mut opaque.headers));
            response::set_unbuffered(&mut headers);
            let mut response = build_response(&active, status, headers, ResponseBody::Full(None));
            *response.body_mut() = ResponseBody::Raw(Box::new(RawBody::new(active, opaque)));
            response
        }
        Err(error) => {
            let mut response = response::error_response(
                active.context.request.endpoint.dialect,
                active.context.request.id,
                &error,
            );
            response::set_proxy_headers(response.headers_mut(), &active);
            active.recorder.record_headers(response.headers());
            active.recorder.set_status(response.status().as_u16());
            if let ResponseBody::Full(Some(body)) = response.body() {
                active.recorder.record_local_bytes(body);
            }
            active.recorder.finish(RequestState::Failed, None, Some(&error.message));
            response
        }
    }
}

/// Builds the response for a local answer, when no upstream could give one.
fn local_response(mut active: Box<ActiveRequest>, body: Bytes) -> Response<ResponseBody> {
    active.context.losses.clear();
    let mut response = response::full_response(
        StatusCode::OK,
        "application/json",
        active.context.request.id,
        body,
    );
    response::set_proxy_headers(response.headers_mut(), &active);
    if active.context.request.endpoint.op != Op::ModelCard {
        response.headers_mut().insert(ESTIMATED_HEADER, HeaderValue::from_static("input-tokens"));
    }
    active.recorder.set_status(200);
    active.recorder.finish(RequestState::Done, None, None);
    response
}

fn build_response(
    active: &ActiveRequest,
    status: StatusCode,
    headers: HeaderMap,
    body: ResponseBody,
) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response::set_proxy_headers(response.headers_mut(), active);
    active.recorder.record_headers(response.headers());
    response
}

/// A replay that is ready; polling `run` sends it and runs it to its end.
pub struct PendingReplay {
    pub id: RequestId,
    pub run: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Reads the request again. Only the ledger and viewers receive its response.
///
/// # Errors
///
/// Too many requests in flight, or a body that cannot be read.
pub fn prepare_replay(engine: &Arc<Engine>, replay: Replay) -> Result<PendingReplay, String> {
    let generation = engine.generation();
    let received = replay::read_replay(engine, &generation, replay)?;
    let id = received.request.id;
    let permit = take_place(engine, &generation, &received.request.caller.project)?;
    let engine = Arc::clone(engine);
    let run = Box::pin(async move {
        let mut answer = start(&engine, generation, received, permit).await.into_body();
        while let Some(Ok(_)) = answer.frame().await {}
    });
    Ok(PendingReplay { id, run })
}
