//! The dashboard in a real terminal: it opens, follows events, quits, and restores the terminal.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::{Pid, test_kill_process};

use crate::support::{
    poll_until,
    proxy::Setup,
    pty::Terminal,
    upstream::{Gate, Scene, Upstream},
};

/// The sequence that restores the main screen.
const MAIN_SCREEN: &[u8] = b"\x1b[?1049l";

fn is_restored(terminal: &Terminal) -> bool {
    terminal.raw.windows(MAIN_SCREEN.len()).any(|window| window == MAIN_SCREEN)
}

#[test]
fn dashboard_attaches_shows_a_request_and_leaves_the_proxy_running() {
    let gate = Gate::closed();
    let upstream = Upstream::start(vec![Scene::sse(&["a", "b"]).gate(2, &gate)]);
    let mut proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut terminal = Terminal::start(&proxy.home, &["tui"], 30, 120);
    terminal.wait_for_text("Live");

    let mut connection = proxy.open_chat("hi", true);
    connection.read_until("\"a\"");
    terminal.wait_for_text("streaming");
    gate.open();
    connection.read_answer();
    terminal.wait_for("the finished request", |screen| {
        !screen.contains("streaming") && screen.contains("200")
    });
    terminal.press("q");

    assert_eq!(terminal.exit_code(), 0);
    assert!(is_restored(&terminal));
    assert_eq!(proxy.chat("hi").status, 200, "the proxy goes on");
    assert!(proxy.cli(&["stop"]).status.success());
    assert_eq!(proxy.exit_code(), Some(0));
}

#[test]
fn dashboard_fits_a_small_terminal_and_follows_resizing() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut terminal = Terminal::start(&proxy.home, &["tui"], 16, 60);
    terminal.wait_for_text("Live");

    terminal.resize(40, 140);
    assert_eq!(proxy.chat("hi").status, 200);

    let screen = terminal.wait_for_text("TTFT");
    assert!(screen.lines().any(|line| line.chars().count() > 60), "{screen}");
    terminal.press("2");
    terminal.wait_for_text("DIALECT");
}

#[test]
fn closing_the_terminal_ends_the_dashboard_and_not_the_proxy() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    // tmux owns the terminal, so that the test can close it completely while the program runs.
    let socket = proxy.home.path().join("tmux").display().to_string();
    let tmux = |args: &[&str]| {
        let mut command = Command::new("tmux");
        command
            .env_clear()
            .envs(proxy.home.env())
            .env("TERM", "xterm-256color")
            .args(["-S", &socket, "-f", "/dev/null"])
            .args(args);
        command.output().ok().map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let start = format!("exec '{}' tui", env!("CARGO_BIN_EXE_aiproxy"));
    if tmux(&["new-session", "-d", "-x", "120", "-y", "30", &start]).is_none() {
        println!("skipped: there is no tmux");
        return;
    }
    poll_until("the dashboard", || tmux(&["capture-pane", "-p"])?.contains("Live").then_some(()));
    let pid = tmux(&["list-panes", "-F", "#{pane_pid}"])
        .expect("a pid")
        .trim()
        .parse()
        .ok()
        .and_then(Pid::from_raw)
        .expect("a pid");

    tmux(&["kill-server"]);

    poll_until("the dashboard to end", || test_kill_process(pid).is_err().then_some(()));
    assert_eq!(proxy.chat("hi").chat_text(), "hello");
}

