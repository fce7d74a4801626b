//! What the dashboard wants done outside of itself.

use crate::{
    base::id::RequestId,
    control::{action::Action, history::GroupBy, request_transcript::TranscriptQuery},
};

/// One wish; the loop carries it out and answers with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Action(Action),
    /// Into the clipboard of the terminal.
    Copy(String),
    /// Opens a file in the reader's editor.
    Edit(String),
    /// The whole account of a request, as text.
    FetchExplain {
        id: RequestId,
    },
    FetchHistory {
        filter: String,
        before: Option<RequestId>,
    },
    FetchSnapshot,
    FetchTranscript {
        id: RequestId,
        query: TranscriptQuery,
    },
    /// Today's sums by key.
    FetchToday,
    FetchUsage {
        by: GroupBy,
        days: u32,
    },
    Leave {
        stop_proxy: bool,
    },
}
