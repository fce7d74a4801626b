//! Tests how keys, events and snapshots change the state.

use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use super::*;
use crate::{
    base::clock::UnixMillis,
    control::{
        action::{Action, ActionReply},
        action_message::ActionMessage,
        history::{GroupBy, HistoryPage},
        request_transcript::{Speaker, TranscriptPart, TranscriptQuery},
        snapshot::Origin,
    },
    events::{
        event::{Event, EventKind},
        record::RequestState,
        status_message::health::HealthMessage,
    },
    tui::{
        app::{ConnState, Dialog, Overlay, Pane, RequestView, RowId},
        screen::Screen,
        screens,
        selection::clamp_selection,
        tests::sample::{self, app, frame_context, frame_context_after},
    },
};

fn press(app: &mut App, keys: &str) -> Vec<Effect> {
    keys.chars().flat_map(|c| press_code(app, KeyCode::Char(c))).collect()
}

fn press_code(app: &mut App, code: KeyCode) -> Vec<Effect> {
    update(app, Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)), frame_context())
}

fn event(seq: u64, kind: EventKind) -> Msg {
    Msg::Event(Box::new(Event { seq, at: sample::NOW, kind }))
}

fn accepted(seq: u64) -> Msg {
    event(
        seq,
        EventKind::Accepted {
            request: Box::new(sample::running(100 + seq, "new", "healthy", RequestState::Waiting)),
        },
    )
}

#[test]
fn selected_row_stays_selected_when_rows_are_added() {
    let mut app = app();
    press(&mut app, "jj");
    let before = app.list_state().selected.clone();
    assert_eq!(before, Some(RowId::Request(sample::request_id(8))));

    update(&mut app, accepted(42), frame_context());
    clamp_selection(&mut app, frame_context());

    assert_eq!(app.list_state().selected, before);
}

#[test]
fn selection_moves_when_its_row_is_removed() {
    let mut app = app();
    press(&mut app, "j");
    clamp_selection(&mut app, frame_context());
    press(&mut app, "/chat-dead");
    clamp_selection(&mut app, frame_context());

    assert_eq!(app.list_state().selected, Some(RowId::Request(sample::request_id(2))));
}

#[test]
fn costly_actions_ask_and_n_declines() {
    for (screen, key, question, effect) in [
        (
            Screen::Live,
            "x",
            "kill the request of ide for essay?",
            Action::Kill { id: sample::request_id(101).to_string() },
        ),
        (
            Screen::Keys,
            "c",
            "cool healthy/work for 10 minutes?",
            Action::Cool { key: "healthy/work".to_owned(), model: None, for_ms: Some(600_000) },
        ),
        (
            Screen::Upstreams,
            "c",
            "cool healthy for 10 minutes?",
            Action::CoolUpstream { upstream: "healthy".to_owned(), for_ms: Some(600_000) },
        ),
        (
            Screen::Keys,
            "t",
            "test healthy/work with a small request?",
            Action::Test { key: "healthy/work".to_owned() },
        ),
    ] {
        let mut app = app();
        app.screen = screen;
        assert_eq!(press(&mut app, key), []);
        assert!(
            matches!(&app.dialog, Some(Dialog::Confirm { question: asked, .. }) if asked == question),
            "{:?}",
            app.dialog
        );

        assert_eq!(press(&mut app, "n"), []);
        assert_eq!(app.dialog, None);
        let mut app = sample::app();
        app.screen = screen;
        assert_eq!(press(&mut app, &format!("{key}y")).last(), Some(&Effect::Action(effect)));
    }
}

#[test]
fn w_warms_the_selected_row_or_the_shown_problem() {
    for (screen, keys, want) in [
        (Screen::Live, "w", Action::WarmUpstream { upstream: "dead".to_owned() }),
        (
            Screen::Keys,
            "jw",
            Action::Warm { key: Some("limited/LIMITED_KEY".to_owned()), model: None },
        ),
        (Screen::Upstreams, "w", Action::WarmUpstream { upstream: "healthy".to_owned() }),
    ] {
        let mut app = app();
        app.screen = screen;
        assert_eq!(press(&mut app, keys), [Effect::Action(want)]);
    }
}

