//! The program as a person runs it: words in, text and exit code out, in a home of its own.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::support::proxy::Setup;

/// A home without anything of the machine's: no keyring, no keys in the environment.
struct Home(TempDir);

impl Home {
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

    fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    fn fed(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses may be gone before it has read everything.
        drop(child.stdin.take().unwrap().write_all(input));
        Ran::from(child.wait_with_output().unwrap())
    }
}

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    #[track_caller]
    fn says(self, part: &str) -> Self {
        assert!(
            self.out.contains(part) || self.err.contains(part),
            "{part:?} is missing: {self:#?}"
        );
        self
    }

    #[track_caller]
    fn keeps_quiet_about(self, part: &str) -> Self {
        assert!(
            !self.out.contains(part) && !self.err.contains(part),
            "{part:?} is told: {self:#?}"
        );
        self
    }
}

const UPSTREAM: &str = "[[upstream]]\nname = \"box\" # mine\nbase_url = \"http://127.0.0.1:9/v1\"\ndialect = \"openai\"\nmodels = [\"*\"]\n";

#[test]
fn help_is_complete_and_a_typing_mistake_gets_a_suggestion() {
    let home = Home::new();
    home.run(&[]).ends(0).says("Exit codes").says("aiproxy serve");
    home.run(&["--version"]).ends(0).says(env!("CARGO_PKG_VERSION"));
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
        home.run(&[command, "--help"]).ends(0).says("--config");
    }
    home.run(&["stats"]).ends(2).says("status");
    home.run(&["status", "--jsn"]).ends(2).says("--json");
    home.run(&["key", "cool"]).ends(2).says("<KEY>");
}

#[test]
fn the_config_is_made_shown_edited_and_checked() {
    let home = Home::new();
    assert_eq!(home.run(&["config", "path"]).ends(0).out.trim(), home.config().to_str().unwrap());
    home.run(&["config", "check"]).ends(3).says("no such file").says("config init");
    home.run(&["config", "init"]).ends(0);
    let example = fs::read_to_string(home.config()).unwrap();
    home.run(&["config", "init"]).ends(1).says("exists");
    assert_eq!(fs::read_to_string(home.config()).unwrap(), example);
    home.run(&["config", "check"]).ends(0).says("ok");

    home.write(&format!("# kept\n{UPSTREAM}"));
    home.run(&["config", "set", "server.max_requests", "7"]).ends(0);
    home.run(&["config", "set", "upstream.box.priority", "3"]).ends(0);
    assert_eq!(home.run(&["config", "get", "server.max_requests"]).ends(0).out.trim(), "7");
    assert_eq!(home.run(&["config", "get", "timeouts.connect"]).ends(0).out.trim(), "10s");
    let text = fs::read_to_string(home.config()).unwrap();
    assert!(
        text.starts_with("# kept\n") && text.contains("# mine") && text.contains("priority = 3"),
        "{text}"
    );
    home.run(&["config", "unset", "server.max_requests"]).ends(0);
    assert_eq!(home.run(&["config", "get", "server.max_requests"]).ends(0).out.trim(), "512");
    home.run(&["config", "set", "server.max_requsts", "7"]).ends(3).says("max_requests");
    home.run(&["config", "set", "timeouts.idle", "10"]).ends(3).says("idle");
    home.run(&["config", "get", "server.nonsense"]).ends(1);
    let after = fs::read_to_string(home.config()).unwrap();
    assert!(
        !after.contains("requsts") && !after.contains("idle") && after.contains("priority = 3"),
        "refused edits change nothing: {after}"
    );
}

#[test]
fn a_broken_config_is_exit_code_3_with_every_problem() {
    let home = Home::new();
    home.write("[server]\nmax_conections = 5\n[timeouts]\nidle = \"10\"\n[[upstream]]\nname = \"a\"\nbase_url = \"ftp://x\"\n");
    home.run(&["config", "check"])
        .ends(3)
        .says(":2:")
        .says("max_connections")
        .says(":4:")
        .says(":7:");
    home.run(&["upstream", "list"]).ends(3);
    home.write("[broken\n");
    home.run(&["config", "show"]).ends(3).says("config.toml:1");
}

