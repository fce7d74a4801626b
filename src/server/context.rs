//! `GET /context/{session}`: the turns of a session as the ledger kept them, for the project whose
//! session it is.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{gate::Gate, known::unknown};
use crate::{
    base::id::RequestId,
    config::settings::Project,
    control::{
        history::RequestDetail,
        story::{self, PartKind, Speaker, TranscriptPart},
    },
    events::sink::ExchangeSide,
    ir::fault::{ProxyError, ProxyErrorKind},
};

/// Turns in one page, unless asked for more or fewer.
const USUAL: usize = 50;
const MOST: usize = 200;

/// Answers with the newest turns, or those before `?before=ID`.
pub(super) async fn answer(
    gate: &Gate,
    project: &Arc<Project>,
    session: &str,
    query: Option<&str>,
) -> Result<Value, ProxyError> {
    let Some(books) = &gate.control.ledger_handle else {
        return Err(ProxyError::new(
            ProxyErrorKind::Unavailable,
            "no ledger is kept, so there are no turns",
        )
        .code("no_ledger"));
    };
    let bad = |message: &str| ProxyError::new(ProxyErrorKind::BadRequest, message);
    let value = |name: &str| {
        let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next_back()
    };
    let before = value("before")
        .map(|id| RequestId::parse(id).ok_or_else(|| bad("`before` is the `request_id` of a turn")))
        .transpose()?;
    let limit = value("limit")
        .map_or(Ok(USUAL), |n| n.parse().map_err(|_| bad("`limit` is a number")))?
        .clamp(1, MOST);
    let found = books.session(&project.name, session, before, limit).await?;
    if found.turns.is_empty() && before.is_none() {
        return Err(unknown(
            "session",
            session,
            "turns are kept for as long as `keep_bodies` under [ledger] says, under the `x-session-id` of their requests",
        ));
    }
    let turns: Vec<Value> = found.turns.iter().map(|full| turn(gate, full)).collect();
    let next = found.turns.last().filter(|_| found.has_more).map(|full| full.record.id.to_string());
    Ok(
        json!({ "session_id": session, "project": &*project.name, "total": turns.len(), "turns": turns, "next": next }),
    )
}

fn turn(gate: &Gate, full: &RequestDetail) -> Value {
    let r = &full.record;
    let said = story::transcript_of(&gate.engine, full);
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
        "kept": said.bodies_stored,
        "answer": words(&said.answer),
        "request": body(full, ExchangeSide::Request),
        "response": body(full, ExchangeSide::Answer),
    })
}

/// What was answered in words; `null` where it is not known.
fn words(parts: &[TranscriptPart]) -> Option<String> {
    let text: String = parts
        .iter()
        .filter(|part| part.kind == PartKind::Text && part.speaker == Speaker::Assistant)
        .map(|part| part.text.as_str())
        .collect();
    (!text.is_empty()).then_some(text)
}

/// A body as it was kept, as text; of a long one beginning and end.
fn body(full: &RequestDetail, side: ExchangeSide) -> Value {
    match full.bodies.iter().find(|body| body.side == side) {
        Some(body) if body.tail.is_empty() => json!(body.head),
        Some(body) => json!({ "begins": body.head, "ends": body.tail, "bytes": body.total }),
        None => Value::Null,
    }
}
