//! Streams: events pass as they arrive, streams end correctly, and they stop when the client
//! disconnects.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    client::{Request, events},
    poll_until,
    proxy::{CLIENT_KEY, Proxy, Setup, chat_body},
    upstream::{Gate, Scene, Upstream, chunk},
};

/// Maximum delay until the upstream connection closes after the client has disconnected.
const MAX_HANG_UP_DELAY: Duration = Duration::from_millis(50);

/// Returns the best of three: other tests may slow the machine down, but the proxy must not be slow
/// three times.
fn best_of_three(measure: impl Fn() -> Duration) {
    let best = (0..3).map(|_| measure()).min().expect("three tries");
    assert!(best < MAX_HANG_UP_DELAY, "the upstream was let go after {best:?} at best");
}

fn running_requests(proxy: &Proxy) -> u64 {
    proxy.status_json()["requests"]["running"].as_u64().expect("a number")
}

#[test]
fn disconnect_before_the_head_closes_the_upstream() {
    for stream in [true, false] {
        best_of_three(|| {
            let upstream = Upstream::start(vec![Scene::sse(&["never"]).head_gate(&Gate::closed())]);
            let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
            let connection = proxy.open_chat("hi", stream);
            upstream.nth_request(0);

            let left = Instant::now();
            drop(connection);

            upstream
                .wait_for_request(0, "the upstream to be let go", |seen| seen.hung_up_at.is_some())
                .hung_up_at
                .expect("left")
                - left
        });
    }
}

#[test]
fn disconnect_while_streaming_closes_the_upstream() {
    best_of_three(|| {
        let upstream = Upstream::start(vec![Scene::sse(&["a", "b"]).gate(2, &Gate::closed())]);
        let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
        let mut connection = proxy.open_chat("hi", true);
        connection.read_until("\"a\"");

        let left = Instant::now();
        drop(connection);

        let took = upstream
            .wait_for_request(0, "the upstream to be let go", |seen| seen.hung_up_at.is_some())
            .hung_up_at
            .expect("left")
            - left;
        let record = poll_until("the record", || {
            proxy.snapshot()["live"]["recent"].as_array()?.last().cloned()
        });
        assert!(
            record["state"] == "left" && record["attempts"][0]["outcome"].is_null(),
            "nobody's failure: {record}"
        );
        took
    });
}

#[test]
fn disconnect_between_role_and_content_closes_the_upstream() {
    best_of_three(|| {
        let upstream = Upstream::start(vec![Scene::sse(&["a"]).gate(1, &Gate::closed())]);
        let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
        let connection = proxy.open_chat("hi", true);
        upstream.nth_request(0);

        let left = Instant::now();
        drop(connection);

        upstream
            .wait_for_request(0, "the upstream to be let go", |seen| seen.hung_up_at.is_some())
            .hung_up_at
            .expect("left")
            - left
    });
}