#[test]
fn quitting_asks_only_if_it_stops_the_proxy() {
    let mut app = app();
    assert_eq!(press(&mut app, "q"), [Effect::Leave { stop_proxy: false }]);

    app.in_process = true;
    assert_eq!(press(&mut app, "q"), []);
    assert_eq!(app.dialog, Some(Dialog::Stop));
    assert_eq!(press_code(&mut app, KeyCode::Esc), []);
    assert_eq!(press(&mut app, "qn"), [Effect::Leave { stop_proxy: false }]);
    let interrupt = Msg::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert_eq!(update(&mut app, interrupt.clone(), frame_context()), []);
    assert_eq!(update(&mut app, interrupt, frame_context()), [Effect::Leave { stop_proxy: true }]);
}

#[test]
fn filter_applies_while_typing_and_an_invalid_one_is_ignored() {
    let mut app = app();
    press(&mut app, "/status:5xx");
    assert_eq!(screens::list_rows(&app).len(), 1);

    press(&mut app, " >soon");
    assert!(matches!(&app.dialog, Some(Dialog::Filter { error: Some(_), .. })));
    assert_eq!(screens::list_rows(&app).len(), 1);

    press_code(&mut app, KeyCode::Esc);
    assert!(app.dialog.is_none() && app.list_state().filter.is_empty());
    assert_eq!(screens::list_rows(&app).len(), 10);
}

#[test]
fn event_gap_requests_one_snapshot() {
    let mut app = app();
    assert_eq!(update(&mut app, accepted(42), frame_context()), []);
    assert_eq!(update(&mut app, accepted(42), frame_context()), [], "known already");
    assert_eq!(update(&mut app, accepted(50), frame_context()), [Effect::FetchSnapshot]);
    assert_eq!(update(&mut app, accepted(51), frame_context()), []);

    let mut snapshot = sample::snapshot();
    snapshot.live.seq = 51;
    update(&mut app, Msg::Snapshot(Box::new(snapshot)), frame_context());
    assert_eq!(update(&mut app, accepted(52), frame_context()), []);
    assert_eq!(app.live().unwrap().running.len(), 3);
}

#[test]
fn snapshot_does_not_undo_newer_events() {
    let mut app = app();
    update(&mut app, accepted(42), frame_context());
    update(&mut app, Msg::Snapshot(Box::new(sample::snapshot())), frame_context());
    assert_eq!(app.live().unwrap().seq, 42);
}

#[test]
fn health_is_refreshed_at_once_and_numbers_only_when_visible() {
    let mut app = app();
    assert_eq!(update(&mut app, accepted(42), frame_context_after(60_000)), []);
    app.screen = Screen::Upstreams;
    assert_eq!(update(&mut app, accepted(43), frame_context_after(1_000)), []);
    assert_eq!(update(&mut app, Msg::Tick, frame_context_after(2_000)), [Effect::FetchSnapshot]);

    let mut app = sample::app();
    let health = EventKind::Health {
        subject: "limited".into(),
        text: HealthMessage::Warmed { name: Some("limited".into()) }.into(),
        level: Severity::Warn,
    };
    assert_eq!(
        update(&mut app, event(42, health), frame_context_after(300)),
        [Effect::FetchSnapshot]
    );
}

#[test]
fn elapsed_wait_refreshes_the_snapshot() {
    let mut app = app();
    assert_eq!(update(&mut app, Msg::Tick, frame_context_after(11_000)), []);
    assert_eq!(update(&mut app, Msg::Tick, frame_context_after(12_500)), [Effect::FetchSnapshot]);
}

#[test]
fn lost_proxy_keeps_the_last_screen_until_it_reconnects() {
    let mut app = app();
    update(
        &mut app,
        Msg::Disconnected { reason: "gone".to_owned(), retry_ms: 3_000 },
        frame_context(),
    );
    assert_eq!(
        app.connection,
        ConnState::Disconnected {
            reason: "gone".to_owned(),
            retry_at: UnixMillis(sample::NOW.0 + 3_000)
        }
    );
    assert!(app.live().is_some());

    let mut fresh = sample::snapshot();
    fresh.pid = 1;
    fresh.live.seq = 3;
    update(&mut app, Msg::Snapshot(Box::new(fresh)), frame_context());
    assert_eq!((&app.connection, app.live().unwrap().seq), (&ConnState::Connected, 3));
}

#[test]
fn paused_screen_does_not_change() {
    let mut app = app();
    press(&mut app, "p");
    update(&mut app, accepted(42), frame_context());
    assert_eq!(app.live().unwrap().running.len(), 2);
    press(&mut app, "p");
    assert_eq!(app.live().unwrap().running.len(), 3);
}

