//! Tests that translate conversations of other dialects for this one, and their responses into this
//! one.

use serde_json::{Value, json};

use super::{Anthropic, client_stream, collect_message, response_spec, write_json};
use crate::{
    base::json::raw::RawJson,
    dialect::{
        PLACEHOLDER_SIGNATURE,
        egress::Thinking,
        ingress::{ChatEndpoint, Ingress},
    },
    ir::{
        block::{
            Block, BlockKind, CacheBreakpoint, CallKind, Citation, Media, MediaKind, MediaSource,
            Reasoning, ReasoningSignature, SignatureKind, TextBlock, ToolCall, ToolResult,
        },
        extras::Extras,
        generation_settings::{Effort, GenerationSettings, ReasoningSettings, ResponseFormat},
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        response::{ChatResponse, Finish, FinishKind},
        tool::{FunctionTool, HostedKind, HostedTool, Tool, ToolChoice},
        usage::Usage,
    },
};

fn call(id: &str, name: &str, arguments: &str) -> Block {
    Block::new(BlockKind::ToolCall(ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        form: CallKind::Function,
    }))
}

fn result(call: &str, text: &str) -> Block {
    Block::new(BlockKind::ToolResult(ToolResult {
        call: call.to_owned(),
        content: vec![Block::text(text)],
        ..ToolResult::default()
    }))
}

fn user(blocks: Vec<Block>) -> ChatMessage {
    ChatMessage::new(Role::User, blocks)
}

fn assistant(blocks: Vec<Block>) -> ChatMessage {
    ChatMessage::new(Role::Assistant, blocks)
}

