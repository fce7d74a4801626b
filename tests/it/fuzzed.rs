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

/// How long each target runs; `FUZZ_SECONDS` sets another time.
const RUN_TIME: Duration = Duration::from_secs(2);
/// The time that any input may take, and in addition for each byte, in a build without
/// optimization and on a machine that does other work. Quadratic work is far above it.
const MAX_TIME: Duration = Duration::from_millis(200);
const MAX_TIME_PER_BYTE: Duration = Duration::from_micros(20);

/// A name and the function that consumes the bytes.
type FuzzTarget = (&'static str, fn(&[u8]));

const TARGETS: [FuzzTarget; 10] = [
    ("requests", targets::requests),
    ("responses", targets::responses),
    ("sse", targets::sse),
    ("streams", targets::streams),
    ("lines", targets::lines),
    ("json", targets::json),
    ("paths", targets::paths),
    ("config", targets::config),
    ("references", targets::references),
    ("forms", targets::forms),
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
    if let Some(seeds) = own_seeds(target) {
        let head = [0, 1];
        return seeds.iter().map(|seed| [&head[..], seed.as_bytes()].concat()).collect();
    }
    let reported = std::env::var("AIPROXY_EXCHANGES").ok().map(PathBuf::from);
    let folder = reported.unwrap_or_else(|| root().join("../shared/exchanges"));
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

/// Seeds of targets that read no bodies of dialects.
fn own_seeds(target: &str) -> Option<Vec<String>> {
    let list = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    match target {
        "paths" => list(&[
            "/v1/chat/completions",
            "/u/one/v1/files/file-abc/content?after=x&limit=2",
            "/u/one/v1/%2e%2e/admin;x=1/..%5cb",
            "/~aip-key/v1beta/models/a%2Fb:streamGenerateContent?alt=sse",
            "/v1/responses/resp_1/input_items",
            "/logical-models/a/b/upstreams",
            "/v1beta/operations/x:cancel",
        ]),
        "references" => list(&[
            "keyring:work",
            "env:OPENAI_API_KEY",
            "file:~/key.txt",
            "cmd:pass show 'my key' \"a\\b\"",
            "vault:label",
            "sk-proj-0123456789abcdefghijklmnop",
            "literal:sk-0123456789abcdefghij",
        ]),
        "forms" => list(&[
            "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n--b--\r\n",
            "--b\r\ncontent-disposition: form-data; name*=UTF-8''model\r\n\r\nm\r\n--b--",
            "multipart/form-data; boundary=\"b c\"; charset=utf-8",
        ]),
        "config" => {
            let mut files = vec![root().join("tests/it/data/configs")];
            let mut texts = vec![
                "[[upstream]]\nname = \"a\"\nkeys = [{ ref = \"env:A\" }]\n[aliases]\nfast = \"a/m\"\n".to_owned(),
            ];
            while let Some(path) = files.pop() {
                match fs::read_dir(&path) {
                    Ok(found) => files.extend(found.flatten().map(|entry| entry.path())),
                    Err(_) => texts.extend(fs::read_to_string(&path)),
                }
            }
            texts.retain(|text| text.len() < 20_000 && !text.is_empty());
            texts.sort();
            Some(texts)
        }
        _ => None,
    }
}

/// Runs a target and requires time in proportion to the input. The best of three runs counts,
/// because other programs disturb some.
fn run_timed(run: fn(&[u8]), input: &[u8]) {
    let length = u32::try_from(input.len()).unwrap_or(u32::MAX);
    let allowed = MAX_TIME + MAX_TIME_PER_BYTE * length;
    let is_slow = || {
        let begun = Instant::now();
        run(input);
        begun.elapsed() > allowed
    };
    assert!(!(0..3).all(|_| is_slow()), "{length} bytes took more than {allowed:?}");
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
fn fuzzer_findings_stay_fixed() {
    for (name, run) in TARGETS {
        let folder = root().join("tests/fuzz/inputs").join(name);
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("listed").path();
            eprintln!("{}", path.display());
            run_timed(run, &fs::read(&path).expect("readable"));
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
        run_timed(run, seed);
    }
    while begun.elapsed() < span {
        let input = mutate(&seeds, &mut dice);
        if std::panic::catch_unwind(|| run_timed(run, &input)).is_err() {
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
fn mutated_requests_satisfy_the_invariants() {
    run_mutated("requests");
}

#[test]
fn mutated_responses_satisfy_the_invariants() {
    run_mutated("responses");
}

#[test]
fn mutated_event_streams_satisfy_the_invariants() {
    run_mutated("sse");
}

#[test]
fn mutated_streams_satisfy_the_invariants() {
    run_mutated("streams");
}

#[test]
fn mutated_lines_decode_equally_at_any_cut() {
    run_mutated("lines");
}

#[test]
fn mutated_json_is_read_within_bounds() {
    run_mutated("json");
}

#[test]
fn mutated_paths_stay_within_their_upstream() {
    run_mutated("paths");
}

#[test]
fn mutated_configs_are_reported_as_problems() {
    run_mutated("config");
}

#[test]
fn mutated_references_show_no_key() {
    run_mutated("references");
}

#[test]
fn mutated_forms_are_read_within_bounds() {
    run_mutated("forms");
}
