//! Answers to the client: heads, errors in its dialect, the body type.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};

use super::{
    answer::Said,
    engine::Engine,
    late::Late,
    pump::{Forward, Pump},
    rounds::{Job, Last},
    translated,
};
use crate::{
    base::{clean, clock::Mono, id::RequestId},
    config::settings::KeyId,
    dialect::registry,
    ir::{
        fault::{ClientError, ErrorKind, Fault, FaultKind, TransportFault, TransportKind},
        op::Dialect,
    },
    routing::{
        candidate::{Candidate, Decision, ScopeKind, Why, short},
        outcome::{Blame, Cool},
    },
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ANTHROPIC_ID: HeaderName = HeaderName::from_static("request-id");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const UPSTREAM: HeaderName = HeaderName::from_static("x-aiproxy-upstream");
const MODEL: HeaderName = HeaderName::from_static("x-aiproxy-model");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-aiproxy-attempts");
const LOSSES: HeaderName = HeaderName::from_static("x-aiproxy-losses");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// Above this wait an SDK must not sleep by itself.
const LONG_WAIT: Duration = Duration::from_secs(60);

/// The body of any answer of ours.
pub enum ReplyBody {
    Whole(Option<Bytes>),
    Pump(Box<Pump>),
    Forward(Box<Forward>),
    Late(Box<Late>),
    Events(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

/// The upstream's body broke while it was only forwarded: the connection is all that can tell the client.
#[derive(Debug, thiserror::Error)]
#[error("the upstream's answer broke off")]
pub struct BrokeOff;

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b)))),
            Self::Pump(pump) => pump.poll(cx).map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
            Self::Forward(forward) => forward.poll(cx).map(|bytes| bytes.map(|b| b.map(Frame::data))),
            Self::Late(late) => late.poll(cx).map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
            Self::Events(events) => events.as_mut().poll_next(cx).map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            _ => SizeHint::default(),
        }
    }
}

/// A complete body of ours.
#[must_use]
pub fn whole(status: http::StatusCode, content_type: &'static str, id: RequestId, body: Bytes) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Whole(Some(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    stamp(response.headers_mut(), id);
    response
}

/// An error in the client's dialect.
#[must_use]
pub fn error(dialect: Dialect, id: RequestId, error: &ClientError) -> Response<ReplyBody> {
    let text = id.to_string();
    let (status, body) = registry::ingress(dialect).write_error(error, &text);
    let mut response = whole(status, "application/json", id, body);
    let headers = response.headers_mut();
    if let Some(wait) = error.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil() as u64));
    }
    let long = error.retry_after.is_some_and(|wait| wait > LONG_WAIT);
    if let Some(yes) = error.should_retry.or(long.then_some(false)) {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static(if yes { "true" } else { "false" }));
    }
    if dialect == Dialect::Anthropic
        && let Ok(value) = HeaderValue::from_str(&text)
    {
        headers.insert(ANTHROPIC_ID, value);
    }
    response
}

/// Marks an answer with its request id, and keeps browsers from guessing.
pub fn stamp(headers: &mut HeaderMap, id: RequestId) {
    if let Ok(value) = HeaderValue::from_bytes(&id.digits()) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
}

/// Names what served the request.
pub(super) fn mark(headers: &mut HeaderMap, job: &Job) {
    stamp(headers, job.ask.id);
    for (name, value) in [(UPSTREAM, job.tally.upstream()), (MODEL, &job.tally.model)] {
        if !value.is_empty()
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(name, value);
        }
    }
    let attempts = match job.tally.attempts() {
        1 => HeaderValue::from_static("1"),
        more => HeaderValue::from(more),
    };
    headers.insert(ATTEMPTS, attempts);
    if let Some(admission) = &job.tally.admission {
        admission.mark(headers);
    }
    if !job.losses.is_empty()
        && let Ok(value) = HeaderValue::from_str(&translated::names(&job.losses))
    {
        headers.insert(LOSSES, value);
    }
}

