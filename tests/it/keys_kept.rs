//! Keys that cannot be read for a while: what is in use stays in use, and what is missing is found
//! again.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use aiproxy::secrets::Secret;

use crate::support::{
    client::Request,
    home::Home,
    keyring::{Service, TestKeyring},
    poll_until,
    proxy::{CLIENT_KEY, Proxy, Setup, chat_body},
    upstream::{Scene, Upstream},
};

fn private(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("private");
}

/// A home with one upstream whose only key is this reference; `HOME` in it is the home's folder.
fn home_with_key(upstream: &Upstream, reference: &str) -> Home {
    let home = Setup::new().upstream("one", upstream, &["work"]).home();
    let text = fs::read_to_string(home.config()).expect("the config");
    let line = text.lines().find(|line| line.starts_with("keys = ")).expect("keys").to_owned();
    let reference = reference.replace("HOME", &home.path().display().to_string());
    let text = text.replace(&line, &format!("keys = [{{ ref = \"{reference}\", label = \"k\" }}]"));
    home.write_config(&text);
    home
}

/// A password manager that is locked while the file `locked` exists.
fn write_manager(home: &Home) {
    let locked = home.path().join("locked");
    let script = format!("#!/bin/sh\n[ -e {} ] && exit 1\necho sk-it-manager\n", locked.display());
    private(&home.path().join("pm"), &script, 0o700);
}

#[test]
fn key_in_use_survives_reloads_while_unreadable() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    for (reference, hide, show) in [
        ("cmd:HOME/pm", "touch locked", "rm locked"),
        ("file:HOME/k", "mv k away", "mv away k"),
        ("file:HOME/k", "cp k away; : > k", "mv away k"),
    ] {
        let home = home_with_key(&upstream, reference);
        write_manager(&home);
        private(&home.path().join("k"), "sk-it-file\n", 0o600);
        let run = |home: &Home, line: &str| {
            let mut shell = std::process::Command::new("sh");
            assert!(shell.args(["-c", line]).current_dir(home.path()).status().unwrap().success());
        };
        let proxy = Proxy::spawn(home);
        poll_until("the key", || (proxy.chat("hi").status == 200).then_some(()));

        run(&proxy.home, hide);
        let reloaded = proxy.cli(&["reload"]);
        let printed = String::from_utf8_lossy(&reloaded.stderr).into_owned();
        assert!(printed.contains("one/k cannot be read now"), "{reference}: {printed}");
        assert!(proxy.output().contains("stays in use"), "{reference}");
        assert_eq!(proxy.chat("hi").chat_text(), "hello", "{reference}");

        run(&proxy.home, show);
        poll_until("the reference to be read again", || {
            proxy.output().contains("can be read again").then_some(())
        });
        assert_eq!(proxy.chat("hi").chat_text(), "hello", "{reference}");
        let warnings = proxy.status_json()["config"]["warnings"].to_string();
        assert!(!warnings.contains("cannot be read"), "{reference}: {warnings}");
    }
}

#[test]
fn changed_unreadable_reference_does_not_keep_the_old_secret() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let home = home_with_key(&upstream, "file:HOME/k");
    private(&home.path().join("k"), "sk-it-file\n", 0o600);
    let proxy = Proxy::spawn(home);
    poll_until("the key", || (proxy.chat("hi").status == 200).then_some(()));

    let text = fs::read_to_string(proxy.home.config()).expect("the config");
    proxy.home.write_config(&text.replace("/k\"", "/other\""));
    assert!(proxy.cli(&["reload"]).status.success());

    assert_ne!(proxy.chat("hi").status, 200);
}

#[test]
fn missing_key_is_picked_up_without_a_reload() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let home = home_with_key(&upstream, "cmd:HOME/pm");
    write_manager(&home);
    private(&home.path().join("locked"), "", 0o600);
    let proxy = Proxy::spawn(home);
    poll_until("the key to be missing", || proxy.output().contains("is not usable").then_some(()));

    fs::remove_file(proxy.home.path().join("locked")).expect("unlocked");

    poll_until("the key to be found", || {
        proxy.key("one/k")["fingerprint"]
            .as_str()
            .and_then(|fingerprint| (!fingerprint.is_empty()).then_some(()))
    });
    assert_eq!(proxy.chat("hi").chat_text(), "hello");
}

/// A home on the bus with an upstream and the built-in project.
fn home_on_bus(ring: &TestKeyring, upstream: &Upstream) -> Home {
    let setup = Setup::new().full_config(&format!(
        "[discover]\nenv = false\nlocal = false\n[[upstream]]\nname = \"one\"\nbase_url = \"{}\"\n\
         dialect = \"openai\"\nmodels = [\"*\"]\nkeys = [\"sk-it-literal\"]\n",
        upstream.url()
    ));
    let mut home = setup.home();
    for (name, value) in ring.env() {
        home.set(name, &value);
    }
    home
}

/// The key that `env` prints, with or without the bus.
fn env_key(proxy: &Proxy, with_bus: bool) -> Result<String, String> {
    let mut command = proxy.home.command();
    if !with_bus {
        command.env_remove("DBUS_SESSION_BUS_ADDRESS").env("XDG_RUNTIME_DIR", "/nonexistent");
    }
    let output = command.args(["env", "--json"]).output().expect("it runs");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    Ok(json["OPENAI_API_KEY"].as_str().expect("a key").to_owned())
}

