//! Applies messages to the state and returns effects. Only this module changes the state, and it
//! performs no effects.

mod dialog;
mod health;
mod keyboard;
mod mouse;
mod navigation;
mod overlay;
mod received;
mod refresh;
mod request;
#[cfg(test)]
mod tests;

use ratatui::crossterm::event::KeyEventKind;

use self::{
    dialog::paste,
    keyboard::on_key,
    mouse::on_mouse,
    received::{on_action_result, on_disconnect, on_event, on_snapshot, on_transcript},
    refresh::{fetch_snapshot, mark_stale, refresh},
};
use crate::{
    events::event::Severity,
    tui::{app::App, effect::Effect, format::FrameContext, msg::Msg},
};

/// Applies one message and returns the resulting effects.
pub fn update(app: &mut App, msg: Msg, now: FrameContext) -> Vec<Effect> {
    match msg {
        Msg::ActionResult(answer) => on_action_result(app, answer, now),
        Msg::Explain { id, text: reply } => {
            if let Some(account) = app.explain.as_mut().filter(|account| account.id == id) {
                account.text = Some(reply);
            }
        }
        Msg::Event(event) => return on_event(app, &event, now),
        Msg::EditorMissing => {
            app.show_toast(now.text.toast.no_editor.clone(), Severity::Warn, now);
        }
        Msg::History { filter, page } => app.history.on_page(&filter, page),
        Msg::Key(key) if key.kind == KeyEventKind::Release => {}
        Msg::Key(key) => return on_key(app, key, now),
        Msg::Disconnected { reason, retry_ms } => on_disconnect(app, reason, retry_ms, now),
        Msg::Mouse(mouse) => return on_mouse(app, mouse, now),
        Msg::Paste(text) => paste(app, &text, now),
        Msg::Resized { columns, rows } => app.size = (columns, rows),
        Msg::Resync => {
            app.show_toast(now.text.toast.resync.clone(), Severity::Warn, now);
            app.snapshot_fetch.overflowed = true;
            return vec![fetch_snapshot(app)];
        }
        Msg::Snapshot(snapshot) => on_snapshot(app, snapshot, now),
        Msg::Transcript(story) => {
            on_transcript(app, story, now);
            return Vec::new();
        }
        Msg::Tick => {
            if app.toast.as_ref().is_some_and(|toast| toast.until <= now.at) {
                app.toast = None;
            }
            mark_stale(app, now);
        }
        Msg::Today(view) => app.usage.set_today(view, now.at),
        Msg::Usage(view) => app.usage.set_view(view, now.at),
    }
    refresh(app, now)
}
