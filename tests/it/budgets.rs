//! Budgets: reservations, bookings, display and refusals use the same count.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    client::{HttpAnswer, Request},
    poll_until,
    proxy::{Proxy, Setup, chat_body},
    upstream::{Gate, Scene, Upstream},
};

/// Each response of the scripted model has three input and two output tokens and costs a dollar.
const PRICED: &str =
    "[ledger]\ntz = \"UTC\"\n[prices.\"*/m\"]\ninput = 100000\noutput = 100000\nrequest = 0.5\n";
const IDE: &str = "aip-it-ide-0123456789abcdef0123456789ab";

/// Prices of upstreams `one` and `two`, and a project `ide` with this budget. Model `any` is in no
/// model list, so the order in which the lists are read does not matter.
fn config(budget: &str) -> String {
    let prices = PRICED.replace("*/m", "one/*")
        + "[prices.\"two/*\"]\ninput = 100000\noutput = 100000\nrequest = 0.5\n";
    format!("{prices}[[project]]\nname = \"ide\"\nkey = \"{IDE}\"\n{budget}\n")
}

fn send_priced_chat(proxy: &Proxy) -> HttpAnswer {
    Request::post("/v1/chat/completions", &chat_body("m", "hi", false)).bearer(IDE).send(proxy.addr)
}

/// Returns a budget from `status --json`.
fn budget_row(proxy: &Proxy, of: &str) -> Value {
    let status = proxy.status_json();
    let found = status["budgets"]
        .as_array()
        .and_then(|all| all.iter().find(|row| row["of"] == of))
        .cloned();
    found.unwrap_or_else(|| panic!("no budget of {of} in {status}"))
}

fn cli_output(proxy: &Proxy, args: &[&str]) -> String {
    let output = proxy.cli(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn budget_refusal_matches_the_shown_budget_in_every_dialect() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new()
        .config(&config("budget = { usd = 2.5, per = \"day\" }"))
        .upstream("one", &upstream, &["work"])
        .start();

    let statuses: Vec<u16> = (0..3).map(|_| send_priced_chat(&proxy).status).collect();
    let refused = send_priced_chat(&proxy);

    assert_eq!(statuses, [200, 200, 200], "the third began while half a dollar was left");
    assert_eq!(refused.status, 429, "{}", refused.text());
    let error = refused.json()["error"].clone();
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("insufficient_quota"), &json!("insufficient_quota"))
    );
    let printed = error["message"].as_str().expect("words").to_owned();
    for part in [
        "project `ide` has spent $3 of its $2.50 a day",
        "again in",
        "`aiproxy usage`",
        "[[project]]",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let wait: u64 =
        refused.header("retry-after").and_then(|value| value.parse().ok()).expect("when");
    assert!((1..=86_400).contains(&wait), "{wait}");
    assert_eq!(upstream.requests().len(), 3, "what is refused is not sent");

    let anthropic =
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let anthropic =
        Request::post("/v1/messages", &anthropic).header("x-api-key", IDE).send(proxy.addr);
    assert_eq!(
        (anthropic.status, &anthropic.json()["error"]["type"]),
        (402, &json!("billing_error")),
        "{}",
        anthropic.text()
    );
    let gemini = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let gemini = Request::post("/v1beta/models/m:generateContent", &gemini)
        .header("x-goog-api-key", IDE)
        .send(proxy.addr);
    assert_eq!(
        (gemini.status, &gemini.json()["error"]["status"]),
        (429, &json!("RESOURCE_EXHAUSTED")),
        "{}",
        gemini.text()
    );

    let row = budget_row(&proxy, "project ide");
    assert_eq!(
        (&row["spent"], &row["reserved"], &row["percent"]),
        (&json!(3.0), &json!(0.0), &json!(120))
    );
    let usage: Value =
        serde_json::from_str(&cli_output(&proxy, &["usage", "--by", "project", "--json"]))
            .expect("JSON");
    assert_eq!(usage["rows"][0]["cost"], 3_000_000_000_u64, "the ledger says the same");
    assert_eq!(usage["budgets"][0]["spent"], 3.0);
    for args in [&["usage"][..], &["status"], &["project", "show", "ide"]] {
        assert!(cli_output(&proxy, args).contains("120 %"), "{args:?}");
    }
    assert!(
        cli_output(&proxy, &["route", "m", "--project", "ide"])
            .contains("has spent $3 of its $2.50 a day")
    );
    let lines = proxy.snapshot()["live"]["lines"].to_string();
    assert_eq!(lines.matches(" to go").count(), 2, "80 % at two dollars, all at three: {lines}");
    assert_eq!(proxy.chat("hi").status, 200, "other projects go on");
}

