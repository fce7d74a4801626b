//! Applies what the proxy sent: events, snapshots, transcripts and the results of actions.

use crate::{
    base::clock::UnixMillis,
    control::{
        action::ActionReply,
        request_transcript::{RequestTranscript, Speaker, TranscriptPart},
        snapshot::{Origin, Snapshot, UpstreamView},
    },
    events::{
        event::{Event, EventKind, Severity},
        live::Live,
        record::RequestRecord,
    },
    tui::{
        app::{App, ConnState, Dialog, SnapshotFetch},
        connection, curl,
        effect::Effect,
        format::FrameContext,
        rates::TrafficRates,
        reason_words::ReasonWords,
        screens,
        strings::fill,
        update::refresh::{fetch_snapshot, refresh},
    },
};

pub(super) fn on_action_result(
    app: &mut App,
    answer: Result<ActionReply, String>,
    now: FrameContext,
) {
    let (text, level) = match answer {
        Ok(reply) => {
            (reply_text(app, &reply, now), if reply.ok { Severity::Info } else { Severity::Error })
        }
        Err(why) if why == connection::TOO_MANY => {
            (now.text.toast.too_many.clone(), Severity::Error)
        }
        Err(why) if why == connection::UNREACHABLE => {
            (now.text.toast.unreachable.clone(), Severity::Error)
        }
        Err(why) => (why, Severity::Error),
    };
    app.show_toast(text, level, now);
    app.snapshot_fetch.urgent = true;
}

/// The result of an action in the user's language.
fn reply_text(app: &mut App, reply: &ActionReply, now: FrameContext) -> String {
    let Some(id) = reply.id.filter(|_| reply.ok) else {
        return reply.text.words(now.text);
    };
    app.last_replay = Some(id);
    fill(&now.text.toast.began, &[("text", &reply.text.words(now.text))])
}

pub(super) fn on_disconnect(app: &mut App, reason: String, retry_ms: u64, now: FrameContext) {
    app.snapshot_fetch.pending = false;
    let retry_ms = i64::try_from(retry_ms).unwrap_or(i64::MAX);
    let retry_at = UnixMillis(now.at.0.saturating_add(retry_ms));
    app.connection = ConnState::Disconnected { reason, retry_at };
}

pub(super) fn on_snapshot(app: &mut App, mut snapshot: Box<Snapshot>, now: FrameContext) {
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
    app.snapshot_fetch = SnapshotFetch { fetched_at: now.at, ..Default::default() };
    app.transcript_fetch.pending = false;
    app.usage.today_pending = false;
    app.history.pending = false;
}

pub(super) fn on_event(app: &mut App, event: &Event, now: FrameContext) -> Vec<Effect> {
    let Some(snapshot) = &mut app.snapshot else { return Vec::new() };
    let live = &mut snapshot.live;
    if event.seq <= live.seq {
        return Vec::new();
    }
    if event.seq != live.seq + 1 {
        // A snapshot closes the gap; until it arrives, no further events are applied.
        app.snapshot_fetch.overflowed = true;
        return if app.snapshot_fetch.pending { Vec::new() } else { vec![fetch_snapshot(app)] };
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
        about.is_some() && screens::shown_request(app, now).map(|(id, _)| id) == about;
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

pub(super) fn on_transcript(
    app: &mut App,
    story: Result<Box<RequestTranscript>, String>,
    now: FrameContext,
) {
    app.transcript_fetch.pending = false;
    let Some((id, raw)) = screens::shown_request(app, now) else { return };
    match story {
        Ok(mut story) if story.id == id => {
            if story.only_answer
                && let Some(before) = app.transcript.take().filter(|before| before.id == story.id)
            {
                story.conversation = before.conversation;
                story.bodies_stored = before.bodies_stored;
            }
            offer_exact_copy(app, &story);
            // The other form may have been fetched only for copying.
            if story.raw == raw {
                app.transcript = Some(story);
            }
        }
        Ok(_) => {}
        Err(_) if app.request(id).is_some() => {
            // The record exists but its text does not; the next event triggers another fetch.
            let record = app.request(id).cloned().map(Box::new);
            let story = RequestTranscript {
                id,
                request_headers: Vec::new(),
                response_headers: Vec::new(),
                conversation: Vec::new(),
                answer: Vec::new(),
                bodies_stored: false,
                only_answer: false,
                raw,
                record,
            };
            app.transcript = Some(Box::new(story));
        }
        Err(why) => app.show_toast(why, Severity::Warn, now),
    }
}

/// Replaces the command of an open copy menu by one with the exact bytes of the request, if they
/// are complete.
fn offer_exact_copy(app: &mut App, story: &RequestTranscript) {
    if let (Some(Dialog::Copy { id, curl }), Some(snapshot)) = (&mut app.dialog, &app.snapshot)
        && *id == story.id
        && story.raw
        && let (Some(record), [TranscriptPart { speaker: Speaker::Raw, text, chars, .. }]) =
            (&story.record, story.conversation.as_slice())
        && text.chars().count() as u64 == *chars
        && let Some(exact) = curl::replay_command(snapshot, record, text)
    {
        *curl = exact;
    }
}
