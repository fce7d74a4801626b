//! Watches a stream of chat or completion chunks that is passed through.

use crate::{
    base::json::{grammar::is_blank, reader},
    dialect::{
        errors::read_error,
        event_json, json_body,
        meter::{AnswerSummary, Meter, MeterEvent},
        openai::response_read,
        usage_read,
    },
    ir::{fault::Fault, partial_json::PartialJson},
};

#[derive(Default)]
pub(super) struct ChatMeter {
    summary: AnswerSummary,
    /// Choices with content; `finished_choices` has those that have finished. One bit for each
    /// choice.
    started_choices: u128,
    finished_choices: u128,
    /// Whether the stream had content; `has_calls` says whether some of it was calls.
    has_content: bool,
    has_calls: bool,
    call_arguments: PartialJson,
    done: bool,
}

/// The fields of a chunk, found in the pass that validates it.
#[derive(Default)]
struct ChunkFields<'a> {
    /// The chunk's text from the beginning of a call's `arguments` value.
    arguments: Option<&'a [u8]>,
    has_calls: bool,
    has_content: bool,
    has_choices: bool,
    has_error: bool,
    /// Whether a choice contains an error.
    has_choice_error: bool,
    has_finish_reason: bool,
    has_model: bool,
    has_usage: bool,
    choice_bits: u128,
}

impl<'a> ChunkFields<'a> {
    #[inline]
    fn visit(&mut self, depth: usize, key: &[u8], value: &'a [u8]) {
        match (depth, key) {
            (1, b"choices") => self.has_choices |= !is_blank(value),
            (1, b"error") => self.has_error |= event_json::is_error_value(value),
            (1, b"object") => self.has_error |= value.starts_with(b"\"error\""),
            (1, b"__type") => self.has_error |= !is_blank(value),
            (1, b"model") => self.has_model = true,
            (1, b"usage") => self.has_usage |= !is_blank(value),
            (3, b"finish_reason") => self.has_finish_reason |= !is_blank(value),
            (3, b"index") => self.choice_bits |= choice_bit(value),
            (3, b"error") => self.has_choice_error |= !is_blank(value),
            (3, b"text") => self.has_content |= !is_blank(value),
            (
                4,
                b"audio" | b"content" | b"images" | b"reasoning" | b"reasoning_content"
                | b"reasoning_details" | b"refusal",
            ) => {
                self.has_content |= !is_blank(value);
            }
            (4, b"function_call" | b"tool_calls") => self.has_calls |= !is_blank(value),
            (5 | 7, b"arguments") => self.arguments = Some(value),
            _ => {}
        }
    }
}

impl ChatMeter {
    /// Returns the fault of a stream that ends without a finish reason. Such an end is complete
    /// after text, but neither in the middle of a call nor without content.
    fn unfinished_fault(&self) -> Option<Fault> {
        match (self.has_content, self.has_calls) {
            (false, _) => Some(json_body::empty_stream_fault()),
            (true, true) if !self.call_arguments.is_complete() => {
                Some(json_body::truncated_stream_fault())
            }
            (true, _) => None,
        }
    }
}

impl Meter for ChatMeter {
    fn observe(&mut self, name: &[u8], data: &[u8]) -> MeterEvent {
        if event_json::is_done(data) {
            if self.finished_choices == 0
                && let Some(fault) = self.unfinished_fault()
            {
                return MeterEvent::Error(Box::new(fault));
            }
            self.done = true;
            return MeterEvent::Terminal;
        }
        let mut marks = ChunkFields::default();
        let visited = reader::visit(data, |depth, key, value| marks.visit(depth, key, value));
        let json = match event_json::check(name, data, visited) {
            Ok(json) => json,
            Err(problem) => return problem.into(),
        };
        if marks.has_error || name == b"error" {
            return MeterEvent::Error(Box::new(read_error::from_json(None, json)));
        }
        if marks.has_choices {
            self.started_choices |= marks.choice_bits.max(1);
        }
        if marks.has_calls {
            self.has_calls = true;
            if let Some(arguments) = marks.arguments {
                self.call_arguments.feed_quoted(arguments);
            }
        }
        let content = marks.has_content || marks.has_calls;
        self.has_content |= content;
        if marks.has_finish_reason || marks.has_choice_error {
            for choice in json.get("choices").into_iter().flat_map(reader::JsonRef::items) {
                if let Some(fault) = response_read::choice_error(choice) {
                    return MeterEvent::Error(Box::new(fault));
                }
                if let Some(reason) = json_body::clean_name(choice.get("finish_reason")) {
                    let index =
                        choice.get("index").map_or(1, |index| choice_bit(index.text().as_bytes()));
                    self.finished_choices |= index;
                    if index == 1 || self.summary.finish_reason.is_none() {
                        self.summary.finish_reason = Some(reason);
                    }
                }
            }
        }
        if marks.has_usage {
            // Usage is cumulative if several chunks report it.
            self.summary.usage =
                json.get("usage").and_then(usage_read::read_openai).or(self.summary.usage);
        }
        if marks.has_model && self.summary.model.is_none() {
            self.summary.model = json_body::clean_name(json.get("model"));
        }
        match marks {
            _ if content => MeterEvent::Content,
            ChunkFields { has_usage: true, has_choices: false, .. } => MeterEvent::UsageOnly,
            _ => MeterEvent::Metadata,
        }
    }

