//! What the proxy reports about itself: alerts, metrics, traces, the turns of a session, and
//! side-by-side replays.

use std::sync::atomic::{AtomicUsize, Ordering};

use aiproxy::secrets::Secret;
use serde_json::{Value, json};

use crate::support::{
    client::Request,
    poll_until,
    proxy::{CLIENT_KEY, Proxy, Setup, chat_body, secret},
    upstream::{ReceivedRequest, Scene, Upstream},
};

/// A receiver that accepts every webhook.
fn webhook_receiver() -> Upstream {
    Upstream::with_director(|_, _| Scene::json(200, &json!({ "code": 0 })))
}

fn receiver_url(receiver: &Upstream, path: &str) -> String {
    format!("http://{}{path}", receiver.addr())
}

/// Returns the first message of this kind.
fn first_message(receiver: &Upstream, kind: &str) -> (ReceivedRequest, Value) {
    poll_until(&format!("an alert of the kind {kind}"), || {
        receiver
            .all_requests()
            .into_iter()
            .map(|seen| (seen.clone(), seen.json()))
            .find(|(_, reported)| reported["kind"] == kind)
    })
}

fn control_get(proxy: &Proxy, path: &str) -> crate::support::client::HttpAnswer {
    let token =
        std::fs::read_to_string(proxy.home.data().join("run/token")).expect("the control token");
    Request::get(path).bearer(token.trim()).send(proxy.addr)
}

#[test]
fn rejected_key_is_sent_to_the_webhook_once_and_shown_in_status() {
    let hook = webhook_receiver();
    let upstream = Upstream::with_director(|seen, _| {
        if seen.key() == secret("one", "work") { Scene::status(401) } else { Scene::chat("hello") }
    });
    let config = format!(
        "[alerts]\nwebhook = \"{}\"\nsecret = \"env:IT_HOOK\"\nfeishu = \"{}\"",
        receiver_url(&hook, "/hook/secret-path"),
        receiver_url(&hook, "/bot")
    );
    let setup = Setup::new().config(&config).variable("IT_HOOK", "a-very-long-secret");
    let proxy = setup.upstream("one", &upstream, &["work", "spare"]).start();
    for _ in 0..3 {
        assert_eq!(proxy.chat("hi").status, 200);
    }

    let (seen, reported) = first_message(&hook, "key_rejected");
    assert_eq!(seen.path, "/hook/secret-path");
    assert_eq!(
        (&reported["event"], &reported["upstream"], &reported["key"], &reported["level"]),
        (&json!("key_down"), &json!("one"), &json!("work"), &json!("error"))
    );
    assert_eq!(seen.header("x-aiproxy-id"), reported["id"].as_str());
    let signed = format!(
        "{}.{}",
        seen.header("x-aiproxy-timestamp").expect("a time"),
        String::from_utf8_lossy(&seen.body)
    );
    let digest = Secret::new("a-very-long-secret".to_owned()).sign(signed.as_bytes());
    let want: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(seen.header("x-aiproxy-signature"), Some(format!("sha256={want}").as_str()));
    let card =
        poll_until("a card", || hook.all_requests().into_iter().find(|seen| seen.path == "/bot"));
    assert_eq!(card.json()["card"]["header"]["template"], "red");
    assert!(card.json()["sign"].is_string());

    let status = proxy.status_json();
    assert_eq!(status["alerts"][0]["kind"], "key_rejected", "{status}");
    let listed = proxy.cli(&["alerts", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("one/work is rejected"), "{listed:?}");
    let warmed = proxy.cli(&["key", "warm", "one/work"]);
    assert!(warmed.status.success(), "{warmed:?}");
    let (_, well) = first_message(&hook, "recovered");
    assert_eq!(
        (&well["upstream"], &well["key"], &well["level"]),
        (&json!("one"), &json!("work"), &json!("info"))
    );
    let rejected = hook
        .all_requests()
        .into_iter()
        .filter(|seen| seen.path != "/bot" && seen.json()["kind"] == "key_rejected")
        .count();
    assert_eq!(rejected, 1, "reported once");
    assert!(
        !proxy.output().contains("secret-path"),
        "the path of a webhook is nobody's business: {}",
        proxy.output()
    );
    let shown = proxy.cli(&["config", "show"]);
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("secret-path"));
}

#[test]
fn upstream_outage_is_sent_and_retried_with_the_same_id() {
    let tries = AtomicUsize::new(0);
    let hook = Upstream::with_director(move |_, _| {
        if tries.fetch_add(1, Ordering::Relaxed) == 0 {
            Scene::status(503)
        } else {
            Scene::json(200, &json!({}))
        }
    });
    let upstream = Upstream::with_director(|_, _| Scene::status(500));
    let config = format!(
        "[alerts]\nwebhook = \"{}\"\n[retry]\nmax_attempts = 1\n[cooldown]\nfailures = 1",
        receiver_url(&hook, "/hook")
    );
    let proxy = Setup::new().config(&config).upstream("one", &upstream, &["work"]).start();
    proxy.chat("hi");

    let first = hook.nth_request(0);
    let again = hook.nth_request(1);

    assert_eq!(first.json()["kind"], "upstream_down", "{}", first.json());
    assert_eq!(
        (first.header("x-aiproxy-id"), &first.body),
        (again.header("x-aiproxy-id"), &again.body),
        "the same message"
    );
    assert!(
        proxy.snapshot()["alerts"][0]["alert"]["text"]
            .as_str()
            .is_some_and(|text| text.starts_with("one is down"))
    );
}

