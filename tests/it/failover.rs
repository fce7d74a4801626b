//! Failover: which key and upstream serve the next attempt, what cools, and what the client
//! receives.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    client::{Request, events},
    poll_until,
    proxy::{CLIENT_KEY, Setup, chat_body, secret},
    upstream::{Scene, Upstream, chunk},
};

/// Retry delays that do not slow a test down.
const SHORT_RETRIES: &str = "[retry]\nbackoff = \"5ms\"\nmax_backoff = \"10ms\"";

#[test]
fn next_key_is_used_and_the_first_cooled_after_a_429() {
    let upstream = Upstream::with_director(|seen, _| {
        if seen.key() == secret("one", "work") {
            Scene::status(429).header("retry-after", "30")
        } else {
            Scene::chat("hello")
        }
    });
    let proxy = Setup::new().upstream("one", &upstream, &["work", "spare"]).start();

    let answers: Vec<_> = (0..5).map(|_| proxy.chat("hi")).collect();

    assert!(answers.iter().all(|answer| answer.status == 200 && answer.chat_text() == "hello"));
    assert_eq!(answers[0].header("x-aiproxy-attempts"), Some("2"));
    let asked: Vec<_> =
        upstream.requests().iter().map(|seen| seen.key() == secret("one", "work")).collect();
    assert_eq!(asked, [true, false, false, false, false, false], "the limited key is asked once");
    let scope = proxy.key("one/work")["scopes"][0].clone();
    assert_eq!(
        (scope["model"].as_str(), scope["state"].as_str()),
        (Some("m"), Some("cooling")),
        "{scope}"
    );
    assert_eq!(proxy.key("one/spare")["state"], "ok");
    let newest = proxy.snapshot()["live"]["recent"]
        .as_array()
        .and_then(|all| all.last().cloned())
        .unwrap_or_default();
    let skipped = &newest["route"]["skipped"][0];
    assert_eq!(
        (&skipped["key_name"], &skipped["reason"]["kind"], &skipped["reason"]["scope"]),
        (&json!("one/work"), &json!("cooling"), &json!("key_model")),
        "{newest}"
    );
}

