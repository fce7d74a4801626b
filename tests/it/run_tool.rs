//! `aiproxy run`: what the program gets, what it leaves behind, its signals and its account. Shell
//! scripts stand for the programs.

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{
    home::Home,
    poll_until,
    proxy::{Proxy, Setup},
    pty::Terminal,
    upstream::{Scene, Upstream},
};

/// Puts a script in the place of a program; `$NOTES` is a folder for what it writes down.
fn install(home: &mut Home, program: &str, script: &str) {
    let bin = home.path().join("bin");
    std::fs::create_dir_all(&bin).expect("a folder");
    std::fs::create_dir_all(home.path().join("notes")).expect("a folder");
    let file = bin.join(program);
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("a script");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let path = std::env::var("PATH").unwrap_or_default();
    home.set("PATH", &format!("{}:{path}", bin.display()));
    home.set("NOTES", &home.path().join("notes").display().to_string());
    home.set("AIPROXY", env!("CARGO_BIN_EXE_aiproxy"));
}

/// A running proxy with one upstream, and a script in the place of a program.
fn bench(upstream: &Upstream, program: &str, script: &str) -> Proxy {
    let mut proxy = Setup::new().upstream("box", upstream, &["a"]).start();
    install(&mut proxy.home, program, script);
    proxy
}

