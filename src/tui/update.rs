//! What follows from what happens: the state changes here and nowhere else, and nothing is done here.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::{
    app::{App, Dialog, Link, Over, Pause, RowId, Toast},
    effect::Effect,
    format::Now,
    keys::{self, Act},
    layout::{self, Layout},
    msg::Msg,
    problem,
    rates::Rates,
    screens::{self, Screen},
};
use crate::{
    base::clock::UnixMillis,
    control::{action::Action, snapshot::Snapshot},
    events::{
        filter::Filter,
        kind::{Event, EventKind, Level},
        record::RequestRecord,
    },
};

/// How long a toast stays.
const TOAST_MS: i64 = 3_000;
/// Views of upstreams and keys are asked for at most this often, on the screens that show them.
const REFRESH_MS: i64 = 2_000;
/// After a change of health.
const URGENT_MS: i64 = 250;
const DOUBLE_CLICK_MS: i64 = 400;
/// What `c` asks for.
const COOL_MS: u64 = 600_000;
const FILTER_CHARS: usize = 200;

/// Takes one happening in; what it asks of the world comes back.
pub fn update(app: &mut App, msg: Msg, now: Now) -> Vec<Effect> {
    match msg {
        Msg::Answered(answer) => {
            let (text, level) = match answer {
                Ok(reply) => (reply.text, if reply.ok { Level::Info } else { Level::Error }),
                Err(why) => (why, Level::Error),
            };
            toast(app, text, level, now);
            app.fresh.urgent = true;
        }
        Msg::Event(event) => return event_came(app, &event, now),
        Msg::Key(key) if key.kind == KeyEventKind::Release => {}
        Msg::Key(key) => return key_pressed(app, key, now),
        Msg::Lost { why, retry_ms } => {
            app.fresh.pending = false;
            app.link = Link::Lost { why, retry_at: UnixMillis(now.at.0.saturating_add(i64::try_from(retry_ms).unwrap_or(i64::MAX))) };
        }
        Msg::Mouse(mouse) => return mouse_moved(app, mouse, now),
        Msg::Paste(text) => {
            if let Some(Dialog::Filter { .. }) = &app.dialog {
                type_into_filter(app, |typed| typed.extend(text.chars().filter(|c| !c.is_control())));
            }
        }
        Msg::Resized { columns, rows } => app.size = (columns, rows),
        Msg::Resync => {
            toast(app, "resynchronised: events came faster than they could be shown".to_owned(), Level::Warn, now);
            app.fresh.missed = true;
            return fetch(app);
        }
        Msg::Snapshot(snapshot) => snapshot_came(app, snapshot, now),
        Msg::Tick => {
            if app.toast.as_ref().is_some_and(|toast| toast.until <= now.at) {
                app.toast = None;
            }
            // A wait that just ended is over for the proxy too; it says so only when asked.
            app.fresh.urgent |= app.snapshot.as_ref().is_some_and(|s| ended_since(s, app.fresh.at, now.at));
        }
    }
    refresh(app, now)
}

fn toast(app: &mut App, text: String, level: Level, now: Now) {
    app.toast = Some(Toast { text, level, until: UnixMillis(now.at.0.saturating_add(TOAST_MS)) });
}

fn fetch(app: &mut App) -> Vec<Effect> {
    app.fresh.pending = true;
    vec![Effect::FetchSnapshot]
}

/// Asks for newer views where they are needed and not too often.
fn refresh(app: &mut App, now: Now) -> Vec<Effect> {
    let fresh = &app.fresh;
    if fresh.pending || app.link != Link::Up {
        return Vec::new();
    }
    let shown = matches!(app.screen, Screen::Config | Screen::Keys | Screen::Models | Screen::Upstreams);
    let age = now.at.0 - fresh.at.0;
    if (fresh.urgent && age >= URGENT_MS) || (fresh.stale && shown && age >= REFRESH_MS) { fetch(app) } else { Vec::new() }
}

fn ended_since(snapshot: &Snapshot, then: UnixMillis, now: UnixMillis) -> bool {
    let ended = |until: Option<UnixMillis>| until.is_some_and(|until| until > then && until <= now);
    snapshot.upstreams.iter().any(|u| ended(u.until))
        || snapshot.keys.iter().any(|k| ended(k.until) || k.scopes.iter().any(|s| ended(s.until)))
}

