//! Tests on whole exchanges: recordings of this dialect survive reading and writing.

mod foreign;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Anthropic;
use crate::dialect::anthropic::buffered;
use crate::{
    base::framing::Framing,
    dialect::{
        egress::{AttemptContext, Egress, TargetTraits, Thinking},
        event_decoder::EventDecoder,
        ingress::{ChatEndpoint, Ingress, ResponseSpec},
        tests::recorded::{self, RecordedExchange},
    },
    ir::{
        assemble::Assembler,
        block::{BlockKind, CallKind},
        event::{BlockStart, ChatEvent},
        extras::Extras,
        fault::{ProxyError, ProxyErrorKind},
        request::ChatRequest,
        response::{ChatResponse, FinishKind},
        validate,
    },
};

fn exchanges() -> Vec<RecordedExchange> {
    recorded::load_exchanges(&["anthropic.messages", "vertex.anthropic"])
}

fn traits(thinking: Thinking) -> TargetTraits {
    TargetTraits {
        model: "m".to_owned(),
        stream: false,
        max_output: None,
        thinking,
        max_tokens_field: "max_tokens",
        developer_role: false,
        accepts_reasoning: false,
        ask_usage: true,
        facts: Default::default(),
        call_id_seed: "s".to_owned(),
    }
}

fn response_spec() -> ResponseSpec {
    ResponseSpec {
        endpoint: ChatEndpoint::Chat,
        model: "m".to_owned(),
        request_id: "1".to_owned(),
        created: 0,
        framing: Framing::Sse,
        include_usage: false,
        custom_tools: Vec::new(),
        namespaced_tools: Vec::new(),
        client_tools: Vec::new(),
        compaction: false,
        echo: Extras::default(),
    }
}

fn write_json(request: &ChatRequest, thinking: Thinking) -> (Value, Vec<String>) {
    let encoded = Anthropic.write_request(request, &traits(thinking));
    let losses = encoded.losses.iter().map(|loss| loss.0.clone().into_owned()).collect();
    (serde_json::from_slice(&encoded.body).expect("json"), losses)
}

/// Makes equivalent values equal: text content and one text block, null and absent, explicit and
/// implicit defaults.
fn normalize(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut object = object.clone();
            for key in ["content", "system"] {
                if let Some(Value::String(text)) = object.get(key)
                    && object.get("source").is_none()
                {
                    let text = json!([{ "type": "text", "text": text }]);
                    object.insert(key.to_owned(), text);
                }
            }
            let is_written = |key: &str, value: &Value| match key {
                "is_error" | "strict" => *value != json!(false),
                "citations" => *value != json!([]),
                "type" => *value != json!("custom"),
                _ => !value.is_null(),
            };
            Value::Object(
                object
                    .iter()
                    .filter(|(key, value)| is_written(key, value))
                    .map(|(key, value)| (key.clone(), normalize(value)))
                    .collect(),
            )
        }
        Value::Array(list) => Value::Array(list.iter().map(normalize).collect()),
        other => other.clone(),
    }
}

#[test]
fn recorded_requests_round_trip_without_loss() {
    for exchange in exchanges() {
        let mut want = exchange.request.clone();
        let object = want.as_object_mut().expect("an object");
        for key in ["model", "stream"] {
            object.remove(key);
        }
        if let Some(format) = object.remove("output_format") {
            object.insert("output_config".to_owned(), json!({ "format": format }));
        }
        // An effort alone makes a model that is controlled by effort think.
        let effort = want.pointer("/output_config/effort").is_some();
        if effort && want.get("thinking").is_none() {
            want["thinking"] = json!({ "type": "adaptive" });
        }
        let adaptive = effort || want.pointer("/thinking/type") == Some(&json!("adaptive"));
        let thinking = if adaptive { Thinking::Effort } else { Thinking::Budget };

        let request = Anthropic
            .read_request(ChatEndpoint::Chat, exchange.request.to_string().as_bytes())
            .expect("a request");
        let (mut got, losses) = write_json(&request, thinking);

        got.as_object_mut().expect("an object").remove("model");
        assert_eq!(normalize(&got), normalize(&want), "{}", exchange.id);
        assert_eq!(losses, Vec::<String>::new(), "{}", exchange.id);
    }
}

/// Asserts that the response contains everything in the recording that is not null.
fn assert_contains(got: &Value, want: &Value, at: &str) {
    match (got, want) {
        (_, Value::Null) => {}
        (Value::Null, want) if *want == json!({ "thinking_tokens": 0 }) => {}
        (Value::Object(got), Value::Object(want)) => {
            for (key, want) in want
                .iter()
                .filter(|(key, _)| !matches!(key.as_str(), "id" | "model") || at.len() > 1)
            {
                if !(want.is_null() || want == &json!([]) && key == "citations") {
                    assert_contains(
                        got.get(key).unwrap_or(&Value::Null),
                        want,
                        &format!("{at}.{key}"),
                    );
                }
            }
        }
        (Value::Array(got), Value::Array(want)) => {
            assert_eq!(got.len(), want.len(), "{at}");
            got.iter()
                .zip(want)
                .for_each(|(got, want)| assert_contains(got, want, &format!("{at}[]")));
        }
        _ => assert_eq!(got, want, "{at}"),
    }
}

