//! Watches a stream of chat or completion chunks.

use crate::{
    base::json::{self, JsonErrorKind, is_blank},
    dialect::{Heed, Meter, Summary, fault, openai::response_read, shape, tokens},
    ir::{fault::Fault, progress::PartialJson},
};

#[derive(Default)]
pub(super) struct ChatMeter {
    summary: Summary,
    /// Choices that have said something, and those that have finished; one bit each.
    seen: u128,
    finished: u128,
    /// Something was said; and what of it were calls.
    content: bool,
    called: bool,
    arguments: PartialJson,
    done: bool,
}

/// What a chunk holds, found in the pass that proves it well formed.
#[derive(Default)]
struct Marks<'a> {
    /// Arguments of a call, from their beginning on.
    arguments: Option<&'a [u8]>,
    calls: bool,
    content: bool,
    choices: bool,
    error: bool,
    /// Of a choice.
    failure: bool,
    finish: bool,
    model: bool,
    usage: bool,
    indexes: u128,
}

impl<'a> Marks<'a> {
    #[inline]
    fn key(&mut self, depth: usize, key: &[u8], value: &'a [u8]) {
        match (depth, key) {
            (1, b"choices") => self.choices |= !is_blank(value),
            (1, b"error") => {
                self.error |= matches!(value.first(), Some(b'{' | b'"')) && !is_blank(value)
            }
            (1, b"object") => self.error |= value.starts_with(b"\"error\""),
            (1, b"__type") => self.error |= !is_blank(value),
            (1, b"model") => self.model = true,
            (1, b"usage") => self.usage |= !is_blank(value),
            (3, b"finish_reason") => self.finish |= !is_blank(value),
            (3, b"index") => self.indexes |= bit(value),
            (3, b"error") => self.failure |= !is_blank(value),
            (3, b"text") => self.content |= !is_blank(value),
            (
                4,
                b"audio" | b"content" | b"images" | b"reasoning" | b"reasoning_content"
                | b"reasoning_details" | b"refusal",
            ) => {
                self.content |= !is_blank(value);
            }
            (4, b"function_call" | b"tool_calls") => self.calls |= !is_blank(value),
            (5 | 7, b"arguments") => self.arguments = Some(value),
            _ => {}
        }
    }
}

impl ChatMeter {
    /// What is wrong with an end that comes without a reason: it is enough after text, but not in
    /// the middle of a call, nor where nothing was said.
    fn unsaid(&self) -> Option<Fault> {
        match (self.content, self.called) {
            (false, _) => Some(shape::empty()),
            (true, true) if !self.arguments.is_complete() => Some(shape::cut()),
            (true, _) => None,
        }
    }
}

impl Meter for ChatMeter {
    fn event(&mut self, name: &[u8], data: &[u8]) -> Heed {
        if data.len() < 20 && data.trim_ascii() == b"[DONE]" {
            if self.finished == 0
                && let Some(fault) = self.unsaid()
            {
                return Heed::Error(Box::new(fault));
            }
            self.done = true;
            return Heed::Terminal;
        }
        let mut marks = Marks::default();
        let json = match json::visit(data, |depth, key, value| marks.key(depth, key, value)) {
            Ok(json) if data.trim_ascii_start().first() == Some(&b'{') => json,
            Ok(json) if fault::is_error(json) => {
                return Heed::Error(Box::new(fault::told(None, json)));
            }
            Ok(_) => {
                return Heed::Bad(json::JsonError { kind: JsonErrorKind::NotAnObject, offset: 0 });
            }
            Err(_) if name == b"error" && !data.starts_with(b"{") => {
                return Heed::Error(Box::new(fault::said(data)));
            }
            Err(bad) => return Heed::Bad(bad),
        };
        if marks.error || name == b"error" {
            return Heed::Error(Box::new(fault::told(None, json)));
        }
        if marks.choices {
            self.seen |= marks.indexes.max(1);
        }
        if marks.calls {
            self.called = true;
            if let Some(arguments) = marks.arguments {
                self.arguments.feed_quoted(arguments);
            }
        }
        let content = marks.content || marks.calls;
        self.content |= content;
        if marks.finish || marks.failure {
            for choice in json.get("choices").into_iter().flat_map(json::JsonRef::items) {
                if let Some(fault) = response_read::failure(choice) {
                    return Heed::Error(Box::new(fault));
                }
                if let Some(reason) = shape::name(choice.get("finish_reason")) {
                    let index = choice.get("index").map_or(1, |index| bit(index.text().as_bytes()));
                    self.finished |= index;
                    if index == 1 || self.summary.finish.is_none() {
                        self.summary.finish = Some(reason);
                    }
                }
            }
        }
        if marks.usage {
            // Cumulative where there are several.
            self.summary.usage = json.get("usage").and_then(tokens::openai).or(self.summary.usage);
        }
        if marks.model && self.summary.model.is_none() {
            self.summary.model = shape::name(json.get("model"));
        }
        match marks {
            _ if content => Heed::Content,
            Marks { usage: true, choices: false, .. } => Heed::UsageOnly,
            _ => Heed::Nothing,
        }
    }

    fn complete(&self) -> bool {
        self.done || self.finished != 0 && self.finished & self.seen == self.seen
    }

    fn summary(&self) -> Summary {
        self.summary.clone()
    }

    fn terminator(&self) -> Option<&'static [u8]> {
        (!self.done && self.complete()).then_some(b"data: [DONE]\n\n")
    }
}

