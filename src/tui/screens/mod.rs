//! The screens. Each one answers one question and has its own module.

mod cells;
mod config;
mod help;
mod keys;
mod list;
mod live;
mod log;
mod models;
mod problems;
mod request;
mod upstreams;
mod usage;

use ratatui::layout::Rect;

use self::{
    keys::KeyList, live::LiveList, log::LogList, models::ModelList, upstreams::UpstreamList,
    usage::UsageList,
};
use crate::{
    base::id::RequestId,
    control::snapshot::{KeyStatus, Snapshot, UpstreamState},
    tui::{
        app::{App, ListRow, Overlay, RowId},
        format::FrameContext,
        layout::Layout,
        problem::key_name,
        screen::Screen,
        strings::TextFn,
        widgets::canvas::Canvas,
    },
};

/// Draws the current screen, or the overlay on top of it.
pub fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    match &app.overlay {
        Some(Overlay::Help { scroll, .. }) => return help::draw(app, now, canvas, area, *scroll),
        Some(Overlay::Problems { scroll, .. }) => {
            return problems::draw(app, now, canvas, area, *scroll);
        }
        Some(Overlay::Request(view)) => {
            return request::draw(app, app.live_now(now), canvas, area, view);
        }
        None => {}
    }
    match app.screen {
        Screen::Config => config::draw(app, now, canvas, area),
        Screen::Keys => list::draw::<KeyList>(app, now, canvas, area),
        Screen::Live => live::draw(app, now, canvas, area),
        Screen::Log => list::draw::<LogList>(app, now, canvas, area),
        Screen::Models => list::draw::<ModelList>(app, now, canvas, area),
        Screen::Upstreams => list::draw::<UpstreamList>(app, now, canvas, area),
        Screen::Usage => usage::draw(app, now, canvas, area),
    }
}

/// The rows of the screen's list, in display order.
#[must_use]
pub fn list_rows(app: &App) -> Vec<ListRow> {
    match app.screen {
        Screen::Config => Vec::new(),
        Screen::Keys => list::list_rows::<KeyList>(app),
        Screen::Live => list::list_rows::<LiveList>(app),
        Screen::Log => list::list_rows::<LogList>(app),
        Screen::Models => list::list_rows::<ModelList>(app),
        Screen::Upstreams => list::list_rows::<UpstreamList>(app),
        Screen::Usage => list::list_rows::<UsageList>(app),
    }
}

/// The labels of the orders that `s` cycles through; the first is the default.
#[must_use]
pub fn orders(app: &App) -> Vec<TextFn> {
    match app.screen {
        Screen::Config => Vec::new(),
        Screen::Keys => list::orders::<KeyList>(app),
        Screen::Live => list::orders::<LiveList>(app),
        Screen::Log => list::orders::<LogList>(app),
        Screen::Models => list::orders::<ModelList>(app),
        Screen::Upstreams => list::orders::<UpstreamList>(app),
        Screen::Usage => list::orders::<UsageList>(app),
    }
}

/// The part of the body that contains rows.
#[must_use]
pub fn list_area(app: &App, body: Rect) -> Rect {
    let above = match app.screen {
        Screen::Live => live::charts::chart_height(body),
        Screen::Usage => usage::head_height(app, body),
        _ => 0,
    } + 1;
    let below = if app.screen == Screen::Live { live::preview_area(app, body).height } else { 0 };
    let above = above.min(body.height);
    Rect { y: body.y + above, height: body.height.saturating_sub(above + below), ..body }
}

/// The request whose transcript is on the screen, and whether its raw form is shown: the open one,
/// or the selected one of a tall Live screen.
#[must_use]
pub fn shown_request(app: &App, now: FrameContext) -> Option<(RequestId, bool)> {
    if let Some(view) = app.request_view() {
        return Some((view.id, view.raw));
    }
    let body = Layout::compute(app, app.size.0, app.size.1, now).body;
    let is_preview = app.overlay.is_none()
        && app.screen == Screen::Live
        && live::preview_area(app, body).height > 0;
    live::previewed_request(app).filter(|_| is_preview).map(|r| (r.id, false))
}

/// The row at a line of the terminal.
#[must_use]
pub fn row_at(app: &App, body: Rect, line: u16) -> Option<RowId> {
    let list = list_area(app, body);
    if line < list.y || line >= list.bottom() {
        return None;
    }
    let mut y = list.y;
    for entry in list_rows(app).into_iter().skip(app.list_state().offset) {
        y += entry.height;
        if line < y {
            return Some(entry.id);
        }
    }
    None
}

/// How far the overlay can be scrolled.
#[must_use]
pub fn max_overlay_scroll(app: &App, now: FrameContext) -> u16 {
    let lines = match &app.overlay {
        Some(Overlay::Help { .. }) => help::line_count(app, now),
        Some(Overlay::Problems { .. }) => problems::lines(app, now, app.size.0).len(),
        Some(Overlay::Request(view)) => return request::max_scroll(app, now, view),
        None => 0,
    };
    u16::try_from(lines).unwrap_or(u16::MAX).saturating_sub(app.size.1.saturating_sub(6))
}

/// The request that a log line belongs to.
#[must_use]
pub fn request_of(app: &App, line: &RowId) -> Option<RequestId> {
    log::request_of(app, line)
}

pub(super) fn upstream_disabled(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.upstreams.iter().any(|u| u.name == name && u.state == UpstreamState::Disabled)
}

pub(super) fn key_disabled(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.keys.iter().any(|k| key_name(k) == name && k.state == KeyStatus::Disabled)
}

/// The log filter that selects the requests summed in a usage row.
pub(super) fn usage_filter(app: &App, name: &str) -> Option<String> {
    usage::log_filter(app, name)
}