#[test]
fn recorded_answers_round_trip() {
    for exchange in exchanges().into_iter().filter(|it| it.status == 200 && it.kind == "json") {
        let response = Anthropic
            .read_response(
                &exchange.content_type,
                exchange.response.as_bytes(),
                &AttemptContext::default(),
            )
            .expect("an answer");

        let got: Value =
            serde_json::from_slice(&Anthropic.write_response(&response, &response_spec()))
                .expect("json");

        let mut want: Value = serde_json::from_str(&exchange.response).expect("json");
        // An empty text carries nothing, and clients may not send it back.
        want["content"].as_array_mut().expect("a list").retain(|block| block["text"] != "");
        assert_contains(&got, &want, &exchange.id[..1]);
        assert_eq!((&got["id"], &got["model"]), (&json!("msg_1"), &json!("m")));
    }
}

fn read_events(body: &str, cuts: &[usize]) -> Vec<ChatEvent> {
    let mut reading =
        EventDecoder::new(Framing::Sse, Anthropic.stream_reader(&AttemptContext::default()), false);
    let mut events = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        let step = reading
            .feed(&bytes::Bytes::copy_from_slice(&body.as_bytes()[pair[0]..pair[1]]), &mut events);
        assert_eq!(step.error, None);
    }
    drop(reading.finish(&mut events));
    events
}

fn split_frames(body: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let body = body.replace("\r\n", "\n");
    let data = |event: &str| {
        event
            .lines()
            .find_map(|line| line.strip_prefix("data:"))
            .map(|data| data.trim().as_bytes().to_vec())
    };
    body.split("\n\n").filter_map(data).map(|data| (Vec::new(), data)).collect()
}

/// Assembles the stream into one message with the buffered code path.
fn collect_message(body: &str) -> Option<Value> {
    let body = buffered::collect_stream(&split_frames(body)).ok()?;
    serde_json::from_slice(&body).ok()
}

fn client_stream(events: &[ChatEvent]) -> String {
    let (mut writer, mut out) = (Anthropic.stream_writer(&response_spec()), Vec::new());
    for event in events {
        writer.write_event(event.clone(), &mut out);
    }
    String::from_utf8(out).expect("text")
}

#[test]
fn recorded_streams_have_the_same_meaning_after_a_round_trip() {
    let streams: Vec<RecordedExchange> =
        exchanges().into_iter().filter(|it| it.status == 200 && it.kind == "sse").collect();
    for exchange in &streams {
        let events = read_events(&exchange.response, &[]);
        validate::validate_events(&events).expect("well formed");
        let Some(want) = collect_message(&exchange.response) else {
            assert!(!matches!(events.last(), Some(ChatEvent::End { .. })), "{}", exchange.id);
            continue;
        };
        let whole = Anthropic
            .read_response("", want.to_string().as_bytes(), &AttemptContext::default())
            .expect("an answer");
        let mut assembler = Assembler::default();
        events.iter().for_each(|event| assembler.feed(event));
        let assembled = assembler.finish().expect("complete");
        let shown = |response: &ChatResponse| -> Value {
            let plain = ChatResponse { extras: Extras::default(), ..response.clone() };
            normalize(
                &serde_json::from_slice(&Anthropic.write_response(&plain, &response_spec()))
                    .expect("json"),
            )
        };
        // Deltas of a block do not carry the members next to its content.
        let bare = |mut value: Value| {
            for block in value["content"].as_array_mut().expect("a list") {
                block.as_object_mut().expect("a block").remove("caller");
            }
            value
        };
        assert_eq!(bare(shown(&assembled)), bare(shown(&whole)), "{}", exchange.id);

        let again = collect_message(&client_stream(&events)).expect("a whole stream");
        let again = Anthropic
            .read_response("", again.to_string().as_bytes(), &AttemptContext::default())
            .expect("an answer");
        let known = |mut value: Value| {
            // The end of a stream does not carry these members.
            let usage = value["usage"].as_object_mut().expect("usage");
            usage.remove("service_tier");
            value
        };
        assert_eq!(known(shown(&again)), known(shown(&assembled)), "{}", exchange.id);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn stream_decodes_equally_at_any_cut(cuts in prop::collection::vec(any::<usize>(), 0..12)) {
        for exchange in exchanges().iter().filter(|it| it.status == 200 && it.kind == "sse") {
            let events = read_events(&exchange.response, &cuts);
            prop_assert_eq!(validate::validate_events(&events), Ok(()));
            prop_assert_eq!(events, read_events(&exchange.response, &[]));
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\",:a-z0-9 ]{0,80}") {
        for body in [body.as_slice(), text.as_bytes()] {
            drop(Anthropic.read_request(ChatEndpoint::Chat, body));
            drop(Anthropic.read_response("", body, &AttemptContext::default()));
            drop(Anthropic.stream_reader(&AttemptContext::default()).read_event(b"", body, &mut Vec::new()));
        }
    }
}

#[test]
fn unusual_vendor_events_are_written_well_formed() {
    for (events, text, calls, finish) in [
        // No block opened, no numbers, no stop, no end of the message.
        (
            vec![
                r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}"#,
                r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"b"}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
            ],
            "ab",
            vec![],
            FinishKind::Stop,
        ),
        // The whole input at the start, missing ids, a repeated number.
        (
            vec![
                r#"{"type":"message_start","message":{"id":null,"usage":null}}"#,
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"f","input":{"a":1}}}"#,
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"","name":"g","input":{}}}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"b\":"}}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"2}"}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":""},"usage":{"output_tokens":2}}"#,
                r#"{"type":"message_stop"}"#,
                r#"{"type":"message_stop"}"#,
            ],
            "",
            vec![("call_s_0", "f", r#"{"a":1}"#), ("call_s_1", "g", r#"{"b":2}"#)],
            FinishKind::ToolCalls,
        ),
        (
            vec![
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
                r#"{"type":"message_stop"}"#,
            ],
            "",
            vec![],
            FinishKind::Stop,
        ),
        // Interleaved blocks, unknown events, and a text delta for a call.
        (
            vec![
                r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"x","name":"f"}}"#,
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"h"}}"#,
                r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
                r#"{"type":"news"}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"i"}}"#,
                r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"!"}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens"}}"#,
                "[DONE]",
            ],
            "hi!",
            vec![("x", "f", "{}")],
            FinishKind::Length,
        ),
    ] {
        let carry = AttemptContext { call_id_seed: "s".to_owned(), ..AttemptContext::default() };
        let (mut reader, mut emitted) = (Anthropic.stream_reader(&carry), Vec::new());
        for event in &events {
            reader.read_event(b"", event.as_bytes(), &mut emitted).expect("an event");
        }
        assert!(reader.read_eof(&mut emitted), "{events:?}");
        validate::validate_events(&emitted).expect("well formed");
        let mut assembler = Assembler::default();
        emitted.iter().for_each(|event| assembler.feed(event));
        let response = assembler.finish().expect("complete");
        let mut got = (String::new(), Vec::new());
        for block in &response.blocks {
            match &block.kind {
                BlockKind::Text(it) => got.0.push_str(&it.text),
                BlockKind::ToolCall(it) => {
                    got.1.push((it.id.as_str(), it.name.as_str(), it.arguments.as_str()));
                }
                _ => {}
            }
        }
        assert_eq!(
            (got.0.as_str(), got.1, response.finish.kind),
            (text, calls, finish),
            "{events:?}"
        );
        let stream = client_stream(&emitted);
        assert!(
            stream.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
            "{stream}"
        );
    }
}