#[test]
fn tool_results_directly_follow_their_calls_in_any_client_order() {
    let request = ChatRequest {
        messages: vec![
            assistant(vec![Block::text("hello")]),
            user(vec![Block::text("go"), Block::text(" ")]),
            assistant(vec![
                call("a:1", "f.g", "{\"x\":1}"),
                call("b", "f.g", "not json"),
                call("c", "h", "[]"),
            ]),
            ChatMessage::new(Role::System, vec![Block::text("be brief")]),
            user(vec![Block::text("and?"), result("b", "two")]),
            user(vec![result("a:1", "one"), result("gone", "three")]),
            assistant(vec![Block::text("done \n")]),
        ],
        ..ChatRequest::default()
    };

    let (body, losses) = write_json(&request, Thinking::Unsupported);

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
fn result_images_and_cache_breakpoints_are_written() {
    let mark =
        || Some(CacheBreakpoint { raw: RawJson::parse(r#"{"type":"ephemeral"}"#).expect("json") });
    let image = Block::new(BlockKind::Media(Media {
        kind: MediaKind::Image,
        source: MediaSource::Base64("iVBORw0".to_owned()),
        mime: None,
        name: None,
        detail: None,
    }));
    let mut answered = result("a", "see");
    if let BlockKind::ToolResult(result) = &mut answered.kind {
        result.content.push(image.clone());
    }
    let mut failed = result("b", "oh");
    if let BlockKind::ToolResult(result) = &mut failed.kind {
        result.content.push(image);
        result.is_error = true;
    }
    answered.cache = mark();
    let request = ChatRequest {
        system: vec![Block { cache: mark(), ..Block::text("s") }],
        messages: vec![
            user(vec![Block { cache: mark(), ..Block::text("u") }]),
            assistant(vec![call("a", "f", "{}"), call("b", "f", "{}")]),
            user(vec![Block { cache: mark(), ..Block::text("") }, answered, failed]),
        ],
        tools: vec![Tool::Function(FunctionTool {
            name: "f".to_owned(),
            cache: mark(),
            ..FunctionTool::default()
        })],
        ..ChatRequest::default()
    };

    let (body, _) = write_json(&request, Thinking::Unsupported);

    let mark = json!({ "type": "ephemeral" });
    assert_eq!(body["system"], json!([{ "type": "text", "text": "s", "cache_control": mark }]));
    assert_eq!(
        body["messages"][0]["content"],
        json!([{ "type": "text", "text": "u", "cache_control": mark }])
    );
    assert_eq!(
        body["messages"][2]["content"],
        json!([
            { "type": "tool_result", "tool_use_id": "a", "cache_control": mark, "content": [
                { "type": "text", "text": "see" },
                { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "iVBORw0" } },
            ] },
            // A failed call may contain only text; its images follow.
            { "type": "tool_result", "tool_use_id": "b", "content": "oh", "is_error": true },
            { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "iVBORw0" } },
        ])
    );
    assert_eq!(
        body["tools"],
        json!([{ "name": "f", "input_schema": { "type": "object", "properties": {} }, "cache_control": mark }])
    );
}

fn thought(text: &str, dialect: Dialect, kind: SignatureKind) -> Block {
    let proof = Some(ReasoningSignature { dialect, kind, value: "sig".to_owned(), id: None });
    Block {
        signature: proof,
        ..Block::new(BlockKind::Reasoning(Reasoning { text: text.to_owned(), summary: false }))
    }
}

#[test]
fn only_reasoning_signed_by_this_dialect_is_sent_back() {
    let messages = vec![
        user(vec![Block::text("q")]),
        assistant(vec![
            thought("mine", Dialect::Anthropic, SignatureKind::Signature),
            thought("", Dialect::Anthropic, SignatureKind::Redacted),
            thought("theirs", Dialect::Responses, SignatureKind::Encrypted),
            call("a", "f", "{}"),
        ]),
        user(vec![result("a", "r")]),
    ];
    let wish =
        Some(ReasoningSettings { effort: Some(Effort::Low), ..ReasoningSettings::default() });
    let request = ChatRequest {
        messages,
        settings: GenerationSettings { reasoning: wish, ..GenerationSettings::default() },
        ..ChatRequest::default()
    };

    let (body, losses) = write_json(&request, Thinking::Budget);

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

    // Without its reasoning at the front, the turn cannot continue thinking within a budget. With
    // an effort it can.
    let mut unsigned = request;
    unsigned.messages[1].blocks.drain(..2);
    assert_eq!(write_json(&unsigned, Thinking::Budget).0.get("thinking"), None);
    assert_eq!(
        write_json(&unsigned, Thinking::Effort).0["thinking"],
        json!({ "type": "adaptive" })
    );
}

#[test]
fn unsigned_reasoning_is_marked_and_unmarked_on_the_way_back() {
    let response = ChatResponse {
        blocks: vec![
            Block::new(BlockKind::Reasoning(Reasoning { text: "hm".to_owned(), summary: true })),
            Block::text("x"),
        ],
        ..ChatResponse::default()
    };

    let whole: Value =
        serde_json::from_slice(&Anthropic.write_response(&response, &response_spec()))
            .expect("json");
    let streamed =
        collect_message(&client_stream(&crate::ir::assemble::to_events(&response))).expect("whole");

    assert_eq!(
        whole["content"],
        json!([{ "type": "thinking", "thinking": "hm", "signature": PLACEHOLDER_SIGNATURE }, { "type": "text", "text": "x" }])
    );
    assert_eq!(streamed["content"], whole["content"]);
    let body =
        json!({ "messages": [{ "role": "assistant", "content": whole["content"] }] }).to_string();
    let request = Anthropic.read_request(ChatEndpoint::Chat, body.as_bytes()).expect("a request");
    assert_eq!(request.messages[0].blocks[0].signature, None);
    assert!(
        matches!(&request.messages[0].blocks[0].kind, BlockKind::Reasoning(it) if it.text == "hm")
    );
}

#[test]
fn answers_of_other_dialects_are_written_completely() {
    let citation = Citation {
        url: Some("https://x".to_owned()),
        title: Some("X".to_owned()),
        ..Citation::default()
    };
    let mut custom = call("c", "patch", "a \"b\"");
    if let BlockKind::ToolCall(call) = &mut custom.kind {
        call.form = CallKind::Custom;
    }
    let response = ChatResponse {
        blocks: vec![
            Block::new(BlockKind::Reasoning(Reasoning::default())),
            Block::new(BlockKind::Text(TextBlock {
                text: "t".to_owned(),
                citations: vec![citation],
            })),
            call("a", "f", "{\"x\": 1.0}"),
            call("b", "g", ""),
            call("d", "g", "\"{\\\"y\\\":2}\""),
            custom,
            Block::new(BlockKind::Foreign {
                dialect: Dialect::Gemini,
                body: RawJson::parse("{}").expect("json"),
            }),
        ],
        finish: Finish { kind: FinishKind::ToolCalls, ..Finish::default() },
        usage: Some(Usage {
            input: 5,
            cache_read: 3,
            cache_write_5m: 2,
            cache_write_1h: 1,
            output: 7,
            reasoning: 4,
            ..Usage::default()
        }),
        service_tier: Some("default".to_owned()),
        ..ChatResponse::default()
    };

    let whole: Value =
        serde_json::from_slice(&Anthropic.write_response(&response, &response_spec()))
            .expect("json");
    let mut streamed =
        collect_message(&client_stream(&crate::ir::assemble::to_events(&response))).expect("whole");

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
fn finish_reasons_are_written_in_this_dialect() {
    let refusal = Block::new(BlockKind::Refusal("no".to_owned()));
    for (blocks, kind, reply, sequence, want) in [
        (vec![], FinishKind::Stop, None, None, json!(["end_turn", null])),
        (vec![], FinishKind::Stop, None, Some("x"), json!(["stop_sequence", "x"])),
        (vec![refusal], FinishKind::Stop, None, None, json!(["refusal", null])),
        (vec![], FinishKind::ContentFilter, None, None, json!(["refusal", null])),
        (vec![], FinishKind::Length, Some("length"), None, json!(["max_tokens", null])),
        (
            vec![],
            FinishKind::Length,
            Some("model_context_window_exceeded"),
            None,
            json!(["model_context_window_exceeded", null]),
        ),
        (vec![], FinishKind::Pause, None, None, json!(["pause_turn", null])),
    ] {
        let finish = Finish {
            kind,
            raw_reason: reply.map(str::to_owned),
            stop_sequence: sequence.map(str::to_owned),
        };
        let response = ChatResponse { blocks, finish, ..ChatResponse::default() };
        let whole: Value =
            serde_json::from_slice(&Anthropic.write_response(&response, &response_spec()))
                .expect("json");
        let streamed = collect_message(&client_stream(&crate::ir::assemble::to_events(&response)))
            .expect("whole");
        for answer in [&whole, &streamed] {
            assert_eq!(json!([answer["stop_reason"], answer["stop_sequence"]]), want);
            assert_eq!(answer["usage"]["input_tokens"], json!(0));
        }
    }
}

#[test]
fn settings_of_other_dialects_are_written_or_lost() {
    let raw = |text: &str| RawJson::parse(text);
    let mut extras = Extras::default();
    extras.push(Dialect::Openai, "store", RawJson::from(true));
    let schema = raw(r#"{"type":"object","properties":{"n":{"type":"integer","minimum":1}}}"#)
        .expect("json");
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
                kind: HostedKind::WebSearch,
                dialect: Dialect::Responses,
                body: raw(
                    r#"{"type":"web_search","filters":{"allowed_domains":["a.b"]},"user_location":{"type":"approximate","city":"C"}}"#,
                )
                .expect("json"),
            }),
            Tool::Hosted(HostedTool {
                kind: HostedKind::Other,
                dialect: Dialect::Responses,
                body: raw(r#"{"type":"file_search"}"#).expect("json"),
            }),
        ],
        tool_choice: Some(ToolChoice::Required),
        settings: GenerationSettings {
            max_tokens: Some(100),
            temperature: raw("1.5"),
            top_p: raw("1"),
            frequency_penalty: raw("0"),
            presence_penalty: raw("0.5"),
            stop: vec!["X".to_owned(), "\n".to_owned()],
            seed: raw("7"),
            n: Some(2),
            format: Some(ResponseFormat::Schema { name: Some("N".to_owned()), description: None, schema, strict: Some(true) }),
            service_tier: Some("flex".to_owned()),
            user: Some("u".to_owned()),
            parallel_tools: Some(false),
            ..GenerationSettings::default()
        },
        extras,
        ..ChatRequest::default()
    };

    let (body, mut losses) = write_json(&request, Thinking::Unsupported);

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
fn forced_tool_disables_thinking_and_thinking_disables_sampling() {
    let settings = GenerationSettings {
        temperature: RawJson::parse("0.2"),
        top_k: RawJson::parse("5"),
        top_p: RawJson::parse("0.97"),
        reasoning: Some(ReasoningSettings {
            effort: Some(Effort::High),
            ..ReasoningSettings::default()
        }),
        format: Some(ResponseFormat::Json),
        ..GenerationSettings::default()
    };
    let tools =
        vec![Tool::Function(FunctionTool { name: "f".to_owned(), ..FunctionTool::default() })];
    let mut request = ChatRequest {
        messages: vec![user(vec![Block::text("q")])],
        tools,
        tool_choice: Some(ToolChoice::Named("f".to_owned())),
        settings,
        ..ChatRequest::default()
    };

    let (body, losses) = write_json(&request, Thinking::Effort);

    assert_eq!(body["tool_choice"], json!({ "type": "tool", "name": "f" }));
    assert_eq!((body.get("thinking"), &body["top_k"]), (None, &json!(5)));
    assert_eq!(losses, ["reasoning"]);

    request.tool_choice = None;
    let (body, losses) = write_json(&request, Thinking::Effort);

    assert_eq!(body["thinking"]["type"], "adaptive");
    assert_eq!(body["output_config"], json!({ "effort": "high" }));
    assert_eq!(
        (body.get("temperature"), body.get("top_k"), &body["top_p"]),
        (None, None, &json!(0.97))
    );
    assert!(body["system"].as_str().is_some_and(|system| system.contains("JSON")));
    assert_eq!(losses, ["temperature", "top_k"]);
}

#[test]
fn invalid_requests_are_refused_with_the_field() {
    for (body, param) in [
        ("", ""),
        ("[]", ""),
        ("{}", "messages"),
        (r#"{"messages":"x"}"#, "messages"),
        (r#"{"messages":[1]}"#, "messages.0"),
        (r#"{"messages":[{"role":"robot"}]}"#, "messages.0.role"),
        (r#"{"messages":[{"role":"user","content":1}]}"#, "messages.0.content"),
    ] {
        let error = Anthropic.read_request(ChatEndpoint::Chat, body.as_bytes()).expect_err(body);
        assert_eq!(error.param.as_deref().unwrap_or_default(), param, "{body}");
    }
}
