//! The state of the dashboard: what is known of the proxy, and where its reader is.

use super::{
    effect::Effect,
    format::Now,
    layout::Layout,
    past::{Past, Sums},
    rates::Rates,
    screens::{self, Screen},
};
use crate::{
    base::{clock::UnixMillis, id::RequestId},
    control::{snapshot::Snapshot, story::RequestTranscript},
    events::{filter::Filter, kind::Severity, live::Live, record::RequestRecord},
};

/// Everything that `draw` looks at.
#[derive(Debug)]
pub struct App {
    /// `None` until the first one came. Its `live` goes on with the events.
    pub snapshot: Option<Box<Snapshot>>,
    pub link: Link,
    pub rates: Rates,
    pub sums: Sums,
    pub past: Past,
    /// What was said in the request that is looked at.
    pub story: Option<Box<RequestTranscript>>,
    /// The account of the request that is looked at.
    pub account: Option<Account>,
    /// What was sent again last.
    pub began: Option<RequestId>,
    pub screen: Screen,
    /// What lies over the screen.
    pub over: Option<Over>,
    pub dialog: Option<Dialog>,
    pub toast: Option<Toast>,
    pub paused: Option<Pause>,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// The proxy runs in this process.
    pub in_process: bool,
    /// What was copied: printed when the reader leaves, for terminals that take nothing into their
    /// clipboard.
    pub copied: Vec<String>,
    pub(super) reading: Reading,
    pub(super) fresh: Freshness,
    pub(super) clicked: Option<(RowId, UnixMillis)>,
    places: [Place; Screen::ALL.len()],
}

/// The line to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    Connecting,
    Lost { why: String, retry_at: UnixMillis },
    Up,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// Over a request, where there is one under it.
    Help {
        scroll: u16,
        under: Option<Box<Look>>,
    },
    /// All that is wrong now; over a request, where there is one under it.
    Problems {
        scroll: u16,
        under: Option<Box<Look>>,
    },
    Request(Look),
}

/// A look at one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub id: RequestId,
    pub pane: Pane,
    /// First line shown of each pane.
    pub scroll: [u16; Pane::ALL.len()],
    /// Goes on with an answer that grows.
    pub follow: bool,
    /// Bytes, not what they say.
    pub raw: bool,
    /// Long system messages as a whole, not as a line.
    pub unfolded: bool,
}

impl Look {
    /// A look from the beginning.
    #[must_use]
    pub fn at(id: RequestId) -> Self {
        Self {
            id,
            pane: Pane::Way,
            scroll: [0; Pane::ALL.len()],
            follow: true,
            raw: false,
            unfolded: false,
        }
    }
}

/// The account of one request, asked for and perhaps told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub id: RequestId,
    /// `None` while it is awaited; else the text, or why there is none.
    pub said: Option<Result<String, String>>,
}

/// A part of the Request screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    Way,
    Conversation,
    Answer,
    Headers,
    /// The text of `aiproxy explain`.
    Account,
}

impl Pane {
    pub const ALL: [Self; 5] =
        [Self::Way, Self::Conversation, Self::Answer, Self::Headers, Self::Account];

    pub(super) fn after(self, steps: usize) -> Self {
        Self::ALL[(self as usize + steps) % Self::ALL.len()]
    }
}

/// Whether more of the story is on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    pub stale: bool,
    pub pending: bool,
    pub at: UnixMillis,
}

/// A question at the bottom of the screen; it has the keys until it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialog {
    /// `y` does it.
    Ask { question: String, effect: Effect },
    /// What of a request to copy.
    Copy { id: RequestId, curl: String },
    /// A filter being typed; `before` comes back on Esc.
    Filter { text: String, error: Option<String>, before: Filter },
    /// The model that a request is to be sent to again.
    Replay { id: RequestId, model: String },
    /// Leaving ends more than the dashboard.
    Stop,
}

/// The result of an act, for three seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toast {
    pub text: String,
    pub level: Severity,
    pub until: UnixMillis,
}

/// The picture that is frozen while the proxy goes on.
#[derive(Debug)]
pub struct Pause {
    pub live: Live,
    pub at: UnixMillis,
}

/// What a row stands for: it stays selected by this while rows move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowId {
    /// A log line: its time and a sum of its text.
    Line(UnixMillis, u64),
    Name(String),
    Request(RequestId),
}

/// A row of a list, before it is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: RowId,
    /// Lines it takes.
    pub height: u16,
}

/// Where the reader is in one list.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// `None` follows the top.
    pub selected: Option<RowId>,
    /// The first row shown.
    pub offset: usize,
    pub filter: Filter,
    /// Which of the screen's orders.
    pub sort: usize,
    /// Where the selected row was, for when it leaves.
    index: usize,
}

/// How old the views of upstreams and keys are, and whether newer ones are on their way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Freshness {
    /// Something happened since.
    pub stale: bool,
    /// Health or config changed: it matters on every screen.
    pub urgent: bool,
    pub pending: bool,
    /// Events were missed: the requests of the next snapshot count, not ours.
    pub missed: bool,
    pub at: UnixMillis,
}

