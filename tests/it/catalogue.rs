//! `aiproxy model list` and `model show`: which models there are, what they can do, and where they
//! are served.

use std::process::Output;

use serde_json::Value;

use crate::support::{
    home::Home,
    proxy::Setup,
    upstream::{Scene, Upstream},
};

const CONFIG: &str = r#"
[discover]
env = false
local = false
[[upstream]]
name = "big"
base_url = "https://ai.example/v1"
dialect = "openai"
models = ["seer", "plain"]
keys = [{ ref = "env:K_BIG", label = "work", rpm = 60, limits = { "seer" = { rpm = 10 } } }]
[[upstream]]
name = "small"
base_url = "https://ai.example/v1"
dialect = "openai"
models = ["seer"]
[[model_facts]]
match = "seer"
upstreams = "big"
context = 400_000
max_output = 64_000
input = ["text", "image"]
tools = true
thinking = "effort"
source = "https://wiki.example/seer"
[[model_facts]]
match = "seer"
upstreams = "small"
context = 100_000
tools = true
source = "https://wiki.example/seer"
[prices."big/seer"]
input = 2.5
output = 10
[aliases]
"old-*" = "big:seer"
fast = "big:seer"
[[model]]
name = "auto"
targets = [{ model = "seer", upstream = "big", priority = 1 }, { model = "seer", upstream = "small", priority = 2 }]
"#;

fn run(home: &Home, args: &[&str]) -> Output {
    home.command().arg("model").args(args).output().unwrap()
}

/// The names that a listing shows.
fn names(home: &Home, options: &[&str]) -> Vec<String> {
    let output = run(home, &[&["list", "--json"], options].concat());
    assert!(output.status.success(), "{options:?}: {output:?}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn filters_match_abilities_of_all_targets() {
    let home = Home::new();
    home.write_config(CONFIG);

    let all = names(&home, &[]);
    for name in ["fast", "auto", "seer", "plain", "old-*"] {
        assert!(all.iter().any(|known| known == name), "{name} is missing: {all:?}");
    }
    // `seer` and `auto` are also at `small`, of which less is known.
    for (options, want) in [
        (&["--vision"][..], &["fast", "old-*"][..]),
        (&["--reasoning"], &["fast", "old-*"]),
        (&["--tools"], &["fast", "auto", "seer", "old-*"]),
        (&["--context", "100k"], &["fast", "auto", "seer", "old-*"]),
        (&["--context", "200k"], &["fast", "old-*"]),
        (&["--context", "1m"], &[]),
        (&["--vision", "--upstream", "big"], &["fast", "auto", "seer", "old-*"]),
        (&["--max-price", "2.5"], &["fast", "old-*"]),
        (&["--max-price", "2.4"], &[]),
        (&["--upstream", "small"], &["auto", "seer"]),
        (&["see"], &["seer"]),
        (&["*a*t*"], &["fast", "auto"]),
    ] {
        let mut got = names(&home, options);
        let mut want: Vec<String> = want.iter().map(|&name| name.to_owned()).collect();
        got.sort();
        want.sort();
        assert_eq!(got, want, "{options:?}");
    }

    let text = String::from_utf8(run(&home, &["list"]).stdout).unwrap();
    let fast = text.lines().find(|line| line.starts_with("fast ")).unwrap();
    for part in ["400k", "64k", "vision tools reasoning", "2.5→10", "big:seer"] {
        assert!(fast.contains(part), "{part} is missing: {fast}");
    }
    let wrong = run(&home, &["list", "--upstream", "bigg"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("did you mean `big`"), "{wrong:?}");
    assert_eq!(run(&home, &["list", "--context", "big"]).status.code(), Some(2));
}

#[test]
fn show_names_targets_prices_limits_and_facts_without_a_proxy() {
    let home = Home::new();
    home.write_config(CONFIG);

    let output = run(&home, &["show", "auto"]);
    let text = String::from_utf8(output.stdout).unwrap();

    for part in [
        "big:seer priority 1",
        "small:seer",
        "100k tokens context",
        "2.5",
        "big/work  10 requests a minute",
        "https://wiki.example/seer",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let pattern = run(&home, &["show", "old-*"]);
    assert!(String::from_utf8_lossy(&pattern.stdout).contains("big:seer"), "{pattern:?}");
    assert_eq!(run(&home, &["show", "atuo"]).status.code(), Some(1));
}

#[test]
fn show_reports_the_state_of_each_target_of_the_running_proxy() {
    let limited = Scene::status(429).header("retry-after", "600");
    let (down, up) = (Upstream::start(vec![limited]), Upstream::start(vec![Scene::chat("ok")]));
    let proxy = Setup::new()
        .upstream("down", &down, &["a"])
        .upstream("up", &up, &["b"])
        .config(
            "[[model]]\nname = \"auto\"\ntargets = [{ model = \"m\", upstream = \"down\", priority = 1 }, { model = \"m\", upstream = \"up\", priority = 2 }]",
        )
        .start();
    proxy.ask(&serde_json::json!({
        "model": "auto", "messages": [{ "role": "user", "content": "hi" }],
    }));

    let output = proxy.cli(&["model", "show", "auto", "--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();

    let states = &shown["states"];
    assert_eq!((&states[0]["target"], &states[1]["target"]), (&"down:m".into(), &"up:m".into()));
    assert_eq!(states[1]["state"], "healthy", "{shown}");
    let key = &states[0]["keys"][0];
    assert!(key["state"] != "ok" && !key["state"].is_null(), "{shown}");
    let text = String::from_utf8(proxy.cli(&["model", "show", "auto"]).stdout).unwrap();
    assert!(text.contains("0/1") && text.contains("1/1") && text.contains("429"), "{text}");
}
