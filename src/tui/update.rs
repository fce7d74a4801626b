//! What follows from what happens: the state changes here and nowhere else, and nothing is done
//! here.

mod mouse;
mod moving;
mod over;
mod refresh;
mod request;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use self::{
    mouse::mouse_moved,
    moving::{look_at, open, scroll, top},
    over::{back, show_help, show_pane, show_problems, show_raw, turn, unfold},
    refresh::{looked_at, refresh, story_came},
    request::{ask_to_kill, ask_to_replay, copy, copy_answer, copy_menu},
};
use super::{
    app::{App, Dialog, Link, Pane, Pause, RowId, Toast},
    effect::Effect,
    format::Now,
    keys::{self, Act},
    msg::Msg,
    problem,
    rates::Rates,
    said::{said, shorter},
    screens::{self, Screen},
    source,
    text::fill,
};
use crate::{
    base::clock::UnixMillis,
    control::{
        action::{Action, ActionReply},
        snapshot::{Origin, Snapshot, UpstreamView},
    },
    events::{
        filter::Filter,
        kind::{Event, EventKind, Severity},
        live::Live,
        record::RequestRecord,
    },
};

/// How long a toast stays.
const TOAST_MS: i64 = 3_000;
/// What `c` asks for.
const COOL_MS: u64 = 600_000;
const FILTER_CHARS: usize = 200;

/// Takes one happening in; what it asks of the world comes back.
pub fn update(app: &mut App, msg: Msg, now: Now) -> Vec<Effect> {
    match msg {
        Msg::Answered(answer) => {
            let (text, level) = match answer {
                Ok(reply) => (
                    replied(app, &reply, now),
                    if reply.ok { Severity::Info } else { Severity::Error },
                ),
                Err(why) if why == source::TOO_MANY => {
                    (now.text.toast.too_many.clone(), Severity::Error)
                }
                Err(why) if why == source::UNREACHABLE => {
                    (now.text.toast.unreachable.clone(), Severity::Error)
                }
                Err(why) => (why, Severity::Error),
            };
            toast(app, text, level, now);
            app.fresh.urgent = true;
        }
        Msg::Account { id, said } => {
            if let Some(account) = app.account.as_mut().filter(|account| account.id == id) {
                account.said = Some(said);
            }
        }
        Msg::Event(event) => return event_came(app, &event, now),
        Msg::EditorMissing => toast(app, now.text.toast.no_editor.clone(), Severity::Warn, now),
        Msg::History { filter, page } => app.past.came(&filter, page),
        Msg::Key(key) if key.kind == KeyEventKind::Release => {}
        Msg::Key(key) => return key_pressed(app, key, now),
        Msg::Lost { why, retry_ms } => {
            app.fresh.pending = false;
            app.link = Link::Lost {
                why,
                retry_at: UnixMillis(
                    now.at.0.saturating_add(i64::try_from(retry_ms).unwrap_or(i64::MAX)),
                ),
            };
        }
        Msg::Mouse(mouse) => return mouse_moved(app, mouse, now),
        Msg::Paste(text) => {
            let plain = || text.chars().filter(|c| !c.is_control());
            match &mut app.dialog {
                Some(Dialog::Filter { .. }) => {
                    type_into_filter(app, now, |typed| typed.extend(plain()))
                }
                Some(Dialog::Replay { model, .. }) => model.extend(plain().take(FILTER_CHARS)),
                _ => {}
            }
        }
        Msg::Resized { columns, rows } => app.size = (columns, rows),
        Msg::Resync => {
            toast(app, now.text.toast.resync.clone(), Severity::Warn, now);
            app.fresh.missed = true;
            return fetch(app);
        }
        Msg::Snapshot(snapshot) => snapshot_came(app, snapshot, now),
        Msg::Story(story) => return story_came(app, story, now),
        Msg::Tick => {
            if app.toast.as_ref().is_some_and(|toast| toast.until <= now.at) {
                app.toast = None;
            }
            // A wait that just ended is over for the proxy too; it says so only when asked.
            app.fresh.urgent |=
                app.snapshot.as_ref().is_some_and(|s| ended_since(s, app.fresh.at, now.at));
            // Who looks at a running request says so again and again.
            app.reading.stale |= looked_at(app)
                .is_some_and(|look| app.request(look.id).is_some_and(RequestRecord::is_running));
        }
        Msg::Today(view) => app.sums.told(view, now.at),
        Msg::Usage(view) => {
            app.sums.at = now.at;
            match view {
                Ok(view) => (app.sums.view, app.sums.error) = (Some(view), None),
                Err(why) => app.sums.error = Some(why),
            }
        }
    }
    refresh(app, now)
}

