//! Applies messages to the state and returns effects. Only this module changes the state, and it
//! performs no effects.

mod mouse;
mod refresh;
mod request;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use self::{
    mouse::on_mouse,
    refresh::{current_request_view, on_transcript, refresh},
    request::{ask_to_kill, ask_to_replay, copy_answer, copy_menu, copy_text},
};
use super::{
    app::{App, ConnState, Dialog, FrozenView, Pane, RowId, Toast},
    effect::Effect,
    format::FrameContext,
    keys::{self, KeyAction},
    msg::Msg,
    problem,
    rates::TrafficRates,
    screens::{self, Screen},
};
use crate::tui::update::{
    navigation::{open_request, open_row, scroll, scroll_to_top},
    overlay::{
        cycle_pane, go_back, toggle_expand, toggle_help, toggle_pane, toggle_problems, toggle_raw,
    },
};
use crate::tui::{
    connection,
    strings::fill,
    translate_message::{shorten_ids, translate_message},
};
use crate::{
    base::clock::UnixMillis,
    control::{
        action::{Action, ActionReply},
        snapshot::{Origin, Snapshot, UpstreamView},
    },
    events::{
        event::{Event, EventKind, Severity},
        filter::Filter,
        live::Live,
        record::RequestRecord,
    },
};

/// How long a toast is visible.
const TOAST_MS: i64 = 3_000;
/// The cooldown that `c` requests.
const COOL_MS: u64 = 600_000;
const MAX_FILTER_CHARS: usize = 200;

/// Applies one message and returns the resulting effects.
pub fn update(app: &mut App, msg: Msg, now: FrameContext) -> Vec<Effect> {
    match msg {
        Msg::ActionResult(answer) => {
            let (text, level) = match answer {
                Ok(reply) => (
                    reply_text(app, &reply, now),
                    if reply.ok { Severity::Info } else { Severity::Error },
                ),
                Err(why) if why == connection::TOO_MANY => {
                    (now.text.toast.too_many.clone(), Severity::Error)
                }
                Err(why) if why == connection::UNREACHABLE => {
                    (now.text.toast.unreachable.clone(), Severity::Error)
                }
                Err(why) => (why, Severity::Error),
            };
            show_toast(app, text, level, now);
            app.snapshot_fetch.urgent = true;
        }
        Msg::Explain { id, text: said } => {
            if let Some(account) = app.explain.as_mut().filter(|account| account.id == id) {
                account.text = Some(said);
            }
        }
        Msg::Event(event) => return on_event(app, &event, now),
        Msg::EditorMissing => {
            show_toast(app, now.text.toast.no_editor.clone(), Severity::Warn, now);
        }
        Msg::History { filter, page } => app.history.on_page(&filter, page),
        Msg::Key(key) if key.kind == KeyEventKind::Release => {}
        Msg::Key(key) => return on_key(app, key, now),
        Msg::Disconnected { reason: why, retry_ms } => {
            app.snapshot_fetch.pending = false;
            app.connection = ConnState::Disconnected {
                reason: why,
                retry_at: UnixMillis(
                    now.at.0.saturating_add(i64::try_from(retry_ms).unwrap_or(i64::MAX)),
                ),
            };
        }
        Msg::Mouse(mouse) => return on_mouse(app, mouse, now),
        Msg::Paste(text) => {
            let plain = || text.chars().filter(|c| !c.is_control());
            match &mut app.dialog {
                Some(Dialog::Filter { .. }) => {
                    type_into_filter(app, now, |typed| typed.extend(plain()));
                }
                Some(Dialog::Replay { model, .. }) => model.extend(plain().take(MAX_FILTER_CHARS)),
                _ => {}
            }
        }
        Msg::Resized { columns, rows } => app.size = (columns, rows),
        Msg::Resync => {
            show_toast(app, now.text.toast.resync.clone(), Severity::Warn, now);
            app.snapshot_fetch.overflowed = true;
            return fetch_snapshot(app);
        }
        Msg::Snapshot(snapshot) => on_snapshot(app, snapshot, now),
        Msg::Transcript(story) => return on_transcript(app, story, now),
        Msg::Tick => {
            if app.toast.as_ref().is_some_and(|toast| toast.until <= now.at) {
                app.toast = None;
            }
            // A wait that just ended has also ended in the proxy, but only a new snapshot shows it.
            app.snapshot_fetch.urgent |= app
                .snapshot
                .as_ref()
                .is_some_and(|s| wait_ended_since(s, app.snapshot_fetch.fetched_at, now.at));
            // A view of a running request fetches its transcript repeatedly.
            app.transcript_fetch.stale |= current_request_view(app)
                .is_some_and(|view| app.request(view.id).is_some_and(RequestRecord::is_running));
        }
        Msg::Today(view) => app.usage.set_today(view, now.at),
        Msg::Usage(view) => {
            app.usage.requested_at = now.at;
            match view {
                Ok(view) => (app.usage.view, app.usage.error) = (Some(view), None),
                Err(why) => app.usage.error = Some(why),
            }
        }
    }
    refresh(app, now)
}

