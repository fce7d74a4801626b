//! The record of a request and its attempts; grows while the request runs, final when it ends.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    base::{clock::UnixMillis, id::RequestId, money::NanoUsd},
    ir::{
        cost::Cost,
        op::{Dialect, Op},
        reason::{
            cache_miss::MissCause,
            failure::FailureReason,
            route::RouteReason,
            text_field::{outcome_and_failure, reason_and_route, why_and_cause},
        },
        usage::Usage,
    },
};

/// One request, from accepted to ended. Contains names and numbers only: no secret, no body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestRecord {
    pub id: RequestId,
    pub at: UnixMillis,
    pub project: Arc<str>,
    /// The client program: the first word of User-Agent, cleaned.
    pub client: Arc<str>,
    pub dialect: Dialect,
    pub op: Op,
    /// The model as the client named it; cleaned and cut to 256 characters.
    #[serde(rename = "asked")]
    pub requested_model: Arc<str>,
    pub stream: bool,
    pub session: Option<Arc<str>>,
    /// The end user that the request names (`user`, `safety_identifier`, `metadata.user_id`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// The address of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Bytes of the request body.
    pub request_bytes: u64,
    pub state: RequestState,
    pub attempts: Vec<AttemptRecord>,
    /// Why the last decision chose its target, or what the request waits for.
    #[serde(flatten, with = "reason_and_route")]
    pub reason: Option<Arc<RouteReason>>,
    /// Milliseconds from `at` to the first content byte sent to the client.
    pub ttft_ms: Option<u32>,
    /// Milliseconds from `at` to the end; `None` while it runs.
    pub duration_ms: Option<u32>,
    /// Status sent to the client; `None` before the head leaves.
    pub status: Option<u16>,
    pub usage: Option<Usage>,
    /// All attempts together; `None` while it runs.
    #[serde(default)]
    pub cost: Option<Cost>,
    pub finish: Option<Arc<str>>,
    /// Body bytes sent to the client so far.
    pub answer_bytes: u64,
    /// Content events so far: about one token each.
    pub events: u64,
    /// The error, in words for a person; redacted and cleaned.
    pub error: Option<Arc<str>>,
    /// A miss of the provider's prompt cache that was not expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "cache_lost")]
    pub cache_miss: Option<Box<CacheMissRecord>>,
}

/// A prompt cache that stopped hitting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMissRecord {
    /// The first part of the prompt that changed, or another explanation.
    #[serde(flatten, with = "why_and_cause")]
    pub cause: Arc<MissCause>,
    /// Tokens that should have come from the cache.
    pub expected: u64,
    /// Tokens that did come from the cache.
    pub cached: u64,
    /// The additional cost, if prices are known.
    pub cost: Option<NanoUsd>,
    /// The miss is expected and needs no investigation.
    #[serde(rename = "usual")]
    pub is_benign: bool,
}

impl CacheMissRecord {
    /// Returns the additional cost for display.
    #[must_use]
    pub fn displayed_cost(&self) -> Option<Cost> {
        self.cost.map(|cost| Cost { usd: Some(cost), ..Cost::default() })
    }
}

impl fmt::Display for CacheMissRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, cached, cause, .. } = self;
        write!(f, "{cached} of {expected} tokens came from the prompt cache: {cause}")?;
        self.displayed_cost().map_or(Ok(()), |cost| write!(f, ", which cost {cost} more"))
    }
}

impl RequestRecord {
    /// Returns the cached tokens that are due to affinity: the conversation went to the target that
    /// served it before.
    #[must_use]
    pub fn affinity_cached_tokens(&self) -> u64 {
        let bound = self
            .serving_attempt()
            .is_some_and(|attempt| attempt.has_affinity && attempt.role == AttemptRole::Primary);
        self.usage.filter(|_| bound).map_or(0, |usage| usage.cache_read)
    }

    /// Returns the attempt that answered, or the newest if none has.
    #[must_use]
    pub fn serving_attempt(&self) -> Option<&AttemptRecord> {
        self.attempts.iter().rev().find(|attempt| attempt.won).or(self.attempts.last())
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        !matches!(self.state, RequestState::Done | RequestState::Failed | RequestState::ClientGone)
    }

    /// Returns output tokens per second from first content to the end (or to `now`), if both are
    /// known.
    #[must_use]
    pub fn tokens_per_second(&self, now: UnixMillis) -> Option<f64> {
        let ttft = i64::from(self.ttft_ms?);
        let elapsed_ms = self.duration_ms.map_or(now.0 - self.at.0, i64::from) - ttft;
        let tokens = self.usage.map_or(self.events, |u| u.output_total());
        (elapsed_ms >= 200 && tokens > 1).then(|| tokens as f64 * 1000.0 / elapsed_ms as f64)
    }
}

/// The state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// Waits for a key; `reason` contains the queue position.
    Queued,
    /// An attempt is in progress, with no content yet.
    Waiting,
    /// Content is streaming.
    Streaming,
    Done,
    Failed,
    /// The client disconnected.
    #[serde(rename = "left")]
    ClientGone,
}

impl RequestState {
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Waiting, Self::Streaming, Self::Done, Self::Failed, Self::ClientGone];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Streaming => "streaming",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::ClientGone => "left",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// The purpose of an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttemptRole {
    /// The ordinary attempt.
    #[default]
    #[serde(rename = "answer")]
    Primary,
    /// A parallel attempt, because another was slow to send content.
    Hedge,
    /// Continues a response that broke off.
    Rescue,
}

impl AttemptRole {
    pub const ALL: [Self; 3] = [Self::Primary, Self::Hedge, Self::Rescue];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "answer",
            Self::Hedge => "hedge",
            Self::Rescue => "rescue",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.name() == name)
    }
}

/// One attempt at one target with one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Counts from 1.
    pub number: u32,
    #[serde(default)]
    #[serde(rename = "task")]
    pub role: AttemptRole,
    /// The target had served the conversation before.
    #[serde(default)]
    #[serde(rename = "bound")]
    pub has_affinity: bool,
    pub upstream: Arc<str>,
    /// `label` of the key; empty if no key is needed.
    pub key: Arc<str>,
    pub fingerprint: Arc<str>,
    /// The model as the upstream knows it.
    pub model: Arc<str>,
    /// Milliseconds from the request's `at`.
    pub started_ms: u32,
    pub head_ms: Option<u32>,
    pub ended_ms: Option<u32>,
    /// The upstream's status.
    pub status: Option<u16>,
    /// How it ended; `None` while it runs or if it won.
    #[serde(flatten, with = "outcome_and_failure")]
    pub outcome: Option<Arc<FailureReason>>,
    pub won: bool,
    pub maybe_billed: bool,
}
