//! Reads what an answer rests on: grounding, citations, token probabilities.

use std::borrow::Cow;

use crate::{
    base::{json::JsonRef, raw::RawJson, write},
    ir::block::Citation,
};

/// How much of a text is kept to find places in it; in longer ones only plain ASCII has places.
const KEPT: usize = 64 << 10;
/// The most citations of one answer.
const MOST: usize = 1000;

/// The text of a block, as far as it must be known to turn its bytes into characters.
#[derive(Debug, Default)]
pub(super) struct Heard {
    kept: String,
    bytes: usize,
    odd: bool,
}

impl Heard {
    pub(super) fn push(&mut self, text: &str) {
        if self.kept.len() == self.bytes && self.bytes + text.len() <= KEPT {
            self.kept.push_str(text);
        }
        self.bytes += text.len();
        self.odd |= !text.is_ascii();
    }

    /// The characters before a byte.
    fn character(&self, byte: u64) -> Option<u64> {
        let at = usize::try_from(byte).ok().filter(|&at| at <= self.bytes)?;
        if !self.odd {
            return Some(byte);
        }
        Some(self.kept.get(..at)?.chars().count() as u64)
    }

    fn span(&self, place: JsonRef<'_>) -> Option<(u64, u64)> {
        // A place at the very beginning is left out, as zeros are.
        let start = place.get("startIndex").and_then(JsonRef::u64).unwrap_or(0);
        let end = place.get("endIndex").and_then(JsonRef::u64)?;
        Some((self.character(start)?, self.character(end)?)).filter(|(start, end)| start < end)
    }
}

/// `groundingMetadata`: one citation for each source of each supported piece; sources without any
/// stand alone.
pub(super) fn grounding(json: JsonRef<'_>, heard: &Heard, out: &mut Vec<Citation>) {
    let chunks: Vec<Citation> =
        json.get("groundingChunks").into_iter().flat_map(JsonRef::items).map(chunk).collect();
    let mut used = vec![false; chunks.len()];
    for support in json.get("groundingSupports").into_iter().flat_map(JsonRef::items) {
        let span = support.get("segment").and_then(|segment| heard.span(segment));
        for index in support.get("groundingChunkIndices").into_iter().flat_map(JsonRef::items) {
            let Some(at) =
                index.u64().and_then(|at| usize::try_from(at).ok()).filter(|&at| at < chunks.len())
            else {
                continue;
            };
            used[at] = true;
            if out.len() < MOST {
                out.push(Citation { span, ..chunks[at].clone() });
            }
        }
    }
    let alone = chunks
        .into_iter()
        .zip(used)
        .filter(|(chunk, used)| !used && (chunk.url.is_some() || chunk.title.is_some()));
    out.extend(alone.map(|(chunk, _)| chunk).take(MOST));
}

fn chunk(json: JsonRef<'_>) -> Citation {
    let source = ["web", "retrievedContext", "maps", "image"]
        .iter()
        .find_map(|kind| json.get(kind))
        .unwrap_or(json);
    let text = |key: &str| {
        source.get(key).and_then(JsonRef::str).map(Cow::into_owned).filter(|text| !text.is_empty())
    };
    Citation {
        url: text("uri").or_else(|| text("sourceUri")),
        title: text("title").or_else(|| text("documentName")).or_else(|| text("fileSearchStore")),
        cited_text: text("text"),
        ..Citation::default()
    }
}

/// `citationMetadata`: where the model repeats what others wrote.
pub(super) fn sources(json: JsonRef<'_>, heard: &Heard, out: &mut Vec<Citation>) {
    let list = json.get("citationSources").or_else(|| json.get("citations"));
    for source in list.into_iter().flat_map(JsonRef::items).take(MOST) {
        let text = |key| source.get(key).and_then(JsonRef::str).map(Cow::into_owned);
        if text("uri").is_some() || text("title").is_some() {
            out.push(Citation {
                url: text("uri"),
                title: text("title"),
                span: heard.span(source),
                ..Citation::default()
            });
        }
    }
}

/// `logprobsResult` as the array of OpenAI's `logprobs.content`.
pub(super) fn logprobs(json: JsonRef<'_>) -> Option<RawJson> {
    let chosen = json.get("chosenCandidates")?;
    let mut tops = json.get("topCandidates").into_iter().flat_map(JsonRef::items);
    let text = write::array(|a| {
        for token in chosen.items() {
            let top = tops.next().and_then(|top| top.get("candidates"));
            a.object(|o| {
                entry(o, token);
                o.array("top_logprobs", |a| {
                    for token in top.into_iter().flat_map(JsonRef::items) {
                        a.object(|o| entry(o, token));
                    }
                });
            });
        }
    });
    RawJson::parse(&text).filter(|raw| raw.text() != "[]")
}

fn entry(o: &mut write::ObjectWriter<'_>, token: JsonRef<'_>) {
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
    use crate::base::json;

    #[test]
    fn places_are_told_in_characters() {
        let mut heard = Heard::default();
        heard.push("é is a letter");
        let grounding_json =
            br#"{"groundingChunks":[{"web":{"uri":"u","title":"t"}},{"retrievedContext":{"text":"words"}},{"web":{"uri":"v"}}],
            "groundingSupports":[{"segment":{"endIndex":5},"groundingChunkIndices":[0,1,9]}]}"#;
        let mut told = Vec::new();
        grounding(json::parse(grounding_json).expect("json"), &heard, &mut told);
        let citation =
            |url: Option<&str>| Citation { url: url.map(str::to_owned), ..Citation::default() };
        assert_eq!(
            told,
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
    fn long_texts_are_not_kept() {
        let mut heard = Heard::default();
        (0..100).for_each(|_| heard.push(&"a".repeat(1000)));
        assert_eq!((heard.character(99_000), heard.kept.len() <= KEPT), (Some(99_000), true));
        heard.push("é");
        assert_eq!((heard.character(5), heard.character(99_000)), (Some(5), None));
    }

    #[test]
    fn probabilities_take_the_usual_form() {
        let json = json::parse(br#"{"chosenCandidates":[{"token":"a","tokenId":1,"logProbability":-0.5}],"topCandidates":[{"candidates":[{"token":"b","logProbability":-1}]}]}"#).expect("json");
        assert_eq!(
            logprobs(json).expect("some").text(),
            r#"[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-1,"bytes":[98]}]}]"#
        );
    }
}
