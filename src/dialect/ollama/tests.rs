//! Checks the dialect against recordings and against its own rules.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::{
    base::json::raw::RawJson,
    dialect::{egress::Thinking, event_decoder::EventDecoder, losses::Loss, tests::recorded},
    ir::{
        assemble::{self, Assembler},
        block::{
            Block, BlockKind, CallKind, Media, MediaKind, MediaSource, Reasoning,
            ReasoningSignature, SignatureKind, ToolCall, ToolResult,
        },
        event::ChatEvent,
        fault::ProxyErrorKind,
        generation_settings::{Effort, ReasoningSettings},
        op::Dialect,
        request::{ChatMessage, Role},
        response::{Finish, FinishKind},
        tool::{FunctionTool, Tool, ToolChoice},
        usage::Usage,
        validate,
    },
};

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
        call_id_seed: "seed".to_owned(),
    }
}

fn shape(place: ChatEndpoint) -> ResponseSpec {
    ResponseSpec {
        endpoint: place,
        model: "asked".to_owned(),
        request_id: "r1".to_owned(),
        created: 1_735_689_600,
        framing: Framing::Ndjson,
        include_usage: true,
        custom_tools: Vec::new(),
        namespaced_tools: Vec::new(),
        client_tools: Vec::new(),
        compaction: false,
        echo: crate::ir::extras::Extras::default(),
    }
}

fn read_request(body: &Value) -> ChatRequest {
    Ollama.read_request(ChatEndpoint::Chat, body.to_string().as_bytes()).expect("a request")
}

fn write_request(request: &ChatRequest) -> (Value, Vec<String>) {
    let encoded = Ollama.write_request(request, &traits(Thinking::Budget));
    let losses = encoded.losses.into_iter().map(|Loss(name)| name.into_owned()).collect();
    (serde_json::from_slice(&encoded.body).expect("json"), losses)
}

/// Removes the parts of a request without meaning here: blank fields, positions, the model and
/// whether it streams.
fn normalize(mut body: Value) -> Value {
    fn is_blank(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        }
    }
    let root = body.as_object_mut().expect("an object");
    root.retain(|key, value| {
        !(matches!(&**key, "model" | "stream") || is_blank(value) || key == "raw" && value == false)
    });
    for message in root.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten() {
        let message = message.as_object_mut().expect("an object");
        message.retain(|_, value| !is_blank(value));
        if message.get("role") == Some(&json!("tool")) {
            message.remove("tool_name");
        }
    }
    body
}

#[test]
fn recorded_requests_round_trip() {
    for exchange in recorded::load_exchanges(&["ollama.chat"]) {
        let (got, losses) = write_request(&read_request(&exchange.request));
        assert_eq!(
            (normalize(got), losses),
            (normalize(exchange.request), Vec::new()),
            "{}",
            exchange.id
        );
    }
}

#[test]
fn request_with_every_field_round_trips() {
    let body = json!({
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "system", "content": "and kind"},
            {"role": "user", "content": "see", "images": ["iVBORw0KGgoAAA=="]},
            {"role": "assistant", "content": "so", "thinking": "hm", "tool_calls": [
                {"id": "c1", "function": {"name": "f", "arguments": {"a": 1.5}}},
                {"id": "c2", "function": {"name": "g", "arguments": {}}}]},
            {"role": "tool", "content": "2", "tool_call_id": "c2", "tool_name": "g"},
            {"role": "tool", "content": "1", "tool_call_id": "c1", "tool_name": "f"},
            {"role": "user", "content": "and?", "odd": {"x": 1}},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}}],
        "format": {"type": "object"},
        "options": {"num_predict": 5, "temperature": 0.5, "top_k": 3, "seed": 1, "stop": ["x"], "num_ctx": 8192, "repeat_penalty": 1.1},
        "think": "high",
        "keep_alive": "5m",
        "logprobs": true,
        "top_logprobs": 2,
    });

    let (got, losses) = write_request(&read_request(&body));

    assert_eq!((normalize(got), losses), (normalize(body), Vec::new()));
}

