//! Measures pure functions: `cargo bench --bench pure`.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

use std::{hint::black_box, time::Instant};

use aiproxy::{
    base::json::scan::{json_string, scan, splice},
    dialect::{Framing, passthrough::Passthrough},
    ir::op::{Dialect, Op},
};
use bytes::Bytes;

mod decide;
mod translate;

fn main() {
    decide::run();
    translate::run();
    scan_and_splice();
    passthrough("openai", Dialect::Openai, &|i| {
        format!(
            "data: {{\"id\":\"chatcmpl-abcdefgh\",\"object\":\"chat.completion.chunk\",\"created\":1750000000,\"model\":\"some-model\",\"system_fingerprint\":\"fp_0123\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{i}\"}},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n"
        )
    });
    passthrough("anthropic", Dialect::Anthropic, &|i| {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\" word{i}\"}}}}\n\n"
        )
    });
    passthrough("gemini", Dialect::Gemini, &|i| {
        format!(
            "data: {{\"candidates\": [{{\"content\": {{\"parts\": [{{\"text\": \" word{i}\"}}],\"role\": \"model\"}},\"index\": 0}}],\"modelVersion\": \"some-model\"}}\r\n\r\n"
        )
    });
}

/// Returns the best time of several runs, in nanoseconds.
fn best_time(mut run: impl FnMut()) -> f64 {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64() * 1e9
    };
    (0..30).map(|_| time(&mut run)).fold(f64::INFINITY, f64::min)
}

fn scan_and_splice() {
    let message = format!(
        "{{\"role\":\"user\",\"content\":\"{}\"}},",
        "some words of a prompt, \\\"quoted\\\"\\n".repeat(30)
    );
    let body = Bytes::from(format!(
        "{{\"messages\":[{}{{}}],\"model\":\"some-model\",\"stream\":true}}",
        message.repeat(100_000 / message.len())
    ));
    let name = json_string("another-model");
    let time = best_time(|| {
        let span = scan(&body).expect("good").model.expect("a model").span;
        black_box(splice(&body, &[(span, name.clone())]));
    });
    println!("scan + splice        {:6.1} µs per {} KB", time / 1e3, body.len() / 1000);
}

fn passthrough(name: &str, dialect: Dialect, event: &dyn Fn(usize) -> String) {
    const EVENTS: usize = 4000;
    let all: Vec<Bytes> = (0..EVENTS).map(|i| Bytes::from(event(i))).collect();
    let burst = Bytes::from(all.concat());
    for (how, chunks) in [
        ("one event a chunk", all),
        (
            "16 KiB chunks",
            (0..burst.len())
                .step_by(16 << 10)
                .map(|at| burst.slice(at..burst.len().min(at + (16 << 10))))
                .collect(),
        ),
    ] {
        let mut out = Vec::with_capacity(EVENTS);
        let time = best_time(|| {
            out.clear();
            let mut passage = Passthrough::new(dialect, Op::Chat, Framing::Sse, false);
            for chunk in &chunks {
                black_box(passage.feed(chunk.clone(), &mut out));
            }
        });
        println!(
            "passage {name:<12} {:6.0} ns per event of {} bytes, {how}",
            time / EVENTS as f64,
            burst.len() / EVENTS
        );
    }
}
