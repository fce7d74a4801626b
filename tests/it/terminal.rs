//! The dashboard in a real terminal: it opens, follows, leaves, and gives the terminal back.

use std::process::Command;

use rustix::process::{Pid, test_kill_process};

use crate::support::{
    proxy::Setup,
    pty::Terminal,
    until,
    upstream::{Gate, Scene, Upstream},
};

/// What puts the main screen back.
const MAIN_SCREEN: &[u8] = b"\x1b[?1049l";

fn restored(terminal: &Terminal) -> bool {
    terminal.raw.windows(MAIN_SCREEN.len()).any(|window| window == MAIN_SCREEN)
}

#[test]
fn the_dashboard_attaches_shows_a_request_and_leaves_the_proxy_alone() {
    let gate = Gate::shut();
    let upstream = Upstream::start(vec![Scene::sse(&["a", "b"]).gate(2, &gate)]);
    let mut proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut terminal = Terminal::start(&proxy.home, &["tui"], 30, 120);
    terminal.until("Live");

    let mut connection = proxy.open_chat("hi", true);
    connection.until("\"a\"");
    terminal.until("streaming");
    gate.open();
    connection.answer();
    terminal.until_seen("the finished request", |screen| !screen.contains("streaming") && screen.contains("200"));
    terminal.press("q");

    assert_eq!(terminal.exit_code(), 0);
    assert!(restored(&terminal));
    assert_eq!(proxy.chat("hi").status, 200, "the proxy goes on");
    assert!(proxy.cli(&["stop"]).status.success());
    assert_eq!(proxy.exit_code(), Some(0));
}

#[test]
fn a_small_terminal_is_enough_and_resizing_is_followed() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut terminal = Terminal::start(&proxy.home, &["tui"], 16, 60);
    terminal.until("Live");

    terminal.resize(40, 140);
    assert_eq!(proxy.chat("hi").status, 200);

    let screen = terminal.until("TTFT");
    assert!(screen.lines().any(|line| line.chars().count() > 60), "{screen}");
}

#[test]
fn closing_the_terminal_ends_the_dashboard_and_not_the_proxy() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    // A terminal that somebody else holds, so that it can be closed under the program at once and entirely.
    let socket = proxy.home.path().join("tmux").display().to_string();
    let tmux = |args: &[&str]| {
        let mut command = Command::new("tmux");
        command.env_clear().envs(proxy.home.env()).env("TERM", "xterm-256color").args(["-S", &socket, "-f", "/dev/null"]).args(args);
        command.output().ok().map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let start = format!("exec '{}' tui", env!("CARGO_BIN_EXE_aiproxy"));
    if tmux(&["new-session", "-d", "-x", "120", "-y", "30", &start]).is_none() {
        println!("skipped: there is no tmux");
        return;
    }
    until("the dashboard", || tmux(&["capture-pane", "-p"])?.contains("Live").then_some(()));
    let pid = tmux(&["list-panes", "-F", "#{pane_pid}"]).expect("a pid").trim().parse().ok().and_then(Pid::from_raw).expect("a pid");

    tmux(&["kill-server"]);

    until("the dashboard to end", || test_kill_process(pid).is_err().then_some(()));
    assert_eq!(proxy.chat("hi").said(), "hello");
}

#[test]
fn what_a_model_says_cannot_write_on_the_terminal() {
    let evil = "\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}[2J\u{9b}31mred";
    let upstream = Upstream::start(vec![Scene::chat(evil)]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut terminal = Terminal::start(&proxy.home, &["tui"], 30, 120);
    terminal.until("Live");

    assert_eq!(proxy.chat(evil).status, 200);
    terminal.until("200");
    terminal.press("\r");
    terminal.until("Esc back");
    terminal.press("\x1b");
    terminal.until("Enter open");
    terminal.press("q");

    terminal.exit_code();
    let raw = String::from_utf8_lossy(&terminal.raw);
    assert!(!raw.contains("\u{1b}]52") && !raw.contains('\u{9b}'));
}

#[test]
fn without_a_proxy_the_dashboard_brings_one_along() {
    let home = Setup::new().whole_config("[server]\nlisten = \"127.0.0.1:8642\"\n").home();
    // The port of the config may be taken on this machine; then the dashboard says so instead, which is another test.
    if std::net::TcpListener::bind("127.0.0.1:8642").is_err() {
        println!("skipped: port 8642 is taken");
        return;
    }
    let mut terminal = Terminal::start(&home, &["tui"], 30, 120);
    terminal.until("Live");
    until("the proxy to run", || home.command().arg("status").output().expect("run").status.success().then_some(()));

    terminal.press("q");
    terminal.until("y/n");
    terminal.press("y");

    assert_eq!(terminal.exit_code(), 0);
    assert!(restored(&terminal));
}
