use proptest::prelude::*;

use crate::dialect::passthrough::*;
use crate::ir::{fault::ProxyErrorKind, usage::Usage};

/// A stream as it was forwarded, and the facts found in it.
#[derive(Debug, PartialEq)]
struct PassthroughResult {
    out: String,
    ending: StreamEnd,
    error: Option<Fault>,
    summary: AnswerSummary,
    content: u32,
}

fn run(dialect: Dialect, framing: Framing, pieces: &[&[u8]]) -> PassthroughResult {
    run_op(dialect, framing, false, pieces)
}

fn run_op(dialect: Dialect, framing: Framing, hide: bool, pieces: &[&[u8]]) -> PassthroughResult {
    let mut passthrough = Passthrough::new(dialect, Op::Chat, framing, hide);
    let (mut out, mut error) = (Vec::new(), None);
    for piece in pieces {
        let step = passthrough.feed(Bytes::copy_from_slice(piece), &mut out);
        error = error.or(step.error.map(|fault| *fault));
    }
    let ending = passthrough.finish(&mut out);
    let out = String::from_utf8_lossy(&out.concat()).into_owned();
    PassthroughResult {
        out,
        ending,
        error,
        summary: passthrough.summary(),
        content: passthrough.content_events(),
    }
}

const OPENAI_STREAM: &str = concat!(
    "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"w\u{f6}rld \u{1f389}\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}\n\n",
    "data: [DONE]\n\n",
);

const ANTHROPIC_STREAM: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":11,\"output_tokens\":1}}}\n\n",
    "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":7}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

const GEMINI_STREAM: &str = concat!(
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}\r\n\r\n",
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"b\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":11,\"candidatesTokenCount\":7}}\r\n\r\n",
);

fn usage() -> Option<Usage> {
    Some(Usage { input: 11, output: 7, ..Usage::default() })
}

#[test]
fn canonical_streams_pass_unchanged_in_the_same_chunks() {
    for (dialect, text) in [
        (Dialect::Openai, OPENAI_STREAM),
        (Dialect::Anthropic, ANTHROPIC_STREAM),
        (Dialect::Gemini, GEMINI_STREAM),
    ] {
        let got = run(dialect, Framing::Sse, &[text.as_bytes()]);
        assert_eq!(
            (got.out.as_str(), got.ending, got.error, got.summary.usage),
            (text, StreamEnd::Complete, None, usage()),
            "{dialect}"
        );
        let chunk = Bytes::from_static(text.as_bytes());
        let mut out = Vec::new();
        let step =
            Passthrough::new(dialect, Op::Chat, Framing::Sse, false).feed(chunk.clone(), &mut out);
        assert!(step.has_content && step.error.is_none());
        assert_eq!((out.len(), out[0].as_ptr()), (1, chunk.as_ptr()), "{dialect}");
    }
}

#[test]
fn missing_stream_terminator_is_added() {
    let got = run(
        Dialect::Openai,
        Framing::Sse,
        &[OPENAI_STREAM.trim_end_matches("data: [DONE]\n\n").as_bytes()],
    );
    assert_eq!((got.out.as_str(), got.ending), (OPENAI_STREAM, StreamEnd::Complete));
    let cut = ANTHROPIC_STREAM.split("event: message_stop").next().expect("a head");
    let got = run(Dialect::Anthropic, Framing::Sse, &[cut.as_bytes()]);
    assert_eq!((got.out.as_str(), got.ending), (ANTHROPIC_STREAM, StreamEnd::Complete));
}

#[test]
fn terminator_is_written_in_canonical_form() {
    let odd = OPENAI_STREAM.replace("data: [DONE]\n", "data:   [DONE]  \n");
    let got = run(Dialect::Openai, Framing::Sse, &[odd.as_bytes()]);
    assert_eq!((got.out.as_str(), got.ending), (OPENAI_STREAM, StreamEnd::Complete));
}

#[test]
fn missing_usage_is_added_and_nothing_else_changes() {
    let without = ANTHROPIC_STREAM
        .replace(",\"usage\":{\"input_tokens\":11,\"output_tokens\":1}", "")
        .replace(",\"usage\":{\"output_tokens\":7}", "");
    let with = ANTHROPIC_STREAM
        .replace("11,\"output_tokens\":1}", "0,\"output_tokens\":0}")
        .replace("\"output_tokens\":7", "\"output_tokens\":0");
    for size in [1, 17, 4096] {
        let pieces: Vec<&[u8]> = without.as_bytes().chunks(size).collect();
        let got = run(Dialect::Anthropic, Framing::Sse, &pieces);
        assert_eq!(
            (got.out.as_str(), got.ending, got.summary.usage),
            (with.as_str(), StreamEnd::Complete, None),
            "{size}"
        );
    }
}