#[test]
fn references_that_resolve_to_nothing_are_named_and_never_shown() {
    let home = Home::new();
    let open = home.path().join("open.key");
    fs::write(&open, "sk-CANARY-0123456789").unwrap();
    #[cfg(unix)]
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    home.write(&format!(
        "{UPSTREAM}keys = [\"env:NOT_SET_ANYWHERE\", \"file:{}\", \"file:/nowhere/missing.key\"]\n",
        open.display()
    ));

    home.run(&["config", "check"])
        .says("NOT_SET_ANYWHERE")
        .says(open.to_str().unwrap())
        .says("/nowhere/missing.key")
        .keeps_quiet_about("CANARY");
}

#[test]
fn a_key_on_the_command_line_is_refused_and_not_repeated() {
    let home = Home::new();
    for args in [
        &["key", "add", "openai", "sk-CANARY0123456789abcdef"][..],
        &["key", "add", "sk-CANARY0123456789abcdef"],
        &["key", "add", "openai", "--key", "sk-CANARY0123456789abcdef"],
    ] {
        home.run(args).ends(2).says("--stdin").keeps_quiet_about("CANARY");
    }
    assert!(!home.config().exists());
}

#[test]
fn what_is_no_key_is_refused_before_anything_is_written() {
    let home = Home::new();
    for (input, why) in [
        (&b""[..], "empty"),
        (b"one\ntwo\n", "more than one line"),
        (b"sk-\x00\xff", "binary"),
        (&[b'x'; 1 << 20], "16 KiB"),
        (b"aip-0123456789012345\n", "client key"),
    ] {
        home.fed(&["key", "add", "openai", "--stdin", "--no-check"], input).ends(1).says(why);
    }
    home.run(&["key", "add", "openai"]).ends(1).says("--stdin");
    assert!(!home.config().exists());
}

#[test]
fn without_a_keyring_the_error_names_the_vault() {
    let home = Home::new();
    home.fed(&["key", "add", "openai", "--stdin", "--no-check"], b"sk-CANARY0123456789abcdef\n")
        .ends(1)
        .says("--vault")
        .keeps_quiet_about("CANARY");
    assert!(!home.config().exists());
}

#[cfg(unix)]
#[test]
fn a_key_is_never_overwritten_unasked() {
    let home = Home::new();
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
        Ran::from(child.wait_with_output().unwrap()).keeps_quiet_about("CANARY")
    };
    add("sk-CANARY-one", &["openai"]).ends(0).says("openai/main (sk-").says("stored");

    // The next has a place of its own, and the same one none.
    add("sk-CANARY-two", &["openai"]).ends(0).says("openai/key2 (sk-").says("openai/main stays");
    add("sk-CANARY-one", &["openai"])
        .ends(0)
        .says("openai/main is this very key")
        .says("nothing was changed");
    add("sk-CANARY-two", &["openai/other"]).ends(0).says("openai/key2 is this very key");
    add("sk-CANARY-three", &["openai/b"]).ends(0).says("openai/b (sk-");
    assert!(
        fs::read_to_string(home.config())
            .unwrap()
            .contains("[\"vault:openai/main\", \"vault:openai/key2\", \"vault:openai/b\"]")
    );

    // A label that is taken is a question.
    for words in [&["openai/main"][..], &["openai", "--label", "main"]] {
        add("sk-CANARY-four", words).ends(1).says("openai/main holds another key").says("--yes");
    }
    add("sk-CANARY-one", &["openai/main"]).ends(0).says("this very key");
    add("sk-CANARY-four", &["openai/main", "--yes"])
        .ends(0)
        .says("openai/main (sk-")
        .says("replaced");
    add("sk-CANARY-five", &["openai/a", "--label", "b"]).ends(2).says("two labels");
    add("sk-CANARY-five", &["opnai/a"]).ends(1).says("no upstream `opnai`").says("`openai`");
    add("sk-CANARY-five", &["openai/sk-CANARY0123456789abcdef"]).ends(2).says("--stdin");
}

