//! What follows from what happens: the state changes here and nowhere else, and nothing is done here.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::{
    app::{App, Dialog, Link, Look, Over, Pane, Pause, RowId, Toast},
    curl,
    effect::Effect,
    format::Now,
    keys::{self, Act},
    layout::{self, Layout},
    msg::Msg,
    problem,
    rates::Rates,
    screens::{self, Screen},
    source,
    text::fill,
};
use crate::{
    base::{clock::UnixMillis, id::RequestId},
    control::{
        action::Action,
        snapshot::Snapshot,
        story::{Part, Story, Who, Wish},
    },
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
/// An answer that is looked at is read this often while it grows.
const STORY_MS: i64 = 200;
/// Sums are asked for anew this often where they are shown, and where only the top line says them.
const SUMS_MS: i64 = 5_000;
const TODAY_MS: i64 = 30_000;
const DOUBLE_CLICK_MS: i64 = 400;
/// What `c` asks for.
const COOL_MS: u64 = 600_000;
const FILTER_CHARS: usize = 200;
/// Texts that are printed when the reader leaves.
const COPIED: usize = 10;

/// Takes one happening in; what it asks of the world comes back.
pub fn update(app: &mut App, msg: Msg, now: Now) -> Vec<Effect> {
    match msg {
        Msg::Answered(answer) => {
            let (text, level) = match answer {
                Ok(reply) => (reply.text, if reply.ok { Level::Info } else { Level::Error }),
                Err(why) if why == source::TOO_MANY => (now.text.toast.too_many.clone(), Level::Error),
                Err(why) if why == source::UNREACHABLE => (now.text.toast.unreachable.clone(), Level::Error),
                Err(why) => (why, Level::Error),
            };
            toast(app, text, level, now);
            app.fresh.urgent = true;
        }
        Msg::Event(event) => return event_came(app, &event, now),
        Msg::EditorMissing => toast(app, now.text.toast.no_editor.clone(), Level::Warn, now),
        Msg::History { filter, page } => app.past.came(&filter, page),
        Msg::Key(key) if key.kind == KeyEventKind::Release => {}
        Msg::Key(key) => return key_pressed(app, key, now),
        Msg::Lost { why, retry_ms } => {
            app.fresh.pending = false;
            app.link = Link::Lost { why, retry_at: UnixMillis(now.at.0.saturating_add(i64::try_from(retry_ms).unwrap_or(i64::MAX))) };
        }
        Msg::Mouse(mouse) => return mouse_moved(app, mouse, now),
        Msg::Paste(text) => {
            let plain = || text.chars().filter(|c| !c.is_control());
            match &mut app.dialog {
                Some(Dialog::Filter { .. }) => type_into_filter(app, now, |typed| typed.extend(plain())),
                Some(Dialog::Replay { model, .. }) => model.extend(plain().take(FILTER_CHARS)),
                _ => {}
            }
        }
        Msg::Resized { columns, rows } => app.size = (columns, rows),
        Msg::Resync => {
            toast(app, now.text.toast.resync.clone(), Level::Warn, now);
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
            app.fresh.urgent |= app.snapshot.as_ref().is_some_and(|s| ended_since(s, app.fresh.at, now.at));
            // Who looks at a running request says so again and again.
            app.reading.stale |= looked_at(app).is_some_and(|look| app.request(look.id).is_some_and(RequestRecord::running));
        }
        Msg::Today(view) => {
            app.sums.today_asked = false;
            app.sums.today_at = now.at;
            app.sums.today_base = app.snapshot.as_ref().map_or(0, |s| s.live.totals.cost.0);
            app.sums.today = view.ok();
        }
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

fn toast(app: &mut App, text: String, level: Level, now: Now) {
    app.toast = Some(Toast { text, level, until: UnixMillis(now.at.0.saturating_add(TOAST_MS)) });
}

fn fetch(app: &mut App) -> Vec<Effect> {
    app.fresh.pending = true;
    vec![Effect::FetchSnapshot]
}

/// Asks for newer views where they are needed and not too often.
fn refresh(app: &mut App, now: Now) -> Vec<Effect> {
    if app.link != Link::Up {
        return Vec::new();
    }
    let mut effects = Vec::new();
    let fresh = &app.fresh;
    let shown = matches!(app.screen, Screen::Config | Screen::Keys | Screen::Models | Screen::Upstreams);
    let age = now.at.0 - fresh.at.0;
    if !fresh.pending && ((fresh.urgent && age >= URGENT_MS) || (fresh.stale && shown && age >= REFRESH_MS)) {
        effects.extend(fetch(app));
    }
    effects.extend(ask_story(app, now));
    effects.extend(ask_sums(app, now));
    effects.extend(ask_past(app));
    effects
}

fn looked_at(app: &App) -> Option<Look> {
    match &app.over {
        Some(Over::Request(look)) => Some(*look),
        _ => None,
    }
}

/// More of the request that is looked at.
fn ask_story(app: &mut App, now: Now) -> Option<Effect> {
    let look = looked_at(app)?;
    let known = app.told(look.id).filter(|story| story.raw == look.raw);
    let due = known.is_none() || (app.reading.stale && now.at.0 - app.reading.at.0 >= STORY_MS);
    if app.reading.pending || !due {
        return None;
    }
    let running = app.request(look.id).is_some_and(RequestRecord::running);
    let only_answer = known.is_some_and(|story| running && !story.conversation.is_empty());
    app.reading = super::app::Reading { stale: false, pending: true, at: now.at };
    Some(Effect::FetchStory { id: look.id, wish: Wish { only_answer, raw: look.raw } })
}

/// Sums that are shown, or that the top line says.
fn ask_sums(app: &mut App, now: Now) -> Vec<Effect> {
    let mut effects = Vec::new();
    if app.snapshot.as_ref().is_none_or(|s| s.ledger.is_none()) {
        return effects;
    }
    let (screen, sums) = (app.screen, &mut app.sums);
    let wait = if matches!(screen, Screen::Keys | Screen::Usage) { SUMS_MS } else { TODAY_MS };
    let due = sums.today.is_none() || now.at.0 - sums.today_at.0 >= wait;
    if sums.today_stale && !sums.today_asked && due {
        (sums.today_stale, sums.today_asked) = (false, true);
        effects.push(Effect::FetchToday);
    }
    if screen == Screen::Usage {
        let wanted = (sums.by, sums.days);
        if sums.asked != Some(wanted) || (sums.stale && now.at.0 - sums.at.0 >= SUMS_MS) {
            (sums.asked, sums.stale, sums.at) = (Some(wanted), false, now.at);
            effects.push(Effect::FetchUsage { by: wanted.0, days: wanted.1 });
        }
    }
    effects
}

/// Requests from before, where the reader of the log comes near their end.
fn ask_past(app: &mut App) -> Option<Effect> {
    if app.screen != Screen::Log || matches!(app.dialog, Some(Dialog::Filter { .. })) {
        return None;
    }
    let snapshot = app.snapshot.as_ref()?;
    snapshot.ledger.as_ref()?;
    let filter = app.place_of(Screen::Log).filter.text().to_owned();
    if app.past.filter != filter {
        app.past.restart(&filter);
    }
    let near_the_end = app.place_of(Screen::Log).offset + 2 * usize::from(app.size.1) >= screens::entries(app).len();
    if !app.past.wants() || !near_the_end {
        return None;
    }
    // What the events tell of is not asked for again.
    let oldest = snapshot.live.recent.iter().chain(&snapshot.live.running).map(|r| r.id).min();
    let before = app.past.next.or(oldest);
    app.past.pending = true;
    Some(Effect::FetchHistory { filter, before })
}

fn story_came(app: &mut App, story: Result<Box<Story>, String>, now: Now) -> Vec<Effect> {
    app.reading.pending = false;
    let Some(look) = looked_at(app) else { return Vec::new() };
    match story {
        Ok(mut story) if story.id == look.id => {
            if story.only_answer
                && let Some(before) = app.story.take().filter(|before| before.id == story.id)
            {
                story.conversation = before.conversation;
                story.kept = before.kept;
            }
            if let (Some(Dialog::Copy { id, curl }), Some(snapshot)) = (&mut app.dialog, &app.snapshot)
                && *id == story.id
                && story.raw
                && let (Some(record), [Part { who: Who::Raw, text, chars, .. }]) = (&story.record, story.conversation.as_slice())
                && text.chars().count() as u64 == *chars
                && let Some(again) = curl::again(snapshot, record, text)
            {
                *curl = again;
            }
            // Another form of it may have been asked for only to be copied.
            if story.raw == look.raw {
                app.story = Some(story);
            }
        }
        Ok(_) => {}
        Err(_) if app.request(look.id).is_some() => {
            // The account is there, only the words are not: asked again when something happens.
            let record = app.request(look.id).cloned().map(Box::new);
            let story = Story {
                id: look.id,
                asked: Vec::new(),
                answered: Vec::new(),
                conversation: Vec::new(),
                answer: Vec::new(),
                kept: false,
                only_answer: false,
                raw: look.raw,
                record,
            };
            app.story = Some(Box::new(story));
        }
        Err(why) => toast(app, why, Level::Warn, now),
    }
    Vec::new()
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
    live.apply(event);
    app.fresh.stale = true;
    let about = match &event.kind {
        EventKind::Progress { id, .. } | EventKind::FirstContent { id, .. } => Some(*id),
        EventKind::Ended { id, .. } => {
            (app.sums.stale, app.sums.today_stale) = (true, true);
            Some(*id)
        }
        _ => None,
    };
    app.reading.stale |= about.is_some() && looked_at(app).map(|look| look.id) == about;
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
                toast(app, fill(&now.text.toast.nothing_here, &[("key", &c.to_string())]), Level::Info, now);
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
        (Dialog::Copy { curl, .. }, KeyCode::Char('c' | 'y') | KeyCode::Enter) => return copy(app, curl, &now.text.toast.the_curl, now),
        (Dialog::Copy { id, .. }, KeyCode::Char('i')) => return copy(app, id.to_string(), &now.text.toast.the_id, now),
        (Dialog::Copy { id, .. }, KeyCode::Char('b')) => return copy_answer(app, id, now),
        (Dialog::Copy { .. }, KeyCode::Char('n' | 'q') | KeyCode::Esc) => {}
        (Dialog::Replay { .. }, KeyCode::Esc) => {}
        (Dialog::Replay { id, model }, KeyCode::Enter) => {
            let model = model.trim().to_owned();
            return vec![Effect::Act(Action::Replay { id: id.to_string(), model: (!model.is_empty()).then_some(model) })];
        }
        (Dialog::Replay { id, mut model }, code) => {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match code {
                KeyCode::Backspace => drop(model.pop()),
                KeyCode::Char('u' | 'w') if control => model.clear(),
                KeyCode::Char(c) if !control && model.chars().count() < FILTER_CHARS => model.push(c),
                _ => {}
            }
            app.dialog = Some(Dialog::Replay { id, model });
        }
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
                KeyCode::Backspace => {
                    type_into_filter(app, now, |text| text.truncate(text.char_indices().next_back().map_or(0, |(at, _)| at)));
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
                None => toast(app, now.text.toast.no_editor.clone(), Level::Warn, now),
            }
        }
        Act::Filter => {
            let before = app.place().filter.clone();
            app.dialog = Some(Dialog::Filter { text: before.text().to_owned(), error: None, before });
        }
        Act::Go(screen) => return go(app, screen, now),
        Act::Group => {
            app.sums.group();
            app.place_mut().selected = None;
            return refresh(app, now);
        }
        Act::Headers => {
            if let Some(Over::Request(look)) = &mut app.over {
                look.pane = if look.pane == Pane::Headers { Pane::Way } else { Pane::Headers };
            }
        }
        Act::Help => {
            app.over = match app.over.take() {
                Some(Over::Help { under, .. }) => under.map(|look| Over::Request(*look)),
                Some(Over::Request(look)) => Some(Over::Help { scroll: 0, under: Some(Box::new(look)) }),
                None => Some(Over::Help { scroll: 0, under: None }),
            };
        }
        Act::Kill => ask_to_kill(app, now),
        Act::NextPane => turn(app, 1),
        Act::NextScreen => return go(app, app.screen.after(1), now),
        Act::Open => return open(app, now),
        Act::PageDown => scroll(app, page(app), now),
        Act::PageUp => scroll(app, -page(app), now),
        Act::Pause => {
            let live = app.snapshot.as_ref().map(|s| s.live.clone());
            app.paused = if app.paused.is_some() { None } else { live.map(|live| Pause { live, at: now.at }) };
        }
        Act::PreviousPane => turn(app, Pane::ALL.len() - 1),
        Act::PreviousScreen => return go(app, app.screen.after(Screen::ALL.len() - 1), now),
        Act::Quit => return quit(app),
        Act::Raw => {
            if let Some(Over::Request(look)) = &mut app.over {
                look.raw = !look.raw;
                look.scroll = Look::at(look.id).scroll;
                if look.pane == Pane::Way {
                    look.pane = Pane::Answer;
                }
            }
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
                ask(app, fill(&now.text.ask.test, &[("name", &key)]), Effect::Act(Action::Test { key }));
            }
        }
        Act::Toggle => return toggle(app),
        Act::Top => top(app),
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

fn back(app: &mut App) {
    match app.over.take() {
        Some(Over::Help { under: Some(look), .. }) => app.over = Some(Over::Request(*look)),
        // What was said is not held longer than it is looked at.
        Some(_) => app.story = None,
        None => {
            let place = app.place_mut();
            place.filter = Filter::default();
            place.selected = None;
        }
    }
}

fn turn(app: &mut App, steps: usize) {
    if let Some(Over::Request(look)) = &mut app.over {
        look.pane = look.pane.after(steps);
    }
}

fn go(app: &mut App, screen: Screen, now: Now) -> Vec<Effect> {
    app.over = None;
    app.story = None;
    app.screen = screen;
    refresh(app, now)
}

fn page(app: &App) -> isize {
    isize::try_from(app.size.1.saturating_sub(8).max(1)).unwrap_or(1)
}

fn scroll(app: &mut App, by: isize, now: Now) {
    let most = screens::over_lines(app, now);
    let moved = |from: u16| u16::try_from(usize::from(from).saturating_add_signed(by)).unwrap_or(u16::MAX).min(most);
    match &mut app.over {
        Some(Over::Help { scroll, .. }) => *scroll = moved(*scroll),
        Some(Over::Request(look)) => {
            let follows = look.follow && look.pane == Pane::Answer;
            let scroll = &mut look.scroll[look.pane as usize];
            *scroll = moved(if follows { most } else { *scroll });
            if look.pane == Pane::Answer {
                look.follow = *scroll >= most;
            }
        }
        None => app.step(by),
    }
}

fn top(app: &mut App) {
    match &mut app.over {
        Some(Over::Help { scroll, .. }) => *scroll = 0,
        Some(Over::Request(look)) => {
            look.scroll[look.pane as usize] = 0;
            look.follow &= look.pane != Pane::Answer;
        }
        None => app.place_mut().selected = None,
    }
}

fn look_at(app: &mut App, id: RequestId, now: Now) -> Vec<Effect> {
    let mut look = Look::at(id);
    // What has ended is read from its beginning.
    look.follow = app.request(id).is_some_and(RequestRecord::running);
    app.over = Some(Over::Request(look));
    app.story = None;
    app.reading.stale = true;
    refresh(app, now)
}

fn open(app: &mut App, now: Now) -> Vec<Effect> {
    let Some(current) = app.current() else { return Vec::new() };
    match (app.screen, current) {
        (_, RowId::Request(id)) => {
            app.select(RowId::Request(id));
            return look_at(app, id, now);
        }
        (Screen::Log, line) => match screens::request_of(app, &line) {
            Some(id) => {
                app.select(line);
                return look_at(app, id, now);
            }
            None => toast(app, now.text.toast.no_single.clone(), Level::Info, now),
        },
        (Screen::Keys, RowId::Name(name)) => return show(app, Screen::Log, &name, now),
        (Screen::Upstreams, RowId::Name(name)) => return show(app, Screen::Live, &format!("upstream:{name}"), now),
        (Screen::Usage, RowId::Name(name)) => {
            if let Some(filter) = screens::usage_filter(app, &name) {
                return show(app, Screen::Log, &filter, now);
            }
        }
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
        (Some(Over::Request(look)), _) => app.request(look.id),
        (None, Some(RowId::Request(id))) => app.request(id),
        _ => None,
    }
}

fn ask_to_kill(app: &mut App, now: Now) {
    match subject(app) {
        Some(r) if r.running() => {
            let question = fill(&now.text.ask.kill, &[("project", &r.project), ("model", &r.asked)]);
            let id = r.id.to_string();
            ask(app, question, Effect::Act(Action::Kill { id }));
        }
        Some(_) => toast(app, now.text.toast.ended_already.clone(), Level::Info, now),
        None => toast(app, now.text.toast.none_selected.clone(), Level::Info, now),
    }
}

/// Asks to which model; the one of the first time stands there.
fn ask_to_replay(app: &mut App, now: Now) {
    match subject(app) {
        Some(r) => app.dialog = Some(Dialog::Replay { id: r.id, model: r.asked.to_string() }),
        None => toast(app, now.text.toast.none_selected.clone(), Level::Info, now),
    }
}

fn copy_menu(app: &mut App, now: Now) -> Vec<Effect> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    if let Some(r) = subject(app) {
        let (id, curl) = (r.id, curl::hello(snapshot, &r.asked));
        app.dialog = Some(Dialog::Copy { id, curl });
        // The bytes of the request make a better command, where they are kept.
        let wish = Wish { only_answer: false, raw: true };
        return if looked_at(app).is_some() { vec![Effect::FetchStory { id, wish }] } else { Vec::new() };
    }
    let curl = curl::hello(snapshot, screens::first_model(snapshot));
    copy(app, curl, &now.text.toast.the_curl, now)
}

fn copy(app: &mut App, text: String, what: &str, now: Now) -> Vec<Effect> {
    toast(app, fill(&now.text.toast.copied, &[("what", what)]), Level::Info, now);
    if app.copied.len() >= COPIED {
        app.copied.remove(0);
    }
    app.copied.push(text.clone());
    vec![Effect::Copy(text)]
}

fn copy_answer(app: &mut App, id: RequestId, now: Now) -> Vec<Effect> {
    let parts = app.told(id).map(|story| story.answer.iter().map(|part| part.text.as_str()).collect::<Vec<_>>());
    match parts.map(|parts| parts.join("\n")).filter(|text| !text.is_empty()) {
        Some(text) => copy(app, text, &now.text.toast.the_answer, now),
        None => {
            toast(app, now.text.toast.nothing_said.clone(), Level::Info, now);
            Vec::new()
        }
    }
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
        (Screen::Keys, Some(RowId::Name(key))) => Some(Action::Warm { key: Some(key), model: None }),
        _ => problem::worst(app, now).and_then(|problem| problem.act),
    };
    match action {
        Some(action) => vec![Effect::Act(action)],
        None => {
            toast(app, now.text.toast.nothing_cooling.clone(), Level::Info, now);
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
        MouseEventKind::ScrollDown => scroll(app, 3, now),
        MouseEventKind::ScrollUp => scroll(app, -3, now),
        MouseEventKind::Down(MouseButton::Left) if app.dialog.is_none() => return clicked(app, mouse, now),
        _ => {}
    }
    Vec::new()
}

fn clicked(app: &mut App, mouse: MouseEvent, now: Now) -> Vec<Effect> {
    let (columns, rows) = app.size;
    let layout = Layout::of(app, columns, rows, now);
    if layout.wide() && mouse.row == layout.tabs.y {
        return layout::tab_at(mouse.column, columns, now.text).map_or_else(Vec::new, |screen| go(app, screen, now));
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
