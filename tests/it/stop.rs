//! Shutdown: streams may finish, nothing hangs, and each home has one proxy at a time.

use std::net::TcpStream;

use crate::support::{
    client::Request,
    poll_until,
    proxy::{Proxy, Setup},
    upstream::{Gate, Scene, Upstream},
};

/// Returns whether the proxy's address still accepts connections.
fn is_listening(proxy: &Proxy) -> bool {
    TcpStream::connect(proxy.addr).is_ok()
}

#[test]
#[cfg(unix)]
fn term_signal_lets_streams_finish() {
    let gate = Gate::closed();
    let upstream = Upstream::start(vec![Scene::sse(&["a", "b"]).gate(2, &gate)]);
    let mut proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut connection = proxy.open_chat("hi", true);
    connection.read_until("\"a\"");

    proxy.signal(rustix::process::Signal::TERM);
    poll_until("the port to close", || (!is_listening(&proxy)).then_some(()));
    gate.open();

    let rest = connection.read_answer();
    assert!(rest.complete && rest.text().contains("[DONE]"), "{}", rest.text());
    assert_eq!(proxy.exit_code(), Some(0), "{}", proxy.output());
}

#[test]
#[cfg(unix)]
fn second_signal_stops_at_once() {
    let upstream = Upstream::start(vec![Scene::sse(&["a"]).gate(2, &Gate::closed())]);
    let mut proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut connection = proxy.open_chat("hi", true);
    connection.read_until("\"a\"");

    proxy.signal(rustix::process::Signal::TERM);
    poll_until("the port to close", || (!is_listening(&proxy)).then_some(()));
    proxy.signal(rustix::process::Signal::TERM);

    proxy.exit_code();
}

#[test]
fn stop_now_ends_streams_with_an_error_in_the_client_dialect() {
    let upstream = Upstream::start(vec![Scene::sse(&["a"]).gate(2, &Gate::closed())]);
    let mut proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut connection = proxy.open_chat("hi", true);
    connection.read_until("\"a\"");

    let stopped = proxy.cli(&["stop", "--now"]);

    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    let rest = connection.read_answer();
    assert!(
        rest.text().contains("\"error\"") && !rest.text().contains("[DONE]"),
        "{}",
        rest.text()
    );
    assert_eq!(proxy.exit_code(), Some(0), "{}", proxy.output());
}

#[test]
fn drain_timeout_ends_streams_with_an_error() {
    let upstream = Upstream::start(vec![Scene::sse(&["a"]).gate(2, &Gate::closed())]);
    let mut proxy = Setup::new()
        .config("[server]\ndrain = \"200ms\"")
        .upstream("one", &upstream, &["work"])
        .start();
    let mut connection = proxy.open_chat("hi", true);
    connection.read_until("\"a\"");

    assert!(proxy.cli(&["stop"]).status.success());

    let rest = connection.read_answer();
    assert!(
        rest.text().contains("\"error\"") && !rest.text().contains("[DONE]"),
        "{}",
        rest.text()
    );
    assert_eq!(proxy.exit_code(), Some(0), "{}", proxy.output());
}

#[test]
fn second_proxy_in_one_home_is_refused() {
    let proxy = Setup::new().start();

    let second = proxy.cli(&["serve", "--listen", "127.0.0.1:0"]);

    assert_eq!(second.status.code(), Some(1));
    let reported = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        reported.contains(&proxy.pid().to_string()) || reported.contains(&proxy.addr.to_string()),
        "{reported}"
    );
    assert_eq!(Request::get("/health").send(proxy.addr).status, 200);
}

#[test]
fn port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let home = Setup::new().home();

    let out = home.command().args(["serve", "--listen", &addr]).output().expect("run");

    assert_eq!(out.status.code(), Some(1));
    let reported = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(reported.contains(&addr) && reported.contains("--listen"), "{reported}");
}

#[test]
fn commands_report_that_no_proxy_is_running() {
    let home = Setup::new().home();

    let out = home.command().arg("status").output().expect("run");

    assert_eq!(out.status.code(), Some(4), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
#[cfg(unix)]
fn killed_proxy_does_not_block_the_next() {
    let proxy = Setup::new().start();
    proxy.signal(rustix::process::Signal::KILL);
    poll_until("the port to close", || (!is_listening(&proxy)).then_some(()));

    let again = proxy.home.command().args(["status"]).output().expect("run");
    let second = proxy.cli(&["config", "check"]);

    assert_eq!(again.status.code(), Some(4));
    assert!(second.status.success());
}
