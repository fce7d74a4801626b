//! The side effects that the dashboard requests.

use crate::{
    base::id::RequestId,
    control::{action::Action, history::GroupBy, request_transcript::TranscriptQuery},
};

/// One effect. The loop performs it and answers with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Action(Action),
    /// Copies a text to the terminal's clipboard.
    Copy(String),
    /// Opens a file in the user's editor.
    Edit(String),
    /// Fetches the full explanation of a request as text.
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
    /// Fetches today's totals by key.
    FetchToday,
    FetchUsage {
        by: GroupBy,
        days: u32,
    },
    Leave {
        stop_proxy: bool,
    },
}
