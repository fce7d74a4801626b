//! Lines of the log as viewers see it.

use std::{
    fmt::{self, Write},
    ops::Deref,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    kind::Level,
    record::{RequestRecord, State},
};
use crate::base::{clock::UnixMillis, id::RequestId};

/// One line of the Log screen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    pub at: UnixMillis,
    pub level: Level,
    pub text: Text,
    /// The request it is about.
    pub id: Option<RequestId>,
}

impl Line {
    /// A line that is there as text.
    #[must_use]
    pub fn told(
        at: UnixMillis,
        level: Level,
        text: impl Into<Arc<str>>,
        id: Option<RequestId>,
    ) -> Self {
        Self { at, level, text: Text { written: OnceLock::from(text.into()), of: None }, id }
    }

    /// The line that a request ends with.
    #[must_use]
    pub fn of_request(at: UnixMillis, record: Arc<RequestRecord>) -> Self {
        let (level, id) = (level(&record), Some(record.id));
        Self { at, level, text: Text { written: OnceLock::new(), of: Some(record) }, id }
    }
}

/// The text of a line: of a finished request it is only written when somebody reads it, which is
/// seldom.
#[derive(Clone, Debug, Default)]
pub struct Text {
    written: OnceLock<Arc<str>>,
    of: Option<Arc<RequestRecord>>,
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.written.get_or_init(|| {
            let mut text = String::new();
            if let Some(record) = &self.of {
                summary(record, &mut text);
            }
            text.into()
        })
    }
}

impl<T: Into<Arc<str>>> From<T> for Text {
    fn from(text: T) -> Self {
        Self { written: OnceLock::from(text.into()), of: None }
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Arc::<str>::deserialize(from).map(Self::from)
    }
}

/// How much the end of a request matters.
#[must_use]
pub fn level(record: &RequestRecord) -> Level {
    if record.state == State::Failed { Level::Error } else { Level::Info }
}

/// Writes the line that a request ends with.
pub fn summary(record: &RequestRecord, out: &mut String) {
    // Writing into a string does not fail.
    let mut put = |text: fmt::Arguments<'_>| out.write_fmt(text).unwrap_or_default();
    put(format_args!("{} {} ", record.project, record.asked));
    match record.status {
        Some(status) => put(format_args!("{status}")),
        None => put(format_args!("–")),
    }
    if let Some(attempt) = record.last() {
        let slash = if attempt.key.is_empty() { "" } else { "/" };
        put(format_args!(" by {}{slash}{}", attempt.upstream, attempt.key));
    }
    put(format_args!(" in {} ms", record.duration_ms.unwrap_or_default()));
    match (record.state, &record.error) {
        (State::Left, _) => put(format_args!(", client left")),
        (State::Failed, Some(error)) => put(format_args!(": {error}")),
        _ => {}
    }
}
