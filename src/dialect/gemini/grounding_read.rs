//! Reads the sources of an answer and its token probabilities: grounding, citations, logprobs.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef, writer},
    ir::block::Citation,
};

/// The text buffered to map byte offsets, in bytes. Spans in longer texts are mapped only if all
/// text is ASCII.
const MAX_BUFFERED_BYTES: usize = 64 << 10;
/// The maximum number of citations in one answer.
const MAX_CITATIONS: usize = 1000;

/// The text of a block, as far as it is needed to convert byte offsets to character offsets.
#[derive(Debug, Default)]
pub(super) struct TextOffsets {
    text: String,
    total_bytes: usize,
    has_non_ascii: bool,
}

impl TextOffsets {
    pub(super) fn push(&mut self, text: &str) {
        if self.text.len() == self.total_bytes
            && self.total_bytes + text.len() <= MAX_BUFFERED_BYTES
        {
            self.text.push_str(text);
        }
        self.total_bytes += text.len();
        self.has_non_ascii |= !text.is_ascii();
    }

    /// The number of characters before a byte offset.
    fn char_index(&self, byte: u64) -> Option<u64> {
        let at = usize::try_from(byte).ok().filter(|&at| at <= self.total_bytes)?;
        if !self.has_non_ascii {
            return Some(byte);
        }
        Some(self.text.get(..at)?.chars().count() as u64)
    }

    fn read_span(&self, segment: JsonRef<'_>) -> Option<(u64, u64)> {
        // The wire format omits zeros, so a span at the very beginning has no start.
        let start = segment.get("startIndex").and_then(JsonRef::u64).unwrap_or(0);
        let end = segment.get("endIndex").and_then(JsonRef::u64)?;
        Some((self.char_index(start)?, self.char_index(end)?)).filter(|(start, end)| start < end)
    }
}

/// Returns the searches behind an answer as one item `web_search_call` of Responses; `None` if
/// there were none.
pub(super) fn read_search(json: JsonRef<'_>, seed: &str) -> Option<RawJson> {
    let queries = json.get("webSearchQueries")?.strings();
    let first = queries.first()?;
    let chunks = || json.get("groundingChunks").into_iter().flat_map(JsonRef::items);
    Some(RawJson::object(|o| {
        o.str("id", &format!("ws_{seed}"))
            .str("type", "web_search_call")
            .str("status", "completed");
        o.object("action", |o| {
            o.str("type", "search").str("query", first);
            o.array("queries", |a| {
                for query in &queries {
                    a.str(query);
                }
            });
            o.array("sources", |a| {
                for web in chunks().filter_map(|chunk| chunk.get("web")) {
                    let Some(uri) = web.non_empty_at("uri") else { continue };
                    a.object(|o| {
                        o.str("type", "url").str("url", &uri);
                        o.opt_str("title", web.string_at("title").as_deref());
                    });
                }
            });
        });
    }))
}

/// Reads `groundingMetadata`: one citation for each source of each supported segment. A source that
/// supports no segment gives a citation without a span.
pub(super) fn read_grounding(json: JsonRef<'_>, offsets: &TextOffsets, out: &mut Vec<Citation>) {
    let chunks: Vec<Citation> = json
        .get("groundingChunks")
        .into_iter()
        .flat_map(JsonRef::items)
        .map(read_grounding_chunk)
        .collect();
    let mut used = vec![false; chunks.len()];
    for support in json.get("groundingSupports").into_iter().flat_map(JsonRef::items) {
        let span = support.get("segment").and_then(|segment| offsets.read_span(segment));
        for index in support.get("groundingChunkIndices").into_iter().flat_map(JsonRef::items) {
            let Some(at) =
                index.u64().and_then(|at| usize::try_from(at).ok()).filter(|&at| at < chunks.len())
            else {
                continue;
            };
            used[at] = true;
            if out.len() < MAX_CITATIONS {
                out.push(Citation { span, ..chunks[at].clone() });
            }
        }
    }
    let alone = chunks
        .into_iter()
        .zip(used)
        .filter(|(chunk, used)| !used && (chunk.url.is_some() || chunk.title.is_some()));
    out.extend(alone.map(|(chunk, _)| chunk).take(MAX_CITATIONS));
}

