//! What the ledger told: sums, and requests from before those that are held anyway.

use crate::{
    base::{clock::UnixMillis, id::RequestId},
    control::history::{By, Page, View},
    events::record::RequestRecord,
};

/// Requests of the past held at once.
const MOST: usize = 2_000;
/// Spans that the Usage screen goes through.
pub const DAYS: [u32; 4] = [1, 7, 30, 90];

/// Sums, and whether newer ones are on their way.
#[derive(Debug)]
pub struct Sums {
    pub by: By,
    pub days: u32,
    pub view: Option<Box<View>>,
    /// Today, by key.
    pub today: Option<Box<View>>,
    /// Why there are none.
    pub error: Option<String>,
    pub(super) asked: Option<(By, u32)>,
    pub(super) at: UnixMillis,
    pub(super) today_asked: bool,
    pub(super) today_at: UnixMillis,
    /// The sum since the start when today's were told: what came since is added to them.
    pub(super) today_base: i64,
    /// Something happened since.
    pub(super) stale: bool,
    pub(super) today_stale: bool,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            by: By::Model,
            days: 7,
            view: None,
            today: None,
            error: None,
            asked: None,
            at: UnixMillis(0),
            today_asked: false,
            today_at: UnixMillis(0),
            today_base: 0,
            stale: true,
            today_stale: true,
        }
    }
}

impl Sums {
    /// The next thing to tell apart by.
    pub(super) fn group(&mut self) {
        let at = By::ALL.iter().position(|by| *by == self.by).unwrap_or(0);
        self.by = By::ALL[(at + 1) % By::ALL.len()];
    }

    /// The next span.
    pub(super) fn span(&mut self) {
        let at = DAYS.iter().position(|days| *days == self.days).unwrap_or(0);
        self.days = DAYS[(at + 1) % DAYS.len()];
    }

    /// The sums as asked for, where they are there.
    #[must_use]
    pub fn shown(&self) -> Option<&View> {
        self.view.as_deref().filter(|view| view.by == self.by)
    }
}

/// Requests from before those that the events tell of, the newest first.
#[derive(Debug, Default)]
pub struct Past {
    pub rows: Vec<RequestRecord>,
    /// The filter they were asked with.
    pub filter: String,
    pub(super) next: Option<RequestId>,
    pub(super) begun: bool,
    pub(super) pending: bool,
}

impl Past {
    /// Forgets everything, to begin anew with another filter.
    pub(super) fn restart(&mut self, filter: &str) {
        *self = Self { filter: filter.to_owned(), ..Self::default() };
    }

    /// Whether there is more to ask for.
    pub(super) fn wants(&self) -> bool {
        !self.pending && (!self.begun || (self.next.is_some() && self.rows.len() < MOST))
    }

    pub(super) fn came(&mut self, filter: &str, page: Result<Page, String>) {
        if filter != self.filter {
            return;
        }
        self.pending = false;
        self.begun = true;
        match page {
            Ok(page) => {
                self.next = page.next;
                self.rows.extend(page.requests);
            }
            // Without a ledger there is no past.
            Err(_) => self.next = None,
        }
    }
}
