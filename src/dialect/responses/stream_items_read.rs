//! Turns the items of a streamed answer into blocks. Items grow side by side, and complete items
//! supply the text that deltas left out.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    dialect::{
        egress::AttemptContext,
        responses::{
            items_read::{
                self, DIALECT, SUMMARY_SEPARATOR, call_kind, item_type, read_citation, read_image,
                reasoning_text,
            },
            response_read::{client_tool_name, ensure_call_id, read_finish},
        },
    },
    ir::{
        block::CallKind,
        event::{BlockStart, ChatEvent},
        response::Finish,
    },
};

/// The items of an answer so far.
pub(super) struct StreamedItems {
    carry: AttemptContext,
    items: Vec<StreamedItem>,
    /// The number of the next block.
    next_block: u32,
    call_count: u32,
    saw_call: bool,
    saw_refusal: bool,
    /// The items by the upstream's numbers, and by their ids.
    by_number: HashMap<u64, usize>,
    by_id: HashMap<String, usize>,
    next_number: u64,
    /// The items that are not done.
    open: BTreeSet<usize>,
}

struct StreamedItem {
    open_part: Option<OpenPart>,
    phase: Option<String>,
    /// The parts that were emitted completely.
    emitted_parts: HashSet<(ItemSlot, u64)>,
    /// The arguments or input that arrived before the call's name.
    pending_text: String,
    done: bool,
}

impl StreamedItem {
    fn new() -> Self {
        Self {
            open_part: None,
            phase: None,
            emitted_parts: HashSet::new(),
            pending_text: String::new(),
            done: false,
        }
    }
}

/// The part of an item that is being emitted, as a block.
struct OpenPart {
    block: u32,
    slot: ItemSlot,
    index: u64,
    emitted_bytes: usize,
    citation_count: usize,
    has_logprobs: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ItemSlot {
    Arguments,
    Refusal,
    Summary,
    Text,
    ReasoningText,
}

impl StreamedItems {
    pub(super) fn new(carry: &AttemptContext) -> Self {
        Self {
            carry: carry.clone(),
            items: Vec::new(),
            next_block: 0,
            call_count: 0,
            saw_call: false,
            saw_refusal: false,
            by_number: HashMap::new(),
            by_id: HashMap::new(),
            next_number: 0,
            open: BTreeSet::new(),
        }
    }

    /// Finds or adds the item of an event. Ids may differ between events, but numbers do not.
    pub(super) fn find_or_add(&mut self, event: JsonRef<'_>, id: Option<String>) -> usize {
        let number = event.get("output_index").and_then(JsonRef::u64);
        let found = match (number, &id) {
            (Some(number), _) => self.by_number.get(&number).copied(),
            (None, Some(id)) => self.by_id.get(id).copied(),
            (None, None) => self.open.last().copied(),
        };
        found.unwrap_or_else(|| {
            let number = number.unwrap_or(self.next_number);
            self.add_item(number, id.unwrap_or_default())
        })
    }

    fn add_item(&mut self, number: u64, id: String) -> usize {
        let at = self.items.len();
        self.by_number.entry(number).or_insert(at);
        self.by_id.entry(id).or_insert(at);
        self.next_number = self.next_number.max(number.saturating_add(1));
        self.open.insert(at);
        self.items.push(StreamedItem::new());
        at
    }

    fn open_part(
        &mut self,
        at: usize,
        slot: ItemSlot,
        index: u64,
        head: BlockStart,
        out: &mut Vec<ChatEvent>,
    ) {
        self.close_part(at, out);
        let block = self.next_block;
        self.next_block += 1;
        self.saw_refusal |= slot == ItemSlot::Refusal;
        self.saw_call |= slot == ItemSlot::Arguments;
        out.push(ChatEvent::Open { block, head });
        let phase = self.items[at].phase.take_if(|_| slot == ItemSlot::Text);
        out.extend(phase.map(|phase| ChatEvent::Phase { block, phase }));
        self.items[at].open_part = Some(OpenPart {
            block,
            slot,
            index,
            emitted_bytes: 0,
            citation_count: 0,
            has_logprobs: false,
        });
    }

    fn close_part(&mut self, at: usize, out: &mut Vec<ChatEvent>) {
        if let Some(part) = self.items[at].open_part.take() {
            self.items[at].emitted_parts.insert((part.slot, part.index));
            out.push(ChatEvent::Close { block: part.block });
        }
    }