#[test]
fn action_reply_is_shown_for_three_seconds() {
    let mut app = app();
    update(
        &mut app,
        Msg::ActionResult(Ok(ActionReply {
            ok: true,
            text: ActionMessage::Stopping.into(),
            id: None,
        })),
        frame_context(),
    );
    update(&mut app, Msg::Tick, frame_context_after(2_900));
    assert!(app.toast.is_some());
    update(&mut app, Msg::Tick, frame_context_after(3_000));
    assert_eq!(app.toast, None);
}

#[test]
fn click_selects_double_click_opens_and_tabs_switch() {
    let mut app = app();
    app.size = (120, 40);
    let click = |column, row| {
        Msg::Mouse(MouseEvent {
            kind: MouseEventKind::Down(MouseButton::Left),
            column,
            row,
            modifiers: KeyModifiers::NONE,
        })
    };
    // Top, tabs, problem, rule, chart, rule, head: the first row is the eighth line.
    update(&mut app, click(30, 8), frame_context());
    assert_eq!(app.list_state().selected, Some(RowId::Request(sample::request_id(102))));
    update(&mut app, click(30, 8), frame_context_after(200));
    assert_eq!(app.overlay, Some(Overlay::Request(RequestView::new(sample::request_id(102)))));
    update(&mut app, click(12, 1), frame_context_after(900));
    assert_eq!((app.screen, &app.overlay), (Screen::Upstreams, &None));
}

#[test]
fn copying_never_needs_the_proxy() {
    let mut app = app();
    assert_eq!(press(&mut app, "yi"), [Effect::Copy(sample::request_id(101).to_string())]);
    assert_eq!(app.copied, [sample::request_id(101).to_string()]);
    let effects = press(&mut app, "yc");
    let [Effect::Copy(curl)] = effects.as_slice() else { panic!("a copy") };
    assert!(
        curl.starts_with("curl http://127.0.0.1:8642/v1/chat/completions ")
            && curl.contains(r#""model":"essay""#),
        "{curl}"
    );
}

#[test]
fn enter_opens_the_subject_of_the_row() {
    let mut app = app();
    press(&mut app, "6");
    press_code(&mut app, KeyCode::Enter);
    assert_eq!(
        app.overlay,
        Some(Overlay::Request(RequestView {
            follow: false,
            ..RequestView::new(sample::request_id(2))
        }))
    );
    press_code(&mut app, KeyCode::Esc);
    assert_eq!((app.screen, &app.overlay), (Screen::Log, &None));

    press(&mut app, "3");
    press_code(&mut app, KeyCode::Enter);
    assert_eq!((app.screen, app.list_state().filter.text()), (Screen::Log, "healthy/work"));
}

#[test]
fn open_running_request_streams_its_transcript() {
    let mut app = app();
    let query = |only_answer| Effect::FetchTranscript {
        id: sample::request_id(101),
        query: TranscriptQuery { only_answer, raw: false },
    };
    assert_eq!(press_code(&mut app, KeyCode::Enter), [query(false)]);

    let mut story = sample::transcript(sample::request_id(101));
    update(&mut app, Msg::Transcript(Ok(Box::new(story.clone()))), frame_context());
    assert_eq!(update(&mut app, Msg::Tick, frame_context_after(100)), [], "read a moment ago");
    let progress = EventKind::Progress { id: sample::request_id(101), answer_bytes: 10, events: 3 };
    assert_eq!(
        update(&mut app, event(42, progress.clone()), frame_context_after(300)),
        [query(true)]
    );
    assert_eq!(
        update(&mut app, event(43, progress), frame_context_after(900)),
        [],
        "the answer to the question before is awaited"
    );

    // The conversation stays while the answer grows.
    story.conversation.clear();
    story.only_answer = true;
    story.answer[1].text.push_str(" more");
    update(&mut app, Msg::Transcript(Ok(Box::new(story))), frame_context_after(900));
    let reported = app.transcript_of(sample::request_id(101)).unwrap();
    assert!(!reported.conversation.is_empty() && reported.answer[1].text.ends_with("more"));

    press_code(&mut app, KeyCode::Esc);
    assert!(app.transcript.is_none(), "nothing is held of what is not looked at");
}

#[test]
fn answer_is_followed_until_the_user_scrolls_up() {
    let mut app = app();
    app.size = (80, 24);
    press_code(&mut app, KeyCode::Enter);
    let mut story = sample::transcript(sample::request_id(101));
    story.answer[1].text = "line\n".repeat(100);
    update(&mut app, Msg::Transcript(Ok(Box::new(story))), frame_context());
    press_code(&mut app, KeyCode::Tab);
    press_code(&mut app, KeyCode::Tab);
    let view = |app: &App| match &app.overlay {
        Some(Overlay::Request(view)) => *view,
        other => panic!("{other:?}"),
    };
    assert_eq!((view(&app).pane, view(&app).follow), (Pane::Answer, true));

    press(&mut app, "k");
    assert!(!view(&app).follow);
    press(&mut app, "G");
    assert!(view(&app).follow);
}

#[test]
fn replay_asks_for_the_model_and_starts_on_enter() {
    let mut app = app();
    press(&mut app, "jjr");
    assert!(
        matches!(&app.dialog, Some(Dialog::Replay { model, .. }) if model.starts_with("deepseek"))
    );
    update(
        &mut app,
        Msg::Key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL)),
        frame_context(),
    );
    press(&mut app, "essay");
    let id = sample::request_id(8).to_string();
    assert_eq!(
        press_code(&mut app, KeyCode::Enter),
        [Effect::Action(Action::Replay { id, model: Some("essay".to_owned()) })]
    );
}

