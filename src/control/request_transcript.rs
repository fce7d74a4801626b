//! Shows the content of a request: headers, the conversation, and the response as it streams.

use serde::{Deserialize, Serialize};

use crate::control::history::LedgerHandle;
use crate::{
    base::id::RequestId,
    dialect::Framing,
    events::{ledger_queue::ExchangeSide, record::RequestRecord},
    ir::{fault::ProxyError, op::Dialect},
    ledger::{bodies::BodyView, query::RequestDetail},
    relay::{
        engine::Engine,
        observe::transcript::{self, TranscriptReader},
    },
};

pub use crate::relay::observe::{
    recent_headers::HeaderLines,
    transcript::{PartKind, Speaker, TranscriptPart},
};

/// The content of one request. It contains no secrets: stored bodies are redacted, and
/// authentication headers are never stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestTranscript {
    pub id: RequestId,
    /// Client headers, as far as they may be sent to upstreams; empty if they were not stored.
    #[serde(rename = "asked")]
    pub request_headers: HeaderLines,
    /// Headers that the client received.
    #[serde(rename = "answered")]
    pub response_headers: HeaderLines,
    pub conversation: Vec<TranscriptPart>,
    pub answer: Vec<TranscriptPart>,
    /// Whether bodies of this request are stored at all.
    #[serde(rename = "kept")]
    pub bodies_stored: bool,
    /// The conversation was not requested.
    pub only_answer: bool,
    /// Contains the raw bytes.
    pub raw: bool,
    pub record: Option<Box<RequestRecord>>,
}

/// Which parts of a transcript to return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TranscriptQuery {
    /// Return only the answer; the caller already has the rest.
    pub only_answer: bool,
    /// Return the raw bytes instead of the parsed text.
    pub raw: bool,
}

/// Returns the path and query string for a transcript.
#[must_use]
pub fn transcript_path(id: RequestId, query: TranscriptQuery) -> String {
    let flag = |on: bool, name: &str| if on { format!("&{name}=1") } else { String::new() };
    format!(
        "/aiproxy/v1/requests/{id}/story?{}{}",
        flag(query.only_answer, "answer"),
        flag(query.raw, "raw")
    )
}

/// Parses the query string.
#[must_use]
pub fn parse_query(query: Option<&str>) -> TranscriptQuery {
    let has = |name: &str| query.is_some_and(|query| query.split('&').any(|pair| pair == name));
    TranscriptQuery { only_answer: has("answer=1"), raw: has("raw=1") }
}

/// Returns the transcript of a request.
///
/// # Errors
///
/// There is no such request.
pub async fn read_transcript(
    engine: &Engine,
    ledger: Option<&LedgerHandle>,
    id: &str,
    query: TranscriptQuery,
) -> Result<RequestTranscript, ProxyError> {
    let known = engine.bus.view(|live| live.find(id).cloned());
    if let Some(record) = known.as_ref().filter(|record| record.is_running()) {
        let now = engine.clock.mono();
        let answer =
            engine.live_taps.read(record.id, || transcript_reader(record), now).unwrap_or_default();
        let bodies = match ledger {
            Some(ledger) if !query.only_answer => {
                ledger.bodies(record.id).await.unwrap_or_default()
            }
            _ => Vec::new(),
        };
        return Ok(build_transcript(engine, record.clone(), &bodies, Some(answer), query));
    }
    let full = match ledger {
        Some(ledger) => ledger.request_detail(id).await.map(Some),
        None => Ok(None),
    };
    match (full, known) {
        (Ok(Some(full)), _) => Ok(build_transcript(engine, full.record, &full.bodies, None, query)),
        (_, Some(record)) => Ok(build_transcript(engine, record, &[], None, query)),
        (Err(error), None) => Err(error),
        (Ok(None), None) => Err(LedgerHandle::unknown_request(id)),
    }
}

/// Returns the transcript of a finished request.
#[must_use]
pub fn transcript_of(engine: &Engine, full: &RequestDetail) -> RequestTranscript {
    build_transcript(engine, full.record.clone(), &full.bodies, None, TranscriptQuery::default())
}

fn build_transcript(
    engine: &Engine,
    record: RequestRecord,
    bodies: &[BodyView],
    answer: Option<Vec<TranscriptPart>>,
    query: TranscriptQuery,
) -> RequestTranscript {
    let side = |side: ExchangeSide| bodies.iter().find(|body| body.side == side);
    let (request_headers, response_headers) =
        engine.recent_headers.find(record.id).unwrap_or_default();
    let redacted = |lines: HeaderLines| {
        lines.into_iter().map(|(name, value)| (name, engine.sanitize(&value))).collect()
    };
    let conversation = match side(ExchangeSide::Request) {
        Some(body) if query.raw => transcript::raw_parts(&body.head, &body.tail),
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
        (None, Some(body)) if query.raw => transcript::raw_parts(&body.head, &body.tail),
        (None, Some(body)) => {
            let mut reader = transcript_reader(&record);
            reader.feed(&body.head.clone().into());
            if !body.tail.is_empty() {
                reader.push_gap();
                reader.feed(&body.tail.clone().into());
            }
            match reader.parts() {
                parts if parts.is_empty() => transcript::raw_parts(&body.head, &body.tail),
                parts => parts,
            }
        }
        (None, None) => Vec::new(),
    };
    RequestTranscript {
        id: record.id,
        request_headers: redacted(request_headers),
        response_headers: redacted(response_headers),
        conversation,
        answer,
        bodies_stored: !bodies.is_empty(),
        only_answer: query.only_answer,
        raw: query.raw,
        record: Some(Box::new(record)),
    }
}

/// Returns the reader for the framing of the response: errors and non-streaming responses are one
/// piece.
fn transcript_reader(record: &RequestRecord) -> TranscriptReader {
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
    fn transcript_query_round_trips_through_its_path() {
        let id = RequestId::new(UnixMillis(1_700_000_000_000));
        for wanted in [
            TranscriptQuery::default(),
            TranscriptQuery { only_answer: true, raw: false },
            TranscriptQuery { only_answer: true, raw: true },
        ] {
            let path = transcript_path(id, wanted);
            assert_eq!(parse_query(path.split_once('?').map(|(_, query)| query)), wanted);
        }
    }
}
