//! Watches a stream of response events.

use crate::{
    base::json::{self, JsonErrorKind, JsonRef, is_blank},
    dialect::{
        Heed, Meter, Summary, fault,
        responses::response_read::{cancelled, failure},
        shape, tokens,
    },
};

#[derive(Default)]
pub(super) struct ResponseMeter {
    summary: Summary,
    id: Option<String>,
    done: bool,
}

/// What an event holds, found in the pass that proves it well formed.
#[derive(Default)]
struct Marks<'a> {
    kind: &'a [u8],
    error: bool,
    said: bool,
}

/// Usage, status (why, where it is incomplete) and model of a response object.
pub(super) fn summary(response: JsonRef<'_>) -> Summary {
    let status = shape::name(response.get("status"));
    let reason = shape::name(response.member_at(&["incomplete_details", "reason"]));
    Summary {
        usage: response.get("usage").and_then(tokens::openai),
        finish: reason.or(status),
        model: shape::name(response.get("model")),
    }
}

impl Meter for ResponseMeter {
    fn event(&mut self, name: &[u8], data: &[u8]) -> Heed {
        if data.len() < 20 && data.trim_ascii() == b"[DONE]" {
            return Heed::Hide;
        }
        let mut marks = Marks::default();
        let json = match json::visit(data, |depth, key, value| match (depth, key) {
            (1, b"type") => marks.kind = value,
            (1, b"error") => {
                marks.error |= matches!(value.first(), Some(b'{' | b'"')) && !is_blank(value)
            }
            (1, b"__type") => marks.error |= !is_blank(value),
            (1, b"delta" | b"partial_image_b64" | b"text") => marks.said |= !is_blank(value),
            _ => {}
        }) {
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
        let kind = marks
            .kind
            .get(1..)
            .and_then(|rest| rest.split(|&b| b == b'"').next())
            .unwrap_or_default();
        if kind.ends_with(b".delta")
            || kind.ends_with(b".partial_image")
            || kind.ends_with(b".text.done")
        {
            return if marks.said { Heed::Content } else { Heed::Nothing };
        }
        if marks.error || name == b"error" || kind == b"error" {
            return Heed::Error(Box::new(fault::told(None, json)));
        }
        match kind {
            b"response.completed" | b"response.incomplete" | b"response.cancelled" => {
                if let Some(response) = json.get("response") {
                    if let Some(fault) = failure(response) {
                        self.summary.usage = summary(response).usage.or(self.summary.usage);
                        return Heed::Error(Box::new(fault));
                    }
                    let told = summary(response);
                    self.summary =
                        Summary { model: told.model.or(self.summary.model.take()), ..told };
                }
                if kind == b"response.cancelled" && self.summary.finish.is_none() {
                    return Heed::Error(Box::new(cancelled()));
                }
                self.done = true;
                Heed::Terminal
            }
            b"response.failed" => {
                if let Some(response) = json.get("response") {
                    self.summary.usage = summary(response).usage.or(self.summary.usage);
                }
                Heed::Error(Box::new(fault::told(None, json.get("response").unwrap_or(json))))
            }
            b"response.output_item.added" => {
                match json.member_at(&["item", "type"]).and_then(JsonRef::str).as_deref() {
                    None | Some("message" | "reasoning") => Heed::Nothing,
                    Some(_) => Heed::Content,
                }
            }
            b"response.output_item.done" => Heed::Content,
            _ => {
                if self.id.is_none() {
                    self.id = shape::name(json.member_at(&["response", "id"]));
                }
                if self.summary.model.is_none() {
                    self.summary.model = shape::name(json.member_at(&["response", "model"]));
                }
                Heed::Nothing
            }
        }
    }

    fn complete(&self) -> bool {
        self.done
    }

    fn summary(&self) -> Summary {
        self.summary.clone()
    }

    fn answer_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    fn terminator(&self) -> Option<&'static [u8]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::usage::Usage;

    #[test]
    fn what_is_content_and_what_is_not() {
        for (event, want) in [
            (r#"{"type":"response.created","response":{"model":"m","error":null}}"#, Heed::Nothing),
            (r#"{"type":"response.output_item.added","item":{"type":"message"}}"#, Heed::Nothing),
            (
                r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"f"}}"#,
                Heed::Content,
            ),
            (r#"{"type":"response.output_text.delta","delta":"x"}"#, Heed::Content),
            (r#"{"type":"response.output_text.delta","delta":""}"#, Heed::Nothing),
            (r#"{"type": "response.reasoning_summary_text.delta","delta":"x"}"#, Heed::Content),
            (r#"{"type":"response.completed","response":{}}"#, Heed::Terminal),
            ("[DONE]", Heed::Hide),
        ] {
            assert_eq!(ResponseMeter::default().event(b"", event.as_bytes()), want, "{event}");
        }
        for (event, status) in [
            (r#"{"type":"error","code":"server_error","message":"m","sequence_number":99}"#, 502),
            (r#"{"type":"error","code":"rate_limit_exceeded","message":"m"}"#, 429),
            (
                r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"rate_limit_exceeded","message":"m"}}}"#,
                429,
            ),
            (
                r#"{"type":"response.completed","response":{"status":"failed","error":{"code":"server_error","message":"m"}}}"#,
                502,
            ),
            (r#"[{"error":{"message":"m"}}]"#, 502),
            (r#"{"message":"m","__type":"InternalServerException"}"#, 502),
        ] {
            assert!(
                matches!(ResponseMeter::default().event(b"", event.as_bytes()), Heed::Error(f) if f.status == status && f.message == "m"),
                "{event}"
            );
        }
    }

    #[test]
    fn a_response_that_was_cancelled_is_no_answer() {
        for event in [
            r#"{"type":"response.cancelled","response":{"status":"cancelled","error":null}}"#,
            r#"{"type":"response.cancelled"}"#,
        ] {
            let mut meter = ResponseMeter::default();
            assert!(
                matches!(meter.event(b"", event.as_bytes()), Heed::Error(fault) if fault.message.contains("cancelled")),
                "{event}"
            );
            assert!(!meter.complete());
        }
    }

    #[test]
    fn the_terminal_event_tells_usage_and_finish() {
        let mut meter = ResponseMeter::default();
        meter.event(b"", br#"{"type":"response.created","response":{"model":"m"}}"#);
        meter.event(b"", br#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":1},"output_tokens":4,"output_tokens_details":{"reasoning_tokens":3}}}}"#);
        let usage = Usage { input: 4, cache_read: 1, output: 1, reasoning: 3, ..Usage::default() };
        assert_eq!(
            meter.summary(),
            Summary {
                usage: Some(usage),
                finish: Some("max_output_tokens".to_owned()),
                model: Some("m".to_owned())
            }
        );
        assert!(meter.complete());
    }
}