#[test]
fn disconnect_between_retries_ends_the_attempts() {
    let upstream = Upstream::start(vec![Scene::status(500)]);
    let proxy = Setup::new()
        .config("[retry]\nbackoff = \"20s\"\nmax_backoff = \"20s\"")
        .upstream("one", &upstream, &["work"])
        .start();
    let connection = proxy.open_chat("hi", false);
    upstream.wait_for_request(0, "the first try", |seen| seen.response_sent);

    drop(connection);

    poll_until("the request to be forgotten", || (running_requests(&proxy) == 0).then_some(()));
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn disconnect_in_the_queue_removes_the_request() {
    let upstream = Upstream::start(vec![Scene::status(429).header("retry-after", "9")]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let connection = proxy.open_chat("hi", false);
    upstream.wait_for_request(0, "the refusal", |seen| seen.response_sent);
    assert_eq!(
        poll_until("the request to wait", || Some(running_requests(&proxy))
            .filter(|count| *count > 0)),
        1
    );

    drop(connection);

    poll_until("the queue to be empty", || (running_requests(&proxy) == 0).then_some(()));
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn half_closed_client_counts_as_disconnected() {
    let upstream = Upstream::start(vec![Scene::sse(&["a"]).gate(2, &Gate::closed())]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut connection = proxy.open_chat("hi", true);
    connection.read_until("\"a\"");

    connection.half_close();

    upstream.wait_for_request(0, "the upstream to be let go", |seen| seen.hung_up_at.is_some());
}

#[test]
fn abandoned_requests_leave_no_state() {
    let upstream = Upstream::start(vec![Scene::sse(&["a"]).gate(2, &Gate::closed())]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let leave = |count: usize| {
        let open: Vec<_> = (0..count).map(|_| proxy.open_chat("hi", true)).collect();
        for mut connection in open {
            connection.read_until("\"a\"");
        }
        poll_until("everything to end", || (running_requests(&proxy) == 0).then_some(()));
    };
    leave(2);
    let before = open_files(&proxy);

    leave(40);

    poll_until("the sockets to be closed", || (open_files(&proxy) <= before + 4).then_some(()));
    assert!(upstream.requests().iter().all(|seen| seen.hung_up_at.is_some()));
}

/// Returns the number of open files of the proxy; 0 if the system does not report it.
fn open_files(proxy: &Proxy) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).map_or(0, Iterator::count)
}

#[test]
fn events_are_forwarded_one_by_one() {
    let gates: Vec<_> = (0..3).map(|_| Gate::closed()).collect();
    let texts = ["a", "b", "c"];
    for (index, text) in texts.iter().enumerate() {
        // The upstream sends each event only after the client has received the previous one.
        let upstream = Upstream::start(vec![Scene::sse(&texts).gate(index + 2, &gates[index])]);
        let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
        let mut connection = proxy.open_chat("hi", true);

        connection.read_until(&format!("\"{text}\""));

        gates[index].open();
        assert!(connection.read_answer().complete);
    }
}

#[test]
fn client_receives_events_at_the_pace_of_the_upstream() {
    let pace = Duration::from_millis(20);
    let upstream = Upstream::start(vec![Scene::sse(&["a"; 10]).pace(pace)]);
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut connection = proxy.open_chat("hi", true);
    connection.read_head();

    let pieces = connection.timed_pieces();

    // The upstream paused twelve times; in a buffered response all pieces would arrive at the end.
    let spread = pieces.last().expect("pieces").0 - pieces[0].0;
    assert!(pieces.len() >= 10, "{} pieces", pieces.len());
    assert!(spread >= 8 * pace, "{spread:?}");
}

#[test]
fn truncated_stream_ends_with_an_error() {
    for cut in [
        Scene::sse(&["a", "b"]).cut_after(2),
        Scene::events([chunk(&json!({"content": "a"}), None)]),
    ] {
        let upstream = Upstream::start(vec![cut]);
        let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();

        let answer = proxy.chat_stream("hi");

        let last = events(&answer.body).pop().expect("events");
        assert!(last.contains("\"error\""), "{last}");
        assert!(!answer.text().contains("[DONE]"));
        poll_until("the failure to be counted", || {
            (proxy.status_json()["requests"]["failed"] == 1).then_some(())
        });
    }
}

#[test]
fn events_are_read_at_any_cut() {
    let whole: String = ["h\u{e9}", "\u{1f600}", "\\n\\n"]
        .iter()
        .map(|text| chunk(&json!({ "content": text }), None))
        .collect();
    let whole = whole + &chunk(&json!({}), Some("stop")) + "data: [DONE]\n\n";
    for size in [1, 2, 3, 7, 64] {
        let upstream =
            Upstream::start(vec![Scene::events(whole.as_bytes().chunks(size).map(<[u8]>::to_vec))]);
        let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();

        let answer = proxy.chat_stream("hi");

        assert_eq!(answer.text(), whole, "in pieces of {size}");
    }
}

#[test]
fn garbled_answer_is_a_502_in_the_client_dialect() {
    let upstream = Upstream::start(vec![Scene::raw("\u{1b}[31mnot http at all\r\n\r\n")]);
    let proxy = Setup::new()
        .config("[retry]\nmax_attempts = 1")
        .upstream("one", &upstream, &["work"])
        .start();

    let answer = proxy.chat("hi");

    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.json()["error"]["message"].is_string());
    assert!(!answer.text().contains('\u{1b}') && !answer.text().contains("\\u001b"));
}

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    let upstream = Upstream::with_director(|_, number| Scene::chat(&format!("answer {number}")));
    let proxy = Setup::new().upstream("one", &upstream, &["work"]).start();
    let mut connection = proxy.open_chat("first", false);

    let first = connection.read_answer();
    connection.write(
        &Request::post("/v1/chat/completions", &chat_body("m", "second", false))
            .bearer(CLIENT_KEY)
            .bytes(proxy.addr),
    );
    let second = connection.read_answer();

    assert_eq!([first.chat_text(), second.chat_text()], ["answer 0", "answer 1"]);
}
