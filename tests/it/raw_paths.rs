//! Paths below `/u/UPSTREAM/`: what a project may not do elsewhere it may not do there.

use serde_json::json;

use crate::support::{
    client::Request,
    proxy::{CLIENT_KEY, Proxy, Setup, chat_body},
    upstream::{Scene, Upstream},
};

const GUEST: &str = "aip-it-guest-0123456789abcdef01234567";
/// Each answer of the scripted model costs a dollar.
const PRICED: &str = "[prices.\"one/*\"]\ninput = 100000\noutput = 100000\nrequest = 0.5\n";

fn start(upstream: &Upstream, guest: &str) -> Proxy {
    let project = format!("{PRICED}[[project]]\nname = \"guest\"\nkey = \"{GUEST}\"\n{guest}\n");
    Setup::new().config(&project).upstream("one", upstream, &["work"]).start()
}

fn chat_at(proxy: &Proxy, path: &str, model: &str) -> (u16, String) {
    let answer = Request::post(path, &chat_body(model, "hi", false)).bearer(GUEST).send(proxy.addr);
    (answer.status, answer.text())
}

#[test]
fn raw_paths_enforce_project_models_in_every_spelling() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = start(&upstream, "models = [\"m\"]");

    assert_eq!(chat_at(&proxy, "/u/one/v1/chat/completions", "m").0, 200);
    assert_eq!(upstream.requests().len(), 1);
    for path in [
        "/u/one/v1/chat/completions",
        "/u/one/chat/completions",
        "/u/one/v1//chat/completions",
        "/u/one/v1/chat/completions/",
        "/u/one/v1/chat%2Fcompletions",
        "/u/one/v1/%63hat/completions",
        "/u/one/V1/Chat/Completions",
        "/u/%6Fne/v1/chat/completions",
    ] {
        let (status, text) = chat_at(&proxy, path, "other");
        assert!(matches!(status, 403 | 404), "{path}: {status} {text}");
    }
    let gemini = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    for path in ["/u/one/v1beta/models/other:generateContent", "/u/one/models/other:countTokens"] {
        let answer = Request::post(path, &gemini).bearer(GUEST).send(proxy.addr);
        assert!(matches!(answer.status, 403 | 404), "{path}: {}", answer.text());
    }
    // Which model such a path uses is unknown.
    for path in ["/u/one/v1/some/new/endpoint", "/u/one/v1/batches", "/u/one/v1/files"] {
        let (status, text) = chat_at(&proxy, path, "m");
        assert_eq!(status, 403, "{path}: {text}");
    }
    assert_eq!(upstream.requests().len(), 1, "what is refused is not sent");
    let open = Request::post("/u/one/v1/some/new/endpoint", &json!({})).bearer(CLIENT_KEY);
    assert_eq!(open.send(proxy.addr).status, 200, "other projects pass");
}

#[test]
fn raw_paths_enforce_the_project_request_rate() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = start(&upstream, "rpm = 2");

    let statuses = ["/u/one/v1/chat/completions", "/u/one/v1/new", "/u/one/v1/chat/completions"]
        .map(|path| chat_at(&proxy, path, "m").0);
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(chat_at(&proxy, "/u/one/v1/new", "m").0, 429);
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn raw_paths_count_usage_and_budgets() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = start(&upstream, "budget = { usd = 1.5, per = \"day\" }");

    let path = "/u/one/v1/chat/completions";
    assert_eq!([(); 2].map(|()| chat_at(&proxy, path, "m").0), [200, 200]);
    let (status, text) = chat_at(&proxy, path, "m");
    assert_eq!(status, 429, "{text}");
    assert!(text.contains("insufficient_quota"), "{text}");
    let (status, text) = chat_at(&proxy, "/u/one/v1/some/new/endpoint", "m");
    assert_eq!(status, 429, "{text}");
    assert_eq!(upstream.requests().len(), 2);
    let budgets = proxy.status_json()["budgets"].to_string();
    assert!(budgets.contains("\"spent\":2.0"), "{budgets}");
}

#[test]
fn raw_paths_refuse_unknown_prices_if_configured() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    // Behind a proxy, so that the upstream is not local, because local upstreams are free.
    let through = format!("proxy = \"http://{}\"", upstream.addr());
    let project = format!(
        "[[project]]\nname = \"guest\"\nkey = \"{GUEST}\"\nbudget = {{ usd = 5, per = \"day\", unpriced = \"refuse\" }}\n"
    );
    let proxy = Setup::new()
        .config(&project)
        .upstream_at("three", "http://models.invalid/v1", &["work"], &through)
        .start();

    for path in ["/u/three/v1/chat/completions", "/u/three/v1/some/new/endpoint"] {
        let (status, text) = chat_at(&proxy, path, "m");
        assert_eq!(status, 403, "{path}: {text}");
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn dot_segments_never_leave_the_path_of_an_upstream() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = start(&upstream, "");

    for dots in [
        "..",
        ".%2e",
        "%2e.",
        "%2E%2e",
        "..%2f",
        "..%5c",
        "..\\",
        "..;",
        "..;x=1",
        "%252e%252e",
        "%25252e%25252e",
        "..%252f",
        "..%00",
        "..%20",
        "%2e",
        ".",
    ] {
        for path in [format!("/u/one/v1/{dots}/admin"), format!("/u/one/{dots}/v1/models")] {
            let answer = Request::post(&path, &json!({})).bearer(GUEST).send(proxy.addr);
            assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.text());
        }
        let path = format!("/v1beta/models/{dots}%2fadmin:generateContent");
        let body = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
        let answer = Request::post(&path, &body).bearer(GUEST).send(proxy.addr);
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.text());
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests()[0].path);
}
