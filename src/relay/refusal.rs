//! What the client is told where nobody answers: in the upstream's words where they are its
//! business, in ours where not.

use std::time::Duration;

use super::{
    answer::Said,
    budgets,
    engine::Engine,
    rounds::{Job, Last},
};
use crate::{
    base::{clean, clock::Mono},
    config::settings::KeyId,
    ir::fault::{Fault, FaultKind, ProxyError, ProxyErrorKind, TransportFault, TransportKind},
    routing::{
        candidate::{Candidate, Decision, ScopeKind, SkipReason, print_span},
        outcome::{Blame, CooldownClass},
    },
};

/// The error when no round is left.
pub(super) fn finally(
    job: &Job,
    (last, refusals): (Option<&Last>, &[(CooldownClass, Blame)]),
    decision: &Decision,
    candidates: &[Candidate],
    retry_at: Option<Mono>,
) -> ProxyError {
    let now = job.engine.clock.mono();
    if last.is_none()
        && let Some(error) = budgets::refusal(decision, now)
    {
        return error;
    }
    // Where other keys will be back, the client should hear of them rather than of the last
    // refusal.
    let forbidden = |last: &Last| matches!(&last.lost.said, Said::Fault { fault, .. } if fault.kind == FaultKind::Forbidden);
    let refusal = last.is_none_or(|last| {
        matches!(
            last.lost.outcome.cooldown,
            CooldownClass::Rejected | CooldownClass::RateLimited | CooldownClass::Quota
        ) && !forbidden(last)
    });
    if let Some(at) = retry_at.filter(|_| refusal) {
        return all_cooling(job, (last, refusals), decision, candidates, at.since(now), now);
    }
    if last.is_some() {
        return last_words(job, last, candidates.len());
    }
    let mut reasons: Vec<String> = Vec::new();
    for (index, why) in decision.skipped.iter().take(6) {
        let name = candidates.get(*index).map_or("?", |c| &c.key_name);
        let hint = match why {
            SkipReason::Disabled => format!("`aiproxy key enable {name}`"),
            SkipReason::Rejected { .. } => format!(
                "`aiproxy key add {name}` replaces it, `aiproxy key warm {name}` tries it again"
            ),
            _ => String::new(),
        };
        let hint = if hint.is_empty() { hint } else { format!(" ({hint})") };
        reasons.push(format!("{name}: {}{hint}", why.text(now)));
    }
    let message = if reasons.is_empty() {
        format!(
            "no upstream has a key for `{}`; add one with `aiproxy key add UPSTREAM`",
            job.ask.asked
        )
    } else {
        format!("no key can serve `{}`: {}", job.ask.asked, reasons.join("; "))
    };
    ProxyError::new(ProxyErrorKind::Unavailable, message)
        .code("no_available_key")
        .should_retry(false)
}

/// The error after the last attempt: the upstream's words where they are the client's business,
/// ours where not.
fn last_words(job: &Job, last: Option<&Last>, candidates: usize) -> ProxyError {
    let Some(last) = last else {
        return ProxyError::new(
            ProxyErrorKind::Internal,
            "the request ended without a reason; please report this",
        );
    };
    match &last.lost.said {
        Said::Transport(fault) => transport(job, fault, job.tally.upstream()),
        Said::Fault { fault, .. } => said(job, fault, last, candidates),
    }
}

/// How much longer a key is left alone for a model.
pub(super) fn key_wait(engine: &Engine, key: KeyId, model: &str, now: Mono) -> Option<Duration> {
    let view = engine.board.key_view(key, now);
    let of_model =
        view.models.iter().find(|(name, _)| **name == *model).and_then(|(_, health)| health.until);
    of_model.into_iter().chain(view.health.until).max().map(|until| until.since(now))
}

fn said(job: &Job, fault: &Fault, last: &Last, candidates: usize) -> ProxyError {
    let (upstream, key) = (job.tally.upstream(), &last.key_name);
    let words = job.engine.words(&fault.message);
    let pass = |error: ProxyError| {
        let mut error = error;
        error.code =
            error.code.or_else(|| fault.code.as_deref().map(|code| job.engine.words(code).into()));
        error.param = fault.param.as_deref().map(|param| job.engine.words(param).into());
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
                "the provider rejected {which}: {words}; your aiproxy token is fine. `aiproxy key test {key}` checks it, `aiproxy key add {upstream}` adds another"
            );
            ProxyError::new(ProxyErrorKind::Upstream, message)
                .code("upstream_auth")
                .should_retry(false)
        }
        FaultKind::Quota => {
            ProxyError::new(ProxyErrorKind::OutOfCredit, format!("upstream {upstream}: {words}"))
                .should_retry(false)
        }
        FaultKind::RateLimited | FaultKind::AccountLimited => {
            let wait = key_wait(&job.engine, last.key, &job.tally.model, job.engine.clock.mono());
            pass(ProxyError::new(
                ProxyErrorKind::RateLimited,
                format!("upstream {upstream}: {words}"),
            ))
            .retry_after(wait.or(fault.retry_after))
        }
        // A client would take it for a word of its own proxy.
        FaultKind::BadRequest if fault.status == 407 => {
            ProxyError::new(ProxyErrorKind::Upstream, format!("upstream {upstream} (407): {words}"))
                .should_retry(false)
        }
        FaultKind::BadRequest | FaultKind::Forbidden | FaultKind::ModelNotFound => {
            pass(ProxyError::new(ProxyErrorKind::UpstreamError, words).status(fault.status))
        }
        FaultKind::Conflict | FaultKind::Transient => pass(
            ProxyError::new(ProxyErrorKind::UpstreamError, format!("upstream {upstream}: {words}"))
                .status(fault.status),
        )
        .should_retry(false),
        FaultKind::CaptivePortal => {
            ProxyError::new(ProxyErrorKind::Upstream, format!("upstream {upstream}: {words}"))
                .should_retry(false)
        }
        FaultKind::Server => {
            let error =
                ProxyError::new(ProxyErrorKind::Upstream, format!("upstream {upstream}: {words}"))
                    .status(fault.status);
            pass(error).retry_after(last.lost.outcome.hint).should_retry(false)
        }
    }
}

