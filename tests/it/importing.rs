//! `aiproxy import`: files of other programs, the keys in them, and what is refused.

use std::{fs, os::unix::fs::PermissionsExt, process::Output};

use serde_json::Value;

use crate::support::home::Home;

/// A home with an encrypted file for keys, and a file of another program in it.
fn home_with(name: &str, text: &str) -> Home {
    let mut home = Home::new();
    let passphrase = home.path().join("passphrase");
    fs::write(&passphrase, "two words\n").unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    home.set("AIPROXY_KEYS_PASSPHRASE_FILE", &passphrase.display().to_string());
    fs::write(home.path().join(name), text).unwrap();
    home
}

fn run(home: &Home, args: &[&str]) -> Output {
    home.command().args(args).output().expect("aiproxy")
}

fn printed(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// Imports the file with `--yes --json`, and again, which must change nothing. Checks that the
/// config is valid and no key stands in it, and returns the report and the config.
fn import(home: &Home, name: &str) -> (Value, String) {
    let output = run(home, &["import", name, "--yes", "--json"]);
    assert!(output.status.success(), "{}", printed(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let config = fs::read_to_string(home.config()).expect("a config");
    assert!(
        !config.contains("sk-") && !printed(&output).contains("sk-"),
        "{config}{}",
        printed(&output)
    );
    let check = run(home, &["config", "check"]);
    assert!(check.status.success(), "{}\n{config}", printed(&check));
    let again = run(home, &["import", name, "--yes", "--json"]);
    assert!(again.status.success(), "{}", printed(&again));
    assert_eq!(fs::read_to_string(home.config()).unwrap(), config, "a second import");
    (report, config)
}

fn names(report: &Value, list: &str) -> Vec<String> {
    let rows = report[list].as_array().expect("a list");
    rows.iter().map(|row| row.as_str().unwrap_or_default().to_owned()).collect()
}

fn unequal(report: &Value) -> Vec<String> {
    let rows = report["unequal"].as_array().expect("a list");
    rows.iter().map(|row| row["name"].as_str().unwrap_or_default().to_owned()).collect()
}

const CLI_PROXY: &str = r#"port: 8317
auth-dir: "~/.cli-proxy-api"
api-keys: ["sk-client-1", "sk-client-2"]
gemini-api-key:
  - api-key: "sk-gem-1"
    base-url: "http://127.0.0.1:9/gemini"
    models: [{name: gemini-2.5-flash, alias: gf}]
  - api-key: "sk-gem-2"
    base-url: "http://127.0.0.1:9/other"
claude-api-key:
  - api-key: "sk-ant-1"
    prefix: team
    models: [{name: claude-a, alias: ca}]
openai-compatibility:
  - name: box
    base-url: "http://127.0.0.1:9/api/v1"
    api-key-entries: [{api-key: sk-box-1}, {api-key: sk-box-2}]
    models: [{name: "vendor/kimi:free", alias: kimi}]
"#;

#[test]
fn cli_proxy_api_is_imported_with_clients_and_aliases() {
    let home = home_with("cpa.yaml", CLI_PROXY);
    let (report, config) = import(&home, "cpa.yaml");
    assert_eq!(report["format"], "cliproxyapi");
    assert_eq!(names(&report, "upstreams"), ["gemini", "gemini-2", "anthropic", "box"]);
    assert_eq!(names(&report, "projects"), ["cliproxyapi", "cliproxyapi-2"]);
    assert_eq!(unequal(&report), ["auth-dir"]);
    for line in [
        "base_url = \"http://127.0.0.1:9/gemini/v1beta\"",
        "rename = { gf = \"gemini-2.5-flash\" }",
        "models = [\"gemini-*\"]",
        "keys = [\"vault:box/main\", \"vault:box/key2\"]",
        "\"team/ca\" = \"anthropic:ca\"",
        "key = \"vault:client/cliproxyapi\"",
    ] {
        assert!(config.contains(line), "{line}\n{config}");
    }
}

#[test]
fn channels_of_new_api_are_imported_with_keys_state_and_order() {
    let channels = r#"{"success": true, "data": {"items": [
        {"id": 1, "type": 1, "key": "sk-n-1\nsk-n-2", "name": "Main (prod)", "priority": 10, "status": 1,
         "base_url": "http://127.0.0.1:9/openai", "models": "gpt-4o,gpt-4", "group": "vip", "tag": "t",
         "model_mapping": "{\"gpt-4\":\"gpt-4o\"}"},
        {"id": 2, "type": 14, "key": "sk-n-3", "name": "claude", "status": 2, "models": "claude-a"},
        {"id": 3, "type": 33, "key": "sk-n-4|x|r", "name": "aws", "status": 1, "models": "x"}]}}"#;
    let home = home_with("channels.json", channels);
    let (report, config) = import(&home, "channels.json");
    assert_eq!(report["format"], "new-api");
    assert_eq!(names(&report, "upstreams"), ["Main-prod", "claude"]);
    assert_eq!(report["renamed"][0]["to"], "Main-prod");
    for name in ["aws", "channel.group", "channel.tag"] {
        assert!(unequal(&report).iter().any(|one| one == name), "{name}: {report}");
    }
    for line in [
        "base_url = \"http://127.0.0.1:9/openai/v1\"",
        "keys = [\"vault:Main-prod/main\", \"vault:Main-prod/key2\"]",
        "rename = { gpt-4 = \"gpt-4o\" }",
        "priority = 11",
        "enabled = false",
    ] {
        assert!(config.contains(line), "{line}\n{config}");
    }
}

