//! Writes the parts that complete responses and streams share.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef, writer::ObjectWriter},
    ir::{block::Citation, usage::Usage},
};

/// Writes usage. `promptTokenCount` includes cached tokens; `candidatesTokenCount` excludes
/// thoughts.
pub(super) fn write_usage(o: &mut ObjectWriter<'_>, usage: Option<Usage>) {
    o.object("usageMetadata", |o| {
        // An unknown count is not zero. The object is still written for clients that read it.
        let Some(usage) = usage else { return };
        o.num("promptTokenCount", usage.input_total())
            .num("candidatesTokenCount", usage.output_total().saturating_sub(usage.reasoning));
        if usage.cache_read > 0 {
            o.num("cachedContentTokenCount", usage.cache_read);
        }
        if usage.reasoning > 0 {
            o.num("thoughtsTokenCount", usage.reasoning);
        }
        o.num("totalTokenCount", usage.input_total().saturating_add(usage.output_total()));
    });
}

/// A citation with its span in the answer's text, in bytes.
pub(super) struct PlacedCitation {
    pub(super) citation: Citation,
    pub(super) position: Option<(u64, u64)>,
}

pub(super) fn write_grounding(o: &mut ObjectWriter<'_>, cited: &[PlacedCitation]) {
    if cited.is_empty() {
        return;
    }
    let key = |at: &PlacedCitation| (at.citation.url.clone(), at.citation.title.clone());
    let mut sources: Vec<(Option<String>, Option<String>)> = Vec::new();
    for at in cited {
        if !sources.contains(&key(at)) {
            sources.push(key(at));
        }
    }
    o.object("groundingMetadata", |o| {
        o.array("groundingChunks", |a| {
            for (url, title) in &sources {
                a.object(|o| {
                    o.object("web", |o| {
                        o.opt_str("uri", url.as_deref()).opt_str("title", title.as_deref());
                    });
                });
            }
        });
        o.array("groundingSupports", |a| {
            for at in cited {
                let Some((start, end)) = at.position else { continue };
                a.object(|o| {
                    o.object("segment", |o| {
                        o.num("startIndex", start).num("endIndex", end);
                    });
                    o.array("groundingChunkIndices", |a| {
                        a.num(sources.iter().position(|source| *source == key(at)).unwrap_or(0)
                            as u64);
                    });
                });
            }
        });
    });
}

/// Writes OpenAI's `logprobs.content` as `logprobsResult`.
pub(super) fn write_logprobs(o: &mut ObjectWriter<'_>, logprobs: &RawJson) {
    o.object("logprobsResult", |o| {
        o.array("chosenCandidates", |a| {
            for token in logprobs.json().items() {
                a.object(|o| write_token(o, token));
            }
        });
        o.array("topCandidates", |a| {
            for token in logprobs.json().items() {
                a.object(|o| {
                    o.array("candidates", |a| {
                        for token in token.get("top_logprobs").into_iter().flat_map(JsonRef::items)
                        {
                            a.object(|o| write_token(o, token));
                        }
                    });
                });
            }
        });
    });
}

fn write_token(o: &mut ObjectWriter<'_>, token: JsonRef<'_>) {
    o.opt_str("token", token.get("token").and_then(JsonRef::str).as_deref());
    if let Some(value) = token.get("logprob") {
        o.json("logProbability", value);
    }
}