/// The error that ends a stream which its upstream has ended so: with the name that the same error
/// has before a stream.
pub(super) fn broke_off(fault: &Fault, message: String) -> ProxyError {
    match fault.kind {
        FaultKind::Quota => ProxyError::new(ProxyErrorKind::OutOfCredit, message),
        FaultKind::RateLimited | FaultKind::AccountLimited => {
            ProxyError::new(ProxyErrorKind::RateLimited, message).status(fault.status)
        }
        _ => ProxyError::new(ProxyErrorKind::Upstream, message).status(fault.status),
    }
}

/// A transport fault in words for the client.
pub(super) fn transport(job: &Job, fault: &TransportFault, upstream: &str) -> ProxyError {
    let words = job.engine.words(&fault.message);
    let message = format!("upstream {upstream}: {words}");
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

/// What all refusals come to, those of this request and those that others met before, where they
/// agree and waiting a moment will not help: nothing left to spend, nobody who may, no such model.
pub(super) fn settled(
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
    // A key that was rejected, is missing or disabled says nothing about the model or the account.
    for (class, blame) in refusals.iter().filter(|(class, _)| *class != CooldownClass::Rejected) {
        agree(kind(*class, *blame == Blame::Account))?;
    }
    for (_, why) in &decision.skipped {
        match why {
            SkipReason::Cooling { class, scope, .. } => {
                agree(kind(*class, *scope == ScopeKind::Account))?
            }
            SkipReason::Disabled
            | SkipReason::AlreadyFailed
            | SkipReason::KeyMissing(_)
            | SkipReason::Rejected { .. } => {}
            _ => return None,
        }
    }
    all
}

/// So many reasons are told; `aiproxy route` has them all.
const REASONS: usize = 4;

/// Every key is blocked for now: which, why, and when the first is back.
fn all_cooling(
    job: &Job,
    (last, refusals): (Option<&Last>, &[(CooldownClass, Blame)]),
    decision: &Decision,
    candidates: &[Candidate],
    wait: Duration,
    now: Mono,
) -> ProxyError {
    let (mut reasons, mut passing): (Vec<(String, Vec<&str>)>, bool) = (Vec::new(), false);
    for (index, why) in decision
        .skipped
        .iter()
        .filter(|(_, why)| !matches!(why, SkipReason::LowerTier | SkipReason::NotPicked))
    {
        let Some(candidate) = candidates.get(*index) else { continue };
        passing |= matches!(
            why,
            SkipReason::Cooling { .. } | SkipReason::AlreadyFailed | SkipReason::Probing
        );
        let text = match why {
            SkipReason::AlreadyFailed => "just refused".to_owned(),
            other => other.text(now),
        };
        match reasons.iter_mut().find(|(known, _)| *known == text) {
            Some((_, names)) => names.push(&candidate.key_name),
            None => reasons.push((text, vec![&candidate.key_name])),
        }
    }
    let more = reasons.len().saturating_sub(REASONS);
    let mut keys: Vec<String> = reasons
        .into_iter()
        .take(REASONS)
        .map(|(text, names)| format!("{}: {text}", names.join(", ")))
        .collect();
    if more > 0 {
        keys.push(format!("{more} more"));
    }
    let kind = settled(refusals, decision).unwrap_or(ProxyErrorKind::RateLimited);
    let words = last.map(|last| match &last.lost.said {
        Said::Fault { fault, .. } => {
            format!(" The provider said: {}", job.engine.words(&fault.message))
        }
        Said::Transport(_) => String::new(),
    });
    let asked = clean::clean(&job.ask.asked);
    let many = candidates.len();
    let (whose, next) = if many == 1 {
        (format!("the only key for `{asked}` is"), "it is")
    } else {
        (format!("all {many} keys for `{asked}` are"), "the next is")
    };
    let begin = match kind {
        ProxyErrorKind::Forbidden => format!("no key may use `{asked}`; {next} tried again"),
        ProxyErrorKind::ModelNotFound => format!("no upstream has `{asked}`; {next} asked again"),
        ProxyErrorKind::OutOfCredit => format!("{whose} out of credit; {next} tried again"),
        _ => format!("{whose} cooling down; {next} back"),
    };
    let message = format!(
        "{begin} in {} ({}).{}{}",
        print_span(wait),
        keys.join("; "),
        if passing { " `aiproxy key warm KEY` lifts a cooldown." } else { "" },
        words.unwrap_or_default(),
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