#[test]
fn retry_after_is_the_earliest_end_if_every_key_is_limited() {
    let upstream = Upstream::with_director(|seen, _| {
        Scene::status(429)
            .header("retry-after", if seen.key() == secret("one", "work") { "300" } else { "40" })
    });
    let proxy = Setup::new().upstream("one", &upstream, &["work", "spare"]).start();
    let begun = Instant::now();

    let answer = proxy.chat("hi");

    assert_eq!(answer.status, 429, "{}", answer.text());
    let wait: u64 = answer
        .header("retry-after")
        .and_then(|value| value.parse().ok())
        .expect("Retry-After in seconds");
    assert!((35..=40).contains(&wait), "{wait}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(answer.json()["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn limited_model_does_not_affect_others() {
    let upstream = Upstream::with_director(|seen, _| {
        if seen.json()["model"] == "busy" {
            Scene::status(429).header("retry-after", "30")
        } else {
            Scene::chat("hello")
        }
    });
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();

    let busy = proxy.ask(&chat_body("busy", "hi", false));
    let idle = proxy.ask(&chat_body("idle", "hi", false));

    assert_eq!((busy.status, idle.status), (429, 200), "{}", idle.text());
    assert_eq!(proxy.key("one/work")["state"], "partly");
}

#[test]
fn short_limit_is_waited_for() {
    let upstream =
        Upstream::start(vec![Scene::status(429).header("retry-after", "1"), Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();

    let answer = proxy.chat("hi");

    assert_eq!((answer.status, answer.chat_text().as_str()), (200, "hello"), "{}", answer.text());
    let journal = upstream.requests();
    assert!(
        journal[1].at - journal[0].at >= Duration::from_millis(990),
        "not before the second it was asked for"
    );
}

#[test]
fn server_error_fails_over() {
    let broken = Upstream::start(vec![Scene::status(500)]);
    let good = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new()
        .config(SHORT_RETRIES)
        .upstream("one", &broken, &["work"])
        .upstream("two", &good, &["work"])
        .start();

    let answer = proxy.chat("hi");

    assert_eq!(answer.chat_text(), "hello");
    assert_eq!(answer.header("x-aiproxy-upstream"), Some("two"));
}

#[test]
fn refused_connection_fails_over_at_once() {
    let good = Upstream::start(vec![Scene::chat("hello")]);
    let dead = format!("http://{}/v1", Upstream::refused_addr());
    let proxy = Setup::new()
        .upstream_at("one", &dead, &["work"], "")
        .upstream("two", &good, &["work"])
        .start();
    let begun = Instant::now();

    let answer = proxy.chat("hi");

    assert_eq!(answer.chat_text(), "hello");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn one_500_on_the_only_key_is_not_an_outage() {
    let upstream = Upstream::start(vec![Scene::status(500), Scene::chat("hello")]);
    let proxy = Setup::new().config(SHORT_RETRIES).upstream("one", &upstream, &["work"]).start();

    let answer = proxy.chat("hi");

    assert_eq!(answer.chat_text(), "hello", "{}", answer.text());
}

#[test]
fn error_inside_a_200_fails_over() {
    let lying = Upstream::start(vec![Scene::json(
        200,
        &json!({"error": {"message": "overloaded", "type": "server_error"}}),
    )]);
    let good = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new()
        .config(SHORT_RETRIES)
        .upstream("one", &lying, &["work"])
        .upstream("two", &good, &["work"])
        .start();

    let answer = proxy.chat("hi");

    assert_eq!(answer.chat_text(), "hello", "{}", answer.text());
}

#[test]
fn stream_without_content_fails_over_unnoticed() {
    let role = chunk(&json!({"role": "assistant", "content": ""}), None);
    let done = || "data: [DONE]\n\n".to_owned();
    let failed = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": null, "error": {"message": "no", "code": 500}}]});
    for events in [
        vec![done()],
        vec![role.clone(), done()],
        vec![role.clone(), chunk(&json!({"content": ""}), Some("error")), done()],
        vec![role, format!("data: {failed}\n\n"), done()],
        vec!["data: [{\"error\":{\"message\":\"no\"}}]\n\n".to_owned()],
    ] {
        let reported = format!("{events:?}");
        let empty = Upstream::start(vec![Scene::events(events)]);
        let good = Upstream::start(vec![Scene::sse(&["hello"]), Scene::sse(&["hello"])]);
        let proxy = Setup::new()
            .config(SHORT_RETRIES)
            .upstream("one", &empty, &["work"])
            .upstream("two", &good, &["work"])
            .start();

        let answer = proxy.chat_stream("hi");

        assert_eq!(
            (answer.status, answer.chat_text().as_str()),
            (200, "hello"),
            "{reported}: {}",
            answer.text()
        );
    }
}

#[test]
fn empty_answer_with_a_finish_reason_is_an_answer() {
    let upstream = Upstream::start(vec![Scene::sse(&[])]);
    let proxy = Setup::new().config(SHORT_RETRIES).upstream("one", &upstream, &["work"]).start();

    let answer = proxy.chat_stream("hi");

    assert_eq!(
        (answer.status, answer.chat_text().as_str(), upstream.requests().len()),
        (200, "", 1),
        "{}",
        answer.text()
    );
    assert!(answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
}

#[test]
fn unframed_error_at_the_end_of_a_stream_reaches_the_client() {
    let error = "{\"error\": {\"message\": \"the engine died\", \"code\": 500}}\n".to_owned();
    let upstream =
        Upstream::start(vec![Scene::events([chunk(&json!({"content": "a"}), None), error])]);
    let proxy = Setup::new().config(SHORT_RETRIES).upstream("one", &upstream, &["work"]).start();

    let answer = proxy.chat_stream("hi");

    assert!(
        answer.text().contains("the engine died") && !answer.text().contains("[DONE]"),
        "{}",
        answer.text()
    );
}

#[test]
fn errors_with_a_wrong_content_encoding_are_read() {
    let scene = Scene::json(400, &json!({"error": {"message": "the picture is too large"}}))
        .header("content-encoding", "gzip");
    let upstream = Upstream::start(vec![scene]);
    let proxy = Setup::new().config(SHORT_RETRIES).upstream("one", &upstream, &["work"]).start();

    let answer = proxy.chat("hi");

    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["message"], "the picture is too large");
}

#[test]
fn stream_broken_before_content_fails_over_unnoticed() {
    let broken = Upstream::start(vec![Scene::sse(&["never"]).cut_after(1)]);
    let good = Upstream::start(vec![Scene::sse(&["hel", "lo"])]);
    let proxy = Setup::new()
        .config(SHORT_RETRIES)
        .upstream("one", &broken, &["work"])
        .upstream("two", &good, &["work"])
        .start();

    let answer = proxy.chat_stream("hi");

    assert_eq!((answer.status, answer.chat_text().as_str()), (200, "hello"), "{}", answer.text());
    assert_eq!(events(&answer.body).iter().filter(|data| *data == "[DONE]").count(), 1);
}

#[test]
fn no_retry_after_content_was_sent() {
    let broken = Upstream::start(vec![Scene::sse(&["hel", "lo"]).cut_after(2)]);
    let good = Upstream::start(vec![Scene::sse(&["other"])]);
    let proxy = Setup::new()
        .config(SHORT_RETRIES)
        .upstream("one", &broken, &["work"])
        .upstream("two", &good, &["work"])
        .start();

    let answer = proxy.chat_stream("hi");

    assert_eq!(answer.chat_text(), "hel");
    assert!(
        answer.text().contains("\"error\"") && !answer.text().contains("[DONE]"),
        "{}",
        answer.text()
    );
    assert!(good.requests().is_empty());
}

#[test]
fn bad_request_cools_nothing() {
    let upstream =
        Upstream::start(vec![Scene::status(400), Scene::status(422), Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();

    let statuses = [proxy.chat("a").status, proxy.chat("b").status, proxy.chat("c").status];

    assert_eq!(statuses, [400, 422, 200]);
    assert_eq!(proxy.key("one/work")["state"], "ok");
}

#[test]
fn request_refused_by_aiproxy_cools_nothing() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new()
        .config("[server]\nmax_request_bytes = \"1KiB\"")
        .upstream("one", &upstream, &["work"])
        .start();

    let refused = proxy.chat(&"x".repeat(4_096));

    assert_eq!(refused.status, 413);
    assert_eq!(proxy.key("one/work")["state"], "ok");
    assert_eq!(proxy.chat("hi").chat_text(), "hello");
}

#[test]
fn attempt_never_mixes_url_key_and_model() {
    let first = Upstream::start(vec![Scene::status(503)]);
    let second = Upstream::start(vec![Scene::chat("hello")]);
    let config = format!(
        "{SHORT_RETRIES}\n[[model]]\nname = \"auto\"\ntargets = [\"one:model-a\", \"two:model-b\"]"
    );
    let proxy = Setup::new()
        .config(&config)
        .upstream("one", &first, &["work"])
        .upstream("two", &second, &["home"])
        .start();

    let answer = proxy.ask(&chat_body("auto", "hi", false));

    assert_eq!(answer.chat_text(), "hello", "{}", answer.text());
    for (upstream, model, key) in
        [(&first, "model-a", secret("one", "work")), (&second, "model-b", secret("two", "home"))]
    {
        for seen in upstream.requests() {
            assert_eq!((seen.json()["model"].as_str(), seen.key()), (Some(model), key.as_str()));
            assert_eq!(
                (seen.method.as_str(), seen.path.as_str()),
                ("POST", "/v1/chat/completions")
            );
        }
        assert!(!upstream.requests().is_empty());
    }
}

#[test]
fn rejected_key_is_not_used_until_warmed() {
    let upstream = Upstream::with_director(|seen, _| {
        if seen.key() == secret("one", "work") { Scene::status(401) } else { Scene::chat("hello") }
    });
    let proxy = Setup::new().upstream("one", &upstream, &["work", "spare"]).start();

    let printed: Vec<_> = (0..3).map(|_| proxy.chat("hi").chat_text()).collect();

    assert_eq!(printed, ["hello"; 3]);
    assert_eq!(
        upstream.requests().iter().filter(|seen| seen.key() == secret("one", "work")).count(),
        1
    );
    assert_eq!(proxy.key("one/work")["state"], "rejected");
}

#[test]
fn rejected_only_key_is_a_502_naming_the_key_without_its_secret() {
    let upstream = Upstream::start(vec![Scene::status(401)]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();

    let answer = proxy.chat("hi");

    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(
        answer.text().contains("one/work") && !answer.text().contains(&secret("one", "work")),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("x-should-retry"), Some("false"));
}

#[test]
fn warmed_key_is_used_again() {
    let upstream = Upstream::start(vec![
        Scene::status(429).header("retry-after", "600"),
        Scene::chat("hello"),
    ]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    assert_eq!(proxy.chat("hi").status, 429);

    let warmed = proxy.cli(&["key", "warm", "one/work"]);

    assert!(warmed.status.success(), "{}", String::from_utf8_lossy(&warmed.stderr));
    assert_eq!(proxy.chat("hi").chat_text(), "hello");
    poll_until("the key to be well again", || {
        (proxy.key("one/work")["state"] == "ok").then_some(())
    });
}

#[test]
fn retry_after_of_days_is_capped_by_the_config() {
    let upstream = Upstream::start(vec![
        Scene::status(429).header("retry-after", "561600"),
        Scene::chat("hello"),
    ]);
    let setup = Setup::new().config("[cooldown]\nmax_hint = \"1s\"\n[retry]\nqueue_for = \"0s\"");
    let proxy = setup.upstream("one", &upstream, &["work"]).start();
    assert_eq!(proxy.chat("hi").status, 429);

    poll_until("the key to be tested by a request", || {
        (proxy.chat("hi").chat_text() == "hello").then_some(())
    });

    assert_eq!(upstream.requests().len(), 2, "asked once more, after its second");
    assert_eq!(proxy.key("one/work")["state"], "ok");
}

#[test]
fn request_queues_for_short_cooldowns_and_fails_for_long_ones() {
    let short =
        Upstream::start(vec![Scene::status(429).header("retry-after", "1"), Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &short, &["work"]).start();
    assert_eq!(proxy.chat("hi").chat_text(), "hello", "a second is waited for");

    let long = Upstream::with_director(|seen, _| {
        Scene::status(429)
            .header("retry-after", if seen.key() == secret("one", "work") { "300" } else { "40" })
    });
    let proxy = Setup::new().upstream("one", &long, &["work", "spare"]).start();
    proxy.chat("hi");
    let text = proxy.chat("again").text();

    for part in ["all 2 keys", "one/work", "one/spare", "5m00s", "back in 40s", "aiproxy key warm"]
    {
        assert!(
            text.contains(part)
                || text.contains(&part.replace("40s", "39s").replace("5m00s", "4m59s")),
            "{part} is missing: {text}"
        );
    }
    assert_eq!(long.requests().len(), 2, "nobody was asked again");
}

#[test]
fn account_without_credit_is_excluded_for_all_models_and_keys() {
    let error = json!({"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}});
    let upstream = Upstream::with_director(move |seen, _| {
        if seen.key().contains("first") || seen.key().contains("second") {
            Scene::json(429, &error)
        } else {
            Scene::chat("hello")
        }
    });
    let key = |label: &str, account: &str, priority: u32| {
        format!(
            "{{ ref = \"sk-it-{label}-000000000000\", label = \"{label}\", account = \"{account}\", priority = {priority} }}"
        )
    };
    let row = format!(
        "[[upstream]]\nname = \"one\"\nbase_url = \"{}\"\ndialect = \"openai\"\nmodels = [\"*\"]\nkeys = [{}, {}, {}]",
        upstream.url(),
        key("first", "me", 10),
        key("second", "me", 11),
        key("third", "you", 12)
    );
    let proxy = Setup::new().config(&row).start();

    let printed: Vec<_> =
        ["m", "n", "o"].map(|model| proxy.ask(&chat_body(model, "hi", false)).chat_text()).into();

    assert_eq!(printed, ["hello"; 3]);
    let asked: Vec<_> = upstream
        .requests()
        .iter()
        .map(|seen| seen.key().split('-').nth(2).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        asked,
        ["first", "third", "third", "third"],
        "its other key and its other models are not asked"
    );
}

#[test]
fn every_request_succeeds_with_one_good_key_among_bad_ones() {
    let upstream = Upstream::with_director(|seen, _| match seen.key() {
        key if key == secret("one", "bad") => Scene::status(401),
        key if key == secret("one", "slow") => Scene::status(429).header("retry-after", "60"),
        _ => Scene::chat("hello"),
    });
    let proxy = Setup::new().upstream("one", &upstream, &["bad", "slow", "good"]).start();
    const AT_ONCE: usize = 20;

    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|_| scope.spawn(|| (0..10).map(|_| proxy.chat("hi").status).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });

    assert_eq!(statuses, [200; 200]);
    let asked = |label: &str| {
        upstream.requests().iter().filter(|seen| seen.key() == secret("one", label)).count()
    };
    let (bad, slow, good) = (asked("bad"), asked("slow"), asked("good"));
    // Only requests that were running before the first refusal may have used these keys.
    assert!((1..=AT_ONCE).contains(&bad) && (1..=AT_ONCE).contains(&slow), "{bad} {slow}");
    assert_eq!(good, 200);
    assert_eq!(proxy.key("one/bad")["state"], "rejected");
    let limited = proxy.key("one/slow")["scopes"][0].clone();
    assert_eq!(limited["state"], "cooling", "{limited}");
    assert!(limited["until"].as_str().is_some_and(|until| until.contains('T')), "{limited}");

    assert_eq!(proxy.chat("hi").status, 200);
    assert_eq!((asked("bad"), asked("slow")), (bad, slow), "out is out");
}

#[test]
fn key_being_resolved_is_awaited_when_the_others_fail() {
    let broken = Upstream::start(vec![Scene::sse(&["never"]).cut_after(1)]);
    let good = Upstream::start(vec![Scene::sse(&["hel", "lo"])]);
    let slow = format!(
        "{SHORT_RETRIES}\n[[upstream]]\nname = \"two\"\nbase_url = \"{}\"\ndialect = \"openai\"\nmodels = [\"*\"]\npriority = 20\nkeys = [\"cmd:sh -c 'sleep 1; echo sk-it-slow'\"]",
        good.url()
    );
    let proxy = Setup::new().config(&slow).upstream("one", &broken, &["work"]).start();

    let answer = proxy.chat_stream("hi");

    assert_eq!((answer.status, answer.chat_text().as_str()), (200, "hello"), "{}", answer.text());
}

#[test]
fn cached_refusal_equals_the_original_error() {
    let quota = json!({"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}});
    let forbidden = json!({"error": {"message": "not for you", "code": "model_not_allowed"}});
    let missing = json!({"error": {"message": "no such model", "code": "model_not_found"}});
    for (status, body, of_openai, of_anthropic) in [
        (429, quota, (429, "insufficient_quota"), (402, "billing_error")),
        (403, forbidden, (403, ""), (403, "permission_error")),
        (404, missing, (404, "model_not_found"), (404, "not_found_error")),
    ] {
        for keys in [&["work"][..], &["work", "other"]] {
            let upstream = Upstream::start(vec![Scene::json(status, &body)]);
            let proxy = Setup::new()
                .config("[retry]\nqueue_for = \"20s\"")
                .upstream("one", &upstream, keys)
                .start();
            for round in 0..3 {
                let asked = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
                let answer = proxy.chat("hi");
                let code = answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
                assert_eq!(
                    answer.status,
                    of_openai.0,
                    "{status} {keys:?} {round}: {}",
                    answer.text()
                );
                assert!(
                    of_openai.1.is_empty() || code == of_openai.1,
                    "{status} {keys:?} {round}: {}",
                    answer.text()
                );
                let answer = Request::post("/v1/messages", &asked)
                    .header("x-api-key", CLIENT_KEY)
                    .send(proxy.addr);
                assert_eq!(
                    (answer.status, answer.json()["error"]["type"].as_str()),
                    (of_anthropic.0, Some(of_anthropic.1)),
                    "{}",
                    answer.text()
                );
            }
            // The scripted model list contains the model, so the proxy may try it again after
            // reading the list.
            assert!(
                status == 404 || upstream.requests().len() == keys.len(),
                "{status}: asked once with each key"
            );
        }
    }
}
