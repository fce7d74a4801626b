//! Reads token counts; numbers that cannot be counts (negative, broken, text, beyond all measure) are not read.

use crate::{
    base::{json::Json, money::NanoUsd},
    ir::usage::Usage,
};

/// More tokens than any answer ever has; a count above it is noise.
const MOST: u64 = 1 << 40;

/// A count somewhere below `json`.
#[must_use]
pub(super) fn count(json: Json<'_>, path: &[&str]) -> Option<u64> {
    json.at(path)?.u64().filter(|&n| n <= MOST)
}

/// What the provider says that the answer cost, in dollars. Where the customer's own key was used behind an aggregator,
/// its fee and what the provider itself charges stand apart, and both were paid.
#[must_use]
pub(super) fn reported(usage: Json<'_>) -> Option<NanoUsd> {
    let dollars = |json: Json<'_>| json.text().trim().parse().ok().and_then(NanoUsd::from_dollars);
    let at = |path: &[&str]| usage.at(path).and_then(dollars);
    if let Some(ticks) = count(usage, &["cost_in_usd_ticks"]) {
        // Ten billion make a dollar.
        return i64::try_from(ticks.saturating_add(5) / 10).ok().map(NanoUsd);
    }
    let cost = at(&["cost"]).or_else(|| at(&["cost", "total_cost"]))?;
    let own_key = usage.get("is_byok").and_then(Json::bool).unwrap_or(false);
    let behind = at(&["cost_details", "upstream_inference_cost"]).filter(|_| own_key);
    Some(cost + behind.unwrap_or_default())
}

/// The usage object of the OpenAI family, in the words of chat (`prompt_tokens`) or of responses (`input_tokens`).
#[must_use]
pub(super) fn openai(usage: Json<'_>) -> Option<Usage> {
    let either = |a: &[&str], b: &[&str]| count(usage, a).or_else(|| count(usage, b));
    let (prompt, completion) = (either(&["prompt_tokens"], &["input_tokens"]), either(&["completion_tokens"], &["output_tokens"]));
    let total = count(usage, &["total_tokens"]);
    if prompt.is_none() && completion.is_none() {
        // Rerankers tell nothing but a total.
        return total.map(|input| Usage { input, reported: reported(usage), ..Usage::default() });
    }
    let (prompt, completion) = (prompt.unwrap_or(0), completion.unwrap_or(0));
    let cached = either(&["prompt_tokens_details", "cached_tokens"], &["input_tokens_details", "cached_tokens"]).or_else(|| {
        ["prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens", "cache_read_input_tokens"]
            .iter()
            .find_map(|key| count(usage, &[key]))
    });
    // Some count reasoning only in the total.
    let output = completion.max(total.unwrap_or(0).saturating_sub(prompt));
    let reasoning =
        either(&["completion_tokens_details", "reasoning_tokens"], &["output_tokens_details", "reasoning_tokens"]).unwrap_or(0).min(output);
    let cache_read = cached.unwrap_or(0).min(prompt);
    let detail = |side: [&str; 2], names: &[&str]| {
        side.into_iter().flat_map(|side| names.iter().map(move |name| [side, name])).find_map(|path| count(usage, &path)).unwrap_or(0)
    };
    let (ins, outs) = (["prompt_tokens_details", "input_tokens_details"], ["completion_tokens_details", "output_tokens_details"]);
    // What the details say must fit into what is left of the whole, else classes would overlap.
    let mut fresh = prompt - cache_read;
    let mut part = |n: u64| {
        let taken = n.min(fresh);
        fresh -= taken;
        taken
    };
    let cache_write_5m = part(detail(ins, &["cache_write_tokens", "cache_creation_tokens"]));
    let (audio_in, image_in) = (part(detail(ins, &["audio_tokens"])), part(detail(ins, &["image_tokens"])));
    let mut plain = output - reasoning;
    let mut part = |n: u64| {
        let taken = n.min(plain);
        plain -= taken;
        taken
    };
    let (audio_out, image_out) = (part(detail(outs, &["audio_tokens"])), part(detail(outs, &["image_tokens"])));
    let searches = count(usage, &["server_tool_use", "web_search_requests"]).or_else(|| count(usage, &["num_search_queries"]));
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
        searches: searches.unwrap_or(0),
        reported: reported(usage),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json;

    #[test]
    fn counts_are_put_into_classes_that_do_not_overlap() {
        let usage = |input, cache_read, output, reasoning| Some(Usage { input, cache_read, output, reasoning, ..Usage::default() });
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
            (r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_cache_hit_tokens":3}"#, usage(7, 3, 5, 0)),
            (r#"{"prompt_tokens":8,"total_tokens":8}"#, usage(8, 0, 0, 0)),
            (r#"{"total_tokens":8}"#, usage(8, 0, 0, 0)),
            (
                r#"{"prompt_tokens":100,"completion_tokens":50,"prompt_tokens_details":{"cached_tokens":10,"cache_write_tokens":20,"audio_tokens":30},"completion_tokens_details":{"audio_tokens":40,"reasoning_tokens":5}}"#,
                Some(Usage { cache_write_5m: 20, audio_in: 30, audio_out: 40, ..usage(40, 10, 5, 5).unwrap() }),
            ),
            (
                r#"{"prompt_tokens":5,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4,"image_tokens":9,"audio_tokens":9}}"#,
                Some(Usage { audio_in: 1, ..usage(0, 4, 5, 0).unwrap() }),
            ),
            (r#"{"prompt_tokens":-1,"completion_tokens":"12","total_tokens":1.5e300}"#, None),
            (r#"{"prompt_tokens":9223372036854775808,"completion_tokens":null}"#, None),
            ("{}", None),
        ] {
            assert_eq!(openai(json::check(text.as_bytes()).expect("good")), want, "{text}");
        }
    }

    #[test]
    fn a_cost_that_the_provider_names_is_read_in_each_of_its_forms() {
        for (text, nano) in [
            (r#"{"cost":0.00256995,"is_byok":false,"cost_details":{"upstream_inference_cost":0.00256995}}"#, Some(2_569_950)),
            (r#"{"cost":0.0001,"is_byok":true,"cost_details":{"upstream_inference_cost":0.002}}"#, Some(2_100_000)),
            (r#"{"cost":7.75e-06,"cost_details":{"upstream_inference_cost":null}}"#, Some(7_750)),
            (r#"{"cost":0}"#, Some(0)),
            (r#"{"cost_in_usd_ticks":955600}"#, Some(95_560)),
            (r#"{"cost":{"total_cost":0.006,"request_cost":0.005}}"#, Some(6_000_000)),
            (r#"{"cost":-1}"#, None),
            (r#"{"cost":1e300}"#, None),
            (r#"{"cost":"free"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(reported(json::check(text.as_bytes()).expect("good")), nano.map(NanoUsd), "{text}");
        }
    }
}
