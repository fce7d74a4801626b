//! `aiproxy doctor`: what it finds, the command that it names, and what it leaves alone.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    sync::mpsc::{Receiver, channel},
    time::Instant,
};

use serde_json::{Value, json};

use crate::support::{home::Home, upstream::Upstream};

const KEY: &str = "sk-doctor-0123456789abcdef";

/// A home with one upstream `box` at this URL.
fn home_with(url: &str, more: &str) -> Home {
    let mut home = Home::new();
    home.set("BOX_KEY", KEY);
    let port = Upstream::refused_addr().port();
    home.write_config(&format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\n[discover]\nenv = false\nlocal = false\n\
         [[upstream]]\nname = \"box\"\nbase_url = \"{url}\"\ndialect = \"openai\"\n\
         keys = [\"env:BOX_KEY\"]\n{more}"
    ));
    fs::set_permissions(home.config(), fs::Permissions::from_mode(0o600)).unwrap();
    home
}

/// Runs the command and returns its exit code and rows. No key may be shown.
fn doctor(home: &Home) -> (i32, Vec<Value>) {
    let output = home.command().args(["doctor", "--json"]).output().expect("aiproxy doctor");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains(KEY), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    });
    let rows = report["checks"].as_array().expect("rows").clone();
    let code = output.status.code().expect("an exit code");
    assert_eq!(report["ok"], json!(code == 0));
    (code, rows)
}

/// The rows that fail, as `CHECK SUBJECT: TEXT; FIX`.
fn failures(rows: &[Value]) -> Vec<String> {
    let failed = rows.iter().filter(|row| row["state"] == "fail");
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    failed
        .map(|row| {
            let [check, subject, what, fix] =
                ["check", "subject", "text", "fix"].map(|key| text(row, key));
            format!("{check} {subject}: {what}; {fix}")
        })
        .collect()
}

/// A provider: answers each request by its path, with a status and JSON. Returns its URL without a
/// path, and the first lines of the requests.
fn provider(answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0; 1]);
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|n| n > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let (status, body) = answer(head.split(' ').nth(1).unwrap_or_default());
            let body = body.to_string();
            drop(write!(
                socket,
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            ));
            drop(sender.send(head.lines().next().unwrap_or_default().to_owned()));
        }
    });
    (url, requests)
}

fn models() -> (u16, Value) {
    (200, json!({ "object": "list", "data": [{ "id": "m", "object": "model" }] }))
}

#[test]
fn healthy_setup_passes_and_is_not_changed() {
    let (url, requests) = provider(|_| models());
    let home = home_with(&format!("{url}/v1"), "");
    let (code, rows) = doctor(&home);
    assert_eq!((code, failures(&rows)), (0, Vec::new()));
    let asked: Vec<String> = requests.try_iter().collect();
    assert_eq!(asked, ["GET /v1/models HTTP/1.1"]);
    assert!(!home.data().exists());
}

#[test]
fn key_problem_is_reported_with_a_command() {
    let quota = json!({ "error": { "message": format!("no quota for {KEY}"), "code": "insufficient_quota" } });
    let denied = json!({ "error": { "message": format!("bad key {KEY}") } });
    for (status, body, want) in [
        (401, &denied, "key box/BOX_KEY: the provider rejects it (401); `aiproxy key add box`"),
        (402, &denied, "key box/BOX_KEY: its account has no credit; add credit"),
        (429, &quota, "key box/BOX_KEY: its account has no credit; add credit"),
        (503, &denied, "upstream box: it answers with status 503"),
    ] {
        let body = body.clone();
        let (url, _requests) = provider(move |_| (status, body.clone()));
        let (code, rows) = doctor(&home_with(&format!("{url}/v1"), ""));
        let found = failures(&rows);
        assert_eq!((code, found.len()), (1, 1), "{found:?}");
        assert!(found[0].starts_with(want), "{want}: {found:?}");
    }
}

#[test]
fn missing_path_segment_is_found() {
    let (url, _requests) =
        provider(|path| if path.starts_with("/api/v1/") { models() } else { (404, json!({})) });
    let base = format!("{url}/api");
    let (code, rows) = doctor(&home_with(&base, ""));
    let found = failures(&rows);
    assert_eq!(code, 1);
    let fix = format!("`aiproxy upstream set box base_url={base}/v1`");
    assert!(found.len() == 1 && found[0].contains(&fix), "{found:?}");
}

#[test]
fn many_dead_upstreams_take_no_longer_than_one() {
    // It accepts connections in the kernel and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", mute.local_addr().unwrap());
    let mut rows = String::new();
    for number in 0..8 {
        let dead = Upstream::refused_addr();
        rows.push_str(&format!(
            "[[upstream]]\nname = \"dead{number}\"\nbase_url = \"http://{dead}/v1\"\ndialect = \"openai\"\n\
             keys = [\"env:BOX_KEY\"]\n"
        ));
    }
    let begin = Instant::now();
    let (code, rows) = doctor(&home_with(&url, &rows));
    assert!(begin.elapsed().as_secs() < 9, "{:?}", begin.elapsed());
    let found = failures(&rows);
    assert_eq!((code, found.len()), (1, 9), "{found:?}");
    assert!(found[0].starts_with("upstream box: no answer within"), "{found:?}");
}

#[test]
fn local_machine_problems_are_found() {
    let (url, _requests) = provider(|_| models());
    let home = home_with(&format!("{url}/v1"), "");
    let config = fs::read_to_string(home.config()).unwrap();
    let port: u16 =
        config.split("127.0.0.1:").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();

    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (_, rows) = doctor(&home);
    let found = failures(&rows);
    assert!(found.len() == 1 && found[0].contains("is taken by"), "{found:?}");
    assert!(found[0].contains("aiproxy serve --listen 127.0.0.1:"), "{found:?}");
    drop(taken);

    fs::create_dir(home.data()).unwrap();
    fs::set_permissions(home.data(), fs::Permissions::from_mode(0o700)).unwrap();
    let ledger = home.data().join("ledger.db");
    fs::write(&ledger, b"no database at all ".repeat(400)).unwrap();
    let (_, rows) = doctor(&home);
    let found = failures(&rows);
    assert!(found.len() == 1 && found[0].starts_with("ledger "), "{found:?}");
    assert!(found[0].contains("damaged"), "{found:?}");
    fs::remove_file(ledger).unwrap();

    home.write_config(&config.replace("env:BOX_KEY", KEY));
    fs::set_permissions(home.config(), fs::Permissions::from_mode(0o644)).unwrap();
    let (_, rows) = doctor(&home);
    let found = failures(&rows);
    assert!(found.len() == 1 && found[0].contains("`aiproxy key adopt`"), "{found:?}");
    assert!(found[0].contains("`chmod 600 "), "{found:?}");
}

#[test]
fn invalid_or_foreign_config_is_reported_and_the_rest_checked() {
    let home = home_with("http://127.0.0.1:9/v1", "[server\n");
    let (code, rows) = doctor(&home);
    let found = failures(&rows);
    assert_eq!(code, 1);
    assert!(found.iter().any(|row| row.contains("config.toml:11")), "{found:?}");
    assert!(rows.iter().any(|row| row["check"] == "disk"));

    home.write_config("model_list:\n  - model_name: a\n");
    let (_, rows) = doctor(&home);
    let found = failures(&rows);
    assert!(found[0].contains("LiteLLM") && found[0].contains("aiproxy import "), "{found:?}");
}
