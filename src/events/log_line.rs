//! Lines of the log as viewers see them.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Serialize};

use crate::{
    base::{clock::UnixMillis, id::RequestId},
    events::{
        event::Severity,
        log_message::{LogMessage, RequestSummary},
        record::{RequestRecord, RequestState},
    },
    ir::reason::text_field::{ReasonSlot, text_and_reason},
};

/// One line of the Log screen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    pub at: UnixMillis,
    pub level: Severity,
    #[serde(flatten, with = "text_and_reason")]
    pub text: LazyText,
    /// The request it is about.
    pub id: Option<RequestId>,
}

impl LogLine {
    /// Creates a line from its message.
    #[must_use]
    pub fn new(
        at: UnixMillis,
        level: Severity,
        message: LogMessage,
        id: Option<RequestId>,
    ) -> Self {
        Self { at, level, text: message.into(), id }
    }

    /// Creates the final line of a request.
    #[must_use]
    pub fn for_request(at: UnixMillis, record: Arc<RequestRecord>) -> Self {
        let (level, id) = (request_severity(&record), Some(record.id));
        let text = LazyText { record: Some(record), ..LazyText::default() };
        Self { at, level, text, id }
    }
}

/// The message of a line and its English text. Both are only made when a viewer reads them, which
/// is rare.
#[derive(Clone, Debug, Default)]
pub struct LazyText {
    rendered: OnceLock<Arc<str>>,
    message: OnceLock<Arc<LogMessage>>,
    record: Option<Arc<RequestRecord>>,
}

impl LazyText {
    /// The message as a value.
    #[must_use]
    pub fn message(&self) -> &LogMessage {
        self.message.get_or_init(|| {
            Arc::new(self.record.as_ref().map_or_else(LogMessage::default, |record| {
                LogMessage::Ended { summary: RequestSummary::new(record) }
            }))
        })
    }
}

impl Deref for LazyText {
    type Target = str;

    fn deref(&self) -> &str {
        self.rendered.get_or_init(|| self.message().to_string().into())
    }
}

impl fmt::Display for LazyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl From<LogMessage> for LazyText {
    fn from(message: LogMessage) -> Self {
        Self { message: OnceLock::from(Arc::new(message)), ..Self::default() }
    }
}

impl ReasonSlot for LazyText {
    type Value = LogMessage;

    fn reason(&self) -> Option<&LogMessage> {
        Some(self.message())
    }

    fn from_reason(message: Option<LogMessage>) -> Self {
        message.unwrap_or_default().into()
    }
}

/// Returns the severity of a request's end.
#[must_use]
pub fn request_severity(record: &RequestRecord) -> Severity {
    if record.state == RequestState::Failed { Severity::Error } else { Severity::Info }
}
