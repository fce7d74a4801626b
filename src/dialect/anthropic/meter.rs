//! Observes a stream of message events.

use crate::{
    base::{
        json::{
            grammar::is_blank,
            reader::{self, JsonRef},
        },
        money::NanoUsd,
    },
    dialect::{
        errors::read_error,
        event_json, json_body,
        meter::{AnswerSummary, Meter, MeterEvent},
        usage_read::{count_at, reported_cost},
    },
    ir::usage::Usage,
};

#[derive(Default)]
pub(super) struct MessageMeter {
    counts: MessageUsage,
    stop_reason: Option<String>,
    model: Option<String>,
    /// `message_start` has arrived, and `block_started` is set when a block has begun. The SDKs
    /// cannot read what follows without them.
    started: bool,
    block_started: bool,
    has_content: bool,
    stopped: bool,
}

/// Usage as reported, field by field: later events replace earlier fields.
#[derive(Default)]
pub(super) struct MessageUsage {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_1h: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
    searches: Option<u64>,
    reported: Option<NanoUsd>,
}

impl MessageUsage {
    pub(super) fn update(&mut self, usage: JsonRef<'_>) {
        let set = |count_field: &mut Option<u64>, path: &[&str]| {
            *count_field = count_at(usage, path).or(*count_field);
        };
        set(&mut self.input, &["input_tokens"]);
        set(&mut self.cache_read, &["cache_read_input_tokens"]);
        set(&mut self.cache_write, &["cache_creation_input_tokens"]);
        set(&mut self.cache_write_1h, &["cache_creation", "ephemeral_1h_input_tokens"]);
        set(&mut self.output, &["output_tokens"]);
        set(&mut self.thinking, &["output_tokens_details", "thinking_tokens"]);
        set(&mut self.searches, &["server_tool_use", "web_search_requests"]);
        self.reported = reported_cost(usage).or(self.reported);
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        if self.input.is_none() && self.output.is_none() {
            return None;
        }
        let written = self.cache_write.unwrap_or(0);
        let cache_write_1h = self.cache_write_1h.unwrap_or(0).min(written);
        let output = self.output.unwrap_or(0);
        let reasoning = self.thinking.unwrap_or(0).min(output);
        Some(Usage {
            input: self.input.unwrap_or(0),
            cache_read: self.cache_read.unwrap_or(0),
            cache_write_5m: written - cache_write_1h,
            cache_write_1h,
            output: output - reasoning,
            reasoning,
            searches: self.searches.unwrap_or(0),
            reported_cost: self.reported,
            ..Usage::default()
        })
    }
}

/// The fields of an event, found in the pass that also validates its JSON.
#[derive(Default)]
struct MessageEventFields<'a> {
    kind: &'a [u8],
    has_error: bool,
    has_content: bool,
}

impl MessageMeter {
    /// Records the usage of `part`, a part of an event. The SDKs require usage, so an event without
    /// it is replaced by one with `zero`.
    fn observe_usage(&mut self, part: JsonRef<'_>, data: &[u8], zero: &str) -> MeterEvent {
        match part.get("usage").filter(|usage| usage.is_object() && !usage.is_blank()) {
            Some(usage) => {
                self.counts.update(usage);
                MeterEvent::Metadata
            }
            None => MeterEvent::Replace(with_member(data, part, "usage", zero)),
        }
    }
}

/// Returns `data` with a member of `part`, an object inside it, added or replaced. Everything else
/// is unchanged.
fn with_member(data: &[u8], part: JsonRef<'_>, key: &str, member: &str) -> Vec<u8> {
    let offset = |text: &str| text.as_ptr().addr() - data.as_ptr().addr();
    let mut out = data.to_vec();
    match part.members().filter(|(known, _)| *known == key).last() {
        Some((_, value)) => {
            let (from, to) = (offset(value.text()), offset(value.text()) + value.text().len());
            let value = member.split_once(':').map_or(member, |(_, value)| value);
            out.splice(from..to, value.bytes());
        }
        None => {
            let end = offset(part.text()) + part.text().len() - 1;
            let comma = if part.is_blank() { "" } else { "," };
            out.splice(end..end, comma.bytes().chain(member.bytes()));
        }
    }
    out
}