#[test]
fn copied_request_is_the_original_if_known() {
    let mut app = app();
    press(&mut app, "jj");
    press_code(&mut app, KeyCode::Enter);
    let id = sample::request_id(8);
    assert_eq!(
        press(&mut app, "y"),
        [Effect::FetchTranscript { id, query: TranscriptQuery { only_answer: false, raw: true } }]
    );
    let mut story = sample::transcript(id);
    story.raw = true;
    story.record = app.request(id).cloned().map(Box::new);
    story.conversation = vec![TranscriptPart {
        speaker: Speaker::Raw,
        text: "{\"model\":\"m\"}".to_owned(),
        chars: 13,
        ..story.conversation[0].clone()
    }];
    update(&mut app, Msg::Transcript(Ok(Box::new(story))), frame_context());

    let effects = press(&mut app, "c");
    let [Effect::Copy(curl)] = effects.as_slice() else { panic!("a copy: {effects:?}") };
    assert!(curl.ends_with("-d '{\"model\":\"m\"}'"), "{curl}");
}

#[test]
fn usage_is_fetched_when_visible_and_after_a_request_ends() {
    let mut app = app();
    let ask = |by, days| Effect::FetchUsage { by, days };
    assert_eq!(press(&mut app, "5"), [ask(GroupBy::Model, 7)]);
    assert_eq!(press(&mut app, "d"), [ask(GroupBy::Model, 30)]);
    assert_eq!(press(&mut app, "o"), [ask(GroupBy::Project, 30)]);
    assert_eq!(
        update(&mut app, Msg::Tick, frame_context_after(9_000)),
        [],
        "nothing ended meanwhile"
    );

    let ended = EventKind::Ended {
        id: sample::request_id(101),
        state: RequestState::Done,
        status: Some(200),
        duration_ms: 10,
        usage: None,
        cost: None,
        finish: None,
        answer_bytes: 0,
        events: 0,
        error: None,
    };
    assert_eq!(
        update(&mut app, event(42, ended), frame_context_after(31_000)),
        [Effect::FetchSnapshot, Effect::FetchToday, ask(GroupBy::Project, 30)]
    );
}

#[test]
fn usage_row_opens_its_requests() {
    let mut app = app();
    app.screen = Screen::Usage;
    press_code(&mut app, KeyCode::Enter);
    assert_eq!(
        (app.screen, app.list_state().filter.text()),
        (Screen::Log, "model:claude-sonnet-4-5")
    );
}

#[test]
fn log_continues_with_filtered_history() {
    let mut app = app();
    let before = Some(sample::request_id(1));
    let ask = |filter: &str| Effect::FetchHistory { filter: filter.to_owned(), before };
    assert_eq!(press(&mut app, "6"), [ask("")]);
    let page = |n: u64| HistoryPage {
        requests: vec![sample::finished(n, "older", "healthy", 200, 10)],
        next: None,
    };
    update(&mut app, Msg::History { filter: String::new(), page: Ok(page(50)) }, frame_context());
    assert_eq!(screens::list_rows(&app).len(), 5);
    assert_eq!(update(&mut app, Msg::Tick, frame_context_after(10)), [], "that was all");

    press(&mut app, "/ide");
    assert_eq!(press_code(&mut app, KeyCode::Enter), []);
    assert_eq!(update(&mut app, Msg::Tick, frame_context_after(20)), [ask("ide")]);
    update(&mut app, Msg::History { filter: String::new(), page: Ok(page(51)) }, frame_context());
    assert!(app.history.rows.is_empty(), "the answer to another question");
}

