//! Opens and closes the overlays: a request and its panes, the help page, the list of problems.

use crate::{
    events::filter::Filter,
    tui::{
        app::{App, Overlay, Pane, RequestView},
        effect::Effect,
        format::FrameContext,
        update::refresh::refresh,
    },
};

pub(super) fn go_back(app: &mut App) {
    match app.overlay.take() {
        Some(
            Overlay::Help { request_view: Some(view), .. }
            | Overlay::Problems { request_view: Some(view), .. },
        ) => app.overlay = Some(Overlay::Request(*view)),
        // Transcripts are freed when their view closes.
        Some(_) => (app.transcript, app.explain) = (None, None),
        None => {
            let list = app.list_state_mut();
            list.filter = Filter::default();
            list.selected = None;
        }
    }
}

pub(super) fn cycle_pane(app: &mut App, steps: usize, now: FrameContext) -> Vec<Effect> {
    if let Some(Overlay::Request(view)) = &mut app.overlay {
        view.pane = view.pane.cycled(steps);
    }
    refresh(app, now)
}

/// Switches to a pane, or from that pane back to the first.
pub(super) fn toggle_pane(app: &mut App, pane: Pane) {
    if let Some(Overlay::Request(view)) = &mut app.overlay {
        view.pane = if view.pane == pane { Pane::Timeline } else { pane };
    }
}

/// The request under an overlay.
fn underlying_request(overlay: Option<Overlay>) -> Option<Box<RequestView>> {
    match overlay? {
        Overlay::Help { request_view: under, .. }
        | Overlay::Problems { request_view: under, .. } => under,
        Overlay::Request(view) => Some(Box::new(view)),
    }
}

/// Opens or closes the list of all problems.
pub(super) fn toggle_problems(app: &mut App) {
    app.overlay = match app.overlay.take() {
        Some(Overlay::Problems { request_view: under, .. }) => {
            under.map(|view| Overlay::Request(*view))
        }
        overlay => Some(Overlay::Problems { scroll: 0, request_view: underlying_request(overlay) }),
    };
}

/// Opens or closes the help page.
pub(super) fn toggle_help(app: &mut App) {
    app.overlay = match app.overlay.take() {
        Some(Overlay::Help { request_view: under, .. }) => {
            under.map(|view| Overlay::Request(*view))
        }
        overlay => Some(Overlay::Help { scroll: 0, request_view: underlying_request(overlay) }),
    };
}

/// Toggles between long system messages in full and on one line.
pub(super) fn toggle_expand(app: &mut App) {
    if let Some(Overlay::Request(view)) = &mut app.overlay {
        view.expanded = !view.expanded;
        view.pane = Pane::Conversation;
        view.scroll[Pane::Conversation as usize] = 0;
    }
}

/// Toggles between raw bytes and parsed messages.
pub(super) fn toggle_raw(app: &mut App) {
    if let Some(Overlay::Request(view)) = &mut app.overlay {
        view.raw = !view.raw;
        view.scroll = RequestView::new(view.id).scroll;
        if !matches!(view.pane, Pane::Answer | Pane::Conversation) {
            view.pane = Pane::Answer;
        }
    }
}
