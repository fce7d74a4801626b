//! The state of the dashboard: the data from the proxy and the user's position in the screens.

use crate::{
    base::{clock::UnixMillis, id::RequestId},
    control::{request_transcript::RequestTranscript, snapshot::Snapshot},
    events::{event::Severity, filter::Filter, live::Live, record::RequestRecord},
    tui::{
        effect::Effect,
        format::FrameContext,
        history::{History, UsageView},
        rates::TrafficRates,
        screen::Screen,
    },
};

/// How long a toast is visible.
const TOAST_MS: i64 = 3_000;

/// The state that `draw` reads.
#[derive(Debug)]
pub struct App {
    /// `None` until the first snapshot arrives. Events keep its `live` up to date.
    pub snapshot: Option<Box<Snapshot>>,
    pub connection: ConnState,
    pub rates: TrafficRates,
    pub usage: UsageView,
    pub history: History,
    /// The transcript of the open request.
    pub transcript: Option<Box<RequestTranscript>>,
    /// The explanation of the open request.
    pub explain: Option<ExplainText>,
    /// The most recent replay.
    pub last_replay: Option<RequestId>,
    pub screen: Screen,
    /// The overlay on top of the screen.
    pub overlay: Option<Overlay>,
    pub dialog: Option<Dialog>,
    pub toast: Option<Toast>,
    pub paused: Option<FrozenView>,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// Whether the proxy runs in this process.
    pub in_process: bool,
    /// Texts copied so far: printed on exit, for terminals without clipboard access.
    pub copied: Vec<String>,
    pub(super) transcript_fetch: TranscriptFetch,
    pub(super) snapshot_fetch: SnapshotFetch,
    pub(super) clicked: Option<(RowId, UnixMillis)>,
    list_states: [ListState; Screen::ALL.len()],
}

/// The state of the connection to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnState {
    Connecting,
    Disconnected { reason: String, retry_at: UnixMillis },
    Connected,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// The request under the overlay, if there is one.
    Help {
        scroll: u16,
        request_view: Option<Box<RequestView>>,
    },
    /// The list of all problems, and the request under it, if there is one.
    Problems {
        scroll: u16,
        request_view: Option<Box<RequestView>>,
    },
    Request(RequestView),
}

/// The view of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestView {
    pub id: RequestId,
    pub pane: Pane,
    /// The first visible line of each pane.
    pub scroll: [u16; Pane::ALL.len()],
    /// Whether the view follows a growing answer.
    pub follow: bool,
    /// Shows the raw bytes instead of the parsed messages.
    pub raw: bool,
    /// Shows long system messages in full instead of on one line.
    pub expanded: bool,
}

impl RequestView {
    /// The view at its beginning.
    #[must_use]
    pub fn new(id: RequestId) -> Self {
        Self {
            id,
            pane: Pane::Timeline,
            scroll: [0; Pane::ALL.len()],
            follow: true,
            raw: false,
            expanded: false,
        }
    }
}

/// The explanation of one request, once it is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainText {
    pub id: RequestId,
    /// `None` while it is loading; then the text, or the error.
    pub text: Option<Result<String, String>>,
}

/// A pane of the Request screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    Timeline,
    Conversation,
    Answer,
    Headers,
    /// The text of `aiproxy explain`.
    Explain,
}

impl Pane {
    pub const ALL: [Self; 5] =
        [Self::Timeline, Self::Conversation, Self::Answer, Self::Headers, Self::Explain];

    pub(super) fn cycled(self, steps: usize) -> Self {
        Self::ALL[(self as usize + steps) % Self::ALL.len()]
    }
}

/// Whether the transcript is stale and whether a fetch is pending.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TranscriptFetch {
    pub stale: bool,
    pub pending: bool,
    pub requested_at: UnixMillis,
}

/// A dialog on the bottom line. It receives all key presses until it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialog {
    /// `y` confirms.
    Confirm { question: String, effect: Effect },
    /// Which part of a request to copy.
    Copy { id: RequestId, curl: String },
    /// A filter being typed; Esc restores `previous`.
    Filter { text: String, error: Option<String>, previous: Filter },
    /// The model to replay a request with.
    Replay { id: RequestId, model: String },
    /// Leaving also stops the proxy.
    Stop,
}

/// The result of an action, shown for three seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toast {
    pub text: String,
    pub level: Severity,
    pub until: UnixMillis,
}

/// The frozen view, shown while the proxy continues.
#[derive(Debug)]
pub struct FrozenView {
    pub live: Live,
    pub at: UnixMillis,
}

/// The identity of a row, which preserves the selection while rows move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowId {
    /// A log line: its time and a hash of its text.
    Line(UnixMillis, u64),
    Name(String),
    Request(RequestId),
}

/// A row of a list before it is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRow {
    pub id: RowId,
    /// Height in lines.
    pub height: u16,
}

