//! Reads upstream responses as a stream.

use crate::{
    base::json::reader::{self, JsonRef},
    dialect::{
        anthropic::{meter::MessageUsage, response_read, stream_blocks::StreamedBlocks},
        egress::{AttemptContext, StreamReader},
        errors::read_error,
        event_json, json_body,
        meter::AnswerSummary,
    },
    ir::{event::ChatEvent, fault::Fault},
};

pub(super) struct MessageStreamReader {
    blocks: StreamedBlocks,
    counts: MessageUsage,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    service_tier: Option<String>,
    model: Option<String>,
    event_count: u32,
    started: bool,
    done: bool,
}

impl MessageStreamReader {
    pub(super) fn new(context: &AttemptContext) -> Self {
        Self {
            blocks: StreamedBlocks::new(context),
            counts: MessageUsage::default(),
            stop_reason: None,
            stop_sequence: None,
            service_tier: None,
            model: None,
            event_count: 0,
            started: false,
            done: false,
        }
    }

    fn emit_begin(&mut self, id: String, out: &mut Vec<ChatEvent>) {
        if !std::mem::replace(&mut self.started, true) {
            let model = self.model.clone().unwrap_or_default();
            out.push(ChatEvent::Begin { id, model, created: None, usage: self.counts.usage() });
        }
    }

    fn update_usage(&mut self, usage: Option<JsonRef<'_>>) {
        if let Some(usage) = usage {
            self.counts.update(usage);
            self.service_tier =
                response_read::read_service_tier(usage).or(self.service_tier.take());
        }
    }

    fn emit_end(&mut self, out: &mut Vec<ChatEvent>) {
        self.emit_begin(String::new(), out);
        self.blocks.close_all(out);
        self.done = true;
        let finish = response_read::read_finish(
            self.stop_reason.clone(),
            self.stop_sequence.take(),
            self.blocks.has_calls(),
        );
        out.push(ChatEvent::End {
            finish,
            usage: self.counts.usage(),
            service_tier: self.service_tier.clone(),
        });
    }

    /// Returns the number of a block. Without an index, a start means the next block and any other
    /// event means the last one.
    fn block_index(&self, json: JsonRef<'_>, starts: bool) -> u64 {
        let last = self.blocks.last_index();
        json.get("index").and_then(JsonRef::u64).unwrap_or_else(|| {
            if starts { u64::from(self.event_count) << 32 } else { last.unwrap_or(0) }
        })
    }
}

impl StreamReader for MessageStreamReader {
    fn read_event(
        &mut self,
        name: &[u8],
        data: &[u8],
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        if self.done {
            return Ok(());
        }
        self.event_count = self.event_count.saturating_add(1);
        if event_json::is_done(data) {
            if self.stop_reason.is_some() {
                self.emit_end(out);
            }
            return Ok(());
        }
        let json = match reader::parse(data) {
            Ok(json) => json,
            Err(_) if name == b"error" && !data.starts_with(b"{") => {
                return Err(Box::new(read_error::from_text(data)));
            }
            Err(bad) => {
                return Err(Box::new(read_error::invalid_event(self.event_count, bad, data)));
            }
        };
        if !json.is_object() && !read_error::is_error(json) {
            return Err(Box::new(response_read::invalid_event(json.kind())));
        }
        let type_member = json.get("type").and_then(JsonRef::str);
        let kind = type_member.as_deref().map_or(name, str::as_bytes);
        match kind {
            b"content_block_delta" => {
                self.emit_begin(String::new(), out);
                if let Some(delta) = json.get("delta") {
                    let index = self.block_index(json, false);
                    self.blocks.read_delta(index, delta, out);
                }
            }
            b"content_block_start" => {
                self.emit_begin(String::new(), out);
                if let Some(block) = json.get("content_block") {
                    let index = self.block_index(json, true);
                    self.blocks.start_block(index, block, out);
                }
            }
            b"content_block_stop" => {
                let index = self.block_index(json, false);
                self.blocks.stop_block(index, out);
            }
            b"message_start" => {
                let message = json.get("message").unwrap_or(json);
                self.model = json_body::clean_name(message.get("model"));
                self.update_usage(message.get("usage"));
                self.emit_begin(message.string_at("id").unwrap_or_default(), out);
            }
            b"message_delta" => {
                let delta = json.get("delta").unwrap_or(json);
                self.stop_reason =
                    json_body::clean_name(delta.get("stop_reason")).or(self.stop_reason.take());
                self.stop_sequence = delta.string_at("stop_sequence").or(self.stop_sequence.take());
                self.update_usage(json.get("usage").or_else(|| delta.get("usage")));
            }
            b"message_stop" => {
                if self.blocks.is_empty() && self.stop_reason.is_none() {
                    return Err(Box::new(json_body::empty_stream_fault()));
                }
                self.update_usage(json.get("usage"));
                self.emit_end(out);
            }
            b"error" => return Err(Box::new(read_error::from_json(None, json))),
            _ if name == b"error" || read_error::is_error(json) => {
                return Err(Box::new(read_error::from_json(None, json)));
            }
            _ => {}
        }
        Ok(())
    }

    fn read_eof(&mut self, out: &mut Vec<ChatEvent>) -> bool {
        if !self.done && self.stop_reason.is_some() {
            self.emit_end(out);
        }
        self.done
    }

    fn summary(&self) -> AnswerSummary {
        AnswerSummary {
            usage: self.counts.usage(),
            finish_reason: self.stop_reason.clone(),
            model: self.model.clone(),
        }
    }
}
