//! Builds the client's error when no upstream answers: the upstream's message if it concerns the
//! client, otherwise aiproxy's.

use std::{sync::Arc, time::Duration};

use crate::relay::{
    attempt::result::{AttemptFailure, FailureSource},
    context::{ActiveRequest, RequestContext},
    dispatch::{budget, explain::key_cooldown},
    state::cancellations::CancelReason,
};
use crate::{
    base::{clock::Mono, sanitize, units::print_span},
    config::settings::KeyId,
    ir::fault::{Fault, FaultKind, ProxyError, ProxyErrorKind, TransportFault, TransportKind},
    routing::{
        candidate::Candidate,
        decision::{Decision, ScopeKind, SkipReason},
        outcome::{Blame, CooldownClass},
    },
};

/// The newest failed attempt.
pub(in crate::relay) struct LastFailure {
    pub failure: AttemptFailure,
    pub key: KeyId,
    pub key_name: Arc<str>,
}

/// Returns the error when no attempt is left.
pub(in crate::relay) fn final_error(
    active: &ActiveRequest,
    (last, refusals): (Option<&LastFailure>, &[(CooldownClass, Blame)]),
    decision: &Decision,
    candidates: &[Candidate],
    retry_at: Option<Mono>,
) -> ProxyError {
    let now = active.context.engine.clock.mono();
    let is_missing = |reason: &SkipReason| matches!(reason, SkipReason::KeyMissing { .. });
    if decision.skipped.iter().any(|(_, reason)| is_missing(reason)) {
        active.context.engine.key_wanted.notify_one();
    }
    if last.is_none()
        && let Some(error) = budget::budget_error(decision, now)
    {
        return error;
    }
    // If other keys will be available again, the client gets that error rather than the last
    // refusal.
    let forbidden = |last: &LastFailure| matches!(&last.failure.source, FailureSource::Upstream { fault, .. } if fault.kind == FaultKind::Forbidden);
    let refusal = last.is_none_or(|last| {
        matches!(
            last.failure.outcome.cooldown,
            CooldownClass::Rejected | CooldownClass::RateLimited | CooldownClass::Quota
        ) && !forbidden(last)
    });
    if let Some(at) = retry_at.filter(|_| refusal) {
        return all_keys_cooling(
            &active.context,
            (last, refusals),
            decision,
            candidates,
            at.since(now),
            now,
        );
    }
    if last.is_some() {
        return last_attempt_error(active, last, candidates.len());
    }
    let elapsed = now.since(decision.at);
    let mut reasons: Vec<String> = Vec::new();
    for (index, reason) in decision.skipped.iter().take(6) {
        let name = candidates.get(*index).map_or("?", |c| &c.key_name);
        let hint = match reason {
            SkipReason::Disabled => format!("`aiproxy key enable {name}`"),
            SkipReason::Rejected { .. } => format!(
                "`aiproxy key add {name}` replaces it, `aiproxy key warm {name}` tries it again"
            ),
            _ => String::new(),
        };
        let hint = if hint.is_empty() { hint } else { format!(" ({hint})") };
        reasons.push(format!("{name}: {}{hint}", reason.after(elapsed)));
    }
    let message = if reasons.is_empty() {
        format!(
            "no upstream has a key for `{}`; add one with `aiproxy key add UPSTREAM`",
            active.context.request.requested_model
        )
    } else {
        format!(
            "no key can serve `{}`: {}",
            active.context.request.requested_model,
            reasons.join("; ")
        )
    };
    ProxyError::new(ProxyErrorKind::Unavailable, message)
        .code("no_available_key")
        .should_retry(false)
}

/// Returns the error after the last attempt: the upstream's message if it concerns the client,
/// otherwise aiproxy's.
fn last_attempt_error(
    active: &ActiveRequest,
    last: Option<&LastFailure>,
    candidates: usize,
) -> ProxyError {
    let Some(last) = last else {
        return ProxyError::new(
            ProxyErrorKind::Internal,
            "the request ended without a reason; please report this",
        );
    };
    match &last.failure.source {
        FailureSource::Transport(fault) => {
            transport_error(&active.context, fault, active.recorder.upstream())
        }
        FailureSource::Upstream { fault, .. } => {
            from_upstream_fault(active, fault, last, candidates)
        }
    }
}