/// What came of an act, in the reader's language; a request that it began has the short name of its
/// title.
fn replied(app: &mut App, reply: &ActionReply, now: Now) -> String {
    let Some(id) = reply.id.filter(|_| reply.ok) else {
        return said(&reply.text, now).into_owned();
    };
    app.began = Some(id);
    let text = shorter(&reply.text);
    fill(&now.text.toast.began, &[("text", &said(&text, now))])
}

fn toast(app: &mut App, text: String, level: Severity, now: Now) {
    app.toast = Some(Toast { text, level, until: UnixMillis(now.at.0.saturating_add(TOAST_MS)) });
}

fn fetch(app: &mut App) -> Vec<Effect> {
    app.fresh.pending = true;
    vec![Effect::FetchSnapshot]
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
    app.reading.pending = false;
    app.sums.today_asked = false;
    app.past.pending = false;
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
    let (before, demo) = (live.totals, ends_demo(event, live, &snapshot.upstreams));
    live.apply(event);
    app.fresh.stale = true;
    let about = match &event.kind {
        EventKind::Progress { id, .. } | EventKind::FirstContent { id, .. } => Some(*id),
        EventKind::Ended { id, .. } => {
            app.sums.ended(&before, &live.totals, demo);
            Some(*id)
        }
        _ => None,
    };
    app.reading.stale |= about.is_some() && looked_at(app).map(|look| look.id) == about;
    app.fresh.urgent |= matches!(
        event.kind,
        EventKind::Alert { .. } | EventKind::Config { .. } | EventKind::Health { .. }
    );
    refresh(app, now)
}