#[test]
fn results_without_ids_match_calls_by_name_then_by_order() {
    let request = read_request(&json!({"messages": [
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}, {"function": {"name": "g", "arguments": "{}"}}]},
        {"role": "tool", "content": "of g", "tool_name": "g"},
        {"role": "tool", "content": "of f"},
        {"role": "tool", "content": "of nobody"},
    ]}));

    let calls: Vec<&str> = request.messages[0]
        .blocks
        .iter()
        .filter_map(|b| if let BlockKind::ToolCall(c) = &b.kind { Some(&*c.id) } else { None })
        .collect();
    let results: Vec<&str> = request.messages[1]
        .blocks
        .iter()
        .filter_map(|b| if let BlockKind::ToolResult(r) = &b.kind { Some(&*r.call) } else { None })
        .collect();
    assert_eq!(calls, ["call_unnamed_1", "call_unnamed_2"]);
    assert_eq!(results, ["call_unnamed_2", "call_unnamed_1", "call_unnamed_3"]);
}

#[test]
fn generate_is_read_as_a_conversation() {
    let body = json!({"model": "m", "system": "s", "prompt": "p", "suffix": "after", "template": "", "context": [1, 2], "raw": false, "images": ["/9j/4AAQ"]});
    let request = Ollama
        .read_request(ChatEndpoint::Generate, body.to_string().as_bytes())
        .expect("a request");

    assert_eq!(request.system, [Block::text("s")]);
    assert!(request.stream);
    assert!(
        matches!(&request.messages[0].blocks[0].kind, BlockKind::Media(Media { mime: Some(mime), .. }) if mime == "image/jpeg")
    );
    assert_eq!(request.messages[0].blocks[1], Block::text("p"));
    assert_eq!(
        request.extras.iter().map(|(key, _)| key).collect::<Vec<_>>(),
        ["context", "suffix"]
    );
}

#[test]
fn invalid_request_is_refused_with_the_field() {
    for (body, param) in [
        ("[", None),
        ("[]", None),
        (r#"{"messages":"hi"}"#, Some("messages")),
        (r#"{"messages":["hi"]}"#, Some("messages")),
    ] {
        let error = Ollama.read_request(ChatEndpoint::Chat, body.as_bytes()).expect_err("refused");
        assert_eq!(
            (error.kind, error.param.as_deref()),
            (ProxyErrorKind::BadRequest, param),
            "{body}"
        );
    }
}

#[test]
fn conversation_of_another_dialect_is_written_with_its_losses() {
    let mut thought =
        Block::new(BlockKind::Reasoning(Reasoning { text: "hm".to_owned(), summary: false }));
    thought.signature = Some(ReasoningSignature {
        dialect: Dialect::Anthropic,
        kind: SignatureKind::Signature,
        value: "s".to_owned(),
        id: None,
    });
    let call = Block::new(BlockKind::ToolCall(ToolCall {
        id: "c".to_owned(),
        name: "f".to_owned(),
        arguments: "{\"a\":1}".to_owned(),
        form: CallKind::Function,
    }));
    let result = Block::new(BlockKind::ToolResult(ToolResult {
        call: "c".to_owned(),
        content: vec![Block::text("one"), Block::text("two")],
        is_error: true,
        ..ToolResult::default()
    }));
    let picture = |source| {
        Block::new(BlockKind::Media(Media {
            kind: MediaKind::Image,
            source,
            mime: None,
            name: None,
            detail: None,
        }))
    };
    let mut request = ChatRequest {
        system: vec![Block::text("a"), Block::text("b")],
        messages: vec![
            ChatMessage::new(Role::Assistant, vec![thought, Block::text("so"), call]),
            ChatMessage::new(Role::User, vec![Block::text("by the way"), result]),
            ChatMessage::new(
                Role::User,
                vec![
                    picture(MediaSource::Base64("_-8".to_owned())),
                    picture(MediaSource::Url("https://x/y.png".to_owned())),
                ],
            ),
        ],
        tools: vec![Tool::Function(FunctionTool {
            name: "f".to_owned(),
            strict: Some(true),
            ..FunctionTool::default()
        })],
        tool_choice: Some(ToolChoice::Required),
        ..ChatRequest::default()
    };
    request.settings.max_tokens = Some(9);
    request.settings.reasoning = Some(ReasoningSettings {
        enabled: Some(true),
        budget_tokens: Some(2000),
        ..ReasoningSettings::default()
    });
    request.extras.push(Dialect::Openai, "logit_bias", RawJson::from(1));

    let (got, losses) = write_request(&request);

    assert_eq!(
        got,
        json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": "a\n\nb"},
                {"role": "assistant", "content": "so", "thinking": "hm", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}]},
                {"role": "tool", "content": "one\n\ntwo", "tool_name": "f", "tool_call_id": "c"},
                {"role": "user", "content": "by the way"},
                {"role": "user", "content": "[image: https://x/y.png]", "images": ["/+8="]},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
            "stream": false,
            "think": true,
            "options": {"num_predict": 9},
        })
    );
    let want = [
        "tool_choice",
        "reasoning.proof",
        "messages.is_error",
        "messages.image_url",
        "tools.strict",
        "reasoning.budget_tokens",
        "logit_bias",
    ];
    assert_eq!(losses, want);
}