#[test]
fn imported_names_avoid_existing_ones() {
    let home = home_with("cpa.yaml", CLI_PROXY);
    let mine = "# mine\n[[upstream]]\nname = \"box\" # here\nbase_url = \"http://127.0.0.1:8/v1\"\n\
                dialect = \"openai\"\n\n[server]\nlisten = \"127.0.0.1:8700\"\n";
    home.write_config(mine);
    let (report, config) = import(&home, "cpa.yaml");
    assert_eq!(names(&report, "upstreams"), ["gemini", "gemini-2", "anthropic", "box-2"]);
    assert!(unequal(&report).iter().any(|name| name.contains("server.listen")), "{report}");
    for line in mine.lines() {
        assert!(config.contains(line), "{line}\n{config}");
    }
}

#[test]
fn invalid_import_is_refused_and_changes_nothing() {
    for (text, exit, words) in [
        (&b"model_list:\n  - model_name: a\n    x: \"sk-cut\n"[..], 3, "old.yaml:"),
        (b"{\n\"Providers\": [\n{\"name\": \"a\",\n", 3, "old.yaml:"),
        (b"just some words\n", 3, "LiteLLM"),
        (b"", 3, "LiteLLM"),
        (b"\x00\x01\xff", 1, "LiteLLM"),
        (b"Providers: [{name: a}]\n", 1, "no api_base_url"),
    ] {
        let home = home_with("old.yaml", "");
        fs::write(home.path().join("old.yaml"), text).unwrap();
        let output = run(&home, &["import", "old.yaml", "--yes"]);
        let printed = printed(&output);
        assert_eq!(output.status.code(), Some(exit), "{printed}");
        assert!(printed.contains(words) && !printed.contains("sk-"), "{words}: {printed}");
        assert!(!home.config().exists() && !home.data().exists(), "{printed}");
    }
}

#[test]
fn import_needs_confirmation_and_a_key_store() {
    let home = home_with("cpa.yaml", CLI_PROXY);
    let output = run(&home, &["import", "cpa.yaml"]);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("--yes"), "{}", printed(&output));
    let dry = run(&home, &["import", "cpa.yaml", "--dry-run"]);
    assert!(dry.status.success() && printed(&dry).contains("[[upstream]]"), "{}", printed(&dry));
    let mut command = home.command();
    command.env_remove("AIPROXY_KEYS_PASSPHRASE_FILE").args(["import", "cpa.yaml", "--yes"]);
    let output = command.output().expect("aiproxy");
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains("AIPROXY_KEYS_PASSPHRASE_FILE"), "{}", printed(&output));
    assert!(!home.config().exists());
}

#[test]
fn serve_names_the_command_for_a_foreign_config() {
    let home = home_with("cpa.yaml", CLI_PROXY);
    let output = run(&home, &["serve", "--config", "cpa.yaml"]);
    assert_eq!(output.status.code(), Some(3), "{}", printed(&output));
    assert!(
        printed(&output).contains("aiproxy import /") && printed(&output).contains("cpa.yaml"),
        "{}",
        printed(&output)
    );
}
