//! Passes recorded provider streams through a passthrough: same events, same bytes for canonical
//! streams, and the reported usage.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aiproxy::{
    dialect::{Framing, event_decoder::StreamEnd, passthrough::Passthrough, registry},
    ir::{
        op::{Dialect, Op},
        usage::Usage,
    },
};
use bytes::Bytes;
use serde_json::Value;

struct Exchange {
    id: String,
    api: String,
    kind: String,
    features: Vec<String>,
    status: u64,
    body: String,
}

/// Loads the recordings; prints a line and returns `None` if they are not on this machine.
#[expect(clippy::print_stderr, reason = "a skipped test reports it")]
fn load_recordings() -> Option<Vec<Exchange>> {
    #[expect(clippy::disallowed_methods, reason = "the environment names the folder of recordings")]
    let shown = std::env::var("AIPROXY_EXCHANGES").ok().map(PathBuf::from);
    let folder =
        shown.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/exchanges"));
    let Ok(index) = fs::read(folder.join("index.json")) else {
        eprintln!("skipped: no recorded exchanges in {}", folder.display());
        return None;
    };
    let index: Vec<Value> = serde_json::from_slice(&index).expect("an index");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let read = |row: &Value| {
        let file = fs::read(folder.join(text(&row["file"]))).expect("a recording");
        let exchange: Value = serde_json::from_slice(&file).expect("JSON");
        Exchange {
            id: text(&row["id"]),
            api: text(&row["api"]),
            kind: text(&row["response_kind"]),
            features: row["features"].as_array().into_iter().flatten().map(text).collect(),
            status: row["status"].as_u64().unwrap_or(0),
            body: text(&exchange["response"]["body"]),
        }
    };
    Some(index.iter().map(read).collect())
}

fn dialect_and_op(api: &str) -> Option<(Dialect, Op)> {
    Some(match api {
        "openai.chat" => (Dialect::Openai, Op::Chat),
        "openai.completions" => (Dialect::Openai, Op::Completions),
        "openai.responses" => (Dialect::Responses, Op::Chat),
        "openai.responses.retrieve" => (Dialect::Responses, Op::Stored),
        "anthropic.messages" | "vertex.anthropic" => (Dialect::Anthropic, Op::Chat),
        "gemini.generateContent" | "gemini.streamGenerateContent" => (Dialect::Gemini, Op::Chat),
        "ollama.chat" | "ollama.generate" => (Dialect::Ollama, Op::Chat),
        _ => return None,
    })
}

/// Returns name and data of every event, with a minimal parser.
fn events(text: &str) -> Vec<(String, String)> {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
    let mut out = Vec::new();
    for block in text.split("\n\n") {
        let (mut name, mut data) = (String::new(), Vec::new());
        for line in block.lines() {
            if let Some(value) = line.strip_prefix("data:") {
                data.push(value.strip_prefix(' ').unwrap_or(value));
            } else if let Some(value) = line.strip_prefix("event:") {
                name = value.trim().to_owned();
            }
        }
        if !data.is_empty() && data.join("\n").trim() != "[DONE]" {
            out.push((name, data.join("\n")));
        }
    }
    out
}

fn json_values(exchange: &Exchange) -> Vec<Value> {
    let parse = |text: &str| serde_json::from_str(text).expect("recorded JSON");
    match exchange.kind.as_str() {
        "sse" => events(&exchange.body).iter().map(|(_, data)| parse(data)).collect(),
        "ndjson" => {
            exchange.body.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
        }
        _ => match parse(&exchange.body) {
            Value::Array(list) => list,
            one => vec![one],
        },
    }
}