    /// Returns the growing part of the item and opens it if necessary; `None` if it was already
    /// emitted.
    fn ensure_open_part(
        &mut self,
        at: usize,
        slot: ItemSlot,
        index: u64,
        out: &mut Vec<ChatEvent>,
    ) -> Option<&mut OpenPart> {
        let item = &self.items[at];
        if item.done || item.emitted_parts.contains(&(slot, index)) {
            return None;
        }
        let is_reasoning = matches!(slot, ItemSlot::Summary | ItemSlot::ReasoningText);
        match &item.open_part {
            Some(part) if part.slot == slot && part.index == index => {}
            // Reasoning is one block: its summary or its content, with its parts separated.
            Some(part) if is_reasoning => {
                if part.slot != slot || part.index > index {
                    return None;
                }
                let block = part.block;
                if slot == ItemSlot::Summary {
                    out.push(ChatEvent::Delta { block, text: SUMMARY_SEPARATOR.to_owned() });
                }
                let part = self.items[at].open_part.as_mut()?;
                (part.index, part.emitted_bytes) = (index, 0);
            }
            _ => match slot {
                ItemSlot::Arguments => return None,
                ItemSlot::Refusal => self.open_part(at, slot, index, BlockStart::Refusal, out),
                ItemSlot::Text => self.open_part(at, slot, index, BlockStart::Text, out),
                ItemSlot::Summary | ItemSlot::ReasoningText => {
                    self.open_part(
                        at,
                        slot,
                        index,
                        BlockStart::Reasoning { summary: slot == ItemSlot::Summary },
                        out,
                    );
                }
            },
        }
        self.items[at].open_part.as_mut()
    }

    pub(super) fn push_delta(
        &mut self,
        at: usize,
        slot: ItemSlot,
        index: u64,
        text: &str,
        out: &mut Vec<ChatEvent>,
    ) {
        if text.is_empty() {
            return;
        }
        if let Some(part) = self.ensure_open_part(at, slot, index, out) {
            part.emitted_bytes += text.len();
            let block = part.block;
            out.push(ChatEvent::Delta { block, text: text.to_owned() });
            return;
        }
        let item = &mut self.items[at];
        if slot == ItemSlot::Arguments && !item.done && item.emitted_parts.is_empty() {
            item.pending_text.push_str(text);
        }
    }

    /// Emits the text of a complete part that was not emitted yet.
    pub(super) fn push_remainder(
        &mut self,
        at: usize,
        slot: ItemSlot,
        index: u64,
        text: &str,
        out: &mut Vec<ChatEvent>,
    ) {
        let emitted = match &self.items[at].open_part {
            Some(part) if part.slot == slot && part.index == index => part.emitted_bytes,
            Some(part) if part.slot == slot && part.index > index => return,
            _ => 0,
        };
        if let Some(rest) = text.get(emitted..) {
            self.push_delta(at, slot, index, rest, out);
        }
    }

    pub(super) fn start_item(&mut self, at: usize, item: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        self.items[at].phase = item.non_empty_at("phase");
        if let Some(form) = call_kind(&item_type(item)) {
            self.open_call(at, item, form, out);
        }
    }

    /// Opens a call as soon as its name is known.
    fn open_call(
        &mut self,
        at: usize,
        item: JsonRef<'_>,
        form: CallKind,
        out: &mut Vec<ChatEvent>,
    ) {
        let known = &self.items[at];
        if known.done || known.open_part.is_some() || !known.emitted_parts.is_empty() {
            return;
        }
        let call = items_read::read_call(item, form);
        if call.name.is_empty() {
            return;
        }
        let id = ensure_call_id(call.id, &self.carry, &mut self.call_count);
        let name = client_tool_name(item, &call.name, &self.carry);
        self.open_part(at, ItemSlot::Arguments, 0, BlockStart::ToolCall { id, name, form }, out);
        let pending = std::mem::take(&mut self.items[at].pending_text);
        self.push_delta(at, ItemSlot::Arguments, 0, &pending, out);
    }

    /// Finishes a part of a message.
    pub(super) fn finish_part(
        &mut self,
        at: usize,
        index: u64,
        part: JsonRef<'_>,
        out: &mut Vec<ChatEvent>,
    ) {
        let (slot, key) = match item_type(part).as_str() {
            "output_text" | "text" => (ItemSlot::Text, "text"),
            "refusal" => (ItemSlot::Refusal, "refusal"),
            _ => return,
        };
        let text = part.string_at(key).unwrap_or_default();
        self.push_remainder(at, slot, index, &text, out);
        let Some(open) = self.items[at]
            .open_part
            .as_mut()
            .filter(|open| open.slot == slot && open.index == index)
        else {
            return;
        };
        let block = open.block;
        if !open.has_logprobs
            && let Some(list) =
                part.get("logprobs").filter(|list| list.is_array() && !list.is_blank())
        {
            out.push(ChatEvent::Logprobs(RawJson::from_json(list)));
        }
        for one in
            part.get("annotations").into_iter().flat_map(JsonRef::items).skip(open.citation_count)
        {
            out.push(ChatEvent::Citation { block, citation: read_citation(one) });
        }
        self.close_part(at, out);
    }