fn snapshot_came(app: &mut App, mut snapshot: Box<Snapshot>, now: Now) {
    match &mut app.snapshot {
        // Our own fold goes on with the stream; the snapshot's may be ahead of it or behind.
        Some(old) if app.link == Link::Up && !app.fresh.missed && old.pid == snapshot.pid => {
            std::mem::swap(&mut snapshot.live, &mut old.live);
        }
        _ => app.rates = Rates::seeded(&snapshot.live),
    }
    app.snapshot = Some(snapshot);
    app.link = Link::Up;
    app.fresh = super::app::Freshness { at: now.at, ..Default::default() };
}

fn event_came(app: &mut App, event: &Event, now: Now) -> Vec<Effect> {
    let Some(snapshot) = &mut app.snapshot else { return Vec::new() };
    let live = &mut snapshot.live;
    if event.seq <= live.seq {
        return Vec::new();
    }
    if event.seq != live.seq + 1 {
        // A snapshot heals it; until it is here nothing is folded onto the gap.
        app.fresh.missed = true;
        return if app.fresh.pending { Vec::new() } else { fetch(app) };
    }
    app.rates.count(event, live);
    live.apply(event);
    app.fresh.stale = true;
    app.fresh.urgent |= matches!(event.kind, EventKind::Config { .. } | EventKind::Health { .. });
    refresh(app, now)
}

fn key_pressed(app: &mut App, key: KeyEvent, now: Now) -> Vec<Effect> {
    if keys::is_interrupt(key) && app.dialog.as_ref().is_none_or(|dialog| *dialog != Dialog::Stop) {
        app.dialog = None;
        return quit(app);
    }
    if let Some(dialog) = app.dialog.take() {
        return answer(app, dialog, key, now);
    }
    match keys::act(app, key) {
        Some(act) => perform(app, act, now),
        None => {
            if let KeyCode::Char(c) = key.code {
                toast(app, format!("`{c}` does nothing here; ? shows all keys"), Level::Info, now);
            }
            Vec::new()
        }
    }
}

/// A key while a question stands at the bottom.
fn answer(app: &mut App, dialog: Dialog, key: KeyEvent, now: Now) -> Vec<Effect> {
    match (dialog, key.code) {
        (Dialog::Ask { effect, .. }, KeyCode::Char('y' | 'Y')) => return vec![effect],
        (Dialog::Ask { .. }, KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc) => {}
        (Dialog::Copy { curl, .. }, KeyCode::Char('c' | 'y') | KeyCode::Enter) => return copy(app, curl, "the curl command", now),
        (Dialog::Copy { id, .. }, KeyCode::Char('i')) => return copy(app, id, "the id", now),
        (Dialog::Copy { .. }, KeyCode::Char('n' | 'q') | KeyCode::Esc) => {}
        (Dialog::Stop, KeyCode::Char('y' | 'Y')) => return vec![Effect::Leave { stop_proxy: true }],
        (Dialog::Stop, KeyCode::Char('n' | 'N')) => return vec![Effect::Leave { stop_proxy: false }],
        (Dialog::Stop, KeyCode::Esc) => {}
        (Dialog::Stop, _) if keys::is_interrupt(key) => return vec![Effect::Leave { stop_proxy: true }],
        (Dialog::Filter { before, .. }, KeyCode::Esc) => app.place_mut().filter = before,
        (Dialog::Filter { error: None, .. }, KeyCode::Enter) => {}
        (dialog @ Dialog::Filter { .. }, code) => {
            app.dialog = Some(dialog);
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match code {
                KeyCode::Backspace => type_into_filter(app, |text| text.truncate(text.char_indices().next_back().map_or(0, |(at, _)| at))),
                KeyCode::Char('u' | 'w') if control => type_into_filter(app, String::clear),
                KeyCode::Char(c) if !control => type_into_filter(app, |text| text.push(c)),
                _ => {}
            }
        }
        (dialog, _) => app.dialog = Some(dialog),
    }
    Vec::new()
}

/// What is typed holds at once; while it cannot be read, the rows from before stay.
fn type_into_filter(app: &mut App, change: impl FnOnce(&mut String)) {
    let Some(Dialog::Filter { text, error, .. }) = &mut app.dialog else { return };
    change(text);
    if let Some((end, _)) = text.char_indices().nth(FILTER_CHARS) {
        text.truncate(end);
    }
    match Filter::parse(text) {
        Ok(filter) => {
            *error = None;
            app.place_mut().filter = filter;
        }
        Err(why) => *error = Some(why.to_string()),
    }
}

