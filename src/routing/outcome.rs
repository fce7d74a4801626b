//! What an attempt's end means: who is to blame, whether another try may help, how long to leave it alone.

use std::{sync::Arc, time::Duration};

use crate::ir::fault::{Fault, FaultKind, TransportFault, TransportKind};

/// The classified end of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub blame: Blame,
    pub retry: Retry,
    /// The cooldown class for the blamed scope.
    pub cool: Cool,
    /// What the vendor asks for (header or body), uncapped.
    pub hint: Option<Duration>,
    /// The tries that may have cost upstream work count against `max_attempts` and the retry budget.
    pub counts: bool,
    /// A non-streaming request that was sent whole and then lost may have been billed.
    pub maybe_billed: bool,
    /// In words, for tables: "429 insufficient_quota", "connection refused".
    pub cause: Arc<str>,
}

/// Whose fault it is: the scope that strikes are counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Our own network, or the client: nothing cools.
    Nobody,
    Account,
    Key,
    KeyModel,
    Upstream,
    /// Upstream and key (5xx).
    UpstreamAndKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    No,
    /// Any other candidate.
    Other,
    /// Any other candidate of another account.
    OtherAccount,
    /// At most once more in this request (409).
    Once,
    /// The same again at once, uncounted: a stale pooled connection.
    SameAtOnce,
}

/// The cooldown class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cool {
    Nothing,
    /// Blocked within the hint; suspect without one.
    RateLimited,
    ServerError,
    Quota,
    /// A model the upstream does not have.
    ModelMissing,
    /// Until the secret changes, `warm`, or a free check succeeds.
    Rejected,
}

/// Reads an upstream's refusal. `stream_begun` is false: this is for faults before content; after content the relay
/// only records. `retry_statuses` of config decides which other statuses are worth another try.
#[must_use]
pub fn of_fault(fault: &Fault, hint: Option<Duration>, retryable: bool) -> Outcome {
    let hint = hint.or(fault.hint);
    let said = fault.code.as_deref().or(fault.kind_name.as_deref()).unwrap_or("");
    let cause: Arc<str> = if said.is_empty() { format!("{}", fault.status) } else { format!("{} {said}", fault.status) }.into();
    let base = Outcome { blame: Blame::Nobody, retry: Retry::No, cool: Cool::Nothing, hint, counts: false, maybe_billed: false, cause };
    match fault.kind {
        FaultKind::BadRequest => base,
        FaultKind::KeyRejected => Outcome { blame: Blame::Key, retry: Retry::Other, cool: Cool::Rejected, ..base },
        FaultKind::Forbidden => Outcome { blame: Blame::KeyModel, retry: Retry::Other, cool: Cool::Quota, ..base },
        FaultKind::Quota => Outcome { blame: Blame::Account, retry: Retry::OtherAccount, cool: Cool::Quota, ..base },
        FaultKind::ModelNotFound => Outcome { blame: Blame::KeyModel, retry: Retry::Other, cool: Cool::ModelMissing, ..base },
        FaultKind::RateLimited => Outcome { blame: Blame::KeyModel, retry: Retry::Other, cool: Cool::RateLimited, ..base },
        FaultKind::AccountLimited => Outcome { blame: Blame::Account, retry: Retry::OtherAccount, cool: Cool::RateLimited, ..base },
        FaultKind::Conflict => Outcome { retry: if retryable { Retry::Once } else { Retry::No }, counts: true, ..base },
        FaultKind::Transient | FaultKind::Server => Outcome {
            blame: Blame::UpstreamAndKey,
            retry: if retryable { Retry::Other } else { Retry::No },
            cool: Cool::ServerError,
            counts: true,
            ..base
        },
        FaultKind::Portal => Outcome { retry: Retry::Other, counts: true, ..base },
    }
}

/// Reads what the connection did.
#[must_use]
pub fn of_transport(fault: &TransportFault) -> Outcome {
    let kind = fault.kind;
    let base = Outcome {
        blame: Blame::Upstream,
        retry: Retry::Other,
        cool: Cool::ServerError,
        hint: None,
        counts: fault.sent,
        maybe_billed: false,
        cause: fault.message.as_str().into(),
    };
    match kind {
        TransportKind::Stale => Outcome { blame: Blame::Nobody, retry: Retry::SameAtOnce, cool: Cool::Nothing, counts: false, ..base },
        TransportKind::NetworkDown => Outcome { blame: Blame::Nobody, cool: Cool::Nothing, counts: false, ..base },
        TransportKind::TooLarge => Outcome { blame: Blame::Nobody, retry: Retry::No, cool: Cool::Nothing, ..base },
        TransportKind::Connect | TransportKind::ConnectTimeout | TransportKind::Dns | TransportKind::Tls => {
            Outcome { counts: false, ..base }
        }
        TransportKind::Reset | TransportKind::FirstByteTimeout | TransportKind::TotalTimeout => {
            Outcome { counts: true, maybe_billed: fault.sent, ..base }
        }
        TransportKind::Garbage | TransportKind::BodyBroken | TransportKind::IdleTimeout => Outcome { counts: true, ..base },
    }
}
