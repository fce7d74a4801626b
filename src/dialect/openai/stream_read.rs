//! Reads an answer's chunks: deltas of the first choice, whatever fields its provider puts them in.

use crate::{
    base::{
        json::{self, JsonErrorKind, JsonRef},
        raw::RawJson,
    },
    dialect::{
        Carry, StreamReader, Summary, fault,
        openai::{
            parts_read,
            reasoning::{self, Details},
            response_read::{self, Ids},
        },
        shape, tokens,
    },
    ir::{
        block::{BlockKind, CallKind, Citation, ReasoningSignature},
        blocks::OpenBlocks,
        event::{BlockStart, ChatEvent},
        fault::Fault,
        progress::PartialJson,
        usage::Usage,
    },
};

const THOUGHT: BlockStart = BlockStart::Reasoning { summary: false };

pub(super) struct ChunkReader {
    carry: Carry,
    events: u32,
    begun: bool,
    ended: bool,
    blocks: OpenBlocks,
    ids: Ids,
    calls: Vec<Call>,
    /// Where the reasoning's words come from; others repeat them.
    thoughts: Option<&'static str>,
    details: Details,
    /// Sources that wait for text to open.
    sources: Vec<Citation>,
    listed: Vec<Citation>,
    cited: bool,
    text: Option<u32>,
    /// Some chunks tell deltas; others hold messages.
    deltas: bool,
    refused: bool,
    said: Option<String>,
    sequence: Option<String>,
    usage: Option<Usage>,
    tier: Option<String>,
    model: Option<String>,
}

/// A call that has begun.
struct Call {
    /// As its provider numbers it.
    index: Option<u64>,
    id: String,
    /// What came before it was told.
    waiting: Option<Waiting>,
}

/// A call is told once its arguments begin: its name is whole then, though it may have come in
/// pieces.
#[derive(Default)]
struct Waiting {
    name: String,
    form: CallKind,
    arguments: String,
    proof: Option<ReasoningSignature>,
}

impl Waiting {
    /// Some tell the name again with every piece, some tell more of it.
    fn name(&mut self, more: &str) {
        if more.starts_with(&self.name) {
            more.clone_into(&mut self.name);
        } else {
            self.name.push_str(more);
        }
    }

    fn complete(&self) -> bool {
        let mut progress = PartialJson::default();
        progress.feed(&self.arguments);
        !self.name.is_empty() && progress.is_complete()
    }
}

/// The index of `function_call`, which has none.
const LEGACY: u64 = u64::MAX;

impl ChunkReader {
    pub(super) fn new(carry: &Carry) -> Self {
        Self {
            carry: carry.clone(),
            events: 0,
            begun: false,
            ended: false,
            blocks: OpenBlocks::default(),
            ids: Ids::new(&carry.seed),
            calls: Vec::new(),
            thoughts: None,
            details: Details::default(),
            sources: Vec::new(),
            listed: Vec::new(),
            cited: false,
            text: None,
            deltas: false,
            refused: false,
            said: None,
            sequence: None,
            usage: None,
            tier: None,
            model: None,
        }
    }

    fn begin(&mut self, root: Option<JsonRef<'_>>, out: &mut Vec<ChatEvent>) {
        if !std::mem::replace(&mut self.begun, true) {
            let told = |key: &str| {
                root.and_then(|root| response_read::text(root.get(key))).unwrap_or_default()
            };
            let created = root.and_then(|root| root.get("created")?.i64()).filter(|&at| at > 0);
            out.push(ChatEvent::Begin {
                id: told("id"),
                model: told("model"),
                created,
                usage: None,
            });
        }
    }

    fn chunk(&mut self, json: JsonRef<'_>, out: &mut Vec<ChatEvent>) -> Result<(), Box<Fault>> {
        let mut choices = None;
        for (key, value) in json.members() {
            match key {
                "choices" => choices = Some(value),
                // Cumulative where there are several.
                "usage" if value.is_object() => self.usage = tokens::openai(value).or(self.usage),
                "service_tier" if self.tier.is_none() => {
                    self.tier = response_read::text(Some(value))
                }
                "model" if self.model.is_none() => self.model = shape::name(Some(value)),
                "error" if matches!(value.kind(), "object" | "string") && !value.is_blank() => {
                    return Err(Box::new(fault::told(None, json)));
                }
                "__type" if !value.is_blank() => return Err(Box::new(fault::told(None, json))),
                "object" | "type" if value.text() == "\"error\"" => {
                    return Err(Box::new(fault::told(None, json)));
                }
                "citations" | "search_results" if !value.is_blank() => {
                    self.listed = response_read::listed(json)
                }
                _ => {}
            }
        }
        let Some(choices) = choices else { return Ok(()) };
        for choice in choices.items().filter(|choice| choice.is_object()) {
            if choice.get("index").and_then(JsonRef::u64).unwrap_or(0) == 0 {
                self.begin(Some(json), out);
                self.choice(choice, out)?;
            }
        }
        Ok(())
    }