#[test]
fn array_closed_too_early_is_left_open_for_the_error() {
    let one = r#"[{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}"#;
    for (body, left) in [(format!("{one}\n]\n"), one), ("[]".to_owned(), "")] {
        let mut passthrough =
            Passthrough::new(Dialect::Gemini, Op::Chat, Framing::JsonArray, false);
        let mut out = Vec::new();
        passthrough.feed(body.clone().into(), &mut out);
        assert_eq!(
            (passthrough.finish(&mut out), String::from_utf8_lossy(&out.concat()).as_ref()),
            (StreamEnd::Truncated, left),
            "{body}"
        );
        out.push(passthrough.error_frame(&ProxyError::new(ProxyErrorKind::Upstream, "cut"), "r"));
        let elements: Vec<serde_json::Value> =
            serde_json::from_slice(&out.concat()).expect("an array");
        assert_eq!(elements.last().expect("an error")["error"]["message"], "cut");
    }
}

#[test]
fn cut_stream_is_truncated_and_its_partial_event_dropped() {
    let first = OPENAI_STREAM.split_inclusive("\n\n").take(2).collect::<String>();
    for cut in [first.clone(), format!("{first}data: {{\"id\":\"c\",\"choi")] {
        let got = run(Dialect::Openai, Framing::Sse, &[cut.as_bytes()]);
        assert_eq!((got.out, got.ending, got.content), (first.clone(), StreamEnd::Truncated, 1));
    }
    assert_eq!(run(Dialect::Openai, Framing::Sse, &[]).ending, StreamEnd::Truncated);
}

#[test]
fn complete_last_event_without_a_blank_line_is_passed() {
    for (dialect, text) in [
        (Dialect::Openai, OPENAI_STREAM),
        (Dialect::Anthropic, ANTHROPIC_STREAM),
        (Dialect::Gemini, GEMINI_STREAM),
    ] {
        let got = run(dialect, Framing::Sse, &[text.trim_end().as_bytes()]);
        assert_eq!((got.ending, got.summary.usage), (StreamEnd::Complete, usage()), "{dialect}");
        assert!(got.out.ends_with("\n\n"), "{dialect}");
    }
}

#[test]
fn unframed_error_after_the_events_is_read() {
    let first = OPENAI_STREAM.split_inclusive("\n\n").take(2).collect::<String>();
    for (rest, words) in [
        ("{\"error\":{\"message\":\"evil\"}}\n", Some("evil")),
        ("{\n  \"error\": {\n    \"message\": \"evil\"\n  }\n}", Some("evil")),
        ("{\"error\":{\"mess", None),
        ("upstream connect error\n", None),
    ] {
        let mut passthrough = Passthrough::new(Dialect::Openai, Op::Chat, Framing::Sse, false);
        let mut out = Vec::new();
        passthrough.feed(format!("{first}{rest}").into(), &mut out);
        assert_eq!(
            (passthrough.finish(&mut out), out.concat()),
            (StreamEnd::Truncated, first.clone().into_bytes()),
            "{rest}"
        );
        assert_eq!(
            passthrough.take_trailing_error().map(|fault| fault.message).as_deref(),
            words,
            "{rest}"
        );
    }
}

#[test]
fn nothing_follows_an_error_or_the_end() {
    let error = "data: {\"error\":{\"message\":\"Overloaded\",\"type\":\"server_error\",\"code\":\"overloaded\"}}\n\n";
    let first = OPENAI_STREAM.split_inclusive("\n\n").take(2).collect::<String>();
    let got = run(
        Dialect::Openai,
        Framing::Sse,
        &[first.as_bytes(), error.as_bytes(), OPENAI_STREAM.as_bytes()],
    );
    assert_eq!(
        (got.out, got.ending, got.error.map(|e| e.status)),
        (first, StreamEnd::Truncated, Some(529))
    );
    let got = run(
        Dialect::Openai,
        Framing::Sse,
        &[OPENAI_STREAM.as_bytes(), b"data: [DONE]\n\n", OPENAI_STREAM.as_bytes()],
    );
    assert_eq!((got.out.as_str(), got.ending), (OPENAI_STREAM, StreamEnd::Complete));
}

