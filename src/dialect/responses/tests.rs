//! Tests of the translation rules over recorded traffic.

mod cases;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    dialect::{
        egress::Thinking,
        event_decoder::EventDecoder,
        losses::Loss,
        tests::recorded::{self, RecordedExchange},
    },
    ir::{
        assemble::{Assembler, to_events},
        event::ChatEvent,
        extras::Extras,
        response::FinishKind,
        validate,
    },
};

fn shape() -> ResponseSpec {
    ResponseSpec {
        endpoint: ChatEndpoint::Chat,
        model: "asked".to_owned(),
        request_id: "7".to_owned(),
        created: 1_700_000_000,
        framing: Framing::Sse,
        include_usage: true,
        custom_tools: Vec::new(),
        namespaced_tools: Vec::new(),
        client_tools: Vec::new(),
        compaction: false,
        echo: Extras::default(),
    }
}

fn traits() -> TargetTraits {
    TargetTraits {
        model: "m".to_owned(),
        stream: false,
        max_output: None,
        thinking: Thinking::Effort,
        max_tokens_field: "max_output_tokens",
        developer_role: false,
        accepts_reasoning: false,
        ask_usage: true,
        facts: Default::default(),
        call_id_seed: "s".to_owned(),
    }
}

fn carry() -> AttemptContext {
    AttemptContext { renamed_tools: Vec::new(), call_id_seed: "s".to_owned() }
}

fn recordings() -> Vec<RecordedExchange> {
    recorded::load_exchanges(&["openai.responses"])
}

fn write_request(request: &ChatRequest) -> (Value, Vec<Loss>) {
    let encoded = Responses.write_request(request, &traits());
    (serde_json::from_slice(&encoded.body).expect("json"), encoded.losses)
}

fn read_request(body: &Value) -> ChatRequest {
    Responses.read_request(ChatEndpoint::Chat, body.to_string().as_bytes()).expect("a request")
}

/// Reduces equivalent forms of a request to one form, for comparison.
fn normalize(body: &Value) -> Value {
    let mut body = body.clone();
    let root = body.as_object_mut().expect("an object");
    for key in ["model", "stream", "store", "include", "previous_response_id", "stream_options"] {
        root.remove(key);
    }
    if let Some(text) = root.get("input").and_then(Value::as_str) {
        let item = json!([{ "role": "user", "content": text }]);
        root.insert("input".to_owned(), item);
    }
    for item in root.get_mut("input").and_then(Value::as_array_mut).into_iter().flatten() {
        if item.get("role").is_some() && item.get("type").is_none() {
            item["type"] = "message".into();
        }
        if item["content"].is_string() && item["type"] == "message" {
            let kind = if item["role"] == "assistant" { "output_text" } else { "input_text" };
            item["content"] = json!([{ "type": kind, "text": item["content"] }]);
        }
    }
    strip_empty(&body)
}

/// Removes nulls and empty lists.
fn strip_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map
                .iter()
                .map(|(k, v)| (k.clone(), strip_empty(v)))
                .filter(|(k, v)| !(v.is_null() || k == "annotations" && *v == json!([])));
            Value::Object(kept.collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(strip_empty).collect()),
        other => other.clone(),
    }
}

/// The meaning of an answer, assembled from the fields that SDKs show.
#[derive(Debug, PartialEq)]
struct VisibleAnswer {
    text: String,
    refusal: String,
    reasoning: String,
    calls: Vec<(String, String, String)>,
    encrypted_count: u32,
    foreign: Vec<Value>,
    status: Value,
    usage: Value,
}

