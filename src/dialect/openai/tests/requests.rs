//! Tests requests: which fields each dialect gets from them.

use serde_json::{Map, Value, json};

use super::traits;
use crate::{
    dialect::{
        egress::{Egress, TargetTraits},
        ingress::{ChatEndpoint, Ingress},
        openai::Openai,
        tests::recorded,
    },
    ir::{
        block::{
            Block, BlockKind, CacheBreakpoint, CallKind, Media, MediaKind, MediaSource, Reasoning,
            ReasoningSignature, SignatureKind, ToolCall, ToolResult,
        },
        generation_settings::{Effort, ReasoningSettings},
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        tool::{CustomTool, FunctionTool, Tool, ToolChoice},
    },
};

fn read(body: &Value) -> ChatRequest {
    Openai
        .read_request(ChatEndpoint::Chat, body.to_string().as_bytes())
        .unwrap_or_else(|error| panic!("{}: {body}", error.message))
}

fn write(request: &ChatRequest, traits: &TargetTraits) -> (Value, Vec<String>) {
    let encoded = Openai.write_request(request, traits);
    let losses = encoded.losses.iter().map(|loss| loss.0.to_string()).collect();
    (serde_json::from_slice(&encoded.body).expect("json"), losses)
}

/// Returns a body in which fields with several forms have only one.
fn normal(body: &Value) -> Value {
    let mut body = without_null(body);
    let Some(map) = body.as_object_mut() else { return body };
    for key in ["model", "stream", "stream_options"] {
        map.remove(key);
    }
    if let Some(Value::Array(functions)) = map.remove("functions") {
        map.insert(
            "tools".to_owned(),
            functions.into_iter().map(|f| json!({"type": "function", "function": f})).collect(),
        );
    }
    if let Some(choice) = map.remove("function_call") {
        map.insert("tool_choice".to_owned(), choice);
    }
    if map.get("tool_choice") == Some(&json!("any")) {
        map.insert("tool_choice".to_owned(), json!("required"));
    }
    if map.get("tools").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        map.remove("tools");
    }
    if let Some(Value::Array(list)) = map.get("stop")
        && let [one] = list.as_slice()
    {
        let one = one.clone();
        map.insert("stop".to_owned(), one);
    }
    for tool in map.get_mut("tools").and_then(Value::as_array_mut).into_iter().flatten() {
        tool.as_object_mut().expect("a tool").entry("type").or_insert_with(|| "function".into());
    }
    for message in map.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten() {
        normal_message(message.as_object_mut().expect("a message"));
    }
    body
}

fn normal_message(message: &mut Map<String, Value>) {
    if message["role"] == "developer" {
        message.insert("role".to_owned(), "system".into());
    }
    let plain = |part: &Value| part["type"] == "text" && part.as_object().map(Map::len) == Some(2);
    if let Some(Value::Array(parts)) = message.get("content")
        && parts.iter().all(plain)
        && (parts.len() < 2 || message["role"] == "assistant")
    {
        let text: String = parts.iter().filter_map(|part| part["text"].as_str()).collect();
        message.insert("content".to_owned(), text.into());
    }
    if message["role"] == "assistant" && message.get("content") == Some(&json!("")) {
        message.remove("content");
    }
    if message.get("tool_calls").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        message.remove("tool_calls");
    }
    for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
        call.as_object_mut().expect("a call").remove("index");
    }
}

fn without_null(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k.clone(), without_null(v)))
            .collect(),
        Value::Array(list) => list.iter().map(without_null).collect(),
        other => other.clone(),
    }
}

#[test]
fn every_recorded_request_round_trips_without_loss() {
    let mut seen = 0;
    for exchange in recorded::load_exchanges(&["openai.chat"]) {
        let request = read(&exchange.request);
        let field = if exchange.request["max_completion_tokens"].is_null() {
            "max_tokens"
        } else {
            "max_completion_tokens"
        };
        let (got, losses) = write(&request, &TargetTraits { max_tokens_field: field, ..traits() });
        assert_eq!(normal(&got), normal(&exchange.request), "{}", exchange.id);
        assert_eq!(losses, [""; 0], "{}", exchange.id);
        seen += 1;
    }
    assert!(seen == 0 || seen > 50, "only {seen} recordings");
}

