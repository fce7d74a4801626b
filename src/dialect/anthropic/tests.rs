//! Whole exchanges: recordings of this dialect come back as they were, foreign conversations become ones that it takes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Anthropic, UNSIGNED, answer};
use crate::{
    base::raw::Raw,
    dialect::{
        Carry, Egress, Framing, Ingress, Place, Shape, Thinking, Traits,
        recorded::{self, Exchange},
        translate::Reading,
    },
    ir::{
        assemble::Assembler,
        block::{
            Block, BlockKind, CacheMark, CallForm, Citation, Media, MediaKind, Proof, ProofKind, Reasoning, Source, Text, ToolCall,
            ToolResult,
        },
        event::ChatEvent,
        extras::Extras,
        fault::{ClientError, ErrorKind},
        grammar,
        op::Dialect,
        request::{ChatRequest, Message, Role},
        response::{ChatResponse, Finish, FinishKind},
        settings::{Effort, Format, ReasoningWish, Settings},
        tool::{FunctionTool, Hosted, HostedTool, Tool, ToolChoice},
        usage::Usage,
    },
};

fn exchanges() -> Vec<Exchange> {
    recorded::of(&["anthropic.messages", "vertex.anthropic"])
}

fn traits(thinking: Thinking) -> Traits {
    Traits {
        model: "m".to_owned(),
        stream: false,
        max_output: None,
        thinking,
        limit_field: "max_tokens",
        developer_role: false,
        takes_reasoning: false,
        seed: "s".to_owned(),
    }
}

fn shape() -> Shape {
    Shape {
        place: Place::Main,
        model: "m".to_owned(),
        id: "1".to_owned(),
        now: 0,
        framing: Framing::Sse,
        usage: false,
        custom: Vec::new(),
        namespaced: Vec::new(),
        echo: Extras::default(),
    }
}

fn written(request: &ChatRequest, thinking: Thinking) -> (Value, Vec<String>) {
    let encoded = Anthropic.write_request(request, &traits(thinking));
    let losses = encoded.losses.iter().map(|loss| loss.0.clone().into_owned()).collect();
    (serde_json::from_slice(&encoded.body).expect("json"), losses)
}

/// Makes equal what means the same: text content and one text block, null and absent, defaults told and not.
fn normal(value: &Value) -> Value {
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
            let told = |key: &str, value: &Value| match key {
                "is_error" | "strict" => *value != json!(false),
                "citations" => *value != json!([]),
                "type" => *value != json!("custom"),
                _ => !value.is_null(),
            };
            Value::Object(object.iter().filter(|(key, value)| told(key, value)).map(|(key, value)| (key.clone(), normal(value))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(normal).collect()),
        other => other.clone(),
    }
}

#[test]
fn recorded_requests_come_back_whole_and_nothing_is_lost() {
    for exchange in exchanges() {
        let mut want = exchange.request.clone();
        let object = want.as_object_mut().expect("an object");
        for key in ["model", "stream"] {
            object.remove(key);
        }
        if let Some(format) = object.remove("output_format") {
            object.insert("output_config".to_owned(), json!({ "format": format }));
        }
        // An effort alone asks a model that is told by effort to think.
        let effort = want.pointer("/output_config/effort").is_some();
        if effort && want.get("thinking").is_none() {
            want["thinking"] = json!({ "type": "adaptive" });
        }
        let adaptive = effort || want.pointer("/thinking/type") == Some(&json!("adaptive"));
        let thinking = if adaptive { Thinking::Effort } else { Thinking::Budget };

        let request = Anthropic.read_request(Place::Main, exchange.request.to_string().as_bytes()).expect("a request");
        let (mut got, losses) = written(&request, thinking);

        got.as_object_mut().expect("an object").remove("model");
        assert_eq!(normal(&got), normal(&want), "{}", exchange.id);
        assert_eq!(losses, Vec::<String>::new(), "{}", exchange.id);
    }
}