fn visible_answer(response: &Value) -> VisibleAnswer {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = VisibleAnswer {
        text: String::new(),
        refusal: String::new(),
        reasoning: String::new(),
        calls: Vec::new(),
        encrypted_count: 0,
        foreign: Vec::new(),
        status: if response["status"] == "complete" {
            "completed".into()
        } else {
            response["status"].clone()
        },
        usage: json!([
            response["usage"]["input_tokens"],
            response["usage"]["output_tokens"],
            response["usage"]["input_tokens_details"]["cached_tokens"],
            response["usage"]["output_tokens_details"]["reasoning_tokens"]
        ]),
    };
    for item in response["output"].as_array().into_iter().flatten() {
        match item["type"].as_str().unwrap_or_default() {
            "message" => {
                for part in item["content"].as_array().into_iter().flatten() {
                    out.text.push_str(&text(&part["text"]));
                    out.refusal.push_str(&text(&part["refusal"]));
                }
            }
            "function_call" => out.calls.push((
                text(&item["call_id"]),
                text(&item["name"]),
                text(&item["arguments"]),
            )),
            "custom_tool_call" => {
                out.calls.push((text(&item["call_id"]), text(&item["name"]), text(&item["input"])));
            }
            "reasoning" => {
                let summary = item["summary"].as_array().filter(|list| !list.is_empty());
                for part in summary.or_else(|| item["content"].as_array()).into_iter().flatten() {
                    out.reasoning
                        .extend(text(&part["text"]).chars().filter(|c| !c.is_whitespace()));
                }
                // The content is encrypted again each time it is written.
                out.encrypted_count += u32::from(item["encrypted_content"].is_string());
            }
            _ => out.foreign.push(item.clone()),
        }
    }
    out
}

fn write_body(response: &ChatResponse) -> Value {
    serde_json::from_slice(&Responses.write_response(response, &shape())).expect("json")
}

fn read_stream(text: &str, cuts: &[usize]) -> (Vec<ChatEvent>, bool) {
    let mut reading = EventDecoder::new(Framing::Sse, Responses.stream_reader(&carry()), false);
    let (mut events, bytes) = (Vec::new(), Bytes::copy_from_slice(text.as_bytes()));
    let mut at = 0;
    for cut in cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]) {
        let step = reading.feed(&bytes.slice(at.min(cut)..cut.max(at)), &mut events);
        assert_eq!(step.error, None);
        at = at.max(cut);
    }
    reading.finish(&mut events);
    (events, reading.is_complete())
}

fn assemble(events: &[ChatEvent]) -> ChatResponse {
    let mut assembler = Assembler::default();
    events.iter().for_each(|event| assembler.feed(event));
    assembler.finish().expect("complete")
}

/// The response of a recorded stream's terminal event.
fn terminal_response(stream: &str) -> Value {
    let events = stream
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data:")?.trim()).ok());
    let mut items = Vec::new();
    for event in events {
        match event["type"].as_str().unwrap_or_default() {
            "response.output_item.done" => items.push(event["item"].clone()),
            "response.completed" | "response.incomplete" => {
                let mut response = event["response"].clone();
                if response["output"].as_array().is_none_or(Vec::is_empty) {
                    response["output"] = items.into();
                }
                return response;
            }
            _ => {}
        }
    }
    Value::Null
}

fn write_stream(shape: &ResponseSpec, events: Vec<ChatEvent>) -> Vec<Value> {
    let (mut writer, mut out) = (Responses.stream_writer(shape), Vec::new());
    for event in events {
        writer.write_event(event, &mut out);
    }
    parse(&out)
}

fn parse(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).expect("text");
    let frames = text.split_terminator("\n\n").map(|frame| {
        let (name, data) = frame.split_once("\ndata: ").expect("two lines");
        assert!(!data.contains(['\n', '\r']), "{data}");
        let event: Value = serde_json::from_str(data).expect("json");
        assert_eq!(event["type"], name.strip_prefix("event: ").expect("a name"));
        event
    });
    let events: Vec<Value> = frames.collect();
    for (event, number) in events.iter().zip(0..) {
        assert_eq!(event["sequence_number"], number);
    }
    events
}

/// Checks that deltas match the items and that items match the terminal event.
fn check_consistency(events: &[Value]) -> Value {
    let mut deltas: BTreeMap<(String, u64), String> = BTreeMap::new();
    let (mut items, mut added) = (Vec::new(), Vec::new());
    for event in events {
        let kind = event["type"].as_str().expect("a type");
        let index = event["output_index"].as_u64().unwrap_or_default();
        if kind.ends_with(".delta") {
            assert_eq!(added[index as usize], event["item_id"], "{kind}");
            deltas
                .entry((kind.to_owned(), index))
                .or_default()
                .push_str(event["delta"].as_str().expect("text"));
        } else if kind == "response.output_item.added" {
            assert_eq!(index as usize, added.len());
            added.push(event["item"]["id"].clone());
        } else if kind == "response.output_item.done" {
            assert_eq!(index as usize, items.len());
            items.push(event["item"].clone());
        }
    }
    let response = events.last().expect("an end")["response"].clone();
    assert_eq!(response["output"], json!(items));
    for (item, index) in items.iter().zip(0..) {
        let delta_of = |kind: &str| {
            deltas.get(&(format!("response.{kind}.delta"), index)).cloned().unwrap_or_default()
        };
        assert_eq!(item["id"], added[index as usize]);
        let one = VisibleAnswer {
            status: Value::Null,
            usage: Value::Null,
            ..visible_answer(&json!({ "output": [item] }))
        };
        match item["type"].as_str().expect("a type") {
            "message" => {
                assert_eq!((delta_of("output_text"), delta_of("refusal")), (one.text, one.refusal));
            }
            "function_call" => assert_eq!(delta_of("function_call_arguments"), one.calls[0].2),
            "custom_tool_call" => assert_eq!(delta_of("custom_tool_call_input"), one.calls[0].2),
            "reasoning" => assert_eq!(
                delta_of("reasoning_summary_text").split_whitespace().collect::<String>(),
                one.reasoning
            ),
            _ => {}
        }
    }
    response
}

