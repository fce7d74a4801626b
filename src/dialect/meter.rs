//! Watches streams that pass unchanged: classifies each event and adds up what the answer reports.

use crate::{
    base::json::grammar::JsonError,
    ir::{fault::Fault, usage::Usage},
};

/// Watches the events of a passed-through stream. Reads only those that can contain content, usage,
/// finish or error.
pub trait Meter: Send {
    /// Classifies one event: its name (empty if it has none) and its data with lines joined.
    fn observe(&mut self, name: &[u8], data: &[u8]) -> MeterEvent;

    /// Whether the stream has ended by its grammar.
    fn is_complete(&self) -> bool;

    fn summary(&self) -> AnswerSummary;

    /// Returns the answer's id if clients of the dialect can request the answer later (Responses).
    fn response_id(&self) -> Option<&str> {
        None
    }

    /// Returns the bytes that supply a missing terminator (OpenAI's `[DONE]`) if a stream without
    /// an error ended well.
    fn missing_terminator(&self) -> Option<&'static [u8]>;
}

/// The class of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeterEvent {
    /// An event that is not JSON of the expected kind.
    Invalid(JsonError),
    /// Role, metadata, empty choices: nothing that counts as content.
    Metadata,
    /// A keep-alive of the upstream.
    Ping,
    /// Usage and nothing else; hidden from the client if only aiproxy requested it.
    UsageOnly,
    /// Text, reasoning, a tool call, media.
    Content,
    /// The stream's last event; `is_complete()` is true from here on.
    Terminal,
    /// No content; the event is replaced by these bytes because clients of the dialect cannot read
    /// it.
    Replace(Vec<u8>),
    /// The event is removed: a `[DONE]` in a dialect that has none.
    Drop,
    /// The upstream's error event.
    Error(Box<Fault>),
}

/// Totals and facts of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerSummary {
    pub usage: Option<Usage>,
    /// The finish reason in the upstream's own word.
    pub finish_reason: Option<String>,
    /// The model that answered, as the upstream reports it.
    pub model: Option<String>,
}