#[test]
fn alert_test_prints_the_result_of_each_channel() {
    let hook = webhook_receiver();
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let nowhere = Upstream::refused_addr();
    let config = format!(
        "[alerts]\nwebhook = \"{}\"\nfeishu = \"http://{nowhere}/bot\"",
        receiver_url(&hook, "/hook")
    );
    let proxy = Setup::new().config(&config).upstream("one", &upstream, &["work"]).start();

    let tested = proxy.cli(&["alerts", "test"]);

    let printed = String::from_utf8_lossy(&tested.stderr);
    assert_eq!(tested.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains(&format!("webhook: accepted by http://{}", hook.addr()))
            && printed.contains("feishu: "),
        "{printed}"
    );
    assert_eq!(first_message(&hook, "test").1["event"], "test");

    let silent = Setup::new().upstream("one", &upstream, &["work"]).start();
    let tested = silent.cli(&["alerts", "test"]);
    assert!(
        String::from_utf8_lossy(&tested.stderr).contains("no alert channel is configured"),
        "{tested:?}"
    );
}

#[test]
fn metrics_of_requests_attempts_and_keys_are_for_the_owner_only() {
    let upstream = Upstream::with_director(|seen, _| {
        if seen.key() == secret("one", "work") {
            Scene::status(429).header("retry-after", "30")
        } else {
            Scene::chat("hello")
        }
    });
    let config = "[prices.\"one/m\"]\ninput = 1\noutput = 10\n[[project]]\nname = \"plain\"\nkey = \"aip-it-plain-0123456789abcdef0123456789\"";
    let proxy = Setup::new().config(config).upstream("one", &upstream, &["work", "spare"]).start();
    proxy.chat("hi");
    proxy.chat("hi");

    let answer = control_get(&proxy, "/metrics");

    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/plain; version=0.0.4; charset=utf-8"))
    );
    let text = answer.text();
    let whose = "project=\"it\",upstream=\"one\",model=\"m\",op=\"chat\",dialect=\"openai\"";
    for line in [
        format!("aiproxy_requests_total{{{whose},state=\"done\"}} 2"),
        format!("aiproxy_cost_dollars_total{{{whose}}} 0.000046"),
        "aiproxy_attempts_total{upstream=\"one\",key=\"work\",model=\"m\",op=\"chat\",status=\"429\",won=\"false\"} 1".to_owned(),
        "aiproxy_attempts_total{upstream=\"one\",key=\"spare\",model=\"m\",op=\"chat\",status=\"200\",won=\"true\"} 2".to_owned(),
        "aiproxy_failovers_total{upstream=\"one\"} 1".to_owned(),
        "aiproxy_key_state{upstream=\"one\",key=\"spare\",state=\"ok\"} 1".to_owned(),
        "aiproxy_requests_in_flight 0".to_owned(),
        "aiproxy_ledger_up 1".to_owned(),
        "gen_ai_client_token_usage_count{gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"one\",gen_ai_request_model=\"m\",gen_ai_token_type=\"input\"} 2".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(
        text.contains("aiproxy_key_cooldown_seconds{upstream=\"one\",key=\"work\",model=\"m\"} "),
        "{text}"
    );
    assert!(text.lines().all(|line| line.starts_with('#')
        || line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok())));
    assert!(!text.contains(&secret("one", "work")));
    assert_eq!(
        proxy.send(&Request::get("/metrics")).status,
        200,
        "the project of the tests is an admin"
    );
    let plain =
        Request::get("/metrics").bearer("aip-it-plain-0123456789abcdef0123456789").send(proxy.addr);
    assert_eq!((plain.status, Request::get("/metrics").send(proxy.addr).status), (401, 401));
}