#[test]
fn invalid_events_are_reported_with_number_and_text() {
    let got = run(
        Dialect::Openai,
        Framing::Sse,
        &[b"data: {\"choices\":[]}\n\ndata: {\"id\": \"x\", \"choices\": [}\n\n"],
    );
    assert_eq!(got.out, "data: {\"choices\":[]}\n\n");
    assert_eq!(
        got.error.map(|e| e.message),
        Some("bad stream event 2: expected value at line 1 column 25: {\"id\": \"x\", \"choices\": [}".to_owned())
    );
    for bad in [
        &b"data: \"\xff\"\n\n"[..],
        b"data: {\"a\":\"\xff\"}\n\n",
        b"data: 5\n\n",
        format!("data: {}\n\n", "[".repeat(100_000)).as_bytes(),
    ] {
        assert!(run(Dialect::Openai, Framing::Sse, &[bad]).error.is_some());
    }
}

#[test]
fn frames_that_sdks_cannot_parse_are_rewritten() {
    let event = "{\"type\":\"ping\"}";
    for (dialect, from, want) in [
        (
            Dialect::Openai,
            "id: 1\nretry: 5\ndata: {}\n\n: ping\n\n".to_owned(),
            "data: {}\n\n: ping\n\n".to_owned(),
        ),
        (
            Dialect::Openai,
            "data:\n\ndata: \n\nevent: x\n\ndata: {}\n\n".to_owned(),
            "data: {}\n\n".to_owned(),
        ),
        (
            Dialect::Openai,
            "data: {}\r\rdata: {}\r\n\r\n".to_owned(),
            "data: {}\n\ndata: {}\r\n\r\n".to_owned(),
        ),
        (Dialect::Openai, ": x\n\n\n\ndata:{}\n\n".to_owned(), ": x\n\n\n\ndata:{}\n\n".to_owned()),
        (Dialect::Openai, "\u{feff}data: {}\n\n".to_owned(), "data: {}\n\n".to_owned()),
        (
            Dialect::Gemini,
            "data:{}\n\n: x\n\nid: 1\nevent: y\ndata: {}\n\nfoo\ndata: {\ndata: }\n\n".to_owned(),
            "data: {}\n\ndata: {}\n\ndata: { }\n\n".to_owned(),
        ),
        (Dialect::Gemini, "data: {}\n\ndata: [DONE]\n\n".to_owned(), "data: {}\n\n".to_owned()),
        (
            Dialect::Anthropic,
            format!("data: {event}\n\n"),
            format!("event: ping\ndata: {event}\n\n"),
        ),
        (
            Dialect::Anthropic,
            format!("\u{feff}data: {event}\n\ndata: [DONE]\n\n"),
            format!("event: ping\ndata: {event}\n\n"),
        ),
        (
            Dialect::Anthropic,
            format!("event: ping\n: inside\ndata: {event}\n\n"),
            format!("event: ping\n: inside\ndata: {event}\n\n"),
        ),
        (
            Dialect::Responses,
            "id: 4\ndata: {\"type\":\"a.b\"}\n\n".to_owned(),
            "event: a.b\ndata: {\"type\":\"a.b\"}\n\n".to_owned(),
        ),
    ] {
        assert_eq!(run(dialect, Framing::Sse, &[from.as_bytes()]).out, want, "{dialect} {from:?}");
    }
}

#[test]
fn usage_chunk_not_requested_by_the_client_is_hidden() {
    let got = run_op(Dialect::Openai, Framing::Sse, true, &[OPENAI_STREAM.as_bytes()]);
    assert_eq!((got.out.contains("usage"), got.summary.usage), (false, usage()));
}

#[test]
fn keepalives_are_distinguished_from_progress() {
    let mut passthrough = Passthrough::new(Dialect::Anthropic, Op::Chat, Framing::Sse, false);
    let mut feed =
        |text: &'static str| passthrough.feed(Bytes::from_static(text.as_bytes()), &mut Vec::new());
    assert!(feed(": x\n\n").pings_only);
    assert!(feed("event: ping\ndata: {\"type\":\"ping\"}\n\n").pings_only);
    assert_eq!(feed("event: content"), FeedResult::default());
    let step = feed("_block_stop\ndata: {\"type\":\"content_block_stop\"}\n\n");
    assert_eq!((step.pings_only, step.events, step.has_content), (false, 1, false));
}