/// Everything in the recording that is not null stands in the answer.
fn holds(got: &Value, want: &Value, at: &str) {
    match (got, want) {
        (_, Value::Null) => {}
        (Value::Object(got), Value::Object(want)) => {
            for (key, want) in want.iter().filter(|(key, _)| !matches!(key.as_str(), "id" | "model") || at.len() > 1) {
                if !(want.is_null() || want == &json!([]) && key == "citations") {
                    holds(got.get(key).unwrap_or(&Value::Null), want, &format!("{at}.{key}"));
                }
            }
        }
        (Value::Array(got), Value::Array(want)) => {
            assert_eq!(got.len(), want.len(), "{at}");
            got.iter().zip(want).for_each(|(got, want)| holds(got, want, &format!("{at}[]")));
        }
        _ => assert_eq!(got, want, "{at}"),
    }
}

#[test]
fn recorded_answers_come_back_whole() {
    for exchange in exchanges().into_iter().filter(|it| it.status == 200 && it.kind == "json") {
        let response = Anthropic.read_response(&exchange.content_type, exchange.response.as_bytes(), &Carry::default()).expect("an answer");

        let got: Value = serde_json::from_slice(&Anthropic.write_response(&response, &shape())).expect("json");

        let mut want: Value = serde_json::from_str(&exchange.response).expect("json");
        // An empty text says nothing, and clients may not send it back.
        want["content"].as_array_mut().expect("a list").retain(|block| block["text"] != "");
        holds(&got, &want, &exchange.id[..1]);
        assert_eq!((&got["id"], &got["model"]), (&json!("msg_1"), &json!("m")));
    }
}

fn told(body: &str, cuts: &[usize]) -> Vec<ChatEvent> {
    let mut reading = Reading::new(Framing::Sse, Anthropic.stream_reader(&Carry::default()), false);
    let mut said = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        let step = reading.feed(&bytes::Bytes::copy_from_slice(&body.as_bytes()[pair[0]..pair[1]]), &mut said);
        assert_eq!(step.error, None);
    }
    drop(reading.end(&mut said));
    said
}

fn framed(body: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let body = body.replace("\r\n", "\n");
    let data = |event: &str| event.lines().find_map(|line| line.strip_prefix("data:")).map(|data| data.trim().as_bytes().to_vec());
    body.split("\n\n").filter_map(data).map(|data| (Vec::new(), data)).collect()
}

/// What the stream says when it is put together another way.
fn put_together(body: &str) -> Option<Value> {
    let body = answer::as_answer(&framed(body)).ok()?;
    serde_json::from_slice(&body).ok()
}

fn client_stream(events: &[ChatEvent]) -> String {
    let (mut writer, mut out) = (Anthropic.stream_writer(&shape()), Vec::new());
    for event in events {
        writer.event(event.clone(), &mut out);
    }
    String::from_utf8(out).expect("text")
}