#[test]
fn fields_missing_from_recordings_round_trip() {
    for body in [
        json!({"messages": [
            {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]},
            {"role": "developer", "content": "c", "name": "boss"},
            {"role": "user", "name": "ann", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO", "detail": "low"}},
                {"type": "file", "file": {"file_id": "file-1"}}, {"type": "video_url", "video_url": {"url": "https://x/v.mp4"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}, {"type": "riddle", "riddle": 1.50},
                {"type": "text", "text": "q", "x_mark": true}]},
            {"role": "assistant", "content": null, "refusal": "no"},
            {"role": "system", "content": "d"},
            {"role": "user", "content": "e"},
            {"role": "assistant", "reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "S"}], "content": "f",
             "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "patch", "input": "*** x"}},
                            {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{\"a\": 1}"}, "extra_content": {"v": {"sig": "T"}}}]},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "r", "cache_control": {"type": "ephemeral"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "done", "name": "patch"},
            {"role": "user", "content": "g"}],
          "tools": [
            {"type": "custom", "custom": {"name": "patch", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "s: x"}}}},
            {"type": "function", "function": {"name": "g", "strict": true, "parameters": {"type": "object", "properties": {}}, "x": 1}},
            {"type": "v:web_search", "parameters": {"max": 1}}],
          "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
            {"type": "custom", "custom": {"name": "patch"}}, {"type": "function", "function": {"name": "g"}}]}},
          "web_search_options": {"search_context_size": "low"},
          "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": false}},
          "temperature": 1.0, "top_k": 4, "seed": 9007199254740993_u64, "logit_bias": {"1": -100}, "logprobs": true, "top_logprobs": 3, "n": 1,
          "stop": ["a", "b"], "user": "u", "safety_identifier": "u", "metadata": {"k": "v"}, "store": true, "verbosity": "low",
          "service_tier": "flex", "prompt_cache_key": "p", "prompt_cache_retention": "24h", "prediction": {"type": "content", "content": "x"},
          "parallel_tool_calls": false, "max_completion_tokens": 5, "reasoning_effort": "xhigh"}),
        json!({"messages": [{"role": "user", "content": "a"}], "enable_thinking": false, "thinking_budget": 100, "response_format": {"type": "json_object", "schema": {}}}),
        json!({"messages": [{"role": "user", "content": "a"}], "max_completion_tokens": -1, "temperature": "hot", "tools": [
            {"type": "function", "function": {"name": "f"}}], "tool_choice": {"type": "custom_choice"}, "chat_template_kwargs": {"thinking": true, "x": 1}}),
    ] {
        let (mut got, losses) = write(&read(&body), &traits());
        if let Some(user) = got.get("user").cloned() {
            assert_eq!(user, "u");
        } else if let Some(map) = got.as_object_mut().filter(|_| body.get("user").is_some()) {
            map.insert("user".to_owned(), "u".into());
        }
        assert_eq!(normal(&got), normal(&body));
        assert_eq!(losses, [""; 0]);
    }
}

#[test]
fn reasoning_settings_are_read_in_all_spellings() {
    let wish = |fields: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}]});
        body.as_object_mut()
            .expect("an object")
            .extend(fields.as_object().expect("an object").clone());
        read(&body).settings.reasoning
    };
    let base = ReasoningSettings::default();
    for (fields, want) in [
        (
            json!({"reasoning_effort": "high"}),
            Some(ReasoningSettings { effort: Some(Effort::High), ..base.clone() }),
        ),
        (json!({"reasoning_effort": "default"}), None),
        (
            json!({"reasoning": {"max_tokens": 9, "exclude": true}}),
            Some(ReasoningSettings {
                budget_tokens: Some(9),
                show_thoughts: Some(false),
                ..base.clone()
            }),
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 9}}),
            Some(ReasoningSettings { budget_tokens: Some(9), enabled: Some(true), ..base.clone() }),
        ),
        (
            json!({"thinking": {"type": "disabled"}}),
            Some(ReasoningSettings { enabled: Some(false), ..base.clone() }),
        ),
        (
            json!({"enable_thinking": true}),
            Some(ReasoningSettings { enabled: Some(true), ..base.clone() }),
        ),
        (
            json!({"reasoning": {"enabled": true}}),
            Some(ReasoningSettings { enabled: Some(true), ..base }),
        ),
    ] {
        assert_eq!(wish(fields.clone()), want, "{fields}");
    }
}

