//! Reads an answer as it comes. Items grow side by side; whatever the events left out is told from
//! the whole items.

use crate::{
    base::json::{self, JsonRef},
    dialect::{
        Carry, StreamReader, Summary, fault,
        responses::{
            items_read::{self, BREAK, OWN, citation, form, image, kind, string, thought},
            meter::summary,
            response_read::{call_id, cancelled, created, failure, finish, name, usage},
        },
    },
    ir::{
        block::CallKind,
        event::{BlockStart, ChatEvent},
        fault::Fault,
    },
};

pub(super) struct Reader {
    carry: Carry,
    items: Vec<Item>,
    /// The next block's number.
    next: u32,
    calls: u32,
    events: u32,
    begun: bool,
    done: bool,
    called: bool,
    refused: bool,
    summary: Summary,
}

struct Item {
    /// The upstream's number of it.
    key: u64,
    id: String,
    open: Option<Part>,
    /// Parts that were told whole.
    told: Vec<(Slot, u64)>,
    /// What came before the call's name.
    held: String,
    done: bool,
}

/// The part of an item that is being told: a block.
struct Part {
    block: u32,
    slot: Slot,
    index: u64,
    bytes: usize,
    citations: usize,
    logprobs: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Arguments,
    Refusal,
    Summary,
    Text,
    Thought,
}

impl Reader {
    pub(super) fn new(carry: &Carry) -> Self {
        Self {
            carry: carry.clone(),
            items: Vec::new(),
            next: 0,
            calls: 0,
            events: 0,
            begun: false,
            done: false,
            called: false,
            refused: false,
            summary: Summary::default(),
        }
    }

    fn begin(&mut self, response: Option<JsonRef<'_>>, out: &mut Vec<ChatEvent>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let text = |key| response.and_then(|response| string(response, key)).unwrap_or_default();
        let model = text("model");
        self.summary.model = Some(model.clone()).filter(|model| !model.is_empty());
        out.push(ChatEvent::Begin {
            id: text("id"),
            model,
            created: response.and_then(created),
            usage: None,
        });
    }

    /// The item that an event belongs to; ids may differ from event to event, numbers do not.
    fn item(&mut self, event: JsonRef<'_>, id: Option<String>) -> usize {
        let number = event.get("output_index").and_then(JsonRef::u64);
        let found = match (number, &id) {
            (Some(number), _) => self.items.iter().position(|item| item.key == number),
            (None, Some(id)) => self.items.iter().position(|item| item.id == *id),
            (None, None) => self.items.iter().rposition(|item| !item.done),
        };
        found.unwrap_or_else(|| {
            let key = number
                .unwrap_or_else(|| self.items.iter().map(|item| item.key + 1).max().unwrap_or(0));
            self.items.push(Item {
                key,
                id: id.unwrap_or_default(),
                open: None,
                told: Vec::new(),
                held: String::new(),
                done: false,
            });
            self.items.len() - 1
        })
    }

    fn open(
        &mut self,
        at: usize,
        slot: Slot,
        index: u64,
        head: BlockStart,
        out: &mut Vec<ChatEvent>,
    ) {
        self.close(at, out);
        let block = self.next;
        self.next += 1;
        self.refused |= slot == Slot::Refusal;
        self.called |= slot == Slot::Arguments;
        out.push(ChatEvent::Open { block, head });
        self.items[at].open =
            Some(Part { block, slot, index, bytes: 0, citations: 0, logprobs: false });
    }

    fn close(&mut self, at: usize, out: &mut Vec<ChatEvent>) {
        if let Some(part) = self.items[at].open.take() {
            self.items[at].told.push((part.slot, part.index));
            out.push(ChatEvent::Close { block: part.block });
        }
    }

