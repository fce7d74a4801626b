//! The way of one request through the relay: read, decided, answered.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    answer::{Committed, Opaque, Whole, Won},
    ask::Ask,
    engine::{Engine, Generation, Place},
    intake::{self, Head},
    late::{Late, Rounds},
    ourselves,
    pump::{Forward, PING, Pump},
    reply::{self, ReplyBody},
    rounds::{self, Job},
    tally::Tally,
    translated,
};
use crate::{
    dialect::{Framing, registry},
    events::record::RequestState,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Op,
    },
    routing::{ending::AttemptEnd, names::ModelOverrides},
};

/// Marks a count that no provider made.
const ESTIMATED: HeaderName = HeaderName::from_static("x-aiproxy-estimated");

/// Serves one request whose caller was let in.
pub async fn serve(engine: &Arc<Engine>, head: Head, body: Incoming) -> Response<ReplyBody> {
    let (dialect, id) = (head.endpoint.dialect, head.id);
    let generation = engine.generation();
    let Some(place) = Place::take(engine, generation.settings.server.max_requests) else {
        let message = format!(
            "too many requests in flight ({}, `max_requests` under [server])",
            generation.settings.server.max_requests
        );
        return reply::error(
            dialect,
            id,
            &ProxyError::new(ProxyErrorKind::Overloaded, message)
                .retry_after(Some(std::time::Duration::from_secs(1))),
        );
    };
    let ask = match intake::read(engine, &generation, head, body).await {
        Ok(ask) => ask,
        Err(error) => {
            tracing::debug!(request = %id, error = %error.message, "request refused");
            return reply::error(dialect, id, &error);
        }
    };
    begin(engine, generation, ask, place).await
}

/// Answers a request that was read, whether it came over a socket or is one from before, sent
/// again.
pub(super) async fn begin(
    engine: &Arc<Engine>,
    generation: Arc<Generation>,
    ask: Box<Ask>,
    place: Place,
) -> Response<ReplyBody> {
    let (dialect, id) = (ask.endpoint.dialect, ask.id);
    let tally = Tally::open(engine, &ask);
    let halt = engine.halts.enter(id);
    let waits_for_content = ask.stream && matches!(ask.endpoint.op, Op::Chat | Op::Completions);
    let framing = ask.framing;
    let ingress = registry::ingress(dialect);
    let job = Box::new(Job {
        engine: Arc::clone(engine),
        generation,
        ask,
        ingress,
        tally,
        halt,
        overrides: ModelOverrides::default(),
        hide_usage: false,
        said: None,
        unspoken: false,
        losses: Vec::new(),
        carry: None,
        spares: None,
        continues: false,
        chosen: None,
        place,
    });
    if let Some(line) = ourselves::loaded(&job) {
        let kind = if job.ask.stream { "application/x-ndjson" } else { "application/json" };
        let mut response = own(job, line);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().remove(ESTIMATED);
        return response;
    }
    // Boxed, as it is large and over when the answer begins, while the room of this future is kept
    // as long as the client's connection.
    let mut rounds: Rounds = Box::pin(rounds::run(job));
    if !waits_for_content {
        let (mut job, result) = rounds.await;
        return match result {
            Err(error) => match Box::pin(ourselves::instead(&mut job, error)).await {
                Ok(body) => own(job, body),
                Err(error) => answer(job, Err(error)),
            },
            result => answer(job, result),
        };
    }
    match timeout(PING, &mut rounds).await {
        Ok((job, result)) => answer(job, result),
        Err(_) => {
            let mut response =
                Response::new(ReplyBody::Late(Box::new(Late::new(ingress, framing, rounds))));
            let headers = response.headers_mut();
            let content_type = match framing {
                Framing::Sse => "text/event-stream",
                Framing::Ndjson => "application/x-ndjson",
                Framing::JsonArray => "application/json",
            };
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            reply::stamp(headers, id);
            response
        }
    }
}

fn answer(mut job: Box<Job>, result: Result<Won, ProxyError>) -> Response<ReplyBody> {
    match result {
        Ok(Won::Whole(whole)) => {
            let Whole { status, headers, body, summary, mut guard } = *whole;
            let ttft = job.tally.attempt_age();
            job.tally.first_content(status.as_u16());
            job.tally.sent(&body, 0);
            translated::learn(&job, None, &body);
            guard.close(AttemptEnd::Finished { ttft: Some(ttft), usage: summary.usage });
            job.tally.end(RequestState::Done, Some(&summary), None);
            respond(&job, status, headers, ReplyBody::Whole(Some(body)))
        }
        Ok(Won::Stream(committed)) => {
            let mut committed: Committed = *committed;
            let (status, headers) = (committed.status, std::mem::take(&mut committed.headers));
            let mut response = respond(&job, status, headers, ReplyBody::Whole(None));
            *response.body_mut() = ReplyBody::Pump(Box::new(Pump::new(job, committed)));
            response
        }
        Ok(Won::Opaque(opaque)) => {
            let mut opaque: Opaque = *opaque;
            let (status, headers) = (opaque.status, std::mem::take(&mut opaque.headers));
            let mut response = respond(&job, status, headers, ReplyBody::Whole(None));
            *response.body_mut() = ReplyBody::Forward(Box::new(Forward::new(job, opaque)));
            response
        }
        Err(error) => {
            let mut response = reply::error(job.ask.endpoint.dialect, job.ask.id, &error);
            reply::mark(response.headers_mut(), &job);
            job.tally.answered(response.headers());
            job.tally.set_status(response.status().as_u16());
            if let ReplyBody::Whole(Some(body)) = response.body() {
                job.tally.told(body);
            }
            job.tally.end(RequestState::Failed, None, Some(&error.message));
            response
        }
    }
}

/// An answer of ours, where no upstream could give one.
fn own(mut job: Box<Job>, body: Bytes) -> Response<ReplyBody> {
    job.losses.clear();
    let mut response = reply::whole(StatusCode::OK, "application/json", job.ask.id, body);
    reply::mark(response.headers_mut(), &job);
    if job.ask.endpoint.op != Op::ModelCard {
        response.headers_mut().insert(ESTIMATED, HeaderValue::from_static("input-tokens"));
    }
    job.tally.set_status(200);
    job.tally.end(RequestState::Done, None, None);
    response
}

fn respond(
    job: &Job,
    status: StatusCode,
    headers: HeaderMap,
    body: ReplyBody,
) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    reply::mark(response.headers_mut(), job);
    job.tally.answered(response.headers());
    response
}