fn perform(app: &mut App, act: Act, now: Now) -> Vec<Effect> {
    match act {
        Act::Back => back(app),
        Act::Bottom => scroll(app, isize::MAX),
        Act::Cool => return ask_to_cool(app),
        Act::Copy => return copy_menu(app, now),
        Act::Down => scroll(app, 1),
        Act::Filter => {
            let before = app.place().filter.clone();
            app.dialog = Some(Dialog::Filter { text: before.text().to_owned(), error: None, before });
        }
        Act::Go(screen) => return go(app, screen, now),
        Act::Help => app.over = if let Some(Over::Help { .. }) = app.over { None } else { Some(Over::Help { scroll: 0 }) },
        Act::Kill => ask_to_kill(app, now),
        Act::NextScreen => return go(app, app.screen.after(1), now),
        Act::Open => return open(app, now),
        Act::PageDown => scroll(app, page(app)),
        Act::PageUp => scroll(app, -page(app)),
        Act::Pause => {
            let live = app.snapshot.as_ref().map(|s| s.live.clone());
            app.paused = if app.paused.is_some() { None } else { live.map(|live| Pause { live, at: now.at }) };
        }
        Act::PreviousScreen => return go(app, app.screen.after(Screen::ALL.len() - 1), now),
        Act::Quit => return quit(app),
        Act::Reload => return vec![Effect::Act(Action::Reload)],
        Act::Sort => {
            let orders = screens::orders(app.screen);
            let place = app.place_mut();
            place.sort = (place.sort + 1) % orders.len().max(1);
        }
        Act::Test => {
            if let Some(RowId::Name(key)) = app.current() {
                ask(app, format!("test {key} with a small request?"), Effect::Act(Action::Test { key }));
            }
        }
        Act::Toggle => return toggle(app),
        Act::Top => top(app),
        Act::Up => scroll(app, -1),
        Act::Warm => return warm(app, now),
    }
    Vec::new()
}

fn ask(app: &mut App, question: String, effect: Effect) {
    app.dialog = Some(Dialog::Ask { question, effect });
}

fn quit(app: &mut App) -> Vec<Effect> {
    if app.in_process {
        app.dialog = Some(Dialog::Stop);
        return Vec::new();
    }
    vec![Effect::Leave { stop_proxy: false }]
}

fn back(app: &mut App) {
    if app.over.take().is_none() {
        let place = app.place_mut();
        place.filter = Filter::default();
        place.selected = None;
    }
}

fn go(app: &mut App, screen: Screen, now: Now) -> Vec<Effect> {
    app.over = None;
    app.screen = screen;
    refresh(app, now)
}

fn page(app: &App) -> isize {
    isize::try_from(app.size.1.saturating_sub(8).max(1)).unwrap_or(1)
}

fn scroll(app: &mut App, by: isize) {
    let most = screens::over_lines(app);
    match &mut app.over {
        Some(Over::Help { scroll } | Over::Request { scroll, .. }) => {
            *scroll = u16::try_from(usize::from(*scroll).saturating_add_signed(by)).unwrap_or(u16::MAX).min(most);
        }
        None => app.step(by),
    }
}

fn top(app: &mut App) {
    match &mut app.over {
        Some(Over::Help { scroll } | Over::Request { scroll, .. }) => *scroll = 0,
        None => app.place_mut().selected = None,
    }
}

fn open(app: &mut App, now: Now) -> Vec<Effect> {
    let Some(current) = app.current() else { return Vec::new() };
    match (app.screen, current) {
        (_, RowId::Request(id)) => {
            app.select(RowId::Request(id));
            app.over = Some(Over::Request { id, scroll: 0 });
        }
        (Screen::Log, line) => match screens::request_of(app, &line) {
            Some(id) => {
                app.select(line);
                app.over = Some(Over::Request { id, scroll: 0 });
            }
            None => toast(app, "this line is about no single request".to_owned(), Level::Info, now),
        },
        (Screen::Keys, RowId::Name(name)) => return show(app, Screen::Log, &name, now),
        (Screen::Upstreams, RowId::Name(name)) => return show(app, Screen::Live, &format!("upstream:{name}"), now),
        _ => {}
    }
    Vec::new()
}