    /// The part of the item that grows, opened where it is not; `None` where it has been told
    /// already.
    fn part(
        &mut self,
        at: usize,
        slot: Slot,
        index: u64,
        out: &mut Vec<ChatEvent>,
    ) -> Option<&mut Part> {
        let item = &self.items[at];
        if item.done || item.told.contains(&(slot, index)) {
            return None;
        }
        let thinks = matches!(slot, Slot::Summary | Slot::Thought);
        match &item.open {
            Some(part) if part.slot == slot && part.index == index => {}
            // A thought is one block: either its summary or its words, parts apart.
            Some(part) if thinks => {
                if part.slot != slot || part.index > index {
                    return None;
                }
                let block = part.block;
                if slot == Slot::Summary {
                    out.push(ChatEvent::Delta { block, text: BREAK.to_owned() });
                }
                let part = self.items[at].open.as_mut()?;
                (part.index, part.bytes) = (index, 0);
            }
            _ => match slot {
                Slot::Arguments => return None,
                Slot::Refusal => self.open(at, slot, index, BlockStart::Refusal, out),
                Slot::Text => self.open(at, slot, index, BlockStart::Text, out),
                Slot::Summary | Slot::Thought => {
                    self.open(
                        at,
                        slot,
                        index,
                        BlockStart::Reasoning { summary: slot == Slot::Summary },
                        out,
                    );
                }
            },
        }
        self.items[at].open.as_mut()
    }

    fn delta(&mut self, at: usize, slot: Slot, index: u64, text: &str, out: &mut Vec<ChatEvent>) {
        if text.is_empty() {
            return;
        }
        if let Some(part) = self.part(at, slot, index, out) {
            part.bytes += text.len();
            let block = part.block;
            out.push(ChatEvent::Delta { block, text: text.to_owned() });
            return;
        }
        let item = &mut self.items[at];
        if slot == Slot::Arguments && !item.done && item.told.is_empty() {
            item.held.push_str(text);
        }
    }

    /// The whole text of a part: what of it has not been told yet.
    fn whole(&mut self, at: usize, slot: Slot, index: u64, text: &str, out: &mut Vec<ChatEvent>) {
        let told = match &self.items[at].open {
            Some(part) if part.slot == slot && part.index == index => part.bytes,
            Some(part) if part.slot == slot && part.index > index => return,
            _ => 0,
        };
        if let Some(rest) = text.get(told..) {
            self.delta(at, slot, index, rest, out);
        }
    }

    fn added(&mut self, at: usize, item: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        if let Some(form) = form(&kind(item)) {
            self.call(at, item, form, out);
        }
    }

    /// Opens a call as soon as its name is known.
    fn call(&mut self, at: usize, item: JsonRef<'_>, form: CallKind, out: &mut Vec<ChatEvent>) {
        let known = &self.items[at];
        if known.done || known.open.is_some() || !known.told.is_empty() {
            return;
        }
        let call = items_read::call(item, form);
        if call.name.is_empty() {
            return;
        }
        let id = call_id(call.id, &self.carry, &mut self.calls);
        let name = name(item, &call.name, &self.carry);
        self.open(at, Slot::Arguments, 0, BlockStart::ToolCall { id, name, form }, out);
        let held = std::mem::take(&mut self.items[at].held);
        self.delta(at, Slot::Arguments, 0, &held, out);
    }

    /// A part of a message is complete.
    fn part_done(&mut self, at: usize, index: u64, part: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let (slot, key) = match kind(part).as_str() {
            "output_text" | "text" => (Slot::Text, "text"),
            "refusal" => (Slot::Refusal, "refusal"),
            _ => return,
        };
        let text = string(part, key).unwrap_or_default();
        self.whole(at, slot, index, &text, out);
        let Some(open) =
            self.items[at].open.as_mut().filter(|open| open.slot == slot && open.index == index)
        else {
            return;
        };
        let block = open.block;
        if !open.logprobs
            && let Some(list) =
                part.get("logprobs").filter(|list| list.is_array() && !list.is_blank())
        {
            out.push(ChatEvent::Logprobs(crate::base::raw::RawJson::from_json(list)));
        }
        for one in part.get("annotations").into_iter().flat_map(JsonRef::items).skip(open.citations)
        {
            out.push(ChatEvent::Citation { block, citation: citation(one) });
        }
        self.close(at, out);
    }