    fn is_complete(&self) -> bool {
        self.done
            || self.finished_choices != 0
                && self.finished_choices & self.started_choices == self.started_choices
    }

    fn summary(&self) -> AnswerSummary {
        self.summary.clone()
    }

    fn missing_terminator(&self) -> Option<&'static [u8]> {
        (!self.done && self.is_complete()).then_some(b"data: [DONE]\n\n")
    }
}

/// Returns the bit of a choice's index; indexes beyond the last bit share it.
fn choice_bit(value: &[u8]) -> u128 {
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).take(3);
    let index = digits.fold(0_u32, |n, b| n * 10 + u32::from(b - b'0'));
    1 << index.min(127)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{fault::FaultKind, usage::Usage};

    fn heeds(events: &[&str]) -> (ChatMeter, Vec<MeterEvent>) {
        let mut meter = ChatMeter::default();
        let meter_events =
            events.iter().map(|event| meter.observe(b"", event.as_bytes())).collect();
        (meter, meter_events)
    }

    #[test]
    fn content_events_are_distinguished_from_others() {
        for (event, want) in [
            (
                r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#,
                MeterEvent::Metadata,
            ),
            (r#"{"choices":[],"prompt_filter_results":[]}"#, MeterEvent::Metadata),
            (
                r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
                MeterEvent::UsageOnly,
            ),
            (
                r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#,
                MeterEvent::Metadata,
            ),
            (r#"{"choices":[{"delta":{"content":"x"}}]}"#, MeterEvent::Content),
            (
                r#"{"choices":[{"delta":{"content":null,"reasoning_content":"x"}}]}"#,
                MeterEvent::Content,
            ),
            (
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c"}]}}]}"#,
                MeterEvent::Content,
            ),
            (r#"{"choices":[{"delta":{"refusal":"no"}}]}"#, MeterEvent::Content),
            (r#"{"choices":[{"text":"x"}]}"#, MeterEvent::Content),
            (r#"{"choices":[{"text":""}]}"#, MeterEvent::Metadata),
        ] {
            assert_eq!(heeds(&[event]).1, [want], "{event}");
        }
    }

    #[test]
    fn missing_finish_reason_is_complete_after_text_but_not_in_a_call() {
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
            let (meter, meter_events) = heeds(events);
            assert_eq!(
                (meter.is_complete(), meter_events.last() == Some(&MeterEvent::Terminal)),
                (ends, ends),
                "{events:?}"
            );
        }
    }

    #[test]
    fn stream_ends_when_every_choice_has_finished() {
        let finish = |i: u8| {
            format!(r#"{{"choices":[{{"index":{i},"delta":{{}},"finish_reason":"stop"}}]}}"#)
        };
        let text = |i: u8| format!(r#"{{"choices":[{{"index":{i},"delta":{{"content":"x"}}}}]}}"#);
        assert!(!heeds(&[&text(0)]).0.is_complete());
        assert!(heeds(&[&text(0), &finish(0)]).0.is_complete());
        assert!(!heeds(&[&text(0), &text(1), &finish(0)]).0.is_complete());
        assert!(heeds(&[&text(0), &text(1), &finish(0), &finish(1)]).0.is_complete());
        assert_eq!(heeds(&[&finish(0)]).0.missing_terminator(), Some(&b"data: [DONE]\n\n"[..]));
        assert_eq!(heeds(&[&finish(0), "[DONE]"]).0.missing_terminator(), None);
    }

    #[test]
    fn last_usage_counts() {
        let (meter, _) = heeds(&[
            r#"{"model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}"#,
            r#"{"model":"n","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":"3"}}"#,
        ]);
        let want = Usage { input: 5, output: 3, ..Usage::default() };
        assert_eq!(
            meter.summary(),
            AnswerSummary { usage: Some(want), finish_reason: None, model: Some("m".to_owned()) }
        );
    }

    #[test]
    fn errors_are_found_in_every_format() {
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
            let MeterEvent::Error(fault) =
                ChatMeter::default().observe(name.as_bytes(), event.as_bytes())
            else {
                panic!("no error: {event}")
            };
            assert_eq!((fault.status, fault.message.as_str()), (status, "m"), "{event}");
            assert!(matches!(fault.kind, FaultKind::Server | FaultKind::RateLimited));
        }
        let failed = r#"{"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#;
        assert!(
            matches!(&heeds(&[failed]).1[..], [MeterEvent::Error(fault)] if fault.message.contains("with an error"))
        );
        assert!(matches!(heeds(&[r#"{"choices": [}"#]).1[0], MeterEvent::Invalid(_)));
        assert!(matches!(heeds(&["[1]"]).1[0], MeterEvent::Invalid(_)));
        assert_eq!(heeds(&[r#"{"error":null,"choices":[]}"#]).1, [MeterEvent::Metadata]);
    }
}
