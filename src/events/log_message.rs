//! What a line of the log says, as a value that each viewer words in its language.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    events::{
        record::{AttemptRecord, CacheMissRecord, RequestRecord, RequestState},
        status_message::{health::HealthMessage, notice::NoticeMessage, reload::ReloadMessage},
    },
    ir::reason::{failure::FailureReason, text_field::Reason},
};

/// The message of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LogMessage {
    /// An attempt ended without winning; `target` is `upstream/label` or the upstream's name.
    AttemptEnded {
        number: u32,
        model: Arc<str>,
        target: Arc<str>,
        outcome: Arc<FailureReason>,
    },
    /// The provider's prompt cache missed.
    CacheMissed {
        project: Arc<str>,
        model: Arc<str>,
        miss: Box<CacheMissRecord>,
    },
    /// A request ended.
    Ended {
        summary: RequestSummary,
    },
    Health {
        change: Arc<HealthMessage>,
    },
    Notice {
        notice: Arc<NoticeMessage>,
    },
    Reload {
        result: Arc<ReloadMessage>,
    },
    /// A line that is only known as a text, such as an alert.
    Text {
        text: Arc<str>,
    },
}

/// The end of a request, for one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestSummary {
    pub project: Arc<str>,
    pub model: Arc<str>,
    pub status: Option<u16>,
    /// The key or upstream that served it.
    pub target: Option<Arc<str>>,
    pub duration_ms: u32,
    pub end: RequestEnd,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RequestEnd {
    /// The client disconnected.
    ClientGone,
    Done,
    /// It failed, with the error in words.
    Failed {
        error: Arc<str>,
    },
}

impl RequestSummary {
    /// Summarises a finished request.
    #[must_use]
    pub fn new(record: &RequestRecord) -> Self {
        Self {
            project: Arc::clone(&record.project),
            model: Arc::clone(&record.requested_model),
            status: record.status,
            target: record.serving_attempt().map(target_name),
            duration_ms: record.duration_ms.unwrap_or_default(),
            end: match (record.state, &record.error) {
                (RequestState::ClientGone, _) => RequestEnd::ClientGone,
                (RequestState::Failed, Some(error)) => {
                    RequestEnd::Failed { error: Arc::clone(error) }
                }
                _ => RequestEnd::Done,
            },
        }
    }

    /// The status for display; `–` if the client received none.
    #[must_use]
    pub fn displayed_status(&self) -> String {
        self.status.map_or_else(|| "–".to_owned(), |status| status.to_string())
    }
}

/// The name of an attempt's target: `upstream/label`, or the upstream's name if it needs no key.
#[must_use]
pub fn target_name(attempt: &AttemptRecord) -> Arc<str> {
    match attempt.key.is_empty() {
        true => Arc::clone(&attempt.upstream),
        false => format!("{}/{}", attempt.upstream, attempt.key).into(),
    }
}

impl Default for LogMessage {
    fn default() -> Self {
        Self::from_text("".into())
    }
}

impl Reason for LogMessage {
    fn from_text(text: Arc<str>) -> Self {
        Self::Text { text }
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

impl fmt::Display for RequestSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.project, self.model, self.displayed_status())?;
        if let Some(target) = &self.target {
            write!(f, " by {target}")?;
        }
        write!(f, " in {} ms", self.duration_ms)?;
        match &self.end {
            RequestEnd::ClientGone => f.write_str(", client left"),
            RequestEnd::Done => Ok(()),
            RequestEnd::Failed { error } => write!(f, ": {error}"),
        }
    }
}

impl fmt::Display for LogMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AttemptEnded { number, model, target, outcome } => {
                write!(f, "attempt {number} of {model} at {target}: {outcome}")
            }
            Self::CacheMissed { project, model, miss } => write!(f, "{project} {model}: {miss}"),
            Self::Ended { summary } => write!(f, "{summary}"),
            Self::Health { change } => write!(f, "{change}"),
            Self::Notice { notice } => write!(f, "{notice}"),
            Self::Reload { result } => write!(f, "{result}"),
            Self::Text { text } => f.write_str(text),
        }
    }
}