#[test]
fn every_recorded_request_round_trips_without_loss() {
    for exchange in recordings() {
        if !exchange.request.is_object()
            || exchange.features.iter().any(|f| f == "error")
            || exchange.id.contains("dangling")
        {
            continue;
        }
        let (back, losses) = write_request(&read_request(&exchange.request));
        assert_eq!(normalize(&back), normalize(&exchange.request), "{}", exchange.id);
        assert_eq!(losses, Vec::new(), "{}", exchange.id);
    }
}

#[test]
fn every_recorded_answer_round_trips() {
    for exchange in recordings().iter().filter(|x| x.status == 200 && x.kind == "json") {
        let response = Responses
            .read_response(&exchange.content_type, exchange.response.as_bytes(), &carry())
            .expect("an answer");
        let recorded: Value = serde_json::from_str(&exchange.response).expect("json");
        assert_eq!(
            visible_answer(&write_body(&response)),
            visible_answer(&recorded),
            "{}",
            exchange.id
        );
        validate::validate_events(&to_events(&response)).expect("well formed");
        let written = write_stream(&shape(), to_events(&response));
        if response.finish.kind != FinishKind::Pause {
            assert_eq!(
                visible_answer(&check_consistency(&written)),
                visible_answer(&recorded),
                "{}",
                exchange.id
            );
        }
    }
}

#[test]
fn every_recorded_stream_equals_its_final_response() {
    for exchange in recordings().iter().filter(|x| x.status == 200 && x.kind == "sse") {
        let (events, complete) = read_stream(&exchange.response, &[]);
        assert!(complete, "{}", exchange.id);
        validate::validate_events(&events).expect(&exchange.id);
        let want = visible_answer(&terminal_response(&exchange.response));
        assert_eq!(visible_answer(&write_body(&assemble(&events))), want, "{}", exchange.id);
        assert_eq!(
            visible_answer(&check_consistency(&write_stream(&shape(), events))),
            want,
            "{}",
            exchange.id
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn streams_decode_equally_at_any_cut(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        for exchange in recordings().iter().filter(|x| x.status == 200 && x.kind == "sse") {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(exchange.response.len())).collect();
            cuts.sort_unstable();
            let (events, _) = read_stream(&exchange.response, &cuts);
            prop_assert_eq!(validate::validate_events(&events), Ok(()));
            prop_assert_eq!(&events, &read_stream(&exchange.response, &[]).0);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(text in "[\\[\\]{}\",:a-z0-9_. ]{0,80}") {
        drop(Responses.read_request(ChatEndpoint::Chat, text.as_bytes()));
        drop(Responses.read_response("", text.as_bytes(), &carry()));
        let mut reader = Responses.stream_reader(&carry());
        drop(reader.read_event(b"", text.as_bytes(), &mut Vec::new()));
    }
}

#[test]
fn prefixes_of_a_stream_are_never_complete() {
    for exchange in recordings().iter().filter(|x| x.status == 200 && x.kind == "sse") {
        let end = exchange.response.find("\"response.completed\"").expect("an end");
        let mut reading = EventDecoder::new(Framing::Sse, Responses.stream_reader(&carry()), false);
        let mut reply = Vec::new();
        reading.feed(&Bytes::copy_from_slice(&exchange.response.as_bytes()[..end]), &mut reply);
        reading.finish(&mut reply);
        assert!(!reading.is_complete(), "{}", exchange.id);
    }
}