/// Reads input and output totals from the whole response, independently of the usage meters.
fn reported_usage(dialect: Dialect, values: &[Value]) -> Option<(u64, u64)> {
    let n = |value: &Value| value.as_u64().unwrap_or(0);
    let mut shown = None;
    let (mut input, mut output) = (0, 0);
    for value in values {
        match dialect {
            Dialect::Openai if value["usage"].is_object() => {
                let u = &value["usage"];
                let (p, c, t) =
                    (n(&u["prompt_tokens"]), n(&u["completion_tokens"]), n(&u["total_tokens"]));
                shown = Some((p, c.max(t.saturating_sub(p))));
            }
            Dialect::Responses => {
                let response =
                    if value["response"].is_object() { &value["response"] } else { value };
                if response["usage"].is_object() {
                    shown = Some((
                        n(&response["usage"]["input_tokens"]),
                        n(&response["usage"]["output_tokens"]),
                    ));
                }
            }
            Dialect::Anthropic => {
                for u in [&value["message"]["usage"], &value["usage"]] {
                    if u["input_tokens"].is_u64() {
                        input = n(&u["input_tokens"])
                            + n(&u["cache_read_input_tokens"])
                            + n(&u["cache_creation_input_tokens"]);
                    }
                    if u["output_tokens"].is_u64() {
                        output = n(&u["output_tokens"]);
                    }
                    if u.is_object() {
                        shown = Some((input, output));
                    }
                }
            }
            // The response to a blocked prompt has the object, but no counts in it.
            Dialect::Gemini if value["usageMetadata"]["promptTokenCount"].is_u64() => {
                let u = &value["usageMetadata"];
                shown = Some((
                    n(&u["promptTokenCount"]) + n(&u["toolUsePromptTokenCount"]),
                    n(&u["candidatesTokenCount"]) + n(&u["thoughtsTokenCount"]),
                ));
            }
            Dialect::Ollama if value["eval_count"].is_u64() => {
                shown = Some((n(&value["prompt_eval_count"]), n(&value["eval_count"])));
            }
            _ => {}
        }
    }
    shown
}

fn usage_totals(usage: Option<Usage>) -> Option<(u64, u64)> {
    usage.map(|usage| (usage.input_total(), usage.output_total()))
}

/// Returns piece lengths: all at once, seven bytes each, and a fixed irregular pattern.
fn cut_patterns(length: usize) -> Vec<Vec<usize>> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let scatter = std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).expect("31 bits") % 900 + 1
    });
    vec![vec![length.max(1)], vec![7; length / 7 + 1], scatter.take(length).collect()]
}

#[test]
fn recorded_streams_pass_unchanged_at_any_cut() {
    let Some(exchanges) = load_recordings() else { return };
    let mut passed = 0;
    for exchange in exchanges.iter().filter(|x| x.status == 200) {
        let Some((dialect, op)) = dialect_and_op(&exchange.api) else { continue };
        let framing = match exchange.kind.as_str() {
            "sse" => Framing::Sse,
            "ndjson" => Framing::Ndjson,
            _ if exchange.body.trim_start().starts_with('[') => Framing::JsonArray,
            _ => continue,
        };
        let id = &exchange.id;
        let body = Bytes::from(exchange.body.clone());
        for lengths in cut_patterns(body.len()) {
            let mut passage = Passthrough::new(dialect, op, framing, false);
            let (mut out, mut at, mut error) = (Vec::new(), 0, None);
            for length in lengths {
                let to = (at + length).min(body.len());
                error = error.or(passage.feed(body.slice(at..to), &mut out).error);
                at = to;
            }
            let ending = passage.finish(&mut out);
            let got = String::from_utf8(out.concat()).expect("whole characters");

            if exchange.features.iter().any(|f| f == "stream_error") {
                assert!(
                    error.is_some_and(|fault| !fault.message.is_empty())
                        && ending == StreamEnd::Truncated,
                    "{id}"
                );
                assert!(exchange.body.starts_with(&got), "{id}");
                continue;
            }
            assert_eq!(error, None, "{id}");
            let cut = exchange.features.iter().any(|f| f == "sse_truncated_recording");
            assert_eq!(
                (ending == StreamEnd::Complete, passage.is_complete()),
                (!cut, !cut),
                "{id}"
            );
            if framing == Framing::Sse {
                assert_same_stream(dialect, &exchange.body, &got, id);
            } else {
                assert_eq!(got, exchange.body, "{id}");
            }
            assert_eq!(
                usage_totals(passage.summary().usage),
                reported_usage(dialect, &json_values(exchange)),
                "{id}"
            );
            passed += 1;
        }
    }
    assert!(passed > 200, "only {passed} passages");
}

