//! The messages that the dashboard processes.

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

/// One message; `update` applies it.
#[derive(Clone, Debug)]
pub enum Msg {
    /// The full explanation of a request, or the error.
    Explain {
        id: RequestId,
        text: Result<String, String>,
    },
    /// The proxy answered an action, or the call failed (`Err` contains the reason).
    ActionResult(Result<ActionReply, String>),
    Event(Box<Event>),
    /// The editor could not be opened.
    EditorMissing,
    /// A page of history for the filter it was requested with.
    History {
        filter: String,
        page: Result<HistoryPage, String>,
    },
    Key(KeyEvent),
    /// The connection to the proxy is lost; contains the delay until the next attempt.
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
    /// This viewer fell behind and has to fetch a new snapshot.
    Resync,
    Snapshot(Box<Snapshot>),
    Transcript(Result<Box<RequestTranscript>, String>),
    /// One second passed.
    Tick,
    Today(Result<Box<UsageReport>, String>),
    Usage(Result<Box<UsageReport>, String>),
}
