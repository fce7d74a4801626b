//! Watches the lines of a chat or generate stream.

use crate::{
    base::json::{self, JsonErrorKind, JsonRef, is_blank},
    dialect::{Heed, Meter, Summary, fault, shape, tokens::count},
    ir::usage::Usage,
};

#[derive(Default)]
pub(super) struct LineMeter {
    summary: Summary,
    done: bool,
}

/// The counts of a final line; thinking is part of `eval_count`.
pub(super) fn usage(line: JsonRef<'_>) -> Option<Usage> {
    let (input, output) = (count(line, &["prompt_eval_count"]), count(line, &["eval_count"]));
    if input.is_none() && output.is_none() {
        return None;
    }
    Some(Usage { input: input.unwrap_or(0), output: output.unwrap_or(0), ..Usage::default() })
}

impl Meter for LineMeter {
    fn event(&mut self, _name: &[u8], data: &[u8]) -> Heed {
        let (mut content, mut done, mut error) = (false, false, false);
        let json = match json::visit(data, |depth, key, value| match (depth, key) {
            (1, b"done") => done = value.starts_with(b"true"),
            (1, b"error") => {
                error |= matches!(value.first(), Some(b'{' | b'"')) && !is_blank(value)
            }
            (1, b"response" | b"thinking")
            | (2, b"content" | b"images" | b"thinking" | b"tool_calls") => {
                content |= !is_blank(value)
            }
            _ => {}
        }) {
            Ok(json) if data.first() == Some(&b'{') => json,
            Ok(_) => {
                return Heed::Bad(json::JsonError { kind: JsonErrorKind::NotAnObject, offset: 0 });
            }
            Err(bad) => return Heed::Bad(bad),
        };
        if error {
            return Heed::Error(Box::new(fault::told(None, json)));
        }
        if self.summary.model.is_none() {
            self.summary.model = shape::name(json.get("model"));
        }
        if done {
            self.done = true;
            self.summary.usage = usage(json);
            self.summary.finish =
                shape::name(json.get("done_reason")).or_else(|| Some("stop".to_owned()));
            return Heed::Terminal;
        }
        if content { Heed::Content } else { Heed::Nothing }
    }

    fn complete(&self) -> bool {
        self.done
    }

    fn summary(&self) -> Summary {
        self.summary.clone()
    }

    fn terminator(&self) -> Option<&'static [u8]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        let mut meter = LineMeter::default();
        assert_eq!(
            meter.event(
                b"",
                br#"{"model":"m","message":{"role":"assistant","content":""},"done":false}"#
            ),
            Heed::Nothing
        );
        assert_eq!(
            meter.event(
                b"",
                br#"{"model":"m","message":{"role":"assistant","content":"x"},"done":false}"#
            ),
            Heed::Content
        );
        assert_eq!(
            meter.event(b"", br#"{"model":"m","response":"x","done":false}"#),
            Heed::Content
        );
        assert!(
            matches!(meter.event(b"", br#"{"error":"model broke"}"#), Heed::Error(f) if f.message == "model broke")
        );
        assert!(!meter.complete());
        assert_eq!(
            meter.event(
                b"",
                br#"{"model":"m","message":{"content":""},"done":true,"done_reason":"length","prompt_eval_count":3,"eval_count":4}"#
            ),
            Heed::Terminal
        );
        let usage = Usage { input: 3, output: 4, ..Usage::default() };
        assert_eq!(
            meter.summary(),
            Summary {
                usage: Some(usage),
                finish: Some("length".to_owned()),
                model: Some("m".to_owned())
            }
        );
    }
}
