//! What can happen to the dashboard.

use ratatui::crossterm::event::{KeyEvent, MouseEvent};

use crate::{
    base::id::RequestId,
    control::{
        action::ActionReply,
        history::{HistoryPage, UsageReport},
        request_transcript::RequestTranscript,
        snapshot::Snapshot,
    },
    events::event::Event,
};

/// One happening; `update` says what follows from it.
#[derive(Clone, Debug)]
pub enum Msg {
    /// The whole account of a request, or why there is none.
    Explain {
        id: RequestId,
        text: Result<String, String>,
    },
    /// An act was answered, or could not be asked (`Err` says why).
    ActionResult(Result<ActionReply, String>),
    Event(Box<Event>),
    /// The editor could not be opened.
    EditorMissing,
    /// A page of the past for the filter it was asked with.
    History {
        filter: String,
        page: Result<HistoryPage, String>,
    },
    Key(KeyEvent),
    /// The proxy is gone; how long until the next try.
    Disconnected {
        reason: String,
        retry_ms: u64,
    },
    Mouse(MouseEvent),
    Paste(String),
    Resized {
        columns: u16,
        rows: u16,
    },
    /// This viewer fell behind.
    Resync,
    Snapshot(Box<Snapshot>),
    Transcript(Result<Box<RequestTranscript>, String>),
    /// A second went by.
    Tick,
    Today(Result<Box<UsageReport>, String>),
    Usage(Result<Box<UsageReport>, String>),
}
