//! The laws of translation over recorded traffic, and cases that recordings lack.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    dialect::{
        Loss, Thinking,
        recorded::{self, Exchange},
        translate::Reading,
    },
    ir::{
        assemble::{Assembler, events},
        block::{Block, BlockKind, CallForm, Proof, ProofKind, Reasoning, ToolCall, ToolResult},
        event::ChatEvent,
        extras::Extras,
        fault::ErrorKind,
        grammar,
        request::{Message, Role},
        response::FinishKind,
        tool::{FunctionTool, Tool, ToolChoice},
    },
};

fn shape() -> Shape {
    Shape {
        place: Place::Main,
        model: "asked".to_owned(),
        id: "7".to_owned(),
        now: 1_700_000_000,
        framing: Framing::Sse,
        usage: true,
        custom: Vec::new(),
        namespaced: Vec::new(),
        echo: Extras::default(),
    }
}

fn traits() -> Traits {
    Traits {
        model: "m".to_owned(),
        stream: false,
        max_output: None,
        thinking: Thinking::Effort,
        limit_field: "max_output_tokens",
        developer_role: false,
        takes_reasoning: false,
        seed: "s".to_owned(),
    }
}

fn carry() -> Carry {
    Carry { renamed: Vec::new(), seed: "s".to_owned() }
}

fn recordings() -> Vec<Exchange> {
    recorded::of(&["openai.responses"])
}

fn written(request: &ChatRequest) -> (Value, Vec<Loss>) {
    let encoded = Responses.write_request(request, &traits());
    (serde_json::from_slice(&encoded.body).expect("json"), encoded.losses)
}

fn asked(body: &Value) -> ChatRequest {
    Responses.read_request(Place::Main, body.to_string().as_bytes()).expect("a request")
}

/// A request as it is compared: what means the same looks the same.
fn normal(body: &Value) -> Value {
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
    bare(&body)
}

/// Without nulls and empty lists.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept =
                map.iter().map(|(k, v)| (k.clone(), bare(v))).filter(|(k, v)| !(v.is_null() || k == "annotations" && *v == json!([])));
            Value::Object(kept.collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(bare).collect()),
        other => other.clone(),
    }
}

/// What an answer says, put together from what SDKs show.
#[derive(Debug, PartialEq)]
struct Said {
    text: String,
    refusal: String,
    reasoning: String,
    calls: Vec<(String, String, String)>,
    sealed: u32,
    foreign: Vec<Value>,
    status: Value,
    usage: Value,
}

fn said(response: &Value) -> Said {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = Said {
        text: String::new(),
        refusal: String::new(),
        reasoning: String::new(),
        calls: Vec::new(),
        sealed: 0,
        foreign: Vec::new(),
        status: if response["status"] == "complete" { "completed".into() } else { response["status"].clone() },
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
            "function_call" => out.calls.push((text(&item["call_id"]), text(&item["name"]), text(&item["arguments"]))),
            "custom_tool_call" => out.calls.push((text(&item["call_id"]), text(&item["name"]), text(&item["input"]))),
            "reasoning" => {
                let summary = item["summary"].as_array().filter(|list| !list.is_empty());
                for part in summary.or_else(|| item["content"].as_array()).into_iter().flatten() {
                    out.reasoning.extend(text(&part["text"]).chars().filter(|c| !c.is_whitespace()));
                }
                // It is sealed anew whenever it is told.
                out.sealed += u32::from(item["encrypted_content"].is_string());
            }
            _ => out.foreign.push(item.clone()),
        }
    }
    out
}

fn body(response: &ChatResponse) -> Value {
    serde_json::from_slice(&Responses.write_response(response, &shape())).expect("json")
}

fn streamed(text: &str, cuts: &[usize]) -> (Vec<ChatEvent>, bool) {
    let mut reading = Reading::new(Framing::Sse, Responses.stream_reader(&carry()), false);
    let (mut said, bytes) = (Vec::new(), Bytes::copy_from_slice(text.as_bytes()));
    let mut at = 0;
    for cut in cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]) {
        let step = reading.feed(&bytes.slice(at.min(cut)..cut.max(at)), &mut said);
        assert_eq!(step.error, None);
        at = at.max(cut);
    }
    reading.end(&mut said);
    (said, reading.complete())
}

