//! Property tests over all recorded traffic: reading and writing again preserves the meaning.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::dialect::gemini::{Gemini, field_names, schema, schema_read};
use crate::{
    base::{
        framing::{Framing, sse},
        json::raw::RawJson,
    },
    dialect::{
        egress::{AttemptContext, Egress as _, TargetTraits, Thinking},
        event_decoder::{EventDecoder, StreamEnd},
        ingress::{ChatEndpoint, Ingress as _, ResponseSpec},
        losses::Losses,
        tests::recorded::{self, RecordedExchange},
    },
    ir::{assemble::Assembler, event::ChatEvent, extras::Extras, response::ChatResponse, validate},
};

fn exchanges() -> Vec<RecordedExchange> {
    recorded::load_exchanges(&["gemini.generateContent", "gemini.streamGenerateContent"])
}

fn successful_exchanges() -> impl Iterator<Item = RecordedExchange> {
    // A failed request has no answer to compare.
    exchanges().into_iter().filter(|x| x.status == 200)
}

fn response_spec(framing: Framing) -> ResponseSpec {
    ResponseSpec {
        endpoint: ChatEndpoint::Chat,
        model: "asked".to_owned(),
        request_id: "id".to_owned(),
        created: 0,
        framing,
        include_usage: true,
        custom_tools: Vec::new(),
        namespaced_tools: Vec::new(),
        client_tools: Vec::new(),
        compaction: false,
        echo: Extras::default(),
    }
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

fn attempt_context() -> AttemptContext {
    AttemptContext { renamed_tools: Vec::new(), call_id_seed: "s".to_owned() }
}

/// Converts keys to camel case, except inside data (arguments, responses, schemas).
fn camel_case_keys(value: &Value) -> Value {
    const DATA_KEYS: [&str; 6] = [
        "args",
        "response",
        "parameters",
        "parametersJsonSchema",
        "responseSchema",
        "responseJsonSchema",
    ];
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| {
                let key = field_names::to_camel_case(key).into_owned();
                let value = if DATA_KEYS.contains(&key.as_str()) {
                    value.clone()
                } else {
                    camel_case_keys(value)
                };
                (key, value)
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(list) => list.iter().map(camel_case_keys).collect(),
        other => other.clone(),
    }
}

fn to_list(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list.clone(),
        Value::Null => Vec::new(),
        other => vec![other.clone()],
    }
}

fn normalize_schema(value: &Value) -> Value {
    let plain = schema_read::to_json_schema(RawJson::from(value).json());
    schema::from_json_schema(plain.json(), "x", &mut Losses::default()).to_value()
}

/// Reduces equivalent forms of a request to one form.
fn normalize(body: &Value) -> Value {
    let mut body = camel_case_keys(body);
    let map = body.as_object_mut().expect("an object");
    map.remove("model");
    let mut contents: Vec<(String, Vec<Value>)> = Vec::new();
    for content in to_list(&map.remove("contents").expect("contents")) {
        let role = if content["role"] == "model" { "model" } else { "user" }.to_owned();
        let mut parts = to_list(&content["parts"]);
        parts.retain(|part| *part != json!({"text": ""}));
        for part in &mut parts {
            normalize_part(part);
        }
        match contents.last_mut().filter(|(last, _)| *last == role) {
            Some((_, known)) => known.append(&mut parts),
            None => contents.push((role, parts)),
        }
    }
    map.insert("contents".to_owned(), json!(contents));
    let system = map.remove("systemInstruction").unwrap_or_default();
    let mut system: Vec<Value> = to_list(&system["parts"]);
    system.retain(|part| *part != json!({"text": ""}));
    map.insert("systemInstruction".to_owned(), json!(system));
    let (mut functions, mut hosted) = (Vec::new(), Vec::new());
    for tool in to_list(&map.remove("tools").unwrap_or_default()) {
        for (key, value) in tool.as_object().expect("a tool") {
            if key == "functionDeclarations" {
                functions.extend(to_list(value).into_iter().map(|mut function| {
                    let map = function.as_object_mut().expect("a function");
                    if let Some(schema) =
                        map.remove("parameters").or_else(|| map.remove("parametersJsonSchema"))
                    {
                        map.insert("parametersJsonSchema".to_owned(), normalize_schema(&schema));
                    }
                    function
                }));
            } else {
                hosted.push(json!({ key: value }));
            }
        }
    }
    map.insert("tools".to_owned(), json!([functions, hosted]));
    let mut config = map.remove("generationConfig").unwrap_or(json!({}));
    let settings = config.as_object_mut().expect("settings");
    settings.retain(|key, value| *value != json!({}) && !(key == "candidateCount" && *value == 1));
    if settings.get("responseModalities") == Some(&json!(["TEXT"])) {
        settings.remove("responseModalities");
    }
    if let Some(schema) =
        settings.remove("responseSchema").or_else(|| settings.remove("responseJsonSchema"))
    {
        settings.insert("responseJsonSchema".to_owned(), normalize_schema(&schema));
    }
    map.insert("generationConfig".to_owned(), config);
    body
}