fn from_upstream_fault(
    active: &ActiveRequest,
    fault: &Fault,
    last: &LastFailure,
    candidates: usize,
) -> ProxyError {
    let (upstream, key) = (active.recorder.upstream(), &last.key_name);
    let detail = active.context.engine.sanitize(&fault.message);
    let pass = |error: ProxyError| {
        let mut error = error;
        error.code = error.code.or_else(|| {
            fault.code.as_deref().map(|code| active.context.engine.sanitize(code).into())
        });
        error.param =
            fault.param.as_deref().map(|param| active.context.engine.sanitize(param).into());
        error
    };
    match fault.kind {
        FaultKind::KeyRejected => {
            let which = if candidates > 1 {
                format!("key {key} (and no other is left)")
            } else {
                format!("key {key}")
            };
            let message = format!(
                "the provider rejected {which}: {detail}; your aiproxy token is fine. `aiproxy key test {key}` checks it, `aiproxy key add {upstream}` adds another"
            );
            ProxyError::new(ProxyErrorKind::Upstream, message)
                .code("upstream_auth")
                .should_retry(false)
        }
        FaultKind::Quota => {
            ProxyError::new(ProxyErrorKind::OutOfCredit, format!("upstream {upstream}: {detail}"))
                .should_retry(false)
        }
        FaultKind::RateLimited | FaultKind::AccountLimited => {
            let wait = key_cooldown(
                &active.context.engine,
                last.key,
                active.recorder.model(),
                active.context.engine.clock.mono(),
            );
            pass(ProxyError::new(
                ProxyErrorKind::RateLimited,
                format!("upstream {upstream}: {detail}"),
            ))
            .retry_after(wait.or(fault.retry_after))
        }
        // A client would take a 407 for a response of its own proxy.
        FaultKind::BadRequest if fault.status == 407 => ProxyError::new(
            ProxyErrorKind::Upstream,
            format!("upstream {upstream} (407): {detail}"),
        )
        .should_retry(false),
        FaultKind::BadRequest | FaultKind::Forbidden | FaultKind::ModelNotFound => {
            pass(ProxyError::new(ProxyErrorKind::UpstreamError, detail).status(fault.status))
        }
        FaultKind::Conflict | FaultKind::Transient => pass(
            ProxyError::new(
                ProxyErrorKind::UpstreamError,
                format!("upstream {upstream}: {detail}"),
            )
            .status(fault.status),
        )
        .should_retry(false),
        FaultKind::CaptivePortal => {
            ProxyError::new(ProxyErrorKind::Upstream, format!("upstream {upstream}: {detail}"))
                .should_retry(false)
        }
        FaultKind::Server => {
            let error =
                ProxyError::new(ProxyErrorKind::Upstream, format!("upstream {upstream}: {detail}"))
                    .status(fault.status);
            pass(error).retry_after(last.failure.outcome.hint).should_retry(false)
        }
    }
}

/// Returns the error for a stream that its upstream ended with an error. It has the name that the
/// same error has before a stream.
pub(in crate::relay) fn stream_error(fault: &Fault, message: String) -> ProxyError {
    match fault.kind {
        FaultKind::Quota => ProxyError::new(ProxyErrorKind::OutOfCredit, message),
        FaultKind::RateLimited | FaultKind::AccountLimited => {
            ProxyError::new(ProxyErrorKind::RateLimited, message).status(fault.status)
        }
        _ => ProxyError::new(ProxyErrorKind::Upstream, message).status(fault.status),
    }
}

/// Words a transport fault for the client.
pub(in crate::relay) fn transport_error(
    context: &RequestContext,
    fault: &TransportFault,
    upstream: &str,
) -> ProxyError {
    let detail = context.engine.sanitize(&fault.reason.to_string());
    let message = format!("upstream {upstream}: {detail}");
    let kind = match fault.kind {
        TransportKind::FirstByteTimeout
        | TransportKind::IdleTimeout
        | TransportKind::TotalTimeout
        | TransportKind::ConnectTimeout => ProxyErrorKind::Timeout,
        TransportKind::NetworkDown => ProxyErrorKind::Upstream,
        _ => ProxyErrorKind::Upstream,
    };
    ProxyError::new(kind, message).should_retry(false)
}

/// Returns the error kind on which all refusals agree, if waiting a moment will not help: no
/// credit, no permission, no such model. Counts the refusals of this request and those that earlier
/// requests met.
pub(in crate::relay) fn unanimous_kind(
    refusals: &[(CooldownClass, Blame)],
    decision: &Decision,
) -> Option<ProxyErrorKind> {
    let kind = |class: CooldownClass, account: bool| match class {
        CooldownClass::Quota if account => Some(ProxyErrorKind::OutOfCredit),
        CooldownClass::Quota => Some(ProxyErrorKind::Forbidden),
        CooldownClass::ModelMissing => Some(ProxyErrorKind::ModelNotFound),
        CooldownClass::None
        | CooldownClass::RateLimited
        | CooldownClass::Rejected
        | CooldownClass::ServerError => None,
    };
    let mut all: Option<ProxyErrorKind> = None;
    let mut agree = |found: Option<ProxyErrorKind>| {
        let found = found?;
        (*all.get_or_insert(found) == found).then_some(())
    };
    // A key that was rejected, is missing or is disabled gives no evidence about the model or the
    // account.
    for (class, blame) in refusals.iter().filter(|(class, _)| *class != CooldownClass::Rejected) {
        agree(kind(*class, *blame == Blame::Account))?;
    }
    for (_, reason) in &decision.skipped {
        match reason {
            SkipReason::Cooling { class, scope, .. } => {
                agree(kind(*class, *scope == ScopeKind::Account))?;
            }
            SkipReason::Disabled
            | SkipReason::AlreadyFailed
            | SkipReason::KeyMissing { .. }
            | SkipReason::Rejected { .. } => {}
            _ => return None,
        }
    }
    all
}

