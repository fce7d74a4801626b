//! Rescues: a stream that breaks off after content continues at another upstream, invisibly for the
//! client.

use serde_json::{Value, json};

use super::scenes::{
    DIALECTS, ReadAnswer, anthropic_event, chat_request, read_answer, stream_events, stream_scene,
};
use crate::support::{
    client::{Request, events},
    poll_until,
    proxy::{CLIENT_KEY, Proxy, Setup},
    upstream::{Gate, Scene, Upstream, chunk},
};

/// A model that continues a partial response.
const MODEL: &str = "claude-3-5-haiku-20241022";

/// Serves the model `m` from these upstreams in order, each with its dialect.
fn start_proxy(rescue: bool, model: &str, upstreams: &[(&str, &Upstream)]) -> Proxy {
    let names = ["one", "two", "three"];
    let targets: Vec<String> = (10..)
        .zip(names)
        .take(upstreams.len())
        .map(|(n, name)| {
            format!("{{ upstream = \"{name}\", model = \"{model}\", priority = {n} }}")
        })
        .collect();
    let row =
        format!("[[model]]\nname = \"m\"\ntargets = [{}]\nrescue = {rescue}", targets.join(", "));
    let setup =
        Setup::new().config("[retry]\nbackoff = \"5ms\"\nmax_backoff = \"10ms\"").config(&row);
    upstreams
        .iter()
        .zip(names)
        .fold(setup, |setup, ((dialect, upstream), name)| {
            setup.upstream_with_dialect(dialect, name, upstream, "")
        })
        .start()
}

/// A stream of these texts that breaks off after them.
fn broken_stream(dialect: &str, texts: &[&str]) -> Scene {
    let before = match dialect {
        "openai" => 1,
        "responses" | "anthropic" => 2,
        _ => 0,
    };
    stream_scene(dialect, texts).cut_after(before + texts.len())
}

/// Returns the partial response that an upstream was asked to continue.
fn continued_text(upstream: &Upstream) -> String {
    let asked = upstream.nth_request(0).json();
    let last = asked["messages"].as_array().and_then(|all| all.last()).expect("messages").clone();
    assert_eq!(last["role"], "assistant", "{asked}");
    last["content"].as_str().or(last["content"][0]["text"].as_str()).expect("a text").to_owned()
}

fn explain_last(proxy: &Proxy) -> Value {
    poll_until("the request in the ledger", || {
        serde_json::from_slice(&proxy.cli(&["explain", "last", "--json"]).stdout).ok()
    })
}

fn event_data(answer: &[u8]) -> Vec<Value> {
    events(answer).iter().filter_map(|data| serde_json::from_str(data).ok()).collect()
}

#[test]
fn rescued_stream_is_one_answer_in_every_dialect() {
    for client in DIALECTS {
        for first in ["openai", "anthropic", client] {
            for second in ["openai", "anthropic"] {
                let one = Upstream::start(vec![broken_stream(first, &["Hello ", "wide \n"])]);
                let two = Upstream::start(vec![stream_scene(second, &["\nwor", "ld"])]);
                let proxy = start_proxy(true, MODEL, &[(first, &one), (second, &two)]);

                let answer = proxy.send(&chat_request(client, true, "hi"));

                let seen = read_answer(client, true, &answer);
                assert_eq!(
                    seen,
                    ReadAnswer::text("Hello wide \nworld"),
                    "{client} over {first} then {second}: {}",
                    answer.text()
                );
                assert_eq!(continued_text(&two), "Hello wide");
                assert_eq!(two.nth_request(0).json()["model"], MODEL);
            }
        }
    }
}