#[test]
fn arrays_and_lines_pass_unchanged() {
    let array = "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a]\\\"\"}]}}]}\r\n,\r\n{\"candidates\":[{\"finishReason\":\"STOP\"}]}\r\n]\r\n";
    let got = run(Dialect::Gemini, Framing::JsonArray, &[array.as_bytes()]);
    assert_eq!((got.out.as_str(), got.ending, got.content), (array, StreamEnd::Complete, 1));

    let lines = "{\"model\":\"m\",\"response\":\"a\",\"done\":false}\n{\"done\":true,\"prompt_eval_count\":11,\"eval_count\":7}\n";
    let got = run(Dialect::Ollama, Framing::Ndjson, &[lines.as_bytes()]);
    assert_eq!(
        (got.out.as_str(), got.ending, got.summary.usage),
        (lines, StreamEnd::Complete, usage())
    );
    assert_eq!(
        run(Dialect::Ollama, Framing::Ndjson, &[lines.trim_end().as_bytes()]).ending,
        StreamEnd::Complete
    );
    let got = run(
        Dialect::Ollama,
        Framing::Ndjson,
        &[b"{\"response\":\"a\",\"done\":false}\n{\"error\":\"broke\"}\n"],
    );
    assert_eq!(
        (got.out.as_str(), got.error.map(|e| e.message)),
        ("{\"response\":\"a\",\"done\":false}\n", Some("broke".to_owned()))
    );
}

#[test]
fn error_closes_the_open_array() {
    let error = ProxyError::new(ProxyErrorKind::Upstream, "broke");
    for begun in [
        "",
        "[{\"candidates\":[]}",
        "[{\"candidates\":[]},\n",
        "[{\"candidates\":[]},{\"error\":{\"message\":\"m\"}}",
    ] {
        let mut passthrough =
            Passthrough::new(Dialect::Gemini, Op::Chat, Framing::JsonArray, false);
        let mut out = Vec::new();
        passthrough.feed(Bytes::copy_from_slice(begun.as_bytes()), &mut out);
        assert_eq!(passthrough.finish(&mut out), StreamEnd::Truncated);
        out.push(passthrough.error_frame(&error, "r"));
        let list: Vec<serde_json::Value> =
            serde_json::from_slice(&out.concat()).expect("a whole array");
        assert_eq!(list.last().expect("one")["error"]["message"], "broke", "{begun}");
    }
}

proptest! {
    #[test]
    fn any_cut_gives_equal_bytes_and_summary(
        which in 0_usize..6,
        noise in prop_oneof![Just(""), Just("\u{feff}"), Just(": x\n\n"), Just("data:\n\n"), Just("id: 1\r\rdata: {\"type\":\"ping\"}\r\r\n")],
        eol in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        tail in 0_usize..30,
        cuts in proptest::collection::vec(0_usize..1000, 0..12),
    ) {
        let (dialect, text) = [
            (Dialect::Openai, OPENAI_STREAM), (Dialect::Anthropic, ANTHROPIC_STREAM), (Dialect::Gemini, GEMINI_STREAM), (Dialect::Responses, ANTHROPIC_STREAM),
            (Dialect::Openai, "data: {\"choices\":[]}\n\ndata: {\"error\":\"m\"}\n\ndata: {}\n\n"), (Dialect::Gemini, "data: {\"a\":\ndata: 1}\n\ndata: {]\n\n"),
        ][which];
        let text = format!("{noise}{}", text.replace("\r\n", "\n").replace('\n', eol));
        let bytes = &text.as_bytes()[..text.len() - tail.min(text.len())];
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        prop_assert_eq!(run(dialect, Framing::Sse, &pieces), run(dialect, Framing::Sse, &[bytes]));
    }

    #[test]
    fn any_cut_of_an_array_gives_equal_bytes(cuts in proptest::collection::vec(0_usize..200, 0..12), end in 0_usize..140) {
        let text = " [ {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a]\\\"}\"}]}}]} , 5,\"x\" ,{\"candidates\":[{\"finishReason\":\"STOP\"}]}\n] \n";
        let bytes = &text.as_bytes()[..end.min(text.len())];
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        prop_assert_eq!(run(Dialect::Gemini, Framing::JsonArray, &pieces), run(Dialect::Gemini, Framing::JsonArray, &[bytes]));
    }
}
