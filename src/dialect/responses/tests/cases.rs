//! Tests of cases that the recordings lack.

use super::*;
use crate::ir::{
    block::{
        Block, BlockKind, CallKind, Reasoning, ReasoningSignature, SignatureKind, ToolCall,
        ToolResult,
    },
    fault::ProxyErrorKind,
    op::Dialect,
    request::{ChatMessage, Role},
    tool::{FunctionTool, Tool, ToolChoice},
};

#[test]
fn bridged_custom_tools_return_free_text() {
    let shape = ResponseSpec { custom_tools: vec!["apply_patch".to_owned()], ..shape() };
    let call = ToolCall {
        id: "c".to_owned(),
        name: "apply_patch".to_owned(),
        arguments: r#"{"input":"*** Begin\nx"}"#.to_owned(),
        form: CallKind::Function,
    };
    let answer = ChatResponse {
        blocks: vec![Block::new(BlockKind::ToolCall(call))],
        ..ChatResponse::default()
    };
    let response = check_consistency(&write_stream(&shape, to_events(&answer)));
    let item = json!({"id":"ctc_7_0","type":"custom_tool_call","status":"completed","call_id":"c","name":"apply_patch","input":"*** Begin\nx"});
    assert_eq!(response["output"], json!([item]));

    // On the next turn it is a free-text call again, in whichever form it was stored.
    let request = ChatRequest {
        messages: vec![ChatMessage::new(Role::Assistant, answer.blocks)],
        tools: read_request(&json!({"input":"x","tools":[{"type":"custom","name":"apply_patch"}]}))
            .tools,
        ..ChatRequest::default()
    };
    let (body, _) = write_request(&request);
    assert_eq!(
        body["input"][0],
        json!({"type":"custom_tool_call","call_id":"c","name":"apply_patch","input":"*** Begin\nx"})
    );
    assert_eq!(body["input"][1]["type"], "custom_tool_call_output");
}

#[test]
fn namespaced_tools_are_flattened_and_grouped_again() {
    let tools = json!([{"type":"namespace","name":"crm","description":"d","tools":[
        {"type":"function","name":"get","parameters":{"type":"object"}},{"type":"function","name":"put","strict":true}]},{"type":"function","name":"get"}]);
    let call = json!({"type":"function_call","call_id":"c","namespace":"crm","name":"get","arguments":"{}"});
    let output = json!({"type":"function_call_output","call_id":"c","output":"r"});
    let request = read_request(
        &json!({"input":[call, output],"tools":tools,"tool_choice":{"type":"function","name":"put","namespace":"crm"}}),
    );
    assert_eq!(
        request.tools.iter().filter_map(Tool::name).collect::<Vec<_>>(),
        ["crm__get", "crm__put", "get"]
    );
    assert_eq!(request.tool_choice, Some(ToolChoice::Named("crm__put".to_owned())));
    let encoded = Responses.write_request(&request, &traits());
    let body: Value = serde_json::from_slice(&encoded.body).expect("json");
    assert_eq!((&body["tools"], &body["input"]), (&tools, &json!([call, output])));

    let answer = json!({"output":[{"type":"function_call","call_id":"d","namespace":"crm","name":"get","arguments":"{}"}],"status":"completed"});
    let response = Responses
        .read_response("", answer.to_string().as_bytes(), &encoded.context)
        .expect("an answer");
    assert!(
        matches!(&response.blocks[0].kind, BlockKind::ToolCall(call) if call.name == "crm__get")
    );
    let shape = ResponseSpec {
        namespaced_tools: vec![("crm__get".to_owned(), "crm".to_owned(), "get".to_owned())],
        ..shape()
    };
    let reported = check_consistency(&write_stream(&shape, to_events(&response)));
    assert_eq!(
        (&reported["output"][0]["namespace"], &reported["output"][0]["name"]),
        (&json!("crm"), &json!("get"))
    );
}