    /// Finishes an item.
    pub(super) fn finish_item(&mut self, at: usize, item: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        if self.items[at].done {
            return;
        }
        let kind = item_type(item);
        match kind.as_str() {
            "message" => match item.get("content") {
                Some(text) if text.kind() == "string" => {
                    self.push_remainder(
                        at,
                        ItemSlot::Text,
                        0,
                        &text.str().unwrap_or_default(),
                        out,
                    );
                }
                Some(list) => {
                    for (part, index) in list.items().zip(0..) {
                        self.finish_part(at, index, part, out);
                    }
                }
                None => {}
            },
            "reasoning" => self.finish_reasoning(at, item, out),
            "function_call" | "custom_tool_call" => {
                let form = call_kind(&kind).unwrap_or_default();
                self.open_call(at, item, form, out);
                let call = items_read::read_call(item, form);
                self.push_remainder(at, ItemSlot::Arguments, 0, &call.arguments, out);
            }
            "" => {}
            _ => {
                let head = match read_image(item) {
                    Some(media) if kind == "image_generation_call" => BlockStart::Media(media),
                    _ => BlockStart::Foreign { dialect: DIALECT, body: RawJson::from_json(item) },
                };
                out.push(ChatEvent::Open { block: self.next_block, head });
                out.push(ChatEvent::Close { block: self.next_block });
                self.next_block += 1;
            }
        }
        self.close_part(at, out);
        self.items[at].done = true;
        self.open.remove(&at);
    }

    fn finish_reasoning(&mut self, at: usize, item: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let slot = match &self.items[at].open_part {
            Some(part) => part.slot,
            None => {
                if reasoning_text(item).1 {
                    ItemSlot::Summary
                } else {
                    ItemSlot::ReasoningText
                }
            }
        };
        let key = if slot == ItemSlot::Summary { "summary" } else { "content" };
        match item.get(key) {
            Some(text) if text.kind() == "string" => {
                self.push_remainder(at, slot, 0, &text.str().unwrap_or_default(), out);
            }
            list => {
                for (part, index) in list.into_iter().flat_map(JsonRef::items).zip(0..) {
                    self.push_remainder(
                        at,
                        slot,
                        index,
                        &part.string_at("text").unwrap_or_default(),
                        out,
                    );
                }
            }
        }
        if let Some(proof) = items_read::read_signature(item) {
            if self.items[at].open_part.is_none() {
                self.open_part(
                    at,
                    slot,
                    0,
                    BlockStart::Reasoning { summary: slot == ItemSlot::Summary },
                    out,
                );
            }
            if let Some(part) = &self.items[at].open_part {
                out.push(ChatEvent::Signature { block: part.block, signature: proof });
            }
        }
    }

    pub(super) fn add_citation(
        &mut self,
        at: usize,
        index: u64,
        event: JsonRef<'_>,
        out: &mut Vec<ChatEvent>,
    ) {
        let Some(annotation) = event.get("annotation").filter(|annotation| annotation.is_object())
        else {
            return;
        };
        if let Some(part) = self.ensure_open_part(at, ItemSlot::Text, index, out) {
            part.citation_count += 1;
            let block = part.block;
            out.push(ChatEvent::Citation { block, citation: read_citation(annotation) });
        }
    }

    /// Adds log probabilities to the open part of an item, if it has one.
    pub(super) fn add_logprobs(&mut self, at: usize, list: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        if let Some(part) = &mut self.items[at].open_part {
            part.has_logprobs = true;
            out.push(ChatEvent::Logprobs(RawJson::from_json(list)));
        }
    }

    /// Finishes all items, with those of the complete response.
    pub(super) fn finish_all(&mut self, response: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        for (item, number) in
            response.get("output").into_iter().flat_map(JsonRef::items).zip(0_u64..)
        {
            let known = self.by_number.get(&number).copied();
            let at = known.unwrap_or_else(|| self.add_item(number, String::new()));
            self.finish_item(at, item, out);
        }
        for at in 0..self.items.len() {
            self.close_part(at, out);
        }
    }

    pub(super) fn read_finish(&self, response: JsonRef<'_>) -> Finish {
        read_finish(response, self.saw_call, self.saw_refusal)
    }
}
