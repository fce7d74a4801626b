//! Tests answers, whole and in pieces.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{carry, shape};
use crate::{
    base::{framing::Framing, json::raw::RawJson},
    dialect::{
        egress::{AttemptContext, Egress, StreamReader},
        event_decoder::{EventDecoder, StreamEnd},
        ingress::{ChatEndpoint, Ingress, ResponseSpec},
        openai::Openai,
        tests::recorded::{self, RecordedExchange},
        translate::Translator,
    },
    ir::{
        assemble::{self, Assembler},
        block::{Block, BlockKind, CallKind, ToolCall},
        event::ChatEvent,
        fault::{ProxyError, ProxyErrorKind},
        response::{ChatResponse, Finish, FinishKind},
        usage::Usage,
        validate,
    },
};

/// The meaning of an answer, independent of how it is split into blocks.
#[derive(Debug, Default, PartialEq)]
struct ParsedAnswer {
    text: String,
    reasoning: String,
    refusal: String,
    calls: Vec<(String, Value)>,
    signatures: Vec<String>,
    finish: FinishKind,
    usage: Option<Usage>,
    sources: Vec<String>,
    logprobs: Option<Value>,
}

fn meaning(response: &ChatResponse) -> ParsedAnswer {
    let mut parsed = ParsedAnswer {
        finish: response.finish.kind,
        usage: response.usage,
        ..ParsedAnswer::default()
    };
    for block in &response.blocks {
        parsed.signatures.extend(block.signature.iter().map(|proof| proof.value.clone()));
        match &block.kind {
            BlockKind::Text(text) => {
                parsed.text.push_str(&text.text);
                parsed
                    .sources
                    .extend(text.citations.iter().filter_map(|citation| citation.url.clone()));
            }
            BlockKind::Reasoning(thought) => {
                parsed.reasoning.extend(thought.text.split_whitespace());
            }
            BlockKind::Refusal(words) => parsed.refusal.push_str(words),
            BlockKind::ToolCall(call) => {
                let arguments = serde_json::from_str(&call.arguments)
                    .unwrap_or_else(|_| json!(call.arguments.trim()));
                parsed
                    .calls
                    .push((call.name.clone(), if arguments == "" { json!({}) } else { arguments }));
            }
            _ => {}
        }
    }
    parsed.logprobs = response.logprobs.as_ref().map(RawJson::to_value);
    parsed
}

/// Reads the same meaning from the recording itself, as a tree.
fn recorded_meaning(chunks: &[Value]) -> (String, String, Vec<(String, Value)>) {
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (mut text, mut thoughts, mut calls) =
        (String::new(), vec![String::new(); 4], Vec::<(Value, String, String)>::new());
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let source =
            if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
        if let Some(parts) = source["content"].as_array() {
            text.extend(parts.iter().map(|part| string(&part["text"])));
            let inside = parts.iter().filter_map(|part| part["thinking"].as_array()).flatten();
            thoughts[3].extend(inside.map(|part| string(&part["text"])));
        }
        text.push_str(&string(&source["content"]));
        thoughts[0].push_str(&string(&source["reasoning_content"]));
        thoughts[1].push_str(&string(&source["reasoning"]));
        for detail in source["reasoning_details"].as_array().into_iter().flatten() {
            thoughts[2].push_str(&string(&detail["text"]));
            thoughts[2].push_str(&string(&detail["summary"]));
        }
        let legacy = source["function_call"].is_object() && source["function_call"]["name"] != "";
        let legacy = legacy.then(|| json!({"index": -1, "function": source["function_call"]}));
        for call in source["tool_calls"].as_array().into_iter().flatten().chain(legacy.as_ref()) {
            let key = if call["index"].is_null() || choice["message"].is_object() {
                call["id"].clone()
            } else {
                call["index"].clone()
            };
            if !calls.iter().any(|(known, ..)| *known == key) {
                calls.push((key.clone(), String::new(), String::new()));
            }
            let Some((_, name, arguments)) = calls.iter_mut().find(|(known, ..)| *known == key)
            else {
                continue;
            };
            name.push_str(&string(&call["function"]["name"]));
            arguments.push_str(&string(&call["function"]["arguments"]));
        }
    }
    let thought = thoughts
        .into_iter()
        .find(|words| !words.is_empty())
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let value = |arguments: String| serde_json::from_str(&arguments).unwrap_or_else(|_| json!({}));
    (
        text,
        thought,
        calls.into_iter().map(|(_, name, arguments)| (name, value(arguments))).collect(),
    )
}

