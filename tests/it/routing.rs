//! Limits, strategies, affinity and wishes: what decides who serves a request, seen from outside.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    client::{Answer, Request},
    proxy::{Setup, body, secret},
    until,
    upstream::{Gate, Scene, Upstream},
};

/// Another project, with this client key and these lines.
fn project(name: &str, key: &str, lines: &str) -> String {
    format!("[[project]]\nname = \"{name}\"\nkey = \"{key}\"\n{lines}\n")
}

const IDE: &str = "aip-it-ide-0123456789abcdef0123456789ab";

fn number(answer: &Answer, header: &str) -> u64 {
    answer
        .header(header)
        .and_then(|value| value.trim_end_matches('s').parse().ok())
        .unwrap_or_else(|| panic!("{header}: {:?}", answer.headers))
}

#[test]
fn pain_15_a_project_over_its_requests_a_minute_hears_so_at_once() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().config(&project("ide", IDE, "rpm = 2")).upstream("one", &upstream, &["work"]).start();
    let ask = || Request::post("/v1/chat/completions", &body("m", "hi", false)).bearer(IDE).send(proxy.addr);

    let answers = [ask(), ask(), ask()];

    assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 200, 429], "{}", answers[2].text());
    assert_eq!(answers.each_ref().map(|answer| number(answer, "x-ratelimit-remaining-requests")), [1, 0, 0]);
    assert_eq!(number(&answers[2], "x-ratelimit-limit-requests"), 2);
    assert!((55..=60).contains(&number(&answers[2], "retry-after")), "{:?}", answers[2].headers);
    assert!(answers[2].text().contains("rpm"), "{}", answers[2].text());
    assert_eq!(upstream.journal().len(), 2);
    assert_eq!(proxy.chat("hi").status, 200, "other projects go on");
    assert!(!proxy.output().contains("not enforced"));
}

#[test]
fn a_projects_tokens_are_reserved_and_settled_by_what_was_used() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().config(&project("ide", IDE, "tpm = 2000")).upstream("one", &upstream, &["work"]).start();
    let ask = |prompt: &str| {
        let mut body = body("m", prompt, false);
        body["max_tokens"] = json!(50);
        Request::post("/v1/chat/completions", &body).bearer(IDE).send(proxy.addr)
    };

    let first = ask("hi");
    let left = number(&ask("hi"), "x-ratelimit-remaining-tokens");
    let large = ask(&"x".repeat(8_000));

    assert_eq!(first.status, 200);
    assert!((1_900..2_000).contains(&left), "the first was settled at what it used: {left}");
    assert_eq!(large.status, 429, "{}", large.text());
    assert!(large.text().contains("tpm"));
}

#[test]
fn a_projects_requests_at_once_wait_for_each_other() {
    let gate = Gate::shut();
    let upstream = Upstream::start(vec![Scene::chat("hello").head_gate(&gate)]);
    let proxy = Setup::new().config(&project("ide", IDE, "max_concurrency = 1")).upstream("one", &upstream, &["work"]).start();
    let open = || Request::post("/v1/chat/completions", &body("m", "hi", false)).bearer(IDE).open(proxy.addr);

    let mut first = open();
    until("the first at the upstream", || (upstream.journal().len() == 1).then_some(()));
    let mut second = open();
    until("the second in the queue", || {
        proxy.snapshot()["live"]["running"].as_array().filter(|all| all.iter().any(|r| r["state"] == "queued")).map(|_| ())
    });
    assert_eq!(upstream.journal().len(), 1);
    gate.open();

    assert_eq!(first.answer().status, 200);
    assert_eq!(second.answer().status, 200);
    assert_eq!(upstream.journal().len(), 2);
}