fn normalize_part(part: &mut Value) {
    // A part with only a signature is a signed empty text.
    if part.as_object().is_some_and(|part| part.len() == 1 && part.contains_key("thoughtSignature"))
    {
        part["text"] = json!("");
    }
    if let Some(call) = part.get_mut("functionCall") {
        let args = call.get("args").cloned().unwrap_or(json!({}));
        call["args"] = args;
    }
    if let Some(response) = part.pointer_mut("/functionResponse/response") {
        let fields = response.as_object().expect("an object");
        let only = fields.values().next().filter(|_| fields.len() == 1);
        let json = || if fields.is_empty() { String::new() } else { response.to_string() };
        let text = only.and_then(Value::as_str).map_or_else(json, str::to_owned);
        let key =
            if fields.contains_key("error") && fields.len() == 1 { "error" } else { "output" };
        *response = json!({ key: text });
    }
}

#[test]
fn requests_round_trip() {
    for x in exchanges() {
        let body = Bytes::from(x.request.to_string());
        let request = Gemini.read_request(ChatEndpoint::Chat, &body).expect(&x.id);
        let level = x.request.pointer("/generationConfig/thinkingConfig/thinkingLevel").is_some()
            || x.request.to_string().contains(r#""parts":[{"file_data""#);
        let written = Gemini.write_request(
            &request,
            &traits(if level { Thinking::Effort } else { Thinking::Budget }),
        );
        let got: Value = serde_json::from_slice(&written.body).expect("json");
        assert_eq!(normalize(&got), normalize(&x.request), "{}", x.id);
        assert_eq!(written.losses, [], "{}", x.id);
    }
}

/// The meaning of a complete answer or of a stream of chunks.
#[derive(Debug, Default, PartialEq)]
struct Meaning {
    text: String,
    thought: String,
    calls: Vec<(String, Value)>,
    other: Vec<Value>,
    signatures: Vec<(String, String)>,
    finish: String,
    usage: [u64; 4],
}

fn meaning_of(chunks: &[Value]) -> Meaning {
    let mut m = Meaning::default();
    for chunk in chunks {
        assert_eq!(chunk.get("error"), None);
        if let Some(reason) = chunk.pointer("/promptFeedback/blockReason").and_then(Value::as_str) {
            m.finish = finish_name(&json!(reason));
        }
        let candidate = &chunk["candidates"][0];
        for part in to_list(&candidate["content"]["parts"]) {
            let text = part["text"].as_str().unwrap_or_default();
            let kind = if let Some(call) = part.get("functionCall") {
                m.calls.push((
                    call["name"].as_str().expect("a name").to_owned(),
                    call.get("args").cloned().unwrap_or(json!({})),
                ));
                "call"
            } else if part.get("text").is_none()
                && part
                    .as_object()
                    .is_some_and(|part| part.keys().any(|key| key != "thoughtSignature"))
            {
                m.other.push(part.clone());
                continue;
            } else if part["thought"] == true {
                m.thought.push_str(text);
                "thought"
            } else {
                m.text.push_str(text);
                "text"
            };
            if let Some(signature) = part["thoughtSignature"].as_str() {
                m.signatures.push((kind.to_owned(), signature.to_owned()));
            }
        }
        if !candidate["finishReason"].is_null() {
            m.finish = finish_name(&candidate["finishReason"]);
        }
        let usage = &chunk["usageMetadata"];
        let count = |key: &str| usage[key].as_u64().unwrap_or(0);
        if usage.to_string().contains("TokenCount") {
            m.usage = [
                count("promptTokenCount") + count("toolUsePromptTokenCount"),
                count("cachedContentTokenCount"),
                count("candidatesTokenCount"),
                count("thoughtsTokenCount"),
            ];
        }
    }
    m
}

fn finish_name(reason: &Value) -> String {
    match reason.as_u64() {
        Some(1) => "STOP".to_owned(),
        Some(n) => panic!("reason {n}"),
        None => reason
            .as_str()
            .map(|reason| if reason == "MODEL_ARMOR" { "SAFETY" } else { reason })
            .expect("a word")
            .to_owned(),
    }
}

/// The chunks of a recorded answer.
fn chunks(x: &RecordedExchange) -> Vec<Value> {
    if x.kind == "sse" {
        let mut splitter = sse::SseSplitter::default();
        let body = Bytes::from(x.response.clone());
        let mut at = 0;
        let mut out = Vec::new();
        while let crate::base::framing::splitter::NextFrame::Borrowed(span) =
            splitter.next(&body, &mut at)
        {
            out.extend(serde_json::from_slice::<Value>(&sse::read_event(&body[span]).data).ok());
        }
        out
    } else {
        to_list(&serde_json::from_str(&x.response).expect("json"))
    }
}

fn framing_of(x: &RecordedExchange) -> Framing {
    if x.kind == "sse" { Framing::Sse } else { Framing::JsonArray }
}

fn read_events(x: &RecordedExchange, cuts: &[usize]) -> Vec<ChatEvent> {
    let mut reading =
        EventDecoder::new(framing_of(x), Gemini.stream_reader(&attempt_context()), false);
    let (mut events, mut from) = (Vec::new(), 0);
    for &cut in cuts.iter().chain([&x.response.len()]) {
        let step =
            reading.feed(&Bytes::copy_from_slice(&x.response.as_bytes()[from..cut]), &mut events);
        assert_eq!(step.error, None, "{}", x.id);
        from = cut;
    }
    assert_eq!(reading.finish(&mut events).0, StreamEnd::Complete, "{}", x.id);
    validate::validate_events(&events).expect(&x.id);
    events
}

fn assemble(events: &[ChatEvent]) -> ChatResponse {
    let mut assembler = Assembler::default();
    events.iter().for_each(|event| assembler.feed(event));
    assembler.finish().expect("complete")
}

fn written_meaning(response: &ChatResponse) -> Meaning {
    meaning_of(&[serde_json::from_slice(
        &Gemini.write_response(response, &response_spec(Framing::Sse)),
    )
    .expect("json")])
}

#[test]
fn answers_have_the_same_meaning_after_a_round_trip() {
    for x in successful_exchanges().filter(|x| !x.streaming) {
        let body = x.response.as_bytes();
        let response =
            Gemini.read_response(&x.content_type, body, &attempt_context()).expect(&x.id);
        validate::validate_events(&crate::ir::assemble::to_events(&response)).expect(&x.id);
        assert_eq!(written_meaning(&response), meaning_of(&chunks(&x)), "{}", x.id);
    }
}

#[test]
fn streams_have_the_same_meaning_after_a_round_trip() {
    for x in successful_exchanges().filter(|x| x.streaming) {
        let events = read_events(&x, &[]);
        let want = meaning_of(&chunks(&x));
        assert_eq!(written_meaning(&assemble(&events)), want, "{}", x.id);
        for framing in [Framing::Sse, Framing::JsonArray] {
            let (mut writer, mut out) = (Gemini.stream_writer(&response_spec(framing)), Vec::new());
            for event in events.clone() {
                writer.write_event(event, &mut out);
            }
            let text = String::from_utf8(out).expect("text");
            let got: Vec<Value> = if framing == Framing::Sse {
                let data = |block: &str| {
                    serde_json::from_str(block.strip_prefix("data: ").expect("a data line"))
                        .expect("json")
                };
                text.strip_suffix("\n\n").expect("an end").split("\n\n").map(data).collect()
            } else {
                serde_json::from_str(&text).expect("an array")
            };
            assert_eq!(meaning_of(&got), want, "{}", x.id);
            assert!(
                got.iter()
                    .all(|chunk| chunk["modelVersion"] == "asked" && chunk["responseId"] == "id")
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn streams_decode_equally_at_any_cut(cuts in proptest::collection::vec(0.0..1.0_f64, 0..6)) {
        for x in successful_exchanges().filter(|x| x.streaming) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * x.response.len() as f64) as usize).collect();
            cuts.sort_unstable();
            prop_assert_eq!(read_events(&x, &cuts), read_events(&x, &[]));
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(text in "[\\[\\]{}\":,a-z0-9 ]{0,60}") {
        drop(Gemini.read_request(ChatEndpoint::Chat, text.as_bytes()));
        drop(Gemini.read_response("", text.as_bytes(), &attempt_context()));
        drop(Gemini.stream_reader(&attempt_context()).read_event(b"", text.as_bytes(), &mut Vec::new()));
    }
}
