//! Completions in the real shells: a line is typed in a terminal, Tab is pressed, and the names of
//! the config appear. A shell that is not installed is skipped.

use std::path::Path;

use crate::support::{home::Home, pty::Terminal};

const CONFIG: &str = r#"
[discover]
env = false
local = false
[[upstream]]
name = "zz-upstream"
base_url = "http://127.0.0.1:9/v1"
dialect = "openai"
models = ["qq-model-one"]
keys = [{ ref = "sk-literal-8d1f0c77b2", label = "night" }]
[[project]]
name = "pp-project"
key = "env:PP_KEY"
[aliases]
ww-alias = "qq-model-one"
"#;

/// The beginning of a line and what Tab makes of its end.
const LINES: &[(&str, &str)] = &[
    ("aiproxy upstream show zz", "show zz-upstream"),
    ("aiproxy key warm zz-upstream/ni", "warm zz-upstream/night"),
    ("aiproxy route qq", "route qq-model-one"),
    ("aiproxy route zz-upstream:qq", "route zz-upstream:qq-model-one"),
    ("aiproxy ask ww", "ask ww-alias"),
    ("aiproxy project show pp", "show pp-project"),
    ("aiproxy upstream add x --dialect=anth", "--dialect=anthropic"),
    ("aiproxy config get upstream.zz-upstream.prior", "get upstream.zz-upstream.priority"),
    ("aiproxy compl", "aiproxy completions"),
    ("aiproxy --config oth", "--config other.toml"),
];

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Types each line in the shell. `load` loads the completions and sets a prompt that ends in `READY>`.
fn complete_in(shell: &str, args: &[&str], load: &str) {
    if !is_installed(shell) {
        eprintln!("skipped: {shell} is not installed");
        return;
    }
    let mut home = Home::new();
    home.write_config(CONFIG);
    std::fs::write(home.path().join("other.toml"), "").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_aiproxy")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    home.set("PATH", &format!("{}:{path}", program.display()));
    let mut terminal = Terminal::run(Path::new(shell), &home, args, 24, 120);
    terminal.press(&format!("{load}\r"));
    for (line, want) in LINES {
        // A cleared screen, so that only this line is on it.
        terminal.press("clear\r");
        terminal.wait_for("a fresh prompt", |screen| screen.trim() == "READY>");
        terminal.press(&format!("{line}\t"));
        let screen = terminal.wait_for_text(want);
        assert!(!screen.contains("sk-literal"), "{screen}");
        // Ctrl-U removes the line; Ctrl-C could arrive before the shell reads the next line.
        terminal.press("\u{15}");
    }
}

#[test]
fn bash_completes_names_of_the_config() {
    let load = "bind 'set bell-style none'; PS1='READY> '; source <(aiproxy completions bash)";
    complete_in("bash", &["--norc", "--noprofile", "-i"], load);
}

#[test]
fn zsh_completes_names_of_the_config() {
    let load = "PS1='READY> '; unsetopt zle_bracketed_paste beep; autoload -U compinit; \
                compinit -u -D; source <(aiproxy completions zsh)";
    complete_in("zsh", &["-f", "-i"], load);
}

#[test]
fn fish_completes_names_of_the_config() {
    let load = "function fish_prompt; echo -n 'READY> '; end; set -g fish_greeting; \
                set -g fish_autosuggestion_enabled 0; aiproxy completions fish | source";
    complete_in("fish", &["--no-config", "-i"], load);
}

/// A script that was installed by another version, or whose program is not in the path.
#[test]
fn fallback_completes_commands_and_fixed_values() {
    if !is_installed("bash") {
        return;
    }
    let home = Home::new();
    let script = home.command().args(["completions", "bash"]).output().unwrap().stdout;
    let file = home.path().join("aiproxy.bash");
    std::fs::write(&file, script).unwrap();
    let complete = "source aiproxy.bash; COMP_WORDS=(aiproxy usage --by s); COMP_CWORD=3; \
                    _aiproxy aiproxy s --by; echo \"${COMPREPLY[@]}\"";
    let mut bash = std::process::Command::new("bash");
    bash.args(["--norc", "-c", complete]).current_dir(home.path()).env("PATH", "/usr/bin:/bin");

    let output = bash.output().unwrap();

    assert_eq!(String::from_utf8_lossy(&output.stdout), "session\n", "{output:?}");
}

#[test]
fn completion_is_silent_without_a_valid_config() {
    let home = Home::new();
    let complete = || {
        let request = ["__complete", "fish", "aiproxy", "upstream", "show", ""];
        home.command().args(request).output().unwrap()
    };
    for config in [None, Some("[[upstream\n"), Some("[server]\nlisten = 3\n")] {
        if let Some(config) = config {
            home.write_config(config);
        }
        let output = complete();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "values\n", "{config:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{config:?}");
        assert!(output.status.success() && !home.data().exists(), "{config:?}");
    }
}