/// Whether this is the end of a request that the built-in upstream answered: it does not count.
fn ends_demo(event: &Event, live: &Live, upstreams: &[UpstreamView]) -> bool {
    let EventKind::Ended { id, .. } = &event.kind else { return false };
    let Some(last) = live.running.get(*id).and_then(RequestRecord::serving_attempt) else {
        return false;
    };
    upstreams
        .iter()
        .any(|upstream| upstream.origin == Origin::Demo && *upstream.name == *last.upstream)
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
                toast(
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

/// A key while a question stands at the bottom.
fn answer(app: &mut App, dialog: Dialog, key: KeyEvent, now: Now) -> Vec<Effect> {
    match (dialog, key.code) {
        (Dialog::Ask { effect, .. }, KeyCode::Char('y' | 'Y')) => return vec![effect],
        (Dialog::Ask { .. }, KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc) => {}
        (Dialog::Copy { curl, .. }, KeyCode::Char('c' | 'y') | KeyCode::Enter) => {
            return copy(app, curl, &now.text.toast.the_curl, now);
        }
        (Dialog::Copy { id, .. }, KeyCode::Char('i')) => {
            return copy(app, id.to_string(), &now.text.toast.the_id, now);
        }
        (Dialog::Copy { id, .. }, KeyCode::Char('b')) => return copy_answer(app, id, now),
        (Dialog::Copy { .. }, KeyCode::Char('n' | 'q') | KeyCode::Esc) => {}
        (Dialog::Replay { .. }, KeyCode::Esc) => {}
        (Dialog::Replay { id, model }, KeyCode::Enter) => {
            let model = model.trim().to_owned();
            return vec![Effect::Act(Action::Replay {
                id: id.to_string(),
                model: (!model.is_empty()).then_some(model),
            })];
        }
        (Dialog::Replay { id, mut model }, code) => {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match code {
                KeyCode::Backspace => drop(model.pop()),
                KeyCode::Char('u' | 'w') if control => model.clear(),
                KeyCode::Char(c) if !control && model.chars().count() < FILTER_CHARS => {
                    model.push(c)
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
        (Dialog::Filter { before, .. }, KeyCode::Esc) => app.place_mut().filter = before,
        (Dialog::Filter { error: None, .. }, KeyCode::Enter) => {}
        (dialog @ Dialog::Filter { .. }, code) => {
            app.dialog = Some(dialog);
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match code {
                KeyCode::Backspace => {
                    type_into_filter(app, now, |text| {
                        text.truncate(text.char_indices().next_back().map_or(0, |(at, _)| at))
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

/// What is typed holds at once; while it cannot be read, the rows from before stay.
fn type_into_filter(app: &mut App, now: Now, change: impl FnOnce(&mut String)) {
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
        Err(why) => {
            let text = &now.text.filter;
            let right = if why.term().starts_with("cost") { &text.bad_sum } else { &text.bad_span };
            *error = Some(fill(right, &[("term", why.term())]));
        }
    }
}

fn perform(app: &mut App, act: Act, now: Now) -> Vec<Effect> {
    match act {
        Act::Back => back(app),
        Act::Began => match app.began {
            Some(id) => return look_at(app, id, now),
            None => toast(app, now.text.toast.none_began.clone(), Severity::Info, now),
        },
        Act::Bottom => scroll(app, isize::MAX, now),
        Act::Cool => return ask_to_cool(app, now),
        Act::Copy => return copy_menu(app, now),
        Act::Days => {
            app.sums.span();
            return refresh(app, now);
        }
        Act::Down => scroll(app, 1, now),
        Act::Edit => {
            let path = app.snapshot.as_ref().and_then(|s| s.config.path.clone());
            match path {
                Some(path) => return vec![Effect::Edit(path)],
                None => toast(app, now.text.toast.no_editor.clone(), Severity::Warn, now),
            }
        }
        Act::Filter => {
            let before = app.place().filter.clone();
            app.dialog =
                Some(Dialog::Filter { text: before.text().to_owned(), error: None, before });
        }
        Act::Go(screen) => return go(app, screen, now),
        Act::Group => {
            app.sums.group();
            app.place_mut().selected = None;
            return refresh(app, now);
        }
        Act::Explain => {
            show_pane(app, Pane::Account);
            return refresh(app, now);
        }
        Act::Headers => show_pane(app, Pane::Headers),
        Act::Help => show_help(app),
        Act::Kill => ask_to_kill(app, now),
        Act::NextPane => return turn(app, 1, now),
        Act::NextScreen => return go(app, app.screen.after(1), now),
        Act::Open => return open(app, now),
        Act::PageDown => scroll(app, page(app), now),
        Act::PageUp => scroll(app, -page(app), now),
        Act::Pause => {
            let live = app.snapshot.as_ref().map(|s| s.live.clone());
            app.paused = if app.paused.is_some() {
                None
            } else {
                live.map(|live| Pause { live, at: now.at })
            };
        }
        Act::PreviousPane => return turn(app, Pane::ALL.len() - 1, now),
        Act::PreviousScreen => return go(app, app.screen.after(Screen::ALL.len() - 1), now),
        Act::Problems => show_problems(app),
        Act::Quit => return quit(app),
        Act::Raw => {
            show_raw(app);
            return refresh(app, now);
        }
        Act::Replay => ask_to_replay(app, now),
        Act::Reload => return vec![Effect::Act(Action::Reload)],
        Act::Sort => {
            let orders = screens::orders(app.screen);
            let place = app.place_mut();
            place.sort = (place.sort + 1) % orders.len().max(1);
        }
        Act::Test => {
            if let Some(RowId::Name(key)) = app.current() {
                ask(
                    app,
                    fill(&now.text.ask.test, &[("name", &key)]),
                    Effect::Act(Action::Test { key }),
                );
            }
        }
        Act::Toggle => return toggle(app),
        Act::Top => top(app),
        Act::Unfold => unfold(app),
        Act::Up => scroll(app, -1, now),
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

fn go(app: &mut App, screen: Screen, now: Now) -> Vec<Effect> {
    app.over = None;
    (app.story, app.account) = (None, None);
    app.screen = screen;
    refresh(app, now)
}

fn page(app: &App) -> isize {
    isize::try_from(app.size.1.saturating_sub(8).max(1)).unwrap_or(1)
}

/// Goes to a screen and filters it.
fn show(app: &mut App, screen: Screen, filter: &str, now: Now) -> Vec<Effect> {
    let effects = go(app, screen, now);
    if let Ok(filter) = Filter::parse(filter) {
        app.place_mut().filter = filter;
    }
    effects
}

fn ask_to_cool(app: &mut App, now: Now) -> Vec<Effect> {
    let Some(RowId::Name(name)) = app.current() else { return Vec::new() };
    let question = fill(&now.text.ask.cool, &[("name", &name)]);
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
        (Screen::Keys, Some(RowId::Name(key))) => {
            Some(Action::Warm { key: Some(key), model: None })
        }
        _ => problem::worst(app, now).and_then(|problem| problem.act),
    };
    match action {
        Some(action) => vec![Effect::Act(action)],
        None => {
            toast(app, now.text.toast.nothing_cooling.clone(), Severity::Info, now);
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

#[cfg(test)]
mod tests;