/// The bit of a choice's index; indexes beyond the last bit share it.
fn bit(value: &[u8]) -> u128 {
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).take(3);
    let index = digits.fold(0_u32, |n, b| n * 10 + u32::from(b - b'0'));
    1 << index.min(127)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{fault::FaultKind, usage::Usage};

    fn heeds(events: &[&str]) -> (ChatMeter, Vec<Heed>) {
        let mut meter = ChatMeter::default();
        let heeds = events.iter().map(|event| meter.event(b"", event.as_bytes())).collect();
        (meter, heeds)
    }

    #[test]
    fn what_is_content_and_what_is_not() {
        for (event, want) in [
            (
                r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#,
                Heed::Nothing,
            ),
            (r#"{"choices":[],"prompt_filter_results":[]}"#, Heed::Nothing),
            (
                r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
                Heed::UsageOnly,
            ),
            (
                r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#,
                Heed::Nothing,
            ),
            (r#"{"choices":[{"delta":{"content":"x"}}]}"#, Heed::Content),
            (r#"{"choices":[{"delta":{"content":null,"reasoning_content":"x"}}]}"#, Heed::Content),
            (r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c"}]}}]}"#, Heed::Content),
            (r#"{"choices":[{"delta":{"refusal":"no"}}]}"#, Heed::Content),
            (r#"{"choices":[{"text":"x"}]}"#, Heed::Content),
            (r#"{"choices":[{"text":""}]}"#, Heed::Nothing),
        ] {
            assert_eq!(heeds(&[event]).1, [want], "{event}");
        }
    }

    #[test]
    fn an_end_without_a_reason_is_enough_after_text_but_not_inside_a_call() {
        let call = |arguments: &str| {
            let arguments = serde_json::to_string(arguments).expect("a string");
            format!(
                r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":0,"function":{{"arguments":{arguments}}}}}]}}}}]}}"#
            )
        };
        let text = r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#;
        let role = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
        let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        let (half, rest) = (call("{\"city\": \"}"), call("\"}"));
        for (events, ends) in [
            (&[text, " [DONE] "][..], true),
            (&[role, "[DONE]"], false),
            (&["[DONE]"], false),
            (&[stop, "[DONE]"], true),
            (&[&half, "[DONE]"], false),
            (&[&half, &rest, "[DONE]"], true),
            (&[&half, stop, "[DONE]"], true),
        ] {
            let (meter, heeds) = heeds(events);
            assert_eq!(
                (meter.complete(), heeds.last() == Some(&Heed::Terminal)),
                (ends, ends),
                "{events:?}"
            );
        }
    }

    #[test]
    fn a_stream_ends_when_every_choice_has_finished() {
        let finish = |i: u8| {
            format!(r#"{{"choices":[{{"index":{i},"delta":{{}},"finish_reason":"stop"}}]}}"#)
        };
        let text = |i: u8| format!(r#"{{"choices":[{{"index":{i},"delta":{{"content":"x"}}}}]}}"#);
        assert!(!heeds(&[&text(0)]).0.complete());
        assert!(heeds(&[&text(0), &finish(0)]).0.complete());
        assert!(!heeds(&[&text(0), &text(1), &finish(0)]).0.complete());
        assert!(heeds(&[&text(0), &text(1), &finish(0), &finish(1)]).0.complete());
        assert_eq!(heeds(&[&finish(0)]).0.terminator(), Some(&b"data: [DONE]\n\n"[..]));
        assert_eq!(heeds(&[&finish(0), "[DONE]"]).0.terminator(), None);
    }

    #[test]
    fn the_last_usage_counts() {
        let (meter, _) = heeds(&[
            r#"{"model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}"#,
            r#"{"model":"n","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":"3"}}"#,
        ]);
        let want = Usage { input: 5, output: 3, ..Usage::default() };
        assert_eq!(
            meter.summary(),
            Summary { usage: Some(want), finish: None, model: Some("m".to_owned()) }
        );
    }

    #[test]
    fn errors_are_found_in_every_dress() {
        for (name, event, status) in [
            ("", r#"{"error":{"message":"m","type":"server_error","code":"overloaded"}}"#, 529),
            ("", r#"{"error":"m"}"#, 502),
            (
                "",
                r#"{"id":"x","choices":[{"delta":{"content":""},"finish_reason":"error"}],"error":{"code":503,"message":"m"}}"#,
                503,
            ),
            ("error", r#"{"message":"m"}"#, 502),
            ("", r#"{"object":"error","message":"m","code":429}"#, 429),
            ("error", "m", 502),
            ("", r#"[{"error":{"message":"m","code":503}}]"#, 503),
            ("", r#"{"message":"m","__type":"InternalServerException"}"#, 502),
            (
                "",
                r#"{"choices":[{"delta":{},"finish_reason":null,"error":{"message":"m","code":500}}]}"#,
                500,
            ),
            ("", r#"{"choices":[{"delta":{},"error":"m"}]}"#, 502),
        ] {
            let Heed::Error(fault) = ChatMeter::default().event(name.as_bytes(), event.as_bytes())
            else {
                panic!("no error: {event}")
            };
            assert_eq!((fault.status, fault.message.as_str()), (status, "m"), "{event}");
            assert!(matches!(fault.kind, FaultKind::Server | FaultKind::RateLimited));
        }
        let failed = r#"{"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#;
        assert!(
            matches!(&heeds(&[failed]).1[..], [Heed::Error(fault)] if fault.message.contains("with an error"))
        );
        assert!(matches!(heeds(&[r#"{"choices": [}"#]).1[0], Heed::Bad(_)));
        assert!(matches!(heeds(&["[1]"]).1[0], Heed::Bad(_)));
        assert_eq!(heeds(&[r#"{"error":null,"choices":[]}"#]).1, [Heed::Nothing]);
    }
}
