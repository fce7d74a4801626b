//! What was said in a request, for people who look into it: headers, the conversation, and the
//! answer as it grows.

use serde::{Deserialize, Serialize};

use super::history::Books;
use crate::{
    base::id::RequestId,
    dialect::Framing,
    events::{record::RequestRecord, sink::ExchangeSide},
    ir::{fault::ProxyError, op::Dialect},
    ledger::{bodies::BodyView, query::RequestDetail},
    relay::{
        engine::Engine,
        transcript::{self, TranscriptReader},
    },
};

pub use crate::relay::{
    heads::HeaderLines,
    transcript::{PartKind, Speaker, TranscriptPart},
};

/// One request in its own words. Nothing secret: kept bodies had secrets taken out, and headers
/// that prove who asks were never kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Story {
    pub id: RequestId,
    /// Of the client, as far as upstreams may see them; empty where they were not kept.
    pub asked: HeaderLines,
    /// What the client got.
    pub answered: HeaderLines,
    pub conversation: Vec<TranscriptPart>,
    pub answer: Vec<TranscriptPart>,
    /// Whether bodies of this request are kept at all.
    pub kept: bool,
    /// The conversation was not asked for.
    pub only_answer: bool,
    /// Bytes as they were.
    pub raw: bool,
    pub record: Option<Box<RequestRecord>>,
}

/// What is wanted of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The rest is known already.
    pub only_answer: bool,
    /// The bytes as they were, not what they say.
    pub raw: bool,
}

/// The path that asks for it.
#[must_use]
pub fn path(id: RequestId, wish: Wish) -> String {
    let flag = |on: bool, name: &str| if on { format!("&{name}=1") } else { String::new() };
    format!(
        "/aiproxy/v1/requests/{id}/story?{}{}",
        flag(wish.only_answer, "answer"),
        flag(wish.raw, "raw")
    )
}

/// Reads the wish from a query.
#[must_use]
pub fn wish(query: Option<&str>) -> Wish {
    let has = |name: &str| query.is_some_and(|query| query.split('&').any(|pair| pair == name));
    Wish { only_answer: has("answer=1"), raw: has("raw=1") }
}

/// Tells it.
///
/// # Errors
///
/// No such request.
pub async fn tell(
    engine: &Engine,
    books: Option<&Books>,
    id: &str,
    wish: Wish,
) -> Result<Story, ProxyError> {
    let known = engine.bus.view(|live| live.find(id).cloned());
    if let Some(record) = known.as_ref().filter(|record| record.is_running()) {
        let now = engine.clock.mono();
        let answer = engine.live_taps.read(record.id, || teller(record), now).unwrap_or_default();
        let bodies = match books {
            Some(books) if !wish.only_answer => books.bodies(record.id).await.unwrap_or_default(),
            _ => Vec::new(),
        };
        return Ok(story(engine, record.clone(), &bodies, Some(answer), wish));
    }
    let full = match books {
        Some(books) => books.full(id).await.map(Some),
        None => Ok(None),
    };
    match (full, known) {
        (Ok(Some(full)), _) => Ok(story(engine, full.record, &full.bodies, None, wish)),
        (_, Some(record)) => Ok(story(engine, record, &[], None, wish)),
        (Err(error), None) => Err(error),
        (Ok(None), None) => Err(Books::unknown(id)),
    }
}

/// What was said in a finished request.
#[must_use]
pub fn of(engine: &Engine, full: &RequestDetail) -> Story {
    story(engine, full.record.clone(), &full.bodies, None, Wish::default())
}

fn story(
    engine: &Engine,
    record: RequestRecord,
    bodies: &[BodyView],
    answer: Option<Vec<TranscriptPart>>,
    wish: Wish,
) -> Story {
    let side = |side: ExchangeSide| bodies.iter().find(|body| body.side == side);
    let (asked, answered) = engine.recent_headers.find(record.id).unwrap_or_default();
    let redacted = |lines: HeaderLines| {
        lines.into_iter().map(|(name, value)| (name, engine.sanitize(&value))).collect()
    };
    let conversation = match side(ExchangeSide::Request) {
        Some(body) if wish.raw => transcript::raw_parts(&body.head, &body.tail),
        Some(body) => {
            transcript::read_conversation(record.dialect, record.op, &body.head, &body.tail)
        }
        None => Vec::new(),
    };
    let answer = match (answer, side(ExchangeSide::Answer)) {
        (Some(answer), _) => answer
            .into_iter()
            .map(|part| TranscriptPart {
                text: engine.redactor.redact(&part.text).into_owned(),
                ..part
            })
            .collect(),
        (None, Some(body)) if wish.raw => transcript::raw_parts(&body.head, &body.tail),
        (None, Some(body)) => {
            let mut teller = teller(&record);
            teller.feed(&body.head.clone().into());
            if !body.tail.is_empty() {
                teller.push_gap();
                teller.feed(&body.tail.clone().into());
            }
            match teller.parts() {
                parts if parts.is_empty() => transcript::raw_parts(&body.head, &body.tail),
                parts => parts,
            }
        }
        (None, None) => Vec::new(),
    };
    Story {
        id: record.id,
        asked: redacted(asked),
        answered: redacted(answered),
        conversation,
        answer,
        kept: !bodies.is_empty(),
        only_answer: wish.only_answer,
        raw: wish.raw,
        record: Some(Box::new(record)),
    }
}

/// How the answer of a request is framed: errors and what was not asked as a stream come in one
/// piece.
fn teller(record: &RequestRecord) -> TranscriptReader {
    let streamed = record.stream && record.status.is_none_or(|status| status < 300);
    let framing = match record.dialect {
        Dialect::Ollama => Framing::Ndjson,
        _ => Framing::Sse,
    };
    TranscriptReader::new(record.dialect, record.op, streamed.then_some(framing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::UnixMillis;

    #[test]
    fn a_wish_survives_its_path() {
        let id = RequestId::new(UnixMillis(1_700_000_000_000));
        for wanted in [
            Wish::default(),
            Wish { only_answer: true, raw: false },
            Wish { only_answer: true, raw: true },
        ] {
            let path = path(id, wanted);
            assert_eq!(wish(path.split_once('?').map(|(_, query)| query)), wanted);
        }
    }
}
