//! Serving: the first start, large and compressed bodies, and secrets that must not leak.

use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    client::Request,
    proxy::{CLIENT_KEY, Proxy, Setup, chat_body, secret},
    upstream::{Scene, Upstream},
};

/// Returns the variables that `aiproxy env` exports.
fn env_variables(proxy: &Proxy) -> BTreeMap<String, String> {
    let out = proxy.cli(&["env"]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let pair = |line: &str| {
        let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('\'').to_owned()))
    };
    let found: BTreeMap<_, _> = text.lines().filter_map(pair).collect();
    assert!(found.contains_key("OPENAI_API_KEY"), "{text}{}", String::from_utf8_lossy(&out.stderr));
    found
}

#[test]
fn demo_answers_every_dialect_without_config_and_keys() {
    let proxy = Setup::new().full_config("").start();
    let key = env_variables(&proxy)["OPENAI_API_KEY"].clone();
    let messages = json!([{"role": "user", "content": "hello"}]);

    for (path, body, at) in [
        (
            "/v1/chat/completions",
            json!({"model": "demo/echo", "messages": messages}),
            "/choices/0/message/content",
        ),
        (
            "/v1/responses",
            json!({"model": "demo/echo", "input": "hello"}),
            "/output/0/content/0/text",
        ),
        (
            "/v1/messages",
            json!({"model": "demo/echo", "max_tokens": 9, "messages": messages}),
            "/content/0/text",
        ),
        (
            "/v1beta/models/echo:generateContent",
            json!({"contents": [{"parts": [{"text": "hello"}]}]}),
            "/candidates/0/content/parts/0/text",
        ),
        (
            "/api/chat",
            json!({"model": "demo/echo", "messages": messages, "stream": false}),
            "/message/content",
        ),
    ] {
        let answer = Request::post(path, &body).bearer(&key).send(proxy.addr);

        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.json().pointer(at), Some(&json!("hello")), "{path}: {}", answer.text());
        assert!(answer.header("x-request-id").is_some());
        assert_eq!(answer.header("x-aiproxy-upstream"), Some("demo"));
    }
}

#[test]
fn proxy_answers_soon_after_start() {
    // This is a debug build and other tests run in parallel, so the bound is wide and one good
    // start of three is enough.
    let best = (0..3).map(|_| {
        let begun = Instant::now();
        let proxy = Setup::new().start();
        assert_eq!(Request::get("/health").send(proxy.addr).status, 200);
        assert!(proxy.started_in <= begun.elapsed());
        begun.elapsed()
    });

    let best = best.min().expect("three starts");

    assert!(best < Duration::from_millis(500), "{best:?}");
}

#[test]
fn compressed_bodies_are_decoded() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let plain = chat_body("m", "compress me", false).to_string().into_bytes();
    let gzip = || {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(&plain).and_then(|()| writer.finish()).expect("gzip")
    };
    let deflate = || {
        let mut writer =
            flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(&plain).and_then(|()| writer.finish()).expect("deflate")
    };
    let zstd = || {
        ruzstd::encoding::compress_to_vec(&plain[..], ruzstd::encoding::CompressionLevel::Fastest)
    };

    for (number, (coding, bytes)) in
        [("gzip", gzip()), ("deflate", deflate()), ("zstd", zstd())].into_iter().enumerate()
    {
        let request = Request::post_bytes("/v1/chat/completions", bytes)
            .header("content-type", "application/json");

        let answer = proxy.send(&request.header("content-encoding", coding));

        assert_eq!(
            (answer.status, answer.chat_text().as_str()),
            (200, "hello"),
            "{coding}: {}",
            answer.text()
        );
        let seen = upstream.nth_request(number);
        assert_eq!(
            (seen.header("content-encoding"), seen.json()["messages"][0]["content"].as_str()),
            (None, Some("compress me")),
            "{coding}"
        );
    }
}

#[test]
fn decompression_bomb_is_refused() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new()
        .config("[server]\nmax_request_bytes = \"1MiB\"")
        .upstream("one", &upstream, &["work"])
        .start();
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(&vec![b' '; 16 << 20]).expect("gzip");
    let bomb = writer.finish().expect("gzip");
    assert!(bomb.len() < 64 * 1024);

    let request = Request::post_bytes("/v1/chat/completions", bomb)
        .header("content-type", "application/json");
    let answer = proxy.send(&request.header("content-encoding", "gzip"));

    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(upstream.requests().is_empty());
}

