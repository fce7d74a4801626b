//! Actions on the selected key or upstream: cool, warm, disable, test.

use crate::{
    control::action::Action,
    events::event::Severity,
    tui::{
        app::{App, RowId},
        effect::Effect,
        format::FrameContext,
        problem,
        screen::Screen,
        screens,
        selection::current_row,
        strings::fill,
    },
};

/// The cooldown that `c` requests.
const COOL_MS: u64 = 600_000;

pub(super) fn ask_to_cool(app: &mut App, now: FrameContext) {
    let Some(RowId::Name(name)) = current_row(app) else { return };
    let question = fill(&now.text.ask.cool, &[("name", &name)]);
    let action = match app.screen {
        Screen::Upstreams => Action::CoolUpstream { upstream: name, for_ms: Some(COOL_MS) },
        _ => Action::Cool { key: name, model: None, for_ms: Some(COOL_MS) },
    };
    app.ask_confirmation(question, Effect::Action(action));
}

pub(super) fn ask_to_test(app: &mut App, now: FrameContext) {
    let Some(RowId::Name(key)) = current_row(app) else { return };
    let question = fill(&now.text.ask.test, &[("name", &key)]);
    app.ask_confirmation(question, Effect::Action(Action::Test { key }));
}

/// Ends the wait of the selected key or upstream, or on other screens that of the worst problem.
pub(super) fn warm(app: &mut App, now: FrameContext) -> Vec<Effect> {
    let action = match (app.screen, current_row(app)) {
        (Screen::Upstreams, Some(RowId::Name(upstream))) => Some(Action::WarmUpstream { upstream }),
        (Screen::Keys, Some(RowId::Name(key))) => {
            Some(Action::Warm { key: Some(key), model: None })
        }
        _ => problem::worst_problem(app, now).and_then(|problem| problem.action),
    };
    match action {
        Some(action) => vec![Effect::Action(action)],
        None => {
            app.show_toast(now.text.toast.nothing_cooling.clone(), Severity::Info, now);
            Vec::new()
        }
    }
}

/// Enables or disables the selected key or upstream.
pub(super) fn toggle(app: &App) -> Vec<Effect> {
    let Some(RowId::Name(name)) = current_row(app) else { return Vec::new() };
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let action = match app.screen {
        Screen::Upstreams => match screens::upstream_disabled(snapshot, &name) {
            true => Action::EnableUpstream { upstream: name },
            false => Action::DisableUpstream { upstream: name },
        },
        _ => match screens::key_disabled(snapshot, &name) {
            true => Action::EnableKey { key: name },
            false => Action::DisableKey { key: name },
        },
    };
    vec![Effect::Action(action)]
}
