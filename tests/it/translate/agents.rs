//! What coding agents send over Responses, with upstreams of every dialect.

use serde_json::{Value, json};

use super::scenes::{anthropic_message, full_scene, proxy_before, read_answer};
use crate::support::{
    client::{HttpAnswer, Request},
    proxy::{Proxy, Setup},
    upstream::{Scene, Upstream},
};

const DIALECTS: [&str; 4] = ["openai", "anthropic", "gemini", "ollama"];

fn ask(proxy: &Proxy, body: &Value) -> HttpAnswer {
    proxy.send(&Request::post("/v1/responses", body))
}

fn chat_call(name: &str, arguments: &str) -> Scene {
    let call = json!({"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}});
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    Scene::json(
        200,
        &json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}),
    )
}

/// The names of the tools that a chat upstream was offered.
fn offered(upstream: &Upstream, n: usize) -> Vec<String> {
    let sent = upstream.nth_request(n).json();
    let tools = sent["tools"].as_array().cloned().unwrap_or_default();
    tools
        .iter()
        .map(|tool| tool["function"]["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn tools_with_equal_names_are_renamed_and_mapped_back() {
    let schema = json!({"type": "object", "properties": {}});
    let function = json!({"type": "function", "name": "docs__search", "parameters": schema});
    let inner = json!({"type": "custom", "name": "search"});
    let added = json!({"type": "namespace", "name": "docs", "tools": [inner]});
    let input = json!([
        {"type": "additional_tools", "role": "developer", "tools": [added]},
        {"role": "user", "content": "a"}
    ]);
    let shell = json!({"type": "function", "name": "shell", "parameters": schema});
    let tools = json!([function, {"type": "shell"}, shell]);
    let (upstream, proxy) = proxy_before(
        "openai",
        vec![
            chat_call("docs__search_2", r#"{"input":"x"}"#),
            chat_call("shell_2", r#"{"command":"ls"}"#),
        ],
    );
    let body = json!({"model": "m", "tools": tools, "input": input});

    let first = ask(&proxy, &body).json();
    let second = ask(&proxy, &body).json();

    assert_eq!(offered(&upstream, 0), ["docs__search", "shell_2", "shell", "docs__search_2"]);
    let call = &first["output"][0];
    assert_eq!(
        (&call["type"], &call["namespace"], &call["name"], &call["input"]),
        (&json!("custom_tool_call"), &json!("docs"), &json!("search"), &json!("x")),
        "{first:#}"
    );
    let call = &second["output"][0];
    assert_eq!(
        (&call["type"], &call["action"]["commands"]),
        (&json!("shell_call"), &json!(["ls"])),
        "{second:#}"
    );
}

#[test]
fn found_tools_are_kept_when_a_conversation_continues_by_id() {
    let schema = json!({"type": "object", "properties": {}});
    let search = json!({"type": "tool_search", "execution": "client", "parameters": schema});
    let found = json!({"type": "namespace", "name": "cal", "tools": [{"type": "function", "name": "add", "parameters": schema}]});
    let input = json!([
        {"role": "user", "content": "a"},
        {"type": "tool_search_call", "call_id": "s", "execution": "client", "arguments": {"query": "x"}},
        {"type": "tool_search_output", "call_id": "s", "execution": "client", "tools": [found]}
    ]);
    let (upstream, proxy) =
        proxy_before("openai", vec![chat_call("cal__add", "{}"), chat_call("cal__add", "{}")]);

    let first = ask(&proxy, &json!({"model": "m", "tools": [search], "input": input})).json();
    let result = json!({"type": "function_call_output", "call_id": "call_1", "output": "r"});
    let second = ask(
        &proxy,
        &json!({"model": "m", "tools": [search], "input": [result], "previous_response_id": first["id"]}),
    )
    .json();

    assert_eq!(offered(&upstream, 1), ["tool_search", "cal__add"]);
    let call = &second["output"][0];
    assert_eq!((&call["namespace"], &call["name"]), (&json!("cal"), &json!("add")), "{second:#}");
}

#[test]
fn compacted_conversation_continues_by_id_from_the_summary() {
    let (upstream, proxy) = proxy_before(
        "openai",
        vec![full_scene("openai", "they greeted"), full_scene("openai", "on")],
    );
    let input = json!([{"role": "user", "content": "hello"}, {"type": "compaction_trigger"}]);

    let first = ask(&proxy, &json!({"model": "m", "input": input})).json();
    let second =
        ask(&proxy, &json!({"model": "m", "input": "next", "previous_response_id": first["id"]}));

    assert_eq!(read_answer("responses", false, &second).text, "on", "{}", second.text());
    assert_eq!(first["output"][0]["type"], "compaction", "{first:#}");
    let sent = upstream.nth_request(1).json()["messages"].to_string();
    assert!(
        sent.contains("they greeted") && !sent.contains("Summarise") && !sent.contains("\"hello\""),
        "{sent}"
    );
    let id = first["id"].as_str().expect("an id");
    let items = proxy.send(&Request::get(&format!("/v1/responses/{id}/input_items"))).json();
    assert_eq!(items["data"].as_array().map(Vec::len), Some(1), "{items:#}");
}

#[test]
fn local_compaction_is_readable_by_responses_upstreams() {
    let (upstream, proxy) = proxy_before("responses", vec![full_scene("responses", "on")]);
    let item = json!({"type": "compaction", "encrypted_content": "rs_aip_summary:they greeted"});

    let next =
        ask(&proxy, &json!({"model": "m", "input": [item, {"role": "user", "content": "b"}]}));

    assert_eq!(read_answer("responses", false, &next).text, "on", "{}", next.text());
    let sent = upstream.nth_request(0).json()["input"].to_string();
    assert!(sent.contains("they greeted") && !sent.contains("compaction"), "{sent}");
}

#[test]
fn answer_without_a_summary_is_not_a_compaction() {
    let (_upstream, proxy) = proxy_before(
        "openai",
        vec![
            chat_call("f", "{}"),
            chat_call("f", "{}"),
            chat_call("f", "{}"),
            chat_call("f", "{}"),
        ],
    );
    let input = json!([{"role": "user", "content": "hello"}, {"type": "compaction_trigger"}]);
    let answer = ask(&proxy, &json!({"model": "m", "input": input}));
    assert!(answer.status >= 500 && answer.text().contains("summary"), "{}", answer.text());
}

#[test]
fn item_references_to_local_responses_resolve_and_others_fail() {
    let (upstream, proxy) =
        proxy_before("openai", vec![chat_call("f", "{}"), full_scene("openai", "done")]);
    let tools = json!([{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}]);
    let first = ask(&proxy, &json!({"model": "m", "tools": tools, "input": "a"})).json();
    let reference = json!({"type": "item_reference", "id": first["output"][0]["id"]});
    let result = json!({"type": "function_call_output", "call_id": "call_1", "output": "r"});
    let printed = json!({"role": "user", "content": "a"});

    let second =
        ask(&proxy, &json!({"model": "m", "tools": tools, "input": [printed, reference, result]}));
    let twice = ask(&proxy, &json!({"model": "m", "input": [printed, reference, reference]}));
    let unknown = json!({"type": "item_reference", "id": "msg_1"});
    let unknown = ask(&proxy, &json!({"model": "m", "input": [printed, unknown]}));

    assert_eq!(read_answer("responses", false, &second).text, "done", "{}", second.text());
    let sent = upstream.nth_request(1).json();
    assert_eq!(sent["messages"][1]["tool_calls"][0]["function"]["name"], "f", "{sent:#}");
    assert_eq!(sent["messages"][2]["tool_call_id"], "call_1", "{sent:#}");
    assert_eq!((twice.status, unknown.status), (400, 400), "{}", unknown.text());
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn foreign_files_and_caches_are_refused_by_name() {
    let file =
        json!([{"role": "user", "content": [{"type": "input_image", "file_id": "file-abc"}]}]);
    for dialect in DIALECTS {
        let (upstream, proxy) = proxy_before(dialect, vec![full_scene(dialect, "seen")]);
        let answer = ask(&proxy, &json!({"model": "m", "input": file}));
        if dialect == "openai" {
            assert_eq!(answer.status, 200, "{}", answer.text());
            continue;
        }
        assert_eq!(answer.status, 400, "{dialect}: {}", answer.text());
        assert_eq!(answer.json()["error"]["param"], "file_id", "{}", answer.text());
        assert!(upstream.requests().is_empty());
    }
    let (upstream, proxy) = proxy_before("openai", Vec::new());
    let stored = json!({"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/a", "mimeType": "image/png"}});
    let contents = |part: Value| json!([{"role": "user", "parts": [part]}]);
    for (body, field) in [
        (json!({"contents": contents(stored)}), "fileUri"),
        (
            json!({"contents": contents(json!({"text": "a"})), "cachedContent": "cachedContents/a"}),
            "cachedContent",
        ),
    ] {
        let answer = proxy.send(&Request::post("/v1beta/models/m:generateContent", &body));
        assert!(answer.status == 400 && answer.text().contains(field), "{}", answer.text());
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn file_is_routed_to_the_upstream_that_has_it() {
    let (chat, claude) = (
        Upstream::start(vec![full_scene("openai", "seen")]),
        Upstream::start(vec![Scene::json(
            200,
            &anthropic_message(&json!([{"type": "text", "text": "unseen"}]), "end_turn"),
        )]),
    );
    let proxy = Setup::new()
        .upstream_with_dialect("anthropic", "one", &claude, "")
        .upstream_with_dialect("openai", "two", &chat, "")
        .start();
    let file =
        json!([{"role": "user", "content": [{"type": "input_file", "file_id": "file-abc"}]}]);
    let answer = ask(&proxy, &json!({"model": "m", "input": file}));
    assert_eq!(read_answer("responses", false, &answer).text, "seen", "{}", answer.text());
    assert!(claude.requests().is_empty());
}

#[test]
fn empty_items_produce_no_empty_message() {
    let printed = json!({"role": "user", "content": "a"});
    for dialect in ["openai", "ollama"] {
        for item in [
            json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "t"}]}),
            json!({"type": "mcp_approval_response", "approval_request_id": "a", "approve": true}),
            json!({"type": "web_search_call", "id": "w", "status": "completed"}),
            json!({"type": "shell_call_output", "call_id": "c", "output": []}),
            json!({"type": "message", "role": "assistant", "content": []}),
            json!({"role": "user", "content": ""}),
        ] {
            let (upstream, proxy) =
                proxy_before(dialect, vec![full_scene(dialect, "x"), full_scene(dialect, "x")]);
            for (n, input) in [json!([item, printed]), json!([item])].iter().enumerate() {
                let answer = ask(&proxy, &json!({"model": "m", "input": input}));
                assert_eq!(answer.status, 200, "{}", answer.text());
                let sent = upstream.nth_request(n).json();
                let messages = sent["messages"].as_array().cloned().unwrap_or_default();
                assert!(
                    !messages.is_empty()
                        && messages.iter().all(|one| {
                            one["content"].as_str().is_some_and(|text| !text.is_empty())
                        }),
                    "{dialect} {input}: {sent:#}"
                );
            }
        }
    }
}
