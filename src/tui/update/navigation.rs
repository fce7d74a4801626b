//! Handles navigation: scrolling, and opening the target of a row.

use crate::{
    base::id::RequestId,
    events::{event::Severity, filter::Filter, record::RequestRecord},
    tui::{
        app::{App, Overlay, Pane, RequestView, RowId},
        effect::Effect,
        format::FrameContext,
        screen::Screen,
        screens,
        selection::{current_row, move_selection},
        update::refresh::refresh,
    },
};

pub(super) fn go_to_screen(app: &mut App, screen: Screen, now: FrameContext) -> Vec<Effect> {
    app.overlay = None;
    (app.transcript, app.explain) = (None, None);
    app.screen = screen;
    refresh(app, now)
}

/// Opens a screen with a filter.
fn show_filtered(app: &mut App, screen: Screen, filter: &str, now: FrameContext) -> Vec<Effect> {
    let effects = go_to_screen(app, screen, now);
    if let Ok(filter) = Filter::parse(filter) {
        app.list_state_mut().filter = filter;
    }
    effects
}

pub(super) fn scroll(app: &mut App, by: isize, now: FrameContext) {
    let max_scroll = screens::max_overlay_scroll(app, now);
    let moved = |from: u16| {
        u16::try_from(usize::from(from).saturating_add_signed(by))
            .unwrap_or(u16::MAX)
            .min(max_scroll)
    };
    match &mut app.overlay {
        Some(Overlay::Help { scroll, .. } | Overlay::Problems { scroll, .. }) => {
            *scroll = moved(*scroll);
        }
        Some(Overlay::Request(view)) => {
            let follows = view.follow && view.pane == Pane::Answer;
            let scroll = &mut view.scroll[view.pane as usize];
            *scroll = moved(if follows { max_scroll } else { *scroll });
            if view.pane == Pane::Answer {
                view.follow = *scroll >= max_scroll;
            }
        }
        None => move_selection(app, by),
    }
}

pub(super) fn scroll_to_top(app: &mut App) {
    match &mut app.overlay {
        Some(Overlay::Help { scroll, .. } | Overlay::Problems { scroll, .. }) => *scroll = 0,
        Some(Overlay::Request(view)) => {
            view.scroll[view.pane as usize] = 0;
            view.follow &= view.pane != Pane::Answer;
        }
        None => app.list_state_mut().selected = None,
    }
}

pub(super) fn open_request(app: &mut App, id: RequestId, now: FrameContext) -> Vec<Effect> {
    let mut view = RequestView::new(id);
    // A finished request is shown from its beginning.
    view.follow = app.request(id).is_some_and(RequestRecord::is_running);
    app.overlay = Some(Overlay::Request(view));
    (app.transcript, app.explain) = (None, None);
    app.transcript_fetch.stale = true;
    refresh(app, now)
}

pub(super) fn open_row(app: &mut App, now: FrameContext) -> Vec<Effect> {
    let Some(current) = current_row(app) else { return Vec::new() };
    match (app.screen, current) {
        (_, RowId::Request(id)) => {
            app.select(RowId::Request(id));
            return open_request(app, id, now);
        }
        (Screen::Log, line) => match screens::request_of(app, &line) {
            Some(id) => {
                app.select(line);
                return open_request(app, id, now);
            }
            None => app.show_toast(now.text.toast.no_single.clone(), Severity::Info, now),
        },
        (Screen::Keys, RowId::Name(name)) => return show_filtered(app, Screen::Log, &name, now),
        (Screen::Upstreams, RowId::Name(name)) => {
            return show_filtered(app, Screen::Live, &format!("upstream:{name}"), now);
        }
        (Screen::Usage, RowId::Name(name)) => {
            if let Some(filter) = screens::usage_filter(app, &name) {
                return show_filtered(app, Screen::Log, &filter, now);
            }
        }
        _ => {}
    }
    Vec::new()
}
