//! `[[alert_receiver]]`: each service gets a test alert in its own form.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    sync::mpsc,
};

use serde_json::{Value, json};

use crate::support::{
    TEST_TIMEOUT,
    proxy::Setup,
    upstream::{ReceivedRequest, Scene, Upstream},
};

/// Sends a test alert with this config; returns the exit status and the output.
fn send_test(config: &str) -> (Option<i32>, String) {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let setup = Setup::new().config(config).variable("IT_TOKEN", "a-very-long-secret");
    let proxy = setup.upstream("one", &upstream, &["work"]).start();
    let tested = proxy.cli(&["alerts", "test"]);
    let output = [tested.stdout, tested.stderr].concat();
    (tested.status.code(), String::from_utf8_lossy(&output).into_owned())
}

/// Returns what a receiver of this format is sent.
fn received(format: &str, path: &str, keys: &str, answer: &Value) -> ReceivedRequest {
    let hook = Upstream::with_director({
        let answer = answer.clone();
        move |_, _| Scene::json(200, &answer)
    });
    let config = format!(
        "[[alert_receiver]]\nname = \"team\"\nformat = \"{format}\"\nurl = \"http://{}{path}\"\n{keys}",
        hook.addr()
    );
    let (status, printed) = send_test(&config);
    assert_eq!(status, Some(0), "{format}: {printed}");
    assert!(printed.contains("team: accepted by"), "{printed}");
    hook.all_requests().into_iter().next().expect("a message")
}

#[test]
fn each_service_gets_an_alert_in_its_own_form() {
    let signed = "secret = \"env:IT_TOKEN\"";
    let ok = json!({ "ok": true, "errcode": 0 });
    let text = "test alert of aiproxy: delivery works";

    let slack = received("slack", "/services/x", "", &ok).json();
    assert!(slack["text"].as_str().is_some_and(|all| all.contains(text)), "{slack}");
    let discord = received("discord", "/api/webhooks/1/x", "", &ok).json();
    assert!(discord["content"].as_str().is_some_and(|all| all.contains(text)), "{discord}");
    assert_eq!(discord["allowed_mentions"]["parse"], json!([]));
    let teams = received("teams", "/workflows/x", "", &ok).json();
    assert_eq!(teams["attachments"][0]["content"]["type"], "AdaptiveCard");
    assert_eq!(teams["attachments"][0]["content"]["body"][1]["text"], text);
    let wecom = received("wecom", "/cgi-bin/webhook/send?key=k", "", &ok).json();
    assert!(wecom["markdown"]["content"].as_str().is_some_and(|all| all.contains(text)));

    let dingtalk = received("dingtalk", "/robot/send?access_token=t", signed, &ok);
    assert_eq!(dingtalk.json()["msgtype"], "markdown");
    assert!(
        dingtalk.path.starts_with("/robot/send?access_token=t&timestamp="),
        "{}",
        dingtalk.path
    );
    assert!(dingtalk.path.contains("&sign="), "{}", dingtalk.path);

    let keys = "chat = \"-100\"\nsecret = \"env:IT_TOKEN\"";
    let telegram = received("telegram", "", keys, &ok);
    assert_eq!(telegram.path, "/bota-very-long-secret/sendMessage");
    assert_eq!(telegram.json()["chat_id"], "-100");

    let ntfy = received("ntfy", "/my-topic", signed, &ok);
    assert_eq!((ntfy.path.as_str(), ntfy.json()["topic"].as_str()), ("/", Some("my-topic")));
    assert_eq!(ntfy.json()["title"], "aiproxy: test");
    assert_eq!(ntfy.header("authorization"), Some("Bearer a-very-long-secret"));
}

#[test]
fn template_replaces_the_message() {
    let template = r#"template = '{"summary": "{title} ({level})", "event": "{event}"}'"#;
    let json = received("webhook", "/x", template, &json!({}));
    assert_eq!(json.json(), json!({ "summary": "aiproxy: test (info)", "event": "test" }));
    assert_eq!(json.header("content-type"), Some("application/json"));

    let plain = received("ntfy", "/my-topic", "template = \"{title}!\"", &json!({}));
    assert_eq!((plain.path.as_str(), &plain.body[..]), ("/my-topic", &b"aiproxy: test!"[..]));
    assert_eq!(plain.header("content-type"), Some("text/plain; charset=utf-8"));
}