#[test]
fn recorded_streams_say_the_same_when_read_written_and_read_again() {
    let streams: Vec<Exchange> = exchanges().into_iter().filter(|it| it.status == 200 && it.kind == "sse").collect();
    for exchange in &streams {
        let events = told(&exchange.response, &[]);
        grammar::check(&events).expect("well formed");
        let Some(want) = put_together(&exchange.response) else {
            assert!(!matches!(events.last(), Some(ChatEvent::End { .. })), "{}", exchange.id);
            continue;
        };
        let whole = Anthropic.read_response("", want.to_string().as_bytes(), &Carry::default()).expect("an answer");
        let mut assembler = Assembler::default();
        events.iter().for_each(|event| assembler.feed(event));
        let assembled = assembler.finish().expect("complete");
        let shown = |response: &ChatResponse| -> Value {
            let plain = ChatResponse { extras: Extras::default(), ..response.clone() };
            normal(&serde_json::from_slice(&Anthropic.write_response(&plain, &shape())).expect("json"))
        };
        // Deltas of a block may not tell what stood beside its content.
        let bare = |mut value: Value| {
            for block in value["content"].as_array_mut().expect("a list") {
                block.as_object_mut().expect("a block").remove("caller");
            }
            value
        };
        assert_eq!(bare(shown(&assembled)), bare(shown(&whole)), "{}", exchange.id);

        let again = put_together(&client_stream(&events)).expect("a whole stream");
        let again = Anthropic.read_response("", again.to_string().as_bytes(), &Carry::default()).expect("an answer");
        let known = |mut value: Value| {
            // The end of a stream has no place for them.
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
    fn any_cut_of_a_stream_tells_the_same(cuts in prop::collection::vec(any::<usize>(), 0..12)) {
        for exchange in exchanges().iter().filter(|it| it.status == 200 && it.kind == "sse") {
            let events = told(&exchange.response, &cuts);
            prop_assert_eq!(grammar::check(&events), Ok(()));
            prop_assert_eq!(events, told(&exchange.response, &[]));
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\",:a-z0-9 ]{0,80}") {
        for body in [body.as_slice(), text.as_bytes()] {
            drop(Anthropic.read_request(Place::Main, body));
            drop(Anthropic.read_response("", body, &Carry::default()));
            drop(Anthropic.stream_reader(&Carry::default()).event(b"", body, &mut Vec::new()));
        }
    }
}

#[test]
fn events_of_odd_vendors_are_well_formed_answers() {
    for (events, text, calls, finish) in [
        // Nothing opened, no numbers, no stop, no end of the message.
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
        // Input whole at the start, ids missing, the same number twice.
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
        (vec![r#"{"type":"message_stop"}"#], "", vec![], FinishKind::Stop),
        // Interleaved, with unknown events and a text where a call was.
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
        let carry = Carry { seed: "s".to_owned(), ..Carry::default() };
        let (mut reader, mut said) = (Anthropic.stream_reader(&carry), Vec::new());
        for event in &events {
            reader.event(b"", event.as_bytes(), &mut said).expect("an event");
        }
        assert!(reader.end(&mut said), "{events:?}");
        grammar::check(&said).expect("well formed");
        let mut assembler = Assembler::default();
        said.iter().for_each(|event| assembler.feed(event));
        let response = assembler.finish().expect("complete");
        let mut got = (String::new(), Vec::new());
        for block in &response.blocks {
            match &block.kind {
                BlockKind::Text(it) => got.0.push_str(&it.text),
                BlockKind::ToolCall(it) => got.1.push((it.id.as_str(), it.name.as_str(), it.arguments.as_str())),
                _ => {}
            }
        }
        assert_eq!((got.0.as_str(), got.1, response.finish.kind), (text, calls, finish), "{events:?}");
        let stream = client_stream(&said);
        assert!(stream.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"), "{stream}");
    }
}

#[test]
fn an_error_in_a_stream_is_a_fault_and_a_cut_stream_has_no_end() {
    let (mut reader, mut said) = (Anthropic.stream_reader(&Carry::default()), Vec::new());
    reader.event(b"", br#"{"type":"message_start","message":{"model":"m"}}"#, &mut said).expect("an event");
    let fault = reader.event(b"error", br#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, &mut said);
    assert_eq!(fault.expect_err("an error").status, 529);
    assert!(!reader.end(&mut said));

    let (mut writer, mut out) = (Anthropic.stream_writer(&shape()), Vec::new());
    writer.error(&ClientError::new(ErrorKind::Overloaded, "m"), "r", &mut out);
    assert!(out.starts_with(b"event: error\n"));
}

fn call(id: &str, name: &str, arguments: &str) -> Block {
    Block::new(BlockKind::ToolCall(ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        form: CallForm::Function,
    }))
}

fn result(call: &str, text: &str) -> Block {
    Block::new(BlockKind::ToolResult(ToolResult { call: call.to_owned(), content: vec![Block::text(text)], ..ToolResult::default() }))
}

fn user(blocks: Vec<Block>) -> Message {
    Message::new(Role::User, blocks)
}

fn assistant(blocks: Vec<Block>) -> Message {
    Message::new(Role::Assistant, blocks)
}

#[test]
fn tool_results_stand_right_after_their_calls_whatever_the_client_did() {
    let request = ChatRequest {
        messages: vec![
            assistant(vec![Block::text("hello")]),
            user(vec![Block::text("go"), Block::text(" ")]),
            assistant(vec![call("a:1", "f.g", "{\"x\":1}"), call("b", "f.g", "not json"), call("c", "h", "")]),
            Message::new(Role::System, vec![Block::text("be brief")]),
            user(vec![Block::text("and?"), result("b", "two")]),
            user(vec![result("a:1", "one"), result("gone", "three")]),
            assistant(vec![Block::text("done \n")]),
        ],
        ..ChatRequest::default()
    };

    let (body, losses) = written(&request, Thinking::Never);

    assert_eq!(
        body["messages"],
        json!([
            { "role": "user", "content": "…" },
            { "role": "assistant", "content": "hello" },
            { "role": "user", "content": "go" },
            { "role": "assistant", "content": [
                { "type": "tool_use", "id": "a_1", "name": "f_g", "input": { "x": 1 } },
                { "type": "tool_use", "id": "b", "name": "f_g", "input": { "arguments": "not json" } },
                { "type": "tool_use", "id": "c", "name": "h", "input": {} },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "b", "content": "two" },
                { "type": "tool_result", "tool_use_id": "a_1", "content": "one" },
                { "type": "tool_result", "tool_use_id": "c", "content": "No result was given for this call.", "is_error": true },
                { "type": "text", "text": "<system-message>\nbe brief\n</system-message>" },
                { "type": "text", "text": "and?" },
                { "type": "text", "text": "<tool-result>\nResult, a call before this conversation:\nthree\n</tool-result>" },
            ] },
            { "role": "assistant", "content": "done" },
        ])
    );
    assert_eq!((losses, &body["max_tokens"]), (vec![], &json!(8192)));
}

#[test]
fn images_in_results_and_breakpoints_everywhere_arrive() {
    let mark = || Some(CacheMark { raw: Raw::parse(r#"{"type":"ephemeral"}"#).expect("json") });
    let image = Block::new(BlockKind::Media(Media {
        kind: MediaKind::Image,
        source: Source::Base64("iVBORw0".to_owned()),
        mime: None,
        name: None,
        detail: None,
    }));
    let mut answered = result("a", "see");
    if let BlockKind::ToolResult(result) = &mut answered.kind {
        result.content.push(image);
        result.is_error = true;
    }
    answered.cache = mark();
    let request = ChatRequest {
        system: vec![Block { cache: mark(), ..Block::text("s") }],
        messages: vec![
            user(vec![Block { cache: mark(), ..Block::text("u") }]),
            assistant(vec![call("a", "f", "{}")]),
            user(vec![answered, Block { cache: mark(), ..Block::text("") }]),
        ],
        tools: vec![Tool::Function(FunctionTool { name: "f".to_owned(), cache: mark(), ..FunctionTool::default() })],
        ..ChatRequest::default()
    };

    let (body, _) = written(&request, Thinking::Never);

    let mark = json!({ "type": "ephemeral" });
    assert_eq!(body["system"], json!([{ "type": "text", "text": "s", "cache_control": mark }]));
    assert_eq!(body["messages"][0]["content"], json!([{ "type": "text", "text": "u", "cache_control": mark }]));
    assert_eq!(
        body["messages"][2]["content"],
        json!([{ "type": "tool_result", "tool_use_id": "a", "is_error": true, "cache_control": mark, "content": [
            { "type": "text", "text": "see" },
            { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "iVBORw0" } },
        ] }])
    );
    assert_eq!(body["tools"], json!([{ "name": "f", "input_schema": { "type": "object", "properties": {} }, "cache_control": mark }]));
}

fn thought(text: &str, dialect: Dialect, kind: ProofKind) -> Block {
    let proof = Some(Proof { dialect, kind, value: "sig".to_owned(), id: None });
    Block { proof, ..Block::new(BlockKind::Reasoning(Reasoning { text: text.to_owned(), summary: false })) }
}

#[test]
fn only_thoughts_that_this_dialect_signed_are_sent_back() {
    let messages = vec![
        user(vec![Block::text("q")]),
        assistant(vec![
            thought("mine", Dialect::Anthropic, ProofKind::Signature),
            thought("", Dialect::Anthropic, ProofKind::Redacted),
            thought("theirs", Dialect::Responses, ProofKind::Encrypted),
            call("a", "f", "{}"),
        ]),
        user(vec![result("a", "r")]),
    ];
    let wish = Some(ReasoningWish { effort: Some(Effort::Low), ..ReasoningWish::default() });
    let request = ChatRequest { messages, settings: Settings { reasoning: wish, ..Settings::default() }, ..ChatRequest::default() };

    let (body, losses) = written(&request, Thinking::Budget);

    assert_eq!(
        body["messages"][1]["content"],
        json!([
            { "type": "thinking", "thinking": "mine", "signature": "sig" },
            { "type": "redacted_thinking", "data": "sig" },
            { "type": "tool_use", "id": "a", "name": "f", "input": {} },
        ])
    );
    assert_eq!(body["thinking"], json!({ "type": "enabled", "budget_tokens": 2048 }));
    assert_eq!(losses, ["reasoning.proof", "reasoning"]);

    // Without its thought at the front the turn could not go on thinking within a budget; by effort it can.
    let mut unsigned = request;
    unsigned.messages[1].blocks.drain(..2);
    assert_eq!(written(&unsigned, Thinking::Budget).0.get("thinking"), None);
    assert_eq!(written(&unsigned, Thinking::Effort).0["thinking"], json!({ "type": "adaptive" }));
}

#[test]
fn unsigned_thoughts_keep_their_mark_and_lose_it_on_the_way_back() {
    let response = ChatResponse {
        blocks: vec![Block::new(BlockKind::Reasoning(Reasoning { text: "hm".to_owned(), summary: true })), Block::text("x")],
        ..ChatResponse::default()
    };

    let whole: Value = serde_json::from_slice(&Anthropic.write_response(&response, &shape())).expect("json");
    let streamed = put_together(&client_stream(&crate::ir::assemble::events(&response))).expect("whole");

    assert_eq!(whole["content"], json!([{ "type": "thinking", "thinking": "hm", "signature": UNSIGNED }, { "type": "text", "text": "x" }]));
    assert_eq!(streamed["content"], whole["content"]);
    let body = json!({ "messages": [{ "role": "assistant", "content": whole["content"] }] }).to_string();
    let request = Anthropic.read_request(Place::Main, body.as_bytes()).expect("a request");
    assert_eq!(request.messages[0].blocks[0].proof, None);
    assert!(matches!(&request.messages[0].blocks[0].kind, BlockKind::Reasoning(it) if it.text == "hm"));
}

#[test]
fn answers_of_others_are_told_in_full() {
    let citation = Citation { url: Some("https://x".to_owned()), title: Some("X".to_owned()), ..Citation::default() };
    let mut custom = call("c", "patch", "a \"b\"");
    if let BlockKind::ToolCall(call) = &mut custom.kind {
        call.form = CallForm::Custom;
    }
    let response = ChatResponse {
        blocks: vec![
            Block::new(BlockKind::Reasoning(Reasoning::default())),
            Block::new(BlockKind::Text(Text { text: "t".to_owned(), citations: vec![citation] })),
            call("a", "f", "{\"x\": 1.0}"),
            call("b", "g", ""),
            call("d", "g", "\"{\\\"y\\\":2}\""),
            custom,
            Block::new(BlockKind::Foreign { dialect: Dialect::Gemini, body: Raw::parse("{}").expect("json") }),
        ],
        finish: Finish { kind: FinishKind::ToolCalls, ..Finish::default() },
        usage: Some(Usage { input: 5, cache_read: 3, cache_write_5m: 2, cache_write_1h: 1, output: 7, reasoning: 4 }),
        service_tier: Some("default".to_owned()),
        ..ChatResponse::default()
    };

    let whole: Value = serde_json::from_slice(&Anthropic.write_response(&response, &shape())).expect("json");
    let mut streamed = put_together(&client_stream(&crate::ir::assemble::events(&response))).expect("whole");

    let want = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [
            { "type": "text", "text": "t", "citations": [
                { "type": "web_search_result_location", "url": "https://x", "title": "X", "cited_text": "", "encrypted_index": "" },
            ] },
            { "type": "tool_use", "id": "a", "name": "f", "input": { "x": 1.0 } },
            { "type": "tool_use", "id": "b", "name": "g", "input": {} },
            { "type": "tool_use", "id": "d", "name": "g", "input": { "y": 2 } },
            { "type": "tool_use", "id": "c", "name": "patch", "input": { "input": "a \"b\"" } },
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {
            "input_tokens": 5, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 3,
            "cache_creation": { "ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 1 },
            "output_tokens": 11, "output_tokens_details": { "thinking_tokens": 4 }, "service_tier": "standard",
        },
    });
    assert_eq!(whole, want);
    streamed["usage"]["service_tier"] = json!("standard");
    assert_eq!(streamed, want);
}

#[test]
fn finishes_have_this_dialect_s_words() {
    let refusal = Block::new(BlockKind::Refusal("no".to_owned()));
    for (blocks, kind, said, sequence, want) in [
        (vec![], FinishKind::Stop, None, None, json!(["end_turn", null])),
        (vec![], FinishKind::Stop, None, Some("x"), json!(["stop_sequence", "x"])),
        (vec![refusal], FinishKind::Stop, None, None, json!(["refusal", null])),
        (vec![], FinishKind::Filter, None, None, json!(["refusal", null])),
        (vec![], FinishKind::Length, Some("length"), None, json!(["max_tokens", null])),
        (vec![], FinishKind::Length, Some("model_context_window_exceeded"), None, json!(["model_context_window_exceeded", null])),
        (vec![], FinishKind::Pause, None, None, json!(["pause_turn", null])),
    ] {
        let finish = Finish { kind, said: said.map(str::to_owned), sequence: sequence.map(str::to_owned) };
        let response = ChatResponse { blocks, finish, ..ChatResponse::default() };
        let whole: Value = serde_json::from_slice(&Anthropic.write_response(&response, &shape())).expect("json");
        let streamed = put_together(&client_stream(&crate::ir::assemble::events(&response))).expect("whole");
        for answer in [&whole, &streamed] {
            assert_eq!(json!([answer["stop_reason"], answer["stop_sequence"]]), want);
            assert_eq!(answer["usage"]["input_tokens"], json!(0));
        }
    }
}

#[test]
fn settings_of_others_are_said_or_named_as_lost() {
    let raw = |text: &str| Raw::parse(text);
    let mut extras = Extras::default();
    extras.push(Dialect::Openai, "store", Raw::from(true));
    let schema = raw(r#"{"type":"object","properties":{"n":{"type":"integer","minimum":1}}}"#).expect("json");
    let request = ChatRequest {
        system: vec![Block::text("s")],
        messages: vec![user(vec![Block::text("q")])],
        tools: vec![
            Tool::Function(FunctionTool {
                name: "f".to_owned(),
                schema: Some(schema.clone()),
                strict: Some(true),
                ..FunctionTool::default()
            }),
            Tool::Hosted(HostedTool {
                kind: Hosted::WebSearch,
                dialect: Dialect::Responses,
                body: raw(
                    r#"{"type":"web_search","filters":{"allowed_domains":["a.b"]},"user_location":{"type":"approximate","city":"C"}}"#,
                )
                .expect("json"),
            }),
            Tool::Hosted(HostedTool {
                kind: Hosted::Other,
                dialect: Dialect::Responses,
                body: raw(r#"{"type":"file_search"}"#).expect("json"),
            }),
        ],
        tool_choice: Some(ToolChoice::Required),
        settings: Settings {
            max_tokens: Some(100),
            temperature: raw("1.5"),
            top_p: raw("1"),
            frequency_penalty: raw("0"),
            presence_penalty: raw("0.5"),
            stop: vec!["X".to_owned(), "\n".to_owned()],
            seed: raw("7"),
            n: Some(2),
            format: Some(Format::Schema { name: Some("N".to_owned()), description: None, schema, strict: Some(true) }),
            service_tier: Some("flex".to_owned()),
            user: Some("u".to_owned()),
            parallel_tools: Some(false),
            ..Settings::default()
        },
        extras,
        ..ChatRequest::default()
    };

    let (body, mut losses) = written(&request, Thinking::Never);

    let closed = json!({
        "type": "object", "additionalProperties": false, "properties": { "n": { "type": "integer", "description": "(minimum: 1)" } },
    });
    let mut format = closed.clone();
    format["title"] = json!("N");
    assert_eq!(
        body,
        json!({
            "model": "m", "max_tokens": 100, "system": "s", "messages": [{ "role": "user", "content": "q" }],
            "tools": [
                { "name": "f", "input_schema": closed, "strict": true },
                { "type": "web_search_20250305", "name": "web_search", "allowed_domains": ["a.b"],
                  "user_location": { "type": "approximate", "city": "C" } },
            ],
            "tool_choice": { "type": "any", "disable_parallel_tool_use": true },
            "temperature": 1, "stop_sequences": ["X"], "metadata": { "user_id": "u" },
            "output_config": { "format": { "type": "json_schema", "schema": format } },
        })
    );
    losses.sort();
    assert_eq!(
        losses,
        [
            "n",
            "presence_penalty",
            "response_format.schema",
            "seed",
            "service_tier",
            "stop",
            "store",
            "temperature",
            "tools.file_search",
            "tools.schema",
        ]
    );
}

#[test]
fn a_thinking_model_is_not_forced_and_gets_no_sampling() {
    let settings = Settings {
        temperature: Raw::parse("0.2"),
        top_k: Raw::parse("5"),
        top_p: Raw::parse("0.97"),
        reasoning: Some(ReasoningWish { effort: Some(Effort::High), ..ReasoningWish::default() }),
        format: Some(Format::Json),
        ..Settings::default()
    };
    let tools = vec![Tool::Function(FunctionTool { name: "f".to_owned(), ..FunctionTool::default() })];
    let request = ChatRequest {
        messages: vec![user(vec![Block::text("q")])],
        tools,
        tool_choice: Some(ToolChoice::Named("f".to_owned())),
        settings,
        ..ChatRequest::default()
    };

    let (body, losses) = written(&request, Thinking::Effort);

    assert_eq!(body["tool_choice"], json!({ "type": "auto" }));
    assert_eq!(body["output_config"], json!({ "effort": "high" }));
    assert_eq!((body.get("temperature"), body.get("top_k"), &body["top_p"]), (None, None, &json!(0.97)));
    assert!(body["system"].as_str().is_some_and(|system| system.contains("JSON")));
    assert_eq!(losses, ["tool_choice", "temperature", "top_k"]);
}

#[test]
fn what_is_no_request_is_refused_with_the_field() {
    for (body, param) in [
        ("", ""),
        ("[]", ""),
        ("{}", "messages"),
        (r#"{"messages":"x"}"#, "messages"),
        (r#"{"messages":[1]}"#, "messages.0"),
        (r#"{"messages":[{"role":"robot"}]}"#, "messages.0.role"),
        (r#"{"messages":[{"role":"user","content":1}]}"#, "messages.0.content"),
    ] {
        let error = Anthropic.read_request(Place::Main, body.as_bytes()).expect_err(body);
        assert_eq!(error.param.as_deref().unwrap_or_default(), param, "{body}");
    }
}
