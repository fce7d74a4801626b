//! Hedges: a second target is tried while the first is slow to respond, and one of them serves the
//! response.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    client::{Request, events},
    poll_until,
    proxy::{CLIENT_KEY, Proxy, Setup, chat_body},
    upstream::{Gate, Scene, Upstream, chunk},
};

const SHORT_RETRIES: &str = "[retry]\nbackoff = \"5ms\"\nmax_backoff = \"10ms\"";

/// Two upstreams behind the model `auto`; the second is tried after the delay `hedge`.
fn setup(one: &Upstream, two: &Upstream, hedge: &str) -> Setup {
    Setup::new()
        .config(SHORT_RETRIES)
        .config(&format!(
            "[[model]]\nname = \"auto\"\ntargets = [\"one:m\", \"two:m\"]\nhedge = {hedge}"
        ))
        .upstream("one", one, &["work"])
        .upstream("two", two, &["work"])
}

const HEDGE_AFTER_60MS: &str = "{ after = \"60ms\", max_share = 1 }";

fn explain_last(proxy: &Proxy) -> Value {
    poll_until("the request in the ledger", || {
        serde_json::from_slice(&proxy.cli(&["explain", "last", "--json"]).stdout).ok()
    })
}

fn attempt_rows(explained: &Value) -> Vec<(String, String, bool)> {
    let rows = explained["record"]["attempts"].as_array().cloned().unwrap_or_default();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    rows.iter().map(|row| (text(row, "upstream"), text(row, "task"), row["won"] == true)).collect()
}

#[test]
fn faster_hedge_answers_and_the_first_is_cancelled_without_strike() {
    for stream in [true, false] {
        let one = Upstream::start(vec![Scene::sse(&["never"]).head_gate(&Gate::closed())]);
        let two = Upstream::start(vec![if stream {
            Scene::sse(&["hel", "lo"])
        } else {
            Scene::chat("hello")
        }]);
        let proxy = setup(&one, &two, HEDGE_AFTER_60MS).start();

        let answer = proxy.ask(&chat_body("auto", "hi", stream));

        assert_eq!(
            (answer.status, answer.chat_text().as_str()),
            (200, "hello"),
            "{}",
            answer.text()
        );
        assert_eq!(answer.header("x-aiproxy-upstream"), Some("two"));
        assert_eq!(answer.header("x-aiproxy-attempts"), Some("2"));
        one.wait_for_request(0, "the first to be let go", |seen| seen.hung_up_at.is_some());
        let full = explain_last(&proxy);
        assert_eq!(
            attempt_rows(&full),
            [("one".into(), "answer".into(), false), ("two".into(), "hedge".into(), true)]
        );
        assert_eq!(full["parts"].as_array().map(Vec::len), Some(2), "both are billed: {full}");
        assert!(full["parts"][0]["usage"]["input"].as_u64() > Some(0), "{full}");
        assert_eq!(full["record"]["attempts"][0]["maybe_billed"], true, "{full}");
        let page = String::from_utf8(proxy.cli(&["explain", "last"]).stdout).unwrap();
        assert!(
            page.contains("two/work (hedge)") && page.contains("cancelled: the second spoke first"),
            "{page}"
        );
        assert_eq!(proxy.key("one/work")["state"], "ok");
    }
}

#[test]
fn dry_run_shows_when_a_hedge_would_start() {
    let idle = Upstream::start(vec![Scene::chat("never asked")]);
    for (hedge, want) in [
        (
            HEDGE_AFTER_60MS,
            "a second target is asked after 60 ms without a token, for at most 100 % of requests",
        ),
        (
            "{}",
            "a second target is asked once 20 answers tell what is slow here, for at most 5 % of requests",
        ),
    ] {
        let proxy = setup(&idle, &idle, hedge).start();
        let page = String::from_utf8(proxy.cli(&["route", "auto"]).stdout).unwrap();
        assert!(page.contains(want) && page.contains("strategy priority"), "{page}");
    }
}

#[test]
fn late_first_attempt_wins_and_the_hedge_is_cancelled() {
    for stream in [true, false] {
        let gate = Gate::closed();
        let scene = if stream { Scene::sse(&["hel", "lo"]) } else { Scene::chat("hello") };
        let one = Upstream::start(vec![scene.head_gate(&gate)]);
        let two = Upstream::start(vec![Scene::sse(&["never"]).head_gate(&Gate::closed())]);
        let proxy = setup(&one, &two, HEDGE_AFTER_60MS).start();
        let asked = Request::post("/v1/chat/completions", &chat_body("auto", "hi", stream))
            .bearer(CLIENT_KEY)
            .open(proxy.addr);
        two.nth_request(0);

        gate.open();
        let mut asked = asked;
        let answer = asked.read_answer();

        assert_eq!(
            (answer.status, answer.chat_text().as_str()),
            (200, "hello"),
            "{}",
            answer.text()
        );
        assert_eq!(answer.header("x-aiproxy-upstream"), Some("one"));
        two.wait_for_request(0, "the second to be let go", |seen| seen.hung_up_at.is_some());
        let full = explain_last(&proxy);
        assert_eq!(
            attempt_rows(&full),
            [("one".into(), "answer".into(), true), ("two".into(), "hedge".into(), false)]
        );
        assert!(
            full["record"]["attempts"][1]["outcome"]
                .as_str()
                .is_some_and(|text| text.contains("the first spoke first")),
            "{full}"
        );
    }
}