#[test]
fn turns_of_a_session_are_shown_to_its_own_project_only() {
    let upstream = Upstream::with_director(|_, nth| Scene::chat(&format!("answer {nth}")));
    let other = "aip-it-other-0123456789abcdef0123456789";
    let config = format!("[[project]]\nname = \"other\"\nkey = \"{other}\"");
    let proxy = Setup::new().config(&config).upstream("one", &upstream, &["work"]).start();
    for n in 0..3 {
        let asked =
            Request::post("/v1/chat/completions", &chat_body("m", &format!("question {n}"), false))
                .header("x-session-id", "s/1");
        assert_eq!(proxy.send(&asked).status, 200);
    }
    proxy.chat("of no session");

    let reported = proxy.send(&Request::get("/context/s%2F1?limit=2")).json();

    assert_eq!(
        (&reported["session_id"], &reported["total"], &reported["project"]),
        (&json!("s/1"), &json!(2), &json!("it")),
        "{reported}"
    );
    let turn = &reported["turns"][0];
    assert_eq!(
        (&turn["answer"], &turn["provider_id"], &turn["kept"]),
        (&json!("answer 2"), &json!("one"), &json!(true)),
        "the newest first: {reported}"
    );
    assert!(turn["request"].as_str().is_some_and(|request| request.contains("question 2")));
    assert!(turn["response"].as_str().is_some_and(|response| response.contains("answer 2")));
    let next = reported["next"].as_str().expect("there is more");
    let rest = proxy.send(&Request::get(&format!("/context/s%2F1?before={next}"))).json();
    assert_eq!(
        (&rest["turns"][0]["answer"], &rest["total"], &rest["next"]),
        (&json!("answer 0"), &json!(1), &Value::Null)
    );
    let ask = |token: &str| Request::get("/context/s%2F1").bearer(token).send(proxy.addr).status;
    assert_eq!((ask(other), ask(CLIENT_KEY), ask("aip-nobody")), (404, 200, 401));
    assert_eq!(proxy.send(&Request::get("/context/s%2F1?before=x")).status, 400);
}

#[test]
fn traces_are_sent_with_a_span_for_the_request_and_one_for_each_attempt() {
    let collector = webhook_receiver();
    let upstream = Upstream::with_director(|seen, _| {
        if seen.key() == secret("one", "work") { Scene::status(429) } else { Scene::chat("hello") }
    });
    let config = format!(
        "[otlp]\nurl = \"http://{}\"\nheaders = {{ authorization = \"env:IT_OTLP\" }}",
        collector.addr()
    );
    let setup = Setup::new().config(&config).variable("IT_OTLP", "Basic abc def");
    let proxy = setup.upstream("one", &upstream, &["work", "spare"]).start();
    let asked = Request::post("/v1/chat/completions", &chat_body("m", "hi", false));
    proxy.send(
        &asked.header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    );

    let seen = collector.nth_request(0);

    assert_eq!(
        (seen.path.as_str(), seen.header("authorization")),
        ("/v1/traces", Some("Basic abc def"))
    );
    let reported = seen.json();
    let spans =
        reported["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans").clone();
    assert_eq!(spans.len(), 3, "{reported}");
    assert!(spans.iter().all(|span| span["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(
        (&spans[0]["parentSpanId"], &spans[0]["name"]),
        (&json!("00f067aa0ba902b7"), &json!("chat m"))
    );
    assert_eq!((&spans[1]["status"]["code"], &spans[2]["status"]["code"]), (&json!(2), &json!(1)));
    assert!(!reported.to_string().contains(&secret("one", "work")));
}

#[test]
fn replay_is_compared_with_the_original() {
    let upstream = Upstream::with_director(|seen, _| match seen.json()["model"].as_str() {
        Some("big") => Scene::chat("one\ntwo\nthree"),
        _ => Scene::chat("one\n2\nthree"),
    });
    let config =
        "[prices.\"one/m\"]\ninput = 1\noutput = 10\n[prices.\"one/big\"]\ninput = 2\noutput = 20";
    let proxy = Setup::new().config(config).upstream("one", &upstream, &["work"]).start();
    proxy.chat("count");

    let shown = proxy.cli(&["log", "replay", "last", "--model", "big"]);

    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success(), "{text}{}", String::from_utf8_lossy(&shown.stderr));
    for part in [" one\n-2\n+two\n three\n", "model", "big", "cost", "+100 %", "tokens in", "same"]
    {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let shown = proxy.cli(&["log", "replay", "last", "--json"]);
    let reported: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(
        (&reported["same"], &reported["diff"], &reported["again"]["request"]["asked"]),
        (&json!(true), &json!(""), &json!("big"))
    );
    assert_eq!(proxy.cli(&["log", "replay", "ffff"]).status.code(), Some(1));
    assert_eq!(upstream.requests().len(), 3);
}

#[test]
fn invalid_destinations_are_refused_at_startup() {
    for (config, want) in [
        ("[alerts]\nwebhook = \"hooks.example\"", "no address that something can be sent to"),
        ("[alerts]\nwebhook = \"ftp://hooks.example/x\"", "`ftp:` is not spoken here"),
        (
            "[alerts]\nfeishu = \"https://me:pw@hooks.example/x\"",
            "a user name in an address is not sent",
        ),
        ("[alerts]\nevents = [\"key_dwon\"]", "key_down"),
        ("[otlp]\nurl = \"localhost:4318\"", "no address that something can be sent to"),
        ("[otlp]\nheaders = { \"a b\" = \"c\" }", "is no name of a header"),
    ] {
        let home = Setup::new().full_config(config).home();
        let checked = home.command().args(["config", "check"]).output().expect("run aiproxy");
        let printed = String::from_utf8_lossy(&checked.stderr).into_owned()
            + &String::from_utf8_lossy(&checked.stdout);
        assert_eq!(checked.status.code(), Some(3), "{config}: {printed}");
        assert!(printed.contains(want), "{config}: {printed}");
        assert!(!printed.contains("me:pw"), "{printed}");
    }
}
