//! Decides when to fetch data from the proxy: often enough to be current, but rate limited.

use super::{fetch_snapshot, show_toast};
use crate::{
    control::request_transcript::{RequestTranscript, Speaker, TranscriptPart, TranscriptQuery},
    events::{event::Severity, record::RequestRecord},
    tui::{
        app::{App, ConnState, Dialog, ExplainText, Overlay, Pane, RequestView, TranscriptFetch},
        curl,
        effect::Effect,
        format::FrameContext,
        screens::{self, Screen},
    },
};

/// Minimum interval between snapshots on the screens that show upstreams and keys.
const REFRESH_MS: i64 = 2_000;
/// Minimum interval after a change of health.
const URGENT_MS: i64 = 250;
/// Interval between reads of an open, growing answer.
const TRANSCRIPT_MS: i64 = 200;
/// Minimum interval between fetches of totals, on the Usage screen and for the status bar only.
const USAGE_MS: i64 = 5_000;
const TODAY_MS: i64 = 30_000;

/// Fetches newer data if it is needed and the interval has passed.
pub(super) fn refresh(app: &mut App, now: FrameContext) -> Vec<Effect> {
    if app.connection != ConnState::Connected {
        return Vec::new();
    }
    let mut effects = Vec::new();
    let fetch_state = &app.snapshot_fetch;
    let shows_views = matches!(
        app.screen,
        Screen::Config | Screen::Keys | Screen::Models | Screen::Upstreams | Screen::Usage
    );
    let age = now.at.0 - fetch_state.fetched_at.0;
    if !fetch_state.pending
        && ((fetch_state.urgent && age >= URGENT_MS)
            || (fetch_state.stale && shows_views && age >= REFRESH_MS))
    {
        effects.extend(fetch_snapshot(app));
    }
    effects.extend(fetch_transcript(app, now));
    effects.extend(fetch_explain(app));
    effects.extend(fetch_usage(app, now));
    effects.extend(fetch_history(app));
    effects
}

pub(super) fn current_request_view(app: &App) -> Option<RequestView> {
    match &app.overlay {
        Some(Overlay::Request(view)) => Some(*view),
        _ => None,
    }
}

/// Fetches more of the open request's transcript.
fn fetch_transcript(app: &mut App, now: FrameContext) -> Option<Effect> {
    let view = current_request_view(app)?;
    let known = app.transcript_of(view.id).filter(|story| story.raw == view.raw);
    let due = known.is_none()
        || (app.transcript_fetch.stale
            && now.at.0 - app.transcript_fetch.requested_at.0 >= TRANSCRIPT_MS);
    if app.transcript_fetch.pending || !due {
        return None;
    }
    let running = app.request(view.id).is_some_and(RequestRecord::is_running);
    let only_answer = known.is_some_and(|story| running && !story.conversation.is_empty());
    app.transcript_fetch = TranscriptFetch { stale: false, pending: true, requested_at: now.at };
    Some(Effect::FetchTranscript {
        id: view.id,
        query: TranscriptQuery { only_answer, raw: view.raw },
    })
}

/// Fetches the explanation of the open request, once the request has ended.
fn fetch_explain(app: &mut App) -> Option<Effect> {
    let view = current_request_view(app).filter(|view| view.pane == Pane::Explain)?;
    if app.explain.as_ref().is_some_and(|account| account.id == view.id)
        || app.request(view.id).is_some_and(RequestRecord::is_running)
    {
        return None;
    }
    app.explain = Some(ExplainText { id: view.id, text: None });
    Some(Effect::FetchExplain { id: view.id })
}

/// Fetches the totals for the Usage screen or the status bar.
fn fetch_usage(app: &mut App, now: FrameContext) -> Vec<Effect> {
    let mut effects = Vec::new();
    if app.snapshot.as_ref().is_none_or(|s| s.ledger.is_none()) {
        return effects;
    }
    let (screen, sums) = (app.screen, &mut app.usage);
    let wait = if matches!(screen, Screen::Keys | Screen::Usage) { USAGE_MS } else { TODAY_MS };
    let due = sums.today.is_none() || now.at.0 - sums.today_at.0 >= wait;
    // A new day has new totals, even if no request has ended yet.
    sums.today_stale |= sums.today.is_some() && now.day(sums.today_at) != now.day(now.at);
    if sums.today_stale && !sums.today_pending && due {
        (sums.today_stale, sums.today_pending) = (false, true);
        effects.push(Effect::FetchToday);
    }
    if screen == Screen::Usage {
        let wanted = (sums.by, sums.days);
        if sums.pending_query != Some(wanted)
            || (sums.stale && now.at.0 - sums.requested_at.0 >= USAGE_MS)
        {
            (sums.pending_query, sums.stale, sums.requested_at) = (Some(wanted), false, now.at);
            effects.push(Effect::FetchUsage { by: wanted.0, days: wanted.1 });
        }
    }
    effects
}

/// Fetches older requests when the user scrolls near the end of the log.
fn fetch_history(app: &mut App) -> Option<Effect> {
    if app.screen != Screen::Log || matches!(app.dialog, Some(Dialog::Filter { .. })) {
        return None;
    }
    let snapshot = app.snapshot.as_ref()?;
    snapshot.ledger.as_ref()?;
    let filter = app.list_state_of(Screen::Log).filter.text().to_owned();
    if app.history.filter != filter {
        app.history.restart(&filter);
    }
    let near_the_end = app.list_state_of(Screen::Log).offset + 2 * usize::from(app.size.1)
        >= screens::list_rows(app).len();
    if !app.history.needs_fetch() || !near_the_end {
        return None;
    }
    // Requests known from events are not fetched again.
    let oldest = snapshot.live.finished().chain(snapshot.live.running.iter()).map(|r| r.id).min();
    let before = app.history.next.or(oldest);
    app.history.pending = true;
    Some(Effect::FetchHistory { filter, before })
}

pub(super) fn on_transcript(
    app: &mut App,
    story: Result<Box<RequestTranscript>, String>,
    now: FrameContext,
) -> Vec<Effect> {
    app.transcript_fetch.pending = false;
    let Some(view) = current_request_view(app) else { return Vec::new() };
    match story {
        Ok(mut story) if story.id == view.id => {
            if story.only_answer
                && let Some(before) = app.transcript.take().filter(|before| before.id == story.id)
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
                && let Some(again) = curl::replay_command(snapshot, record, text)
            {
                *curl = again;
            }
            // The other form may have been fetched only for copying.
            if story.raw == view.raw {
                app.transcript = Some(story);
            }
        }
        Ok(_) => {}
        Err(_) if app.request(view.id).is_some() => {
            // The record exists but its text does not; the next event triggers another fetch.
            let record = app.request(view.id).cloned().map(Box::new);
            let story = RequestTranscript {
                id: view.id,
                request_headers: Vec::new(),
                response_headers: Vec::new(),
                conversation: Vec::new(),
                answer: Vec::new(),
                bodies_stored: false,
                only_answer: false,
                raw: view.raw,
                record,
            };
            app.transcript = Some(Box::new(story));
        }
        Err(why) => show_toast(app, why, Severity::Warn, now),
    }
    Vec::new()
}