#[test]
fn error_in_a_response_with_status_200_is_reported() {
    let hook = Upstream::with_director(|_, _| {
        Scene::json(200, &json!({ "errcode": 310_000, "errmsg": "sign not match" }))
    });
    let config = format!(
        "[[alert_receiver]]\nname = \"team\"\nformat = \"dingtalk\"\nurl = \"http://{}/robot/send?access_token=confidential\"",
        hook.addr()
    );
    let (status, printed) = send_test(&config);
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("answered 310000: sign not match"), "{printed}");
    assert!(!printed.contains("confidential"), "{printed}");
}

/// Takes one mail without encryption or password; returns its lines.
fn mail_server() -> (SocketAddr, mpsc::Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut lines = BufReader::new(stream.try_clone().expect("the same socket")).lines();
        let mut mail = Vec::new();
        drop(stream.write_all(b"220 mail.example\r\n"));
        let mut in_data = false;
        while let Some(Ok(line)) = lines.next() {
            mail.push(line.clone());
            let answer: &[u8] = match (in_data, line.as_str()) {
                (true, ".") => {
                    in_data = false;
                    b"250 taken\r\n"
                }
                (true, _) => continue,
                (false, "DATA") => {
                    in_data = true;
                    b"354 go on\r\n"
                }
                (false, "QUIT") => break,
                (false, _) => b"250 fine\r\n",
            };
            drop(stream.write_all(answer));
            if answer.starts_with(b"250 taken") {
                break;
            }
        }
        drop(sender.send(mail));
    });
    (addr, receiver)
}

#[test]
fn mail_is_sent_to_its_recipients() {
    let (addr, mails) = mail_server();
    let config = format!(
        "[[alert_receiver]]\nname = \"mail\"\nurl = \"smtp://{addr}\"\nfrom = \"aiproxy@example.com\"\nto = [\"Me <me@example.com>\"]"
    );
    let (status, printed) = send_test(&config);
    assert_eq!(status, Some(0), "{printed}");
    let mail = mails.recv_timeout(TEST_TIMEOUT).expect("a mail").join("\n");
    for part in [
        "RCPT TO:<me@example.com>",
        "Subject: aiproxy: test",
        "test alert of aiproxy: delivery works",
    ] {
        assert!(mail.contains(part), "no {part} in {mail}");
    }
}

#[test]
fn unusable_receivers_are_config_errors() {
    for (row, want) in [
        ("url = \"https://hooks.slack.com/x\"", "without `name`"),
        ("name = \"a\"", "without `url`"),
        ("name = \"a\"\nurl = \"https://api.telegram.org\"", "without `chat`"),
        ("name = \"a\"\nurl = \"smtps://mail.example\"", "without `from`"),
        ("name = \"a\"\nurl = \"https://ntfy.sh\"", "without a topic"),
        (
            "name = \"a\"\nurl = \"https://a.example\"\nformat = \"mail\"\nfrom = \"a@b\"\nto = [\"a@b\"]",
            "another kind of address",
        ),
        ("name = \"a\"\nurl = \"https://a.example\"\nformat = \"slak\"", "slack"),
        (
            "name = \"a\"\nurl = \"https://a.example\"\ntemplate = \"{titel}\"",
            "no placeholder `{titel}`",
        ),
        ("name = \"a\"\nurl = \"https://a.example\"\ntemplate = '{\"a\": {title}}'", "not valid"),
    ] {
        let home = Setup::new().full_config(&format!("[[alert_receiver]]\n{row}")).home();
        let checked = home.command().args(["config", "check"]).output().expect("run aiproxy");
        let printed = String::from_utf8_lossy(&checked.stderr).into_owned()
            + &String::from_utf8_lossy(&checked.stdout);
        assert_eq!(checked.status.code(), Some(3), "{row}: {printed}");
        assert!(printed.contains(want), "{row}: {printed}");
    }
}