#[test]
fn rescued_chat_stream_has_one_id_one_end_and_summed_usage() {
    let usage = |input: u64, output: u64| {
        format!(
            "data: {}\n\n",
            json!({"id": "other", "object": "chat.completion.chunk", "created": 1, "model": "x", "choices": [],
                "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output}})
        )
    };
    let mut rest = stream_events("openai", &["world"]);
    rest.insert(rest.len() - 1, usage(12, 4));
    let one = Upstream::start(vec![broken_stream("openai", &["Hello ", "wide "])]);
    let two = Upstream::start(vec![Scene::events(rest)]);
    let proxy = start_proxy(true, MODEL, &[("openai", &one), ("openai", &two)]);
    let mut body = json!({"model": "m", "stream": true, "max_tokens": 100, "stream_options": {"include_usage": true}});
    body["messages"] = json!([{"role": "user", "content": "hi"}]);

    let answer = proxy.ask(&body);

    assert_eq!(answer.chat_text(), "Hello wide world");
    let all = event_data(&answer.body);
    assert!(
        all.iter().all(|data| data["id"] == "chatcmpl-it" && data["model"] == "m"),
        "{}",
        answer.text()
    );
    assert_eq!(events(&answer.body).iter().filter(|data| *data == "[DONE]").count(), 1);
    assert_eq!(
        all.iter().filter(|data| data["choices"][0]["delta"]["role"] == "assistant").count(),
        1,
        "{}",
        answer.text()
    );
    let reported = &all.last().expect("usage")["usage"];
    assert_eq!(reported["completion_tokens"], 6, "two pieces, then four tokens: {reported}");
    assert!(reported["prompt_tokens"].as_u64() > Some(12), "both were asked: {reported}");
    assert_eq!(two.nth_request(0).json()["max_tokens"], 98, "sent text is not sent again");

    let full = explain_last(&proxy);
    let rows = full["record"]["attempts"].as_array().cloned().unwrap_or_default();
    assert_eq!(
        rows.iter().map(|row| row["task"].as_str().unwrap()).collect::<Vec<_>>(),
        ["answer", "rescue"]
    );
    assert_eq!(rows.iter().map(|row| row["won"] == true).collect::<Vec<_>>(), [false, true]);
    assert!(
        rows[0]["outcome"]
            .as_str()
            .is_some_and(|printed| printed.starts_with("broke off after 11 characters")),
        "{rows:?}"
    );
    assert_eq!(full["record"]["usage"]["output"], 6, "{full}");
    assert_eq!(full["parts"][0]["usage"]["output"], 2, "{full}");
    assert_eq!(full["parts"][1]["usage"]["input"], 12, "{full}");
    assert_eq!(full["record"]["state"], "done");
    let page = String::from_utf8(proxy.cli(&["explain", "last"]).stdout).unwrap();
    assert!(page.contains("two/work (rescue)") && page.contains("continued from there"), "{page}");
}

#[test]
fn rescued_anthropic_stream_continues_its_message_and_block() {
    let one = Upstream::start(vec![broken_stream("anthropic", &["Hello "])]);
    let two = Upstream::start(vec![stream_scene("anthropic", &["world"])]);
    let proxy = start_proxy(true, MODEL, &[("anthropic", &one), ("anthropic", &two)]);

    let answer = proxy.send(&chat_request("anthropic", true, "hi"));

    let kinds: Vec<String> = event_data(&answer.body)
        .iter()
        .map(|data| data["type"].as_str().unwrap_or_default().to_owned())
        .collect();
    let want = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
    ];
    assert_eq!(kinds, [&want[..], &["message_stop"]].concat(), "{}", answer.text());
    assert!(
        event_data(&answer.body)
            .iter()
            .all(|data| data.get("index").is_none_or(|index| index == 0))
    );
}

#[test]
fn mid_stream_error_and_second_break_are_rescued() {
    let overloaded =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}});
    let mut failing = stream_events("anthropic", &["one "]);
    failing.truncate(3);
    failing.push(anthropic_event(&overloaded));
    let one = Upstream::start(vec![Scene::events(failing)]);
    let two = Upstream::start(vec![broken_stream("openai", &["two "])]);
    let three = Upstream::start(vec![stream_scene("anthropic", &["three"])]);
    let proxy =
        start_proxy(true, MODEL, &[("anthropic", &one), ("openai", &two), ("anthropic", &three)]);

    let answer = proxy.send(&chat_request("anthropic", true, "hi"));

    assert_eq!(
        read_answer("anthropic", true, &answer),
        ReadAnswer::text("one two three"),
        "{}",
        answer.text()
    );
    assert_eq!(continued_text(&three), "one two");
}