#[test]
fn spent_budget_is_reported_even_if_keys_fail_for_other_reasons() {
    let one = Upstream::start(vec![
        Scene::json(429, &json!({"error": {"message": "slow down"}})).header("retry-after", "600"),
        Scene::chat("hello"),
    ]);
    let proxy = Setup::new()
        .config(&config("budget = { usd = 1, per = \"day\" }"))
        .upstream("one", &one, &["work", "other", "third"])
        .start();
    assert_eq!(send_priced_chat(&proxy).status, 200);
    assert_eq!(proxy.key("one/work")["state"], "partly", "it cools for this model");
    proxy.cli(&["key", "disable", "one/third"]);

    let refused = send_priced_chat(&proxy);

    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (429, &json!("insufficient_quota")),
        "{}",
        refused.text()
    );
    assert!(refused.text().contains("project `ide` has spent"), "{}", refused.text());
}

#[test]
fn key_over_its_budget_is_skipped_for_another() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let row = format!(
        "[[upstream]]\nname = \"one\"\nbase_url = \"{}\"\ndialect = \"openai\"\nmodels = [\"*\"]\nkeys = [\
         {{ ref = \"sk-it-first-000000000000\", label = \"first\", priority = 1, budget = {{ usd = 1, per = \"month\" }} }}, \
         {{ ref = \"sk-it-second-00000000000\", label = \"second\", priority = 2 }}]",
        upstream.url()
    );
    let proxy = Setup::new().config(&config("")).config(&row).start();

    assert!((0..3).all(|_| proxy.chat("hi").status == 200));

    let keys: Vec<_> = upstream
        .requests()
        .iter()
        .map(|seen| seen.key().split('-').nth(2).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(keys, ["first", "second", "second"]);
    let key = proxy.key("one/first");
    assert_eq!(
        (key["state"].as_str(), key["cause"].as_str()),
        (Some("cooling"), Some("spent $1 of $1 per month")),
        "{key}"
    );
    assert!(key["until"].is_string(), "{key}");
    assert!(
        cli_output(&proxy, &["route", "m"])
            .contains("key `one/first` has spent $1 of its $1 a month")
    );
}

#[test]
fn upstream_over_budget_is_skipped_and_the_last_one_is_an_error() {
    let (one, two) =
        (Upstream::start(vec![Scene::chat("one")]), Upstream::start(vec![Scene::chat("two")]));
    let limited = "budget = { usd = 1, per = \"total\" }";
    let proxy = Setup::new()
        .config(&config(""))
        .upstream_at("one", &one.url(), &["work"], limited)
        .upstream_at("two", &two.url(), &["work"], limited)
        .start();

    let printed: Vec<_> =
        (0..2).map(|_| proxy.ask(&chat_body("any", "hi", false)).chat_text()).collect();
    let refused = proxy.ask(&chat_body("any", "hi", false));

    assert_eq!(printed, ["one", "two"]);
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(
        refused.text().contains("$1 in total") && refused.header("retry-after").is_none(),
        "{}",
        refused.text()
    );
}

#[test]
fn budget_never_cuts_a_running_stream_and_later_requests_wait() {
    let gate = Gate::closed();
    let scene = Scene::sse(&["hel", "lo"]).gate(1, &gate);
    let upstream = Upstream::start(vec![scene, Scene::chat("hello")]);
    let proxy = Setup::new()
        .config(&config("budget = { usd = 0.5, per = \"week\" }"))
        .upstream("one", &upstream, &["work"])
        .start();
    let open = |stream| {
        Request::post("/v1/chat/completions", &chat_body("m", "hi", stream))
            .bearer(IDE)
            .open(proxy.addr)
    };

    let mut first = open(true);
    upstream.nth_request(0);
    let mut second = open(false);
    poll_until("the second in the queue", || {
        proxy.snapshot()["live"]["running"]
            .as_array()
            .filter(|all| all.iter().any(|r| r["state"] == "queued"))
            .map(|_| ())
    });
    assert!(
        budget_row(&proxy, "project ide")["reserved"]
            .as_f64()
            .is_some_and(|reserved| reserved > 0.5)
    );
    gate.open();

    let stream = first.read_answer();
    assert_eq!((stream.status, stream.chat_text().as_str()), (200, "hello"));
    let second = second.read_answer();
    assert_eq!(second.status, 429, "{}", second.text());
    assert_eq!(upstream.requests().len(), 1);
}

