//! Lines of the log as viewers see them.

use std::{
    fmt::{self, Write},
    ops::Deref,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::{clock::UnixMillis, id::RequestId};
use crate::events::{
    event::Severity,
    record::{RequestRecord, RequestState},
};

/// One line of the Log screen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    pub at: UnixMillis,
    pub level: Severity,
    pub text: LazyText,
    /// The request it is about.
    pub id: Option<RequestId>,
}

impl LogLine {
    /// Creates a line from text.
    #[must_use]
    pub fn new(
        at: UnixMillis,
        level: Severity,
        text: impl Into<Arc<str>>,
        id: Option<RequestId>,
    ) -> Self {
        Self {
            at,
            level,
            text: LazyText { rendered: OnceLock::from(text.into()), record: None },
            id,
        }
    }

    /// Creates the final line of a request.
    #[must_use]
    pub fn for_request(at: UnixMillis, record: Arc<RequestRecord>) -> Self {
        let (level, id) = (request_severity(&record), Some(record.id));
        Self { at, level, text: LazyText { rendered: OnceLock::new(), record: Some(record) }, id }
    }
}

/// The text of a line. For a finished request it is only written when a viewer reads it, which is
/// rare.
#[derive(Clone, Debug, Default)]
pub struct LazyText {
    rendered: OnceLock<Arc<str>>,
    record: Option<Arc<RequestRecord>>,
}

impl Deref for LazyText {
    type Target = str;

    fn deref(&self) -> &str {
        self.rendered.get_or_init(|| {
            let mut text = String::new();
            if let Some(record) = &self.record {
                write_summary(record, &mut text);
            }
            text.into()
        })
    }
}

impl<T: Into<Arc<str>>> From<T> for LazyText {
    fn from(text: T) -> Self {
        Self { rendered: OnceLock::from(text.into()), record: None }
    }
}

impl Serialize for LazyText {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for LazyText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Arc::<str>::deserialize(from).map(Self::from)
    }
}

/// Returns the severity of a request's end.
#[must_use]
pub fn request_severity(record: &RequestRecord) -> Severity {
    if record.state == RequestState::Failed { Severity::Error } else { Severity::Info }
}

/// Writes the final line of a request.
pub fn write_summary(record: &RequestRecord, out: &mut String) {
    // Writing into a string cannot fail.
    let mut put = |text: fmt::Arguments<'_>| out.write_fmt(text).unwrap_or_default();
    put(format_args!("{} {} ", record.project, record.requested_model));
    match record.status {
        Some(status) => put(format_args!("{status}")),
        None => put(format_args!("–")),
    }
    if let Some(attempt) = record.serving_attempt() {
        let slash = if attempt.key.is_empty() { "" } else { "/" };
        put(format_args!(" by {}{slash}{}", attempt.upstream, attempt.key));
    }
    put(format_args!(" in {} ms", record.duration_ms.unwrap_or_default()));
    match (record.state, &record.error) {
        (RequestState::ClientGone, _) => put(format_args!(", client left")),
        (RequestState::Failed, Some(error)) => put(format_args!(": {error}")),
        _ => {}
    }
}
