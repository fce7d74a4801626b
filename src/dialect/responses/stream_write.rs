//! Writes an answer as a stream: items one after the other, and all of them again at the end.

use crate::{
    base::json::writer,
    dialect::{
        errors::sanitize::{self, MAX_SENT_CHARS},
        ingress::{ResponseSpec, StreamWriter},
        responses::{
            error,
            schema::{self, Envelope, ResponseState},
            stored,
            stream_items_write::ItemsWriter,
        },
    },
    ir::{
        event::ChatEvent,
        fault::{ProxyError, ProxyErrorKind},
        response::{Finish, FinishKind},
        serialize_blocks::BlockSerializer,
        usage::Usage,
    },
};

pub(super) struct ResponseWriter {
    envelope: Envelope,
    sequence: BlockSerializer,
    ordered_events: Vec<ChatEvent>,
    items: ItemsWriter,
    started: bool,
    usage: Option<Usage>,
}

impl ResponseWriter {
    pub(super) fn new(shape: &ResponseSpec) -> Self {
        Self {
            envelope: Envelope::new(shape),
            sequence: BlockSerializer::default(),
            ordered_events: Vec::new(),
            items: ItemsWriter::new(shape),
            started: false,
            usage: None,
        }
    }

    /// Returns the complete response for these events.
    pub(super) fn full_response(shape: &ResponseSpec, events: Vec<ChatEvent>) -> String {
        let mut writer = Self::new(shape);
        writer.items.event_writer.suppress_output = true;
        let (mut out, mut end) = (Vec::new(), None);
        for event in events {
            match event {
                ChatEvent::End { finish, usage, service_tier } => {
                    end = Some((finish, usage, service_tier));
                }
                event => writer.write_event(event, &mut out),
            }
        }
        let (finish, usage, tier) = end.unwrap_or_default();
        writer.items.close_last_item(item_status(&finish), &mut out);
        let usage = usage.or(writer.usage);
        let word = schema::response_status(&finish, writer.items.saw_refusal);
        let state = ResponseState::Ended {
            finish: &finish,
            status: word,
            usage: usage.as_ref(),
            service_tier: tier.as_deref(),
        };
        writer::object(|o| writer.envelope.write_object(o, &state, &writer.items.output))
    }

    fn ensure_started(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        for kind in ["response.created", "response.in_progress"] {
            let envelope = &self.envelope;
            self.items.event_writer.emit(kind, out, |o| {
                o.object("response", |o| envelope.write_object(o, &ResponseState::Running, ""));
            });
        }
    }

    fn write_event(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        match event {
            ChatEvent::Begin { created, usage, .. } => {
                self.envelope.set_created_at(created);
                self.usage = usage;
                self.ensure_started(out);
            }
            ChatEvent::Open { head, .. } => {
                self.ensure_started(out);
                self.items.open_block(head, out);
            }
            ChatEvent::Delta { text, .. } => self.items.write_delta(&text, out),
            ChatEvent::Signature { signature: proof, .. } => self.items.set_signature(proof, out),
            ChatEvent::Phase { phase, .. } => self.items.set_phase(phase),
            ChatEvent::Citation { citation, .. } => self.items.write_citation(&citation, out),
            ChatEvent::Logprobs(list) => self.items.write_logprobs(list.text(), out),
            ChatEvent::Close { .. } => self.items.close_block(out),
            ChatEvent::End { finish, usage, service_tier } => {
                self.write_end(&finish, usage, service_tier.as_deref(), out);
            }
        }
    }

    fn write_end(
        &mut self,
        finish: &Finish,
        usage: Option<Usage>,
        tier: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        self.ensure_started(out);
        if self.items.is_summary_missing() {
            let error = ProxyError::new(ProxyErrorKind::Upstream, stored::MISSING_SUMMARY);
            return self.write_error(&error, "", out);
        }
        self.items.close_last_item(item_status(finish), out);
        let usage = usage.or(self.usage);
        let word = schema::response_status(finish, self.items.saw_refusal);
        let kind = if word == "incomplete" { "response.incomplete" } else { "response.completed" };
        let (envelope, output) = (&self.envelope, &self.items.output);
        self.items.event_writer.emit(kind, out, |o| {
            o.object("response", |o| {
                envelope.write_object(
                    o,
                    &ResponseState::Ended {
                        finish,
                        status: word,
                        usage: usage.as_ref(),
                        service_tier: tier,
                    },
                    output,
                );
            });
        });
    }
}

impl StreamWriter for ResponseWriter {
    fn write_event(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        let mut ordered_events = std::mem::take(&mut self.ordered_events);
        self.sequence.push(event, &mut ordered_events);
        for event in ordered_events.drain(..) {
            self.write_event(event, out);
        }
        self.ordered_events = ordered_events;
    }

    fn write_error(&mut self, error: &ProxyError, _request_id: &str, out: &mut Vec<u8>) {
        let message = sanitize::escape_controls(&error.message, MAX_SENT_CHARS);
        let (envelope, output) = (&self.envelope, &self.items.output);
        self.items.event_writer.emit("response.failed", out, |o| {
            let state =
                ResponseState::Failed { code: error::failure_code(error.kind), message: &message };
            o.object("response", |o| envelope.write_object(o, &state, output));
        });
    }
}

/// The status of the last item.
fn item_status(finish: &Finish) -> &'static str {
    if matches!(finish.kind, FinishKind::Length | FinishKind::ContentFilter) {
        "incomplete"
    } else {
        "completed"
    }
}
