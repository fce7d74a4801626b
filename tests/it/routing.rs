//! Limits, strategies, affinity and wishes: what decides who serves a request, seen from outside.

use serde_json::json;

use crate::support::{
    client::{Answer, Request},
    proxy::{Setup, body},
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
