//! Observes a stream of generateContent chunks.

use crate::{
    base::json::{
        grammar::is_blank,
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
pub(super) struct ContentMeter {
    summary: AnswerSummary,
    finished: bool,
}

/// Reads usage. `candidatesTokenCount` excludes thoughts; `promptTokenCount` includes cached
/// tokens, but not the tokens that tool use added.
pub(super) fn read_usage(metadata: JsonRef<'_>) -> Option<Usage> {
    let read = |key| count_at(metadata, &[key]);
    let (prompt, output, reasoning) =
        (read("promptTokenCount"), read("candidatesTokenCount"), read("thoughtsTokenCount"));
    if prompt.is_none() && output.is_none() && reasoning.is_none() {
        return None;
    }
    let prompt = prompt.unwrap_or(0);
    let cache_read = read("cachedContentTokenCount").unwrap_or(0).min(prompt);
    let tools = read("toolUsePromptTokenCount").unwrap_or(0);
    Some(Usage {
        input: prompt - cache_read + tools,
        cache_read,
        output: output.unwrap_or(0),
        reasoning: reasoning.unwrap_or(0),
        ..Usage::default()
    })
}

/// Reads why generation ended: the first candidate's reason, else why the prompt was blocked.
pub(super) fn read_finish_reason(json: JsonRef<'_>) -> Option<String> {
    const UNSPECIFIED: &str = "FINISH_REASON_UNSPECIFIED";
    let mut reasons = json
        .get("candidates")
        .into_iter()
        .flat_map(JsonRef::items)
        .filter_map(|c| json_body::clean_name(c.get("finishReason")));
    reasons
        .find(|reason| reason != UNSPECIFIED)
        .or_else(|| json_body::clean_name(json.member_at(&["promptFeedback", "blockReason"])))
}

/// The fields of a chunk, found in the pass that also validates its JSON.
#[derive(Default)]
struct ContentChunkFields {
    has_content: bool,
    has_error: bool,
    has_finish: bool,
    has_model: bool,
    has_usage: bool,
}

impl ContentChunkFields {
    #[inline]
    fn observe(&mut self, depth: usize, key: &[u8], value: &[u8]) {
        match (depth, key) {
            (1, b"error") => self.has_error |= event_json::is_error_value(value),
            (1, b"modelVersion") => self.has_model = true,
            (1, b"usageMetadata") => self.has_usage |= !is_blank(value),
            (2, b"blockReason") | (3, b"finishReason") => self.has_finish |= !is_blank(value),
            (
                6,
                b"codeExecutionResult"
                | b"executableCode"
                | b"fileData"
                | b"functionCall"
                | b"inlineData"
                | b"text",
            ) => {
                self.has_content |= !is_blank(value);
            }
            _ => {}
        }
    }
}

impl Meter for ContentMeter {
    fn observe(&mut self, name: &[u8], data: &[u8]) -> MeterEvent {
        if event_json::is_done(data) {
            return MeterEvent::Drop;
        }
        let mut fields = ContentChunkFields::default();
        let visited = reader::visit(data, |depth, key, value| fields.observe(depth, key, value));
        let json = match event_json::check(name, data, visited) {
            Ok(json) => json,
            Err(problem) => return problem.into(),
        };
        if fields.has_error || name == b"error" {
            return MeterEvent::Error(Box::new(read_error::from_json(None, json)));
        }
        if fields.has_finish
            && let Some(reason) = read_finish_reason(json)
        {
            self.finished = true;
            self.summary.finish_reason = Some(reason);
        }
        if fields.has_usage {
            // The last usage object covers the whole answer.
            self.summary.usage =
                json.get("usageMetadata").and_then(read_usage).or(self.summary.usage);
        }
        if fields.has_model && self.summary.model.is_none() {
            self.summary.model = json_body::clean_name(json.get("modelVersion"));
        }
        if fields.has_content { MeterEvent::Content } else { MeterEvent::Metadata }
    }

    fn is_complete(&self) -> bool {
        self.finished
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
    fn content_events_are_distinguished_from_others() {
        for (event, want) in [
            (r#"{"candidates":[],"promptFeedback":{}}"#, MeterEvent::Metadata),
            (
                r#"{"candidates":[{"content":{"role":"model","parts":[{"text":""}]}}]}"#,
                MeterEvent::Metadata,
            ),
            (
                r#"{"candidates":[{"content":{"parts":[{"text":"x","thought":true}],"role":"model"}}]}"#,
                MeterEvent::Content,
            ),
            (
                r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{}}}]},"finishReason":"STOP"}]}"#,
                MeterEvent::Content,
            ),
            (r#"{"candidates":[{"finishReason":"SAFETY"}]}"#, MeterEvent::Metadata),
            (r#"{"x_new":1}"#, MeterEvent::Metadata),
        ] {
            assert_eq!(ContentMeter::default().observe(b"", event.as_bytes()), want, "{event}");
        }
        assert!(
            matches!(ContentMeter::default().observe(b"", br#"{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}"#), MeterEvent::Error(f) if f.status == 429)
        );
    }

    /// Code execution streams a finish reason with each result and continues.
    #[test]
    fn content_after_a_finish_reason_counts() {
        let mut meter = ContentMeter::default();
        for (event, want) in [
            (
                r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}]}"#,
                MeterEvent::Content,
            ),
            (r#"{"candidates":[{"content":{"parts":[{"text":"y"}]}}]}"#, MeterEvent::Content),
            (r#"{"usageMetadata":{"promptTokenCount":1}}"#, MeterEvent::Metadata),
        ] {
            assert_eq!(meter.observe(b"", event.as_bytes()), want, "{event}");
        }
        assert!(meter.is_complete());
    }

    #[test]
    fn finish_and_usage_are_read() {
        let mut meter = ContentMeter::default();
        meter.observe(b"", br#"{"modelVersion":"g","candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"FINISH_REASON_UNSPECIFIED"}],"usageMetadata":{"promptTokenCount":9}}"#);
        assert!(!meter.is_complete());
        meter.observe(b"", br#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":10,"cachedContentTokenCount":4,"toolUsePromptTokenCount":3,"candidatesTokenCount":2,"thoughtsTokenCount":7}}"#);
        assert!(meter.is_complete());
        let usage = Usage { input: 9, cache_read: 4, output: 2, reasoning: 7, ..Usage::default() };
        assert_eq!(
            meter.summary(),
            AnswerSummary {
                usage: Some(usage),
                finish_reason: Some("STOP".to_owned()),
                model: Some("g".to_owned())
            }
        );
        let mut blocked = ContentMeter::default();
        blocked.observe(b"", br#"{"promptFeedback":{"blockReason":"SAFETY"}}"#);
        assert_eq!(
            (blocked.is_complete(), blocked.summary().finish_reason.as_deref()),
            (true, Some("SAFETY"))
        );
    }
}