fn status_with(proxy: &Proxy, key: &str) -> u16 {
    Request::post("/v1/chat/completions", &chat_body("m", "hi", false))
        .bearer(key)
        .send(proxy.addr)
        .status
}

#[test]
fn client_key_is_stable_while_the_keyring_is_unavailable() {
    let Some(ring) = TestKeyring::start(Service::Unlocked) else { return };
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Proxy::spawn(home_on_bus(&ring, &upstream));
    let key = env_key(&proxy, true).expect("a key");
    assert_eq!(status_with(&proxy, &key), 200);
    assert_eq!(env_key(&proxy, false).as_deref(), Ok(key.as_str()), "asked over ssh");

    ring.lock();
    proxy.cli(&["reload"]);
    assert_eq!(status_with(&proxy, &key), 200);
    assert!(proxy.output().contains("the last known key stays valid"), "{}", proxy.output());
    assert_eq!(env_key(&proxy, true).as_deref(), Ok(key.as_str()), "asked while locked");

    let proxy = proxy.restart();
    assert_eq!(status_with(&proxy, &key), 200, "started while locked");
    assert_eq!(status_with(&proxy, "aip-another"), 401);
    let printed = env_key(&proxy, true).expect_err("nothing new is made");
    assert!(printed.contains("unlock the keyring"), "{printed}");
    assert!(!proxy.home.data().join("client.key").exists());
    let kept = fs::read_to_string(proxy.home.data().join("client-keys.json")).expect("a file");
    assert!(!kept.contains(&key[4..]), "the key itself is in a file");

    ring.unlock();
    poll_until("the key to be read again", || {
        (env_key(&proxy, false).as_deref() == Ok(key.as_str())).then_some(())
    });

    assert!(proxy.cli(&["project", "rotate", "default", "--yes"]).status.success());
    let new = env_key(&proxy, true).expect("a key");
    assert_ne!(new, key);
    assert_eq!((status_with(&proxy, &new), status_with(&proxy, &key)), (200, 401));
}

#[test]
fn old_client_key_is_kept_and_new_keys_are_per_data_dir() {
    let Some(ring) = TestKeyring::start(Service::Unlocked) else { return };
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let home = home_on_bus(&ring, &upstream);
    let older = Secret::new("aip-of-an-older-version-0123456789".to_owned());
    ring.store("client/default", older.expose());
    let proxy = Proxy::spawn(home);
    assert_eq!(env_key(&proxy, true).as_deref(), Ok(older.expose()));

    let other = home_on_bus(&ring, &upstream);
    let run = |home: &Home, args: &[&str]| {
        let output = home.command().args(args).output().expect("it runs");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        printed
    };
    run(&other, &["project", "rotate", "default", "--yes"]);
    run(&proxy.home, &["project", "add", "ide"]);
    let show = |home: &Home| run(home, &["project", "show", "ide", "--reveal", "--json"]);
    let before = show(&proxy.home);
    run(&other, &["project", "add", "ide"]);
    assert_ne!(show(&other), before);
    run(&other, &["project", "rotate", "ide", "--yes"]);
    run(&other, &["project", "remove", "ide", "--yes"]);

    assert_eq!(show(&proxy.home), before);
    assert_eq!(env_key(&proxy, true).as_deref(), Ok(older.expose()));
    assert_eq!(ring.load("client/default").as_deref(), Some(older.expose()));
}

#[test]
fn key_in_a_locked_keyring_is_found_after_unlocking() {
    let Some(ring) = TestKeyring::start(Service::Unlocked) else { return };
    ring.store("one/k", "sk-it-from-the-ring");
    ring.lock();
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let mut home = home_with_key(&upstream, "keyring:one/k");
    for (name, value) in ring.env() {
        home.set(name, &value);
    }
    let proxy = Proxy::spawn(home);
    poll_until("the key to be missing", || proxy.output().contains("is not usable").then_some(()));
    // By now the attempts of a schedule alone would be seconds apart.
    std::thread::sleep(Duration::from_secs(6));

    ring.unlock();
    let begun = Instant::now();
    poll_until("the key to be found", || (proxy.chat("hi").status == 200).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(upstream.requests().iter().all(|r| r.header("authorization").is_some()));
}

#[test]
fn client_keys_are_given_to_the_control_token_only() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let token = fs::read_to_string(proxy.home.data().join("run/token")).expect("the token");
    let ask = |token: &str, project: &str| {
        let question = serde_json::json!({ "action": "client_key", "project": project });
        Request::post("/aiproxy/v1/act", &question).bearer(token.trim()).send(proxy.addr)
    };

    assert_eq!(ask(CLIENT_KEY, "it").status, 403, "an admin project's key");
    let answer = ask(&token, "it").json();
    assert_eq!((&answer["ok"], &answer["text"]), (&true.into(), &CLIENT_KEY.into()));
    let answer = ask(&token, "none").json();
    assert_eq!(answer["ok"], false, "{answer}");
    assert!(!proxy.output().contains(&CLIENT_KEY[4..]), "a key is in the log");
}
