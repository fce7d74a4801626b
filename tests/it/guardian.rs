//! The prompt cache of a conversation: how affinity improves cache hits, and what is reported when
//! hits stop.

use serde_json::{Value, json};

use crate::support::{
    poll_until,
    proxy::{Proxy, Setup},
    upstream::{Scene, Upstream},
};

/// Prices that give lost cache hits a cost: a million input tokens cost $3, or $0.30 from the
/// cache.
const PRICES: &str = "[prices.\"one/m\"]\ninput = 3.0\ncache_read = 0.3\noutput = 15.0";

/// A response that reports this many of its 4,000 input tokens as cached.
fn cached_chat(cached: u64) -> Scene {
    Scene::json(
        200,
        &json!({
            "id": "chatcmpl-it", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 4000, "completion_tokens": 2, "total_tokens": 4002, "prompt_tokens_details": {"cached_tokens": cached}},
        }),
    )
}

/// A conversation with this many turns that is long enough to be cached.
fn conversation(turns: usize, system: &str, tools: &[&str]) -> Value {
    let mut messages = vec![
        json!({"role": "system", "content": format!("{system} {}", "be brief ".repeat(1_000))}),
    ];
    for turn in 0..turns {
        if turn > 0 {
            messages.push(json!({"role": "assistant", "content": format!("answer {turn}")}));
        }
        messages.push(json!({"role": "user", "content": format!("question {turn}")}));
    }
    let tools: Vec<Value> = tools
        .iter()
        .map(|name| json!({"type": "function", "function": {"name": name, "parameters": {}}}))
        .collect();
    json!({"model": "m", "messages": messages, "tools": tools, "user": "talk-1"})
}

fn last_request(proxy: &Proxy) -> Value {
    poll_until("the request in the ledger", || {
        serde_json::from_slice::<Value>(&proxy.cli(&["explain", "last", "--json"]).stdout).ok()
    })
}

fn metrics_page(proxy: &Proxy) -> String {
    String::from_utf8(proxy.cli(&["explain", "last"]).stdout).expect("text")
}

#[test]
fn cache_miss_is_reported_with_its_first_changed_part_and_cost() {
    // Another conversation comes first, because the monitor starts only after a provider has
    // reported a cache hit.
    let cached = [3_000, 3_000, 3_500, 0, 3_600];
    let upstream = Upstream::with_director(move |_, number| {
        cached_chat(cached.get(number).copied().unwrap_or_default())
    });
    let proxy = Setup::new().config(PRICES).upstream("one", &upstream, &["work"]).start();
    let tools = ["read", "write"];
    proxy.chat("wake up");
    for turns in [1, 2] {
        assert_eq!(proxy.ask(&conversation(turns, "You are kind.", &tools)).status, 200);
    }
    assert!(!metrics_page(&proxy).contains("prompt cache"), "it hits");

    proxy.ask(&conversation(3, "You are kind.", &["write", "read"]));

    let full = last_request(&proxy);
    let lost = &full["record"]["cache_lost"];
    assert_eq!(
        (lost["expected"].as_u64(), lost["cached"].as_u64()),
        (Some(3_500), Some(0)),
        "{full}"
    );
    assert_eq!(lost["cause"], json!({"kind": "tool_order"}));
    assert_eq!(lost["why"], "the client changed the order of the tools");
    assert_eq!(lost["cost"], 9_450_000, "3,500 tokens at $2.70 a million: {lost}");
    let explained = metrics_page(&proxy);
    assert!(
        explained.contains(
            "0 of 3500 tokens came from the prompt cache: the client changed the order of the tools"
        ),
        "{explained}"
    );
    assert!(
        proxy.output().contains("the client changed the order of the tools"),
        "it stands in the log"
    );
    let snapshot = proxy.snapshot();
    let lines = snapshot["live"]["lines"].as_array().cloned().unwrap_or_default();
    assert!(
        lines.iter().any(|line| line["level"] == "warn"
            && line["text"].as_str().unwrap().contains("order of the tools")),
        "{lines:?}"
    );

    proxy.ask(&conversation(4, "You are kind.", &["write", "read"]));
    assert!(!metrics_page(&proxy).contains("prompt cache"), "reported once");
}

#[test]
fn account_switch_is_reported_and_affinity_savings_counted() {
    let upstream =
        Upstream::with_director(|seen, number| match (seen.key().contains("spare"), number) {
            (false, 3) => Scene::status(429).header("retry-after", "60"),
            (true, _) => cached_chat(0),
            (false, number) => cached_chat(if number < 2 { 3_000 } else { 3_500 }),
        });
    let proxy = Setup::new().config(PRICES).upstream("one", &upstream, &["work", "spare"]).start();
    proxy.chat("wake up");
    for turns in [1, 2] {
        proxy.ask(&conversation(turns, "You are kind.", &[]));
    }
    let full = last_request(&proxy);
    assert_eq!(full["record"]["attempts"][0]["bound"], true, "{full}");
    assert!(
        metrics_page(&proxy)
            .contains("87 % of the input, because it went to the account of its conversation"),
        "{}",
        metrics_page(&proxy)
    );

    proxy.ask(&conversation(3, "You are kind.", &[]));

    assert_eq!(
        last_request(&proxy)["record"]["cache_lost"]["cause"],
        json!({"kind": "key", "from": "one/work", "to": "one/spare"})
    );
    let usage: Value =
        serde_json::from_slice(&proxy.cli(&["usage", "--json"]).stdout).expect("sums");
    assert_eq!(
        (usage["total"]["won"].as_u64(), usage["total"]["cache_read"].as_u64()),
        (Some(3_500), Some(9_500)),
        "{usage}"
    );
    assert_eq!(proxy.snapshot()["live"]["totals"]["won"], 3_500);
}