#[test]
fn model_output_cannot_control_the_terminal() {
    let evil = "\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}[2J\u{9b}31mred";
    let upstream = Upstream::start(vec![Scene::chat(evil)]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut terminal = Terminal::start(&proxy.home, &["tui"], 30, 120);
    terminal.wait_for_text("Live");

    assert_eq!(proxy.chat(evil).status, 200);
    terminal.wait_for_text("200");
    terminal.press("\r");
    terminal.wait_for_text("Esc back");
    terminal.press("\x1b");
    terminal.wait_for_text("Enter open");
    terminal.press("q");

    terminal.exit_code();
    let raw = String::from_utf8_lossy(&terminal.raw);
    assert!(!raw.contains("\u{1b}]52") && !raw.contains('\u{9b}'));
}

#[test]
fn dashboard_starts_a_proxy_if_none_runs() {
    let home = Setup::new().full_config("[server]\nlisten = \"127.0.0.1:8642\"\n").home();
    // Another program may use the configured port; the dashboard then reports that, which another
    // test covers.
    if std::net::TcpListener::bind("127.0.0.1:8642").is_err() {
        println!("skipped: port 8642 is taken");
        return;
    }
    let mut terminal = Terminal::start(&home, &["tui"], 30, 120);
    terminal.wait_for_text("Live");
    poll_until("the proxy to run", || {
        home.command().arg("status").output().expect("run").status.success().then_some(())
    });

    terminal.press("q");
    terminal.wait_for_text("y/n");
    terminal.press("y");

    assert_eq!(terminal.exit_code(), 0);
    assert!(is_restored(&terminal));
}

#[test]
fn running_answer_is_shown_without_affecting_the_client() {
    let gate = Gate::closed();
    let upstream =
        Upstream::start(vec![Scene::sse(&["first ", "second ", "third"]).gate(2, &gate)]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut terminal = Terminal::start(&proxy.home, &["tui"], 40, 120);
    terminal.wait_for_text("Live");

    let mut connection = proxy.open_chat("a question of mine", true);
    connection.read_until("first");
    terminal.wait_for_text("streaming");
    terminal.press("\r");
    terminal.wait_for_text("a question of mine");
    gate.open();
    connection.read_answer();

    terminal.wait_for_text("first second third");
    assert!(terminal.screen().contains("why here"), "{}", terminal.screen());
    terminal.press("h");
    terminal.wait_for_text("Request headers");
    terminal.press("b");
    terminal.wait_for_text("chat.completion.chunk");
}

#[test]
fn request_is_replayed_from_its_screen() {
    let upstream = Upstream::start(vec![Scene::chat("hello"), Scene::chat("hello again")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    assert_eq!(proxy.chat("hi").chat_text(), "hello");
    let mut terminal = Terminal::start(&proxy.home, &["tui"], 40, 120);
    terminal.wait_for_text("200");

    terminal.press("r");
    terminal.wait_for_text("send again");
    terminal.press("\r");

    terminal.wait_for_text("was sent again");
    poll_until("the second request", || (upstream.requests().len() == 2).then_some(()));
    assert_eq!(upstream.requests()[0].json(), upstream.requests()[1].json());
    terminal.press("6");
    terminal.wait_for("both in the log", |screen| screen.matches(" 200 by one/work").count() == 2);
}

#[test]
fn all_screens_filter_cooldown_and_second_dashboard_work() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work", "spare"]).start();
    proxy.chat("hi");
    let mut terminal = Terminal::start(&proxy.home, &["tui"], 40, 120);
    terminal.wait_for_text("200");
    for (key, shown) in [
        ("2", "LAST 5 MIN"),
        ("3", "FINGERPRINT"),
        ("4", "TRIED IN ORDER"),
        ("5", "by day"),
        ("6", "LEVEL"),
        ("7", "config.toml"),
        ("?", "quit"),
    ] {
        terminal.press(key);
        terminal.wait_for_text(shown);
    }

    terminal.press("\x1b");
    terminal.wait_for("the help to close", |screen| !screen.contains("this page"));
    terminal.press("1");
    terminal.wait_for_text("req/min");
    terminal.press("/status:5xx\r");
    terminal.wait_for_text("No request matches the filter");
    terminal.press("3");
    terminal.wait_for_text("FINGERPRINT");
    terminal.press("c");
    terminal.wait_for_text("for 10 minutes?");
    terminal.press("y");
    terminal.wait_for("the key to cool", |screen| {
        screen.contains("▲ cooling") && screen.contains("9m")
    });
    terminal.press("q");
    assert_eq!(terminal.exit_code(), 0);

    let mut again = Terminal::start(&proxy.home, &["tui"], 16, 60);
    again.wait_for_text("is cooling");
    again.resize(24, 80);
    again.wait_for_text("3 Keys");
    again.press("3w");
    again.wait_for("the key to be warm", |screen| !screen.contains("▲ cooling"));
}

#[test]
fn dashboard_is_chinese_if_configured() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy =
        Setup::new().config("[tui]\nlang = \"zh\"").upstream("one", &upstream, &["work"]).start();
    let mut terminal = Terminal::start(&proxy.home, &["tui"], 24, 80);
    terminal.wait_for_text("还没有请求");
    terminal.press("5");
    terminal.wait_for_text("今日");
}

/// Set when this test binary runs again in a terminal, as the process that must panic.
const PANIC: &str = "IT_PANIC_IN_A_FRAME";

#[test]
fn panic_while_drawing_restores_the_terminal() {
    if std::env::var_os(PANIC).is_some() {
        let mut screen =
            aiproxy::tui::terminal::TerminalGuard::acquire(false, true).expect("a terminal");
        screen.draw(|_| panic!("drawn wrong")).expect("a frame");
        return;
    }
    let mut home = Setup::new().home();
    home.set(PANIC, "1");
    let program = std::env::current_exe().expect("this program");
    let args = ["--exact", "terminal::panic_while_drawing_restores_the_terminal", "--nocapture"];
    let mut terminal = Terminal::run(&program, &home, &args, 24, 80);

    assert_ne!(terminal.exit_code(), 0);
    assert!(is_restored(&terminal));
    let raw = String::from_utf8_lossy(&terminal.raw);
    let (_, after) = raw.rsplit_once("\u{1b}[?1049l").expect("the main screen");
    assert!(after.contains("drawn wrong"), "the reason stands on the main screen: {after:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn idle_dashboard_uses_almost_no_cpu() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    proxy.chat("hi");
    let mut terminal = Terminal::start(&proxy.home, &["tui"], 40, 120);
    terminal.wait_for_text("200");
    let pid = terminal.pid();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let after: Vec<&str> =
            stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        after[11].parse::<u64>().expect("ticks") + after[12].parse::<u64>().expect("ticks")
    };

    let (before, begun) = (ticks(), Instant::now());
    poll_until("four seconds to pass", || {
        (begun.elapsed() >= Duration::from_secs(4)).then_some(())
    });

    // A tick is 10 ms. This is a debug build, and the charts of the last minute still move once a
    // second.
    let used = ticks() - before;
    assert!(used <= 12, "{used} ticks in 4 s");
}