impl App {
    /// The dashboard before it knows anything.
    #[must_use]
    pub fn new(screen: Screen, in_process: bool) -> Self {
        Self {
            snapshot: None,
            link: Link::Connecting,
            rates: Rates::default(),
            sums: Sums::default(),
            past: Past::default(),
            story: None,
            account: None,
            began: None,
            screen,
            over: None,
            dialog: None,
            toast: None,
            paused: None,
            size: (80, 24),
            in_process,
            copied: Vec::new(),
            reading: Reading::default(),
            fresh: Freshness::default(),
            clicked: None,
            places: Default::default(),
        }
    }

    /// The requests and lines to show: as they are, or as they were when the picture was frozen.
    #[must_use]
    pub fn live(&self) -> Option<&Live> {
        match &self.paused {
            Some(pause) => Some(&pause.live),
            None => self.snapshot.as_ref().map(|s| &s.live),
        }
    }

    /// The time that belongs to [`App::live`].
    #[must_use]
    pub fn live_now(&self, now: Now) -> Now {
        self.paused.as_ref().map_or(now, |pause| Now { at: pause.at, ..now })
    }

    /// Whether the ledger has yet to tell what was before, for the filter of the log.
    #[must_use]
    pub fn past_awaited(&self) -> bool {
        let ledger = self.snapshot.as_ref().is_some_and(|snapshot| snapshot.ledger.is_some());
        ledger
            && (self.past.filter != self.place_of(Screen::Log).filter.text()
                || self.past.pending
                || self.past.wants())
    }

    /// The request with this id, as long as it is kept.
    #[must_use]
    pub fn request(&self, id: RequestId) -> Option<&RequestRecord> {
        let held = self.live().and_then(|live| {
            live.running.get(id).or_else(|| live.finished().rev().find(|r| r.id == id))
        });
        let told = || self.told(id).and_then(|story| story.record.as_deref());
        held.or_else(|| self.past.rows.iter().find(|r| r.id == id)).or_else(told)
    }

    /// What is known of what was said in a request.
    #[must_use]
    pub fn told(&self, id: RequestId) -> Option<&RequestTranscript> {
        self.story.as_deref().filter(|story| story.id == id)
    }

    #[must_use]
    pub fn place(&self) -> &Place {
        self.place_of(self.screen)
    }

    #[must_use]
    pub fn place_of(&self, screen: Screen) -> &Place {
        &self.places[screen.index()]
    }

    pub(super) fn place_mut(&mut self) -> &mut Place {
        &mut self.places[self.screen.index()]
    }

    /// The row that keys act on: the selected one, else the first.
    #[must_use]
    pub fn current(&self) -> Option<RowId> {
        self.place()
            .selected
            .clone()
            .or_else(|| screens::entries(self).into_iter().next().map(|entry| entry.id))
    }

    /// Whether a second more changes the picture: something runs, or a wait counts down.
    #[must_use]
    pub fn counting(&self, now: UnixMillis) -> bool {
        if self.toast.is_some() || self.link != Link::Up {
            return true;
        }
        let Some(snapshot) = &self.snapshot else { return false };
        let ahead = |until: Option<UnixMillis>| until.is_some_and(|until| until.0 > now.0 - 1_000);
        !snapshot.live.running.is_empty()
            || snapshot.upstreams.iter().any(|u| ahead(u.until))
            || snapshot.keys.iter().any(|k| ahead(k.until) || k.scopes.iter().any(|s| ahead(s.until)))
            // The charts run empty, and the time since the start is told by the minute.
            || self.rates.requests_per_minute(now) > 0
            || now.0.rem_euclid(60_000) < 1_000
    }

    /// Moves the selection by rows; the top that was followed counts as selected, as the mark
    /// stands there.
    pub(super) fn step(&mut self, by: isize) {
        let entries = screens::entries(self);
        let Some(last) = entries.len().checked_sub(1) else { return };
        let place = self.place_mut();
        let at = match position(&entries, place.selected.as_ref()) {
            Some(at) => at.saturating_add_signed(by).min(last),
            None if by > 0 => by.unsigned_abs().min(last),
            None => 0,
        };
        place.index = at;
        place.selected = entries.into_iter().nth(at).map(|entry| entry.id);
    }

    pub(super) fn select(&mut self, id: RowId) {
        self.place_mut().selected = Some(id);
    }

    /// Brings selection and scrolling into line with the rows there are; before each frame.
    pub fn settle(&mut self, now: Now) {
        let entries = screens::entries(self);
        let (columns, rows) = self.size;
        let room = screens::list_area(self, Layout::of(self, columns, rows, now).body).height;
        let place = self.place_mut();
        if place.selected.is_some() {
            match position(&entries, place.selected.as_ref()) {
                Some(at) => place.index = at,
                None => {
                    place.index = place.index.min(entries.len().saturating_sub(1));
                    place.selected = entries.get(place.index).map(|entry| entry.id.clone());
                }
            }
        }
        let shown = if place.selected.is_some() { place.index } else { 0 };
        place.offset = place.offset.min(shown).min(entries.len().saturating_sub(1));
        while place.offset < shown && height(&entries[place.offset..=shown]) > room {
            place.offset += 1;
        }
        // No empty lines at the end while there are rows above.
        while place.offset > 0 && height(&entries[place.offset - 1..]) <= room {
            place.offset -= 1;
        }
    }
}

fn position(entries: &[Entry], id: Option<&RowId>) -> Option<usize> {
    entries.iter().position(|entry| Some(&entry.id) == id)
}

fn height(entries: &[Entry]) -> u16 {
    entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.height))
}
