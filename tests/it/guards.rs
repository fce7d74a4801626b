//! The server's guards: which requests are admitted, and which parts of them are forwarded.

use serde_json::json;

use crate::support::{
    client::Request,
    proxy::{CLIENT_KEY, Proxy, Setup, chat_body},
    upstream::{Gate, Scene, Upstream},
};

fn start_proxy() -> (Upstream, Proxy) {
    let upstream = Upstream::start(vec![
        Scene::chat("hello").header("set-cookie", "session=1").header("x-request-id", "req_theirs"),
    ]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    (upstream, proxy)
}

fn chat_request() -> Request {
    Request::post("/v1/chat/completions", &chat_body("m", "hi", false)).bearer(CLIENT_KEY)
}

#[test]
fn foreign_hosts_origins_and_unauthenticated_clients_are_refused() {
    let (upstream, proxy) = start_proxy();

    for (what, request, status) in [
        ("a rebound name", chat_request().header("host", "evil.example"), 403),
        ("a foreign page", chat_request().header("origin", "https://evil.example"), 403),
        ("a page from a file", chat_request().header("origin", "null"), 403),
        (
            "a local page that nobody listed",
            chat_request().header("origin", "http://localhost:3000"),
            403,
        ),
        (
            "a page's simple request",
            chat_request()
                .header("origin", "https://evil.example")
                .header("content-type", "text/plain"),
            403,
        ),
        ("a cross-site fetch", chat_request().header("sec-fetch-site", "cross-site"), 403),
        ("no token", Request::post("/v1/chat/completions", &chat_body("m", "hi", false)), 401),
        ("a wrong token", chat_request().bearer("aip-wrong"), 401),
        ("a form", chat_request().header("content-type", "application/x-www-form-urlencoded"), 415),
    ] {
        let answer = request.send(proxy.addr);

        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert!(answer.json()["error"]["message"].is_string(), "{what}: {}", answer.text());
        assert!(answer.header("access-control-allow-origin").is_none(), "{what}");
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn control_and_lists_need_their_tokens() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let config = "[[project]]\nname = \"guest\"\nkey = \"aip-guest-0123456789abcdef\"";
    let proxy = Setup::new().config(config).upstream("one", &upstream, &["work"]).start();
    let guest = "aip-guest-0123456789abcdef";

    assert_eq!(Request::get("/health").send(proxy.addr).status, 200);
    assert_eq!(Request::get("/v1/models").send(proxy.addr).status, 401);
    assert_eq!(Request::get("/v1/models").bearer(guest).send(proxy.addr).status, 200);
    for path in ["/aiproxy/v1/snapshot", "/aiproxy/v1/events"] {
        assert_eq!(Request::get(path).send(proxy.addr).status, 401, "{path}");
        assert!(
            matches!(Request::get(path).bearer(guest).send(proxy.addr).status, 401 | 403),
            "{path}"
        );
    }
    assert!(matches!(
        Request::post("/v1/reload", &json!({})).bearer(guest).send(proxy.addr).status,
        401 | 403
    ));
    assert_eq!(proxy.snapshot()["pid"], proxy.pid());
}

#[test]
fn non_loopback_listener_needs_auth() {
    let home =
        Setup::new().full_config("[server]\nlisten = \"0.0.0.0:8642\"\nauth = false\n").home();

    let out = home.command().args(["config", "check"]).output().expect("run");

    assert_eq!(out.status.code(), Some(3), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn provider_key_used_as_client_key_is_named_in_the_error() {
    let (_, proxy) = start_proxy();

    let answer = chat_request().bearer("sk-proj-0123456789").send(proxy.addr);

    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("aiproxy project show --reveal"), "{}", answer.text());
    assert!(!answer.text().contains("0123456789"));
}

#[test]
fn token_is_read_from_every_supported_header() {
    let (_, proxy) = start_proxy();
    let bare = || Request::post("/v1/chat/completions", &chat_body("m", "hi", false));

    for (what, request) in [
        ("bearer", bare().bearer(CLIENT_KEY)),
        ("x-api-key", bare().header("x-api-key", CLIENT_KEY)),
        ("x-goog-api-key", bare().header("x-goog-api-key", CLIENT_KEY)),
        (
            "the path",
            Request::post(
                &format!("/~{CLIENT_KEY}/v1/chat/completions"),
                &chat_body("m", "hi", false),
            ),
        ),
    ] {
        assert_eq!(request.send(proxy.addr).chat_text(), "hello", "{what}");
    }
}

#[test]
fn client_headers_are_not_sent_upstream() {
    let (upstream, proxy) = start_proxy();

    let request = chat_request()
        .header("cookie", "a=b")
        .header("x-api-key", CLIENT_KEY)
        .header("x-aiproxy-secret", "1")
        .header("x-title", "mine");
    let answer = request
        .header("forwarded", "for=me")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .send(proxy.addr);

    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = upstream.nth_request(0);
    for name in ["cookie", "x-api-key", "x-aiproxy-secret", "forwarded", "x-hop", "origin"] {
        assert_eq!(seen.header(name), None, "{name} reached the upstream");
    }
    assert!(!seen.headers.iter().any(|(_, value)| value.contains(CLIENT_KEY)));
    assert_eq!(seen.header("x-title"), Some("mine"));
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(answer.header("x-upstream-request-id"), Some("req_theirs"));
    assert!(answer.header("x-request-id").is_some_and(|id| id != "req_theirs"));
}

#[test]
fn request_and_answer_bytes_are_not_rewritten() {
    let odd = "{ \"model\" : \"m\",\n \"n\": 1.10, \"big\": 123456789012345678901234567890, \"messages\":[{\"role\":\"user\",\"content\":\"\\u00e9\"}], \"x\":1e3 }";
    let reply = json!({"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]});
    let upstream = Upstream::start(vec![Scene::json(200, &reply)]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();

    let request = Request::post_bytes("/v1/chat/completions", odd.as_bytes().to_vec())
        .header("content-type", "application/json");
    let answer = proxy.send(&request);

    assert_eq!(String::from_utf8_lossy(&upstream.nth_request(0).body), odd);
    assert_eq!(answer.text(), reply.to_string());
}

#[test]
fn unknown_paths_methods_and_models_are_errors_of_the_client_dialect() {
    let (upstream, proxy) = start_proxy();

    let unknown = proxy.send(&Request::post("/v1/nowhere", &json!({})));
    let method = proxy.send(&Request::get("/v1/chat/completions").method("DELETE"));
    let not_json = proxy.send(
        &Request::post_bytes("/v1/chat/completions", b"{\"model\":".to_vec())
            .header("content-type", "application/json"),
    );
    let no_model = proxy.ask(&json!({"messages": []}));
    let anthropic = proxy.send(&Request::post("/v1/messages", &json!({})));

    assert_eq!(
        [unknown.status, method.status, not_json.status, no_model.status, anthropic.status],
        [404, 405, 400, 400, 400]
    );
    assert!(method.header("allow").is_some());
    assert_eq!(anthropic.json()["type"], "error");
    assert!(upstream.requests().is_empty());
}

#[test]
fn client_key_may_be_sent_in_base64() {
    let (_upstream, proxy) = start_proxy();
    use base64::Engine as _;
    let encoded = base64::prelude::BASE64_STANDARD.encode(CLIENT_KEY);
    let get = |token: &str| Request::get("/v1/models").bearer(token).send(proxy.addr).status;
    assert_eq!((get(&encoded), get(encoded.trim_end_matches('='))), (200, 200));
    assert_eq!(get(&base64::prelude::BASE64_STANDARD.encode("aip-other")), 401);
}

#[test]
fn one_project_cannot_take_all_slots() {
    let gate = Gate::closed();
    let upstream = Upstream::start(vec![Scene::chat("late").head_gate(&gate)]);
    let proxy = Setup::new()
        .config("[server]\nmax_requests = 8\n[[project]]\nname = \"other\"\nkey = \"aip-other\"\n")
        .upstream("up", &upstream, &["work"])
        .start();
    let chat = |key: &str| {
        Request::post("/v1/chat/completions", &chat_body("m", "hi", false))
            .bearer(key)
            .open(proxy.addr)
    };
    let held: Vec<_> = (0..6).map(|_| chat(CLIENT_KEY)).collect();
    upstream.nth_request(5);
    let refused = chat(CLIENT_KEY).read_answer();
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("its share of the requests"), "{}", refused.text());
    let other = chat("aip-other");
    upstream.nth_request(6);
    // The control API answers whatever is in flight.
    assert!(proxy.snapshot().is_object());
    gate.open();
    for mut connection in held.into_iter().chain([other]) {
        assert_eq!(connection.read_answer().status, 200);
    }
}

#[test]
fn parsed_requests_count_with_their_memory_size() {
    let gate = Gate::closed();
    let upstream = Upstream::start(vec![Scene::chat("late").head_gate(&gate)]);
    let proxy = Setup::new()
        .config("[server]\nmax_buffered = \"8MiB\"\n")
        .upstream("up", &upstream, &["work"])
        .start();
    let prompt = "long ".repeat(150_000);
    let body =
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": prompt}]});
    let message = || {
        Request::post("/v1/messages", &body)
            .bearer(CLIENT_KEY)
            .header("anthropic-version", "2023-06-01")
            .open(proxy.addr)
    };
    // Translated, the first takes six of eight MiB, so a second has to come later.
    let mut first = message();
    upstream.nth_request(0);
    let refused = message().read_answer();
    assert_eq!(refused.status, 529, "{}", refused.text());
    assert!(refused.text().contains("max_buffered"), "{}", refused.text());
    gate.open();
    assert_eq!(first.read_answer().status, 200);
    assert_eq!(message().read_answer().status, 200);
}