fn read_grounding_chunk(json: JsonRef<'_>) -> Citation {
    let source = ["web", "retrievedContext", "maps", "image"]
        .iter()
        .find_map(|kind| json.get(kind))
        .unwrap_or(json);
    let text = |key: &str| source.non_empty_at(key);
    Citation {
        url: text("uri").or_else(|| text("sourceUri")),
        title: text("title").or_else(|| text("documentName")).or_else(|| text("fileSearchStore")),
        cited_text: text("text"),
        ..Citation::default()
    }
}

/// Reads `citationMetadata`: the spans in which the model repeats published text.
pub(super) fn read_citation_sources(
    json: JsonRef<'_>,
    offsets: &TextOffsets,
    out: &mut Vec<Citation>,
) {
    let list = json.get("citationSources").or_else(|| json.get("citations"));
    for source in list.into_iter().flat_map(JsonRef::items).take(MAX_CITATIONS) {
        let text = |key| source.string_at(key);
        if text("uri").is_some() || text("title").is_some() {
            out.push(Citation {
                url: text("uri"),
                title: text("title"),
                span: offsets.read_span(source),
                ..Citation::default()
            });
        }
    }
}

/// Reads `logprobsResult` as the array of OpenAI's `logprobs.content`.
pub(super) fn read_logprobs(json: JsonRef<'_>) -> Option<RawJson> {
    let chosen = json.get("chosenCandidates")?;
    let mut tops = json.get("topCandidates").into_iter().flat_map(JsonRef::items);
    let text = writer::array(|a| {
        for token in chosen.items() {
            let top = tops.next().and_then(|top| top.get("candidates"));
            a.object(|o| {
                write_token(o, token);
                o.array("top_logprobs", |a| {
                    for token in top.into_iter().flat_map(JsonRef::items) {
                        a.object(|o| write_token(o, token));
                    }
                });
            });
        }
    });
    RawJson::parse(&text).filter(|raw| raw.text() != "[]")
}

fn write_token(o: &mut writer::ObjectWriter<'_>, token: JsonRef<'_>) {
    let text = token.get("token").and_then(JsonRef::str).unwrap_or_default();
    o.str("token", &text);
    match token.get("logProbability").filter(|value| value.kind() == "number") {
        Some(value) => o.json("logprob", value),
        None => o.raw_text("logprob", "0.0"),
    };
    o.array("bytes", |a| {
        text.bytes().for_each(|b| {
            a.num(b);
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json::reader;

    #[test]
    fn positions_are_converted_to_characters() {
        let mut offsets = TextOffsets::default();
        offsets.push("é is a letter");
        let grounding_json =
            br#"{"groundingChunks":[{"web":{"uri":"u","title":"t"}},{"retrievedContext":{"text":"words"}},{"web":{"uri":"v"}}],
            "groundingSupports":[{"segment":{"endIndex":5},"groundingChunkIndices":[0,1,9]}]}"#;
        let mut citations = Vec::new();
        read_grounding(reader::parse(grounding_json).expect("json"), &offsets, &mut citations);
        let citation =
            |url: Option<&str>| Citation { url: url.map(str::to_owned), ..Citation::default() };
        assert_eq!(
            citations,
            [
                Citation { title: Some("t".to_owned()), span: Some((0, 4)), ..citation(Some("u")) },
                Citation {
                    cited_text: Some("words".to_owned()),
                    span: Some((0, 4)),
                    ..citation(None)
                },
                citation(Some("v")),
            ]
        );
    }

    #[test]
    fn long_texts_are_not_buffered() {
        let mut offsets = TextOffsets::default();
        (0..100).for_each(|_| offsets.push(&"a".repeat(1000)));
        assert_eq!(
            (offsets.char_index(99_000), offsets.text.len() <= MAX_BUFFERED_BYTES),
            (Some(99_000), true)
        );
        offsets.push("é");
        assert_eq!((offsets.char_index(5), offsets.char_index(99_000)), (Some(5), None));
    }

    #[test]
    fn log_probabilities_are_read_in_the_openai_form() {
        let json = reader::parse(br#"{"chosenCandidates":[{"token":"a","tokenId":1,"logProbability":-0.5}],"topCandidates":[{"candidates":[{"token":"b","logProbability":-1}]}]}"#).expect("json");
        assert_eq!(
            read_logprobs(json).expect("some").text(),
            r#"[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-1,"bytes":[98]}]}]"#
        );
    }
}
