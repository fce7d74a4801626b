//! Tests of the test fixtures: a wrong fixture would make every other test wrong.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    client::{Request, delta, events},
    upstream::{Gate, Scene, Upstream},
};

fn chat_to(upstream: &Upstream) -> Request {
    assert!(upstream.url().ends_with("/v1"));
    Request::post("/v1/chat/completions", &json!({"model": "m"}))
}

#[test]
fn scenes_play_in_order_and_the_last_one_repeats() {
    let upstream =
        Upstream::start(vec![Scene::status(429).header("retry-after", "30"), Scene::chat("hello")]);

    let answers: Vec<_> = (0..3).map(|_| chat_to(&upstream).send(upstream.addr())).collect();

    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [429, 200, 200]);
    assert_eq!(answers[0].header("retry-after"), Some("30"));
    assert_eq!(answers[2].chat_text(), "hello");
    assert_eq!(upstream.requests()[2].json(), json!({"model": "m"}));
}

#[test]
fn model_lists_consume_no_scene() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);

    let list = Request::get("/v1/models").send(upstream.addr());

    assert_eq!(list.json()["data"][0]["id"], "m");
    assert_eq!((upstream.requests().len(), upstream.all_requests().len()), (0, 1));
}

#[test]
fn gate_pauses_the_stream_and_cut_breaks_it() {
    let gate = Gate::closed();
    let upstream = Upstream::start(vec![Scene::sse(&["a", "b"]).gate(2, &gate).cut_after(3)]);
    let mut connection = chat_to(&upstream).open(upstream.addr());

    let before = connection.read_until("\"a\"");
    gate.open();
    let after = connection.read_answer();

    assert!(!before.contains("\"b\""));
    assert_eq!(events(&after.body).iter().map(|event| delta(event)).collect::<String>(), "b");
    assert!(!after.complete && !upstream.nth_request(0).response_sent);
}

#[test]
fn client_disconnect_is_recorded() {
    let upstream = Upstream::start(vec![Scene::chat("never").head_gate(&Gate::closed())]);
    let connection = chat_to(&upstream).open(upstream.addr());
    upstream.nth_request(0);

    drop(connection);

    upstream.wait_for_request(0, "the hang-up", |seen| seen.hung_up_at.is_some());
}

#[test]
fn pieces_are_paced_and_raw_bytes_are_verbatim() {
    let pace = Duration::from_millis(20);
    let upstream = Upstream::start(vec![
        Scene::sse(&["a"]).pace(pace),
        Scene::raw("garbage").delay(Duration::from_millis(1)),
    ]);

    let mut paced = chat_to(&upstream).open(upstream.addr());
    assert_eq!(paced.read_head().map(|(status, _)| status), Some(200));
    let pieces = paced.timed_pieces();
    let raw = chat_to(&upstream).open(upstream.addr());

    assert_eq!(pieces.len(), 4);
    assert!(pieces[3].0 - pieces[0].0 >= 2 * pace, "{pieces:?}");
    assert!(
        upstream.wait_for_request(0, "the end", |seen| seen.response_sent).hung_up_at.is_none()
    );
    assert_eq!(raw.read_to_end(), b"garbage");
}