/// The error after the last attempt: the upstream's words where they are the client's business, ours where not.
pub(super) fn last_words(job: &Job, last: Option<&Last>, candidates: usize) -> ClientError {
    let Some(last) = last else {
        return ClientError::new(ErrorKind::Internal, "the request ended without a reason; please report this");
    };
    match &last.lost.said {
        Said::Transport(fault) => transport(job, fault, job.tally.upstream()),
        Said::Fault { fault, .. } => said(job, fault, last, candidates),
    }
}

/// How much longer a key is left alone for a model.
pub(super) fn key_wait(engine: &Engine, key: KeyId, model: &str, now: Mono) -> Option<Duration> {
    let view = engine.board.key_view(key, now);
    let of_model = view.models.iter().find(|(name, _)| **name == *model).and_then(|(_, health)| health.until);
    of_model.into_iter().chain(view.health.until).max().map(|until| until.since(now))
}

fn said(job: &Job, fault: &Fault, last: &Last, candidates: usize) -> ClientError {
    let (upstream, key) = (job.tally.upstream(), &last.key_name);
    let words = job.engine.words(&fault.message);
    let pass = |error: ClientError| {
        let mut error = error;
        error.code = error.code.or_else(|| fault.code.as_deref().map(|code| job.engine.words(code).into()));
        error.param = fault.param.as_deref().map(|param| job.engine.words(param).into());
        error
    };
    match fault.kind {
        FaultKind::KeyRejected => {
            let which = if candidates > 1 { format!("key {key} (and no other is left)") } else { format!("key {key}") };
            let message = format!(
                "the provider rejected {which}: {words}; your aiproxy token is fine. `aiproxy key test {key}` checks it, `aiproxy key add {upstream}` adds another"
            );
            ClientError::new(ErrorKind::Upstream, message).code("upstream_auth").should_retry(false)
        }
        FaultKind::Quota => ClientError::new(ErrorKind::OutOfCredit, format!("upstream {upstream}: {words}")).should_retry(false),
        FaultKind::RateLimited | FaultKind::AccountLimited => {
            let wait = key_wait(&job.engine, last.key, &job.tally.model, job.engine.clock.mono());
            pass(ClientError::new(ErrorKind::RateLimited, format!("upstream {upstream}: {words}"))).retry_after(wait.or(fault.hint))
        }
        // A client would take it for a word of its own proxy.
        FaultKind::BadRequest if fault.status == 407 => {
            ClientError::new(ErrorKind::Upstream, format!("upstream {upstream} (407): {words}")).should_retry(false)
        }
        FaultKind::BadRequest | FaultKind::Forbidden | FaultKind::ModelNotFound => {
            pass(ClientError::new(ErrorKind::UpstreamSaid, words).status(fault.status))
        }
        FaultKind::Conflict | FaultKind::Transient => {
            pass(ClientError::new(ErrorKind::UpstreamSaid, format!("upstream {upstream}: {words}")).status(fault.status))
                .should_retry(false)
        }
        FaultKind::Portal => ClientError::new(ErrorKind::Upstream, format!("upstream {upstream}: {words}")).should_retry(false),
        FaultKind::Server => {
            let error = ClientError::new(ErrorKind::Upstream, format!("upstream {upstream}: {words}")).status(fault.status);
            pass(error).retry_after(last.lost.outcome.hint).should_retry(false)
        }
    }
}

/// The error that ends a stream which its upstream has ended so: with the name that the same error has before a stream.
pub(super) fn broke_off(fault: &Fault, message: String) -> ClientError {
    match fault.kind {
        FaultKind::Quota => ClientError::new(ErrorKind::OutOfCredit, message),
        FaultKind::RateLimited | FaultKind::AccountLimited => ClientError::new(ErrorKind::RateLimited, message).status(fault.status),
        _ => ClientError::new(ErrorKind::Upstream, message).status(fault.status),
    }
}

/// A transport fault in words for the client.
pub(super) fn transport(job: &Job, fault: &TransportFault, upstream: &str) -> ClientError {
    let words = job.engine.words(&fault.message);
    let message = format!("upstream {upstream}: {words}");
    let kind = match fault.kind {
        TransportKind::FirstByteTimeout | TransportKind::IdleTimeout | TransportKind::TotalTimeout | TransportKind::ConnectTimeout => {
            ErrorKind::Timeout
        }
        TransportKind::NetworkDown => ErrorKind::Upstream,
        _ => ErrorKind::Upstream,
    };
    ClientError::new(kind, message).should_retry(false)
}