#[test]
fn closing_help_returns_to_the_request() {
    let mut app = app();
    press_code(&mut app, KeyCode::Enter);
    let before = app.overlay.clone();
    press(&mut app, "?");
    assert_ne!(app.overlay, before);
    press_code(&mut app, KeyCode::Esc);
    assert_eq!(app.overlay, before);
}

#[test]
fn explanation_is_fetched_only_for_ended_requests() {
    let mut app = app();
    press_code(&mut app, KeyCode::Enter);
    assert_eq!(press(&mut app, "i"), [], "it runs");
    press_code(&mut app, KeyCode::Esc);
    press(&mut app, "jj");
    press_code(&mut app, KeyCode::Enter);
    let id = sample::request_id(8);
    assert_eq!(press(&mut app, "i"), [Effect::FetchExplain { id }]);
    assert_eq!(update(&mut app, Msg::Tick, frame_context_after(1_000)), [], "asked once");
    update(
        &mut app,
        Msg::Explain { id: sample::request_id(7), text: Ok("another".to_owned()) },
        frame_context(),
    );
    update(
        &mut app,
        Msg::Explain { id, text: Ok("request 8\nAttempts".to_owned()) },
        frame_context(),
    );
    assert_eq!(app.explain.as_ref().unwrap().text, Some(Ok("request 8\nAttempts".to_owned())));
    press(&mut app, "i");
    assert!(matches!(
        &app.overlay,
        Some(Overlay::Request(RequestView { pane: Pane::Timeline, .. }))
    ));
    press_code(&mut app, KeyCode::Esc);
    assert_eq!(app.explain, None, "nothing is held of what is not looked at");
}

#[test]
fn replayed_request_is_named_by_its_title_and_opened_with_one_key() {
    let mut app = app();
    press(&mut app, "n");
    assert_eq!(app.overlay, None);
    let reply = ActionReply {
        ok: true,
        text: ActionMessage::SentAgain {
            original: sample::request_id(8),
            id: sample::request_id(7),
        }
        .into(),
        id: Some(sample::request_id(7)),
    };
    update(&mut app, Msg::ActionResult(Ok(reply)), frame_context());
    assert_eq!(
        app.toast.as_ref().unwrap().text,
        "request …0008 was sent again as …0007; n shows it"
    );
    press(&mut app, "n");
    assert!(
        matches!(&app.overlay, Some(Overlay::Request(look)) if look.id == sample::request_id(7))
    );
}

#[test]
fn ended_requests_count_today_except_those_of_the_demo() {
    let ended = |id| {
        EventKind::Ended {
        id,
        state: RequestState::Done,
        status: Some(200),
        duration_ms: 10,
        usage: Some(
            serde_json::from_str(r#"{"input":10,"cache_read":0,"cache_write_5m":0,"cache_write_1h":0,"output":5,"reasoning":0}"#).unwrap(),
        ),
        cost: None,
        finish: None,
        answer_bytes: 0,
        events: 0,
        error: None,
    }
    };
    let mut app = app();
    update(&mut app, event(42, ended(sample::request_id(101))), frame_context());
    assert_eq!(
        (app.usage.delta.requests, app.usage.delta.usage.input, app.usage.demo_delta),
        (1, 10, 0)
    );
    app.snapshot.as_mut().unwrap().upstreams[0].origin = Origin::Demo;
    update(&mut app, event(43, ended(sample::request_id(102))), frame_context());
    assert_eq!((app.usage.delta.requests, app.usage.demo_delta), (1, 1));
    update(&mut app, Msg::Today(Ok(Box::new(sample::usage_report("key")))), frame_context());
    assert_eq!((app.usage.delta.requests, app.usage.demo_delta), (0, 0), "the ledger has them now");
}

#[test]
fn first_down_key_moves_the_selection_and_clicks_open_problems() {
    let mut app = app();
    press(&mut app, "j");
    assert_eq!(app.list_state().selected, Some(RowId::Request(sample::request_id(102))));
    app.size = (80, 24);
    let click = MouseEvent {
        kind: MouseEventKind::Down(MouseButton::Left),
        column: 20,
        row: 2,
        modifiers: KeyModifiers::NONE,
    };
    update(&mut app, Msg::Mouse(click), frame_context());
    assert!(matches!(app.overlay, Some(Overlay::Problems { .. })));
    press_code(&mut app, KeyCode::Esc);
    assert_eq!(app.overlay, None);
}