/// The selection and scroll position of one list.
#[derive(Clone, Debug, Default)]
pub struct ListState {
    /// `None` follows the top row.
    pub selected: Option<RowId>,
    /// Index of the first visible row.
    pub offset: usize,
    pub filter: Filter,
    /// Index of the sort order among the screen's orders.
    pub sort: usize,
    /// Index of the selected row, in case the row disappears.
    pub(super) index: usize,
}

/// How old the snapshot is and whether a newer one is being fetched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SnapshotFetch {
    /// An event arrived since the last fetch.
    pub stale: bool,
    /// Health or config changed, which matters on every screen.
    pub urgent: bool,
    pub pending: bool,
    /// Events were missed: the requests of the next snapshot replace the local ones.
    pub overflowed: bool,
    pub fetched_at: UnixMillis,
}

impl App {
    /// The dashboard before its first snapshot.
    #[must_use]
    pub fn new(screen: Screen, in_process: bool) -> Self {
        Self {
            snapshot: None,
            connection: ConnState::Connecting,
            rates: TrafficRates::default(),
            usage: UsageView::default(),
            history: History::default(),
            transcript: None,
            explain: None,
            last_replay: None,
            screen,
            overlay: None,
            dialog: None,
            toast: None,
            paused: None,
            size: (80, 24),
            in_process,
            copied: Vec::new(),
            transcript_fetch: TranscriptFetch::default(),
            snapshot_fetch: SnapshotFetch::default(),
            clicked: None,
            list_states: Default::default(),
        }
    }

    /// The requests and lines to show: the current ones, or those of the frozen view.
    #[must_use]
    pub fn live(&self) -> Option<&Live> {
        match &self.paused {
            Some(pause) => Some(&pause.live),
            None => self.snapshot.as_ref().map(|s| &s.live),
        }
    }

    /// The time that matches [`App::live`].
    #[must_use]
    pub fn live_now(&self, now: FrameContext) -> FrameContext {
        self.paused.as_ref().map_or(now, |pause| FrameContext { at: pause.at, ..now })
    }

    /// Whether the ledger has not yet answered for the filter of the log.
    #[must_use]
    pub fn is_loading_history(&self) -> bool {
        let ledger = self.snapshot.as_ref().is_some_and(|snapshot| snapshot.ledger.is_some());
        ledger
            && (self.history.filter != self.list_state_of(Screen::Log).filter.text()
                || self.history.pending
                || self.history.needs_fetch())
    }

    /// The request with this id, while it is in memory.
    #[must_use]
    pub fn request(&self, id: RequestId) -> Option<&RequestRecord> {
        let current = self.live().and_then(|live| {
            live.running.get(id).or_else(|| live.finished().rev().find(|r| r.id == id))
        });
        let from_transcript = || self.transcript_of(id).and_then(|story| story.record.as_deref());
        current.or_else(|| self.history.rows.iter().find(|r| r.id == id)).or_else(from_transcript)
    }

    /// The loaded transcript of a request.
    #[must_use]
    pub fn transcript_of(&self, id: RequestId) -> Option<&RequestTranscript> {
        self.transcript.as_deref().filter(|story| story.id == id)
    }

    #[must_use]
    pub fn list_state(&self) -> &ListState {
        self.list_state_of(self.screen)
    }

    #[must_use]
    pub fn list_state_of(&self, screen: Screen) -> &ListState {
        &self.list_states[screen.index()]
    }

    pub(super) fn list_state_mut(&mut self) -> &mut ListState {
        &mut self.list_states[self.screen.index()]
    }

    /// Whether the next second changes the frame: a request is running, or a countdown is active.
    #[must_use]
    pub fn needs_tick(&self, now: UnixMillis) -> bool {
        if self.toast.is_some() || self.connection != ConnState::Connected {
            return true;
        }
        let Some(snapshot) = &self.snapshot else { return false };
        let ahead = |until: Option<UnixMillis>| until.is_some_and(|until| until.0 > now.0 - 1_000);
        !snapshot.live.running.is_empty()
            || snapshot.upstreams.iter().any(|u| ahead(u.until))
            || snapshot.keys.iter().any(|k| ahead(k.until))
            || snapshot.keys.iter().flat_map(|k| &k.scopes).any(|scope| ahead(scope.until))
            // The charts drain over time, and the uptime is shown in minutes.
            || self.rates.requests_per_minute(now) > 0
            || now.0.rem_euclid(60_000) < 1_000
    }

    pub(super) fn select(&mut self, id: RowId) {
        self.list_state_mut().selected = Some(id);
    }

    /// The view of the request that is open in the foreground.
    pub(super) fn request_view(&self) -> Option<RequestView> {
        match &self.overlay {
            Some(Overlay::Request(view)) => Some(*view),
            _ => None,
        }
    }

    pub(super) fn show_toast(&mut self, text: String, level: Severity, now: FrameContext) {
        let until = UnixMillis(now.at.0.saturating_add(TOAST_MS));
        self.toast = Some(Toast { text, level, until });
    }

    /// Asks a yes-or-no question; `y` requests the effect.
    pub(super) fn ask_confirmation(&mut self, question: String, effect: Effect) {
        self.dialog = Some(Dialog::Confirm { question, effect });
    }
}
