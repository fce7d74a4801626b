//! Reads token counts; numbers that cannot be counts (negative, broken, text, beyond all measure) are not read.

use crate::{base::json::Json, ir::usage::Usage};

/// More tokens than any answer ever has; a count above it is noise.
const MOST: u64 = 1 << 40;

/// A count somewhere below `json`.
#[must_use]
pub(super) fn count(json: Json<'_>, path: &[&str]) -> Option<u64> {
    json.at(path)?.u64().filter(|&n| n <= MOST)
}

/// The usage object of the OpenAI family, in the words of chat (`prompt_tokens`) or of responses (`input_tokens`).
#[must_use]
pub(super) fn openai(usage: Json<'_>) -> Option<Usage> {
    let either = |a: &[&str], b: &[&str]| count(usage, a).or_else(|| count(usage, b));
    let (prompt, completion) = (either(&["prompt_tokens"], &["input_tokens"]), either(&["completion_tokens"], &["output_tokens"]));
    let total = count(usage, &["total_tokens"]);
    if prompt.is_none() && completion.is_none() {
        // Rerankers tell nothing but a total.
        return total.map(|input| Usage { input, ..Usage::default() });
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
    Some(Usage { input: prompt - cache_read, cache_read, output: output - reasoning, reasoning, ..Usage::default() })
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
            (r#"{"prompt_tokens":-1,"completion_tokens":"12","total_tokens":1.5e300}"#, None),
            (r#"{"prompt_tokens":9223372036854775808,"completion_tokens":null}"#, None),
            ("{}", None),
        ] {
            assert_eq!(openai(json::check(text.as_bytes()).expect("good")), want, "{text}");
        }
    }
}