    /// An item is complete.
    fn item_done(&mut self, at: usize, item: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        if self.items[at].done {
            return;
        }
        let kind = kind(item);
        match kind.as_str() {
            "message" => match item.get("content") {
                Some(text) if text.kind() == "string" => {
                    self.whole(at, Slot::Text, 0, &text.str().unwrap_or_default(), out)
                }
                Some(list) => {
                    for (part, index) in list.items().zip(0..) {
                        self.part_done(at, index, part, out);
                    }
                }
                None => {}
            },
            "reasoning" => self.thought_done(at, item, out),
            "function_call" | "custom_tool_call" => {
                let form = form(&kind).unwrap_or_default();
                self.call(at, item, form, out);
                let call = items_read::call(item, form);
                self.whole(at, Slot::Arguments, 0, &call.arguments, out);
            }
            "" => {}
            _ => {
                let head = match image(item) {
                    Some(media) if kind == "image_generation_call" => BlockStart::Media(media),
                    _ => BlockStart::Foreign {
                        dialect: OWN,
                        body: crate::base::raw::RawJson::from_json(item),
                    },
                };
                out.push(ChatEvent::Open { block: self.next, head });
                out.push(ChatEvent::Close { block: self.next });
                self.next += 1;
            }
        }
        self.close(at, out);
        self.items[at].done = true;
    }

    fn thought_done(&mut self, at: usize, item: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let slot = match &self.items[at].open {
            Some(part) => part.slot,
            None => {
                if thought(item).1 {
                    Slot::Summary
                } else {
                    Slot::Thought
                }
            }
        };
        let key = if slot == Slot::Summary { "summary" } else { "content" };
        match item.get(key) {
            Some(text) if text.kind() == "string" => {
                self.whole(at, slot, 0, &text.str().unwrap_or_default(), out)
            }
            list => {
                for (part, index) in list.into_iter().flat_map(JsonRef::items).zip(0..) {
                    self.whole(at, slot, index, &string(part, "text").unwrap_or_default(), out);
                }
            }
        }
        if let Some(proof) = items_read::proof(item) {
            if self.items[at].open.is_none() {
                self.open(
                    at,
                    slot,
                    0,
                    BlockStart::Reasoning { summary: slot == Slot::Summary },
                    out,
                );
            }
            if let Some(part) = &self.items[at].open {
                out.push(ChatEvent::Signature { block: part.block, signature: proof });
            }
        }
    }

    fn cite(&mut self, at: usize, index: u64, event: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let Some(annotation) = event.get("annotation").filter(|annotation| annotation.is_object())
        else {
            return;
        };
        if let Some(part) = self.part(at, Slot::Text, index, out) {
            part.citations += 1;
            let block = part.block;
            out.push(ChatEvent::Citation { block, citation: citation(annotation) });
        }
    }

    fn terminal(&mut self, response: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        for (item, number) in
            response.get("output").into_iter().flat_map(JsonRef::items).zip(0_u64..)
        {
            let known = self.items.iter().position(|known| known.key == number);
            let at = known.unwrap_or_else(|| {
                self.items.push(Item {
                    key: number,
                    id: String::new(),
                    open: None,
                    told: Vec::new(),
                    held: String::new(),
                    done: false,
                });
                self.items.len() - 1
            });
            self.item_done(at, item, out);
        }
        for at in 0..self.items.len() {
            self.close(at, out);
        }
        let told = summary(response);
        let usage = response.get("usage").and_then(usage);
        self.summary =
            Summary { model: told.model.or(self.summary.model.take()), usage, finish: told.finish };
        self.done = true;
        out.push(ChatEvent::End {
            finish: finish(response, self.called, self.refused),
            usage,
            service_tier: string(response, "service_tier"),
        });
    }

