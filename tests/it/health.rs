//! Upstream health outside client traffic: health checks and balances at providers.

use std::sync::{
    Arc,
    atomic::{AtomicU16, AtomicU64, Ordering},
};

use serde_json::{Value, json};

use crate::support::{
    poll_until,
    proxy::{Proxy, Setup, secret},
    upstream::{Scene, Upstream},
};

/// An upstream that answers health checks at `/v1/alive` with the current value of the status.
fn probed_upstream() -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let reported = Arc::clone(&status);
    let upstream = Upstream::with_director(move |seen, _| match seen.path.as_str() {
        "/v1/alive" => Scene::status(reported.load(Ordering::Relaxed)),
        _ => Scene::chat("probed"),
    });
    (upstream, status)
}

const PROBE_CONFIG: &str = "health = { path = \"/alive\", every = \"1s\" }";

fn upstream_row(proxy: &Proxy, name: &str) -> Value {
    let status = proxy.status_json();
    let found = status["upstreams"]
        .as_array()
        .and_then(|all| all.iter().find(|row| row["name"] == name))
        .cloned();
    found.unwrap_or_else(|| panic!("no upstream {name} in {status}"))
}

fn wait_for(proxy: &Proxy, what: &str, test: impl Fn(&Value) -> bool) -> Value {
    poll_until(what, || Some(upstream_row(proxy, "one")).filter(|row| test(row)))
}

fn chat_count(upstream: &Upstream) -> usize {
    upstream.requests().iter().filter(|seen| seen.method == "POST").count()
}

#[test]
fn probe_detects_outage_and_recovery_before_requests_do() {
    let (one, status) = probed_upstream();
    let two = Upstream::start(vec![Scene::chat("other")]);
    let setup = Setup::new().config("[cooldown]\nfailures = 2\nserver_error = \"5m\"\n");
    let proxy = setup
        .upstream_at("one", &one.url(), &["work"], PROBE_CONFIG)
        .upstream("two", &two, &["work"])
        .start();

    let well = wait_for(&proxy, "the first probe", |row| row["probe"]["said"] == "200");
    assert_eq!(
        (&well["state"], &well["probe"]["path"], &well["probe"]["ok"]),
        (&json!("healthy"), &json!("/alive"), &json!(true))
    );

    status.store(503, Ordering::Relaxed);
    let away = wait_for(&proxy, "the upstream to be open", |row| row["state"] == "open");
    assert_eq!(away["cause"], "503 (probe of /alive)", "{away}");
    assert_eq!(
        (proxy.chat("hi").chat_text().as_str(), chat_count(&one)),
        ("other", 0),
        "no request had to find out"
    );

    status.store(404, Ordering::Relaxed);
    wait_for(&proxy, "a probe that is answered", |row| row["state"] != "open");
    assert_eq!(
        proxy.chat("hi").chat_text(),
        "probed",
        "whatever it thinks of the path, it is there"
    );
    assert_eq!(upstream_row(&proxy, "one")["state"], "healthy");
    let lines = proxy.snapshot()["live"]["lines"].to_string();
    assert!(lines.contains("answers its probe: the next request tests it"), "{lines}");
}

#[test]
fn refused_probe_blames_no_upstream() {
    for refusal in [401, 403, 404, 429, 302] {
        let (one, status) = probed_upstream();
        status.store(refusal, Ordering::Relaxed);
        let setup = Setup::new().config("[cooldown]\nfailures = 1\n");
        let proxy = setup.upstream_at("one", &one.url(), &["work"], PROBE_CONFIG).start();

        poll_until("two probes", || (one.requests().len() >= 2).then_some(()));

        assert_eq!(upstream_row(&proxy, "one")["state"], "healthy", "{refusal}");
        assert_eq!(proxy.key("one/work")["state"], "ok", "{refusal}");
        assert_eq!(
            one.requests()[0].key(),
            secret("one", "work"),
            "asked with a key, as some answer nothing else"
        );
    }
}

#[test]
fn only_configured_and_idle_upstreams_are_probed() {
    let ((one, _), (two, _), (three, _)) =
        (probed_upstream(), probed_upstream(), probed_upstream());
    let rarely = "health = { path = \"/alive\", every = \"1h\" }";
    let setup = Setup::new().upstream_at("one", &one.url(), &["work"], rarely).upstream(
        "two",
        &two,
        &["work"],
    );
    let proxy = setup.upstream_at("three", &three.url(), &["work"], PROBE_CONFIG).start();
    assert_eq!(proxy.chat("hi").status, 200);

    // The first health check of each upstream comes within about two seconds.
    poll_until("three probes of the third", || (three.requests().len() >= 3).then_some(()));

    let probes = |upstream: &Upstream| {
        upstream.requests().iter().filter(|seen| seen.method == "GET").count()
    };
    assert_eq!((probes(&one), probes(&two)), (0, 0));
    assert!(upstream_row(&proxy, "one")["probe"].is_null());
}

