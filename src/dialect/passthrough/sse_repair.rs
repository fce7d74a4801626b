//! Knows which SSE frames the SDKs of each dialect can read, and repairs the others.

use bytes::Bytes;
use bytes::BytesMut;
use std::borrow::Cow;

use crate::{
    base::{
        framing::sse::{self, SseEvent, SseFormat},
        json::reader::{self, JsonRef},
    },
    ir::op::Dialect,
};

/// The action for one frame.
pub(super) enum FrameAction {
    Drop,
    Keep,
    /// Forward the frame without its first bytes.
    KeepFrom(usize),
    /// Forward the frame after an additional line.
    PrependLine(Bytes),
    Replace(Bytes),
}

/// Rules for the format of a dialect's event stream.
#[derive(Clone, Copy)]
pub(super) struct FramingRules {
    /// Every event needs its `type` as its name.
    requires_event_name: bool,
    /// The dialect's SDKs mistake `id` and `retry` for the beginning of an event.
    forbids_id_and_retry: bool,
    /// The dialect's SDKs read only `data: ` lines, one for each event.
    data_only: bool,
}

impl FramingRules {
    pub(super) const fn for_dialect(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Anthropic => {
                Self { requires_event_name: true, forbids_id_and_retry: false, data_only: false }
            }
            Dialect::Gemini | Dialect::Ollama => {
                Self { requires_event_name: false, forbids_id_and_retry: true, data_only: true }
            }
            Dialect::Openai => {
                Self { requires_event_name: false, forbids_id_and_retry: true, data_only: false }
            }
            Dialect::Responses => {
                Self { requires_event_name: true, forbids_id_and_retry: true, data_only: false }
            }
        }
    }

    /// Whether some SDKs mistake a frame without data, in this format, for an event.
    pub(super) fn forbids_empty(self, form: SseFormat) -> bool {
        form.data_lines > 0
            || form.has_event_name
            || form.has_id_or_retry
            || form.has_lone_cr
            || self.data_only && (form.has_comment || form.has_unknown_field)
    }

    /// Returns the event's name; its `type` if the dialect requires a name and the event has none.
    pub(super) fn event_name<'e>(self, event: &'e SseEvent<'_>) -> Cow<'e, [u8]> {
        match (self.requires_event_name, event.format.has_event_name) {
            (true, false) => event_type(&event.data),
            _ => Cow::Borrowed(event.name),
        }
    }

    /// Returns how the frame of an event is forwarded without its first `skip` bytes.
    pub(super) fn repair(
        self,
        frame: &[u8],
        skip: usize,
        event: &SseEvent<'_>,
        name: &[u8],
    ) -> FrameAction {
        let form = event.format;
        let strange = form.has_event_name
            || form.has_comment
            || form.has_unknown_field
            || form.lacks_space
            || form.data_lines > 1;
        if form.has_lone_cr
            || self.forbids_id_and_retry && form.has_id_or_retry
            || self.data_only && strange
        {
            let mut out = BytesMut::new();
            if self.data_only && form.data_lines > 1 {
                // A line feed inside JSON can only be between its tokens.
                let data: Vec<u8> =
                    event.data.iter().map(|&b| if b == b'\n' { b' ' } else { b }).collect();
                sse::write_event(&mut out, b"", &data);
            } else {
                sse::write_event(&mut out, if self.data_only { b"" } else { name }, &event.data);
            }
            return FrameAction::Replace(out.freeze());
        }
        if form.has_event_name || name.is_empty() {
            return if skip == 0 { FrameAction::Keep } else { FrameAction::KeepFrom(skip) };
        }
        let mut line = BytesMut::with_capacity(name.len() + 8);
        line.extend_from_slice(b"event: ");
        line.extend_from_slice(name);
        line.extend_from_slice(b"\n");
        if skip > 0 {
            line.extend_from_slice(&frame[skip..]);
            return FrameAction::Replace(line.freeze());
        }
        FrameAction::PrependLine(line.freeze())
    }
}

/// Returns the `type` of an event if an `event:` line can contain it.
fn event_type(data: &[u8]) -> Cow<'_, [u8]> {
    match reader::parse(data).ok().and_then(|json| json.get("type")).and_then(JsonRef::str) {
        Some(Cow::Borrowed(name)) if name.bytes().all(|b| b.is_ascii_graphic()) => {
            Cow::Borrowed(name.as_bytes())
        }
        _ => Cow::Borrowed(b""),
    }
}

/// Returns whether the official SDKs of a dialect raise an exception for this error event as it is.
pub(super) fn is_readable_error(dialect: Dialect, name: &[u8], data: &[u8]) -> bool {
    let Ok(event) = reader::parse(data) else { return false };
    let text = |path: &[&str]| event.member_at(path).and_then(JsonRef::str).is_some();
    match dialect {
        Dialect::Openai => text(&["error", "message"]),
        Dialect::Anthropic => {
            name == b"error"
                && event.get("type").and_then(JsonRef::str).as_deref() == Some("error")
                && text(&["error", "type"])
                && text(&["error", "message"])
        }
        Dialect::Gemini => data.starts_with(b"{\"error\":") && text(&["error", "message"]),
        Dialect::Responses => name == b"response.failed",
        Dialect::Ollama => false,
    }
}