/// Goes to a screen and filters it.
fn show(app: &mut App, screen: Screen, filter: &str, now: Now) -> Vec<Effect> {
    let effects = go(app, screen, now);
    if let Ok(filter) = Filter::parse(filter) {
        app.place_mut().filter = filter;
    }
    effects
}

fn subject(app: &App) -> Option<&RequestRecord> {
    match (&app.over, app.current()) {
        (Some(Over::Request { id, .. }), _) => app.request(*id),
        (None, Some(RowId::Request(id))) => app.request(id),
        _ => None,
    }
}

fn ask_to_kill(app: &mut App, now: Now) {
    match subject(app) {
        Some(r) if r.running() => {
            let question = format!("kill the request of {} for {}?", r.project, r.asked);
            let id = r.id.to_string();
            ask(app, question, Effect::Act(Action::Kill { id }));
        }
        Some(_) => toast(app, "it has ended already".to_owned(), Level::Info, now),
        None => toast(app, "no request is selected".to_owned(), Level::Info, now),
    }
}

fn copy_menu(app: &mut App, now: Now) -> Vec<Effect> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    if let Some(r) = subject(app) {
        app.dialog = Some(Dialog::Copy { id: r.id.to_string(), curl: screens::curl(snapshot, &r.asked) });
        return Vec::new();
    }
    let curl = screens::curl(snapshot, screens::first_model(snapshot));
    copy(app, curl, "the curl command", now)
}

fn copy(app: &mut App, text: String, what: &str, now: Now) -> Vec<Effect> {
    toast(app, format!("copied {what}, if this terminal lets programs do that"), Level::Info, now);
    vec![Effect::Copy(text)]
}

fn ask_to_cool(app: &mut App) -> Vec<Effect> {
    let Some(RowId::Name(name)) = app.current() else { return Vec::new() };
    let question = format!("cool {name} for 10 minutes?");
    let action = match app.screen {
        Screen::Upstreams => Action::CoolUpstream { upstream: name, for_ms: Some(COOL_MS) },
        _ => Action::Cool { key: name, model: None, for_ms: Some(COOL_MS) },
    };
    ask(app, question, Effect::Act(action));
    Vec::new()
}

fn warm(app: &mut App, now: Now) -> Vec<Effect> {
    let action = match (app.screen, app.current()) {
        (Screen::Upstreams, Some(RowId::Name(upstream))) => Some(Action::WarmUpstream { upstream }),
        (Screen::Keys, Some(RowId::Name(key))) => Some(Action::Warm { key: Some(key), model: None }),
        _ => problem::worst(app, now).and_then(|problem| problem.act),
    };
    match action {
        Some(action) => vec![Effect::Act(action)],
        None => {
            toast(app, "nothing is cooling".to_owned(), Level::Info, now);
            Vec::new()
        }
    }
}

fn toggle(app: &App) -> Vec<Effect> {
    let Some(RowId::Name(name)) = app.current() else { return Vec::new() };
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
    vec![Effect::Act(action)]
}

fn mouse_moved(app: &mut App, mouse: MouseEvent, now: Now) -> Vec<Effect> {
    match mouse.kind {
        MouseEventKind::ScrollDown => scroll(app, 3),
        MouseEventKind::ScrollUp => scroll(app, -3),
        MouseEventKind::Down(MouseButton::Left) if app.dialog.is_none() => return clicked(app, mouse, now),
        _ => {}
    }
    Vec::new()
}

fn clicked(app: &mut App, mouse: MouseEvent, now: Now) -> Vec<Effect> {
    let (columns, rows) = app.size;
    let layout = Layout::of(app, columns, rows, now);
    if layout.wide() && mouse.row == layout.tabs.y {
        return layout::tab_at(mouse.column, columns).map_or_else(Vec::new, |screen| go(app, screen, now));
    }
    if app.over.is_some() {
        return Vec::new();
    }
    let Some(id) = screens::row_at(app, layout.body, mouse.row) else { return Vec::new() };
    let again = app.clicked.as_ref().is_some_and(|(before, at)| *before == id && now.at.0 - at.0 <= DOUBLE_CLICK_MS);
    app.clicked = (!again).then(|| (id.clone(), now.at));
    app.select(id);
    if again { open(app, now) } else { Vec::new() }
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;
