//! Sends an attempt's request and reads the head of the response, or its error.

use std::{borrow::Cow, pin::pin};

use http::{StatusCode, header};

use crate::relay::{
    attempt::{
        build_request::build_request, classify::AttemptError, deadlines::AttemptDeadlines,
        read_body, repair, result::FailureSource, translate,
    },
    context::RequestContext,
    heavy_work,
};
use crate::{
    config::base_url,
    dialect::registry,
    ir::{
        fault::{TransportFault, TransportKind},
        reason::failure::FailureReason,
    },
    routing::candidate::{Candidate, Target},
    upstream::{
        client::{UpstreamRequest, UpstreamResponse},
        retry_headers,
    },
};

/// A stale pooled connection is replaced at most this often before it counts as a fault.
const MAX_STALE_RETRIES: u32 = 3;

/// Sends the request; returns the head of any response.
pub(super) async fn send_request(
    context: &mut RequestContext,
    candidate: &Candidate,
    target: &Target,
    deadlines: &AttemptDeadlines,
) -> Result<UpstreamResponse, AttemptError> {
    let Some(end) = target.upstream.endpoint(target.dialect) else {
        let message =
            format!("upstream {} does not speak {}", target.upstream.name, target.dialect);
        return Err(TransportFault {
            kind: TransportKind::Connect,
            reason: FailureReason::text(message).into(),
            may_be_received: false,
        }
        .into());
    };
    let mut stale = 0;
    loop {
        // Built again for each sending. Resending is rare, and a copy for every first sending would
        // cost every request.
        context.attempt_context = None;
        context.losses.clear();
        let prepared = if translate::is_needed(&context.request, target) {
            let size = context.request.body.len();
            let place = heavy_work::place_for(size).await;
            let written = heavy_work::run(size, || translate::build_request(context, target));
            drop(place);
            written.unwrap_or_else(|| build_request(&context.request, target))
        } else {
            build_request(&context.request, target)
        };
        let body = repair::repair_learned(context, target, prepared.body);
        context.hide_usage = prepared.hide_usage;
        let mut end = Cow::Borrowed(end);
        if prepared.from_origin {
            let host = base_url::origin_of(&end.base_url).to_owned();
            end.to_mut().base_url = host;
        }
        let call = UpstreamRequest {
            upstream: &target.upstream,
            endpoint: &end,
            key: (!target.upstream.keys.is_empty()).then_some(candidate.key),
            method: context.request.method.clone(),
            path: &prepared.path,
            query: prepared.query.as_deref(),
            headers: prepared.headers,
            body,
        };
        match read_body::timeout_with_grace(
            deadlines.first_byte_deadline,
            pin!(context.engine.upstream_client.send(call)),
        )
        .await
        {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(fault)) if fault.kind == TransportKind::Stale && stale < MAX_STALE_RETRIES => {
                stale += 1;
            }
            Some(Err(fault)) => return Err(fault.into()),
            None => return Err(deadlines.no_answer_fault(context.request.stream).into()),
        }
    }
}

/// Reads an error response.
pub(super) async fn read_error_response(
    context: &RequestContext,
    target: &Target,
    answer: UpstreamResponse,
) -> AttemptError {
    let status = answer.status.as_u16();
    let hints = retry_headers::read_retry_hints(
        answer.status,
        &answer.headers,
        context.engine.clock.unix(),
    );
    let content_type = answer
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("")
        .to_owned();
    let body = read_body::read_error_body(answer.body).await;
    let fault = registry::egress(target.dialect).read_error(status, &content_type, &body);
    AttemptError {
        source: FailureSource::Upstream { fault, body: Some(body) },
        hints: Box::new(hints),
    }
}

/// Returns whether a raw request gets the upstream's own response. Statuses about aiproxy's key or
/// its limits are not forwarded.
pub(super) fn forwards_status(status: StatusCode) -> bool {
    !matches!(status.as_u16(), 401 | 402 | 429) && !status.is_server_error()
}