/// What all refusals come to, those of this request and those that others met before, where they agree and waiting a
/// moment will not help: nothing left to spend, nobody who may, no such model.
pub(super) fn settled(refusals: &[(Cool, Blame)], decision: &Decision) -> Option<ErrorKind> {
    let kind = |class: Cool, account: bool| match class {
        Cool::Quota if account => Some(ErrorKind::OutOfCredit),
        Cool::Quota => Some(ErrorKind::Forbidden),
        Cool::ModelMissing => Some(ErrorKind::ModelNotFound),
        Cool::Nothing | Cool::RateLimited | Cool::Rejected | Cool::ServerError => None,
    };
    let mut all: Option<ErrorKind> = None;
    let mut agree = |found: Option<ErrorKind>| {
        let found = found?;
        (*all.get_or_insert(found) == found).then_some(())
    };
    // A key that was rejected, is missing or disabled says nothing about the model or the account.
    for (class, blame) in refusals.iter().filter(|(class, _)| *class != Cool::Rejected) {
        agree(kind(*class, *blame == Blame::Account))?;
    }
    for (_, why) in &decision.others {
        match why {
            Why::Cooling { class, scope, .. } => agree(kind(*class, *scope == ScopeKind::Account))?,
            Why::Disabled | Why::FailedHere | Why::Missing(_) | Why::Rejected { .. } => {}
            _ => return None,
        }
    }
    all
}

/// So many reasons are told; `aiproxy route` has them all.
const REASONS: usize = 4;

/// Every key is blocked for now: which, why, and when the first is back.
pub(super) fn all_cooling(
    job: &Job,
    (last, refusals): (Option<&Last>, &[(Cool, Blame)]),
    decision: &Decision,
    candidates: &[Candidate],
    wait: Duration,
    now: Mono,
) -> ClientError {
    let (mut reasons, mut passing): (Vec<(String, Vec<&str>)>, bool) = (Vec::new(), false);
    for (index, why) in decision.others.iter().filter(|(_, why)| !matches!(why, Why::LowerTier | Why::NotDrawn)) {
        let Some(candidate) = candidates.get(*index) else { continue };
        passing |= matches!(why, Why::Cooling { .. } | Why::FailedHere | Why::Probing);
        let text = match why {
            Why::FailedHere => "just refused".to_owned(),
            other => other.text(now),
        };
        match reasons.iter_mut().find(|(known, _)| *known == text) {
            Some((_, names)) => names.push(&candidate.key_name),
            None => reasons.push((text, vec![&candidate.key_name])),
        }
    }
    let more = reasons.len().saturating_sub(REASONS);
    let mut keys: Vec<String> = reasons.into_iter().take(REASONS).map(|(text, names)| format!("{}: {text}", names.join(", "))).collect();
    if more > 0 {
        keys.push(format!("{more} more"));
    }
    let kind = settled(refusals, decision).unwrap_or(ErrorKind::RateLimited);
    let words = last.map(|last| match &last.lost.said {
        Said::Fault { fault, .. } => format!(" The provider said: {}", job.engine.words(&fault.message)),
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
        ErrorKind::Forbidden => format!("no key may use `{asked}`; {next} tried again"),
        ErrorKind::ModelNotFound => format!("no upstream has `{asked}`; {next} asked again"),
        ErrorKind::OutOfCredit => format!("{whose} out of credit; {next} tried again"),
        _ => format!("{whose} cooling down; {next} back"),
    };
    let message = format!(
        "{begin} in {} ({}).{}{}",
        short(wait),
        keys.join("; "),
        if passing { " `aiproxy key warm KEY` lifts a cooldown." } else { "" },
        words.unwrap_or_default(),
    );
    let error = ClientError::new(kind, message);
    let error = match kind {
        ErrorKind::Forbidden | ErrorKind::ModelNotFound => return error.should_retry(false),
        ErrorKind::OutOfCredit => error.should_retry(false),
        _ => error,
    };
    let error = error.retry_after(Some(wait.max(Duration::from_secs(1))));
    if kind == ErrorKind::RateLimited { error.code("no_available_key") } else { error }
}
