//! Watches the lines of a chat or generate stream that is passed through.

use crate::{
    base::json::{
        grammar::{JsonError, JsonErrorKind, is_blank},
        reader::{self, JsonRef},
    },
    dialect::{
        errors::read_error,
        event_json, json_body,
        meter::{AnswerSummary, Meter, MeterEvent},
        usage_read::count_at,
    },
    ir::usage::Usage,
};

#[derive(Default)]
pub(super) struct LineMeter {
    summary: AnswerSummary,
    done: bool,
}

/// Reads the counts of a final line; `eval_count` includes reasoning tokens.
pub(super) fn read_usage(line: JsonRef<'_>) -> Option<Usage> {
    let (input, output) = (count_at(line, &["prompt_eval_count"]), count_at(line, &["eval_count"]));
    if input.is_none() && output.is_none() {
        return None;
    }
    Some(Usage { input: input.unwrap_or(0), output: output.unwrap_or(0), ..Usage::default() })
}

impl Meter for LineMeter {
    fn observe(&mut self, _name: &[u8], data: &[u8]) -> MeterEvent {
        let (mut content, mut done, mut error) = (false, false, false);
        let json = match reader::visit(data, |depth, key, value| match (depth, key) {
            (1, b"done") => done = value.starts_with(b"true"),
            (1, b"error") => error |= event_json::is_error_value(value),
            (1, b"response" | b"thinking")
            | (2, b"content" | b"images" | b"thinking" | b"tool_calls") => {
                content |= !is_blank(value);
            }
            _ => {}
        }) {
            Ok(json) if data.first() == Some(&b'{') => json,
            Ok(_) => {
                return MeterEvent::Invalid(JsonError {
                    kind: JsonErrorKind::NotAnObject,
                    offset: 0,
                });
            }
            Err(bad) => return MeterEvent::Invalid(bad),
        };
        if error {
            return MeterEvent::Error(Box::new(read_error::from_json(None, json)));
        }
        if self.summary.model.is_none() {
            self.summary.model = json_body::clean_name(json.get("model"));
        }
        if done {
            self.done = true;
            self.summary.usage = read_usage(json);
            self.summary.finish_reason =
                json_body::clean_name(json.get("done_reason")).or_else(|| Some("stop".to_owned()));
            return MeterEvent::Terminal;
        }
        if content { MeterEvent::Content } else { MeterEvent::Metadata }
    }

    fn is_complete(&self) -> bool {
        self.done
    }

    fn summary(&self) -> AnswerSummary {
        self.summary.clone()
    }

    fn missing_terminator(&self) -> Option<&'static [u8]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_lines_are_distinguished_from_others() {
        let mut meter = LineMeter::default();
        assert_eq!(
            meter.observe(
                b"",
                br#"{"model":"m","message":{"role":"assistant","content":""},"done":false}"#
            ),
            MeterEvent::Metadata
        );
        assert_eq!(
            meter.observe(
                b"",
                br#"{"model":"m","message":{"role":"assistant","content":"x"},"done":false}"#
            ),
            MeterEvent::Content
        );
        assert_eq!(
            meter.observe(b"", br#"{"model":"m","response":"x","done":false}"#),
            MeterEvent::Content
        );
        assert!(
            matches!(meter.observe(b"", br#"{"error":"model broke"}"#), MeterEvent::Error(f) if f.message == "model broke")
        );
        assert!(!meter.is_complete());
        assert_eq!(
            meter.observe(
                b"",
                br#"{"model":"m","message":{"content":""},"done":true,"done_reason":"length","prompt_eval_count":3,"eval_count":4}"#
            ),
            MeterEvent::Terminal
        );
        let usage = Usage { input: 3, output: 4, ..Usage::default() };
        assert_eq!(
            meter.summary(),
            AnswerSummary {
                usage: Some(usage),
                finish_reason: Some("length".to_owned()),
                model: Some("m".to_owned())
            }
        );
    }
}
