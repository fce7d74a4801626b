//! Streams of operations whose grammar no dialect defines (speech, transcription, images): only
//! errors and usage are looked for.

use crate::{
    base::json::{self, is_blank},
    dialect::{Heed, Meter, Summary, fault, shape, tokens},
};

#[derive(Default)]
pub(super) struct AnyMeter {
    summary: Summary,
    begun: bool,
}

impl Meter for AnyMeter {
    fn event(&mut self, name: &[u8], data: &[u8]) -> Heed {
        if data.trim_ascii() == b"[DONE]" {
            return Heed::Nothing;
        }
        let (mut error, mut usage) = (name == b"error", false);
        let json = match json::visit(data, |depth, key, value| match (depth, key) {
            (1, b"error") => {
                error |= matches!(value.first(), Some(b'{' | b'"')) && !is_blank(value)
            }
            (1, b"usage") => usage |= !is_blank(value),
            _ => {}
        }) {
            Ok(json) => json,
            Err(bad) => return Heed::Bad(bad),
        };
        if error {
            return Heed::Error(Box::new(fault::told(None, json)));
        }
        if usage {
            self.summary.usage = json.get("usage").and_then(tokens::openai).or(self.summary.usage);
        }
        if self.summary.model.is_none() {
            self.summary.model = shape::name(json.get("model"));
        }
        self.begun = true;
        Heed::Content
    }

    fn complete(&self) -> bool {
        self.begun
    }

    fn summary(&self) -> Summary {
        self.summary.clone()
    }

    fn terminator(&self) -> Option<&'static [u8]> {
        None
    }
}