    fn choice(&mut self, choice: JsonRef<'_>, out: &mut Vec<ChatEvent>) -> Result<(), Box<Fault>> {
        let (mut delta, mut message, mut text, mut logprobs, mut failed) =
            (None, None, None, None, false);
        for (key, value) in choice.members().filter(|(_, value)| value.kind() != "null") {
            match key {
                "delta" => delta = Some(value),
                "message" => message = Some(value),
                "text" => text = value.str(),
                "logprobs" => {
                    logprobs =
                        value.get("content").filter(|list| list.is_array() && !list.is_blank())
                }
                "finish_reason" => self.said = shape::name(Some(value)).or(self.said.take()),
                "stop_reason" => self.sequence = response_read::text(Some(value)),
                "error" => failed = true,
                _ => {}
            }
        }
        if (failed || self.said.as_deref() == Some("error"))
            && let Some(fault) = response_read::failure(choice)
        {
            return Err(Box::new(fault));
        }
        // A message beside the deltas says all of them once more.
        let delta = delta.filter(|delta| !delta.is_blank());
        self.deltas |= delta.is_some();
        if let Some(delta) = delta.or(message.filter(|_| !self.deltas)) {
            self.delta(delta, out);
        }
        if let Some(text) = text {
            self.say(&text, out);
        }
        if let Some(list) = logprobs {
            out.push(ChatEvent::Logprobs(RawJson::from_json(list)));
        }
        Ok(())
    }

