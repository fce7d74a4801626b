//! Stored responses that a client refers to later, whichever upstream created them.

use serde_json::{Value, json};

use super::scenes::{
    anthropic_message, full_scene, proxy_before, read_answer, response, stream_scene,
};
use crate::support::{
    client::{HttpAnswer, Request},
    proxy::{Proxy, Setup, secret},
    upstream::{Scene, Upstream},
};

fn create_response(proxy: &Proxy, body: &Value) -> HttpAnswer {
    proxy.send(&Request::post("/v1/responses", body))
}

fn get_path(proxy: &Proxy, path: &str) -> HttpAnswer {
    proxy.send(&Request::get(&format!("/v1/responses/{path}")))
}

#[test]
fn conversation_continues_by_id_over_a_chat_upstream() {
    let (upstream, proxy) = proxy_before(
        "openai",
        vec![
            full_scene("openai", "one"),
            full_scene("openai", "two"),
            full_scene("openai", "three"),
        ],
    );
    let first =
        create_response(&proxy, &json!({"model": "m", "input": "a", "instructions": "be"})).json();
    let second = create_response(
        &proxy,
        &json!({"model": "m", "input": "b", "previous_response_id": first["id"]}),
    )
    .json();

    let third = create_response(
        &proxy,
        &json!({"model": "m", "input": "c", "previous_response_id": second["id"]}),
    );

    assert_eq!(read_answer("responses", false, &third).text, "three", "{}", third.text());
    assert_eq!(third.json()["previous_response_id"], second["id"]);
    let printed: Vec<(String, String)> = upstream.nth_request(2).json()["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| {
            (
                message["role"].as_str().expect("a role").to_owned(),
                message["content"].as_str().expect("a text").to_owned(),
            )
        })
        .collect();
    let want =
        [("user", "a"), ("assistant", "one"), ("user", "b"), ("assistant", "two"), ("user", "c")];
    assert_eq!(printed, want.map(|(role, text)| (role.to_owned(), text.to_owned())));
}