#[test]
fn client_gets_an_error_only_if_both_hedged_attempts_fail() {
    let (first, second) = (Gate::closed(), Gate::closed());
    let one = Upstream::start(vec![Scene::status(500).head_gate(&first)]);
    let two = Upstream::with_director({
        let second = second.clone();
        move |_, number| {
            if number == 0 { Scene::chat("hello").head_gate(&second) } else { Scene::status(400) }
        }
    });
    let proxy = setup(&one, &two, HEDGE_AFTER_60MS).start();
    let mut asked = Request::post("/v1/chat/completions", &chat_body("auto", "hi", false))
        .bearer(CLIENT_KEY)
        .open(proxy.addr);
    two.nth_request(0);
    first.open();
    one.wait_for_request(0, "the first to fail", |seen| seen.response_sent);
    second.open();

    assert_eq!(asked.read_answer().chat_text(), "hello");
    assert_eq!(
        attempt_rows(&explain_last(&proxy)),
        [("one".into(), "answer".into(), false), ("two".into(), "hedge".into(), true)]
    );

    let slow = Upstream::start(vec![Scene::status(400).delay(Duration::from_millis(150))]);
    let bad = Upstream::start(vec![Scene::status(400).delay(Duration::from_millis(150))]);
    let proxy = setup(&slow, &bad, HEDGE_AFTER_60MS).start();
    let answer = proxy.ask(&chat_body("auto", "hi", false));
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("scripted 400"), "{}", answer.text());
    assert_eq!((slow.requests().len(), bad.requests().len()), (1, 1));
}

#[test]
fn client_disconnect_cancels_both_hedged_attempts() {
    for stream in [true, false] {
        let one = Upstream::start(vec![Scene::sse(&["never"]).head_gate(&Gate::closed())]);
        let two = Upstream::start(vec![Scene::sse(&["never"]).gate(1, &Gate::closed())]);
        let proxy = setup(&one, &two, HEDGE_AFTER_60MS).start();
        let asked = Request::post("/v1/chat/completions", &chat_body("auto", "hi", stream))
            .bearer(CLIENT_KEY)
            .open(proxy.addr);
        two.nth_request(0);

        drop(asked);

        one.wait_for_request(0, "the first to be let go", |seen| seen.hung_up_at.is_some());
        two.wait_for_request(0, "the second to be let go", |seen| seen.hung_up_at.is_some());
        let full = explain_last(&proxy);
        assert_eq!(full["record"]["state"], "left", "{full}");
        assert_eq!(full["parts"].as_array().map(Vec::len), Some(2), "both are billed: {full}");
    }
}

#[test]
fn hedges_respect_their_share_and_never_repeat_server_tools() {
    let slow = || Scene::chat("hello").delay(Duration::from_millis(150));
    let (one, two) = (Upstream::start(vec![slow()]), Upstream::start(vec![Scene::chat("quick")]));
    let proxy = setup(&one, &two, "{ after = \"20ms\", max_share = 0.5 }").start();

    let printed: Vec<String> =
        (0..4).map(|_| proxy.ask(&chat_body("auto", "hi", false)).chat_text()).collect();
    assert_eq!(
        printed,
        ["hello", "quick", "hello", "quick"],
        "every other request may be asked twice"
    );

    let mut search = chat_body("auto", "hi", false);
    search["web_search_options"] = json!({});
    for _ in 0..2 {
        assert_eq!(proxy.ask(&search).chat_text(), "hello");
    }
    assert_eq!(two.requests().len(), 2);
}

#[test]
fn slow_answers_are_hedged_after_twenty_samples() {
    let quick = || Scene::chat("hello");
    let one = Upstream::with_director(move |_, number| {
        if number < 20 { quick() } else { quick().head_gate(&Gate::closed()) }
    });
    let two = Upstream::start(vec![Scene::chat("second")]);
    let proxy = setup(&one, &two, "{ max_share = 0.1 }").start();

    let printed: Vec<String> =
        (0..21).map(|_| proxy.ask(&chat_body("auto", "hi", false)).chat_text()).collect();

    assert!(printed[..20].iter().all(|printed| printed == "hello"), "{printed:?}");
    assert_eq!(printed[20], "second");
}

#[test]
fn translated_hedge_uses_the_client_dialect_and_another_account() {
    let one = Upstream::start(vec![Scene::sse(&["never"]).head_gate(&Gate::closed())]);
    let two = Upstream::start(vec![Scene::events([
        chunk(&json!({"role": "assistant", "content": ""}), None),
        chunk(&json!({"content": "hello"}), None),
        chunk(&json!({}), Some("stop")),
        "data: [DONE]\n\n".to_owned(),
    ])]);
    let proxy = Setup::new()
        .config(&format!(
            "[[model]]\nname = \"auto\"\ntargets = [\"one:m\", \"two:m\"]\nhedge = {HEDGE_AFTER_60MS}"
        ))
        .upstream_at("one", &one.url(), &["work", "spare"], "")
        .upstream_with_dialect("openai", "two", &two, "")
        .start();
    let ask = json!({"model": "auto", "max_tokens": 50, "stream": true, "messages": [{"role": "user", "content": "hi"}]});

    let answer =
        proxy.send(&Request::post("/v1/messages", &ask).header("anthropic-version", "2023-06-01"));

    let names: Vec<Value> = events(&answer.body)
        .iter()
        .map(|data| serde_json::from_str::<Value>(data).unwrap()["type"].clone())
        .collect();
    assert_eq!(names.first(), Some(&json!("message_start")), "{}", answer.text());
    assert_eq!(names.last(), Some(&json!("message_stop")), "{}", answer.text());
    assert!(answer.text().contains("hello"));
    assert_eq!(one.requests().len() + two.requests().len(), 2);
}
