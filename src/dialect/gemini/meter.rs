//! Watches a stream of generateContent chunks.

use crate::{
    base::json::{self, JsonErrorKind, JsonRef, is_blank},
    dialect::{Heed, Meter, Summary, fault, shape, tokens::count},
    ir::usage::Usage,
};

#[derive(Default)]
pub(super) struct ContentMeter {
    summary: Summary,
    finished: bool,
    /// Candidates that have said why they ended; one bit each.
    ended: u32,
}

/// `candidatesTokenCount` excludes thoughts; `promptTokenCount` includes what was cached, but not
/// what tools brought in.
pub(super) fn usage(told: JsonRef<'_>) -> Option<Usage> {
    let read = |key| count(told, &[key]);
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

/// Why generation ended: the first candidate's reason, else why the prompt was blocked.
pub(super) fn finish(json: JsonRef<'_>) -> Option<String> {
    const NOT_YET: &str = "FINISH_REASON_UNSPECIFIED";
    let mut reasons = json
        .get("candidates")
        .into_iter()
        .flat_map(JsonRef::items)
        .filter_map(|c| shape::name(c.get("finishReason")));
    reasons
        .find(|reason| reason != NOT_YET)
        .or_else(|| shape::name(json.member_at(&["promptFeedback", "blockReason"])))
}

/// What a chunk holds, found in the pass that proves it well formed.
#[derive(Default)]
struct Marks {
    content: bool,
    error: bool,
    finish: bool,
    model: bool,
    usage: bool,
}

impl Marks {
    #[inline]
    fn key(&mut self, depth: usize, key: &[u8], value: &[u8]) {
        match (depth, key) {
            (1, b"error") => {
                self.error |= matches!(value.first(), Some(b'{' | b'"')) && !is_blank(value)
            }
            (1, b"modelVersion") => self.model = true,
            (1, b"usageMetadata") => self.usage |= !is_blank(value),
            (2, b"blockReason") | (3, b"finishReason") => self.finish |= !is_blank(value),
            (
                6,
                b"codeExecutionResult"
                | b"executableCode"
                | b"fileData"
                | b"functionCall"
                | b"inlineData"
                | b"text",
            ) => {
                self.content |= !is_blank(value);
            }
            _ => {}
        }
    }
}

/// The candidates of a chunk, each with the bit of its index; indexes beyond the last bit share it.
fn candidates(json: JsonRef<'_>) -> impl Iterator<Item = (u32, JsonRef<'_>)> {
    let list = json.get("candidates").into_iter().flat_map(JsonRef::items);
    list.map(|candidate| {
        (1 << candidate.get("index").and_then(JsonRef::u64).unwrap_or(0).min(31), candidate)
    })
}

impl ContentMeter {
    /// Whether a chunk goes on only with what has ended: nobody is to hear that.
    fn over(&self, json: JsonRef<'_>) -> bool {
        candidates(json).all(|(bit, _)| self.ended & bit != 0)
    }
}

impl Meter for ContentMeter {
    fn event(&mut self, name: &[u8], data: &[u8]) -> Heed {
        if data.len() < 20 && data.trim_ascii() == b"[DONE]" {
            return Heed::Hide;
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
        if self.finished && marks.content && !marks.finish && self.over(json) {
            return Heed::Hide;
        }
        if marks.finish
            && let Some(reason) = finish(json)
        {
            self.finished = true;
            self.ended |= candidates(json)
                .filter(|(_, candidate)| candidate.get("finishReason").is_some())
                .fold(0, |ended, (bit, _)| ended | bit);
            self.summary.finish = Some(reason);
        }
        if marks.usage {
            // The last is true as a whole.
            self.summary.usage = json.get("usageMetadata").and_then(usage).or(self.summary.usage);
        }
        if marks.model && self.summary.model.is_none() {
            self.summary.model = shape::name(json.get("modelVersion"));
        }
        if marks.content { Heed::Content } else { Heed::Nothing }
    }

    fn complete(&self) -> bool {
        self.finished
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
    fn what_is_content_and_what_is_not() {
        for (event, want) in [
            (r#"{"candidates":[],"promptFeedback":{}}"#, Heed::Nothing),
            (
                r#"{"candidates":[{"content":{"role":"model","parts":[{"text":""}]}}]}"#,
                Heed::Nothing,
            ),
            (
                r#"{"candidates":[{"content":{"parts":[{"text":"x","thought":true}],"role":"model"}}]}"#,
                Heed::Content,
            ),
            (
                r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{}}}]},"finishReason":"STOP"}]}"#,
                Heed::Content,
            ),
            (r#"{"candidates":[{"finishReason":"SAFETY"}]}"#, Heed::Nothing),
            (r#"{"x_new":1}"#, Heed::Nothing),
        ] {
            assert_eq!(ContentMeter::default().event(b"", event.as_bytes()), want, "{event}");
        }
        assert!(
            matches!(ContentMeter::default().event(b"", br#"{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}"#), Heed::Error(f) if f.status == 429)
        );
    }

    #[test]
    fn what_comes_after_the_end_of_a_candidate_is_not_told() {
        let text = |index: u8, reason: &str| {
            format!(
                r#"{{"candidates":[{{"index":{index},"content":{{"parts":[{{"text":"x"}}]}}{reason}}}]}}"#
            )
        };
        let stop = r#","finishReason":"STOP""#;
        let mut meter = ContentMeter::default();
        for (event, want) in [
            (text(0, stop), Heed::Content),
            (text(0, stop), Heed::Content),
            (text(0, ""), Heed::Hide),
            (text(1, ""), Heed::Content),
            (text(1, stop), Heed::Content),
            (text(1, ""), Heed::Hide),
            (r#"{"usageMetadata":{"promptTokenCount":1}}"#.to_owned(), Heed::Nothing),
        ] {
            assert_eq!(meter.event(b"", event.as_bytes()), want, "{event}");
        }
        assert!(meter.complete());
    }

    #[test]
    fn finish_and_usage_are_read() {
        let mut meter = ContentMeter::default();
        meter.event(b"", br#"{"modelVersion":"g","candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"FINISH_REASON_UNSPECIFIED"}],"usageMetadata":{"promptTokenCount":9}}"#);
        assert!(!meter.complete());
        meter.event(b"", br#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":10,"cachedContentTokenCount":4,"toolUsePromptTokenCount":3,"candidatesTokenCount":2,"thoughtsTokenCount":7}}"#);
        assert!(meter.complete());
        let usage = Usage { input: 9, cache_read: 4, output: 2, reasoning: 7, ..Usage::default() };
        assert_eq!(
            meter.summary(),
            Summary {
                usage: Some(usage),
                finish: Some("STOP".to_owned()),
                model: Some("g".to_owned())
            }
        );
        let mut blocked = ContentMeter::default();
        blocked.event(b"", br#"{"promptFeedback":{"blockReason":"SAFETY"}}"#);
        assert_eq!(
            (blocked.complete(), blocked.summary().finish.as_deref()),
            (true, Some("SAFETY"))
        );
    }
}