#[test]
fn refused_requests_name_the_field() {
    for (body, param) in [
        (json!({}), "messages"),
        (json!({"messages": "x"}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [1]}), "messages[0]"),
        (json!({"messages": [{"role": "wizard", "content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": 1}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": "x"}], "tools": {}}), "tools"),
    ] {
        let error = Openai
            .read_request(ChatEndpoint::Chat, body.to_string().as_bytes())
            .expect_err("refused");
        assert_eq!(error.param.as_deref(), Some(param), "{body}");
    }
    assert!(
        Openai.read_request(ChatEndpoint::Chat, b"[]").is_err()
            && Openai.read_request(ChatEndpoint::Chat, b"{").is_err()
    );
}

#[test]
fn legacy_completions_become_a_conversation() {
    for exchange in recorded::load_exchanges(&["openai.completions"]) {
        let body = exchange.request.to_string();
        let request =
            Openai.read_request(ChatEndpoint::Completions, body.as_bytes()).expect(&exchange.id);
        let (got, losses) = write(&request, &traits());
        assert_eq!(got["messages"].as_array().map(Vec::len), Some(1));
        assert!(
            losses.iter().all(|loss| matches!(loss.as_str(), "n" | "echo" | "best_of")),
            "{losses:?}"
        );
    }
    let body = br#"{"model":"m","prompt":"a","echo":true,"logprobs":2,"max_tokens":5}"#;
    let (got, losses) =
        write(&Openai.read_request(ChatEndpoint::Completions, body).expect("good"), &traits());
    assert_eq!(
        got,
        json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 5, "logprobs": true, "top_logprobs": 2})
    );
    assert_eq!(losses, ["echo"]);
}

fn call(id: &str, name: &str) -> Block {
    let call = ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: String::new(),
        form: CallKind::Function,
    };
    Block::new(BlockKind::ToolCall(call))
}

fn result(call: &str, content: Vec<Block>, is_error: bool) -> Block {
    let result = ToolResult {
        call: call.to_owned(),
        name: Some("f".to_owned()),
        content,
        is_error,
        form: CallKind::Function,
    };
    Block::new(BlockKind::ToolResult(result))
}

fn image() -> Block {
    let source = MediaSource::Base64("AAAA".to_owned());
    Block::new(BlockKind::Media(Media {
        kind: MediaKind::Image,
        source,
        mime: Some("image/png".to_owned()),
        name: None,
        detail: None,
    }))
}

