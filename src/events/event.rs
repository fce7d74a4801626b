//! The typed event stream: everything a viewer needs, nothing secret.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::events::{
    alert::Alert,
    record::{AttemptRecord, CacheMissRecord, RequestRecord, RequestState},
};
use crate::{
    base::{clock::UnixMillis, id::RequestId},
    ir::{cost::Cost, usage::Usage},
};

/// One fact. `seq` grows by one; a viewer that misses one takes a new snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    pub seq: u64,
    pub at: UnixMillis,
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// A request was accepted; the record as it begins.
    Accepted { request: Box<RequestRecord> },
    /// It waits for a key: why, and until when at the latest.
    Queued { id: RequestId, reason: Arc<str> },
    /// An attempt starts, and why it goes there.
    AttemptStarted { id: RequestId, attempt: Box<AttemptRecord>, reason: Arc<str> },
    /// An attempt ended without winning.
    AttemptEnded {
        id: RequestId,
        number: u32,
        ended_ms: u32,
        status: Option<u16>,
        outcome: Arc<str>,
        maybe_billed: bool,
    },
    /// First content left for the client: of the attempt of this number, of the newest where it is
    /// 0.
    FirstContent {
        id: RequestId,
        #[serde(default)]
        number: u32,
        ttft_ms: u32,
        head_ms: u32,
        status: u16,
    },
    /// Sampled, at most four a second and request, only while somebody looks.
    Progress { id: RequestId, answer_bytes: u64, events: u64 },
    /// The provider's prompt cache did not hold what it should have.
    #[serde(rename = "cache_lost")]
    CacheMissed { id: RequestId, lost: Box<CacheMissRecord> },
    /// The end.
    Ended {
        id: RequestId,
        state: RequestState,
        status: Option<u16>,
        duration_ms: u32,
        usage: Option<Usage>,
        #[serde(default)]
        cost: Option<Cost>,
        finish: Option<Arc<str>>,
        answer_bytes: u64,
        events: u64,
        error: Option<Arc<str>>,
    },
    /// Something that its owner wants to know also without looking.
    Alert { alert: Alert },
    /// Health of a key or upstream changed: "openai/work cools for 41s: 429 for gpt-5". Snapshots
    /// have the details.
    Health { subject: Arc<str>, text: Arc<str>, level: Severity },
    /// A config was applied or refused.
    Config { text: Arc<str>, ok: bool },
    /// Anything else worth a line.
    Notice { text: Arc<str>, level: Severity },
}

impl EventKind {
    /// Whether it is about how things stand rather than about one request.
    #[must_use]
    pub fn is_status_change(&self) -> bool {
        matches!(
            self,
            Self::Alert { .. } | Self::Config { .. } | Self::Health { .. } | Self::Notice { .. }
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warn,
    Error,
}
