//! `aiproxy ask`: what of the question reaches the provider, and what is printed of the answer.

use std::{
    io::Write,
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    proxy::{Proxy, Setup},
    upstream::{Scene, Upstream, chunk},
};

/// A GIF whose name says PNG.
const GIF: &[u8] = b"GIF89a\x01\0\x01\0\0\0\0;";

fn usage_event(input: u64, output: u64) -> String {
    let usage = json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output });
    let data = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [], "usage": usage });
    format!("data: {data}\n\n")
}

/// A stream of these texts with its usage.
fn answer(texts: &[&str]) -> Scene {
    let mut events: Vec<String> =
        texts.iter().map(|text| chunk(&json!({ "content": text }), None)).collect();
    events.push(chunk(&json!({}), Some("stop")));
    events.push(usage_event(11, texts.len() as u64));
    events.push("data: [DONE]\n\n".to_owned());
    Scene::events(events)
}

/// Runs `ask` as the project of the tests with this standard input; `None` is `/dev/null`.
fn ask(proxy: &Proxy, args: &[&str], input: Option<&[u8]>) -> Output {
    let mut command = proxy.home.command();
    command.arg("ask").args(args).args(["--project", "it"]);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("aiproxy ask");
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // The command may end before it has read everything.
        drop(pipe.write_all(input));
    }
    child.wait_with_output().expect("the end of aiproxy ask")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(output), stderr(output)))
}

/// The content of the user message that the provider received last.
fn content_received(upstream: &Upstream) -> Value {
    let body = upstream.requests().last().expect("a request").json();
    let messages = body["messages"].as_array().expect("messages");
    messages.last().expect("a message")["content"].clone()
}

#[test]
fn standard_input_is_the_prompt_or_its_context() {
    let upstream = Upstream::start(vec![answer(&["ok"])]);
    let proxy = Setup::new().upstream("box", &upstream, &["a"]).start();

    for (args, input, want) in [
        (&["box:m", "why?"][..], None, json!("why?")),
        (&["box:m"], Some(&b"from the pipe\n"[..]), json!("from the pipe\n")),
        (&["box:m", "--stdin"], Some(b"from the pipe\n"), json!("from the pipe\n")),
        (&["box:m", "why?"], Some(b""), json!("why?")),
        (&["box:m", "why?"], Some(b"a line\n"), json!("standard input:\n```\na line\n```\n\nwhy?")),
        (&["box:m", "why", "so?"], None, json!("why so?")),
        (&["box:m", "--prompt", "why?"], None, json!("why?")),
    ] {
        let output = ask(&proxy, args, input);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "ok\n");
        assert_eq!(content_received(&upstream), want, "{args:?}");
    }

    let output = ask(&proxy, &["box:m"], None);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn files_are_attached_by_detected_type() {
    let upstream = Upstream::start(vec![answer(&["ok"])]);
    let proxy = Setup::new().upstream("box", &upstream, &["a"]).start();
    let file = |name: &str, bytes: &[u8]| {
        let path = proxy.home.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path.display().to_string()
    };
    let (text, image) = (file("ü b.md", b"# mark\n"), file("lies.png", GIF));

    let output = ask(&proxy, &["box:m", "compare", "--file", &text, "-f", &image], None);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        content_received(&upstream),
        json!([
            { "type": "text", "text": "ü b.md:\n```\n# mark\n```\n\nlies.png:" },
            { "type": "image_url", "image_url": { "url": "data:image/gif;base64,R0lGODlhAQABAAAAADs=" } },
            { "type": "text", "text": "compare" },
        ])
    );

    let output = ask(&proxy, &["box:m", "what?"], Some(GIF));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(content_received(&upstream)[1]["type"], "image_url");

    let before = upstream.requests().len();
    for (path, want) in [
        (proxy.home.path().join("none.png").display().to_string(), "none.png"),
        (file("a.out", b"\x7fELF\0\0"), "a.out"),
        (proxy.home.path().display().to_string(), "directory"),
    ] {
        let output = ask(&proxy, &["box:m", "x", "--file", &path], None);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(want), "{}", stderr(&output));
    }
    assert_eq!(upstream.requests().len(), before);
}