/// Requires identical bytes if the recording is in aiproxy's canonical form, else identical events.
fn assert_same_stream(dialect: Dialect, recorded: &str, got: &str, id: &str) {
    let named = matches!(dialect, Dialect::Anthropic | Dialect::Responses);
    let want = events(recorded);
    let canonical: String = want
        .iter()
        .map(|(name, data)| {
            if name.is_empty() {
                format!("data: {data}\n\n")
            } else {
                format!("event: {name}\ndata: {data}\n\n")
            }
        })
        .collect();
    let done = if dialect == Dialect::Openai { "data: [DONE]\n\n" } else { "" };
    if want.iter().all(|(name, _)| name.is_empty() != named)
        && recorded == format!("{canonical}{done}")
    {
        assert_eq!(got, recorded, "{id}");
        return;
    }
    let plain = |list: Vec<(String, String)>| {
        let name = |name: String, data: &str| match (named, name.is_empty()) {
            (true, true) => serde_json::from_str::<Value>(data).expect("JSON")["type"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            (true, false) => name,
            (false, _) => String::new(),
        };
        list.into_iter().map(|(n, data)| (name(n, &data), data)).collect::<Vec<_>>()
    };
    assert_eq!(plain(events(got)), plain(want), "{id}");
    assert_eq!(
        got.matches("data: [DONE]").count(),
        usize::from(dialect == Dialect::Openai),
        "{id}"
    );
}

#[test]
fn recorded_answers_are_read_and_errors_keep_their_message() {
    let Some(exchanges) = load_recordings() else { return };
    for exchange in exchanges.iter().filter(|x| x.kind == "json" && !x.body.starts_with("base64:"))
    {
        let id = &exchange.id;
        if exchange.status >= 400 {
            let status = u16::try_from(exchange.status).expect("a status");
            let fault = registry::egress(Dialect::Openai).read_error(
                status,
                "application/json",
                exchange.body.as_bytes(),
            );
            let printed: Value = serde_json::from_str(&exchange.body).expect("JSON");
            let message = printed["error"]["message"]
                .as_str()
                .or(printed[0]["error"]["message"].as_str())
                .expect("a message");
            let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                words.starts_with(fault.message.trim_end_matches('…')),
                "{id}: {}",
                fault.message
            );
            continue;
        }
        let Some((dialect, op)) = dialect_and_op(&exchange.api) else { continue };
        if exchange.body.trim_start().starts_with('[') {
            continue;
        }
        let summary = registry::egress(dialect).read_summary(
            op,
            "application/json",
            exchange.body.as_bytes(),
        );
        let summary = summary.unwrap_or_else(|fault| panic!("{id}: {fault:?}"));
        assert_eq!(
            usage_totals(summary.usage),
            reported_usage(dialect, &json_values(exchange)),
            "{id}"
        );
    }
}

#[test]
fn recorded_streams_convert_to_answers_and_back() {
    let Some(exchanges) = load_recordings() else { return };
    let plain = |x: &&Exchange| {
        x.status == 200
            && x.kind == "sse"
            && !x.features.iter().any(|f| f == "stream_error" || f == "sse_truncated_recording")
    };
    for exchange in exchanges.iter().filter(plain) {
        let Some((dialect, op)) = dialect_and_op(&exchange.api) else { continue };
        let id = &exchange.id;
        let egress = registry::egress(dialect);
        let mut list: Vec<_> = events(&exchange.body)
            .into_iter()
            .map(|(name, data)| (name.into_bytes(), data.into_bytes()))
            .collect();
        if exchange.body.contains("data: [DONE]") {
            list.push((Vec::new(), b"[DONE]".to_vec()));
        }

        let answer =
            egress.collect_stream(op, &list).unwrap_or_else(|fault| panic!("{id}: {fault:?}"));
        egress.read_summary(op, "", &answer).unwrap_or_else(|fault| panic!("{id}: {fault:?}"));
        let stream = egress
            .synthesize_stream(op, &answer, Framing::Sse)
            .unwrap_or_else(|fault| panic!("{id}: {fault:?}"));

        let mut passage = Passthrough::new(dialect, op, Framing::Sse, false);
        let mut out = Vec::new();
        assert_eq!(passage.feed(stream.clone(), &mut out).error, None, "{id}");
        assert_eq!(passage.finish(&mut out), StreamEnd::Complete, "{id}");
        assert_eq!(out.concat(), stream, "{id}");
    }
}
