//! Handles key presses: finds the action of a key and performs it.

use ratatui::crossterm::event::{KeyCode, KeyEvent};

use crate::{
    control::action::Action,
    events::event::Severity,
    tui::{
        app::{App, Dialog, FrozenView, Pane},
        effect::Effect,
        format::FrameContext,
        keys::{self, KeyAction},
        screen::Screen,
        screens,
        strings::fill,
        update::{
            dialog::answer_dialog,
            health::{ask_to_cool, ask_to_test, toggle, warm},
            navigation::{go_to_screen, open_request, open_row, scroll, scroll_to_top},
            overlay::{
                cycle_pane, go_back, toggle_expand, toggle_help, toggle_pane, toggle_problems,
                toggle_raw,
            },
            refresh::refresh,
            request::{ask_to_kill, ask_to_replay, copy_menu},
        },
    },
};

pub(super) fn on_key(app: &mut App, key: KeyEvent, now: FrameContext) -> Vec<Effect> {
    if keys::is_interrupt(key) && app.dialog.as_ref().is_none_or(|dialog| *dialog != Dialog::Stop) {
        app.dialog = None;
        return quit(app);
    }
    if let Some(dialog) = app.dialog.take() {
        return answer_dialog(app, dialog, key, now);
    }
    match keys::action_for(app, key) {
        Some(action) => perform_action(app, action, now),
        None => {
            if let KeyCode::Char(c) = key.code {
                app.show_toast(
                    fill(&now.text.toast.nothing_here, &[("key", &c.to_string())]),
                    Severity::Info,
                    now,
                );
            }
            Vec::new()
        }
    }
}

fn perform_action(app: &mut App, action: KeyAction, now: FrameContext) -> Vec<Effect> {
    match action {
        KeyAction::Back => go_back(app),
        KeyAction::ShowReplay => return show_replay(app, now),
        KeyAction::Bottom => scroll(app, isize::MAX, now),
        KeyAction::Cool => ask_to_cool(app, now),
        KeyAction::Copy => return copy_menu(app, now),
        KeyAction::CycleDays => {
            app.usage.next_span();
            return refresh(app, now);
        }
        KeyAction::Down => scroll(app, 1, now),
        KeyAction::Edit => return edit_config(app, now),
        KeyAction::Filter => open_filter(app),
        KeyAction::GoTo(screen) => return go_to_screen(app, screen, now),
        KeyAction::CycleGroup => {
            app.usage.next_group();
            app.list_state_mut().selected = None;
            return refresh(app, now);
        }
        KeyAction::Explain => {
            toggle_pane(app, Pane::Explain);
            return refresh(app, now);
        }
        KeyAction::Headers => toggle_pane(app, Pane::Headers),
        KeyAction::Help => toggle_help(app),
        KeyAction::Kill => ask_to_kill(app, now),
        KeyAction::NextPane => return cycle_pane(app, 1, now),
        KeyAction::NextScreen => return go_to_screen(app, app.screen.cycled(1), now),
        KeyAction::Open => return open_row(app, now),
        KeyAction::PageDown => scroll(app, page_size(app), now),
        KeyAction::PageUp => scroll(app, -page_size(app), now),
        KeyAction::Pause => toggle_pause(app, now),
        KeyAction::PreviousPane => return cycle_pane(app, Pane::ALL.len() - 1, now),
        KeyAction::PreviousScreen => {
            return go_to_screen(app, app.screen.cycled(Screen::ALL.len() - 1), now);
        }
        KeyAction::Problems => toggle_problems(app),
        KeyAction::Quit => return quit(app),
        KeyAction::Raw => {
            toggle_raw(app);
            return refresh(app, now);
        }
        KeyAction::Replay => ask_to_replay(app, now),
        KeyAction::Reload => return vec![Effect::Action(Action::Reload)],
        KeyAction::Sort => {
            let orders = screens::orders(app).len();
            let list = app.list_state_mut();
            list.sort = (list.sort + 1) % orders.max(1);
        }
        KeyAction::Test => ask_to_test(app, now),
        KeyAction::Toggle => return toggle(app),
        KeyAction::Top => scroll_to_top(app),
        KeyAction::ToggleExpand => toggle_expand(app),
        KeyAction::Up => scroll(app, -1, now),
        KeyAction::Warm => return warm(app, now),
    }
    Vec::new()
}

fn show_replay(app: &mut App, now: FrameContext) -> Vec<Effect> {
    match app.last_replay {
        Some(id) => open_request(app, id, now),
        None => {
            app.show_toast(now.text.toast.none_began.clone(), Severity::Info, now);
            Vec::new()
        }
    }
}

fn edit_config(app: &mut App, now: FrameContext) -> Vec<Effect> {
    match app.snapshot.as_ref().and_then(|s| s.config.path.clone()) {
        Some(path) => vec![Effect::Edit(path)],
        None => {
            app.show_toast(now.text.toast.no_editor.clone(), Severity::Warn, now);
            Vec::new()
        }
    }
}

fn open_filter(app: &mut App) {
    let previous = app.list_state().filter.clone();
    let text = previous.text().to_owned();
    app.dialog = Some(Dialog::Filter { text, error: None, previous });
}

fn toggle_pause(app: &mut App, now: FrameContext) {
    let live = app.snapshot.as_ref().map(|s| s.live.clone());
    app.paused = match app.paused {
        Some(_) => None,
        None => live.map(|live| FrozenView { live, at: now.at }),
    };
}

fn quit(app: &mut App) -> Vec<Effect> {
    if app.in_process {
        app.dialog = Some(Dialog::Stop);
        return Vec::new();
    }
    vec![Effect::Leave { stop_proxy: false }]
}

fn page_size(app: &App) -> isize {
    isize::try_from(app.size.1.saturating_sub(8).max(1)).unwrap_or(1)
}