#[test]
fn upstreams_models_and_projects_are_rows_of_the_config() {
    let home = Home::new();
    home.run(&[
        "upstream",
        "add",
        "box",
        "--base-url",
        "http://127.0.0.1:9/v1",
        "--dialect",
        "openai",
    ])
    .ends(0);
    home.run(&[
        "upstream",
        "add",
        "box",
        "--base-url",
        "http://127.0.0.1:9/v1",
        "--dialect",
        "openai",
    ])
    .ends(1)
    .says("box");
    home.run(&["upstream", "set", "box", "priority=3", "models=[\"a\", \"b-*\"]"]).ends(0);
    home.run(&["upstream", "set", "box", "priorty=3"]).ends(3).says("priority");
    home.run(&["upstream", "show", "box"]).ends(0).says("127.0.0.1:9/v1").says("b-*");
    home.run(&["upstream", "disable", "box"]).ends(0);
    home.run(&["upstream", "list", "--json"]).ends(0).says("\"box\"");
    home.run(&["upstream", "enable", "box"]).ends(0);
    home.run(&["upstream", "show", "bx"]).ends(1).says("box");

    home.run(&["model", "add", "fast", "box:a"]).ends(0);
    home.run(&["model", "add", "auto", "box:a", "box:b-1"]).ends(0);
    home.run(&["model", "list"]).ends(0).says("fast").says("auto");
    home.run(&["model", "show", "auto"]).ends(0).says("box:b-1");
    home.run(&["model", "remove", "fast", "--yes"]).ends(0);
    home.run(&["model", "show", "fast"]).ends(1);

    home.run(&["project", "list"]).ends(0).says("default").says("made at first use");
    home.run(&["project", "show"]).ends(0).says("client.key").says("rpm             –");
    home.run(&["project", "list"])
        .ends(0)
        .says("client.key")
        .keeps_quiet_about("made at first use");
    home.run(&[
        "project", "add", "ide", "--models", "fast,b-*", "--rpm", "60", "--budget", "5/year",
    ])
    .ends(2)
    .says("5/day");
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
    .ends(0);
    home.run(&["project", "list"])
        .ends(0)
        .says("ide")
        .says("default")
        .says("$5.000 per day, $9.500 per month");
    let shown = home.run(&["project", "show", "ide"]).ends(0).keeps_quiet_about("aip-0");
    assert!(!shown.out.contains("export"), "{shown:?}");
    let key = home.run(&["project", "show", "ide", "--reveal"]).ends(0).out;
    assert!(key.contains("aip-"), "{key}");
    home.run(&["project", "rotate", "ide", "--yes"]).ends(0);
    assert_ne!(home.run(&["project", "show", "ide", "--reveal"]).ends(0).out, key);
    home.run(&["project", "remove", "ide", "--yes"]).ends(0);
    home.run(&["project", "show", "ide"]).ends(1);
    home.run(&["upstream", "remove", "box"]).ends(1).says("--yes");
    home.run(&["model", "remove", "auto", "--yes"]).ends(0);
    home.run(&["upstream", "remove", "box", "--yes"]).ends(0);
    assert!(!fs::read_to_string(home.config()).unwrap().contains("box"));
}

#[test]
fn env_prints_lines_that_a_shell_understands() {
    let home = Home::new();
    home.write("");
    let lines = home.run(&["env"]).ends(0).says("start it with `aiproxy serve`").out;
    let script = format!("{lines}echo \"$OPENAI_BASE_URL $ANTHROPIC_BASE_URL $OPENAI_API_KEY\"");
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.starts_with("http://127.0.0.1:8642/v1 http://127.0.0.1:8642 aip-"), "{shown}");
    assert_eq!(home.run(&["env"]).out, lines, "the key is made once");
    home.run(&["env", "nobody"]).ends(1).says("nobody");
}

#[test]
fn commands_that_need_a_proxy_say_that_none_runs() {
    let home = Home::new();
    // A port of our own, held, so that nobody else's proxy is found there and the answer is known.
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
        home.run(args).ends(4).says("something else answers");
    }
    // A command that does without a proxy says the same.
    home.run(&["model", "list"])
        .ends(0)
        .says("something else answers")
        .keeps_quiet_about("the proxy does not run");
    drop(held);
    // Where nobody listens: a port that was just free may be another test's by now.
    home.write("[server]\nlisten = \"127.0.0.1:1\"\n");
    home.run(&["status", "--json"]).ends(4).says("not running").says("aiproxy serve");
    home.run(&["status", "--url", "127.0.0.1:1"]).ends(2).says("AIPROXY_TOKEN");
    home.run(&["model", "list"]).ends(0).says("note: the proxy does not run, so");
    // The data dir that a command names is a folder.
    let file = home.config();
    let mut command = Command::new(env!("CARGO_BIN_EXE_aiproxy"));
    command.env_clear().arg("status").arg("--config").arg(&file).arg("--data-dir").arg(&file);
    Ran::from(command.output().unwrap()).ends(1).says("a file, not a folder");
}