#[test]
fn unsupported_attachment_is_named() {
    let reply =
        "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"ok\"},\"done\":true}\n";
    let upstream = Upstream::start(vec![Scene::stream("application/x-ndjson", [reply])]);
    let proxy = Setup::new().upstream_with_dialect("ollama", "box", &upstream, "").start();
    let pdf = proxy.home.path().join("d.pdf");
    std::fs::write(&pdf, b"%PDF-1.4\n\xff").expect("a file");

    let output = ask(&proxy, &["box:m", "read", "--file", &pdf.display().to_string()], None);

    assert_eq!(stdout(&output), "ok\n", "{}", stderr(&output));
    assert!(stderr(&output).contains("was not sent"), "{}", stderr(&output));
}

#[test]
fn json_has_the_answer_usage_and_timings() {
    let upstream = Upstream::with_director(|request, _| match request.json()["model"].as_str() {
        Some("m") => answer(&["hello ", "there"]),
        _ => Scene::status(400),
    });
    let proxy = Setup::new().upstream("box", &upstream, &["a"]).start();

    let got = json_of(&ask(&proxy, &["box:m", "hi", "--json"], None));
    assert_eq!(
        (&got["text"], &got["upstream"], &got["usage"]),
        (&json!("hello there"), &json!("box"), &json!({ "input": 11, "output": 2 }))
    );
    let (ttft, total) = (got["ttft_ms"].as_f64().unwrap(), got["total_ms"].as_f64().unwrap());
    assert!(0.0 < ttft && ttft <= total, "{got}");
    assert!(got["request_id"].is_string() && got["model"].is_string(), "{got}");

    let output = ask(&proxy, &["box:other", "hi", "--json"], None);
    assert_eq!(output.status.code(), Some(1));
    let got = json_of(&output);
    assert!(got["error"].is_string() && got["request_id"].is_string(), "{got}");
    let output = ask(&proxy, &["box:m", "hi", "--file", "/no/such/file", "--json"], None);
    assert!(json_of(&output)["error"].as_str().unwrap().contains("/no/such/file"));
}

#[test]
fn first_configured_model_is_the_default() {
    let upstream = Upstream::start(vec![answer(&["ok"])]);
    let proxy = Setup::new()
        .upstream("box", &upstream, &["a"])
        .config("[aliases]\nfast = \"box:small\"")
        .start();

    let output = ask(&proxy, &["why is it so?"], None);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("asking fast"), "{}", stderr(&output));
    assert_eq!(upstream.requests().last().unwrap().json()["model"], "small");
}

#[test]
fn repeat_measures_first_token_and_generation_time() {
    let upstream = Upstream::with_director(|request, _| {
        if request.json()["model"] == "down" {
            return Scene::status(400);
        }
        answer(&["a", "b", "c", "d", "e"])
            .delay(Duration::from_millis(400))
            .pace(Duration::from_millis(100))
    });
    let proxy = Setup::new().upstream("box", &upstream, &["a"]).start();

    let output =
        ask(&proxy, &["--repeat", "2", "box:m", "box:down", "--prompt", "x", "--json"], None);

    assert_eq!(output.status.code(), Some(1), "a model failed");
    let rows = json_of(&output);
    let (one, down) = (&rows[0], &rows[1]);
    assert_eq!((&one["model"], &one["n"], &one["failed"]), (&json!("box:m"), &json!(2), &json!(0)));
    let at = |pointer: &str| one.pointer(pointer).and_then(Value::as_f64).unwrap();
    assert!(at("/ttft_ms/p50") >= 400.0 && at("/ttft_ms/p95") >= at("/ttft_ms/p50"), "{one}");
    // Five tokens, 100 ms apart; with the wait for the first it would be 6 a second.
    assert!((7.5..=10.5).contains(&at("/tok_s/p50")), "{one}");
    assert_eq!((&down["n"], &down["failed"]), (&json!(2), &json!(2)));
    assert!(down["error"].as_str().unwrap().contains("scripted 400"), "{down}");

    let output = ask(&proxy, &["--repeat", "1", "box:m", "box:down", "--prompt", "x"], None);
    let table = stdout(&output);
    assert!(table.contains("TTFT P50") && table.contains("TOK/S"), "{table}");
    let row = table.lines().find(|line| line.starts_with("box:down")).unwrap();
    assert!(row.contains("scripted 400"), "{table}");
}
