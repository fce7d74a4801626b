//! Commands that change the config file: what they keep of it, and what they do if it cannot be
//! changed or has errors.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Stdio};

use crate::support::home::Home;

const BOX: &str = "# mine\n[[upstream]]\nname = \"box\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                   dialect = \"openai\"\nmodels = [\"*\"]\nkeys = [\"env:BOX_KEY\"]\n";

/// Runs a command in a home with this config; returns whether it succeeded, and what it said.
fn run(home: &Home, args: &[&str]) -> (bool, String) {
    let output = home.command().args(args).stdin(Stdio::null()).output().expect("it runs");
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), printed)
}

fn home_with(config: &str) -> Home {
    let home = Home::new();
    fs::write(home.config(), config).expect("written");
    fs::set_permissions(home.config(), fs::Permissions::from_mode(0o600)).expect("private");
    home
}

fn text(home: &Home) -> String {
    fs::read_to_string(home.config()).expect("the config")
}

#[test]
fn every_command_preserves_line_endings() {
    for args in [
        &["config", "set", "server.max_requests", "100"][..],
        &["upstream", "add", "two", "--base-url", "http://127.0.0.1:9/v1"],
        &["upstream", "set", "box", "priority=3"],
        &["model", "add", "fast", "box:m"],
        &["model", "add", "both", "box:m", "box:n"],
        &["project", "add", "ide"],
        &["key", "disable", "box"],
        &["upstream", "remove", "box", "--yes"],
    ] {
        let home = home_with(&format!("\u{feff}{}", BOX.replace('\n', "\r\n")));
        let (ok, printed) = run(&home, args);
        assert!(ok, "{args:?}: {printed}");
        let text = text(&home);
        assert!(text.starts_with('\u{feff}'), "{args:?}: {text:?}");
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "{args:?}: {text:?}");
    }
}

#[test]
fn read_only_file_is_reported_with_its_change_before_anything_is_stored() {
    for (args, change) in [
        (&["config", "set", "server.max_requests", "9"][..], "max_requests = 9"),
        (&["upstream", "add", "openai"], "preset = \"openai\""),
        (&["key", "add", "box/new", "--from-env", "NEW_KEY", "--vault"], "vault:box/new"),
        (&["project", "add", "ide"], "name = \"ide\""),
        (&["upstream", "remove", "box", "--yes"], "remove"),
    ] {
        let mut home = home_with(BOX);
        home.set("NEW_KEY", "sk-new-0123456789");
        fs::set_permissions(home.config(), fs::Permissions::from_mode(0o444)).expect("changed");
        let (ok, printed) = run(&home, args);
        assert!(!ok, "{args:?}: {printed}");
        assert!(
            printed.contains("config.toml: the config file is read-only"),
            "{args:?}: {printed}"
        );
        assert!(printed.contains(change) && printed.contains("chmod u+w"), "{args:?}: {printed}");
        assert!(!printed.contains(".lock"), "{args:?}: {printed}");
        assert_eq!(text(&home), BOX);
        let stored: Vec<_> = fs::read_dir(home.data())
            .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
            .unwrap_or_default();
        assert!(stored.is_empty(), "{args:?}: {stored:?}");
    }
    let home = home_with(BOX);
    fs::set_permissions(home.config(), fs::Permissions::from_mode(0o444)).expect("changed");
    let (ok, printed) = run(&home, &["upstream", "enable", "box"]);
    assert!(ok, "what changes nothing needs no file that can be written: {printed}");
}

#[test]
fn suggested_fixes_run_despite_their_errors() {
    let with = |row: &str| format!("{BOX}\n{row}\n");
    let alias = with("[aliases]\nfast = \"zz:y\"");
    let add = ["upstream", "add", "zz", "--base-url", "http://127.0.0.1:9/v1"];
    let key_less = with("[[project]]\nname = \"ide\"\nrpm = 5");
    for (config, args) in [
        (alias.clone(), &add[..]),
        (alias.clone(), &["model", "remove", "fast", "--yes"]),
        (alias, &["config", "unset", "aliases.fast"]),
        (with("[[model]]\nname = \"m\"\ntargets = [{ upstream = \"zz\", model = \"n\" }]"), &add),
        (with("[[model]]\nname = \"m\""), &["model", "remove", "m", "--yes"]),
        (with("[[upstream]]\nname = \"b\"\nbase_url = \"b\""), &["upstream", "remove", "b", "-y"]),
        (key_less.clone(), &["project", "rotate", "ide", "--yes"]),
        (key_less, &["project", "remove", "ide", "--yes"]),
        (
            BOX.replace("env:BOX_KEY", "aip-0123456789"),
            &["key", "add", "box", "--from-env", "NEW_KEY", "--vault", "--no-check"],
        ),
        (
            with("[[keyless]]\nlisten = \"127.0.0.1:11499\"\nproject = \"gone\""),
            &["project", "add", "gone"],
        ),
    ] {
        let mut home = home_with(&config);
        let passphrase = home.path().join("passphrase");
        fs::write(&passphrase, "two words\n").expect("written");
        fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).expect("private");
        home.set("AIPROXY_KEYS_PASSPHRASE_FILE", &passphrase.display().to_string());
        home.set("NEW_KEY", "sk-new-0123456789");
        assert!(!run(&home, &["config", "check"]).0, "no error:\n{config}");
        let (ok, printed) = run(&home, args);
        assert!(ok, "{args:?}: {printed}");
        let (ok, printed) = run(&home, &["config", "check"]);
        assert!(ok, "{args:?}: {printed}\n{}", text(&home));
        assert!(text(&home).starts_with("# mine\n"), "{args:?}");
    }
}

#[test]
fn edits_may_remove_errors_but_not_add_any() {
    let home = home_with(&format!("{BOX}\n[aliases]\nfast = \"zz:a\"\nslow = \"yy:b\"\n"));

    let (ok, printed) = run(&home, &["model", "remove", "fast", "--yes"]);
    assert!(ok && printed.contains("no upstream `yy`"), "{printed}");
    let before = text(&home);
    assert!(!before.contains("zz"), "{before}");

    let (ok, printed) = run(&home, &["config", "set", "server.max_requests", "9"]);
    assert!(!ok, "an unrelated change was accepted: {printed}");
    let (ok, printed) = run(&home, &["model", "add", "m", "xx:c"]);
    assert!(!ok, "an error was added: {printed}");
    assert_eq!(text(&home), before);
}

#[test]
fn relative_log_file_is_in_the_data_dir() {
    let home = home_with("[log]\nfile = \"logs/a.log\"\n");
    let elsewhere = home.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("made");
    let mut proxy = home
        .command()
        .args(["serve", "--listen", "127.0.0.1:0"])
        .current_dir(&elsewhere)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    crate::support::poll_until("the log file", || {
        home.data().join("logs/a.log").exists().then_some(())
    });
    drop(proxy.kill());
    proxy.wait().expect("ended");
    assert!(!elsewhere.join("logs").exists());
}
