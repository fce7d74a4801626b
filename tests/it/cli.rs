//! The program as a person runs it: arguments in, text and exit code out, in a separate home.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::support::proxy::Setup;

/// A home without anything from the machine: no keyring, no keys in the environment.
struct CliHome(TempDir);

impl CliHome {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn config(&self) -> PathBuf {
        self.path().join("config.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aiproxy"));
        command
            .env_clear()
            .env("HOME", self.path())
            .env("PATH", "/usr/bin:/bin")
            .env("NO_COLOR", "1");
        command
            .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
            .env("XDG_RUNTIME_DIR", self.path());
        command
            .args(args)
            .arg("--config")
            .arg(self.config())
            .arg("--data-dir")
            .arg(self.path().join("data"));
        command
    }

    fn run(&self, args: &[&str]) -> CommandResult {
        CommandResult::from(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    fn run_with_stdin(&self, args: &[&str], input: &[u8]) -> CommandResult {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that fails may exit before it has read all input.
        drop(child.stdin.take().unwrap().write_all(input));
        CommandResult::from(child.wait_with_output().unwrap())
    }
}

#[derive(Debug)]
struct CommandResult {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for CommandResult {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl CommandResult {
    #[track_caller]
    fn assert_exit(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    #[track_caller]
    fn assert_output(self, part: &str) -> Self {
        assert!(
            self.out.contains(part) || self.err.contains(part),
            "{part:?} is missing: {self:#?}"
        );
        self
    }

    #[track_caller]
    fn assert_hidden(self, part: &str) -> Self {
        assert!(
            !self.out.contains(part) && !self.err.contains(part),
            "{part:?} must not be there: {self:#?}"
        );
        self
    }
}

const UPSTREAM: &str = "[[upstream]]\nname = \"box\" # mine\nbase_url = \"http://127.0.0.1:9/v1\"\ndialect = \"openai\"\nmodels = [\"*\"]\n";

#[test]
fn help_is_complete_and_a_typing_mistake_gets_a_suggestion() {
    let home = CliHome::new();
    home.run(&[]).assert_exit(0).assert_output("Exit codes").assert_output("aiproxy serve");
    home.run(&["--version"]).assert_exit(0).assert_output(env!("CARGO_PKG_VERSION"));
    for command in [
        "serve",
        "key",
        "upstream",
        "model",
        "project",
        "config",
        "route",
        "log",
        "ask",
        "env",
        "status",
        "completions",
        "man",
    ] {
        home.run(&[command, "--help"]).assert_exit(0).assert_output("--config");
    }
    home.run(&["stats"]).assert_exit(2).assert_output("status");
    home.run(&["status", "--jsn"]).assert_exit(2).assert_output("--json");
    home.run(&["key", "cool"]).assert_exit(2).assert_output("<KEY>");
}

#[test]
fn config_is_created_shown_edited_and_checked() {
    let home = CliHome::new();
    assert_eq!(
        home.run(&["config", "path"]).assert_exit(0).out.trim(),
        home.config().to_str().unwrap()
    );
    home.run(&["config", "check"])
        .assert_exit(3)
        .assert_output("no such file")
        .assert_output("config init");
    home.run(&["config", "init"]).assert_exit(0);
    let example = fs::read_to_string(home.config()).unwrap();
    home.run(&["config", "init"]).assert_exit(1).assert_output("exists");
    assert_eq!(fs::read_to_string(home.config()).unwrap(), example);
    home.run(&["config", "check"]).assert_exit(0).assert_output("ok");

    home.write(&format!("# kept\n{UPSTREAM}"));
    home.run(&["config", "set", "server.max_requests", "7"]).assert_exit(0);
    home.run(&["config", "set", "upstream.box.priority", "3"]).assert_exit(0);
    assert_eq!(home.run(&["config", "get", "server.max_requests"]).assert_exit(0).out.trim(), "7");
    assert_eq!(home.run(&["config", "get", "timeouts.connect"]).assert_exit(0).out.trim(), "10s");
    let text = fs::read_to_string(home.config()).unwrap();
    assert!(
        text.starts_with("# kept\n") && text.contains("# mine") && text.contains("priority = 3"),
        "{text}"
    );
    home.run(&["config", "unset", "server.max_requests"]).assert_exit(0);
    assert_eq!(
        home.run(&["config", "get", "server.max_requests"]).assert_exit(0).out.trim(),
        "512"
    );
    home.run(&["config", "set", "server.max_requsts", "7"])
        .assert_exit(3)
        .assert_output("max_requests");
    home.run(&["config", "set", "timeouts.idle", "10"]).assert_exit(3).assert_output("idle");
    home.run(&["config", "get", "server.nonsense"]).assert_exit(1);
    let after = fs::read_to_string(home.config()).unwrap();
    assert!(
        !after.contains("requsts") && !after.contains("idle") && after.contains("priority = 3"),
        "refused edits change nothing: {after}"
    );
}

#[test]
fn invalid_config_is_exit_code_3_with_every_problem() {
    let home = CliHome::new();
    home.write("[server]\nmax_conections = 5\n[timeouts]\nidle = \"10\"\n[[upstream]]\nname = \"a\"\nbase_url = \"ftp://x\"\n");
    home.run(&["config", "check"])
        .assert_exit(3)
        .assert_output(":2:")
        .assert_output("max_connections")
        .assert_output(":4:")
        .assert_output(":7:");
    home.run(&["upstream", "list"]).assert_exit(3);
    home.write("[broken\n");
    home.run(&["config", "show"]).assert_exit(3).assert_output("config.toml:1");
}

#[test]
fn unresolved_references_are_named_without_values() {
    let home = CliHome::new();
    let open = home.path().join("open.key");
    fs::write(&open, "sk-CANARY-0123456789").unwrap();
    #[cfg(unix)]
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    home.write(&format!(
        "{UPSTREAM}keys = [\"env:NOT_SET_ANYWHERE\", \"file:{}\", \"file:/nowhere/missing.key\"]\n",
        open.display()
    ));

    home.run(&["config", "check"])
        .assert_output("NOT_SET_ANYWHERE")
        .assert_output(open.to_str().unwrap())
        .assert_output("/nowhere/missing.key")
        .assert_hidden("CANARY");
}

#[test]
fn key_on_the_command_line_is_refused_and_not_printed() {
    let home = CliHome::new();
    for args in [
        &["key", "add", "openai", "sk-CANARY0123456789abcdef"][..],
        &["key", "add", "sk-CANARY0123456789abcdef"],
        &["key", "add", "openai", "--key", "sk-CANARY0123456789abcdef"],
    ] {
        home.run(args).assert_exit(2).assert_output("--stdin").assert_hidden("CANARY");
    }
    assert!(!home.config().exists());
}

#[test]
fn invalid_key_is_refused_before_any_write() {
    let home = CliHome::new();
    for (input, why) in [
        (&b""[..], "empty"),
        (b"one\ntwo\n", "more than one line"),
        (b"sk-\x00\xff", "binary"),
        (&[b'x'; 1 << 20], "16 KiB"),
        (b"aip-0123456789012345\n", "client key"),
    ] {
        home.run_with_stdin(&["key", "add", "openai", "--stdin", "--no-check"], input)
            .assert_exit(1)
            .assert_output(why);
    }
    home.run(&["key", "add", "openai"]).assert_exit(1).assert_output("--stdin");
    assert!(!home.config().exists());
}

#[test]
fn missing_keyring_error_names_the_vault() {
    let home = CliHome::new();
    home.run_with_stdin(
        &["key", "add", "openai", "--stdin", "--no-check"],
        b"sk-CANARY0123456789abcdef\n",
    )
    .assert_exit(1)
    .assert_output("--vault")
    .assert_hidden("CANARY");
    assert!(!home.config().exists());
}

#[cfg(unix)]
#[test]
fn key_is_never_overwritten_without_confirmation() {
    let home = CliHome::new();
    let passphrase = home.path().join("passphrase");
    fs::write(&passphrase, "a good one\n").unwrap();
    fs::set_permissions(&passphrase, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let add = |key: &str, args: &[&str]| {
        let mut command =
            home.command(&[&["key", "add"], args, &["--vault", "--no-check", "--stdin"]].concat());
        command
            .env("AIPROXY_KEYS_PASSPHRASE_FILE", &passphrase)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdin.take().unwrap().write_all(key.as_bytes()));
        CommandResult::from(child.wait_with_output().unwrap()).assert_hidden("CANARY")
    };
    add("sk-CANARY-one", &["openai"])
        .assert_exit(0)
        .assert_output("openai/main (sk-")
        .assert_output("stored");

    // The next key gets a new label; adding the same key again changes nothing.
    add("sk-CANARY-two", &["openai"])
        .assert_exit(0)
        .assert_output("openai/key2 (sk-")
        .assert_output("openai/main is unchanged");
    add("sk-CANARY-one", &["openai"])
        .assert_exit(0)
        .assert_output("openai/main already contains this key")
        .assert_output("nothing was changed");
    add("sk-CANARY-two", &["openai/other"])
        .assert_exit(0)
        .assert_output("openai/key2 already contains this key");
    add("sk-CANARY-three", &["openai/b"]).assert_exit(0).assert_output("openai/b (sk-");
    assert!(
        fs::read_to_string(home.config())
            .unwrap()
            .contains("[\"vault:openai/main\", \"vault:openai/key2\", \"vault:openai/b\"]")
    );

    // A label that is in use needs a confirmation.
    for words in [&["openai/main"][..], &["openai", "--label", "main"]] {
        add("sk-CANARY-four", words)
            .assert_exit(1)
            .assert_output("openai/main contains another key")
            .assert_output("--yes");
    }
    add("sk-CANARY-one", &["openai/main"])
        .assert_exit(0)
        .assert_output("already contains this key");
    add("sk-CANARY-four", &["openai/main", "--yes"])
        .assert_exit(0)
        .assert_output("openai/main (sk-")
        .assert_output("replaced");
    add("sk-CANARY-five", &["openai/a", "--label", "b"])
        .assert_exit(2)
        .assert_output("two different labels");
    add("sk-CANARY-five", &["opnai/a"])
        .assert_exit(1)
        .assert_output("`opnai` is neither an upstream")
        .assert_output("`openai`");
    add("sk-CANARY-five", &["openai/sk-CANARY0123456789abcdef"])
        .assert_exit(2)
        .assert_output("--stdin");
}

#[test]
fn upstreams_models_and_projects_are_edited_in_the_config() {
    let home = CliHome::new();
    home.run(&[
        "upstream",
        "add",
        "box",
        "--base-url",
        "http://127.0.0.1:9/v1",
        "--dialect",
        "openai",
    ])
    .assert_exit(0);
    home.run(&[
        "upstream",
        "add",
        "box",
        "--base-url",
        "http://127.0.0.1:9/v1",
        "--dialect",
        "openai",
    ])
    .assert_exit(1)
    .assert_output("box");
    home.run(&["upstream", "set", "box", "priority=3", "models=[\"a\", \"b-*\"]"]).assert_exit(0);
    home.run(&["upstream", "set", "box", "priorty=3"]).assert_exit(3).assert_output("priority");
    home.run(&["upstream", "show", "box"])
        .assert_exit(0)
        .assert_output("127.0.0.1:9/v1")
        .assert_output("b-*");
    home.run(&["upstream", "disable", "box"]).assert_exit(0);
    home.run(&["upstream", "list", "--json"]).assert_exit(0).assert_output("\"box\"");
    home.run(&["upstream", "enable", "box"]).assert_exit(0);
    home.run(&["upstream", "show", "bx"]).assert_exit(1).assert_output("box");

    home.run(&["model", "add", "fast", "box:a"]).assert_exit(0);
    home.run(&["model", "add", "auto", "box:a", "box:b-1"]).assert_exit(0);
    home.run(&["model", "list"]).assert_exit(0).assert_output("fast").assert_output("auto");
    home.run(&["model", "show", "auto"]).assert_exit(0).assert_output("box:b-1");
    home.run(&["model", "remove", "fast", "--yes"]).assert_exit(0);
    home.run(&["model", "show", "fast"]).assert_exit(1);

    home.run(&["project", "list"])
        .assert_exit(0)
        .assert_output("default")
        .assert_output("created at first use");
    home.run(&["project", "show"])
        .assert_exit(0)
        .assert_output("client.key")
        .assert_output("rpm             –");
    home.run(&["project", "list"])
        .assert_exit(0)
        .assert_output("client.key")
        .assert_hidden("created at first use");
    home.run(&[
        "project", "add", "ide", "--models", "fast,b-*", "--rpm", "60", "--budget", "5/year",
    ])
    .assert_exit(2)
    .assert_output("5/day");
    home.run(&[
        "project",
        "add",
        "ide",
        "--models",
        "fast,b-*",
        "--rpm",
        "60",
        "--budget",
        "5/day",
        "--budget",
        "$9.5/month",
    ])
    .assert_exit(0);
    home.run(&["project", "list"])
        .assert_exit(0)
        .assert_output("ide")
        .assert_output("default")
        .assert_output("$5 per day, $9.50 per month");
    let shown = home.run(&["project", "show", "ide"]).assert_exit(0).assert_hidden("aip-0");
    assert!(!shown.out.contains("export"), "{shown:?}");
    let key = home.run(&["project", "show", "ide", "--reveal"]).assert_exit(0).out;
    assert!(key.contains("aip-"), "{key}");
    home.run(&["project", "rotate", "ide", "--yes"]).assert_exit(0);
    assert_ne!(home.run(&["project", "show", "ide", "--reveal"]).assert_exit(0).out, key);
    home.run(&["project", "remove", "ide", "--yes"]).assert_exit(0);
    home.run(&["project", "show", "ide"]).assert_exit(1);
    home.run(&["upstream", "remove", "box"]).assert_exit(1).assert_output("--yes");
    home.run(&["model", "remove", "auto", "--yes"]).assert_exit(0);
    home.run(&["upstream", "remove", "box", "--yes"]).assert_exit(0);
    assert!(!fs::read_to_string(home.config()).unwrap().contains("box"));
}

#[test]
fn env_prints_valid_shell_lines() {
    let home = CliHome::new();
    home.write("");
    let lines =
        home.run(&["env"]).assert_exit(0).assert_output("start it with `aiproxy serve`").out;
    let script = format!("{lines}echo \"$OPENAI_BASE_URL $ANTHROPIC_BASE_URL $OPENAI_API_KEY\"");
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.starts_with("http://127.0.0.1:8642/v1 http://127.0.0.1:8642 aip-"), "{shown}");
    assert_eq!(home.run(&["env"]).out, lines, "the key is made once");
    home.run(&["env", "nobody"]).assert_exit(1).assert_output("nobody");
}

#[test]
fn commands_report_a_missing_proxy() {
    let home = CliHome::new();
    // A test socket occupies this port, so that no other proxy can answer there.
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    home.write(&format!("[server]\nlisten = \"{}\"\n", held.local_addr().unwrap()));
    for args in [
        &["status"][..],
        &["stop"],
        &["reload"],
        &["route", "x"],
        &["log"],
        &["ask", "x", "hi"],
        &["key", "warm", "--all"],
    ] {
        home.run(args).assert_exit(4).assert_output("another program listens");
    }
    // A command that works without a proxy reports the same.
    home.run(&["model", "list"])
        .assert_exit(0)
        .assert_output("another program listens")
        .assert_hidden("the proxy is not running");
    drop(held);
    // A port where no server listens. A recently freed port might belong to another test by now.
    home.write("[server]\nlisten = \"127.0.0.1:1\"\n");
    home.run(&["status", "--json"])
        .assert_exit(4)
        .assert_output("not running")
        .assert_output("aiproxy serve");
    home.run(&["status", "--url", "127.0.0.1:1"]).assert_exit(2).assert_output("AIPROXY_TOKEN");
    home.run(&["model", "list"]).assert_exit(0).assert_output("note: the proxy is not running, so");
    // `--data-dir` names a file instead of a folder.
    let file = home.config();
    let mut command = Command::new(env!("CARGO_BIN_EXE_aiproxy"));
    command.env_clear().arg("status").arg("--config").arg(&file).arg("--data-dir").arg(&file);
    CommandResult::from(command.output().unwrap())
        .assert_exit(1)
        .assert_output("a file, not a folder");
}

#[test]
fn completions_and_man_pages_cover_every_command() {
    let home = CliHome::new();
    for shell in ["bash", "zsh", "fish"] {
        home.run(&["completions", shell]).assert_exit(0).assert_output("aiproxy __complete");
    }
    for shell in ["powershell", "elvish"] {
        home.run(&["completions", shell]).assert_exit(0).assert_output("upstream");
    }
    let dir = home.path().join("man");
    home.run(&["man", dir.to_str().unwrap()]).assert_exit(0);
    let pages: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    for page in ["aiproxy.1", "aiproxy-key-add.1", "aiproxy-serve.1"] {
        assert!(pages.iter().any(|p| p == page), "{page} is missing: {pages:?}");
    }
}

#[cfg(unix)]
#[test]
fn closed_pipe_ends_a_command_silently() {
    let home = CliHome::new();
    let mut child = home
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
        (Some(0), "")
    );
}

#[test]
fn commands_query_explain_and_control_a_running_proxy() {
    let proxy = Setup::new()
        .config("[aliases]\nfast = \"demo:echo\"")
        .config(&format!(
            "{}keys = [\"env:K_NONE\"]\nmax_concurrency = 3",
            UPSTREAM.replace("box", "bare").replace('*', "only-here")
        ))
        .upstream_at("box", "http://127.0.0.1:9/v1", &["work"], "priority = 20")
        .start();
    let run = |args: &[&str]| {
        CommandResult::from(proxy.home.command().args(args).stdin(Stdio::null()).output().unwrap())
    };

    // A missing key: the reason is in its row, the fix is below the table, and both appear when the
    // key is tested.
    let table = run(&["status"])
        .assert_exit(0)
        .assert_output("K_NONE is not set")
        .assert_output("set K_NONE where aiproxy starts")
        .assert_output("0 ended\n")
        .out;
    let row = table.lines().find(|line| line.starts_with("bare/K_NONE")).unwrap();
    assert!(row.ends_with("K_NONE is not set  env:K_NONE") && row.len() < 100, "{row}");
    run(&["key", "test", "bare"])
        .assert_exit(1)
        .assert_output("K_NONE is not set; set K_NONE")
        .assert_output("`aiproxy key add bare`");
    run(&["upstream", "test", "bare"]).assert_exit(1).assert_output("K_NONE is not set");
    run(&["key", "list", "bare"])
        .assert_exit(0)
        .assert_output("bare/K_NONE")
        .assert_hidden("box/work");
    run(&["key", "list", "bre"]).assert_exit(1).assert_output("bare");
    let shown = run(&["upstream", "show", "bare"])
        .assert_exit(0)
        .assert_output("openai at http://127.0.0.1:9/v1")
        .assert_output("3 concurrent requests");
    shown
        .assert_output("no usable key")
        .assert_output("bare/K_NONE")
        .assert_output("only-here")
        .assert_output("no requests in the last 15 minutes");

    assert_eq!(
        run(&["ask", "fast", "hello there", "--project", "it"]).assert_exit(0).out.trim(),
        "hello there"
    );
    run(&["ask", "nobody-has-this:x", "hi", "--project", "it", "--json"]).assert_exit(1);
    run(&["route", "fast", "--project", "it"])
        .assert_exit(0)
        .assert_output("demo")
        .assert_output("echo")
        .assert_output("→");
    run(&["log", "model:fast"])
        .assert_exit(0)
        .assert_output("200")
        .assert_output("fast")
        .assert_hidden("nobody-has-this");
    run(&["log", ">soon"]).assert_exit(2).assert_output("status:5xx");
    run(&["log", "status:9xx"]).assert_exit(2).assert_output("such as 429");
    run(&["log", "export", "porject:it"]).assert_exit(2).assert_output("`project:`");
    let nothing = run(&["log", "nosuchfield:x"])
        .assert_exit(0)
        .assert_output("nothing matches")
        .assert_output("fields are body:");
    assert_eq!(nothing.out, "");
    assert_eq!(run(&["log", "nosuchfield:x", "--json"]).assert_exit(0).err, "");
    let none = run(&["log", "-n", "0"]).assert_exit(0);
    assert_eq!((none.out, none.err), (String::new(), String::new()));
    run(&["log", "show", "last"]).assert_exit(0).assert_output("request");
    run(&["ask", "box:m", "hi", "--project", "it"]).assert_exit(1);
    run(&["upstream", "show", "box"])
        .assert_exit(0)
        .assert_output("FAILED AT")
        .assert_output("refused");
    let facts: serde_json::Value =
        serde_json::from_str(&run(&["upstream", "show", "box", "--json"]).assert_exit(0).out)
            .unwrap();
    assert_eq!(
        (&facts["failures"][0]["key"], &facts["keys"][0]["reference"]),
        (&"work".into(), &facts["keys"][0]["reference"]),
        "{facts}"
    );
    run(&["upstream", "warm", "box"]).assert_exit(0);
    run(&["key", "cool", "box", "--for", "5m"]).assert_exit(0).assert_output("box/work");
    run(&["key", "list"]).assert_exit(0).assert_output("cooling");
    run(&["key", "warm", "box/work"]).assert_exit(0);
    run(&["key", "cool", "bx"]).assert_exit(1).assert_output("no key");
    let status: serde_json::Value =
        serde_json::from_str(&run(&["status", "--json"]).assert_exit(0).out).unwrap();
    let state = |key: &str| {
        status["keys"].as_array().unwrap().iter().find(|row| row["label"] == key).unwrap()["state"]
            .clone()
    };
    assert_eq!(
        (&state("work"), &status["requests"]["running"]),
        (&"ok".into(), &0.into()),
        "{status}"
    );
    run(&["stop"]).assert_exit(0);
    run(&["status"]).assert_exit(4);
}