#[test]
fn tool_loop_continues_by_id_over_gemini() {
    let call = json!({"candidates": [{"content": {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"}]}, "finishReason": "STOP"}]});
    let (upstream, proxy) =
        proxy_before("gemini", vec![Scene::json(200, &call), full_scene("gemini", "done")]);
    let tools = json!([{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}]);
    let first =
        create_response(&proxy, &json!({"model": "m", "input": "a", "tools": tools})).json();
    let output = first["output"]
        .as_array()
        .expect("items")
        .iter()
        .find(|item| item["type"] == "function_call")
        .expect("a call");
    let result =
        json!({"type": "function_call_output", "call_id": output["call_id"], "output": "r"});

    let second = create_response(
        &proxy,
        &json!({"model": "m", "input": [result], "tools": tools, "previous_response_id": first["id"]}),
    );

    assert_eq!(read_answer("responses", false, &second).text, "done", "{}", second.text());
    let sent = upstream.nth_request(1).json();
    assert_eq!(sent["contents"][1]["parts"][0]["thoughtSignature"], "c2ln", "{sent:#}");
    assert_eq!(sent["contents"][2]["parts"][0]["functionResponse"]["name"], "f", "{sent:#}");
}

#[test]
fn local_response_can_be_fetched_listed_and_deleted() {
    let (upstream, proxy) =
        proxy_before("anthropic", vec![stream_scene("anthropic", &["hel", "lo"])]);
    let streamed = create_response(
        &proxy,
        &json!({"model": "m", "stream": true, "input": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}),
    );
    let id = streamed
        .text()
        .split("\"id\":\"resp_")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("an id")
        .to_owned();
    let id = format!("resp_{id}");

    let fetched = get_path(&proxy, &id);
    let items = get_path(&proxy, &format!("{id}/input_items?order=asc&limit=1"));
    let cancelled = proxy.send(&Request::post(&format!("/v1/responses/{id}/cancel"), &json!({})));
    let deleted = proxy.send(&Request::get(&format!("/v1/responses/{id}")).method("DELETE"));
    let gone = get_path(&proxy, &id);
    let lost =
        create_response(&proxy, &json!({"model": "m", "input": "c", "previous_response_id": id}));

    assert_eq!(read_answer("responses", false, &fetched).text, "hello", "{}", fetched.text());
    assert_eq!(
        (fetched.json()["id"].as_str(), &fetched.json()["object"]),
        (Some(id.as_str()), &json!("response"))
    );
    let items = items.json();
    assert_eq!(
        (
            &items["data"][0]["content"][0]["text"],
            &items["has_more"],
            items["data"].as_array().map(Vec::len)
        ),
        (&json!("a"), &json!(true), Some(1)),
        "{items:#}"
    );
    assert_eq!(cancelled.status, 400, "{}", cancelled.text());
    assert_eq!(deleted.json(), json!({"id": id, "object": "response", "deleted": true}));
    assert_eq!((gone.status, lost.status), (404, 400), "{}", lost.text());
    assert_eq!(lost.json()["error"]["code"], "previous_response_not_found");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn store_false_stores_nothing() {
    let (_upstream, proxy) = proxy_before("openai", vec![full_scene("openai", "one")]);
    let first =
        create_response(&proxy, &json!({"model": "m", "input": "a", "store": false})).json();
    assert_eq!(first["store"], false);
    assert_eq!(get_path(&proxy, first["id"].as_str().expect("an id")).status, 404);
    let next = create_response(
        &proxy,
        &json!({"model": "m", "input": "b", "previous_response_id": first["id"]}),
    );
    assert_eq!(next.status, 400, "{}", next.text());
}

#[test]
fn passed_response_is_fetched_from_its_upstream_with_its_key() {
    let item = json!([{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "there", "annotations": []}]}]);
    let home =
        Upstream::with_director(move |seen, _| match (seen.method.as_str(), seen.path.as_str()) {
            ("POST", "/v1/responses") => Scene::json(200, &response(&item)),
            ("GET", "/v1/responses/resp_up") => Scene::json(200, &response(&item)),
            ("GET", "/v1/responses/resp_up/input_items?limit=2") => {
                Scene::json(200, &json!({"object": "list", "data": []}))
            }
            ("POST", "/v1/responses/resp_up/cancel") => Scene::json(
                200,
                &json!({"id": "resp_up", "object": "response", "status": "cancelled"}),
            ),
            ("DELETE", "/v1/responses/resp_up") => {
                Scene::json(200, &json!({"id": "resp_up", "object": "response", "deleted": true}))
            }
            _ => Scene::status(404),
        });
    let other = Upstream::start(vec![full_scene("responses", "elsewhere")]);
    let proxy = Setup::new()
        .upstream_with_dialect("responses", "home", &home, "priority = 1")
        .upstream_with_dialect("responses", "other", &other, "priority = 2")
        .start();
    assert_eq!(
        create_response(&proxy, &json!({"model": "m", "input": "a"})).json()["id"],
        "resp_up"
    );

    let fetched = get_path(&proxy, "resp_up");
    let items = get_path(&proxy, "resp_up/input_items?limit=2");
    let cancelled = proxy.send(&Request::post("/v1/responses/resp_up/cancel", &json!({})));
    let next = create_response(
        &proxy,
        &json!({"model": "m", "input": "b", "previous_response_id": "resp_up"}),
    );
    let deleted = proxy.send(&Request::get("/v1/responses/resp_up").method("DELETE"));
    let gone = get_path(&proxy, "resp_up");

    assert_eq!(
        read_answer("responses", false, &fetched).text,
        "there",
        "{} {}",
        fetched.status,
        fetched.text()
    );
    assert_eq!(
        (items.status, cancelled.status, next.status, deleted.status, gone.status),
        (200, 200, 200, 200, 404),
        "{}",
        cancelled.text()
    );
    assert!(other.requests().is_empty());
    let seen = home.all_requests();
    let asked = seen.iter().filter(|seen| seen.path.contains("/responses"));
    assert!(
        asked.clone().count() == 6
            && asked.into_iter().all(|seen| seen.key() == secret("home", "work")),
        "{:?}",
        seen.iter().map(|s| &s.path).collect::<Vec<_>>()
    );
}

#[test]
fn conversation_is_compacted_over_a_chat_upstream_and_continues() {
    let (upstream, proxy) = proxy_before(
        "openai",
        vec![full_scene("openai", "they greeted"), full_scene("openai", "on")],
    );
    let body = json!({"model": "m", "instructions": "be", "input": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]});

    let compact = proxy.send(&Request::post("/v1/responses/compact", &body));
    let mut input = compact.json()["output"].as_array().cloned().expect("items");
    input.push(json!({"role": "user", "content": "next"}));
    let next = create_response(&proxy, &json!({"model": "m", "input": input}));

    assert_eq!(
        (compact.status, &compact.json()["object"]),
        (200, &json!("response.compaction")),
        "{}",
        compact.text()
    );
    assert_eq!(read_answer("responses", false, &next).text, "on", "{}", next.text());
    assert!(upstream.nth_request(0).json()["messages"].to_string().contains("Summarise"));
    let sent = upstream.nth_request(1).json()["messages"].to_string();
    assert!(
        sent.contains("they greeted") && sent.contains("hello") && !sent.contains("\"hi\""),
        "{sent}"
    );
}

#[test]
fn another_project_cannot_continue_a_response() {
    let upstream = Upstream::start(vec![Scene::json(
        200,
        &anthropic_message(&json!([{"type": "text", "text": "mine"}]), "end_turn"),
    )]);
    let other = "aip-it-ffffffffffffffffffffffffffffffff";
    let proxy = Setup::new()
        .config(&format!("[[project]]\nname = \"other\"\nkey = \"{other}\"\n"))
        .upstream_with_dialect("anthropic", "one", &upstream, "")
        .start();
    let first = create_response(&proxy, &json!({"model": "m", "input": "a"})).json();
    let id = first["id"].as_str().expect("an id");
    let theirs = |request: Request| request.bearer(other).send(proxy.addr).status;
    assert_eq!(get_path(&proxy, id).status, 200);
    assert_eq!(theirs(Request::get(&format!("/v1/responses/{id}"))), 404);
    assert_eq!(
        theirs(Request::post(
            "/v1/responses",
            &json!({"model": "m", "input": "b", "previous_response_id": id})
        )),
        400
    );
}

#[test]
fn unknown_response_is_continued_for_the_only_project() {
    let answer = || full_scene("responses", "known there");
    let body = json!({"model": "m", "input": "b", "previous_response_id": "resp_earlier"});
    let upstream = Upstream::start(vec![answer()]);
    let start = |more: &str| {
        let setup = Setup::new().config(more);
        setup.upstream_with_dialect("responses", "one", &upstream, "").start()
    };

    let alone = create_response(&start(""), &body);
    let other =
        "[[project]]\nname = \"other\"\nkey = \"aip-it-ffffffffffffffffffffffffffffffff\"\n";
    let shared = create_response(&start(other), &body);

    assert_eq!(alone.status, 200, "{}", alone.text());
    assert_eq!(upstream.nth_request(0).json()["previous_response_id"], "resp_earlier");
    assert_eq!(shared.json()["error"]["code"], "previous_response_not_found", "{}", shared.text());
}
