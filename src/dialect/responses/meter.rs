//! Observes a stream of response events.

use crate::{
    base::json::{
        grammar::is_blank,
        reader::{self, JsonRef},
    },
    dialect::{
        errors::read_error,
        event_json, json_body,
        meter::{AnswerSummary, Meter, MeterEvent},
        responses::outcome::{cancelled_fault, response_failure, response_summary},
    },
};

#[derive(Default)]
pub(super) struct ResponseMeter {
    summary: AnswerSummary,
    id: Option<String>,
    done: bool,
}

/// The fields of an event, found in the pass that also validates its JSON.
#[derive(Default)]
struct ResponseEventFields<'a> {
    kind: &'a [u8],
    has_error: bool,
    has_content: bool,
}

impl Meter for ResponseMeter {
    fn observe(&mut self, name: &[u8], data: &[u8]) -> MeterEvent {
        if event_json::is_done(data) {
            return MeterEvent::Drop;
        }
        let mut marks = ResponseEventFields::default();
        let visited = reader::visit(data, |depth, key, value| match (depth, key) {
            (1, b"type") => marks.kind = value,
            (1, b"error") => marks.has_error |= event_json::is_error_value(value),
            (1, b"__type") => marks.has_error |= !is_blank(value),
            (1, b"delta" | b"partial_image_b64" | b"text") => marks.has_content |= !is_blank(value),
            _ => {}
        });
        let json = match event_json::check(name, data, visited) {
            Ok(json) => json,
            Err(problem) => return problem.into(),
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
            return if marks.has_content { MeterEvent::Content } else { MeterEvent::Metadata };
        }
        if marks.has_error || name == b"error" || kind == b"error" {
            return MeterEvent::Error(Box::new(read_error::from_json(None, json)));
        }
        match kind {
            b"response.completed" | b"response.incomplete" | b"response.cancelled" => {
                if let Some(response) = json.get("response") {
                    if let Some(fault) = response_failure(response) {
                        self.summary.usage =
                            response_summary(response).usage.or(self.summary.usage);
                        return MeterEvent::Error(Box::new(fault));
                    }
                    let final_summary = response_summary(response);
                    self.summary = AnswerSummary {
                        model: final_summary.model.or(self.summary.model.take()),
                        ..final_summary
                    };
                }
                if kind == b"response.cancelled" && self.summary.finish_reason.is_none() {
                    return MeterEvent::Error(Box::new(cancelled_fault()));
                }
                self.done = true;
                MeterEvent::Terminal
            }
            b"response.failed" => {
                if let Some(response) = json.get("response") {
                    self.summary.usage = response_summary(response).usage.or(self.summary.usage);
                }
                MeterEvent::Error(Box::new(read_error::from_json(
                    None,
                    json.get("response").unwrap_or(json),
                )))
            }
            b"response.output_item.added" => {
                match json.member_at(&["item", "type"]).and_then(JsonRef::str).as_deref() {
                    None | Some("message" | "reasoning") => MeterEvent::Metadata,
                    Some(_) => MeterEvent::Content,
                }
            }
            b"response.output_item.done" => MeterEvent::Content,
            _ => {
                if self.id.is_none() {
                    self.id = json_body::clean_name(json.member_at(&["response", "id"]));
                }
                if self.summary.model.is_none() {
                    self.summary.model =
                        json_body::clean_name(json.member_at(&["response", "model"]));
                }
                MeterEvent::Metadata
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.done
    }

    fn summary(&self) -> AnswerSummary {
        self.summary.clone()
    }

    fn response_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    fn missing_terminator(&self) -> Option<&'static [u8]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::usage::Usage;

    #[test]
    fn content_events_are_distinguished_from_others() {
        for (event, want) in [
            (
                r#"{"type":"response.created","response":{"model":"m","error":null}}"#,
                MeterEvent::Metadata,
            ),
            (
                r#"{"type":"response.output_item.added","item":{"type":"message"}}"#,
                MeterEvent::Metadata,
            ),
            (
                r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"f"}}"#,
                MeterEvent::Content,
            ),
            (r#"{"type":"response.output_text.delta","delta":"x"}"#, MeterEvent::Content),
            (r#"{"type":"response.output_text.delta","delta":""}"#, MeterEvent::Metadata),
            (
                r#"{"type": "response.reasoning_summary_text.delta","delta":"x"}"#,
                MeterEvent::Content,
            ),
            (r#"{"type":"response.completed","response":{}}"#, MeterEvent::Terminal),
            ("[DONE]", MeterEvent::Drop),
        ] {
            assert_eq!(ResponseMeter::default().observe(b"", event.as_bytes()), want, "{event}");
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
                matches!(ResponseMeter::default().observe(b"", event.as_bytes()), MeterEvent::Error(f) if f.status == status && f.message == "m"),
                "{event}"
            );
        }
    }

    #[test]
    fn cancelled_response_is_not_an_answer() {
        for event in [
            r#"{"type":"response.cancelled","response":{"status":"cancelled","error":null}}"#,
            r#"{"type":"response.cancelled"}"#,
        ] {
            let mut meter = ResponseMeter::default();
            assert!(
                matches!(meter.observe(b"", event.as_bytes()), MeterEvent::Error(fault) if fault.message.contains("cancelled")),
                "{event}"
            );
            assert!(!meter.is_complete());
        }
    }

    #[test]
    fn terminal_event_has_usage_and_finish() {
        let mut meter = ResponseMeter::default();
        meter.observe(b"", br#"{"type":"response.created","response":{"model":"m"}}"#);
        meter.observe(b"", br#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":1},"output_tokens":4,"output_tokens_details":{"reasoning_tokens":3}}}}"#);
        let usage = Usage { input: 4, cache_read: 1, output: 1, reasoning: 3, ..Usage::default() };
        assert_eq!(
            meter.summary(),
            AnswerSummary {
                usage: Some(usage),
                finish_reason: Some("max_output_tokens".to_owned()),
                model: Some("m".to_owned())
            }
        );
        assert!(meter.is_complete());
    }
}
