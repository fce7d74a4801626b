//! Runs the fuzz targets without a fuzzer: replays found inputs, and mutates recordings and seeds
//! for a few seconds.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;

#[path = "../fuzz/targets.rs"]
mod targets;

/// How long each target runs.
const RUN_TIME: Duration = Duration::from_secs(2);

/// A name and the function that consumes the bytes.
type FuzzTarget = (&'static str, fn(&[u8]));

const TARGETS: [FuzzTarget; 4] = [
    ("requests", targets::requests),
    ("responses", targets::responses),
    ("sse", targets::sse),
    ("streams", targets::streams),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the index of an API's dialect among all dialects.
fn dialect_index(api: &str) -> Option<u8> {
    let name = match api {
        "openai.chat" => "openai",
        "openai.responses" => "responses",
        "anthropic.messages" | "vertex.anthropic" => "anthropic",
        "gemini.generateContent" | "gemini.streamGenerateContent" => "gemini",
        "ollama.chat" => "ollama",
        _ => return None,
    };
    let at = aiproxy::ir::op::Dialect::ALL.iter().position(|dialect| dialect.name() == name);
    at.and_then(|at| u8::try_from(at).ok())
}

/// Returns the seed inputs: the recordings if they are available, and a few fixed inputs.
fn seed_inputs(target: &str) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    let mut add = |dialect: u8, body: &[u8]| out.push([&[dialect, 1][..], body].concat());
    for dialect in 0..5 {
        add(dialect, br#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"contents":[{"parts":[{"text":"hi"}]}],"input":"hi","max_tokens":5}"#);
        add(dialect, b"data: {\"choices\":[{\"delta\":{\"content\":\"<think>a</think>b\",\"tool_calls\":[{\"index\":0,\"id\":\"1\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\r\n\r\ndata: [DONE]\n\n");
        add(dialect, b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n: c\rdata: {\"type\":\"message_stop\"}\r\r");
        add(dialect, b"{\"message\":{\"content\":\"a\",\"thinking\":\"b\"},\"done\":false}\n{\"done\":true,\"done_reason\":\"stop\"}\n");
        add(dialect, b"data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\",\"thought\":true},{\"functionCall\":{\"name\":\"f\",\"args\":{}}}]},\"finishReason\":\"STOP\"}]}\n\n");
        add(dialect, b"data: {\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{\"type\":\"message\"}}\n\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[]}}\n\n");
    }
    let told = std::env::var("AIPROXY_EXCHANGES").ok().map(PathBuf::from);
    let folder = told.unwrap_or_else(|| root().join("../shared/exchanges"));
    let index: Vec<Value> = fs::read(folder.join("index.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    for row in &index {
        let Some(dialect) = row["api"].as_str().and_then(dialect_index) else { continue };
        let text = row["file"]
            .as_str()
            .and_then(|file| fs::read(folder.join(file)).ok())
            .unwrap_or_default();
        let Ok(exchange) = serde_json::from_slice::<Value>(&text) else { continue };
        let body = match target {
            "requests" => exchange["request"]["body"].to_string(),
            _ => exchange["response"]["body"].as_str().unwrap_or_default().to_owned(),
        };
        if body.len() < 100_000 {
            add(dialect, body.as_bytes());
        }
    }
    out
}

/// A random number generator with a fixed seed.
struct ByteRng(u64);

impl ByteRng {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % sides.max(1)
    }
}

/// Tokens with a meaning in these grammars.
const WORDS: [&[u8]; 22] = [
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"-1",
    b"1e400",
    b"18446744073709551616",
    b"true",
    b"\"\\ud800\"",
    b"\xf0\x9f\x8e\x89",
    b"\xff",
    b"\n\n",
    b"\r",
    b"data: ",
    b"event: error\n",
    b"[DONE]",
    b"\"index\":7,",
    b"\"type\":\"text\"",
    b"\"type\":\"tool_use\"",
    b"\"id\":null,",
    b"<think>",
    b"</think>",
];

fn mutate(seeds: &[Vec<u8>], dice: &mut ByteRng) -> Vec<u8> {
    let mut bytes = seeds[dice.below(seeds.len())].clone();
    bytes[0] = if dice.below(4) == 0 { dice.below(256) as u8 } else { bytes[0] };
    bytes[1] = dice.below(256) as u8;
    for _ in 0..dice.below(6) {
        let at = 2 + dice.below(bytes.len() - 2);
        let to = (at + dice.below(40)).min(bytes.len());
        match dice.below(6) {
            0 => {
                let last = bytes.len() - 1;
                bytes[at.min(last)] = dice.below(256) as u8;
            }
            1 => drop(bytes.drain(at.min(to)..to)),
            2 => drop(bytes.splice(at..at, WORDS[dice.below(WORDS.len())].iter().copied())),
            3 => drop(bytes.splice(at..to, WORDS[dice.below(WORDS.len())].iter().copied())),
            4 => {
                let other = &seeds[dice.below(seeds.len())];
                let from = 2 + dice.below(other.len() - 2);
                let piece = other[from..(from + dice.below(200)).min(other.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            _ => bytes.truncate(at.max(3)),
        }
        if bytes.len() < 4 {
            bytes.extend_from_slice(b"{}");
        }
    }
    bytes
}

#[test]
fn found_inputs_stay_fixed() {
    for (name, run) in TARGETS {
        let folder = root().join("tests/fuzz/inputs").join(name);
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("listed").path();
            eprintln!("{}", path.display());
            run(&fs::read(&path).expect("readable"));
        }
    }
}

fn run_mutated(name: &str) {
    let (_, run) = TARGETS.into_iter().find(|(known, _)| *known == name).expect("a target");
    let seeds = seed_inputs(name);
    let seed = std::env::var("FUZZ_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0x9e37_79b9_7f4a_7c15);
    let span = std::env::var("FUZZ_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .map_or(RUN_TIME, Duration::from_secs);
    let (mut dice, begun) = (ByteRng(seed), Instant::now());
    for seed in &seeds {
        run(seed);
    }
    while begun.elapsed() < span {
        let input = mutate(&seeds, &mut dice);
        if std::panic::catch_unwind(|| run(&input)).is_err() {
            let folder = root().join("tests/fuzz/inputs").join(name);
            let path = folder.join(format!("found-{:016x}", dice.0));
            fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &input)).expect("written");
            panic!(
                "{} breaks `{name}`: {}",
                Path::new(&path).display(),
                String::from_utf8_lossy(&input)
            );
        }
    }
}

#[test]
fn spoiled_requests_keep_the_law() {
    run_mutated("requests");
}

#[test]
fn spoiled_responses_keep_the_law() {
    run_mutated("responses");
}

#[test]
fn spoiled_event_streams_keep_the_law() {
    run_mutated("sse");
}

#[test]
fn spoiled_streams_keep_the_law() {
    run_mutated("streams");
}