    fn grow(&mut self, kind: &str, event: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let (what, done) = match kind.strip_suffix(".delta") {
            Some(what) => (what, false),
            None => (kind.strip_suffix(".done").unwrap_or(kind), true),
        };
        let (slot, key) = match what {
            "output_text" => (Slot::Text, "text"),
            "refusal" => (Slot::Refusal, "refusal"),
            "reasoning_summary_text" | "reasoning_summary" => (Slot::Summary, "text"),
            "reasoning_text" | "reasoning" => (Slot::Thought, "text"),
            "function_call_arguments" => (Slot::Arguments, "arguments"),
            "custom_tool_call_input" => (Slot::Arguments, "input"),
            _ => return,
        };
        let index = match slot {
            Slot::Arguments => 0,
            Slot::Summary => event.get("summary_index").and_then(JsonRef::u64).unwrap_or(0),
            Slot::Refusal | Slot::Text | Slot::Thought => {
                event.get("content_index").and_then(JsonRef::u64).unwrap_or(0)
            }
        };
        let at = self.item(event, string(event, "item_id"));
        let Some(said) = event.get(if done { key } else { "delta" }) else { return };
        let Some(text) = said.str().or_else(|| said.get("text")?.str()) else { return };
        if done {
            return self.whole(at, slot, index, &text, out);
        }
        self.delta(at, slot, index, &text, out);
        if let Some(list) = event.get("logprobs").filter(|list| list.is_array() && !list.is_blank())
            && let Some(part) = &mut self.items[at].open
        {
            part.logprobs = true;
            out.push(ChatEvent::Logprobs(crate::base::raw::RawJson::from_json(list)));
        }
    }
}

impl StreamReader for Reader {
    fn event(
        &mut self,
        name: &[u8],
        data: &[u8],
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        self.events = self.events.saturating_add(1);
        if self.done || data.trim_ascii() == b"[DONE]" {
            return Ok(());
        }
        let event = match json::parse(data) {
            Ok(event) if event.is_object() => event,
            Ok(list) if fault::is_error(list) => return Err(Box::new(fault::told(None, list))),
            Ok(_) => {
                return Err(Box::new(fault::bad_event(
                    self.events,
                    json::JsonError { kind: json::JsonErrorKind::NotAnObject, offset: 0 },
                    data,
                )));
            }
            Err(_) if name == b"error" && !data.starts_with(b"{") => {
                return Err(Box::new(fault::said(data)));
            }
            Err(bad) => return Err(Box::new(fault::bad_event(self.events, bad, data))),
        };
        let told = event.get("type").and_then(JsonRef::str);
        // Where the type is missing, the event's name says it.
        let kind = told.as_deref().or_else(|| std::str::from_utf8(name).ok()).unwrap_or_default();
        if kind == "error" || kind.is_empty() && fault::is_error(event) || name == b"error" {
            return Err(Box::new(fault::told(None, event)));
        }
        let Some(kind) = kind.strip_prefix("response.") else {
            return if fault::is_error(event) {
                Err(Box::new(fault::told(None, event)))
            } else {
                Ok(())
            };
        };
        let response = event.get("response").filter(|response| response.is_object());
        match kind {
            "created" | "in_progress" | "queued" => self.begin(response, out),
            "failed" => return Err(Box::new(fault::told(None, response.unwrap_or(event)))),
            "completed" | "incomplete" | "cancelled" | "done" => {
                let response = response.unwrap_or(event);
                if kind == "cancelled" && response.get("status").is_none() {
                    return Err(Box::new(cancelled()));
                }
                if let Some(fault) = failure(response) {
                    return Err(Box::new(fault));
                }
                self.begin(Some(response), out);
                self.terminal(response, out);
            }
            "output_item.added" | "output_item.done" => {
                self.begin(None, out);
                let Some(item) = event.get("item") else { return Ok(()) };
                let at = self.item(event, string(item, "id"));
                if kind == "output_item.added" {
                    self.added(at, item, out)
                } else {
                    self.item_done(at, item, out)
                }
            }
            "content_part.done" => {
                self.begin(None, out);
                let at = self.item(event, string(event, "item_id"));
                let index = event.get("content_index").and_then(JsonRef::u64).unwrap_or(0);
                if let Some(part) = event.get("part") {
                    self.part_done(at, index, part, out);
                }
            }
            "output_text.annotation.added" | "output_text_annotation.added" => {
                self.begin(None, out);
                let at = self.item(event, string(event, "item_id"));
                let index = event.get("content_index").and_then(JsonRef::u64).unwrap_or(0);
                self.cite(at, index, event, out);
            }
            _ if kind.ends_with(".delta") || kind.ends_with(".done") => {
                self.begin(None, out);
                self.grow(kind, event, out);
            }
            _ if fault::is_error(event) => return Err(Box::new(fault::told(None, event))),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _out: &mut Vec<ChatEvent>) -> bool {
        // Only the terminal event says that nothing is missing.
        self.done
    }

    fn summary(&self) -> Summary {
        self.summary.clone()
    }
}