/// Results out of order, with images, without a call, or missing never cause a request
/// that the provider rejects.
#[test]
fn results_follow_their_calls_in_any_client_order() {
    let messages = vec![
        ChatMessage::new(Role::Assistant, vec![call("a", "f"), call("b", "f"), call("c", "f")]),
        ChatMessage::new(
            Role::User,
            vec![
                Block::text("first words"),
                result("b", vec![Block::text("B"), image()], false),
                result("z", vec![Block::text("Z")], false),
            ],
        ),
        ChatMessage::new(
            Role::User,
            vec![result("a", vec![Block::text("bad")], true), Block::text("last words")],
        ),
    ];
    let (got, losses) = write(&ChatRequest { messages, ..ChatRequest::default() }, &traits());
    let calls: Vec<Value> =
        ["a", "b", "c"].map(|id| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}})).into();
    assert_eq!(
        got["messages"],
        json!([
            {"role": "assistant", "content": null, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "b", "content": "B"},
            {"role": "tool", "tool_call_id": "a", "content": "Error: bad"},
            {"role": "tool", "tool_call_id": "c", "content": "No result was given for this call."},
            {"role": "user", "content": [{"type": "text", "text": "Shown by tool call b (f):"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
            {"role": "user", "content": [{"type": "text", "text": "Result of tool call z (f): Z"}, {"type": "text", "text": "first words"}]},
            {"role": "user", "content": "last words"}
        ])
    );
    assert_eq!(losses, [""; 0]);
}

/// Pains 3, 4 and 17: fields of other dialects are bridged or named as losses.
#[test]
fn unsupported_fields_are_named_as_losses() {
    let proof = |dialect| {
        Some(ReasoningSignature {
            dialect,
            kind: SignatureKind::Signature,
            value: "S".to_owned(),
            id: None,
        })
    };
    let thought = |text: &str| {
        let reasoning = Reasoning { text: text.to_owned(), summary: false };
        Block {
            signature: proof(Dialect::Anthropic),
            ..Block::new(BlockKind::Reasoning(reasoning))
        }
    };
    let mark = || {
        Some(CacheBreakpoint { raw: crate::base::json::raw::RawJson::parse("{}").expect("json") })
    };
    let mut request = ChatRequest {
        system: vec![Block { cache: mark(), ..Block::text("a") }, Block::text("b")],
        messages: vec![
            ChatMessage::new(Role::User, vec![Block::text("hi")]),
            ChatMessage::new(
                Role::Assistant,
                vec![
                    thought("hm"),
                    thought(""),
                    Block::text("x"),
                    Block::text("y"),
                    call("1", "a.b"),
                ],
            ),
        ],
        tools: vec![
            Tool::Function(FunctionTool {
                name: "a.b".to_owned(),
                cache: mark(),
                ..FunctionTool::default()
            }),
            Tool::Custom(CustomTool { name: "patch".to_owned(), ..CustomTool::default() }),
        ],
        tool_choice: Some(ToolChoice::Named("a.b".to_owned())),
        ..ChatRequest::default()
    };
    request.settings.top_k = Some(crate::base::json::raw::RawJson::from(4));
    request.settings.n = Some(2);
    request.settings.reasoning =
        Some(ReasoningSettings { budget_tokens: Some(30_000), ..ReasoningSettings::default() });
    let encoded = Openai
        .write_request(&request, &TargetTraits { stream: true, developer_role: true, ..traits() });
    let got: Value = serde_json::from_slice(&encoded.body).expect("json");
    let [(sent, known)] = encoded.context.renamed_tools.as_slice() else {
        panic!("one renamed tool")
    };
    assert_eq!((known.as_str(), encoded.context.client_tool_name(sent)), ("a.b", "a.b"));
    assert_eq!(got["messages"][0], json!({"role": "developer", "content": "a\n\nb"}));
    assert_eq!(got["messages"][2]["content"], "xy");
    assert_eq!(got["messages"][2]["reasoning_content"], "hm");
    assert_eq!(got["messages"][2]["tool_calls"][0]["function"]["name"], sent.as_str());
    assert_eq!(got["tool_choice"]["function"]["name"], sent.as_str());
    assert_eq!(got["tools"][1]["function"]["parameters"]["required"], json!(["input"]));
    assert_eq!(
        (&got["stream"], &got["stream_options"]["include_usage"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(got["reasoning_effort"], "high");
    let losses: Vec<_> = encoded.losses.iter().map(|loss| loss.0.as_ref()).collect();
    assert_eq!(
        losses,
        ["messages.cache_control", "reasoning.proof", "tools.cache_control", "n", "top_k"]
    );
    let (got, losses) = write(&request, &TargetTraits { accepts_reasoning: false, ..traits() });
    assert_eq!(got["messages"][2].get("reasoning_content"), None);
    assert!(losses.contains(&"reasoning.proof".to_owned()), "{losses:?}");
}

proptest::proptest! {
    #[test]
    fn any_request_is_read_or_refused_without_panic(keys in proptest::collection::vec((0..14_usize, 0..12_usize), 0..12)) {
        const KEYS: [&str; 14] = ["messages", "content", "role", "tool_calls", "tools", "function", "type", "stop", "reasoning", "custom",
            "tool_call_id", "image_url", "reasoning_details", "response_format"];
        const VALUES: [&str; 12] = ["null", "1", "\"user\"", "[]", "{}", "[1]", "[[]]", "\"\\ud800\"", "\"assistant\"", "\"tool\"", "-1.5e300", "true"];
        let inner: Vec<_> = keys.iter().map(|(k, v)| format!("\"{}\":{}", KEYS[*k], VALUES[*v])).collect();
        let inner = inner.join(",");
        for body in [format!("{{{inner}}}"), format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}},{{{inner}}}],\"tools\":[{{{inner}}}]}}"),
            format!("{{\"messages\":[{{\"role\":\"assistant\",\"tool_calls\":[{{{inner}}}],\"content\":[{{{inner}}}]}}],{}}}",
                if inner.is_empty() { "\"x\":1" } else { &inner })] {
            for place in [ChatEndpoint::Chat, ChatEndpoint::Completions] {
                if let Ok(request) = Openai.read_request(place, body.as_bytes()) {
                    let encoded = Openai.write_request(&request, &traits());
                    proptest::prop_assert!(crate::base::json::reader::parse(&encoded.body).is_ok());
                }
            }
        }
    }
}