#[cfg(unix)]
#[test]
fn spent_amounts_survive_a_restart_with_or_without_the_ledger() {
    use rustix::process::Signal;

    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let mut proxy = Setup::new()
        .config(&config("budget = { usd = 2, per = \"day\" }"))
        .upstream("one", &upstream, &["work"])
        .start();
    assert!((0..2).all(|_| send_priced_chat(&proxy).status == 200));

    for (lost, how) in [
        (None, Signal::TERM),
        (Some("health.json"), Signal::TERM),
        (Some("ledger.db"), Signal::TERM),
        (None, Signal::KILL),
    ] {
        proxy.signal(how);
        proxy.exit_code();
        let home = proxy.take_home();
        if let Some(file) = lost {
            fs::remove_file(home.data().join(file)).expect("it is there");
        }
        proxy = Proxy::spawn(home);
        let refused = send_priced_chat(&proxy);
        assert_eq!(refused.status, 429, "without {lost:?}: {}", refused.text());
        assert_eq!(budget_row(&proxy, "project ide")["spent"], 2.0, "without {lost:?}");
    }
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn raised_budget_applies_at_once_and_a_new_one_counts_past_cost() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().config(&config("")).upstream("one", &upstream, &["work"]).start();
    assert!((0..2).all(|_| send_priced_chat(&proxy).status == 200));
    poll_until("the ledger to have them", || {
        let usage: Value = serde_json::from_str(&cli_output(&proxy, &["usage", "--json"])).ok()?;
        (usage["total"]["requests"] == 2).then_some(())
    });

    cli_output(&proxy, &["project", "set", "ide", "budget={ usd = 1.5, per = \"month\" }"]);
    assert_eq!(send_priced_chat(&proxy).status, 429);
    assert_eq!(budget_row(&proxy, "project ide")["spent"], 2.0);
    cli_output(&proxy, &["project", "set", "ide", "budget.usd=10"]);
    assert_eq!(send_priced_chat(&proxy).status, 200);
    assert_eq!(budget_row(&proxy, "project ide")["spent"], 3.0);
}

#[test]
fn global_budget_blocks_paid_requests_and_not_free_ones() {
    let (one, two) =
        (Upstream::start(vec![Scene::chat("dear")]), Upstream::start(vec![Scene::chat("free")]));
    let whole = "[budget]\nusd = 1\nper = \"day\"\n";
    let prices = PRICED.replace("*/m", "one/*");
    let proxy = Setup::new()
        .config(&format!("{whole}{prices}"))
        .upstream("one", &one, &["work"])
        .upstream("two", &two, &["work"])
        .start();

    let printed: Vec<_> =
        (0..3).map(|_| proxy.ask(&chat_body("any", "hi", false)).chat_text()).collect();

    assert_eq!(printed, ["dear", "free", "free"], "a server on this machine costs nothing");
    assert_eq!(budget_row(&proxy, "all")["percent"], 100);
    let pinned = Request::post("/v1/chat/completions", &chat_body("one:m", "hi", false));
    let refused = proxy.send(&pinned);
    assert!(
        refused.status == 429 && refused.text().contains("the whole proxy has spent"),
        "{}",
        refused.text()
    );
}

#[test]
fn unknown_price_is_reported_once_or_refused() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    // Behind a proxy, so that the upstream is not local, because local upstreams are free.
    let proxy = format!("proxy = \"http://{}\"", upstream.addr());
    let start = |budget: &str| {
        Setup::new()
            .config(&config(budget))
            .upstream_at("three", "http://models.invalid/v1", &["work"], &proxy)
            .start()
    };

    let refusing = start("budget = { usd = 5, per = \"day\", unpriced = \"refuse\" }");
    let refused = send_priced_chat(&refusing);
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(refused.text().contains("[prices.\\\"three/m\\\"]"), "{}", refused.text());
    assert_eq!(upstream.requests().len(), 0);

    let warning = start("budget = { usd = 5, per = \"day\" }");
    assert!((0..3).all(|_| send_priced_chat(&warning).status == 200));
    assert_eq!(budget_row(&warning, "project ide")["unpriced"], 3);
    let lines = warning.snapshot()["live"]["lines"].to_string();
    assert_eq!(lines.matches("the price of `three/m` is unknown").count(), 1, "{lines}");
}

#[test]
fn both_hedged_attempts_are_billed_and_hedging_stops_at_80_percent() {
    let one = Upstream::start(vec![Scene::chat("slow").delay(Duration::from_millis(250))]);
    let two = Upstream::start(vec![Scene::chat("quick")]);
    let logical = "[[model]]\nname = \"auto\"\ntargets = [\"one:any\", \"two:any\"]\nhedge = { after = \"30ms\", max_share = 1 }\n[budget]\nusd = 60\nper = \"day\"";
    let proxy = Setup::new()
        .config(&config(""))
        .config(logical)
        .upstream("one", &one, &["work"])
        .upstream("two", &two, &["work"])
        .start();
    let mut asked = chat_body("auto", "hi", false);
    asked["max_tokens"] = json!(1);

    assert_eq!(proxy.ask(&asked).chat_text(), "quick");
    let both = budget_row(&proxy, "all");
    assert!(
        both["spent"].as_f64() > Some(1.5),
        "the one that was let go may have cost something too: {both}"
    );
    assert_eq!(both["reserved"], 0.0, "{both}");
    poll_until("four fifths to be spent", || {
        proxy.ask(&asked);
        (budget_row(&proxy, "all")["percent"].as_u64() >= Some(80)).then_some(())
    });
    let hedged = two.requests().len();

    assert_eq!(proxy.ask(&asked).chat_text(), "slow");
    assert_eq!(two.requests().len(), hedged);
}