#[test]
fn non_object_arguments_are_wrapped_also_when_streamed() {
    for (pieces, want) in [
        (&["{", "\"a\":", "1}"][..], r#"{"a":1}"#),
        (&["{", "'a': 1,", "}"], r#"{"arguments":"{'a': 1,}"}"#),
        (&["{ ", "}"], "{ }"),
        (&[""], "{}"),
    ] {
        let head = BlockStart::ToolCall {
            id: "c".to_owned(),
            name: "f".to_owned(),
            form: CallKind::Function,
        };
        let (mut writer, mut out) = (Anthropic.stream_writer(&response_spec()), Vec::new());
        writer.write_event(ChatEvent::Open { block: 0, head }, &mut out);
        for piece in pieces {
            writer.write_event(ChatEvent::Delta { block: 0, text: (*piece).to_owned() }, &mut out);
        }
        writer.write_event(ChatEvent::Close { block: 0 }, &mut out);
        let text = String::from_utf8(out).expect("text");
        let data = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
        let got: String = data
            .filter_map(|event| event["delta"]["partial_json"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(got, want, "{pieces:?}");
    }
}

#[test]
fn error_in_a_stream_is_a_fault_and_a_cut_stream_is_incomplete() {
    let (mut reader, mut emitted) =
        (Anthropic.stream_reader(&AttemptContext::default()), Vec::new());
    reader
        .read_event(b"", br#"{"type":"message_start","message":{"model":"m"}}"#, &mut emitted)
        .expect("an event");
    let fault = reader.read_event(
        b"error",
        br#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
        &mut emitted,
    );
    assert_eq!(fault.expect_err("an error").status, 529);
    assert!(!reader.read_eof(&mut emitted));

    // An end event without a message before it does not complete the stream.
    for events in [
        &[r#"{"type":"message_stop"}"#][..],
        &[r#"{"type":"message_start","message":{}}"#, r#"{"type":"message_stop"}"#],
    ] {
        let (mut reader, mut emitted) =
            (Anthropic.stream_reader(&AttemptContext::default()), Vec::new());
        let failed = events
            .iter()
            .any(|event| reader.read_event(b"", event.as_bytes(), &mut emitted).is_err());
        assert!(failed && !reader.read_eof(&mut emitted), "{events:?}");
    }

    let (mut writer, mut out) = (Anthropic.stream_writer(&response_spec()), Vec::new());
    writer.write_error(&ProxyError::new(ProxyErrorKind::Overloaded, "m"), "r", &mut out);
    assert!(out.starts_with(b"event: error\n"));
}
