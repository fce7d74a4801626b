//! Handles input for the dialog on the bottom line.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::{
    control::action::Action,
    events::filter::Filter,
    tui::{
        app::{App, Dialog},
        effect::Effect,
        format::FrameContext,
        keys,
        strings::fill,
        update::request::{copy_answer, copy_text},
    },
};

/// Upper bound for the typed text.
const MAX_TYPED_CHARS: usize = 200;

/// Handles a key press while a dialog is open.
pub(super) fn answer_dialog(
    app: &mut App,
    dialog: Dialog,
    key: KeyEvent,
    now: FrameContext,
) -> Vec<Effect> {
    match (dialog, key.code) {
        (Dialog::Confirm { effect, .. }, KeyCode::Char('y' | 'Y')) => return vec![effect],
        (Dialog::Confirm { .. }, KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc) => {}
        (Dialog::Copy { curl, .. }, KeyCode::Char('c' | 'y') | KeyCode::Enter) => {
            return copy_text(app, curl, &now.text.toast.the_curl, now);
        }
        (Dialog::Copy { id, .. }, KeyCode::Char('i')) => {
            return copy_text(app, id.to_string(), &now.text.toast.the_id, now);
        }
        (Dialog::Copy { id, .. }, KeyCode::Char('b')) => return copy_answer(app, id, now),
        (Dialog::Copy { .. }, KeyCode::Char('n' | 'q') | KeyCode::Esc) => {}
        (Dialog::Replay { .. }, KeyCode::Esc) => {}
        (Dialog::Replay { id, model }, KeyCode::Enter) => {
            let model = model.trim().to_owned();
            return vec![Effect::Action(Action::Replay {
                id: id.to_string(),
                model: (!model.is_empty()).then_some(model),
            })];
        }
        (Dialog::Replay { id, mut model }, code) => {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match code {
                KeyCode::Backspace => drop(model.pop()),
                KeyCode::Char('u' | 'w') if control => model.clear(),
                KeyCode::Char(c) if !control && model.chars().count() < MAX_TYPED_CHARS => {
                    model.push(c);
                }
                _ => {}
            }
            app.dialog = Some(Dialog::Replay { id, model });
        }
        (Dialog::Stop, KeyCode::Char('y' | 'Y')) => {
            return vec![Effect::Leave { stop_proxy: true }];
        }
        (Dialog::Stop, KeyCode::Char('n' | 'N')) => {
            return vec![Effect::Leave { stop_proxy: false }];
        }
        (Dialog::Stop, KeyCode::Esc) => {}
        (Dialog::Stop, _) if keys::is_interrupt(key) => {
            return vec![Effect::Leave { stop_proxy: true }];
        }
        (Dialog::Filter { previous: before, .. }, KeyCode::Esc) => {
            app.list_state_mut().filter = before;
        }
        (Dialog::Filter { error: None, .. }, KeyCode::Enter) => {}
        (dialog @ Dialog::Filter { .. }, code) => {
            app.dialog = Some(dialog);
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match code {
                KeyCode::Backspace => {
                    type_into_filter(app, now, |text| {
                        text.truncate(text.char_indices().next_back().map_or(0, |(at, _)| at));
                    });
                }
                KeyCode::Char('u' | 'w') if control => type_into_filter(app, now, String::clear),
                KeyCode::Char(c) if !control => type_into_filter(app, now, |text| text.push(c)),
                _ => {}
            }
        }
        (dialog, _) => app.dialog = Some(dialog),
    }
    Vec::new()
}

/// Pastes text into the dialog that is being typed into.
pub(super) fn paste(app: &mut App, text: &str, now: FrameContext) {
    let plain = || text.chars().filter(|c| !c.is_control());
    match &mut app.dialog {
        Some(Dialog::Filter { .. }) => type_into_filter(app, now, |typed| typed.extend(plain())),
        Some(Dialog::Replay { model, .. }) => model.extend(plain().take(MAX_TYPED_CHARS)),
        _ => {}
    }
}

/// Typing takes effect immediately. While the filter is invalid, the previous rows stay.
fn type_into_filter(app: &mut App, now: FrameContext, change: impl FnOnce(&mut String)) {
    let Some(Dialog::Filter { text, error, .. }) = &mut app.dialog else { return };
    change(text);
    if let Some((end, _)) = text.char_indices().nth(MAX_TYPED_CHARS) {
        text.truncate(end);
    }
    match Filter::parse(text) {
        Ok(filter) => {
            *error = None;
            app.list_state_mut().filter = filter;
        }
        Err(why) => {
            let text = &now.text.filter;
            let right = if why.term().starts_with("cost") { &text.bad_sum } else { &text.bad_span };
            *error = Some(fill(right, &[("term", why.term())]));
        }
    }
}
