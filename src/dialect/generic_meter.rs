//! Reads errors and usage from streams whose grammar no dialect defines (speech, transcription,
//! images).

use crate::{
    base::json::{grammar::is_blank, reader},
    dialect::{
        errors::read_error,
        event_json, json_body,
        meter::{AnswerSummary, Meter, MeterEvent},
        usage_read,
    },
};

#[derive(Default)]
pub(super) struct GenericMeter {
    summary: AnswerSummary,
    started: bool,
}

impl Meter for GenericMeter {
    fn observe(&mut self, name: &[u8], data: &[u8]) -> MeterEvent {
        if event_json::is_done(data) {
            return MeterEvent::Metadata;
        }
        let (mut error, mut usage) = (name == b"error", false);
        let json = match reader::visit(data, |depth, key, value| match (depth, key) {
            (1, b"error") => error |= event_json::is_error_value(value),
            (1, b"usage") => usage |= !is_blank(value),
            _ => {}
        }) {
            Ok(json) => json,
            Err(bad) => return MeterEvent::Invalid(bad),
        };
        if error {
            return MeterEvent::Error(Box::new(read_error::from_json(None, json)));
        }
        if usage {
            self.summary.usage =
                json.get("usage").and_then(usage_read::read_openai).or(self.summary.usage);
        }
        if self.summary.model.is_none() {
            self.summary.model = json_body::clean_name(json.get("model"));
        }
        self.started = true;
        MeterEvent::Content
    }

    fn is_complete(&self) -> bool {
        self.started
    }

    fn summary(&self) -> AnswerSummary {
        self.summary.clone()
    }

    fn missing_terminator(&self) -> Option<&'static [u8]> {
        None
    }
}