fn chunks(body: &str) -> Vec<Value> {
    body.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?).ok()).collect()
}

fn exchanges() -> Vec<RecordedExchange> {
    let has_audio =
        |exchange: &RecordedExchange| exchange.request["modalities"].to_string().contains("audio");
    recorded::load_exchanges(&["openai.chat"])
        .into_iter()
        .filter(|exchange| exchange.status < 400 && !has_audio(exchange))
        .collect()
}

/// Returns all events of a body that arrives in these pieces.
fn events_of(body: &[u8], cuts: &[usize]) -> (Vec<ChatEvent>, StreamEnd, bool) {
    let mut decoder = EventDecoder::new(Framing::Sse, Openai.stream_reader(&carry()), false);
    let (mut events, mut from, mut failed) = (Vec::new(), 0, false);
    for &to in cuts.iter().chain(&[body.len()]) {
        failed |=
            decoder.feed(&Bytes::copy_from_slice(&body[from..to]), &mut events).error.is_some();
        from = to;
    }
    let (stream_end, _) = decoder.finish(&mut events);
    (events, stream_end, failed)
}

fn assembled(events: &[ChatEvent]) -> ChatResponse {
    validate::validate_events(events).expect("well formed");
    let mut assembler = Assembler::default();
    events.iter().for_each(|event| assembler.feed(event));
    assembler.finish().expect("complete")
}

fn streamed(response: &ChatResponse, spec: &ResponseSpec) -> String {
    let (mut writer, mut out) = (Openai.stream_writer(spec), Vec::new());
    assemble::to_events(response).into_iter().for_each(|event| writer.write_event(event, &mut out));
    String::from_utf8(out).expect("text")
}

fn reread(body: &[u8]) -> ChatResponse {
    Openai.read_response("application/json", body, &carry()).expect("an answer")
}

#[test]
fn every_recorded_answer_round_trips() {
    for exchange in exchanges().iter().filter(|exchange| exchange.kind == "json") {
        let response = reread(exchange.response.as_bytes());
        let want = meaning(&response);
        let (text, thought, calls) =
            recorded_meaning(&[serde_json::from_str(&exchange.response).expect("json")]);
        assert_eq!(
            (&want.text, &want.reasoning, &want.calls),
            (&text, &thought, &calls),
            "{}",
            exchange.id
        );
        assert_eq!(want.finish == FinishKind::ToolCalls, !calls.is_empty(), "{}", exchange.id);
        let usage = want.usage.or(Some(Usage::default()));
        assert_eq!(
            meaning(&reread(&Openai.write_response(&response, &shape()))),
            ParsedAnswer { usage, ..meaning(&response) },
            "{}",
            exchange.id
        );
        let (events, stream_end, failed) = events_of(streamed(&response, &shape()).as_bytes(), &[]);
        assert!(stream_end == StreamEnd::Complete && !failed);
        assert_eq!(meaning(&assembled(&events)), ParsedAnswer { usage, ..want }, "{}", exchange.id);
    }
}