/// The result of an action in the user's language. A request that the action started has the short
/// id of its title.
fn reply_text(app: &mut App, reply: &ActionReply, now: FrameContext) -> String {
    let Some(id) = reply.id.filter(|_| reply.ok) else {
        return translate_message(&reply.text, now).into_owned();
    };
    app.last_replay = Some(id);
    let text = shorten_ids(&reply.text);
    fill(&now.text.toast.began, &[("text", &translate_message(&text, now))])
}

fn show_toast(app: &mut App, text: String, level: Severity, now: FrameContext) {
    app.toast = Some(Toast { text, level, until: UnixMillis(now.at.0.saturating_add(TOAST_MS)) });
}

fn fetch_snapshot(app: &mut App) -> Vec<Effect> {
    app.snapshot_fetch.pending = true;
    vec![Effect::FetchSnapshot]
}

fn wait_ended_since(snapshot: &Snapshot, then: UnixMillis, now: UnixMillis) -> bool {
    let ended = |until: Option<UnixMillis>| until.is_some_and(|until| until > then && until <= now);
    snapshot.upstreams.iter().any(|u| ended(u.until))
        || snapshot.keys.iter().any(|k| ended(k.until) || k.scopes.iter().any(|s| ended(s.until)))
}

fn on_snapshot(app: &mut App, mut snapshot: Box<Snapshot>, now: FrameContext) {
    match &mut app.snapshot {
        // The local state follows the event stream; the snapshot's may be newer or older.
        Some(old)
            if app.connection == ConnState::Connected
                && !app.snapshot_fetch.overflowed
                && old.pid == snapshot.pid =>
        {
            std::mem::swap(&mut snapshot.live, &mut old.live);
        }
        _ => app.rates = TrafficRates::from_live(&snapshot.live),
    }
    app.snapshot = Some(snapshot);
    app.connection = ConnState::Connected;
    app.snapshot_fetch = super::app::SnapshotFetch { fetched_at: now.at, ..Default::default() };
    app.transcript_fetch.pending = false;
    app.usage.today_pending = false;
    app.history.pending = false;
}

fn on_event(app: &mut App, event: &Event, now: FrameContext) -> Vec<Effect> {
    let Some(snapshot) = &mut app.snapshot else { return Vec::new() };
    let live = &mut snapshot.live;
    if event.seq <= live.seq {
        return Vec::new();
    }
    if event.seq != live.seq + 1 {
        // A snapshot closes the gap; until it arrives, no further events are applied.
        app.snapshot_fetch.overflowed = true;
        return if app.snapshot_fetch.pending { Vec::new() } else { fetch_snapshot(app) };
    }
    app.rates.record(event, live);
    let (before, demo) = (live.totals, ends_demo(event, live, &snapshot.upstreams));
    live.apply(event);
    app.snapshot_fetch.stale = true;
    let about = match &event.kind {
        EventKind::Progress { id, .. } | EventKind::FirstContent { id, .. } => Some(*id),
        EventKind::Ended { id, .. } => {
            app.usage.add_finished(&before, &live.totals, demo);
            Some(*id)
        }
        _ => None,
    };
    app.transcript_fetch.stale |=
        about.is_some() && current_request_view(app).map(|view| view.id) == about;
    app.snapshot_fetch.urgent |= matches!(
        event.kind,
        EventKind::Alert { .. } | EventKind::Config { .. } | EventKind::Health { .. }
    );
    refresh(app, now)
}

/// Whether the event ends a request to the built-in upstream, which is excluded from the totals.
fn ends_demo(event: &Event, live: &Live, upstreams: &[UpstreamView]) -> bool {
    let EventKind::Ended { id, .. } = &event.kind else { return false };
    let Some(last) = live.running.get(*id).and_then(RequestRecord::serving_attempt) else {
        return false;
    };
    upstreams
        .iter()
        .any(|upstream| upstream.origin == Origin::Demo && *upstream.name == *last.upstream)
}

fn on_key(app: &mut App, key: KeyEvent, now: FrameContext) -> Vec<Effect> {
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
                show_toast(
                    app,
                    fill(&now.text.toast.nothing_here, &[("key", &c.to_string())]),
                    Severity::Info,
                    now,
                );
            }
            Vec::new()
        }
    }
}