#[test]
fn completions_and_man_pages_cover_every_command() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        home.run(&["completions", shell]).ends(0).says("upstream");
    }
    let dir = home.path().join("man");
    home.run(&["man", dir.to_str().unwrap()]).ends(0);
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
fn a_closed_pipe_ends_a_command_quietly() {
    let home = Home::new();
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
fn a_running_proxy_is_asked_explained_and_acted_upon() {
    let proxy = Setup::new()
        .config("[aliases]\nfast = \"demo:echo\"")
        .config(&format!(
            "{}keys = [\"env:K_NONE\"]\nmax_concurrency = 3",
            UPSTREAM.replace("box", "bare").replace('*', "only-here")
        ))
        .upstream_at("box", "http://127.0.0.1:9/v1", &["work"], "priority = 20")
        .start();
    let run = |args: &[&str]| {
        Ran::from(proxy.home.command().args(args).stdin(Stdio::null()).output().unwrap())
    };

    // A key that is missing: why in its row, what to do once below, and the same where it is tried.
    let table = run(&["status"])
        .ends(0)
        .says("K_NONE is not set")
        .says("set K_NONE where aiproxy starts")
        .says("0 ended\n")
        .out;
    let row = table.lines().find(|line| line.starts_with("bare/K_NONE")).unwrap();
    assert!(row.ends_with("K_NONE is not set  env:K_NONE") && row.len() < 100, "{row}");
    run(&["key", "test", "bare"])
        .ends(1)
        .says("K_NONE is not set; set K_NONE")
        .says("`aiproxy key add bare`");
    run(&["upstream", "test", "bare"]).ends(1).says("K_NONE is not set");
    run(&["key", "list", "bare"]).ends(0).says("bare/K_NONE").keeps_quiet_about("box/work");
    run(&["key", "list", "bre"]).ends(1).says("bare");
    let shown = run(&["upstream", "show", "bare"])
        .ends(0)
        .says("openai at http://127.0.0.1:9/v1")
        .says("3 requests at once");
    shown.says("healthy").says("bare/K_NONE").says("only-here").says("nothing was asked of it");

    assert_eq!(
        run(&["ask", "fast", "hello there", "--project", "it"]).ends(0).out.trim(),
        "hello there"
    );
    run(&["ask", "nobody-has-this:x", "hi", "--project", "it", "--json"]).ends(1);
    run(&["route", "fast", "--project", "it"]).ends(0).says("demo").says("echo").says("→");
    run(&["log", "model:fast"])
        .ends(0)
        .says("200")
        .says("fast")
        .keeps_quiet_about("nobody-has-this");
    run(&["log", ">soon"]).ends(2).says("status:5xx");
    run(&["log", "status:9xx"]).ends(2).says("a status is");
    run(&["log", "export", "porject:it"]).ends(2).says("`project:`");
    let nothing =
        run(&["log", "nosuchfield:x"]).ends(0).says("nothing matches").says("fields are client:");
    assert_eq!(nothing.out, "");
    assert_eq!(run(&["log", "nosuchfield:x", "--json"]).ends(0).err, "");
    let none = run(&["log", "-n", "0"]).ends(0);
    assert_eq!((none.out, none.err), (String::new(), String::new()));
    run(&["log", "show", "last"]).ends(0).says("request");
    run(&["ask", "box:m", "hi", "--project", "it"]).ends(1);
    run(&["upstream", "show", "box"]).ends(0).says("FAILED AT").says("refused");
    let facts: serde_json::Value =
        serde_json::from_str(&run(&["upstream", "show", "box", "--json"]).ends(0).out).unwrap();
    assert_eq!(
        (&facts["failures"][0]["key"], &facts["keys"][0]["reference"]),
        (&"work".into(), &facts["keys"][0]["reference"]),
        "{facts}"
    );
    run(&["upstream", "warm", "box"]).ends(0);
    run(&["key", "cool", "box", "--for", "5m"]).ends(0).says("box/work");
    run(&["key", "list"]).ends(0).says("cooling");
    run(&["key", "warm", "box/work"]).ends(0);
    run(&["key", "cool", "bx"]).ends(1).says("no key");
    let status: serde_json::Value =
        serde_json::from_str(&run(&["status", "--json"]).ends(0).out).unwrap();
    let state = |key: &str| {
        status["keys"].as_array().unwrap().iter().find(|row| row["label"] == key).unwrap()["state"]
            .clone()
    };
    assert_eq!(
        (&state("work"), &status["requests"]["running"]),
        (&"ok".into(), &0.into()),
        "{status}"
    );
    run(&["stop"]).ends(0);
    run(&["status"]).ends(4);
}