#[test]
fn streams_that_cannot_be_rescued_end_with_the_error() {
    let call = json!({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]});
    let mut calling = stream_events("openai", &["I call"]);
    calling.truncate(2);
    calling.push(chunk(&call, None));
    let plain = || broken_stream("openai", &["Hello "]);
    let schema = json!({"response_format": {"type": "json_object"}});
    for (what, rescue, model, scene, more) in [
        ("not asked for", false, MODEL, plain(), json!({})),
        ("a model that takes none", true, "gpt-4o", plain(), json!({})),
        ("a form", true, MODEL, plain(), schema),
        ("several answers", true, MODEL, plain(), json!({"n": 2})),
        ("odds", true, MODEL, plain(), json!({"logprobs": true})),
        ("thinking", true, MODEL, plain(), json!({"reasoning_effort": "high"})),
        ("a call", true, MODEL, Scene::events(calling).cut_after(3), json!({})),
    ] {
        let (one, two) = (
            Upstream::start(vec![scene]),
            Upstream::start(vec![stream_scene("openai", &["world"])]),
        );
        let proxy = start_proxy(rescue, model, &[("openai", &one), ("openai", &two)]);
        let mut body =
            json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
        for (name, value) in more.as_object().expect("members") {
            body[name] = value.clone();
        }

        let answer = proxy.ask(&body);

        assert!(answer.text().contains("\"error\""), "{what}: {}", answer.text());
        assert!(
            !answer.text().contains("[DONE]") && !answer.text().contains("world"),
            "{what}: {}",
            answer.text()
        );
        assert_eq!(two.requests().len(), 0, "{what}");
    }
}

#[test]
fn failed_rescue_names_the_upstream_that_broke_off() {
    let one = Upstream::start(vec![broken_stream("openai", &["Hello "])]);
    let two = Upstream::start(vec![Scene::status(500)]);
    let proxy = start_proxy(true, MODEL, &[("openai", &one), ("openai", &two)]);

    let answer = proxy.send(&chat_request("openai", true, "hi"));

    assert!(
        answer.text().contains("\"error\"") && answer.text().contains("upstream one"),
        "{}",
        answer.text()
    );
    let full = explain_last(&proxy);
    assert_eq!(full["record"]["attempts"].as_array().map(Vec::len), Some(2), "{full}");
    assert_eq!(full["record"]["state"], "failed");
}

#[test]
fn broken_winning_hedge_is_rescued() {
    let one = Upstream::start(vec![stream_scene("openai", &["never"]).head_gate(&Gate::closed())]);
    let two = Upstream::start(vec![broken_stream("anthropic", &["Hello "])]);
    let three = Upstream::start(vec![stream_scene("openai", &["world"])]);
    let targets: Vec<String> = (10..)
        .zip(["one", "two", "three"])
        .map(|(n, name)| {
            format!("{{ upstream = \"{name}\", model = \"{MODEL}\", priority = {n} }}")
        })
        .collect();
    let row = format!(
        "[[model]]\nname = \"m\"\ntargets = [{}]\nrescue = true\nhedge = {{ after = \"50ms\", max_share = 1 }}",
        targets.join(", ")
    );
    let proxy = Setup::new()
        .config(&row)
        .upstream_with_dialect("openai", "one", &one, "")
        .upstream_with_dialect("anthropic", "two", &two, "")
        .upstream_with_dialect("openai", "three", &three, "")
        .start();

    let answer = proxy.send(&chat_request("anthropic", true, "hi"));

    // The first upstream may answer when it is tried again; the connection that hung was closed.
    assert_eq!(
        read_answer("anthropic", true, &answer).text.split(' ').next(),
        Some("Hello"),
        "{}",
        answer.text()
    );
    one.wait_for_request(0, "the first to be let go", |seen| seen.hung_up_at.is_some());
    let full = explain_last(&proxy);
    let tasks: Vec<_> = full["record"]["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["task"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(tasks[..3], ["answer", "hedge", "rescue"], "{full}");
    assert_eq!(full["parts"].as_array().map(Vec::len), Some(tasks.len()), "each is billed: {full}");
}

#[test]
fn client_disconnect_ends_a_rescue() {
    let one = Upstream::start(vec![broken_stream("openai", &["Hello "])]);
    let two = Upstream::start(vec![stream_scene("openai", &["world"]).head_gate(&Gate::closed())]);
    let proxy = start_proxy(true, MODEL, &[("openai", &one), ("openai", &two)]);
    let body =
        json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let mut asked =
        Request::post("/v1/chat/completions", &body).bearer(CLIENT_KEY).open(proxy.addr);
    asked.read_until("Hello");
    two.nth_request(0);

    drop(asked);

    two.wait_for_request(0, "the second to be let go", |seen| seen.hung_up_at.is_some());
    let full = explain_last(&proxy);
    assert_eq!(full["record"]["state"], "left");
    assert_eq!(full["parts"].as_array().map(Vec::len), Some(2), "each is billed once: {full}");
    assert_eq!(full["parts"][1]["usage"]["output"], 0, "{full}");
}
