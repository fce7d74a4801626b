//! The typed event stream: everything a viewer needs, and no secrets.

pub use crate::events::severity::Severity;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::events::{
    alert::Alert,
    record::{AttemptRecord, CacheMissRecord, RequestRecord, RequestState},
    status_message::{health::HealthMessage, notice::NoticeMessage, reload::ReloadMessage},
};
use crate::{
    base::{clock::UnixMillis, id::RequestId},
    ir::{
        cost::Cost,
        reason::{
            failure::FailureReason,
            route::RouteReason,
            text_field::{outcome_and_failure, reason_and_route, text_and_reason},
        },
        usage::Usage,
    },
};

/// One fact. `seq` grows by one; a viewer that misses an event takes a new snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    pub seq: u64,
    pub at: UnixMillis,
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The kind of an event, with its facts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// A request was accepted; the record at its start.
    Accepted { request: Box<RequestRecord> },
    /// The request waits for a key: the reason, and the latest end of the wait.
    Queued {
        id: RequestId,
        #[serde(flatten, with = "reason_and_route")]
        reason: Arc<RouteReason>,
    },
    /// An attempt starts; the record contains the reason for its target.
    AttemptStarted {
        id: RequestId,
        attempt: Box<AttemptRecord>,
        #[serde(flatten, with = "reason_and_route")]
        reason: Arc<RouteReason>,
    },
    /// An attempt ended without winning.
    AttemptEnded {
        id: RequestId,
        number: u32,
        ended_ms: u32,
        status: Option<u16>,
        #[serde(flatten, with = "outcome_and_failure")]
        outcome: Arc<FailureReason>,
        maybe_billed: bool,
    },
    /// The first content was sent to the client. `number` is that of the attempt that sent it; 0
    /// means the newest.
    FirstContent {
        id: RequestId,
        #[serde(default)]
        number: u32,
        ttft_ms: u32,
        head_ms: u32,
        status: u16,
    },
    /// Sampled: at most four per second and request, and only while there are viewers.
    Progress { id: RequestId, answer_bytes: u64, events: u64 },
    /// A miss of the provider's prompt cache that was not expected.
    #[serde(rename = "cache_lost")]
    CacheMissed { id: RequestId, lost: Box<CacheMissRecord> },
    /// The request ended.
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
    /// An alert that the owner receives even without a dashboard.
    Alert { alert: Alert },
    /// Health of a key or upstream changed: "openai/work cools for 41s: 429 for gpt-5". Snapshots
    /// have the details.
    Health {
        subject: Arc<str>,
        #[serde(flatten, with = "text_and_reason")]
        text: Arc<HealthMessage>,
        level: Severity,
    },
    /// A config was applied or rejected.
    Config {
        #[serde(flatten, with = "text_and_reason")]
        text: Arc<ReloadMessage>,
        ok: bool,
    },
    /// Any other message for the log.
    Notice {
        #[serde(flatten, with = "text_and_reason")]
        text: Arc<NoticeMessage>,
        level: Severity,
    },
}

impl EventKind {
    /// Makes the event for a change of health.
    #[must_use]
    pub fn health(change: HealthMessage, level: Severity) -> Self {
        Self::Health { subject: change.subject(), text: change.into(), level }
    }

    /// Whether the event is a status change rather than about one request.
    #[must_use]
    pub fn is_status_change(&self) -> bool {
        matches!(
            self,
            Self::Alert { .. } | Self::Config { .. } | Self::Health { .. } | Self::Notice { .. }
        )
    }
}