#[test]
fn long_conversations_pass_and_the_limit_error_names_its_setting() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new()
        .config("[server]\nmax_request_bytes = \"9MiB\"")
        .upstream("one", &upstream, &["work"])
        .start();

    let long = proxy.chat(&"x".repeat(8 << 20));
    let longer = proxy.chat(&"x".repeat(10 << 20));

    assert_eq!(long.chat_text(), "hello");
    assert_eq!(
        upstream.nth_request(0).json()["messages"][0]["content"].as_str().map(str::len),
        Some(8 << 20)
    );
    assert_eq!(longer.status, 413);
    let message = longer.json()["error"]["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("max_request_bytes") && message.contains('9'), "{message}");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn key_echoed_by_an_upstream_is_redacted_everywhere() {
    let upstream = Upstream::with_director(|seen, number| {
        let key = seen.key().to_owned();
        match number {
            0 => Scene::json(
                400,
                &json!({"error": {"message": format!("bad key {key}"), "type": "x"}}),
            ),
            1 => {
                Scene::json(500, &json!({"error": {"message": format!("oops {key}"), "type": "x"}}))
                    .header("x-api-key", &key)
            }
            2 => Scene::sse(&["hi"])
                .header("authorization", &format!("Bearer {key}"))
                .header("set-cookie", &key),
            _ => Scene::json(
                401,
                &json!({"error": {"message": format!("Incorrect API key provided: {key}"), "type": "x"}}),
            ),
        }
    });
    let quick = "[retry]\nmax_attempts = 1\n[log]\nlevel = \"trace\"";
    let proxy = Setup::new().config(quick).upstream("one", &upstream, &["work"]).start();

    let answers = [proxy.chat("a"), proxy.chat("b"), proxy.chat_stream("c"), proxy.chat("d")];
    let commands: Vec<_> = [
        &["status", "--json"][..],
        &["key", "list", "--json"],
        &["log", "--json"],
        &["config", "show"],
        &["env"],
    ]
    .map(|args| {
        let out = proxy.cli(args);
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    })
    .into();
    let snapshot = proxy.snapshot().to_string();

    let canary = secret("one", "work");
    let canary = canary.as_str();
    for answer in &answers {
        assert!(!answer.text().contains(canary), "{}", answer.text());
        assert!(
            !answer.headers.iter().any(|(_, value)| value.contains(canary)),
            "{:?}",
            answer.headers
        );
    }
    assert!(
        !commands.concat().contains(canary)
            && !snapshot.contains(canary)
            && !proxy.output().contains(canary)
    );
    assert_eq!(files_containing(proxy.home.path(), canary), Vec::<String>::new());
    assert_eq!(upstream.nth_request(0).key(), canary, "the upstream did get its key");
}

#[test]
fn tools_get_a_local_token_and_no_provider_key() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();

    let exported = env_variables(&proxy);

    let key = &exported["OPENAI_API_KEY"];
    assert!(key.starts_with("aip-"), "{exported:?}");
    assert!(!exported.values().any(|value| value.contains(&secret("one", "work"))));
    let answer = Request::post("/v1/chat/completions", &chat_body("m", "hi", false))
        .bearer(key)
        .send(proxy.addr);
    assert_eq!(answer.chat_text(), "hello", "{} {}", answer.status, answer.text());
}

#[test]
fn request_loop_through_the_proxy_is_refused() {
    let proxy = Setup::new().start();
    let text = Setup::new()
        .upstream_at("self", &format!("http://{}/v1", proxy.addr), &[], "")
        .config_text();
    let text = text.replace("keys = []", &format!("keys = [\"{CLIENT_KEY}\"]"));
    proxy.home.write_config(&text);
    let reload = proxy.cli(&["reload"]);
    let begun = Instant::now();

    let answer = proxy.chat("hi");

    let printed = String::from_utf8_lossy(&[reload.stdout, reload.stderr].concat()).into_owned();
    assert!(reload.status.code() == Some(3) || answer.status >= 400, "{printed} {}", answer.text());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let total = proxy.status_json()["requests"]["total"].as_u64().unwrap_or_default();
    assert!(total < 12, "{total} requests out of one");
}

/// Returns the files below a folder that contain this text.
fn files_containing(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path())
    {
        if entry.is_dir() {
            found.extend(files_containing(&entry, text));
        } else if std::fs::read(&entry)
            .is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
        {
            found.push(entry.display().to_string());
        }
    }
    found
}

#[test]
fn models_are_listed_in_the_client_dialect() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new()
        .upstream("one", &upstream, &["work"])
        .config("[aliases]\nfast = \"one:m\"")
        .start();

    let openai = proxy.send(&Request::get("/v1/models"));
    let anthropic =
        proxy.send(&Request::get("/v1/models").header("anthropic-version", "2023-06-01"));
    let gemini = proxy.send(&Request::get("/v1beta/models"));

    let has = |rows: &Value, key: &str, name: &str| {
        rows.as_array().is_some_and(|rows| rows.iter().any(|row| row[key] == name))
    };
    assert!(has(&openai.json()["data"], "id", "fast"), "{}", openai.text());
    assert!(has(&anthropic.json()["data"], "id", "fast"), "{}", anthropic.text());
    assert!(has(&gemini.json()["models"], "name", "models/fast"), "{}", gemini.text());
}
