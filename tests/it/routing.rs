//! Limits, strategies, affinity and preferences: how the target of a request is selected, tested
//! from outside.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    client::{HttpAnswer, Request},
    poll_until,
    proxy::{CLIENT_KEY, Setup, chat_body, secret},
    upstream::{Gate, Scene, Upstream},
};

/// Adds another project with this client key and these lines.
fn project_toml(name: &str, key: &str, lines: &str) -> String {
    format!("[[project]]\nname = \"{name}\"\nkey = \"{key}\"\n{lines}\n")
}

const IDE: &str = "aip-it-ide-0123456789abcdef0123456789ab";

fn header_number(answer: &HttpAnswer, header: &str) -> u64 {
    answer
        .header(header)
        .and_then(|value| value.trim_end_matches('s').parse().ok())
        .unwrap_or_else(|| panic!("{header}: {:?}", answer.headers))
}

#[test]
fn project_over_its_request_rate_is_refused_at_once() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new()
        .config(&project_toml("ide", IDE, "rpm = 2"))
        .upstream("one", &upstream, &["work"])
        .start();
    let ask = || {
        Request::post("/v1/chat/completions", &chat_body("m", "hi", false))
            .bearer(IDE)
            .send(proxy.addr)
    };

    let answers = [ask(), ask(), ask()];

    assert_eq!(
        answers.each_ref().map(|answer| answer.status),
        [200, 200, 429],
        "{}",
        answers[2].text()
    );
    assert_eq!(
        answers.each_ref().map(|answer| header_number(answer, "x-ratelimit-remaining-requests")),
        [1, 0, 0]
    );
    assert_eq!(header_number(&answers[2], "x-ratelimit-limit-requests"), 2);
    assert!(
        (55..=60).contains(&header_number(&answers[2], "retry-after")),
        "{:?}",
        answers[2].headers
    );
    assert!(answers[2].text().contains("rpm"), "{}", answers[2].text());
    assert_eq!(upstream.requests().len(), 2);
    assert_eq!(proxy.chat("hi").status, 200, "other projects go on");
    assert!(!proxy.output().contains("not enforced"));
}

#[test]
fn project_tokens_are_reserved_and_settled_by_actual_use() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new()
        .config(&project_toml("ide", IDE, "tpm = 2000"))
        .upstream("one", &upstream, &["work"])
        .start();
    let ask = |prompt: &str| {
        let mut body = chat_body("m", prompt, false);
        body["max_tokens"] = json!(50);
        Request::post("/v1/chat/completions", &body).bearer(IDE).send(proxy.addr)
    };

    let first = ask("hi");
    let left = header_number(&ask("hi"), "x-ratelimit-remaining-tokens");
    let large = ask(&"x".repeat(8_000));

    assert_eq!(first.status, 200);
    assert!((1_900..2_000).contains(&left), "the first was settled at what it used: {left}");
    assert_eq!(large.status, 429, "{}", large.text());
    assert!(large.text().contains("tpm"));
}

