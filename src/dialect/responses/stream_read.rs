//! Reads an answer as a stream. Items grow side by side, and complete items supply the text that
//! deltas left out.

use crate::{
    base::json::reader::JsonRef,
    dialect::{
        egress::{AttemptContext, StreamReader},
        errors::read_error,
        event_json,
        meter::AnswerSummary,
        responses::{
            outcome::{cancelled_fault, response_failure, response_summary},
            response_read::{created_at, read_usage},
            stream_items_read::{ItemSlot, StreamedItems},
        },
    },
    ir::{event::ChatEvent, fault::Fault},
};

pub(super) struct ResponseReader {
    items: StreamedItems,
    event_count: u32,
    started: bool,
    done: bool,
    summary: AnswerSummary,
}

impl ResponseReader {
    pub(super) fn new(carry: &AttemptContext) -> Self {
        Self {
            items: StreamedItems::new(carry),
            event_count: 0,
            started: false,
            done: false,
            summary: AnswerSummary::default(),
        }
    }

    fn ensure_started(&mut self, response: Option<JsonRef<'_>>, out: &mut Vec<ChatEvent>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let text = |key| response.and_then(|response| response.string_at(key)).unwrap_or_default();
        let model = text("model");
        self.summary.model = Some(model.clone()).filter(|model| !model.is_empty());
        out.push(ChatEvent::Begin {
            id: text("id"),
            model,
            created: response.and_then(created_at),
            usage: None,
        });
    }

    fn finish_response(&mut self, response: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        self.items.finish_all(response, out);
        let final_summary = response_summary(response);
        let usage = response.get("usage").and_then(read_usage);
        self.summary = AnswerSummary {
            model: final_summary.model.or(self.summary.model.take()),
            usage,
            finish_reason: final_summary.finish_reason,
        };
        self.done = true;
        out.push(ChatEvent::End {
            finish: self.items.read_finish(response),
            usage,
            service_tier: response.string_at("service_tier"),
        });
    }

    fn apply_text_event(&mut self, kind: &str, event: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let (text_kind, done) = match kind.strip_suffix(".delta") {
            Some(text_kind) => (text_kind, false),
            None => (kind.strip_suffix(".done").unwrap_or(kind), true),
        };
        let (slot, key) = match text_kind {
            "output_text" => (ItemSlot::Text, "text"),
            "refusal" => (ItemSlot::Refusal, "refusal"),
            "reasoning_summary_text" | "reasoning_summary" => (ItemSlot::Summary, "text"),
            "reasoning_text" | "reasoning" => (ItemSlot::ReasoningText, "text"),
            "function_call_arguments" => (ItemSlot::Arguments, "arguments"),
            "custom_tool_call_input" => (ItemSlot::Arguments, "input"),
            _ => return,
        };
        let index = match slot {
            ItemSlot::Arguments => 0,
            ItemSlot::Summary => event.get("summary_index").and_then(JsonRef::u64).unwrap_or(0),
            ItemSlot::Refusal | ItemSlot::Text | ItemSlot::ReasoningText => {
                event.get("content_index").and_then(JsonRef::u64).unwrap_or(0)
            }
        };
        let at = self.items.find_or_add(event, event.string_at("item_id"));
        let Some(value) = event.get(if done { key } else { "delta" }) else { return };
        let Some(text) = value.str().or_else(|| value.get("text")?.str()) else { return };
        if done {
            return self.items.push_remainder(at, slot, index, &text, out);
        }
        self.items.push_delta(at, slot, index, &text, out);
        if let Some(list) = event.get("logprobs").filter(|list| list.is_array() && !list.is_blank())
        {
            self.items.add_logprobs(at, list, out);
        }
    }

    /// Applies an event; `kind` is its type without `response.`.
    fn apply_event(
        &mut self,
        kind: &str,
        event: JsonRef<'_>,
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        let response = event.get("response").filter(|response| response.is_object());
        match kind {
            "created" | "in_progress" | "queued" => self.ensure_started(response, out),
            "failed" => {
                return Err(Box::new(read_error::from_json(None, response.unwrap_or(event))));
            }
            "completed" | "incomplete" | "cancelled" | "done" => {
                let response = response.unwrap_or(event);
                if kind == "cancelled" && response.get("status").is_none() {
                    return Err(Box::new(cancelled_fault()));
                }
                if let Some(fault) = response_failure(response) {
                    return Err(Box::new(fault));
                }
                self.ensure_started(Some(response), out);
                self.finish_response(response, out);
            }
            "output_item.added" | "output_item.done" => {
                self.ensure_started(None, out);
                let Some(item) = event.get("item") else { return Ok(()) };
                let at = self.items.find_or_add(event, item.string_at("id"));
                if kind == "output_item.added" {
                    self.items.start_item(at, item, out);
                } else {
                    self.items.finish_item(at, item, out);
                }
            }
            "content_part.done" => {
                self.ensure_started(None, out);
                let at = self.items.find_or_add(event, event.string_at("item_id"));
                let index = event.get("content_index").and_then(JsonRef::u64).unwrap_or(0);
                if let Some(part) = event.get("part") {
                    self.items.finish_part(at, index, part, out);
                }
            }
            "output_text.annotation.added" | "output_text_annotation.added" => {
                self.ensure_started(None, out);
                let at = self.items.find_or_add(event, event.string_at("item_id"));
                let index = event.get("content_index").and_then(JsonRef::u64).unwrap_or(0);
                self.items.add_citation(at, index, event, out);
            }
            _ if kind.ends_with(".delta") || kind.ends_with(".done") => {
                self.ensure_started(None, out);
                self.apply_text_event(kind, event, out);
            }
            _ if read_error::is_error(event) => {
                return Err(Box::new(read_error::from_json(None, event)));
            }
            _ => {}
        }
        Ok(())
    }
}

impl StreamReader for ResponseReader {
    fn read_event(
        &mut self,
        name: &[u8],
        data: &[u8],
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        self.event_count = self.event_count.saturating_add(1);
        if self.done || event_json::is_done(data) {
            return Ok(());
        }
        let event = event_json::read(name, data, self.event_count)?;
        let event_type = event.get("type").and_then(JsonRef::str);
        // If the type is missing, the event's name replaces it.
        let kind =
            event_type.as_deref().or_else(|| std::str::from_utf8(name).ok()).unwrap_or_default();
        if kind == "error" || kind.is_empty() && read_error::is_error(event) || name == b"error" {
            return Err(Box::new(read_error::from_json(None, event)));
        }
        let Some(kind) = kind.strip_prefix("response.") else {
            return if read_error::is_error(event) {
                Err(Box::new(read_error::from_json(None, event)))
            } else {
                Ok(())
            };
        };
        self.apply_event(kind, event, out)
    }

    fn read_eof(&mut self, _out: &mut Vec<ChatEvent>) -> bool {
        // Only the terminal event proves that the stream is complete.
        self.done
    }

    fn summary(&self) -> AnswerSummary {
        self.summary.clone()
    }
}
