//! Runs one attempt at one candidate: sends it, reads as far as failover needs, classifies the
//! result.

mod body_names;
pub mod build_request;
mod classify;
pub mod collect_events;
mod deadlines;
pub mod encode;
pub mod first_content;
mod foreign_state;
pub mod other_ops;
pub mod ownership;
pub mod parse_request;
pub mod read_body;
mod read_response;
pub mod repair;
pub mod result;
mod send;
pub mod translate;

use std::sync::Arc;

use tokio::time::Instant;

use crate::relay::{
    attempt::{
        classify::{AttemptError, classify_failure},
        deadlines::AttemptDeadlines,
        read_response::{ReadResponse, UpstreamHead},
        result::{AttemptFailure, AttemptResponse},
    },
    context::RequestContext,
    heavy_work,
    record::attempt_guard::{self, AttemptGuard},
};
use crate::{
    ir::op::Op,
    routing::{
        candidate::{Candidate, Target},
        health::{attempt::AttemptTicket, record::AttemptEnd},
    },
    upstream::retry_headers,
};

/// Runs one attempt at one candidate.
pub(super) async fn attempt_candidate(
    context: &mut RequestContext,
    candidate: &Candidate,
    ticket: AttemptTicket,
    deadline: Instant,
) -> Result<AttemptResponse, AttemptFailure> {
    let mut guard = AttemptGuard::new(&context.engine, ticket);
    let target = Arc::clone(&candidate.target);
    let version = context.engine.learned.repairs.version();
    let mut result = run_attempt(context, candidate, &target, &guard, deadline).await;
    if let Err(error) = &result
        && let Some(prepared) = repair::prepare(context, &target, version, error)
    {
        context.refusal = Some(Box::new(repair::refusal(context, error, &prepared.repair)));
        result = run_attempt(context, candidate, &prepared.target, &guard, deadline).await;
        repair::conclude(context, prepared, result.as_ref().err());
    }
    match result {
        Ok(response) => Ok(response.with_guard(guard)),
        Err(error) => {
            let failure = classify_failure(context, candidate, error);
            guard.finish(AttemptEnd::Failed(&failure.outcome));
            Err(failure)
        }
    }
}

async fn run_attempt(
    context: &mut RequestContext,
    candidate: &Candidate,
    target: &Target,
    guard: &AttemptGuard,
    deadline: Instant,
) -> Result<ReadResponse, AttemptError> {
    let deadlines = AttemptDeadlines::new(context, target, deadline);
    let response = send::send_request(context, candidate, target, &deadlines).await?;
    attempt_guard::record_reachable(&context.engine, &target.upstream);
    let limits = retry_headers::read_rate_limits(&response.headers, context.engine.clock.unix());
    guard.record_rate_limits(&limits);
    let (status, op) = (response.status, context.request.endpoint.op);
    let is_forwarded = op == Op::Raw && send::forwards_status(status);
    if !status.is_success() && !is_forwarded {
        return Err(send::read_error_response(context, target, response).await);
    }
    guard.record(AttemptEnd::Head2xx);
    let mut head = UpstreamHead::new(response);
    if op == Op::Raw || head.is_media(op) {
        return Ok(head.into_raw(&deadlines));
    }
    let body = read_response::read_body(context, target, &mut head, &deadlines).await?;
    let size = body.len();
    let place = heavy_work::place_for(size).await;
    let interpreted =
        heavy_work::run(size, || read_response::interpret(context, target, head, body, &deadlines));
    drop(place);
    interpreted.map_err(|error| *error)
}