/// Pieces of calls are merged into the calls they belong to.
#[test]
fn every_recorded_stream_round_trips_at_any_cut() {
    let mut step = 1;
    for exchange in exchanges().iter().filter(|exchange| exchange.kind == "sse") {
        let body = exchange.response.as_bytes();
        let (events, stream_end, failed) = events_of(body, &[]);
        let has_error = chunks(&exchange.response).iter().any(|chunk| chunk["error"].is_object());
        assert_eq!(failed, has_error, "{}", exchange.id);
        validate::validate_events(&events)
            .unwrap_or_else(|breach| panic!("{}: {breach}", exchange.id));
        for _ in 0..3 {
            step = step * 31 % 997 + 1;
            let cuts: Vec<usize> =
                (1..).map(|n| n * step).take_while(|at| *at < body.len()).collect();
            assert_eq!(events_of(body, &cuts).0, events, "{} cut every {step}", exchange.id);
        }
        if failed || stream_end != StreamEnd::Complete {
            assert!(has_error || !exchange.response.contains("[DONE]"), "{}", exchange.id);
            continue;
        }
        let response = assembled(&events);
        let want = meaning(&response);
        let (text, thought, calls) = recorded_meaning(&chunks(&exchange.response));
        assert_eq!(
            (&want.text, &want.reasoning, &want.calls),
            (&text, &thought, &calls),
            "{}",
            exchange.id
        );
        let usage = want.usage.or(Some(Usage::default()));
        let again = assembled(&events_of(streamed(&response, &shape()).as_bytes(), &[]).0);
        assert_eq!(
            meaning(&again),
            ParsedAnswer { usage, ..meaning(&response) },
            "{}",
            exchange.id
        );
        assert_eq!(
            meaning(&reread(&Openai.write_response(&response, &shape()))),
            ParsedAnswer { usage, ..want },
            "{}",
            exchange.id
        );
    }
}

fn feed(chunks: &[&str]) -> (Vec<ChatEvent>, Box<dyn StreamReader>) {
    let mut reader = Openai.stream_reader(&AttemptContext {
        renamed_tools: vec![("a_b".to_owned(), "a.b".to_owned())],
        call_id_seed: "s".to_owned(),
    });
    let mut out = Vec::new();
    for chunk in chunks {
        reader.read_event(b"", chunk.as_bytes(), &mut out).expect("good");
    }
    (out, reader)
}

/// Returns the answer to a stream of choices; each text is the content of `choices[0]`.
fn reply(choices: &[&str]) -> ChatResponse {
    let chunks: Vec<String> =
        choices.iter().map(|choice| format!("{{\"id\":\"i\",\"choices\":[{choice}]}}")).collect();
    let mut all: Vec<&str> = chunks.iter().map(String::as_str).collect();
    all.push("[DONE]");
    assembled(&feed(&all).0)
}