#[test]
fn results_follow_their_calls_and_missing_halves_are_added() {
    let call = |id: &str| {
        Block::new(BlockKind::ToolCall(ToolCall {
            id: id.to_owned(),
            name: "f".to_owned(),
            ..ToolCall::default()
        }))
    };
    let result = |id: &str| {
        Block::new(BlockKind::ToolResult(ToolResult {
            call: id.to_owned(),
            content: vec![Block::text("r")],
            ..ToolResult::default()
        }))
    };
    let request = ChatRequest {
        messages: vec![
            ChatMessage::new(Role::Assistant, vec![call("a"), call("b")]),
            ChatMessage::new(Role::User, vec![Block::text("meanwhile")]),
            ChatMessage::new(Role::User, vec![Block::text("and"), result("a"), result("lost")]),
        ],
        ..ChatRequest::default()
    };
    let (body, losses) = write_request(&request);
    let reported: Vec<_> = body["input"]
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
    assert_eq!((reported, losses), (want.to_vec(), Vec::new()));
}

#[test]
fn foreign_reasoning_is_dropped_or_plain_and_own_is_sent_back() {
    let thought = |proof: Option<ReasoningSignature>| Block {
        signature: proof,
        ..Block::new(BlockKind::Reasoning(Reasoning { text: "hm".to_owned(), summary: false }))
    };
    let proof = |dialect| ReasoningSignature {
        dialect,
        kind: SignatureKind::Encrypted,
        value: "sealed".to_owned(),
        id: Some("rs_1".to_owned()),
    };
    let request = |block| ChatRequest {
        messages: vec![ChatMessage::new(Role::Assistant, vec![block])],
        ..ChatRequest::default()
    };

    let (body, losses) = write_request(&request(thought(Some(proof(Dialect::Anthropic)))));
    assert_eq!((&body["input"], losses), (&json!([]), vec![Loss("reasoning.proof".into())]));
    let (body, losses) = write_request(&request(thought(Some(proof(Dialect::Responses)))));
    let own = json!({"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"sealed"});
    assert_eq!((&body["input"][0], losses), (&own, Vec::new()));
    let plain = Responses.write_request(
        &request(thought(None)),
        &TargetTraits { accepts_reasoning: true, ..traits() },
    );
    assert!(
        std::str::from_utf8(&plain.body)
            .expect("text")
            .contains(r#""content":[{"type":"reasoning_text","text":"hm"}]"#)
    );

    // A reasoning item that aiproxy made from another dialect is not sent to a provider.
    let made = write_body(&ChatResponse { blocks: vec![thought(None)], ..ChatResponse::default() });
    assert_eq!(made["output"][0]["id"], "rs_aip_7_0");
    let (back, losses) = write_request(&read_request(&json!({ "input": made["output"] })));
    assert_eq!((&back["input"], losses), (&json!([]), vec![Loss("reasoning".into())]));
}

#[test]
fn settings_of_other_dialects_are_mapped_or_lost() {
    let mut request = read_request(&json!({"input":"x"}));
    request.extras = Extras::default();
    request.tools =
        vec![Tool::Function(FunctionTool { name: "f".to_owned(), ..FunctionTool::default() })];
    request.tool_choice = Some(ToolChoice::Allowed { names: vec!["f".to_owned()], required: true });
    let settings = &mut request.settings;
    settings.max_tokens = Some(1);
    settings.top_k = crate::base::json::raw::RawJson::parse("4");
    settings.stop = vec!["x".to_owned()];
    settings.n = Some(2);
    settings.user = Some("u".repeat(100));
    settings.logprobs = Some(true);
    settings.reasoning = Some(crate::ir::generation_settings::ReasoningSettings {
        budget_tokens: Some(60_000),
        ..Default::default()
    });
    let (body, losses) = write_request(&request);
    let losses: Vec<_> = losses.iter().map(|loss| loss.0.as_ref()).collect();
    assert_eq!(losses, ["max_tokens", "user", "top_k", "stop", "n"]);
    assert_eq!(body["max_output_tokens"], 16);
    assert_eq!(body["reasoning"], json!({"effort":"high","summary":"auto"}));
    assert_eq!(
        body["include"],
        json!(["reasoning.encrypted_content", "message.output_text.logprobs"])
    );
    assert_eq!(
        body["tool_choice"],
        json!({"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"f"}]})
    );
    assert_eq!(
        body["tools"][0],
        json!({"type":"function","name":"f","parameters":{"type":"object","properties":{}},"strict":false})
    );
    assert_eq!(body["store"], false);
}

#[test]
fn settings_of_this_dialect_round_trip() {
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
    let request = read_request(&body);
    let (back, losses) = write_request(&request);
    assert_eq!((normalize(&back), losses), (normalize(&body), Vec::new()));
    assert_eq!(request.system.len(), 1);
    for (key, wanted) in [("phase", "item.phase"), ("max_tool_calls", "max_tool_calls")] {
        let all = request
            .messages
            .iter()
            .flat_map(|m| &m.blocks)
            .flat_map(|b| b.extras.iter())
            .chain(request.extras.iter());
        assert!(all.map(|(key, _)| key).any(|key| key == wanted), "{key}");
    }
    assert!(
        request.extras.iter().all(|(key, _)| !["store", "background", "include"].contains(&key))
    );
}

#[test]
fn invalid_requests_are_refused_with_the_field() {
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
        let error = Responses.read_request(ChatEndpoint::Chat, body.as_bytes()).expect_err(body);
        assert_eq!(
            (error.kind, error.param.as_deref()),
            (ProxyErrorKind::BadRequest, param),
            "{body}"
        );
    }
}

#[test]
fn answers_have_every_field_of_the_strictest_schema() {
    let request = read_request(
        &json!({"input":"x","temperature":0.5,"tools":[{"type":"function","name":"f"}],"reasoning":{"effort":"low"},"text":{"verbosity":"low"}}),
    );
    let shape = ResponseSpec { echo: request.echoed_fields, ..shape() };
    let response: Value =
        serde_json::from_slice(&Responses.write_response(&ChatResponse::default(), &shape))
            .expect("json");
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
    assert_eq!(
        response["tools"][0],
        json!({"type":"function","name":"f","description":null,"parameters":null,"strict":null})
    );
    assert_eq!(response["reasoning"], json!({"effort":"low","summary":null}));
    assert_eq!(response["text"], json!({"format":{"type":"text"},"verbosity":"low"}));
}

#[test]
fn cut_answer_is_incomplete_and_broken_answer_is_failed() {
    let finish = |kind| crate::ir::response::Finish { kind, ..Default::default() };
    let answer = |kind| ChatResponse {
        blocks: vec![Block::text("a")],
        finish: finish(kind),
        ..ChatResponse::default()
    };
    for (kind, status, reason) in [
        (FinishKind::Stop, "completed", Value::Null),
        (FinishKind::Length, "incomplete", json!({"reason":"max_output_tokens"})),
        (FinishKind::ContentFilter, "incomplete", json!({"reason":"content_filter"})),
    ] {
        let reported = write_stream(&shape(), to_events(&answer(kind)));
        let end = reported.last().expect("an end");
        assert_eq!(
            (&end["type"], &end["response"]["incomplete_details"]),
            (&json!(format!("response.{status}")), &reason)
        );
        assert_eq!(end["response"]["output"][0]["status"], status);
        assert_eq!(write_body(&answer(kind))["output"], end["response"]["output"]);
    }

    let (mut writer, mut out) = (Responses.stream_writer(&shape()), Vec::new());
    for event in to_events(&answer(FinishKind::Stop)).into_iter().take(3) {
        writer.write_event(event, &mut out);
    }
    writer.write_error(&ProxyError::new(ProxyErrorKind::Upstream, "gone"), "7", &mut out);
    let reported = parse(&out);
    let end = reported.last().expect("an end");
    assert_eq!(
        (&end["type"], &end["response"]["status"]),
        (&json!("response.failed"), &json!("failed"))
    );
    assert_eq!(end["response"]["error"], json!({"code":"server_error","message":"gone"}));
}

#[test]
fn interleaved_calls_are_written_sequentially() {
    let open = |block, id: &str| ChatEvent::Open {
        block,
        head: crate::ir::event::BlockStart::ToolCall {
            id: id.to_owned(),
            name: "f".to_owned(),
            form: CallKind::Function,
        },
    };
    let delta = |block, text: &str| ChatEvent::Delta { block, text: text.to_owned() };
    let end = to_events(&ChatResponse::default()).pop().expect("an end");
    let reported = write_stream(
        &shape(),
        vec![
            to_events(&ChatResponse::default()).remove(0),
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
    let calls = visible_answer(&check_consistency(&reported)).calls;
    assert_eq!(
        calls,
        [
            ("a".to_owned(), "f".to_owned(), "{\"a\":1}".to_owned()),
            ("b".to_owned(), "f".to_owned(), "{\"b\":2}".to_owned())
        ]
    );
}

#[test]
fn incomplete_event_sequences_are_read() {
    let frames =
        |list: &[Value]| list.iter().map(|event| format!("data: {event}\n\n")).collect::<String>();
    let end = json!({"type":"response.completed","response":{"status":"completed","output":[],"usage":{"input_tokens":3,"output_tokens":2}}});
    // No start events, no numbers, ids that differ, deltas only.
    let bare = frames(&[
        json!({"type":"response.output_text.delta","item_id":"x","delta":"a"}),
        json!({"type":"response.output_text.delta","item_id":"x","delta":"b"}),
        json!({"type":"response.function_call_arguments.delta","output_index":5,"item_id":"y","delta":"{\"k\":"}),
        json!({"type":"response.output_item.done","output_index":5,"item":{"type":"function_call","id":"z","name":"f","arguments":"{\"k\":1}"}}),
        end.clone(),
    ]);
    // Only the terminal event.
    let late = frames(&[
        json!({"type":"response.completed","response":{"status":"completed","output":[
        {"type":"message","content":[{"type":"output_text","text":"ab"}]},{"type":"function_call","id":"z","name":"f","arguments":"{\"k\":1}"}],
        "usage":{"input_tokens":3,"output_tokens":2}}}),
    ]);
    // Whole texts instead of deltas.
    let whole = frames(&[
        json!({"type":"response.output_text.done","output_index":0,"text":"ab"}),
        json!({"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","call_id":"z","name":"f","arguments":""}}),
        json!({"type":"response.function_call_arguments.done","output_index":1,"arguments":"{\"k\":1}"}),
        end,
    ]);
    for stream in [bare, late, whole] {
        let (events, complete) = read_stream(&stream, &[]);
        assert_eq!((validate::validate_events(&events), complete), (Ok(()), true), "{stream}");
        let response = assemble(&events);
        let shown = visible_answer(&write_body(&response));
        assert_eq!(
            (shown.text.as_str(), shown.calls),
            ("ab", vec![("z".to_owned(), "f".to_owned(), "{\"k\":1}".to_owned())])
        );
        assert_eq!(
            (response.finish.kind, response.usage.map(|u| (u.input, u.output))),
            (FinishKind::ToolCalls, Some((3, 2)))
        );
    }
}

#[test]
fn errors_in_a_stream_are_faults() {
    for (event, status, message) in [
        (
            r#"{"type":"error","code":"rate_limit_exceeded","message":"slow","param":null,"sequence_number":3}"#,
            429,
            "slow",
        ),
        (
            r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"oh"}}}"#,
            502,
            "oh",
        ),
        (r#"{"error":{"message":"plain"}}"#, 502, "plain"),
    ] {
        let fault = Responses
            .stream_reader(&carry())
            .read_event(b"", event.as_bytes(), &mut Vec::new())
            .expect_err(event);
        assert_eq!((fault.status, fault.message.as_str()), (status, message));
    }
    assert!(
        Responses.stream_reader(&carry()).read_event(b"", b"{\"type\"", &mut Vec::new()).is_err()
    );
}

#[test]
fn citations_log_probabilities_and_images_round_trip() {
    let answer = json!({"status":"completed","output":[
        {"type":"message","content":[{"type":"output_text","text":"ab","annotations":[{"type":"url_citation","url":"u","title":"t","start_index":0,"end_index":1}],
            "logprobs":[{"token":"ab","logprob":-0.5,"bytes":[97,98],"top_logprobs":[]}]}]},
        {"type":"image_generation_call","id":"ig","status":"completed","result":"AAAA","output_format":"webp"}]});
    let response =
        Responses.read_response("", answer.to_string().as_bytes(), &carry()).expect("an answer");
    assert!(matches!(response.blocks[1].kind, BlockKind::Media(_)) && response.logprobs.is_some());
    let reported = check_consistency(&write_stream(&shape(), to_events(&response)));
    assert_eq!(reported["output"][0]["content"], answer["output"][0]["content"]);
    assert_eq!(
        (&reported["output"][1]["result"], &reported["output"][1]["output_format"]),
        (&json!("AAAA"), &json!("webp"))
    );
}