#[test]
fn thinking_is_requested_in_the_form_of_the_model() {
    let wish = |enabled, effort, budget| {
        Some(ReasoningSettings {
            enabled,
            effort,
            budget_tokens: budget,
            ..ReasoningSettings::default()
        })
    };
    for (thinking, reasoning, want) in [
        (Thinking::Budget, wish(Some(true), None, None), json!(true)),
        (Thinking::Budget, wish(None, Some(Effort::Minimal), None), json!("low")),
        (Thinking::Budget, wish(Some(false), None, None), json!(false)),
        (Thinking::Budget, wish(None, Some(Effort::None), None), json!(false)),
        (Thinking::Effort, wish(Some(true), None, Some(30_000)), json!("high")),
        (Thinking::Unsupported, wish(Some(true), None, None), Value::Null),
        (Thinking::Effort, wish(None, None, None), Value::Null),
        (Thinking::Effort, None, Value::Null),
    ] {
        let mut request = ChatRequest::default();
        request.settings.reasoning = reasoning.clone();
        let body: Value =
            serde_json::from_slice(&Ollama.write_request(&request, &traits(thinking)).body)
                .expect("json");
        assert_eq!(body["think"], want, "{thinking:?} {reasoning:?}");
    }
}

fn assemble(events: &[ChatEvent]) -> Option<ChatResponse> {
    let mut assembler = Assembler::default();
    events.iter().for_each(|event| assembler.feed(event));
    assembler.finish()
}

/// Returns the meaning of an answer: text, thinking, calls, finish, usage.
fn summarize(
    response: &ChatResponse,
) -> (String, String, Vec<(String, Value)>, FinishKind, Option<Usage>) {
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    for block in &response.blocks {
        match &block.kind {
            BlockKind::Text(it) => text.push_str(&it.text),
            BlockKind::Reasoning(it) => thinking.push_str(&it.text),
            BlockKind::ToolCall(it) => calls
                .push((it.name.clone(), serde_json::from_str(&it.arguments).unwrap_or_default())),
            _ => {}
        }
    }
    (text, thinking, calls, response.finish.kind, response.usage)
}

fn write_stream(events: Vec<ChatEvent>, place: ChatEndpoint) -> Vec<u8> {
    let (mut writer, mut out) = (Ollama.stream_writer(&shape(place)), Vec::new());
    events.into_iter().for_each(|event| writer.write_event(event, &mut out));
    out
}

fn read_stream(body: &[u8], cut: usize) -> Vec<ChatEvent> {
    let mut reading =
        EventDecoder::new(Framing::Ndjson, Ollama.stream_reader(&AttemptContext::default()), false);
    let mut events = Vec::new();
    for part in body.chunks(cut.max(1)) {
        let step = reading.feed(&Bytes::copy_from_slice(part), &mut events);
        assert_eq!(step.error, None);
    }
    reading.finish(&mut events);
    validate::validate_events(&events).expect("well formed");
    events
}

