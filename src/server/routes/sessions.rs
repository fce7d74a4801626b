//! `GET /context/{session}`: returns the turns of a session from the ledger, for the project that
//! has the session.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::server::{
    routes::{not_found, query_value},
    state::ServerState,
};
use crate::{
    base::id::RequestId,
    config::settings::Project,
    control::{
        history::RequestDetail,
        request_transcript::{self, PartKind, Speaker, TranscriptPart},
    },
    events::ledger_queue::ExchangeSide,
    ir::fault::{ProxyError, ProxyErrorKind},
};

/// Turns in one page by default.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// Returns the newest turns, or those before `?before=ID`.
pub(in crate::server) async fn list_turns(
    server: &ServerState,
    project: &Arc<Project>,
    session: &str,
    query: Option<&str>,
) -> Result<Value, ProxyError> {
    let Some(ledger) = &server.control.ledger_handle else {
        return Err(ProxyError::new(
            ProxyErrorKind::Unavailable,
            "no ledger is kept, so there are no turns",
        )
        .code("no_ledger"));
    };
    let bad_request = |message: &str| ProxyError::new(ProxyErrorKind::BadRequest, message);
    let value = |name: &str| query_value(query, name);
    let before = value("before")
        .map(|id| {
            RequestId::parse(&id)
                .ok_or_else(|| bad_request("`before` is the `request_id` of a turn"))
        })
        .transpose()?;
    let limit = value("limit")
        .map_or(Ok(DEFAULT_LIMIT), |n| n.parse().map_err(|_| bad_request("`limit` is a number")))?
        .clamp(1, MAX_LIMIT);
    let page = ledger.session(&project.name, session, before, limit).await?;
    if page.turns.is_empty() && before.is_none() {
        return Err(not_found(
            "session",
            session,
            "turns are kept for as long as `keep_bodies` under [ledger] says, under the `x-session-id` of their requests",
        ));
    }
    let turns: Vec<Value> = page.turns.iter().map(|detail| turn_json(server, detail)).collect();
    let next =
        page.turns.last().filter(|_| page.has_more).map(|detail| detail.record.id.to_string());
    Ok(
        json!({ "session_id": session, "project": &*project.name, "total": turns.len(), "turns": turns, "next": next }),
    )
}

fn turn_json(server: &ServerState, detail: &RequestDetail) -> Value {
    let r = &detail.record;
    let transcript = request_transcript::transcript_of(&server.engine, detail);
    let last = r.serving_attempt();
    json!({
        "request_id": r.id,
        "timestamp": r.at.to_string(),
        "model": &*r.requested_model,
        "provider_id": last.map(|attempt| &*attempt.upstream),
        "model_id": last.map(|attempt| &*attempt.model),
        "dialect": r.dialect,
        "op": r.op,
        "stream": r.stream,
        "status": r.status,
        "state": r.state,
        "error": r.error,
        "duration_ms": r.duration_ms,
        "usage": r.usage.map(|usage| json!({ "input_tokens": usage.input_total(), "output_tokens": usage.output_total() })),
        "cost_usd": r.cost.and_then(|cost| cost.usd).map(|usd| usd.dollars()),
        "kept": transcript.bodies_stored,
        "answer": assistant_text(&transcript.answer),
        "request": body_json(detail, ExchangeSide::Request),
        "response": body_json(detail, ExchangeSide::Answer),
    })
}

/// Returns the text of the response; `null` if it is unknown.
fn assistant_text(parts: &[TranscriptPart]) -> Option<String> {
    let text: String = parts
        .iter()
        .filter(|part| part.kind == PartKind::Text && part.speaker == Speaker::Assistant)
        .map(|part| part.text.as_str())
        .collect();
    (!text.is_empty()).then_some(text)
}

/// Returns a stored body as text; of a long body, its head and tail.
fn body_json(detail: &RequestDetail, side: ExchangeSide) -> Value {
    match detail.bodies.iter().find(|body| body.side == side) {
        Some(body) if body.tail.is_empty() => json!(body.head),
        Some(body) => json!({ "begins": body.head, "ends": body.tail, "bytes": body.total }),
        None => Value::Null,
    }
}