/// Handles a key press while a dialog is open.
fn answer_dialog(app: &mut App, dialog: Dialog, key: KeyEvent, now: FrameContext) -> Vec<Effect> {
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
                KeyCode::Char(c) if !control && model.chars().count() < MAX_FILTER_CHARS => {
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

/// Typing takes effect immediately. While the filter is invalid, the previous rows stay.
fn type_into_filter(app: &mut App, now: FrameContext, change: impl FnOnce(&mut String)) {
    let Some(Dialog::Filter { text, error, .. }) = &mut app.dialog else { return };
    change(text);
    if let Some((end, _)) = text.char_indices().nth(MAX_FILTER_CHARS) {
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

fn perform_action(app: &mut App, action: KeyAction, now: FrameContext) -> Vec<Effect> {
    match action {
        KeyAction::Back => go_back(app),
        KeyAction::ShowReplay => match app.last_replay {
            Some(id) => return open_request(app, id, now),
            None => show_toast(app, now.text.toast.none_began.clone(), Severity::Info, now),
        },
        KeyAction::Bottom => scroll(app, isize::MAX, now),
        KeyAction::Cool => return ask_to_cool(app, now),
        KeyAction::Copy => return copy_menu(app, now),
        KeyAction::CycleDays => {
            app.usage.next_span();
            return refresh(app, now);
        }
        KeyAction::Down => scroll(app, 1, now),
        KeyAction::Edit => {
            let path = app.snapshot.as_ref().and_then(|s| s.config.path.clone());
            match path {
                Some(path) => return vec![Effect::Edit(path)],
                None => show_toast(app, now.text.toast.no_editor.clone(), Severity::Warn, now),
            }
        }
        KeyAction::Filter => {
            let before = app.list_state().filter.clone();
            app.dialog = Some(Dialog::Filter {
                text: before.text().to_owned(),
                error: None,
                previous: before,
            });
        }
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
        KeyAction::Pause => {
            let live = app.snapshot.as_ref().map(|s| s.live.clone());
            app.paused = if app.paused.is_some() {
                None
            } else {
                live.map(|live| FrozenView { live, at: now.at })
            };
        }
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
            let orders = screens::orders(app.screen);
            let list = app.list_state_mut();
            list.sort = (list.sort + 1) % orders.len().max(1);
        }
        KeyAction::Test => {
            if let Some(RowId::Name(key)) = app.current_row() {
                ask_confirmation(
                    app,
                    fill(&now.text.ask.test, &[("name", &key)]),
                    Effect::Action(Action::Test { key }),
                );
            }
        }
        KeyAction::Toggle => return toggle(app),
        KeyAction::Top => scroll_to_top(app),
        KeyAction::ToggleExpand => toggle_expand(app),
        KeyAction::Up => scroll(app, -1, now),
        KeyAction::Warm => return warm(app, now),
    }
    Vec::new()
}

fn ask_confirmation(app: &mut App, question: String, effect: Effect) {
    app.dialog = Some(Dialog::Confirm { question, effect });
}

fn quit(app: &mut App) -> Vec<Effect> {
    if app.in_process {
        app.dialog = Some(Dialog::Stop);
        return Vec::new();
    }
    vec![Effect::Leave { stop_proxy: false }]
}

fn go_to_screen(app: &mut App, screen: Screen, now: FrameContext) -> Vec<Effect> {
    app.overlay = None;
    (app.transcript, app.explain) = (None, None);
    app.screen = screen;
    refresh(app, now)
}

fn page_size(app: &App) -> isize {
    isize::try_from(app.size.1.saturating_sub(8).max(1)).unwrap_or(1)
}

/// Opens a screen with a filter.
fn show_filtered(app: &mut App, screen: Screen, filter: &str, now: FrameContext) -> Vec<Effect> {
    let effects = go_to_screen(app, screen, now);
    if let Ok(filter) = Filter::parse(filter) {
        app.list_state_mut().filter = filter;
    }
    effects
}

fn ask_to_cool(app: &mut App, now: FrameContext) -> Vec<Effect> {
    let Some(RowId::Name(name)) = app.current_row() else { return Vec::new() };
    let question = fill(&now.text.ask.cool, &[("name", &name)]);
    let action = match app.screen {
        Screen::Upstreams => Action::CoolUpstream { upstream: name, for_ms: Some(COOL_MS) },
        _ => Action::Cool { key: name, model: None, for_ms: Some(COOL_MS) },
    };
    ask_confirmation(app, question, Effect::Action(action));
    Vec::new()
}

fn warm(app: &mut App, now: FrameContext) -> Vec<Effect> {
    let action = match (app.screen, app.current_row()) {
        (Screen::Upstreams, Some(RowId::Name(upstream))) => Some(Action::WarmUpstream { upstream }),
        (Screen::Keys, Some(RowId::Name(key))) => {
            Some(Action::Warm { key: Some(key), model: None })
        }
        _ => problem::worst_problem(app, now).and_then(|problem| problem.action),
    };
    match action {
        Some(action) => vec![Effect::Action(action)],
        None => {
            show_toast(app, now.text.toast.nothing_cooling.clone(), Severity::Info, now);
            Vec::new()
        }
    }
}

fn toggle(app: &App) -> Vec<Effect> {
    let Some(RowId::Name(name)) = app.current_row() else { return Vec::new() };
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

mod navigation;
mod overlay;
#[cfg(test)]
mod tests;