fn calls(response: &ChatResponse) -> Vec<(&str, &str, &str)> {
    response
        .blocks
        .iter()
        .filter_map(|block| match &block.kind {
            BlockKind::ToolCall(call) => {
                Some((call.id.as_str(), call.name.as_str(), call.arguments.as_str()))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn calls_are_distinguished_without_index_or_id() {
    let response = reply(&[
        r#"{"delta":{"tool_calls":[{"function":{"name":"a_b","arguments":"{\"x\":1}"}},{"function":{"name":"f","arguments":{"y":2}}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"id":"k","function":{"name":"g","arguments":""}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":1,"id":"l","function":{"arguments":"{\"late\""}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"function":{"name":null,"arguments":"{\"z\":"}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":1,"function":{"name":"h","arguments":":1}"}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"3}"}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"id":"k","function":{"name":"g","arguments":"{}"}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"id":"m","function":{"name":"g","arguments":"{\"w\":4}"}}]},"finish_reason":"stop"}"#,
    ]);
    let all = calls(&response);
    assert_eq!(all[0], ("call_s_0", "a.b", r#"{"x":1}"#));
    assert_eq!(all[1], ("call_s_1", "f", r#"{"y":2}"#));
    assert!(all[2].2.starts_with(r#"{"z":3}"#) && all[2].0 == "k", "{all:?}");
    assert_eq!(all[3], ("l", "h", r#"{"late":1}"#));
    assert_eq!(all[4], ("m", "g", r#"{"w":4}"#));
    assert_eq!(response.finish.kind, FinishKind::ToolCalls);
}

#[test]
fn split_names_are_joined_and_an_index_may_be_reused() {
    let response = reply(&[
        r#"{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"get_","arguments":""}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"function":{"name":"weather","arguments":"{\"c\":"}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"get_weather","arguments":"1}"}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"id":"b","function":{"name":"f","arguments":""}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"g"}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"arguments":"{}"}}]},"finish_reason":"tool_calls"}"#,
    ]);
    assert_eq!(
        calls(&response),
        [("a", "get_weather", r#"{"c":1}"#), ("b", "f", ""), ("c", "g", "{}")]
    );
}

#[test]
fn chunks_with_messages_instead_of_deltas_are_read() {
    let response = reply(&[
        r#"{"message":{"role":"assistant","content":"a"}}"#,
        r#"{"message":{"role":"assistant","content":"b"}}"#,
        r#"{"delta":{},"message":{"content":"c"},"finish_reason":"stop"}"#,
    ]);
    assert_eq!(meaning(&response).text, "abc");
}

#[test]
fn unusual_chunks_are_read() {
    let null = r#"{"index":0,"delta":{"role":null,"content":null,"tool_calls":null,"refusal":""},"finish_reason":null,"logprobs":{"content":null}}"#;
    let words = r#"{"delta":{"content":"a"},"message":{"content":"a"}}"#;
    let text = r#"{"text":"b","finish_reason":""}"#;
    let other = r#"{"index":1,"delta":{"content":"never"}}"#;
    let response = reply(&[null, words, text, other, r#"{"message":{"content":"ab"}}"#]);
    assert_eq!(
        meaning(&response),
        ParsedAnswer { text: "ab".to_owned(), ..ParsedAnswer::default() }
    );
    // Empty choices, usage in any chunk, no [DONE].
    let (mut out, mut reader) = feed(&[
        r#"{"choices":[],"prompt_filter_results":[]}"#,
        r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        r#"{"usage":{"prompt_tokens":3,"completion_tokens":4},"choices":null,"service_tier":"flex"}"#,
    ]);
    assert!(reader.read_eof(&mut out));
    let response = assembled(&out);
    assert_eq!(response.finish.kind, FinishKind::Length);
    assert_eq!(response.usage, Some(Usage { input: 3, output: 4, ..Usage::default() }));
    assert_eq!(response.service_tier.as_deref(), Some("flex"));
    // An end without a finish reason is complete only after text; half an answer is not complete.
    for (chunks, good) in [
        (&["[DONE]"][..], false),
        (&[r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#, "[DONE]"], false),
        (&[r#"{"choices":[{"delta":{"content":""},"finish_reason":"stop"}]}"#, "[DONE]"], true),
        (&[r#"{"choices":[{"delta":{"content":"x"}}]}"#, "[DONE]"], true),
        (
            &[
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a\": \"Z"}}]}}]}"#,
                "[DONE]",
            ],
            false,
        ),
        (
            &[
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":""}}]}}]}"#,
                "[DONE]",
            ],
            false,
        ),
        (
            &[
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}}]}}]}"#,
                "[DONE]",
            ],
            true,
        ),
    ] {
        let (mut out, mut reader) = feed(&chunks[..chunks.len() - 1]);
        assert_eq!(reader.read_event(b"", b"[DONE]", &mut out).is_ok(), good, "{chunks:?}");
    }
    let (mut out, mut reader) = feed(&[r#"{"choices":[{"delta":{"content":"x"}}]}"#]);
    assert!(!reader.read_eof(&mut out));
}

/// An error inside a stream is a fault, after the content before it.
#[test]
fn errors_are_faults_in_every_format() {
    for (name, chunk) in [
        ("", r#"{"error":{"message":"m","code":503}}"#),
        ("", r#"{"object":"error","message":"m"}"#),
        ("error", r#"{"message":"m"}"#),
        ("error", "m"),
        ("", r#"{"choices":[{"delta":{"content":""},"error":{"message":"m"}}]}"#),
        ("", r#"{"choices":[{"delta":{},"finish_reason":"error"}]}"#),
        ("", r#"{"choices":["#),
        ("", "[1]"),
    ] {
        let (mut out, mut reader) = feed(&[r#"{"choices":[{"delta":{"content":"x"}}]}"#]);
        assert!(reader.read_event(name.as_bytes(), chunk.as_bytes(), &mut out).is_err(), "{chunk}");
    }
    for body in [
        r#"{"error":"x"}"#,
        r#"{"choices":[{"message":{},"finish_reason":"error"}]}"#,
        "{}",
        "<html>",
    ] {
        assert!(Openai.read_response("", body.as_bytes(), &carry()).is_err(), "{body}");
    }
}

#[test]
fn signatures_are_joined_from_deltas() {
    let response = reply(&[
        r#"{"delta":{"reasoning":"h","reasoning_details":[{"type":"reasoning.text","text":"h","index":0}]}}"#,
        r#"{"delta":{"reasoning":"m","reasoning_details":[{"type":"reasoning.text","text":"m","index":0}]}}"#,
        r#"{"delta":{"reasoning_details":[{"type":"reasoning.text","signature":"S/+=","index":0}]}}"#,
        r#"{"delta":{"content":"x"}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{}"},"extra_content":{"v":{"s":"T"}}}]},"finish_reason":"tool_calls"}"#,
    ]);
    let parsed = meaning(&response);
    assert_eq!((parsed.reasoning.as_str(), parsed.text.as_str()), ("hm", "x"));
    assert_eq!(
        parsed.signatures,
        [
            r#"[{"type":"reasoning.text","text":"hm","index":0,"signature":"S/+="}]"#,
            r#"{"v":{"s":"T"}}"#
        ]
    );
    let written: Value =
        serde_json::from_slice(&Openai.write_response(&response, &shape())).expect("json");
    assert_eq!(written["choices"][0]["message"]["reasoning_details"][0]["signature"], "S/+=");
}

#[test]
fn answers_have_every_field_of_the_published_schema() {
    let call = ToolCall {
        id: "c".to_owned(),
        name: "f".to_owned(),
        arguments: String::new(),
        form: CallKind::Function,
    };
    let patch = ToolCall {
        id: "d".to_owned(),
        name: "patch".to_owned(),
        arguments: r#"{"input":"*** x"}"#.to_owned(),
        form: CallKind::Function,
    };
    let response = ChatResponse {
        blocks: vec![
            Block::text("a"),
            Block::new(BlockKind::ToolCall(call)),
            Block::new(BlockKind::ToolCall(patch)),
        ],
        finish: Finish { kind: FinishKind::ToolCalls, ..Finish::default() },
        usage: Some(Usage {
            input: 1,
            cache_read: 2,
            cache_write_5m: 3,
            output: 4,
            reasoning: 5,
            ..Usage::default()
        }),
        ..ChatResponse::default()
    };
    let spec = ResponseSpec { custom_tools: vec!["patch".to_owned()], ..shape() };
    let got: Value =
        serde_json::from_slice(&Openai.write_response(&response, &spec)).expect("json");
    let usage = json!({"prompt_tokens": 6, "completion_tokens": 9, "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}});
    let calls = json!([{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "d", "type": "custom", "custom": {"name": "patch", "input": "*** x"}}]);
    assert_eq!(
        got,
        json!({"id": "chatcmpl-r1", "object": "chat.completion", "created": 7, "model": "asked", "usage": usage, "choices": [{"index": 0,
            "logprobs": null, "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": "a", "refusal": null, "annotations": [], "tool_calls": calls}}]})
    );

    let stream = streamed(&response, &spec);
    let events = chunks(&stream);
    assert!(stream.ends_with("data: [DONE]\n\n"));
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let deltas: Vec<&Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0))
        .collect();
    assert_eq!(
        deltas[0],
        &json!({"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}})
    );
    assert_eq!(deltas[1], &json!({"index": 0, "function": {"arguments": "{}"}}));
    assert_eq!(
        deltas[2],
        &json!({"index": 1, "id": "d", "type": "custom", "custom": {"name": "patch", "input": "*** x"}})
    );
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(
        (&events[events.len() - 1]["choices"], &events[events.len() - 1]["usage"]),
        (&json!([]), &usage)
    );
    let quiet = streamed(&response, &ResponseSpec { include_usage: false, ..spec });
    assert!(!quiet.contains("usage"));
}

#[test]
fn legacy_clients_get_legacy_answers() {
    let old = ResponseSpec { endpoint: ChatEndpoint::Completions, ..shape() };
    let tokens = RawJson::parse(r#"[{"token":"hi","logprob":-1,"top_logprobs":[]}]"#);
    let response = ChatResponse {
        blocks: vec![Block::text("hi")],
        logprobs: tokens,
        ..ChatResponse::default()
    };
    let got: Value = serde_json::from_slice(&Openai.write_response(&response, &old)).expect("json");
    assert_eq!((&got["id"], &got["object"]), (&json!("cmpl-r1"), &json!("text_completion")));
    let logprobs =
        json!({"text_offset": [0], "token_logprobs": [-1], "tokens": ["hi"], "top_logprobs": [{}]});
    assert_eq!(
        got["choices"],
        json!([{"index": 0, "text": "hi", "logprobs": logprobs, "finish_reason": "stop"}])
    );
    let text: String = chunks(&streamed(&response, &old))
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(text, "hi");

    let mut legacy = shape();
    legacy.echo.push(crate::ir::op::Dialect::Openai, "functions", RawJson::from(true));
    let call = ToolCall {
        id: "c".to_owned(),
        name: "f".to_owned(),
        arguments: "{}".to_owned(),
        form: CallKind::Function,
    };
    let finish = Finish { kind: FinishKind::ToolCalls, ..Finish::default() };
    let response = ChatResponse {
        blocks: vec![Block::new(BlockKind::ToolCall(call))],
        finish,
        ..ChatResponse::default()
    };
    let got: Value =
        serde_json::from_slice(&Openai.write_response(&response, &legacy)).expect("json");
    assert_eq!(
        got["choices"][0]["message"]["function_call"],
        json!({"name": "f", "arguments": "{}"})
    );
    assert_eq!(got["choices"][0]["finish_reason"], "function_call");
    let again = assembled(&events_of(streamed(&response, &legacy).as_bytes(), &[]).0);
    assert_eq!(calls(&again), [("call_s_0", "f", "{}")]);
}

/// An interrupted answer ends with an error and without a success marker.
#[test]
fn broken_stream_ends_with_an_error() {
    let decoder = EventDecoder::new(Framing::Sse, Openai.stream_reader(&carry()), false);
    let mut translator = Translator::new(decoder, Openai.stream_writer(&shape()), 0);
    let mut out = Vec::new();
    translator.feed(
        &Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n"),
        &mut out,
    );
    assert_eq!(translator.finish(&mut out), StreamEnd::Truncated);
    let text = String::from_utf8(out.concat()).expect("text");
    assert!(text.contains("\"content\":\"x\"") && !text.contains("[DONE]"));
    let tail = translator.error_frame(&ProxyError::new(ProxyErrorKind::Upstream, "broke"), "r1");
    assert!(tail.starts_with(b"data: {\"error\":"));
}

proptest::proptest! {
    #[test]
    fn any_chunks_are_written_well_formed_or_refused(pieces in proptest::collection::vec((0..16_usize, 0..14_usize, 0..14_usize), 0..12)) {
        const KEYS: [&str; 16] = ["content", "role", "tool_calls", "function_call", "reasoning", "reasoning_details", "refusal", "annotations",
            "images", "audio", "extra_content", "reasoning_content", "finish_reason", "text", "message", "logprobs"];
        const VALUES: [&str; 14] = ["null", "1", "\"x\"", "[]", "{}", "[1]", "[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]",
            "[{\"function\":{\"arguments\":\"}\"}}]", "[{\"text\":\"t\",\"signature\":\"s\"}]", "{\"name\":\"f\"}", "[{\"type\":\"thinking\",\"thinking\":[{\"text\":\"t\"}]}]",
            "[{\"url_citation\":{\"url\":\"u\"}}]", "[{\"index\":0,\"id\":\"b\",\"custom\":{\"name\":\"g\",\"input\":\"i\"},\"extra_content\":{\"a\":1}}]", "{\"content\":[{}]}"];
        let mut reader = Openai.stream_reader(&carry());
        let mut out = Vec::new();
        for (key, value, more) in pieces {
            let delta = format!("{{\"{}\":{},\"content\":{}}}", KEYS[key], VALUES[value], VALUES[more]);
            let choice = format!("{{\"choices\":[{{\"delta\":{delta},\"{}\":{}}}]}}", KEYS[key], VALUES[more]);
            if reader.read_event(b"", choice.as_bytes(), &mut out).is_err() {
                break;
            }
            drop(Openai.read_response("", choice.as_bytes(), &carry()).map(|response| Openai.write_response(&response, &shape())));
        }
        reader.read_eof(&mut out);
        proptest::prop_assert_eq!(validate::validate_events(&out), Ok(()));
        let (mut writer, mut bytes) = (Openai.stream_writer(&shape()), Vec::new());
        out.into_iter().for_each(|event| writer.write_event(event, &mut bytes));
    }
}
