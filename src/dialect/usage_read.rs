//! Reads token counts; ignores values that cannot be counts (negative, invalid, text, above the
//! maximum).

use crate::{
    base::{json::reader::JsonRef, money::NanoUsd},
    ir::usage::Usage,
};

/// More tokens than any answer ever has; a count above it is invalid.
const MAX_COUNT: u64 = 1 << 40;

/// Returns the count at a path inside `json`.
#[must_use]
pub(super) fn count_at(json: JsonRef<'_>, path: &[&str]) -> Option<u64> {
    json.member_at(path).and_then(as_count)
}

fn as_count(json: JsonRef<'_>) -> Option<u64> {
    json.u64().filter(|&n| n <= MAX_COUNT)
}

/// Returns the cost of the answer that the provider reports, in dollars. For a customer's own key
/// behind an aggregator, the aggregator's fee and the provider's charge are separate fields, and
/// the customer pays both.
#[must_use]
pub(super) fn reported_cost(usage: JsonRef<'_>) -> Option<NanoUsd> {
    let dollars =
        |json: JsonRef<'_>| json.text().trim().parse().ok().and_then(NanoUsd::from_dollars);
    let at = |path: &[&str]| usage.member_at(path).and_then(dollars);
    if let Some(ticks) = count_at(usage, &["cost_in_usd_ticks"]) {
        // Ten billion ticks are one dollar.
        return i64::try_from(ticks.saturating_add(5) / 10).ok().map(NanoUsd);
    }
    let cost = at(&["cost"]).or_else(|| at(&["cost", "total_cost"]))?;
    let own_key = usage.get("is_byok").and_then(JsonRef::bool).unwrap_or(false);
    let behind = at(&["cost_details", "upstream_inference_cost"]).filter(|_| own_key);
    Some(cost + behind.unwrap_or_default())
}

/// One side of the counts: the total, and the parts from its details object.
#[derive(Clone, Copy, Default)]
struct UsageSide {
    total: Option<u64>,
    cached: Option<u64>,
    cache_written: Option<u64>,
    cache_created: Option<u64>,
    reasoning: Option<u64>,
    audio: Option<u64>,
    image: Option<u64>,
}

impl UsageSide {
    fn read(&mut self, details: JsonRef<'_>) {
        for (key, value) in details.members() {
            let slot = match key {
                "cached_tokens" => &mut self.cached,
                "cache_write_tokens" => &mut self.cache_written,
                "cache_creation_tokens" => &mut self.cache_created,
                "reasoning_tokens" => &mut self.reasoning,
                "audio_tokens" => &mut self.audio,
                "image_tokens" => &mut self.image,
                _ => continue,
            };
            *slot = as_count(value);
        }
    }

    /// Combines two names of the same side; values of the first take precedence.
    fn or(self, second: Self) -> Self {
        Self {
            total: self.total.or(second.total),
            cached: self.cached.or(second.cached),
            cache_written: self
                .cache_written
                .or(self.cache_created)
                .or(second.cache_written)
                .or(second.cache_created),
            cache_created: None,
            reasoning: self.reasoning.or(second.reasoning),
            audio: self.audio.or(second.audio),
            image: self.image.or(second.image),
        }
    }
}

/// Members of a usage object, collected in one pass, because every answer and the last event of
/// every stream contain one.
#[derive(Default)]
struct UsageFields {
    prompt: UsageSide,
    input: UsageSide,
    completion: UsageSide,
    output: UsageSide,
    total: Option<u64>,
    /// Cached input outside of the details, in order of precedence.
    cached_by_priority: [Option<u64>; 4],
    searches: Option<u64>,
    search_queries: Option<u64>,
    /// Whether any member is about cost.
    has_cost: bool,
}

impl UsageFields {
    fn read(usage: JsonRef<'_>) -> Self {
        let mut fields = Self::default();
        for (key, value) in usage.members() {
            let slot = match key {
                "prompt_tokens" => &mut fields.prompt.total,
                "input_tokens" => &mut fields.input.total,
                "completion_tokens" => &mut fields.completion.total,
                "output_tokens" => &mut fields.output.total,
                "total_tokens" => &mut fields.total,
                "prompt_cache_hit_tokens" => &mut fields.cached_by_priority[0],
                "num_cached_tokens" => &mut fields.cached_by_priority[1],
                "cached_tokens" => &mut fields.cached_by_priority[2],
                "cache_read_input_tokens" => &mut fields.cached_by_priority[3],
                "num_search_queries" => &mut fields.search_queries,
                "cost" | "cost_in_usd_ticks" => {
                    fields.has_cost = true;
                    continue;
                }
                "prompt_tokens_details" => {
                    fields.prompt.read(value);
                    continue;
                }
                "input_tokens_details" => {
                    fields.input.read(value);
                    continue;
                }
                "completion_tokens_details" => {
                    fields.completion.read(value);
                    continue;
                }
                "output_tokens_details" => {
                    fields.output.read(value);
                    continue;
                }
                "server_tool_use" => {
                    fields.searches = count_at(value, &["web_search_requests"]);
                    continue;
                }
                _ => continue,
            };
            *slot = as_count(value);
        }
        fields
    }
}