fn assembled(events: &[ChatEvent]) -> ChatResponse {
    let mut assembler = Assembler::default();
    events.iter().for_each(|event| assembler.feed(event));
    assembler.finish().expect("complete")
}

/// The response of a recorded stream's terminal event.
fn terminal(stream: &str) -> Value {
    let events = stream.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data:")?.trim()).ok());
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

fn write_stream(shape: &Shape, events: Vec<ChatEvent>) -> Vec<Value> {
    let (mut writer, mut out) = (Responses.stream_writer(shape), Vec::new());
    for event in events {
        writer.event(event, &mut out);
    }
    parse(&out)
}

fn parse(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).expect("text");
    let frames = text.split_terminator("\n\n").map(|frame| {
        let (name, data) = frame.split_once("\ndata: ").expect("two lines");
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

/// Deltas must say what the items say, and the items what the end says.
fn consistent(events: &[Value]) -> Value {
    let mut told: BTreeMap<(String, u64), String> = BTreeMap::new();
    let (mut items, mut added) = (Vec::new(), Vec::new());
    for event in events {
        let kind = event["type"].as_str().expect("a type");
        let index = event["output_index"].as_u64().unwrap_or_default();
        if kind.ends_with(".delta") {
            assert_eq!(added[index as usize], event["item_id"], "{kind}");
            told.entry((kind.to_owned(), index)).or_default().push_str(event["delta"].as_str().expect("text"));
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
        let told = |kind: &str| told.get(&(format!("response.{kind}.delta"), index)).cloned().unwrap_or_default();
        assert_eq!(item["id"], added[index as usize]);
        let one = Said { status: Value::Null, usage: Value::Null, ..said(&json!({ "output": [item] })) };
        match item["type"].as_str().expect("a type") {
            "message" => assert_eq!((told("output_text"), told("refusal")), (one.text, one.refusal)),
            "function_call" => assert_eq!(told("function_call_arguments"), one.calls[0].2),
            "custom_tool_call" => assert_eq!(told("custom_tool_call_input"), one.calls[0].2),
            "reasoning" => assert_eq!(told("reasoning_summary_text").split_whitespace().collect::<String>(), one.reasoning),
            _ => {}
        }
    }
    response
}

#[test]
fn every_recorded_request_comes_back_without_loss() {
    for exchange in recordings() {
        if !exchange.request.is_object() || exchange.features.iter().any(|f| f == "error") || exchange.id.contains("dangling") {
            continue;
        }
        let (back, losses) = written(&asked(&exchange.request));
        assert_eq!(normal(&back), normal(&exchange.request), "{}", exchange.id);
        assert_eq!(losses, Vec::new(), "{}", exchange.id);
    }
}

#[test]
fn every_recorded_answer_comes_back() {
    for exchange in recordings().iter().filter(|x| x.status == 200 && x.kind == "json") {
        let response = Responses.read_response(&exchange.content_type, exchange.response.as_bytes(), &carry()).expect("an answer");
        let recorded: Value = serde_json::from_str(&exchange.response).expect("json");
        assert_eq!(said(&body(&response)), said(&recorded), "{}", exchange.id);
        grammar::check(&events(&response)).expect("well formed");
        let written = write_stream(&shape(), events(&response));
        if response.finish.kind != FinishKind::Pause {
            assert_eq!(said(&consistent(&written)), said(&recorded), "{}", exchange.id);
        }
    }
}

#[test]
fn every_recorded_stream_says_what_its_end_says() {
    for exchange in recordings().iter().filter(|x| x.status == 200 && x.kind == "sse") {
        let (events, complete) = streamed(&exchange.response, &[]);
        assert!(complete, "{}", exchange.id);
        grammar::check(&events).expect(&exchange.id);
        let want = said(&terminal(&exchange.response));
        assert_eq!(said(&body(&assembled(&events))), want, "{}", exchange.id);
        assert_eq!(said(&consistent(&write_stream(&shape(), events))), want, "{}", exchange.id);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn streams_say_the_same_wherever_they_are_cut(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        for exchange in recordings().iter().filter(|x| x.status == 200 && x.kind == "sse") {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(exchange.response.len())).collect();
            cuts.sort_unstable();
            let (events, _) = streamed(&exchange.response, &cuts);
            prop_assert_eq!(grammar::check(&events), Ok(()));
            prop_assert_eq!(&events, &streamed(&exchange.response, &[]).0);
        }
    }

    #[test]
    fn nonsense_never_panics(text in "[\\[\\]{}\",:a-z0-9_. ]{0,80}") {
        drop(Responses.read_request(Place::Main, text.as_bytes()));
        drop(Responses.read_response("", text.as_bytes(), &carry()));
        let mut reader = Responses.stream_reader(&carry());
        drop(reader.event(b"", text.as_bytes(), &mut Vec::new()));
    }
}

#[test]
fn prefixes_of_a_stream_are_never_complete() {
    for exchange in recordings().iter().filter(|x| x.status == 200 && x.kind == "sse") {
        let end = exchange.response.find("\"response.completed\"").expect("an end");
        let mut reading = Reading::new(Framing::Sse, Responses.stream_reader(&carry()), false);
        let mut said = Vec::new();
        reading.feed(&Bytes::copy_from_slice(&exchange.response.as_bytes()[..end]), &mut said);
        reading.end(&mut said);
        assert!(!reading.complete(), "{}", exchange.id);
    }
}

#[test]
fn free_text_tools_that_were_bridged_come_back_as_free_text() {
    let shape = Shape { custom: vec!["apply_patch".to_owned()], ..shape() };
    let call = ToolCall {
        id: "c".to_owned(),
        name: "apply_patch".to_owned(),
        arguments: r#"{"input":"*** Begin\nx"}"#.to_owned(),
        form: CallForm::Function,
    };
    let answer = ChatResponse { blocks: vec![Block::new(BlockKind::ToolCall(call))], ..ChatResponse::default() };
    let response = consistent(&write_stream(&shape, events(&answer)));
    let item =
        json!({"id":"ctc_7_0","type":"custom_tool_call","status":"completed","call_id":"c","name":"apply_patch","input":"*** Begin\nx"});
    assert_eq!(response["output"], json!([item]));

    // On the next turn it is a free-text call again, whatever form was kept.
    let request = ChatRequest {
        messages: vec![Message::new(Role::Assistant, answer.blocks)],
        tools: asked(&json!({"input":"x","tools":[{"type":"custom","name":"apply_patch"}]})).tools,
        ..ChatRequest::default()
    };
    let (body, _) = written(&request);
    assert_eq!(body["input"][0], json!({"type":"custom_tool_call","call_id":"c","name":"apply_patch","input":"*** Begin\nx"}));
    assert_eq!(body["input"][1]["type"], "custom_tool_call_output");
}

#[test]
fn tools_in_namespaces_are_flat_inside_and_grouped_outside() {
    let tools = json!([{"type":"namespace","name":"crm","description":"d","tools":[
        {"type":"function","name":"get","parameters":{"type":"object"}},{"type":"function","name":"put","strict":true}]},{"type":"function","name":"get"}]);
    let call = json!({"type":"function_call","call_id":"c","namespace":"crm","name":"get","arguments":"{}"});
    let output = json!({"type":"function_call_output","call_id":"c","output":"r"});
    let request = asked(&json!({"input":[call, output],"tools":tools,"tool_choice":{"type":"function","name":"put","namespace":"crm"}}));
    assert_eq!(request.tools.iter().filter_map(Tool::name).collect::<Vec<_>>(), ["crm__get", "crm__put", "get"]);
    assert_eq!(request.tool_choice, Some(ToolChoice::Named("crm__put".to_owned())));
    let encoded = Responses.write_request(&request, &traits());
    let body: Value = serde_json::from_slice(&encoded.body).expect("json");
    assert_eq!((&body["tools"], &body["input"]), (&tools, &json!([call, output])));

    let answer =
        json!({"output":[{"type":"function_call","call_id":"d","namespace":"crm","name":"get","arguments":"{}"}],"status":"completed"});
    let response = Responses.read_response("", answer.to_string().as_bytes(), &encoded.carry).expect("an answer");
    assert!(matches!(&response.blocks[0].kind, BlockKind::ToolCall(call) if call.name == "crm__get"));
    let shape = Shape { namespaced: vec![("crm__get".to_owned(), "crm".to_owned(), "get".to_owned())], ..shape() };
    let told = consistent(&write_stream(&shape, events(&response)));
    assert_eq!((&told["output"][0]["namespace"], &told["output"][0]["name"]), (&json!("crm"), &json!("get")));
}

#[test]
fn results_stand_behind_their_calls_and_halves_are_told() {
    let call = |id: &str| Block::new(BlockKind::ToolCall(ToolCall { id: id.to_owned(), name: "f".to_owned(), ..ToolCall::default() }));
    let result = |id: &str| {
        Block::new(BlockKind::ToolResult(ToolResult { call: id.to_owned(), content: vec![Block::text("r")], ..ToolResult::default() }))
    };
    let request = ChatRequest {
        messages: vec![
            Message::new(Role::Assistant, vec![call("a"), call("b")]),
            Message::new(Role::User, vec![Block::text("meanwhile")]),
            Message::new(Role::User, vec![Block::text("and"), result("a"), result("lost")]),
        ],
        ..ChatRequest::default()
    };
    let (body, losses) = written(&request);
    let told: Vec<_> = body["input"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| (item["type"].as_str().expect("a type"), item["call_id"].as_str()))
        .collect();
    let want = [
        ("function_call", Some("a")),
        ("function_call", Some("b")),
        ("function_call_output", Some("a")),
        ("function_call_output", Some("b")),
        ("message", None),
        ("message", None),
        ("message", None),
    ];
    assert_eq!((told, losses), (want.to_vec(), Vec::new()));
}

#[test]
fn reasoning_of_others_is_dropped_or_sent_plain_and_own_goes_back_as_it_was() {
    let thought =
        |proof: Option<Proof>| Block { proof, ..Block::new(BlockKind::Reasoning(Reasoning { text: "hm".to_owned(), summary: false })) };
    let proof = |dialect| Proof { dialect, kind: ProofKind::Encrypted, value: "sealed".to_owned(), id: Some("rs_1".to_owned()) };
    let request = |block| ChatRequest { messages: vec![Message::new(Role::Assistant, vec![block])], ..ChatRequest::default() };

    let (body, losses) = written(&request(thought(Some(proof(Dialect::Anthropic)))));
    assert_eq!((&body["input"], losses), (&json!([]), vec![Loss("reasoning.proof".into())]));
    let (body, losses) = written(&request(thought(Some(proof(Dialect::Responses)))));
    let own = json!({"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"sealed"});
    assert_eq!((&body["input"][0], losses), (&own, Vec::new()));
    let plain = Responses.write_request(&request(thought(None)), &Traits { takes_reasoning: true, ..traits() });
    assert!(std::str::from_utf8(&plain.body).expect("text").contains(r#""content":[{"type":"reasoning_text","text":"hm"}]"#));

    // What we made of another's reasoning is no provider's own.
    let made = body_of(ChatResponse { blocks: vec![thought(None)], ..ChatResponse::default() });
    assert_eq!(made["output"][0]["id"], "rs_aip_7_0");
    let (back, losses) = written(&asked(&json!({ "input": made["output"] })));
    assert_eq!((&back["input"], losses), (&json!([]), vec![Loss("reasoning".into())]));
}

fn body_of(response: ChatResponse) -> Value {
    body(&response)
}

#[test]
fn what_other_apis_wish_is_mapped_or_named() {
    let mut request = asked(&json!({"input":"x"}));
    request.extras = Extras::default();
    request.tools = vec![Tool::Function(FunctionTool { name: "f".to_owned(), ..FunctionTool::default() })];
    request.tool_choice = Some(ToolChoice::Allowed { names: vec!["f".to_owned()], required: true });
    let settings = &mut request.settings;
    settings.max_tokens = Some(1);
    settings.top_k = crate::base::raw::Raw::parse("4");
    settings.stop = vec!["x".to_owned()];
    settings.n = Some(2);
    settings.user = Some("u".repeat(100));
    settings.logprobs = Some(true);
    settings.reasoning = Some(crate::ir::settings::ReasoningWish { budget: Some(60_000), ..Default::default() });
    let (body, losses) = written(&request);
    let losses: Vec<_> = losses.iter().map(|loss| loss.0.as_ref()).collect();
    assert_eq!(losses, ["user", "top_k", "stop", "n"]);
    assert_eq!(body["max_output_tokens"], 16);
    assert_eq!(body["reasoning"], json!({"effort":"high","summary":"auto"}));
    assert_eq!(body["include"], json!(["reasoning.encrypted_content", "message.output_text.logprobs"]));
    assert_eq!(body["tool_choice"], json!({"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"f"}]}));
    assert_eq!(body["tools"][0], json!({"type":"function","name":"f","parameters":{"type":"object","properties":{}},"strict":false}));
    assert_eq!(body["store"], false);
}

#[test]
fn wishes_of_this_api_come_back_as_they_were() {
    let body = json!({
        "input":[{"type":"item_reference","id":"msg_1"},{"type":"local_shell_call","call_id":"l","action":{"type":"exec"},"status":"completed"},
            {"role":"user","content":[{"type":"input_image","file_id":"f","detail":"low"},{"type":"input_file","file_id":"g"},
                {"type":"input_file","filename":"a.pdf","file_data":"data:application/pdf;base64,AA=="},{"type":"input_image","image_url":"https://x/y.png"},
                {"type":"input_audio","input_audio":{"data":"AA==","format":"mp3"}},{"type":"odd","x":1}]},
            {"type":"message","role":"developer","content":"later"},
            {"type":"message","id":"msg_2","role":"assistant","status":"completed","phase":"commentary","content":[
                {"type":"output_text","text":"t","annotations":[{"type":"url_citation","url":"u","title":"t","start_index":0,"end_index":1}]},{"type":"refusal","refusal":"no"}]},
            {"type":"custom_tool_call","call_id":"c","name":"p","input":"free"},{"type":"custom_tool_call_output","call_id":"c","output":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]}],
        "instructions":"be","tools":[{"type":"custom","name":"p","format":{"type":"text"}},{"type":"web_search","filters":{}},{"type":"mcp","server_label":"l"}],
        "tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"custom","name":"p"},{"type":"mcp","server_label":"l"}]},
        "text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":true},"verbosity":"low"},
        "reasoning":{"effort":"xhigh","summary":"detailed","context":"all_turns"},"max_tool_calls":3,"truncation":"auto","prompt_cache_key":"k",
        "safety_identifier":"s","service_tier":"flex","metadata":{"a":"b"},"top_logprobs":2,"background":false,"top_k":5,"max_output_tokens":20,
        "temperature":1.10,"parallel_tool_calls":false,"conversation":"conv_1"
    });
    let request = asked(&body);
    let (back, losses) = written(&request);
    assert_eq!((normal(&back), losses), (normal(&body), Vec::new()));
    assert_eq!(request.system.len(), 1);
    for (key, wanted) in [("phase", "item.phase"), ("max_tool_calls", "max_tool_calls")] {
        let all = request.messages.iter().flat_map(|m| &m.blocks).flat_map(|b| b.extras.iter()).chain(request.extras.iter());
        assert!(all.map(|(key, _)| key).any(|key| key == wanted), "{key}");
    }
    assert!(request.extras.iter().all(|(key, _)| !["store", "background", "include"].contains(&key)));
}

#[test]
fn bad_requests_are_refused_with_their_place() {
    for (body, param) in [
        (r#"{"model":"m"}"#, Some("input")),
        (r#"{"input":5}"#, Some("input")),
        (r#"{"input":[5]}"#, Some("input[0]")),
        (r#"{"input":[{"role":"robot","content":"x"}]}"#, Some("input[0].role")),
        (r#"{"input":[{"role":"user","content":5}]}"#, Some("input[0].content")),
        (r#"{"input":[{"role":"user"}]}"#, Some("input[0].content")),
        (r#"{"input":[{"type":"function_call_output","output":"x"}]}"#, Some("input[0].call_id")),
        (r#"{"input":"x","tools":"y"}"#, Some("tools")),
        (r#"{"input":"x","temperature":"hot"}"#, Some("temperature")),
        ("[]", None),
    ] {
        let error = Responses.read_request(Place::Main, body.as_bytes()).expect_err(body);
        assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::BadRequest, param), "{body}");
    }
}

#[test]
fn every_field_of_the_strictest_schema_is_there() {
    let request = asked(
        &json!({"input":"x","temperature":0.5,"tools":[{"type":"function","name":"f"}],"reasoning":{"effort":"low"},"text":{"verbosity":"low"}}),
    );
    let shape = Shape { echo: request.echo, ..shape() };
    let response: Value = serde_json::from_slice(&Responses.write_response(&ChatResponse::default(), &shape)).expect("json");
    for key in [
        "id",
        "object",
        "created_at",
        "completed_at",
        "status",
        "background",
        "error",
        "incomplete_details",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "model",
        "output",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt_cache_key",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "usage",
        "user",
        "metadata",
        "presence_penalty",
        "frequency_penalty",
    ] {
        assert!(response.get(key).is_some(), "{key}");
    }
    assert_eq!(
        (&response["temperature"], &response["completed_at"], &response["model"]),
        (&json!(0.5), &json!(1_700_000_000), &json!("asked"))
    );
    assert_eq!(response["tools"][0], json!({"type":"function","name":"f","description":null,"parameters":null,"strict":null}));
    assert_eq!(response["reasoning"], json!({"effort":"low","summary":null}));
    assert_eq!(response["text"], json!({"format":{"type":"text"},"verbosity":"low"}));
}

#[test]
fn a_cut_answer_is_incomplete_and_a_broken_one_failed() {
    let finish = |kind| crate::ir::response::Finish { kind, ..Default::default() };
    let answer = |kind| ChatResponse { blocks: vec![Block::text("a")], finish: finish(kind), ..ChatResponse::default() };
    for (kind, status, reason) in [
        (FinishKind::Stop, "completed", Value::Null),
        (FinishKind::Length, "incomplete", json!({"reason":"max_output_tokens"})),
        (FinishKind::Filter, "incomplete", json!({"reason":"content_filter"})),
    ] {
        let told = write_stream(&shape(), events(&answer(kind)));
        let end = told.last().expect("an end");
        assert_eq!((&end["type"], &end["response"]["incomplete_details"]), (&json!(format!("response.{status}")), &reason));
        assert_eq!(end["response"]["output"][0]["status"], status);
        assert_eq!(body(&answer(kind))["output"], end["response"]["output"]);
    }

    let (mut writer, mut out) = (Responses.stream_writer(&shape()), Vec::new());
    for event in events(&answer(FinishKind::Stop)).into_iter().take(3) {
        writer.event(event, &mut out);
    }
    writer.error(&ClientError::new(ErrorKind::Upstream, "gone"), "7", &mut out);
    let told = parse(&out);
    let end = told.last().expect("an end");
    assert_eq!((&end["type"], &end["response"]["status"]), (&json!("response.failed"), &json!("failed")));
    assert_eq!(end["response"]["error"], json!({"code":"server_error","message":"gone"}));
}

#[test]
fn interleaved_calls_are_told_one_after_the_other() {
    let open = |block, id: &str| ChatEvent::Open {
        block,
        head: crate::ir::event::Head::ToolCall { id: id.to_owned(), name: "f".to_owned(), form: CallForm::Function },
    };
    let delta = |block, text: &str| ChatEvent::Delta { block, text: text.to_owned() };
    let end = events(&ChatResponse::default()).pop().expect("an end");
    let told = write_stream(
        &shape(),
        vec![
            events(&ChatResponse::default()).remove(0),
            open(0, "a"),
            open(1, "b"),
            delta(1, "{\"b\":"),
            delta(0, "{\"a\":1}"),
            ChatEvent::Close { block: 0 },
            delta(1, "2}"),
            ChatEvent::Close { block: 1 },
            end,
        ],
    );
    let calls = said(&consistent(&told)).calls;
    assert_eq!(calls, [("a".to_owned(), "f".to_owned(), "{\"a\":1}".to_owned()), ("b".to_owned(), "f".to_owned(), "{\"b\":2}".to_owned())]);
}

#[test]
fn sloppy_streams_lose_nothing() {
    let frames = |list: &[Value]| list.iter().map(|event| format!("data: {event}\n\n")).collect::<String>();
    let end =
        json!({"type":"response.completed","response":{"status":"completed","output":[],"usage":{"input_tokens":3,"output_tokens":2}}});
    // Neither beginnings nor numbers, ids that differ, deltas only.
    let bare = frames(&[
        json!({"type":"response.output_text.delta","item_id":"x","delta":"a"}),
        json!({"type":"response.output_text.delta","item_id":"x","delta":"b"}),
        json!({"type":"response.function_call_arguments.delta","output_index":5,"item_id":"y","delta":"{\"k\":"}),
        json!({"type":"response.output_item.done","output_index":5,"item":{"type":"function_call","id":"z","name":"f","arguments":"{\"k\":1}"}}),
        end.clone(),
    ]);
    // Nothing but the end.
    let late = frames(&[json!({"type":"response.completed","response":{"status":"completed","output":[
        {"type":"message","content":[{"type":"output_text","text":"ab"}]},{"type":"function_call","id":"z","name":"f","arguments":"{\"k\":1}"}],
        "usage":{"input_tokens":3,"output_tokens":2}}})]);
    // Whole texts instead of deltas.
    let whole = frames(&[
        json!({"type":"response.output_text.done","output_index":0,"text":"ab"}),
        json!({"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","call_id":"z","name":"f","arguments":""}}),
        json!({"type":"response.function_call_arguments.done","output_index":1,"arguments":"{\"k\":1}"}),
        end,
    ]);
    for stream in [bare, late, whole] {
        let (events, complete) = streamed(&stream, &[]);
        assert_eq!((grammar::check(&events), complete), (Ok(()), true), "{stream}");
        let response = assembled(&events);
        let shown = said(&body(&response));
        assert_eq!((shown.text.as_str(), shown.calls), ("ab", vec![("z".to_owned(), "f".to_owned(), "{\"k\":1}".to_owned())]));
        assert_eq!((response.finish.kind, response.usage.map(|u| (u.input, u.output))), (FinishKind::ToolCalls, Some((3, 2))));
    }
}

#[test]
fn errors_in_a_stream_are_faults() {
    for (event, status, message) in [
        (r#"{"type":"error","code":"rate_limit_exceeded","message":"slow","param":null,"sequence_number":3}"#, 429, "slow"),
        (r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"oh"}}}"#, 502, "oh"),
        (r#"{"error":{"message":"plain"}}"#, 502, "plain"),
    ] {
        let fault = Responses.stream_reader(&carry()).event(b"", event.as_bytes(), &mut Vec::new()).expect_err(event);
        assert_eq!((fault.status, fault.message.as_str()), (status, message));
    }
    assert!(Responses.stream_reader(&carry()).event(b"", b"{\"type\"", &mut Vec::new()).is_err());
}

#[test]
fn citations_log_probabilities_and_images_survive() {
    let answer = json!({"status":"completed","output":[
        {"type":"message","content":[{"type":"output_text","text":"ab","annotations":[{"type":"url_citation","url":"u","title":"t","start_index":0,"end_index":1}],
            "logprobs":[{"token":"ab","logprob":-0.5,"bytes":[97,98],"top_logprobs":[]}]}]},
        {"type":"image_generation_call","id":"ig","status":"completed","result":"AAAA","output_format":"webp"}]});
    let response = Responses.read_response("", answer.to_string().as_bytes(), &carry()).expect("an answer");
    assert!(matches!(response.blocks[1].kind, BlockKind::Media(_)) && response.logprobs.is_some());
    let told = consistent(&write_stream(&shape(), events(&response)));
    assert_eq!(told["output"][0]["content"], answer["output"][0]["content"]);
    assert_eq!((&told["output"][1]["result"], &told["output"][1]["output_format"]), (&json!("AAAA"), &json!("webp")));
}