#[test]
fn pain_16_a_key_of_which_nothing_is_left_is_passed_over_before_it_answers_429() {
    let upstream = Upstream::directed(|seen, _| {
        let scene = Scene::chat("hello");
        if seen.key() != secret("one", "work") {
            return scene;
        }
        scene
            .header("x-ratelimit-limit-requests", "10")
            .header("x-ratelimit-remaining-requests", "0")
            .header("x-ratelimit-reset-requests", "1m0s")
    });
    let proxy = Setup::new().upstream("one", &upstream, &["work", "spare"]).start();

    let answers: Vec<_> = (0..3).map(|_| proxy.chat("hi")).collect();

    assert!(answers.iter().all(|answer| answer.status == 200));
    let asked: Vec<_> = upstream.journal().iter().map(|seen| seen.key() == secret("one", "work")).collect();
    assert_eq!(asked, [true, false, false]);
    let left = proxy.key("one/work")["limits"][0].clone();
    assert_eq!(
        (left["what"].as_str(), left["limit"].as_u64(), left["remaining"].as_u64()),
        (Some("requests"), Some(10), Some(0)),
        "{left}"
    );
    let told = proxy.cli(&["route", "m"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("has 0 requests left at the provider"), "{told:?}");
}

#[test]
fn a_key_of_which_nothing_is_left_is_still_used_where_there_is_no_other() {
    let scene = Scene::chat("hello").header("x-ratelimit-remaining-tokens", "0").header("x-ratelimit-reset-tokens", "30s");
    let upstream = Upstream::start(vec![scene]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let begun = Instant::now();

    let statuses = [proxy.chat("hi").status, proxy.chat("hi").status];

    assert_eq!(statuses, [200, 200], "a belief is no sentence");
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_keys_limit_for_some_models_holds_for_these_only() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let row = format!(
        "[[upstream]]\nname = \"one\"\nbase_url = \"{}\"\ndialect = \"openai\"\nmodels = [\"*\"]\nkeys = [\
         {{ ref = \"sk-it-first-000000000000\", label = \"first\", priority = 1, limits = {{ \"glm-*\" = {{ rpm = 1 }} }} }}, \
         {{ ref = \"sk-it-second-00000000000\", label = \"second\", priority = 2 }}]",
        upstream.url()
    );
    let proxy = Setup::new().config(&row).start();

    let models = ["glm-5", "glm-5", "gpt-5", "gpt-5"];
    assert!(models.iter().all(|model| proxy.ask(&body(model, "hi", false)).status == 200));

    let keys: Vec<_> = upstream.journal().iter().map(|seen| seen.key().split('-').nth(2).unwrap_or_default().to_owned()).collect();
    assert_eq!(keys, ["first", "second", "first", "first"]);
}

#[test]
fn the_quickest_upstream_gets_what_follows() {
    let slow = Upstream::start(vec![Scene::chat("slow").delay(Duration::from_millis(300))]);
    let quick = Upstream::start(vec![Scene::chat("quick")]);
    let config = "[routing]\nstrategy = \"least_latency\"";
    let proxy = Setup::new().config(config).upstream("one", &slow, &["work"]).upstream("two", &quick, &["work"]).start();

    let said: Vec<_> = (0..5).map(|_| proxy.chat("hi").said()).collect();

    assert_eq!(said, ["slow", "quick", "quick", "quick", "quick"]);
}

#[test]
fn the_preferred_region_goes_first_and_gives_way_to_health() {
    let far = Upstream::start(vec![Scene::chat("far")]);
    let near = Upstream::start(vec![Scene::chat("near"), Scene::status(401)]);
    let proxy = Setup::new()
        .config("[routing]\nregion = \"here\"")
        .upstream_at("one", &far.url(), &["work"], "region = \"there\"")
        .upstream_at("two", &near.url(), &["work"], "region = \"here\"")
        .start();

    let told = proxy.cli(&["route", "m"]);
    let said = [proxy.chat("hi").said(), proxy.chat("hi").said(), proxy.chat("hi").said()];

    assert!(String::from_utf8_lossy(&told.stdout).contains("ready, in another region"), "{told:?}");
    assert_eq!(said, ["near", "far", "far"]);
}

#[test]
fn an_adaptive_mix_leaves_an_upstream_that_errs() {
    let bad = Upstream::directed(|_, number| if number % 2 == 0 { Scene::status(500) } else { Scene::chat("bad") });
    let good = Upstream::start(vec![Scene::chat("good")]);
    let config = "[cooldown]\nserver_error = \"1ms\"\nmax = \"1ms\"\n[retry]\nbackoff = \"1ms\"\nmax_backoff = \"1ms\"\n[routing]\nstrategy = \"adaptive:error_rate\"";
    let proxy = Setup::new().config(config).upstream("one", &bad, &["work"]).upstream("two", &good, &["work"]).start();

    let said: Vec<_> = (0..120).map(|_| proxy.chat("hi").said()).collect();

    assert!(said.iter().all(|said| !said.is_empty()), "nothing fails while one is healthy");
    let late = said[60..].iter().filter(|said| *said == "bad").count();
    assert!(late < 15, "{late} of 60");
}
