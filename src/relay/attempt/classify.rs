//! Classifies a failed attempt: how it counts, and whether the same candidate may recover.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use crate::relay::{
    attempt::result::{AttemptFailure, FailureSource},
    context::RequestContext,
    record::attempt_guard::record_unreachable,
};
use crate::{
    config::settings::Upstream,
    ir::{
        fault::{Fault, FaultKind, TransportFault, TransportKind},
        op::Op,
        reason::failure::FailureReason,
    },
    routing::{candidate::Candidate, outcome},
    upstream::retry_headers::RetryHints,
};

/// The error of an attempt, with what the response headers say about another one.
pub(super) struct AttemptError {
    pub(super) source: FailureSource,
    /// Boxed, because the error passes through many results.
    pub(super) hints: Box<RetryHints>,
}

impl From<TransportFault> for AttemptError {
    fn from(fault: TransportFault) -> Self {
        Self { source: FailureSource::Transport(fault), hints: Box::default() }
    }
}

impl From<Fault> for AttemptError {
    fn from(fault: Fault) -> Self {
        Self { source: FailureSource::Upstream { fault, body: None }, hints: Box::default() }
    }
}

impl From<Fault> for Box<AttemptError> {
    fn from(fault: Fault) -> Self {
        Self::new(fault.into())
    }
}

impl From<TransportFault> for Box<AttemptError> {
    fn from(fault: TransportFault) -> Self {
        Self::new(fault.into())
    }
}

/// Returns how a failed attempt counts, and what the client gets if no other attempt wins.
pub(super) fn classify_failure(
    context: &RequestContext,
    candidate: &Candidate,
    failed: AttemptError,
) -> AttemptFailure {
    match failed.source {
        FailureSource::Upstream { fault, body } => {
            classify_upstream_error(context, candidate, fault, body, &failed.hints)
        }
        FailureSource::Transport(fault) => {
            classify_transport_fault(context, &candidate.target.upstream, fault)
        }
    }
}

fn classify_upstream_error(
    context: &RequestContext,
    candidate: &Candidate,
    mut fault: Fault,
    body: Option<Bytes>,
    hints: &RetryHints,
) -> AttemptFailure {
    let upstream = &candidate.target.upstream;
    let hint = hints.retry_after.filter(|hint| !hint.is_zero());
    let rule = match &upstream.rules[..] {
        [] => None,
        rules => {
            let text = body
                .as_deref()
                .map(String::from_utf8_lossy)
                .unwrap_or_else(|| Cow::Borrowed(&*fault.message));
            outcome::find_rule(rules, fault.status, &text)
        }
    };
    if let Some(rule) = rule {
        let outcome = outcome::classify_by_rule(rule, &mut fault, hint);
        let may_recover = outcome.retry != outcome::Retry::No;
        let source = FailureSource::Upstream { fault, body };
        return AttemptFailure { outcome, source, may_recover };
    }
    let retryable = is_retryable_status(context, upstream, fault.status);
    let mut outcome = outcome::classify_fault(&fault, hint, retryable);
    outcome::apply_should_retry(&mut outcome, fault.kind, hints.should_retry);
    if fault.kind == FaultKind::RateLimited
        && matches!(*outcome.cause, FailureReason::Refused { code: None, .. })
    {
        outcome.cause = FailureReason::Refused {
            status: fault.status,
            code: None,
            model: Some(Arc::clone(&candidate.target.model)),
        }
        .into();
    }
    let may_recover = matches!(
        fault.kind,
        FaultKind::RateLimited
            | FaultKind::AccountLimited
            | FaultKind::Transient
            | FaultKind::Server
            | FaultKind::Conflict
    ) && hints.should_retry != Some(false);
    AttemptFailure { outcome, source: FailureSource::Upstream { fault, body }, may_recover }
}

fn classify_transport_fault(
    context: &RequestContext,
    upstream: &Upstream,
    fault: TransportFault,
) -> AttemptFailure {
    let mut outcome = outcome::classify_transport(&fault);
    if record_unreachable(&context.engine, upstream, &fault) {
        outcome = outcome::classify_transport(&TransportFault {
            kind: TransportKind::NetworkDown,
            ..fault.clone()
        });
    }
    if context.request.stream {
        outcome.maybe_billed = false;
    }
    if context.request.endpoint.op == Op::Raw && fault.may_be_received {
        // The upstream may have created a file or a batch already, so never send this twice.
        outcome.retry = outcome::Retry::No;
    }
    let may_recover = !matches!(fault.kind, TransportKind::TooLarge | TransportKind::Tls);
    AttemptFailure { outcome, source: FailureSource::Transport(fault), may_recover }
}

fn is_retryable_status(context: &RequestContext, upstream: &Upstream, status: u16) -> bool {
    let set =
        upstream.retry_statuses.as_ref().unwrap_or(&context.generation.settings.retry.statuses);
    set.contains(status) && context.request.endpoint.op != Op::Raw
}