impl Meter for MessageMeter {
    fn observe(&mut self, name: &[u8], data: &[u8]) -> MeterEvent {
        if event_json::is_done(data) {
            return MeterEvent::Drop;
        }
        let mut fields = MessageEventFields::default();
        let visited = reader::visit(data, |depth, key, value| match (depth, key) {
            (1, b"type") => fields.kind = value,
            (1, b"error") => fields.has_error |= event_json::is_error_value(value),
            (1, b"__type") => fields.has_error |= !is_blank(value),
            // A delta's text, arguments and citations are content; its type is not.
            (2, b"type") => {}
            (2, _) => fields.has_content |= !is_blank(value),
            _ => {}
        });
        let json = match event_json::check(name, data, visited) {
            Ok(json) => json,
            Err(problem) => return problem.into(),
        };
        let kind = |kind: &[u8]| {
            fields.kind.get(1..=kind.len()) == Some(kind)
                && fields.kind.get(kind.len() + 1) == Some(&b'"')
        };
        if kind(b"content_block_delta") && self.block_started {
            self.has_content |= fields.has_content;
            return if fields.has_content { MeterEvent::Content } else { MeterEvent::Metadata };
        }
        if fields.has_error || name == b"error" || kind(b"error") {
            return MeterEvent::Error(Box::new(read_error::from_json(None, json)));
        }
        if kind(b"ping") {
            return MeterEvent::Ping;
        }
        if kind(b"message_start") {
            self.started = true;
            let Some(message) = json.get("message") else { return MeterEvent::Metadata };
            self.model = json_body::clean_name(message.get("model"));
            return self.observe_usage(
                message,
                data,
                r#""usage":{"input_tokens":0,"output_tokens":0}"#,
            );
        }
        let starts = kind(b"content_block_start");
        let rest = [b"message_stop".as_slice(), b"message_delta", b"content_block_delta"];
        if !self.started && (starts || rest.iter().any(|it| kind(it))) {
            return MeterEvent::Error(Box::new(read_error::unexpected_shape("no message_start")));
        }
        if kind(b"message_stop") {
            if !self.has_content && self.stop_reason.is_none() {
                return MeterEvent::Error(Box::new(json_body::empty_stream_fault()));
            }
            self.stopped = true;
            return MeterEvent::Terminal;
        }
        if kind(b"content_block_delta") {
            return MeterEvent::Error(Box::new(read_error::unexpected_shape(
                "a delta of a block that did not begin",
            )));
        }
        if kind(b"message_delta") {
            self.stop_reason = json_body::clean_name(json.member_at(&["delta", "stop_reason"]))
                .or(self.stop_reason.take());
            return self.observe_usage(json, data, r#""usage":{"output_tokens":0}"#);
        }
        if starts && let Some(block) = json.get("content_block") {
            self.block_started = true;
            let quiet = match block.get("type").and_then(JsonRef::str).as_deref() {
                Some("text") => block.get("text").is_none_or(JsonRef::is_blank),
                Some("thinking") => block.get("thinking").is_none_or(JsonRef::is_blank),
                _ => false,
            };
            self.has_content |= !quiet;
            return if quiet { MeterEvent::Metadata } else { MeterEvent::Content };
        }
        MeterEvent::Metadata
    }

    fn is_complete(&self) -> bool {
        self.stopped || self.stop_reason.is_some()
    }

    fn summary(&self) -> AnswerSummary {
        AnswerSummary {
            usage: self.counts.usage(),
            finish_reason: self.stop_reason.clone(),
            model: self.model.clone(),
        }
    }

    fn missing_terminator(&self) -> Option<&'static [u8]> {
        (!self.stopped && self.stop_reason.is_some())
            .then_some(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_events_are_distinguished_from_others() {
        for (event, want) in [
            (r#"{"type":"ping"}"#, MeterEvent::Ping),
            (
                r#"{"type":"message_start","message":{"model":"m","usage":{"input_tokens":1}}}"#,
                MeterEvent::Metadata,
            ),
            (
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
                MeterEvent::Metadata,
            ),
            (
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
                MeterEvent::Metadata,
            ),
            (
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"n","input":{}}}"#,
                MeterEvent::Content,
            ),
            (
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}"#,
                MeterEvent::Content,
            ),
            (
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""}}"#,
                MeterEvent::Metadata,
            ),
            (
                r#"{"type": "content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}"#,
                MeterEvent::Content,
            ),
            (r#"{"type":"content_block_stop","index":0}"#, MeterEvent::Metadata),
            ("[DONE]", MeterEvent::Drop),
        ] {
            let mut meter =
                MessageMeter { started: true, block_started: true, ..MessageMeter::default() };
            assert_eq!(meter.observe(b"", event.as_bytes()), want, "{event}");
        }
        assert!(
            matches!(MessageMeter::default().observe(b"error", br#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#), MeterEvent::Error(f) if f.status == 529)
        );
        assert!(matches!(
            MessageMeter::default().observe(b"error", br#"{"type":"error","error":{"type":"overl"#),
            MeterEvent::Invalid(_)
        ));
    }

    #[test]
    fn stream_unreadable_by_sdks_is_an_error() {
        let start =
            r#"{"type":"message_start","message":{"model":"m","usage":{"input_tokens":1}}}"#;
        let block =
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
        let delta =
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}"#;
        let finish = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}"#;
        let stop = r#"{"type":"message_stop"}"#;
        for (events, good) in [
            (&[start, block, delta, finish, stop][..], true),
            (&[start, finish, stop], true),
            (&[start, block, delta, stop], true),
            (&[start, block, stop], false),
            (&[start, stop], false),
            (&[stop], false),
            (&[block, delta, finish, stop], false),
            (&[finish], false),
            (&[start, delta], false),
            (&[start, r#"[{"error":{"message":"m"}}]"#], false),
            (&[r#"{"message":"m","__type":"ThrottlingException"}"#], false),
        ] {
            let mut meter = MessageMeter::default();
            let heeds: Vec<_> =
                events.iter().map(|event| meter.observe(b"", event.as_bytes())).collect();
            assert_eq!(
                !heeds.iter().any(|heed| matches!(heed, MeterEvent::Error(_))),
                good,
                "{events:?}"
            );
            assert_eq!(meter.is_complete(), good, "{events:?}");
        }
    }

    #[test]
    fn missing_usage_is_added_to_events() {
        for (event, want) in [
            (
                r#"{"type":"message_start", "message":{"id":"i","content":[] } }"#,
                r#"{"type":"message_start", "message":{"id":"i","content":[] ,"usage":{"input_tokens":0,"output_tokens":0}} }"#,
            ),
            (
                r#"{"type":"message_start","message":{"usage":null,"id":"i"}}"#,
                r#"{"type":"message_start","message":{"usage":{"input_tokens":0,"output_tokens":0},"id":"i"}}"#,
            ),
            (
                r#" {"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
                r#" {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":0}}"#,
            ),
        ] {
            let mut meter = MessageMeter { started: true, ..MessageMeter::default() };
            assert_eq!(
                meter.observe(b"", event.as_bytes()),
                MeterEvent::Replace(want.into()),
                "{event}"
            );
            assert_eq!(meter.summary().usage, None);
        }
    }

    #[test]
    fn usage_is_replaced_field_by_field() {
        let mut meter = MessageMeter::default();
        for event in [
            r#"{"type":"message_start","message":{"model":"m","usage":{"input_tokens":3,"cache_read_input_tokens":100,"cache_creation_input_tokens":50,"cache_creation":{"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":20},"output_tokens":1}}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9,"input_tokens":null}}"#,
        ] {
            assert_eq!(meter.observe(b"", event.as_bytes()), MeterEvent::Metadata);
        }
        let usage = Usage {
            input: 3,
            cache_read: 100,
            cache_write_5m: 30,
            cache_write_1h: 20,
            output: 9,
            ..Usage::default()
        };
        assert_eq!(
            meter.summary(),
            AnswerSummary {
                usage: Some(usage),
                finish_reason: Some("end_turn".to_owned()),
                model: Some("m".to_owned())
            }
        );
        assert!(meter.is_complete() && meter.missing_terminator().is_some());
    }
}