/// Reads the usage object of the OpenAI family, with the names of chat (`prompt_tokens`) or of
/// responses (`input_tokens`).
#[must_use]
pub(super) fn read_openai(usage: JsonRef<'_>) -> Option<Usage> {
    let fields = UsageFields::read(usage);
    let (ins, outs) = (fields.prompt.or(fields.input), fields.completion.or(fields.output));
    let reported = if fields.has_cost { reported_cost(usage) } else { None };
    if ins.total.is_none() && outs.total.is_none() {
        // Rerankers report only a total.
        return fields.total.map(|input| Usage {
            input,
            reported_cost: reported,
            ..Usage::default()
        });
    }
    let (prompt, completion) = (ins.total.unwrap_or(0), outs.total.unwrap_or(0));
    let cached = ins.cached.or_else(|| fields.cached_by_priority.into_iter().find_map(|n| n));
    // Some providers count reasoning only in the total.
    let output = completion.max(fields.total.unwrap_or(0).saturating_sub(prompt));
    let reasoning = outs.reasoning.unwrap_or(0).min(output);
    let cache_read = cached.unwrap_or(0).min(prompt);
    // The details must fit into the remainder of the total, otherwise classes would overlap.
    let part = |left: &mut u64, n: Option<u64>| {
        let taken = n.unwrap_or(0).min(*left);
        *left -= taken;
        taken
    };
    let mut fresh = prompt - cache_read;
    let cache_write_5m = part(&mut fresh, ins.cache_written);
    let (audio_in, image_in) = (part(&mut fresh, ins.audio), part(&mut fresh, ins.image));
    let mut plain = output - reasoning;
    let (audio_out, image_out) = (part(&mut plain, outs.audio), part(&mut plain, outs.image));
    Some(Usage {
        input: fresh,
        cache_read,
        cache_write_5m,
        cache_write_1h: 0,
        output: plain,
        reasoning,
        audio_in,
        image_in,
        audio_out,
        image_out,
        searches: fields.searches.or(fields.search_queries).unwrap_or(0),
        reported_cost: reported,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json::reader;

    #[test]
    fn counts_are_split_into_disjoint_classes() {
        let usage = |input, cache_read, output, reasoning| {
            Some(Usage { input, cache_read, output, reasoning, ..Usage::default() })
        };
        for (text, want) in [
            (
                r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}"#,
                usage(6, 4, 3, 2),
            ),
            (
                r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":25,"completion_tokens_details":{"reasoning_tokens":10}}"#,
                usage(10, 0, 5, 10),
            ),
            (
                r#"{"input_tokens":10,"output_tokens":5,"input_tokens_details":{"cached_tokens":4},"output_tokens_details":{"reasoning_tokens":9}}"#,
                usage(6, 4, 0, 5),
            ),
            (
                r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_cache_hit_tokens":3}"#,
                usage(7, 3, 5, 0),
            ),
            (r#"{"prompt_tokens":8,"total_tokens":8}"#, usage(8, 0, 0, 0)),
            (r#"{"total_tokens":8}"#, usage(8, 0, 0, 0)),
            (
                r#"{"prompt_tokens":100,"completion_tokens":50,"prompt_tokens_details":{"cached_tokens":10,"cache_write_tokens":20,"audio_tokens":30},"completion_tokens_details":{"audio_tokens":40,"reasoning_tokens":5}}"#,
                Some(Usage {
                    cache_write_5m: 20,
                    audio_in: 30,
                    audio_out: 40,
                    ..usage(40, 10, 5, 5).unwrap()
                }),
            ),
            (
                r#"{"prompt_tokens":5,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4,"image_tokens":9,"audio_tokens":9}}"#,
                Some(Usage { audio_in: 1, ..usage(0, 4, 5, 0).unwrap() }),
            ),
            (r#"{"prompt_tokens":-1,"completion_tokens":"12","total_tokens":1.5e300}"#, None),
            (r#"{"prompt_tokens":9223372036854775808,"completion_tokens":null}"#, None),
            ("{}", None),
        ] {
            assert_eq!(read_openai(reader::parse(text.as_bytes()).expect("good")), want, "{text}");
        }
    }

    #[test]
    fn provider_reported_cost_is_read_in_every_form() {
        for (text, nano) in [
            (
                r#"{"cost":0.00256995,"is_byok":false,"cost_details":{"upstream_inference_cost":0.00256995}}"#,
                Some(2_569_950),
            ),
            (
                r#"{"cost":0.0001,"is_byok":true,"cost_details":{"upstream_inference_cost":0.002}}"#,
                Some(2_100_000),
            ),
            (r#"{"cost":7.75e-06,"cost_details":{"upstream_inference_cost":null}}"#, Some(7_750)),
            (r#"{"cost":0}"#, Some(0)),
            (r#"{"cost_in_usd_ticks":955600}"#, Some(95_560)),
            (r#"{"cost":{"total_cost":0.006,"request_cost":0.005}}"#, Some(6_000_000)),
            (r#"{"cost":-1}"#, None),
            (r#"{"cost":1e300}"#, None),
            (r#"{"cost":"free"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(
                reported_cost(reader::parse(text.as_bytes()).expect("good")),
                nano.map(NanoUsd),
                "{text}"
            );
        }
    }
}
