//! Reading and writing takes time in proportion to the bytes: each case runs at three sizes.

use std::time::{Duration, Instant};

use aiproxy::{
    dialect::{Framing, registry},
    ir::op::{Dialect, Op},
};

/// The largest size is four times the smallest: linear work takes four times as long, quadratic
/// work sixteen times.
const SIZES: [usize; 3] = [500, 1_000, 2_000];
const MAX_GROWTH: f64 = 9.0;
/// The best of several runs counts, because other programs disturb some.
const RUNS: usize = 3;

type Events = Vec<(Vec<u8>, Vec<u8>)>;

fn best_time(run: impl Fn()) -> Duration {
    let time = || {
        let begun = Instant::now();
        run();
        begun.elapsed()
    };
    (0..RUNS).map(|_| time()).min().unwrap_or_default()
}

/// Requires linear growth of the time that `run` takes for the input of each size.
fn assert_linear<T>(what: &str, input: impl Fn(usize) -> T, run: impl Fn(&T)) {
    let times = SIZES.map(|size| {
        let input = input(size);
        best_time(|| run(&input))
    });
    let growth = times[2].as_secs_f64() / times[0].as_secs_f64().max(1e-4);
    assert!(growth < MAX_GROWTH, "{what}: {times:?} for {SIZES:?}");
}

fn events(data: impl Iterator<Item = String>) -> Events {
    data.map(|data| (Vec::new(), data.into_bytes())).collect()
}

/// Many calls, and then many pieces for all of them in turn.
fn openai_calls(count: usize) -> Events {
    let delta = |n: usize, rest: &str| {
        format!(
            r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":{n},{rest}}}]}}}}]}}"#
        )
    };
    let begun = (0..count)
        .map(|n| delta(n, &format!(r#""id":"c{n}","function":{{"name":"f","arguments":""}}"#)));
    let pieces = (0..count).map(|n| delta(n * 7 % count, r#""function":{"arguments":"1"}"#));
    let end = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#;
    events(begun.chain(pieces).chain([end.to_owned()]))
}

/// Many choices, each in two pieces.
fn openai_choices(count: usize) -> Events {
    let piece = |n: usize, reason: &str| {
        format!(
            r#"{{"choices":[{{"index":{n},"delta":{{"content":"a"}},"finish_reason":{reason}}}]}}"#
        )
    };
    let all = (0..count).map(|n| piece(n, "null")).chain((0..count).map(|n| piece(n, "\"stop\"")));
    events(all)
}

/// One text in many pieces.
fn openai_pieces(count: usize) -> Events {
    let piece = r#"{"choices":[{"index":0,"delta":{"content":"word "}}]}"#.to_owned();
    let end = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    events(std::iter::repeat_n(piece, count * 2).chain([end.to_owned()]))
}

fn anthropic_blocks(count: usize) -> Events {
    let start = r#"{"type":"message_start","message":{"id":"m","role":"assistant","content":[],"usage":{}}}"#;
    let begun = (0..count).map(|n| {
        format!(
            r#"{{"type":"content_block_start","index":{n},"content_block":{{"type":"tool_use","id":"t{n}","name":"f","input":{{}}}}}}"#
        )
    });
    let pieces = (0..count).map(|n| {
        let index = n * 7 % count;
        format!(
            r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"input_json_delta","partial_json":"1"}}}}"#
        )
    });
    let end = [
        r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":1}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let end = end.into_iter().map(str::to_owned);
    events([start.to_owned()].into_iter().chain(begun).chain(pieces).chain(end))
}

fn responses_items(count: usize) -> Events {
    let items = (0..count * 2).map(|n| {
        format!(
            r#"{{"type":"response.output_item.done","output_index":{n},"item":{{"type":"function_call","id":"i{n}","call_id":"c{n}","name":"f","arguments":"{{}}"}}}}"#
        )
    });
    let end =
        r#"{"type":"response.completed","response":{"id":"r","status":"completed","output":[]}}"#;
    events(items.chain([end.to_owned()]))
}

fn gemini_candidates(count: usize) -> Events {
    let piece = |n: usize, rest: &str| {
        format!(
            r#"{{"candidates":[{{"index":{n},"content":{{"parts":[{{"functionCall":{{"name":"f","args":{{}}}}}},{{"text":"a"}}]}}{rest}}}]}}"#
        )
    };
    let begun = (0..count).map(|n| piece(n, ""));
    events(begun.chain((0..count).map(|n| piece(n, r#","finishReason":"STOP""#))))
}

fn ollama_lines(count: usize) -> Events {
    let line = r#"{"model":"m","message":{"role":"assistant","content":"a","tool_calls":[{"function":{"name":"f","arguments":{}}}]},"done":false}"#;
    let end = r#"{"model":"m","message":{"content":""},"done":true,"done_reason":"stop"}"#;
    events(std::iter::repeat_n(line.to_owned(), count * 2).chain([end.to_owned()]))
}

#[test]
fn streams_are_assembled_and_split_in_linear_time() {
    type Case = (&'static str, Dialect, fn(usize) -> Events);
    let cases: [Case; 7] = [
        ("calls of OpenAI", Dialect::Openai, openai_calls),
        ("choices of OpenAI", Dialect::Openai, openai_choices),
        ("pieces of OpenAI", Dialect::Openai, openai_pieces),
        ("blocks of Anthropic", Dialect::Anthropic, anthropic_blocks),
        ("items of Responses", Dialect::Responses, responses_items),
        ("candidates of Gemini", Dialect::Gemini, gemini_candidates),
        ("lines of Ollama", Dialect::Ollama, ollama_lines),
    ];
    for (what, dialect, input) in cases {
        let egress = registry::egress(dialect);
        assert_linear(what, input, |events| {
            let whole = egress.collect_stream(Op::Chat, events);
            assert!(whole.is_ok(), "{what}: {:?}", whole.err());
        });
        let framing = if dialect == Dialect::Ollama { Framing::Ndjson } else { Framing::Sse };
        let whole = |size| egress.collect_stream(Op::Chat, &input(size)).expect("complete");
        assert_linear(what, whole, |body| {
            let stream = egress.synthesize_stream(Op::Chat, body, framing);
            assert!(stream.is_ok(), "{what}: {:?}", stream.err());
        });
    }
}