/// A provider that reports its balance as the preset expects, and rejects requests when the balance
/// is zero.
fn provider(cents: &Arc<AtomicU64>) -> Upstream {
    let cents = Arc::clone(cents);
    Upstream::with_director(move |seen, _| {
        let cents = cents.load(Ordering::Relaxed);
        match (seen.path.as_str(), cents) {
            ("/user/balance", _) => {
                let total = format!("{}.{:02}", cents / 100, cents % 100);
                Scene::json(
                    200,
                    &json!({"is_available": cents > 0, "balance_infos": [{"currency": "USD", "total_balance": total}]}),
                )
            }
            (_, 0) => Scene::json(
                402,
                &json!({"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}}),
            ),
            _ => Scene::chat("hello"),
        }
    })
}

fn alerts(proxy: &Proxy, what: &str) -> usize {
    proxy.snapshot()["live"]["lines"].to_string().matches(what).count()
}

#[test]
fn balances_are_shown_per_key_and_low_ones_reported() {
    let cents = Arc::new(AtomicU64::new(1_234));
    let upstream = provider(&cents);
    let proxy = Setup::new()
        .upstream_at("one", &upstream.url(), &["work"], "preset = \"deepseek\"")
        .start();

    let balance = poll_until("the balance", || {
        Some(proxy.key("one/work")["balance"].clone()).filter(Value::is_object)
    });

    assert_eq!(
        (&balance["amount"], &balance["currency"], &balance["low"]),
        (&json!(12.34), &json!("USD"), &json!(false))
    );
    for args in [&["status"][..], &["key", "list"]] {
        let output = proxy.cli(args);
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("$12.34 left at the provider"),
            "{output:?}"
        );
    }
    assert_eq!(alerts(&proxy, "left at its provider"), 0);
    let asked = |upstream: &Upstream| {
        upstream.requests().iter().filter(|seen| seen.path == "/user/balance").count()
    };
    assert_eq!(asked(&upstream), 1, "and not again and again");
    drop(proxy);

    cents.store(40, Ordering::Relaxed);
    let proxy = Setup::new()
        .upstream_at("one", &upstream.url(), &["work"], "preset = \"deepseek\"")
        .start();
    poll_until("the alert", || {
        (alerts(&proxy, "one/work has $0.400 left at its provider") == 1).then_some(())
    });
    assert!(proxy.key("one/work")["balance"]["low"].as_bool().unwrap_or_default());
}

#[test]
fn forbidden_balance_endpoint_falls_back_to_the_next() {
    let upstream = Upstream::with_director(|seen, _| match seen.path.as_str() {
        "/api/v1/key" => {
            Scene::json(200, &json!({"data": {"limit": null, "limit_remaining": null, "usage": 3}}))
        }
        "/api/v1/credits" if seen.key() == secret("one", "work") => Scene::status(403),
        "/api/v1/credits" => {
            Scene::json(200, &json!({"data": {"total_credits": 10, "total_usage": 2.5}}))
        }
        _ => Scene::chat("hello"),
    });
    let proxy = Setup::new()
        .upstream_at("one", &upstream.url(), &["work", "spare"], "preset = \"openrouter\"")
        .start();

    let balance = poll_until("the balance", || {
        Some(proxy.key("one/spare")["balance"].clone()).filter(Value::is_object)
    });

    assert_eq!(balance["amount"], 7.5);
    assert!(proxy.key("one/work")["balance"].is_null(), "unknown is not nothing");
    assert_eq!(proxy.key("one/work")["state"], "ok", "a refusal of that is held against nobody");
    assert_eq!(proxy.chat("hi").status, 200);
}

#[test]
fn captive_portal_is_reported_and_blames_no_upstream() {
    for page in [
        Scene::stream(
            "text/html",
            ["<!DOCTYPE html><html><body>Welcome to the hotel's WiFi</body></html>"],
        ),
        Scene::status(302).header("location", "http://login.example/"),
    ] {
        let one = Upstream::start(vec![page.clone(), page.clone(), Scene::chat("hello")]);
        let proxy = Setup::new()
            .config("[cooldown]\nfailures = 1\n")
            .upstream("one", &one, &["work"])
            .start();

        for answer in [proxy.chat("hi"), proxy.chat_stream("hi")] {
            assert_eq!(answer.status, 502, "{}", answer.text());
            assert!(answer.text().contains("sign-in"), "{}", answer.text());
        }
        assert_eq!(one.requests().len(), 2, "no storm of retries");
        assert_eq!(
            (&proxy.key("one/work")["state"], &upstream_row(&proxy, "one")["state"]),
            (&json!("ok"), &json!("healthy"))
        );

        assert_eq!(proxy.chat("hi").chat_text(), "hello", "as soon as somebody signed in");
    }
}