#[test]
fn recorded_answers_round_trip_buffered_and_at_any_cut() {
    for exchange in recorded::load_exchanges(&["ollama.chat", "ollama.generate"]) {
        let place = if exchange.api == "ollama.generate" {
            ChatEndpoint::Generate
        } else {
            ChatEndpoint::Chat
        };
        let response = if exchange.streaming {
            let events = read_stream(exchange.response.as_bytes(), 7);
            for cut in [1, 2, 64, 1 << 20] {
                assert_eq!(
                    read_stream(exchange.response.as_bytes(), cut),
                    events,
                    "{}",
                    exchange.id
                );
            }
            assemble(&events).expect("complete")
        } else {
            Ollama
                .read_response(
                    "application/json",
                    exchange.response.as_bytes(),
                    &AttemptContext::default(),
                )
                .expect("an answer")
        };
        let last: Value =
            serde_json::from_str(exchange.response.trim().lines().last().expect("a line"))
                .expect("json");
        assert_eq!(
            response.usage.map(|u| u.output),
            last["eval_count"].as_u64(),
            "{}",
            exchange.id
        );
        assert!(!summarize(&response).0.is_empty());

        let whole = Ollama.write_response(&response, &shape(place));
        let again =
            Ollama.read_response("", &whole, &AttemptContext::default()).expect("an answer");
        assert_eq!(
            (summarize(&again), again.created),
            (summarize(&response), response.created),
            "{}",
            exchange.id
        );
        // Fields that only Ollama's server knows (its durations) survive in a whole answer.
        let fields = |response: &ChatResponse| {
            let mut all: Vec<_> = response
                .extras
                .iter()
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        assert!(exchange.streaming || fields(&again) == fields(&response), "{}", exchange.id);

        let lines = write_stream(assemble::to_events(&response), place);
        let again = assemble(&read_stream(&lines, 9)).expect("complete");
        assert_eq!(summarize(&again), summarize(&response), "{}", exchange.id);
    }
}

#[test]
fn calls_thoughts_images_and_probabilities_are_written() {
    let usage = Usage { input: 3, cache_read: 2, output: 4, reasoning: 1, ..Usage::default() };
    let call = |id: &str, arguments: &str| {
        Block::new(BlockKind::ToolCall(ToolCall {
            id: id.to_owned(),
            name: "f".to_owned(),
            arguments: arguments.to_owned(),
            form: CallKind::Function,
        }))
    };
    let picture = Media {
        kind: MediaKind::Image,
        source: MediaSource::Base64("iVBORw0KGgo=".to_owned()),
        mime: Some("image/png".to_owned()),
        name: None,
        detail: None,
    };
    let response = ChatResponse {
        model: "m".to_owned(),
        created: Some(0),
        blocks: vec![
            Block::new(BlockKind::Reasoning(Reasoning { text: "hm".to_owned(), summary: true })),
            Block::text("so"),
            Block::new(BlockKind::Media(picture)),
            call("a", "{\"x\":\n 1}"),
            call("b", ""),
        ],
        finish: Finish { kind: FinishKind::ToolCalls, raw_reason: None, stop_sequence: None },
        usage: Some(usage),
        logprobs: RawJson::parse(r#"[{"token":"so","logprob":-0.1,"top_logprobs":[]}]"#),
        ..ChatResponse::default()
    };

    let lines = String::from_utf8(write_stream(assemble::to_events(&response), ChatEndpoint::Chat))
        .expect("text");

    let head = r#"{"model":"asked","created_at":"1970-01-01T00:00:00Z","message":{"role":"assistant","content":"#;
    let want = [
        r#""","thinking":"hm"},"done":false}"#,
        r#""so"},"done":false}"#,
        r#"""},"logprobs":[{"token":"so","logprob":-0.1,"top_logprobs":[]}],"done":false}"#,
        r#""","images":["iVBORw0KGgo="]},"done":false}"#,
        r#""","tool_calls":[{"id":"a","function":{"index":0,"name":"f","arguments":{"x":  1}}}]},"done":false}"#,
        r#""","tool_calls":[{"id":"b","function":{"index":1,"name":"f","arguments":{}}}]},"done":false}"#,
        r#"""},"done":true,"done_reason":"stop","total_duration":1,"load_duration":1,"prompt_eval_duration":1,"eval_duration":1,"prompt_eval_count":5,"eval_count":5}"#,
    ];
    assert_eq!(lines, want.map(|rest| format!("{head}{rest}\n")).concat());
    let again = assemble(&read_stream(lines.as_bytes(), 5)).expect("complete");
    assert_eq!(
        (summarize(&again).2.len(), again.finish.kind, again.logprobs),
        (2, FinishKind::ToolCalls, response.logprobs.clone())
    );
    let whole = Ollama
        .read_response(
            "",
            &Ollama.write_response(&response, &shape(ChatEndpoint::Chat)),
            &AttemptContext::default(),
        )
        .expect("an answer");
    assert_eq!(whole.blocks.len(), 5);
}

#[test]
fn invalid_lines_are_faults_and_a_cut_stream_is_incomplete() {
    for (line, words) in [
        ("{\"error\":\"model broke\"}", "model broke"),
        ("nonsense", "bad stream event 1"),
        ("[1]", "bad stream event 1"),
    ] {
        let fault = Ollama
            .stream_reader(&AttemptContext::default())
            .read_event(b"", line.as_bytes(), &mut Vec::new())
            .expect_err("a fault");
        assert!(fault.message.contains(words), "{}", fault.message);
    }
    let mut reader = Ollama.stream_reader(&AttemptContext::default());
    let mut events = Vec::new();
    for line in [
        r#"{}"#,
        r#"{"message":null,"done":"no"}"#,
        r#"{"message":{"content":7,"tool_calls":[{},{"function":{"name":"f","arguments":"{}"}}]}}"#,
    ] {
        reader.read_event(b"", line.as_bytes(), &mut events).expect("tolerated");
    }
    assert!(!reader.read_eof(&mut events));
    reader
        .read_event(b"", br#"{"done":true,"done_reason":"length"}"#, &mut events)
        .expect("the end");
    validate::validate_events(&events).expect("well formed");
    assert!(matches!(
        events.last(),
        Some(ChatEvent::End { finish: Finish { kind: FinishKind::Length, .. }, usage: None, .. })
    ));
}

#[test]
fn errors_are_one_line_with_the_message() {
    let error = ProxyError::new(ProxyErrorKind::ModelNotFound, "model \"x\" not found");
    assert_eq!(
        Ollama.write_error(&error, "r"),
        (StatusCode::NOT_FOUND, Bytes::from_static(br#"{"error":"model \"x\" not found"}"#))
    );
    assert_eq!(
        Ollama.stream_error(&error, "r", Framing::Ndjson),
        "{\"error\":\"model \\\"x\\\" not found\"}\n"
    );
    let mut out = Vec::new();
    Ollama.stream_writer(&shape(ChatEndpoint::Chat)).write_error(&error, "r", &mut out);
    assert_eq!(out, Ollama.stream_error(&error, "r", Framing::Ndjson));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(text in "[{}\\[\\]\",:a-z0-9 ]{0,60}") {
        let _read = Ollama.read_request(ChatEndpoint::Chat, text.as_bytes());
        let _read = Ollama.stream_reader(&AttemptContext::default()).read_event(b"", text.as_bytes(), &mut Vec::new());
    }

    #[test]
    fn unusual_messages_are_read_without_panic(role in "[a-z]{0,9}", content in "(\"x\"|7|null|\\[\\{\"text\":\"y\"\\}\\]|\\{\\})", calls in "(null|7|\\[7\\]|\\[\\{\"function\":7\\}\\])") {
        let body = format!(r#"{{"messages":[{{"role":"{role}","content":{content},"tool_calls":{calls}}}]}}"#);
        let request = Ollama.read_request(ChatEndpoint::Chat, body.as_bytes()).expect("lenient");
        let _body = Ollama.write_request(&request, &traits(Thinking::Effort));
    }
}
