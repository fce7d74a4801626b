//! Reload: a valid edit applies immediately; an invalid edit changes nothing and its position is
//! reported.

use crate::support::{
    poll_until,
    proxy::{Setup, chat_body},
    upstream::{Gate, Scene, Upstream},
};

#[test]
fn saved_config_is_applied() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    assert_eq!(proxy.ask(&chat_body("one/m", "hi", false)).chat_text(), "hello");
    let text = std::fs::read_to_string(proxy.home.config()).expect("the config");

    proxy.home.write_config(&text.replace("name = \"one\"", "name = \"renamed\""));

    poll_until("the new name to be served", || {
        let names = proxy.status_json()["upstreams"].clone();
        names
            .as_array()
            .is_some_and(|rows| rows.iter().any(|row| row["name"] == "renamed"))
            .then_some(())
    });
    assert_eq!(proxy.ask(&chat_body("renamed/m", "hi", false)).chat_text(), "hello");
}

#[test]
fn reload_command_applies_the_config_and_ignores_an_invalid_one() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let good = std::fs::read_to_string(proxy.home.config()).expect("the config");

    proxy.home.write_config(&format!("[sever]\nlisten = \"8642\"\n{good}"));
    let refused = proxy.cli(&["reload"]);

    assert_eq!(refused.status.code(), Some(3));
    let shown = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert!(
        shown.contains("config.toml") && shown.contains("server"),
        "names file and likely key: {shown}"
    );
    assert_eq!(proxy.chat("hi").chat_text(), "hello");
    let problems = proxy.status_json()["config"]["problems"].to_string();
    assert!(problems.contains("config.toml:1:"), "file, line and column: {problems}");

    proxy.home.write_config(&good);
    let applied = proxy.cli(&["reload"]);

    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    poll_until("the problems to be gone", || {
        proxy.status_json()["config"]["problems"]
            .as_array()
            .is_some_and(Vec::is_empty)
            .then_some(())
    });
}

#[test]
fn running_streams_finish_with_their_initial_config() {
    let gate = Gate::closed();
    let upstream = Upstream::start(vec![Scene::sse(&["a", "b"]).gate(2, &gate)]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut connection = proxy.open_chat("hi", true);
    connection.read_until("\"a\"");

    proxy.home.write_config(&Setup::new().config_text());
    assert!(proxy.cli(&["reload"]).status.success());
    gate.open();

    let rest = connection.read_answer();
    assert!(rest.complete && rest.text().contains("[DONE]"), "{}", rest.text());
    assert_eq!(proxy.chat("hi").status, 404, "the upstream is gone for new requests");
}

#[test]
fn cooldown_survives_a_reload() {
    let upstream = Upstream::start(vec![Scene::status(429).header("retry-after", "300")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    assert_eq!(proxy.chat("hi").status, 429);

    assert!(proxy.cli(&["reload"]).status.success());

    assert_eq!(proxy.chat("hi").status, 429);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn changed_listen_address_is_reported_to_need_a_restart() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let text = std::fs::read_to_string(proxy.home.config()).expect("the config");

    proxy
        .home
        .write_config(&format!("[server]\nlisten = \"127.0.0.1:9\"\nmax_requests = 100\n{text}"));
    assert!(proxy.cli(&["reload"]).status.success());

    assert_eq!(proxy.chat("hi").chat_text(), "hello");
}