fn run_command(home: &Home, args: &[&str]) -> Command {
    let mut command = home.command();
    command.arg("run").args(args).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(home: &Home, args: &[&str]) -> Output {
    run_command(home, args).output().expect("aiproxy run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn note_path(home: &Home, name: &str) -> PathBuf {
    home.path().join("notes").join(name)
}

fn note(home: &Home, name: &str) -> String {
    std::fs::read_to_string(note_path(home, name)).unwrap_or_default()
}

fn wait_for_note(home: &Home, name: &str, want: &str) -> String {
    poll_until(name, || Some(note(home, name)).filter(|found| found.contains(want)))
}

/// The names in the folder of all runs, without the lock.
fn folders_of_runs(home: &Home) -> Vec<String> {
    let entries = std::fs::read_dir(home.data().join("run-tools")).into_iter().flatten();
    let names = entries.map(|entry| text(entry.expect("an entry").file_name().as_encoded_bytes()));
    names.filter(|name| name != "making.lock").collect()
}

/// Writes down the environment and the arguments, and keeps a copy of the settings file with its
/// mode.
const LOOK_AROUND: &str = r#"
env > "$NOTES/env"
printf '%s\n' "$@" > "$NOTES/args"
pwd > "$NOTES/cwd"
for arg in "$@"; do case "$arg" in */run-tools/*) cp "$arg" "$NOTES/settings"; stat -c %a "$arg" > "$NOTES/mode";; esac; done"#;

#[test]
fn the_program_gets_the_proxy_and_a_key_of_its_own() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let mut proxy = bench(&upstream, "claude", LOOK_AROUND);
    for (name, value) in [
        ("OPENAI_API_KEY", "sk-shell"),
        ("ANTHROPIC_API_KEY", "sk-shell"),
        ("ANTHROPIC_BASE_URL", "https://elsewhere.example"),
        ("OPENAI_BASE_URL", "https://elsewhere.example"),
        ("CLAUDE_CODE_USE_BEDROCK", "1"),
        ("GITHUB_TOKEN", "ghp-kept"),
        ("HTTPS_PROXY", "http://127.0.0.1:9"),
        ("NO_PROXY", "a.example"),
    ] {
        proxy.home.set(name, value);
    }
    let output = run(
        &proxy.home,
        &["claude-code", "--model", "m-1", "--", "-p", "two words", "--", "-x", ""],
    );

    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let args = note(&proxy.home, "args");
    assert!(args.ends_with("\n-p\ntwo words\n--\n-x\n\n"), "{args}");
    let env = note(&proxy.home, "env");
    let has = |line: &str| env.lines().any(|found| found == line);
    assert!(has(&format!("ANTHROPIC_BASE_URL=http://{}", proxy.addr)), "{env}");
    assert!(has("ANTHROPIC_MODEL=m-1") && has("ANTHROPIC_DEFAULT_HAIKU_MODEL=m-1"), "{env}");
    assert!(has("NO_PROXY=a.example,localhost,127.0.0.1,::1"), "{env}");
    assert!(has("GITHUB_TOKEN=ghp-kept") && env.contains("ANTHROPIC_AUTH_TOKEN=aip-"), "{env}");
    for gone in ["sk-shell", "sk-it-", "elsewhere", "USE_BEDROCK"] {
        assert!(!env.contains(gone), "{gone} in {env}");
    }
    let settings: Value = serde_json::from_str(&note(&proxy.home, "settings")).expect("settings");
    assert_eq!(settings["env"]["ANTHROPIC_BASE_URL"], format!("http://{}", proxy.addr));
    assert_eq!(note(&proxy.home, "mode").trim(), "600");
    assert!(folders_of_runs(&proxy.home).is_empty(), "nothing is left");

    let shown = proxy.cli(&["project", "show", "claude-code", "--reveal", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("the project");
    let key = settings["env"]["ANTHROPIC_AUTH_TOKEN"].as_str().expect("a key");
    assert!(shown.to_string().contains(key), "the key is that of the project");
    assert!(!text(&output.stderr).contains(key) && !args.contains(key));
}

#[test]
fn limits_of_the_model_reach_the_program() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let facts = "[[model_facts]]\nmatch = \"small\"\ncontext = 32000\nmax_output = 4000\n";
    let mut proxy = Setup::new().upstream_at("box", &upstream.url(), &["a"], facts).start();
    for program in ["claude", "codex", "opencode"] {
        install(&mut proxy.home, program, LOOK_AROUND);
    }
    for (tool, want) in [
        ("claude-code", "CLAUDE_CODE_AUTO_COMPACT_WINDOW=32000"),
        ("codex", "model_context_window=32000"),
        ("opencode", r#""limit":{"context":32000,"output":4000}"#),
    ] {
        let output = run(&proxy.home, &[tool, "--model", "box:small"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let got = note(&proxy.home, "env") + &note(&proxy.home, "args");
        assert!(got.contains(want), "{tool}: {got}");
    }
    // Codex knows the limits of these.
    assert!(run(&proxy.home, &["codex", "--model", "gpt-5"]).status.success());
    assert!(!note(&proxy.home, "args").contains("model_context_window"));
}

#[test]
fn the_exit_status_is_that_of_the_program() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = bench(&upstream, "codex", "cat > \"$NOTES/in\"; kill -9 $$");
    assert_eq!(run(&proxy.home, &["codex"]).status.code(), Some(128 + 9));
    assert!(folders_of_runs(&proxy.home).is_empty());

    let proxy = bench(&upstream, "aider", "echo out; echo err >&2; exit 7");
    let output = run(&proxy.home, &["aider", "--model", "m"]);
    assert_eq!((output.status.code(), &*output.stdout), (Some(7), &b"out\n"[..]));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("err\n")
            && errors.ends_with("aider: 0 requests, 0 tokens, $0, cache 0 %, 0 failovers\n"),
        "{errors}"
    );
}

#[test]
fn the_account_counts_what_the_run_used() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let broken = Upstream::start(vec![Scene::status(500)]);
    let mut proxy = Setup::new()
        .upstream_at("bad", &broken.url(), &["a"], "priority = 1")
        .upstream_at("box", &upstream.url(), &["a"], "priority = 2")
        .config("[aliases]\nboth = \"m\"")
        .start();
    let ask = "for n in 1 2; do \"$AIPROXY\" ask --project llm both hi >/dev/null 2>&1; done";
    install(&mut proxy.home, "llm", ask);
    // The second request leaves out the upstream that failed, and the second run starts from zero.
    for failovers in ["1 failover", "0 failovers"] {
        let output = run(&proxy.home, &["llm", "--model", "both"]);
        let errors = text(&output.stderr);
        let want = format!("llm: 2 requests, 10 tokens, $0, cache 0 %, {failovers}");
        assert_eq!(errors.lines().last(), Some(&*want), "{errors}");
    }
}

/// Writes each signal down, and ends after SIGTERM or a file.
const NOTE_SIGNALS: &str = r#"
for name in INT HUP WINCH USR1; do trap "echo $name >> '$NOTES/signals'" $name; done
trap "echo TERM >> '$NOTES/signals'; exit 42" TERM
echo ready >> "$NOTES/signals"
while [ ! -e "$NOTES/end" ]; do sleep 0.02; done
exit 43"#;

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("send a signal");
}

/// Whether this process ignores a signal, as under `nohup`. A shell script that inherits that cannot
/// catch the signal.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn signals_reach_the_program_once() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = bench(&upstream, "claude", NOTE_SIGNALS);
    let child = run_command(&proxy.home, &["claude-code"]).spawn().expect("aiproxy run");
    wait_for_note(&proxy.home, "signals", "ready");
    let mut want = "ready\n".to_owned();
    for (signal, name) in [
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::WINCH, "WINCH"),
        (Signal::USR1, "USR1"),
        (Signal::TERM, "TERM"),
    ] {
        if is_ignored(signal) {
            continue;
        }
        send(&child, signal);
        wait_for_note(&proxy.home, "signals", name);
        want.push_str(&format!("{name}\n"));
    }
    let output = child.wait_with_output().expect("the end");
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(note(&proxy.home, "signals"), want);
    assert!(text(&output.stderr).contains("claude-code: 0 requests"), "{}", text(&output.stderr));
}

#[test]
fn the_terminal_is_the_programs() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = bench(&upstream, "claude", NOTE_SIGNALS);
    let mut terminal = Terminal::start(&proxy.home, &["run", "claude-code"], 24, 80);
    wait_for_note(&proxy.home, "signals", "ready");

    terminal.press("\x03");
    wait_for_note(&proxy.home, "signals", "INT");
    terminal.resize(30, 100);
    wait_for_note(&proxy.home, "signals", "WINCH");
    // From another terminal, to this process alone.
    let pid = i32::try_from(terminal.pid()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::USR1).expect("send a signal");
    wait_for_note(&proxy.home, "signals", "USR1");
    kill_process(pid, Signal::INT).expect("send a signal");
    wait_for_note(&proxy.home, "signals", "USR1\nINT");
    std::fs::write(note_path(&proxy.home, "end"), "").expect("a file");

    assert_eq!(terminal.exit_code(), 43);
    assert_eq!(note(&proxy.home, "signals"), "ready\nINT\nWINCH\nUSR1\nINT\n");
    assert!(text(&terminal.raw).contains("claude-code: 0 requests"));
}

#[test]
fn a_program_that_dies_in_raw_mode_leaves_a_usable_terminal() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let mut proxy = bench(&upstream, "claude", "stty raw -echo; kill -9 $$");
    let script = "\"$AIPROXY\" run claude-code; stty -a > \"$NOTES/modes\"";
    install(&mut proxy.home, "outer", script);
    let outer = proxy.home.path().join("bin/outer");
    let mut terminal = Terminal::run(&outer, &proxy.home, &[], 24, 80);

    terminal.exit_code();
    let modes = note(&proxy.home, "modes");
    assert!(modes.contains(" icanon") && modes.contains(" echo "), "{modes}");
}

#[test]
fn what_is_missing_is_said_and_nothing_is_made() {
    let mut home = Setup::new().home();
    install(&mut home, "claude", "exit 0");
    for (args, code, want) in [
        (&["claude-code"][..], 4, "aiproxy serve"),
        (&["goose"], 127, "install it: "),
        (&["claude-cod"], 2, "did you mean `claude-code`"),
        (&["zed"], 2, "Zed is not started"),
    ] {
        let output = run(&home, args);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert!(errors.contains(want), "{args:?}: {errors}");
    }
    assert!(!home.data().join("run-tools").exists());

    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = bench(&upstream, "claude", "exit 0");
    let before = std::fs::read(proxy.home.config()).expect("the config");
    let output = run(&proxy.home, &["claude-code", "--project", "its"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("did you mean `it`"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read(proxy.home.config()).expect("the config"), before);
}

#[test]
fn runs_that_begin_together_share_one_project() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = bench(&upstream, "codex", "echo \"$AIPROXY_CLIENT_KEY\" >> \"$NOTES/keys\"");
    let runs: Vec<_> = (0..4)
        .map(|_| run_command(&proxy.home, &["codex", "--model", "m"]).spawn().expect("run"))
        .collect();
    for child in runs {
        let output = child.wait_with_output().expect("the end");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let keys = note(&proxy.home, "keys");
    let mut keys: Vec<&str> = keys.lines().collect();
    assert_eq!(keys.len(), 4);
    keys.dedup();
    assert_eq!(keys.len(), 1, "{keys:?}");
    let config = std::fs::read_to_string(proxy.home.config()).expect("the config");
    assert_eq!(config.matches("name = \"codex\"").count(), 1, "{config}");
}