#[test]
fn project_concurrency_limit_queues_requests() {
    let gate = Gate::closed();
    let upstream = Upstream::start(vec![Scene::chat("hello").head_gate(&gate)]);
    let proxy = Setup::new()
        .config(&project_toml("ide", IDE, "max_concurrency = 1"))
        .upstream("one", &upstream, &["work"])
        .start();
    let open = || {
        Request::post("/v1/chat/completions", &chat_body("m", "hi", false))
            .bearer(IDE)
            .open(proxy.addr)
    };

    let mut first = open();
    poll_until("the first at the upstream", || (upstream.requests().len() == 1).then_some(()));
    let mut second = open();
    poll_until("the second in the queue", || {
        proxy.snapshot()["live"]["running"]
            .as_array()
            .filter(|all| all.iter().any(|r| r["state"] == "queued"))
            .map(|_| ())
    });
    assert_eq!(upstream.requests().len(), 1);
    gate.open();

    assert_eq!(first.read_answer().status, 200);
    assert_eq!(second.read_answer().status, 200);
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn exhausted_key_is_skipped_before_it_answers_429() {
    let upstream = Upstream::with_director(|seen, _| {
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
    let asked: Vec<_> =
        upstream.requests().iter().map(|seen| seen.key() == secret("one", "work")).collect();
    assert_eq!(asked, [true, false, false]);
    let left = proxy.key("one/work")["limits"][0].clone();
    assert_eq!(
        (left["what"].as_str(), left["limit"].as_u64(), left["remaining"].as_u64()),
        (Some("requests"), Some(10), Some(0)),
        "{left}"
    );
    let reported = proxy.cli(&["route", "m"]);
    assert!(
        String::from_utf8_lossy(&reported.stdout).contains("has 0 requests left at the provider"),
        "{reported:?}"
    );
}

#[test]
fn exhausted_key_is_used_if_there_is_no_other() {
    let scene = Scene::chat("hello")
        .header("x-ratelimit-remaining-tokens", "0")
        .header("x-ratelimit-reset-tokens", "30s");
    let upstream = Upstream::start(vec![scene]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let begun = Instant::now();

    let statuses = [proxy.chat("hi").status, proxy.chat("hi").status];

    assert_eq!(statuses, [200, 200], "a belief is no sentence");
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn limit_for_some_models_applies_to_these_only() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let row = format!(
        "[[upstream]]\nname = \"one\"\nbase_url = \"{}\"\ndialect = \"openai\"\nmodels = [\"*\"]\nkeys = [\
         {{ ref = \"sk-it-first-000000000000\", label = \"first\", priority = 1, limits = {{ \"glm-*\" = {{ rpm = 1 }} }} }}, \
         {{ ref = \"sk-it-second-00000000000\", label = \"second\", priority = 2 }}]",
        upstream.url()
    );
    let proxy = Setup::new().config(&row).start();

    let models = ["glm-5", "glm-5", "gpt-5", "gpt-5"];
    assert!(models.iter().all(|model| proxy.ask(&chat_body(model, "hi", false)).status == 200));

    let keys: Vec<_> = upstream
        .requests()
        .iter()
        .map(|seen| seen.key().split('-').nth(2).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(keys, ["first", "second", "first", "first"]);
}

#[test]
fn fastest_upstream_gets_the_following_requests() {
    let slow = Upstream::start(vec![Scene::chat("slow").delay(Duration::from_millis(300))]);
    let quick = Upstream::start(vec![Scene::chat("quick")]);
    let config = "[routing]\nstrategy = \"least_latency\"";
    let proxy = Setup::new()
        .config(config)
        .upstream("one", &slow, &["work"])
        .upstream("two", &quick, &["work"])
        .start();

    let printed: Vec<_> = (0..5).map(|_| proxy.chat("hi").chat_text()).collect();

    assert_eq!(printed, ["slow", "quick", "quick", "quick", "quick"]);
}

#[test]
fn preferred_region_is_first_unless_unhealthy() {
    let far = Upstream::start(vec![Scene::chat("far")]);
    let near = Upstream::start(vec![Scene::chat("near"), Scene::status(401)]);
    let proxy = Setup::new()
        .config("[routing]\nregion = \"here\"")
        .upstream_at("one", &far.url(), &["work"], "region = \"there\"")
        .upstream_at("two", &near.url(), &["work"], "region = \"here\"")
        .start();

    let reported = proxy.cli(&["route", "m"]);
    let printed =
        [proxy.chat("hi").chat_text(), proxy.chat("hi").chat_text(), proxy.chat("hi").chat_text()];

    assert!(
        String::from_utf8_lossy(&reported.stdout).contains("ready, in another region"),
        "{reported:?}"
    );
    assert_eq!(printed, ["near", "far", "far"]);
}

#[test]
fn adaptive_strategy_avoids_a_failing_upstream() {
    let bad = Upstream::with_director(|_, number| {
        if number % 2 == 0 { Scene::status(500) } else { Scene::chat("bad") }
    });
    let good = Upstream::start(vec![Scene::chat("good")]);
    let config = "[cooldown]\nserver_error = \"1ms\"\nmax = \"1ms\"\n[retry]\nbackoff = \"1ms\"\nmax_backoff = \"1ms\"\n[routing]\nstrategy = \"adaptive:error_rate\"";
    let proxy = Setup::new()
        .config(config)
        .upstream("one", &bad, &["work"])
        .upstream("two", &good, &["work"])
        .start();

    let printed: Vec<_> = (0..120).map(|_| proxy.chat("hi").chat_text()).collect();

    assert!(
        printed.iter().all(|printed| !printed.is_empty()),
        "nothing fails while one is healthy"
    );
    let late = printed[60..].iter().filter(|printed| *printed == "bad").count();
    assert!(late < 15, "{late} of 60");
}

/// A conversation with this many turns, long enough to be cached.
fn conversation(about: &str, turns: usize) -> serde_json::Value {
    let mut messages = vec![json!({"role": "system", "content": "be brief"})];
    for turn in 0..turns {
        messages.push(
            json!({"role": "user", "content": format!("{about} {turn} {}", "x".repeat(5_000))}),
        );
        if turn + 1 < turns {
            messages.push(json!({"role": "assistant", "content": "hello"}));
        }
    }
    json!({"model": "m", "messages": messages})
}

/// An upstream with two keys that alternate.
fn two_key_config(upstream: &Upstream) -> String {
    format!(
        "[[upstream]]\nname = \"one\"\nbase_url = \"{}\"\ndialect = \"openai\"\nmodels = [\"*\"]\nkeys = [\
         {{ ref = \"sk-it-first-000000000000\", label = \"first\" }}, {{ ref = \"sk-it-second-00000000000\", label = \"second\" }}]",
        upstream.url()
    )
}

fn used_keys(upstream: &Upstream) -> Vec<String> {
    upstream
        .requests()
        .iter()
        .map(|seen| seen.key().split('-').nth(2).unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn turns_of_a_conversation_use_the_account_with_its_cache() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().config(&two_key_config(&upstream)).start();

    for turns in 1..4 {
        for about in ["cats", "dogs"] {
            assert_eq!(proxy.ask(&conversation(about, turns)).status, 200);
        }
    }

    let keys = used_keys(&upstream);
    assert_ne!(keys[0], keys[1], "two conversations, two keys");
    assert_eq!(
        keys,
        [&keys[0], &keys[1], &keys[0], &keys[1], &keys[0], &keys[1]].map(String::clone)
    );
}

#[test]
fn keys_are_used_in_turn_without_affinity() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new()
        .config("[routing]\nsticky = \"off\"")
        .config(&two_key_config(&upstream))
        .start();

    for turns in 1..4 {
        proxy.ask(&conversation("cats", turns));
    }

    assert_eq!(used_keys(&upstream), ["first", "second", "first"]);
}

#[test]
fn session_is_visible_and_deletable_for_its_project_only() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new()
        .config("[routing]\nsticky = \"session\"")
        .config(&project_toml("ide", IDE, ""))
        .config(&two_key_config(&upstream))
        .start();
    let ask = || {
        proxy.send(
            &Request::post("/v1/chat/completions", &chat_body("m", "hi", false))
                .header("x-session-id", "s/1"),
        )
    };
    let path = "/routing/sessions/s%2F1";

    assert_eq!(proxy.send(&Request::get(path)).status, 404);
    assert!([ask(), ask(), ask()].iter().all(|answer| answer.status == 200));
    let keys = used_keys(&upstream);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");

    let reported = proxy.send(&Request::get(path));
    assert_eq!(
        (reported.json()["conversation_id"].as_str(), reported.json()["provider_id"].as_str()),
        (Some("s/1"), Some("one"))
    );
    assert!(
        !reported.text().contains("first") && !reported.text().contains("second"),
        "keys are never shown: {}",
        reported.text()
    );
    assert_eq!(
        Request::get(path).bearer(IDE).send(proxy.addr).status,
        404,
        "another project's session of that name is another"
    );
    assert_eq!(proxy.send(&Request::get(path).method("DELETE")).status, 204);
    assert_eq!(proxy.send(&Request::get(path)).status, 404);
}

#[test]
fn dry_run_reports_the_decision_without_side_effects() {
    let first = Upstream::start(vec![Scene::chat("hello")]);
    let second = Upstream::start(vec![Scene::chat("hello")]);
    let model = "[[model]]\nname = \"auto\"\ntargets = [\"one:a\", \"two:b\"]";
    let proxy = Setup::new()
        .config(&project_toml("ide", IDE, "models = [\"auto\"]"))
        .config(model)
        .upstream_at("one", &first.url(), &["work"], "region = \"eu\"")
        .upstream_at("two", &second.url(), &["home"], "region = \"us\"")
        .start();
    let decide = |body: serde_json::Value| proxy.send(&Request::post("/routing/decide", &body));

    let reported = decide(
        json!({"logical_model": "auto", "conversation_id": "c", "preferred_region": "us", "strategy": "latency_first"}),
    );
    assert_eq!(reported.status, 200, "{}", reported.text());
    assert_eq!(reported.json()["selected_upstream"]["provider_id"], "two");
    assert_eq!(reported.json()["strategy_used"], "adaptive:latency_first");
    assert_eq!(reported.json()["all_candidates"].as_array().map(Vec::len), Some(2));
    assert_eq!(reported.json()["alternative_upstreams"][0]["model_id"], "a");
    assert_eq!(
        decide(json!({"logical_model": "auto", "exclude_providers": ["one"]})).json()["selected_upstream"]
            ["provider_id"],
        "two"
    );
    assert_eq!(
        decide(json!({"logical_model": "auto", "exclude_providers": ["one", "two"]})).status,
        503
    );
    let other = Request::post("/routing/decide", &json!({"logical_model": "other"}))
        .bearer(IDE)
        .send(proxy.addr);
    assert_eq!(other.status, 404, "not for that project: {}", other.text());
    assert_eq!(decide(json!({"logical_model": "auto", "strategy": "luck"})).status, 400);
    assert_eq!(proxy.send(&Request::get("/routing/sessions/c")).status, 404, "nothing was bound");
    decide(json!({"logical_model": "auto", "conversation_id": "c", "bind": true}));
    assert_eq!(proxy.send(&Request::get("/routing/sessions/c")).json()["provider_id"], "one");
    assert!(first.requests().is_empty() && second.requests().is_empty());

    let all = [
        "/providers",
        "/providers/one",
        "/providers/one/models",
        "/providers/one/health",
        "/providers/one/metrics",
        "/logical-models",
        "/logical-models/auto",
        "/logical-models/auto/upstreams",
    ];
    for path in all {
        let reported = proxy.send(&Request::get(path));
        assert_eq!(reported.status, 200, "{path}: {}", reported.text());
        assert!(
            !reported.text().contains("sk-it") && !reported.text().contains("work"),
            "keys are never shown: {path}: {}",
            reported.text()
        );
    }
    let metrics = |model: &str| {
        let path = format!("/providers/one/metrics?logical_model={model}");
        proxy.send(&Request::get(&path)).json()["attempts"].clone()
    };
    assert_eq!(proxy.ask(&chat_body("auto", "hi", false)).status, 200);
    assert_eq!((metrics("auto"), metrics("other")), (json!(1), json!(0)));
    for path in ["/providers/three", "/logical-models/three"] {
        assert_eq!(proxy.send(&Request::get(path)).status, 404, "{path}");
    }
    assert_eq!(Request::get("/providers").send(proxy.addr).status, 401);
}

#[test]
fn model_with_too_small_a_context_is_skipped_with_that_reason() {
    let small = Upstream::start(vec![Scene::chat("small")]);
    let large = Upstream::start(vec![Scene::chat("large")]);
    let model = "[[model]]\nname = \"auto\"\ntargets = [{ upstream = \"one\", model = \"gpt-4\", priority = 1 }, { upstream = \"two\", model = \"gpt-4o\", priority = 2 }]";
    let proxy = Setup::new()
        .config(model)
        .upstream("one", &small, &["work"])
        .upstream("two", &large, &["work"])
        .start();
    let ask = |prompt: &str| proxy.ask(&chat_body("auto", prompt, false)).chat_text();

    assert_eq!(ask("hi"), "small");
    assert_eq!(ask(&"word ".repeat(10_000)), "large");
}

#[test]
fn model_without_vision_is_skipped_for_another() {
    let blind = Upstream::start(vec![Scene::chat("blind")]);
    let seeing = Upstream::start(vec![Scene::chat("seeing")]);
    let model = "[[model]]\nname = \"auto\"\ntargets = [{ upstream = \"one\", model = \"gpt-3.5-turbo\", priority = 1 }, { upstream = \"two\", model = \"gpt-4o\", priority = 2 }]";
    let proxy = Setup::new()
        .config(model)
        .upstream("one", &blind, &["work"])
        .upstream("two", &seeing, &["work"])
        .start();
    let picture = json!({"model": "auto", "messages": [{"role": "user", "content": [
        {"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]});

    assert_eq!(proxy.ask(&picture).chat_text(), "seeing");
    assert_eq!(proxy.chat("hi").status, 200);
    assert_eq!(proxy.ask(&chat_body("auto", "hi", false)).chat_text(), "blind");
}

#[test]
fn upstream_rules_classify_refusals() {
    let odd = Upstream::with_director(|seen, _| {
        let refuse = |text: &str| {
            Scene::json(400, &json!({"error": {"message": text, "type": "invalid_request_error"}}))
        };
        match seen.json()["messages"][0]["content"].as_str() {
            Some("busy") => refuse("at capacity, come back"),
            Some("wrong") => refuse("bad field"),
            Some("gone") => Scene::status(500),
            _ => Scene::chat("one"),
        }
    });
    let good = Upstream::start(vec![Scene::chat("two")]);
    let rules = "[[upstream.rule]]\nstatus = \"400\"\nmatch = \"Capacity\"\naction = \"cool\"\nscope = \"key_model\"\nfor = \"30s\"\n\
                 [[upstream.rule]]\nstatus = \"500\"\naction = \"pass\"";
    let proxy = Setup::new()
        .upstream_at("one", &odd.url(), &["work"], rules)
        .upstream("two", &good, &["work"])
        .start();

    assert_eq!(proxy.chat("hi").chat_text(), "one");
    assert_eq!(proxy.chat("wrong").status, 400, "no rule is of that");
    assert_eq!(proxy.chat("gone").status, 500, "passed on unchanged");
    assert_eq!(proxy.key("one/work")["state"], "ok");
    assert_eq!(proxy.chat("busy").chat_text(), "two");
    assert_eq!(proxy.key("one/work")["scopes"][0]["state"], "cooling");
    assert_eq!(proxy.chat("hi").chat_text(), "two");
}

#[test]
fn provider_preferences_are_applied_and_not_sent_upstream() {
    let first = Upstream::start(vec![Scene::chat("first")]);
    let second = Upstream::start(vec![Scene::chat("second")]);
    let proxy =
        Setup::new().upstream("one", &first, &["work"]).upstream("two", &second, &["work"]).start();
    let wish = |provider: serde_json::Value| {
        let mut body = chat_body("m", "hi", false);
        body["provider"] = provider;
        proxy.ask(&body)
    };

    assert_eq!(wish(json!({"order": ["two"]})).chat_text(), "second");
    assert_eq!(wish(json!({"only": ["two"]})).chat_text(), "second");
    assert_eq!(wish(json!({"ignore": ["one"]})).chat_text(), "second");
    assert_eq!(wish(json!({"sort": "price"})).chat_text(), "first");
    let nobody = wish(json!({"only": ["two"], "ignore": ["two"]}));
    assert_eq!(
        (nobody.status, nobody.json()["error"]["param"].as_str()),
        (404, Some("provider")),
        "{}",
        nobody.text()
    );
    assert_eq!(wish(json!({"sort": "luck"})).status, 400);
    assert!(second.requests().iter().all(|seen| seen.json().get("provider").is_none()));
    assert_eq!(wish(json!({"order": ["somebody-else"]})).chat_text(), "first");
    assert_eq!(
        first.requests().last().expect("asked").json()["provider"]["order"][0],
        "somebody-else",
        "meant for the provider itself"
    );
}

#[test]
fn fallback_models_are_tried_if_the_first_is_unavailable() {
    let first = Upstream::with_director(|seen, _| {
        if seen.json()["model"] == "a" {
            Scene::status(429).header("retry-after", "30")
        } else {
            Scene::chat("b")
        }
    });
    let proxy = Setup::new().upstream("one", &first, &["work"]).start();
    let mut asked = chat_body("a", "hi", false);
    asked["models"] = json!(["b"]);

    let answer = proxy.ask(&asked);

    assert_eq!((answer.status, answer.chat_text().as_str()), (200, "b"), "{}", answer.text());
    assert!(first.requests().iter().all(|seen| seen.json().get("models").is_none()));
}

#[test]
fn model_suffix_selects_a_strategy() {
    let slow = Upstream::start(vec![Scene::chat("slow").delay(Duration::from_millis(300))]);
    let quick = Upstream::start(vec![Scene::chat("quick")]);
    let proxy =
        Setup::new().upstream("one", &slow, &["work"]).upstream("two", &quick, &["work"]).start();
    let ask = |model: &str| proxy.ask(&chat_body(model, "hi", false)).chat_text();

    assert_eq!(
        [ask("m:fast"), ask("m:fast"), ask("m:fast"), ask("m")],
        ["slow", "quick", "quick", "slow"]
    );
    assert!(
        slow.requests().iter().chain(&quick.requests()).all(|seen| seen.json()["model"] == "m")
    );
}

#[test]
fn key_health_survives_a_restart() {
    let upstream = Upstream::with_director(|seen, _| match seen.key() {
        key if key == secret("one", "work") => Scene::status(429).header("retry-after", "300"),
        key if key == secret("one", "bad") => Scene::status(401),
        _ => Scene::chat("hello")
            .header("x-ratelimit-remaining-tokens", "90000")
            .header("x-ratelimit-reset-tokens", "5m0s"),
    });
    let proxy = Setup::new().upstream("one", &upstream, &["work", "bad", "spare"]).start();
    assert_eq!(proxy.chat("hi").chat_text(), "hello");
    assert_eq!(upstream.requests().len(), 3);

    let proxy = proxy.restart();

    assert_eq!(proxy.chat("hi").chat_text(), "hello");
    let asked: Vec<_> =
        upstream.requests().iter().skip(3).map(|seen| seen.key().to_owned()).collect();
    assert_eq!(asked, [secret("one", "spare")], "who was limited or rejected is not asked again");
    assert_eq!(proxy.key("one/work")["scopes"][0]["state"], "cooling");
    assert_eq!(proxy.key("one/bad")["state"], "rejected");
    assert_eq!(proxy.key("one/spare")["limits"][0]["what"], "tokens");
    let kept = std::fs::read_to_string(proxy.home.data().join("health.json")).expect("kept");
    assert!(!kept.contains("sk-it-one"), "no secret is in it: {kept}");
}

#[test]
fn request_that_may_not_queue_uses_another_account_at_once() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::with_director(move |_, number| {
        let scene = Scene::chat("hello");
        if number == 1 { scene.head_gate(&held) } else { scene }
    });
    let row = two_key_config(&upstream)
        .replace("label = \"first\"", "label = \"first\", max_concurrency = 1")
        .replace("label = \"second\"", "label = \"second\", max_concurrency = 1");
    let proxy = Setup::new().config("[retry]\nqueue_for = \"0s\"").config(&row).start();
    assert_eq!(proxy.ask(&conversation("cats", 1)).status, 200);
    let mut busy = Request::post("/v1/chat/completions", &conversation("cats", 2))
        .bearer(CLIENT_KEY)
        .open(proxy.addr);
    poll_until("the second turn at the upstream", || {
        (upstream.requests().len() == 2).then_some(())
    });
    let begun = Instant::now();

    let third = proxy.ask(&conversation("cats", 3));

    assert_eq!(third.status, 200, "{}", third.text());
    assert!(begun.elapsed() < Duration::from_millis(1_500), "it did not wait");
    let keys = used_keys(&upstream);
    assert_eq!((&keys[0], keys[0] == keys[2]), (&keys[1], false), "{keys:?}");
    gate.open();
    assert_eq!(busy.read_answer().status, 200);
}

#[test]
fn projects_waiting_for_one_key_are_served_in_turn() {
    let gate = Gate::closed();
    let upstream =
        Upstream::start(vec![Scene::chat("hello").head_gate(&gate), Scene::chat("hello")]);
    let row = format!(
        "[[upstream]]\nname = \"one\"\nbase_url = \"{}\"\ndialect = \"openai\"\nmodels = [\"*\"]\n\
         keys = [{{ ref = \"sk-it-only-0000000000000\", label = \"only\", max_concurrency = 1 }}]",
        upstream.url()
    );
    let proxy = Setup::new().config(&project_toml("ide", IDE, "")).config(&row).start();
    let open = |key: &str, prompt: &str| {
        Request::post("/v1/chat/completions", &chat_body("m", prompt, false))
            .bearer(key)
            .open(proxy.addr)
    };
    let queued = || {
        let running = proxy.snapshot()["live"]["running"].as_array().cloned().unwrap_or_default();
        running.into_iter().filter(|record| record["state"] == "queued").count()
    };

    let mut open_ones = vec![open(CLIENT_KEY, "first")];
    upstream.nth_request(0);
    for (key, prompt) in
        [(CLIENT_KEY, "a1"), (CLIENT_KEY, "a2"), (CLIENT_KEY, "a3"), (IDE, "b1"), (IDE, "b2")]
    {
        let before = queued();
        open_ones.push(open(key, prompt));
        poll_until("it to wait", || (queued() == before + 1).then_some(()));
    }
    gate.open();

    assert!(open_ones.iter_mut().all(|connection| connection.read_answer().status == 200));
    let asked: Vec<_> = upstream
        .requests()
        .iter()
        .map(|seen| seen.json()["messages"][0]["content"].clone())
        .collect();
    assert_eq!(asked, ["first", "a1", "b1", "a2", "b2", "a3"], "who asks more does not wait less");
}

#[test]
fn least_cost_uses_the_built_in_prices() {
    let (dear, cheap) =
        (Upstream::start(vec![Scene::chat("dear")]), Upstream::start(vec![Scene::chat("cheap")]));
    let logical = "[[model]]\nname = \"any\"\nstrategy = \"least_cost\"\ntargets = [\"one:gpt-4o\", \"two:gpt-4o-mini\"]";
    let preset = "preset = \"openai\"";
    let setup = Setup::new().config(logical).upstream_at("one", &dear.url(), &["work"], preset);
    let proxy = setup.upstream_at("two", &cheap.url(), &["work"], preset).start();

    let printed: Vec<_> =
        (0..3).map(|_| proxy.ask(&chat_body("any", "hi", false)).chat_text()).collect();

    assert_eq!(printed, ["cheap", "cheap", "cheap"]);
    // The strategy suffix gives the same result without a config row.
    let reported = proxy.cli(&["route", "any"]);
    assert!(String::from_utf8_lossy(&reported.stdout).contains("gpt-4o-mini"), "{reported:?}");
    let usage: serde_json::Value =
        serde_json::from_slice(&proxy.cli(&["log", "show", "last", "--json"]).stdout)
            .expect("JSON");
    assert_eq!(usage["parts"][0]["bill"]["source"], "builtin", "{usage}");
}

#[test]
fn model_without_structured_output_is_skipped_with_that_reason() {
    let (old, new) =
        (Upstream::start(vec![Scene::chat("old")]), Upstream::start(vec![Scene::chat("new")]));
    let logical = "[[model]]\nname = \"any\"\ntargets = [\"one:gpt-4-turbo\", \"two:gpt-4o\"]";
    let proxy = Setup::new()
        .config(logical)
        .upstream("one", &old, &["work"])
        .upstream("two", &new, &["work"])
        .start();
    let mut bound = chat_body("any", "hi", false);
    bound["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}});

    let printed =
        [proxy.ask(&chat_body("any", "hi", false)).chat_text(), proxy.ask(&bound).chat_text()];

    assert_eq!(printed, ["old", "new"]);
    bound["model"] = json!("one:gpt-4-turbo");
    assert_eq!(proxy.ask(&bound).chat_text(), "old", "where there is nobody else it is tried");
}
