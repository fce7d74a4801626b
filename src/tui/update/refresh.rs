//! What is asked of the proxy so that what is shown is as new as it has to be, and not more often.

use super::{fetch, toast};
use crate::{
    control::story::{RequestTranscript, Speaker, TranscriptPart, TranscriptQuery},
    events::{kind::Severity, record::RequestRecord},
    tui::{
        app::{Account, App, Dialog, Link, Look, Over, Pane, Reading},
        curl,
        effect::Effect,
        format::Now,
        screens::{self, Screen},
    },
};

/// Views of upstreams and keys are asked for at most this often, on the screens that show them.
const REFRESH_MS: i64 = 2_000;
/// After a change of health.
const URGENT_MS: i64 = 250;
/// An answer that is looked at is read this often while it grows.
const STORY_MS: i64 = 200;
/// Sums are asked for anew this often where they are shown, and where only the top line says them.
const SUMS_MS: i64 = 5_000;
const TODAY_MS: i64 = 30_000;

/// Asks for newer views where they are needed and not too often.
pub(super) fn refresh(app: &mut App, now: Now) -> Vec<Effect> {
    if app.link != Link::Up {
        return Vec::new();
    }
    let mut effects = Vec::new();
    let fresh = &app.fresh;
    let shown = matches!(
        app.screen,
        Screen::Config | Screen::Keys | Screen::Models | Screen::Upstreams | Screen::Usage
    );
    let age = now.at.0 - fresh.at.0;
    if !fresh.pending
        && ((fresh.urgent && age >= URGENT_MS) || (fresh.stale && shown && age >= REFRESH_MS))
    {
        effects.extend(fetch(app));
    }
    effects.extend(ask_story(app, now));
    effects.extend(ask_account(app));
    effects.extend(ask_sums(app, now));
    effects.extend(ask_past(app));
    effects
}

pub(super) fn looked_at(app: &App) -> Option<Look> {
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
    let running = app.request(look.id).is_some_and(RequestRecord::is_running);
    let only_answer = known.is_some_and(|story| running && !story.conversation.is_empty());
    app.reading = Reading { stale: false, pending: true, at: now.at };
    Some(Effect::FetchStory { id: look.id, wish: TranscriptQuery { only_answer, raw: look.raw } })
}

/// The account of the request that is looked at, once it is there to be told: when it has ended.
fn ask_account(app: &mut App) -> Option<Effect> {
    let look = looked_at(app).filter(|look| look.pane == Pane::Account)?;
    if app.account.as_ref().is_some_and(|account| account.id == look.id)
        || app.request(look.id).is_some_and(RequestRecord::is_running)
    {
        return None;
    }
    app.account = Some(Account { id: look.id, said: None });
    Some(Effect::FetchAccount { id: look.id })
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
    // Another day has other sums, also where nothing ended yet.
    sums.today_stale |= sums.today.is_some() && now.day(sums.today_at) != now.day(now.at);
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
    let near_the_end = app.place_of(Screen::Log).offset + 2 * usize::from(app.size.1)
        >= screens::entries(app).len();
    if !app.past.wants() || !near_the_end {
        return None;
    }
    // What the events tell of is not asked for again.
    let oldest = snapshot.live.finished().chain(snapshot.live.running.iter()).map(|r| r.id).min();
    let before = app.past.next.or(oldest);
    app.past.pending = true;
    Some(Effect::FetchHistory { filter, before })
}

pub(super) fn story_came(
    app: &mut App,
    story: Result<Box<RequestTranscript>, String>,
    now: Now,
) -> Vec<Effect> {
    app.reading.pending = false;
    let Some(look) = looked_at(app) else { return Vec::new() };
    match story {
        Ok(mut story) if story.id == look.id => {
            if story.only_answer
                && let Some(before) = app.story.take().filter(|before| before.id == story.id)
            {
                story.conversation = before.conversation;
                story.bodies_stored = before.bodies_stored;
            }
            if let (Some(Dialog::Copy { id, curl }), Some(snapshot)) =
                (&mut app.dialog, &app.snapshot)
                && *id == story.id
                && story.raw
                && let (Some(record), [TranscriptPart { speaker: Speaker::Raw, text, chars, .. }]) =
                    (&story.record, story.conversation.as_slice())
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
            let story = RequestTranscript {
                id: look.id,
                request_headers: Vec::new(),
                response_headers: Vec::new(),
                conversation: Vec::new(),
                answer: Vec::new(),
                bodies_stored: false,
                only_answer: false,
                raw: look.raw,
                record,
            };
            app.story = Some(Box::new(story));
        }
        Err(why) => toast(app, why, Severity::Warn, now),
    }
    Vec::new()
}