    fn delta(&mut self, delta: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let (mut content, mut refusal, mut calls, mut call, mut sources, mut proof, mut odd) =
            (None, None, None, None, None, None, false);
        let mut thoughts: [Option<JsonRef<'_>>; 3] = [None; 3];
        let mut details = None;
        for (key, value) in delta.members().filter(|(_, value)| !value.is_blank()) {
            match key {
                "content" => content = Some(value),
                "refusal" => refusal = value.str(),
                "tool_calls" => calls = Some(value),
                "function_call" => call = Some(value),
                "reasoning_details" if value.is_array() => details = Some(value),
                "annotations" => sources = Some(value),
                "extra_content" => proof = reasoning::beside(delta),
                "images" | "audio" => odd = true,
                _ => {
                    if let Some(at) = reasoning::FIELDS.iter().position(|name| *name == key) {
                        thoughts[at] = Some(value);
                    }
                }
            }
        }
        self.thought(thoughts, details, out);
        match content {
            Some(list) if list.is_array() => self.parts(list, out),
            Some(text) => self.say(&text.str().unwrap_or_default(), out),
            None => {}
        }
        if let Some((proof, block)) = proof.zip(self.text_open()) {
            out.push(ChatEvent::Signature { block, signature: proof });
        }
        if odd {
            self.odd(delta, out);
        }
        if let Some(words) = refusal {
            self.seal(out);
            self.refused = true;
            self.blocks.push_prose(BlockStart::Refusal, &words, out);
        }
        for one in
            sources.into_iter().flat_map(JsonRef::items).filter_map(response_read::annotation)
        {
            self.cited = true;
            self.sources.push(one);
        }
        self.cite(out);
        for call in calls.into_iter().flat_map(JsonRef::items) {
            self.call(call, out);
        }
        if let Some(call) = call {
            self.part_of_call(Some(LEGACY), None, CallKind::Function, call, None, out);
        }
    }

    fn thought(
        &mut self,
        fields: [Option<JsonRef<'_>>; 3],
        details: Option<JsonRef<'_>>,
        out: &mut Vec<ChatEvent>,
    ) {
        const DETAILS: &str = "reasoning_details";
        for (field, value) in reasoning::FIELDS.into_iter().zip(fields) {
            let words = value.and_then(reasoning::plain).filter(|words| !words.is_empty());
            if let Some(words) = words.filter(|_| *self.thoughts.get_or_insert(field) == field) {
                self.blocks.push_prose(THOUGHT, &words, out);
            }
        }
        if let Some(details) = details {
            let words = reasoning::words(details);
            if !words.is_empty() && *self.thoughts.get_or_insert(DETAILS) == DETAILS {
                self.blocks.push_prose(THOUGHT, &words, out);
            }
            self.details.feed(details);
        }
    }

    /// The seal of the reasoning that is over, put to it before anything else begins.
    fn seal(&mut self, out: &mut Vec<ChatEvent>) {
        if let Some(proof) = self.details.take() {
            self.blocks.push_signature(THOUGHT, proof, out);
        }
    }

    fn say(&mut self, text: &str, out: &mut Vec<ChatEvent>) {
        if text.is_empty() {
            return;
        }
        self.open_named(self.calls.len(), out);
        self.seal(out);
        self.blocks.push_prose(BlockStart::Text, text, out);
        self.text = self.blocks.current_prose();
    }

    /// The open text block.
    fn text_open(&self) -> Option<u32> {
        self.text.filter(|_| self.text == self.blocks.current_prose())
    }

    fn cite(&mut self, out: &mut Vec<ChatEvent>) {
        if let Some(block) = self.text_open() {
            out.extend(
                self.sources.drain(..).map(|citation| ChatEvent::Citation { block, citation }),
            );
        }
    }

    /// Content as a list of parts.
    fn parts(&mut self, list: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        for block in parts_read::content(Some(list), 0).unwrap_or_default() {
            match block.kind {
                BlockKind::Text(text) => self.say(&text.text, out),
                BlockKind::Reasoning(thought) => {
                    self.blocks.push_prose(THOUGHT, &thought.text, out)
                }
                BlockKind::Refusal(words) => {
                    self.blocks.push_prose(BlockStart::Refusal, &words, out)
                }
                BlockKind::Media(media) => {
                    self.blocks.push_complete(BlockStart::Media(media), None, out);
                }
                BlockKind::Foreign { dialect, body } => {
                    self.blocks.push_complete(BlockStart::Foreign { dialect, body }, None, out);
                }
                BlockKind::ToolCall(_) | BlockKind::ToolResult(_) => {}
            }
        }
    }

    /// Images beside the content, and what was spoken, as text.
    fn odd(&mut self, delta: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        if let Some(words) = delta.member_at(&["audio", "transcript"]).and_then(JsonRef::str) {
            self.say(&words, out);
        }
        for media in response_read::images(delta) {
            self.seal(out);
            self.blocks.push_complete(BlockStart::Media(media), None, out);
        }
    }

    fn call(&mut self, call: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let Some((form, inside)) = response_read::call_inside(call) else { return };
        let id = response_read::text(call.get("id"));
        self.part_of_call(
            call.get("index").and_then(JsonRef::u64),
            id,
            form,
            inside,
            reasoning::beside(call),
            out,
        );
    }

    fn part_of_call(
        &mut self,
        index: Option<u64>,
        id: Option<String>,
        form: CallKind,
        inside: JsonRef<'_>,
        proof: Option<ReasoningSignature>,
        out: &mut Vec<ChatEvent>,
    ) {
        let name = inside.get("name").and_then(JsonRef::str).filter(|name| !name.is_empty());
        let arguments = response_read::arguments(form, inside).unwrap_or_default();
        // An index may be used again, or be missing; then a name with an id of its own is another
        // call.
        let known = match (index, &id) {
            (Some(_), _) => self.calls.iter().rposition(|call| call.index == index),
            (None, Some(id)) => self.calls.iter().rposition(|call| call.id == *id),
            (None, None) if name.is_none() => self.calls.len().checked_sub(1),
            (None, None) => None,
        };
        let unnamed =
            |call: &Call| call.waiting.as_ref().is_some_and(|waiting| waiting.name.is_empty());
        let same = |call: &Call| {
            name.is_none() || unnamed(call) || id.as_ref().is_none_or(|id| call.id == *id)
        };
        let at = known.filter(|at| same(&self.calls[*at])).unwrap_or_else(|| {
            let id = self.ids.own(id);
            self.calls.push(Call { index, id, waiting: Some(Waiting::default()) });
            self.calls.len() - 1
        });
        if let Some(waiting) = &mut self.calls[at].waiting {
            if let Some(name) = &name {
                waiting.name(name);
                waiting.form = form;
            }
            waiting.arguments.push_str(&arguments);
            waiting.proof = proof.or(waiting.proof.take());
            if !waiting.name.is_empty() && !waiting.arguments.is_empty() {
                self.open(at, out);
            }
            return;
        }
        out.extend(
            proof
                .zip(self.blocks.call_block(at as u64))
                .map(|(proof, block)| ChatEvent::Signature { block, signature: proof }),
        );
        self.blocks.push_arguments(at as u64, &arguments, out);
    }

    /// Opens a call, after those that began before it.
    fn open(&mut self, at: usize, out: &mut Vec<ChatEvent>) {
        self.open_named(at, out);
        self.open_one(at, out);
    }

    /// Opens the first so many calls, as far as their names are known.
    fn open_named(&mut self, most: usize, out: &mut Vec<ChatEvent>) {
        for at in 0..most {
            if self.calls[at].waiting.as_ref().is_some_and(|waiting| !waiting.name.is_empty()) {
                self.open_one(at, out);
            }
        }
    }

    fn open_one(&mut self, at: usize, out: &mut Vec<ChatEvent>) {
        self.seal(out);
        let Some(waiting) = self.calls[at].waiting.take() else { return };
        let (id, name) = (self.calls[at].id.clone(), self.carry.name(&waiting.name).to_owned());
        let block = self.blocks.start_call(at as u64, id, name, waiting.form, out);
        out.extend(waiting.proof.map(|proof| ChatEvent::Signature { block, signature: proof }));
        self.blocks.push_arguments(at as u64, &waiting.arguments, out);
    }

    /// Its end comes without a reason: that is enough after text, but not in the middle of a call,
    /// nor where nothing was said.
    fn unsaid(&self) -> Result<(), Box<Fault>> {
        if self.blocks.has_incomplete_call()
            || self
                .calls
                .iter()
                .any(|call| call.waiting.as_ref().is_some_and(|waiting| !waiting.complete()))
        {
            return Err(Box::new(shape::cut()));
        }
        if !self.blocks.has_blocks() && self.calls.is_empty() {
            return Err(Box::new(shape::empty()));
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<ChatEvent>) {
        self.begin(None, out);
        for at in 0..self.calls.len() {
            // Its name or its arguments never came; what came is not lost.
            self.open_one(at, out);
        }
        self.seal(out);
        if !self.cited {
            self.sources = std::mem::take(&mut self.listed);
        }
        self.cite(out);
        self.blocks.close_all(out);
        let mut finish =
            response_read::finish(self.said.clone(), self.blocks.has_calls(), self.refused);
        finish.stop_sequence = self.sequence.take();
        out.push(ChatEvent::End { finish, usage: self.usage, service_tier: self.tier.clone() });
        self.ended = true;
    }
}

impl StreamReader for ChunkReader {
    fn event(
        &mut self,
        name: &[u8],
        data: &[u8],
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        if self.ended {
            return Ok(());
        }
        self.events = self.events.saturating_add(1);
        if data.len() < 20 && data.trim_ascii() == b"[DONE]" {
            if self.said.is_none() {
                self.unsaid()?;
            }
            self.finish(out);
            return Ok(());
        }
        let json = match json::parse(data) {
            Ok(json) if json.is_object() => json,
            Ok(list) if fault::is_error(list) => return Err(Box::new(fault::told(None, list))),
            Ok(_) => {
                return Err(Box::new(fault::bad_event(
                    self.events,
                    json::JsonError { kind: JsonErrorKind::NotAnObject, offset: 0 },
                    data,
                )));
            }
            Err(_) if name == b"error" && !data.starts_with(b"{") => {
                return Err(Box::new(fault::said(data)));
            }
            Err(bad) => return Err(Box::new(fault::bad_event(self.events, bad, data))),
        };
        if name == b"error" {
            return Err(Box::new(fault::told(None, json)));
        }
        self.chunk(json, out)
    }

    fn end(&mut self, out: &mut Vec<ChatEvent>) -> bool {
        if !self.ended && self.said.is_some() {
            self.finish(out);
        }
        self.ended
    }

    fn summary(&self) -> Summary {
        Summary { usage: self.usage, finish: self.said.clone(), model: self.model.clone() }
    }
}
