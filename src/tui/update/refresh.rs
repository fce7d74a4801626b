//! Decides when to fetch data from the proxy: often enough to be current, but rate limited.

use crate::{
    base::clock::UnixMillis,
    control::{request_transcript::TranscriptQuery, snapshot::Snapshot},
    events::record::RequestRecord,
    tui::{
        app::{App, ConnState, Dialog, ExplainText, Pane, TranscriptFetch},
        effect::Effect,
        format::FrameContext,
        screen::Screen,
        screens,
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
        effects.push(fetch_snapshot(app));
    }
    effects.extend(fetch_transcript(app, now));
    effects.extend(fetch_explain(app));
    effects.extend(fetch_usage(app, now));
    effects.extend(fetch_history(app));
    effects
}

/// Fetches a new snapshot.
pub(super) fn fetch_snapshot(app: &mut App) -> Effect {
    app.snapshot_fetch.pending = true;
    Effect::FetchSnapshot
}

/// Marks the data that became stale because time passed.
pub(super) fn mark_stale(app: &mut App, now: FrameContext) {
    // A wait that just ended has also ended in the proxy, but only a new snapshot shows it.
    app.snapshot_fetch.urgent |= app
        .snapshot
        .as_ref()
        .is_some_and(|s| wait_ended_since(s, app.snapshot_fetch.fetched_at, now.at));
    // A view of a running request fetches its transcript repeatedly.
    app.transcript_fetch.stale |= screens::shown_request(app, now)
        .is_some_and(|(id, _)| app.request(id).is_some_and(RequestRecord::is_running));
}

fn wait_ended_since(snapshot: &Snapshot, then: UnixMillis, now: UnixMillis) -> bool {
    let ended = |until: Option<UnixMillis>| until.is_some_and(|until| until > then && until <= now);
    snapshot.upstreams.iter().any(|u| ended(u.until))
        || snapshot.keys.iter().any(|k| ended(k.until) || k.scopes.iter().any(|s| ended(s.until)))
}

/// Fetches more of the transcript of the request on the screen.
fn fetch_transcript(app: &mut App, now: FrameContext) -> Option<Effect> {
    let (id, raw) = screens::shown_request(app, now)?;
    let known = app.transcript_of(id).filter(|story| story.raw == raw);
    let waited = now.at.0 - app.transcript_fetch.requested_at.0 >= TRANSCRIPT_MS;
    // The request under a list changes as fast as requests come.
    let due = match known {
        None => waited || app.request_view().is_some(),
        Some(_) => waited && app.transcript_fetch.stale,
    };
    if app.transcript_fetch.pending || !due {
        return None;
    }
    let running = app.request(id).is_some_and(RequestRecord::is_running);
    let only_answer = known.is_some_and(|story| running && !story.conversation.is_empty());
    app.transcript_fetch = TranscriptFetch { stale: false, pending: true, requested_at: now.at };
    Some(Effect::FetchTranscript { id, query: TranscriptQuery { only_answer, raw } })
}

/// Fetches the explanation of the open request, once the request has ended.
fn fetch_explain(app: &mut App) -> Option<Effect> {
    let view = app.request_view().filter(|view| view.pane == Pane::Explain)?;
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
