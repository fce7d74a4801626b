//! Data from the ledger: totals, and requests older than those in memory.

use crate::{
    base::{clock::UnixMillis, id::RequestId},
    control::{
        history::{self, GroupBy, HistoryPage, UsageReport},
        snapshot::Snapshot,
    },
    events::{live::LiveTotals, record::RequestRecord},
};

/// Upper bound for past requests in memory.
const MAX_ROWS: usize = 2_000;
/// Time spans of the Usage screen, in days.
pub const USAGE_SPANS: [u32; 4] = [1, 7, 30, 90];

/// Usage totals, and whether newer ones are being fetched.
#[derive(Debug)]
pub struct UsageView {
    pub by: GroupBy,
    pub days: u32,
    pub view: Option<Box<UsageReport>>,
    /// Today's totals by key.
    pub today: Option<Box<UsageReport>>,
    /// Why the totals are missing.
    pub error: Option<String>,
    pub(super) pending_query: Option<(GroupBy, u32)>,
    pub(super) requested_at: UnixMillis,
    pub(super) today_pending: bool,
    pub(super) today_at: UnixMillis,
    /// Fetching today's totals failed.
    pub(super) today_failed: bool,
    /// The totals of requests that ended since `today` was fetched; added to it for display.
    /// `demo_delta` counts requests to the built-in upstream.
    pub(super) delta: history::Totals,
    pub(super) demo_delta: u64,
    /// An event arrived since the last fetch.
    pub(super) stale: bool,
    pub(super) today_stale: bool,
}

impl Default for UsageView {
    fn default() -> Self {
        Self {
            by: GroupBy::Model,
            days: 7,
            view: None,
            today: None,
            error: None,
            pending_query: None,
            requested_at: UnixMillis(0),
            today_pending: false,
            today_at: UnixMillis(0),
            today_failed: false,
            delta: history::Totals::default(),
            demo_delta: 0,
            stale: true,
            today_stale: true,
        }
    }
}

impl UsageView {
    /// Selects the next grouping.
    pub(super) fn next_group(&mut self) {
        let at = GroupBy::DASHBOARD.iter().position(|by| *by == self.by).unwrap_or(0);
        self.by = GroupBy::DASHBOARD[(at + 1) % GroupBy::DASHBOARD.len()];
    }

    /// Selects the next time span.
    pub(super) fn next_span(&mut self) {
        let at = USAGE_SPANS.iter().position(|days| *days == self.days).unwrap_or(0);
        self.days = USAGE_SPANS[(at + 1) % USAGE_SPANS.len()];
    }

    /// Replaces today's totals with a new result.
    pub(super) fn set_today(&mut self, view: Result<Box<UsageReport>, String>, at: UnixMillis) {
        (self.today_pending, self.today_at, self.today_failed) = (false, at, view.is_err());
        (self.delta, self.demo_delta) = (history::Totals::default(), 0);
        self.today = view.ok();
    }

    /// Adds the counts of one finished request.
    pub(super) fn add_finished(&mut self, before: &LiveTotals, after: &LiveTotals, demo: bool) {
        (self.stale, self.today_stale) = (true, true);
        if demo {
            self.demo_delta += 1;
        } else {
            self.delta.add(&totals_delta(after, before));
        }
    }

    /// Whether today's totals are still loading.
    #[must_use]
    pub fn is_loading_today(&self, snapshot: Option<&Snapshot>) -> bool {
        self.today.is_none()
            && !self.today_failed
            && snapshot.is_some_and(|snapshot| snapshot.ledger.is_some())
    }

    /// Stores the totals of a grouping, or the error.
    pub(super) fn set_view(&mut self, view: Result<Box<UsageReport>, String>, now: UnixMillis) {
        self.requested_at = now;
        match view {
            Ok(view) => (self.view, self.error) = (Some(view), None),
            Err(why) => self.error = Some(why),
        }
    }

    /// The totals for the selected grouping and span, if they have arrived.
    #[must_use]
    pub fn current_view(&self) -> Option<&UsageReport> {
        self.view.as_deref().filter(|view| view.by == self.by)
    }
}

/// Totals since the start minus the earlier totals.
pub(super) fn totals_delta(totals: &LiveTotals, before: &LiveTotals) -> history::Totals {
    let cached = totals.cached.saturating_sub(before.cached);
    let mut sums = history::Totals {
        requests: totals.requests.saturating_sub(before.requests),
        failed: totals.failed.saturating_sub(before.failed),
        unpriced: totals.unpriced.saturating_sub(before.unpriced),
        affinity_cache_read: totals.affinity_cached.saturating_sub(before.affinity_cached),
        ..history::Totals::default()
    };
    sums.usage.input = totals.input.saturating_sub(before.input).saturating_sub(cached);
    sums.usage.cache_read = cached;
    sums.usage.output = totals.output.saturating_sub(before.output);
    sums.cost.0 = totals.cost.0.saturating_sub(before.cost.0).max(0);
    sums
}

/// Requests older than those known from events, newest first.
#[derive(Debug, Default)]
pub struct History {
    pub rows: Vec<RequestRecord>,
    /// The filter they were fetched with.
    pub filter: String,
    pub(super) next: Option<RequestId>,
    pub(super) started: bool,
    pub(super) pending: bool,
}

impl History {
    /// Clears the history to start again with another filter.
    pub(super) fn restart(&mut self, filter: &str) {
        *self = Self { filter: filter.to_owned(), ..Self::default() };
    }

    /// Whether there is more to fetch.
    pub(super) fn needs_fetch(&self) -> bool {
        !self.pending && (!self.started || (self.next.is_some() && self.rows.len() < MAX_ROWS))
    }

    pub(super) fn on_page(&mut self, filter: &str, page: Result<HistoryPage, String>) {
        if filter != self.filter {
            return;
        }
        self.pending = false;
        self.started = true;
        match page {
            Ok(page) => {
                self.next = page.next;
                self.rows.extend(page.requests);
            }
            // Without a ledger there is no history.
            Err(_) => self.next = None,
        }
    }
}