/// The error lists at most this many reasons; `aiproxy route` lists all.
const MAX_REASONS: usize = 4;

/// Returns the error when every key is blocked for now: which keys, why, and when the first is
/// back.
fn all_keys_cooling(
    context: &RequestContext,
    (last, refusals): (Option<&LastFailure>, &[(CooldownClass, Blame)]),
    decision: &Decision,
    candidates: &[Candidate],
    wait: Duration,
    now: Mono,
) -> ProxyError {
    let (mut reasons, mut passing): (Vec<(String, Vec<&str>)>, bool) = (Vec::new(), false);
    for (index, reason) in decision
        .skipped
        .iter()
        .filter(|(_, reason)| !matches!(reason, SkipReason::LowerTier | SkipReason::NotPicked))
    {
        let Some(candidate) = candidates.get(*index) else { continue };
        passing |= matches!(
            reason,
            SkipReason::Cooling { .. } | SkipReason::AlreadyFailed | SkipReason::Probing
        );
        let text = match reason {
            SkipReason::AlreadyFailed => "just refused".to_owned(),
            other => other.after(now.since(decision.at)).to_string(),
        };
        match reasons.iter_mut().find(|(known, _)| *known == text) {
            Some((_, names)) => names.push(&candidate.key_name),
            None => reasons.push((text, vec![&candidate.key_name])),
        }
    }
    let more = reasons.len().saturating_sub(MAX_REASONS);
    let mut keys: Vec<String> = reasons
        .into_iter()
        .take(MAX_REASONS)
        .map(|(text, names)| format!("{}: {text}", names.join(", ")))
        .collect();
    if more > 0 {
        keys.push(format!("{more} more"));
    }
    let kind = unanimous_kind(refusals, decision).unwrap_or(ProxyErrorKind::RateLimited);
    let detail = last.map(|last| match &last.failure.source {
        FailureSource::Upstream { fault, .. } => {
            format!(" The provider said: {}", context.engine.sanitize(&fault.message))
        }
        FailureSource::Transport(_) => String::new(),
    });
    let model = sanitize::clean(&context.request.requested_model);
    let count = candidates.len();
    let (subject, next) = if count == 1 {
        (format!("the only key for `{model}` is"), "it is")
    } else {
        (format!("all {count} keys for `{model}` are"), "the next is")
    };
    let opening = match kind {
        ProxyErrorKind::Forbidden => format!("no key may use `{model}`; {next} tried again"),
        ProxyErrorKind::ModelNotFound => format!("no upstream has `{model}`; {next} asked again"),
        ProxyErrorKind::OutOfCredit => format!("{subject} out of credit; {next} tried again"),
        _ => format!("{subject} cooling down; {next} back"),
    };
    let message = format!(
        "{opening} in {} ({}).{}{}",
        print_span(wait),
        keys.join("; "),
        if passing { " `aiproxy key warm KEY` lifts a cooldown." } else { "" },
        detail.unwrap_or_default(),
    );
    let error = ProxyError::new(kind, message);
    let error = match kind {
        ProxyErrorKind::Forbidden | ProxyErrorKind::ModelNotFound => {
            return error.should_retry(false);
        }
        ProxyErrorKind::OutOfCredit => error.should_retry(false),
        _ => error,
    };
    let error = error.retry_after(Some(wait.max(Duration::from_secs(1))));
    if kind == ProxyErrorKind::RateLimited { error.code("no_available_key") } else { error }
}

/// Returns the client's error when its request is cancelled from outside.
#[must_use]
pub(in crate::relay) fn cancelled_error(cause: CancelReason) -> ProxyError {
    match cause {
        CancelReason::Killed => {
            ProxyError::new(ProxyErrorKind::Unavailable, cause.failure_reason().to_string())
                .code("killed")
                .should_retry(false)
        }
        CancelReason::Shutdown => {
            ProxyError::new(ProxyErrorKind::Overloaded, cause.failure_reason().to_string())
                .retry_after(Some(Duration::from_secs(2)))
        }
    }
}
