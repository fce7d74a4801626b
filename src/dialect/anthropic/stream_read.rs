//! Answers of upstreams as they come.

use serde_json::{Map, Value};

use crate::{
    base::{
        json::{self, JsonRef},
        raw::RawJson,
    },
    dialect::{
        Carry, StreamReader, Summary,
        anthropic::{blocks_read, meter::Counts, response_read, response_read::Calls},
        fault, shape,
    },
    ir::{
        block::{CallKind, ReasoningSignature, SignatureKind},
        event::{BlockStart, ChatEvent},
        fault::Fault,
        op::Dialect,
    },
};

const ME: Dialect = Dialect::Anthropic;

pub(super) struct MessageReader {
    carry: Carry,
    calls: Calls,
    counts: Counts,
    finish: Option<String>,
    sequence: Option<String>,
    tier: Option<String>,
    model: Option<String>,
    events: u32,
    begun: bool,
    done: bool,
    /// The number of the next block told.
    next: u32,
    open: Vec<Open>,
}

/// A block that is not finished.
struct Open {
    /// The upstream's number of it.
    index: u64,
    what: What,
}

enum What {
    /// `input` is what the block began with; it counts where no piece of arguments comes.
    Call {
        block: u32,
        input: String,
        grown: bool,
    },
    /// Not told before it is whole: its body, and the pieces of its `input`.
    Foreign {
        body: Map<String, Value>,
        raw: RawJson,
        input: String,
        grown: bool,
    },
    /// Not opened before it says something.
    Text {
        block: Option<u32>,
    },
    Thought {
        block: Option<u32>,
        signature: String,
    },
}

impl MessageReader {
    pub(super) fn new(carry: &Carry) -> Self {
        Self {
            carry: carry.clone(),
            calls: Calls::new(carry),
            counts: Counts::default(),
            finish: None,
            sequence: None,
            tier: None,
            model: None,
            events: 0,
            begun: false,
            done: false,
            next: 0,
            open: Vec::new(),
        }
    }

    fn begin(&mut self, id: String, out: &mut Vec<ChatEvent>) {
        if !std::mem::replace(&mut self.begun, true) {
            let model = self.model.clone().unwrap_or_default();
            out.push(ChatEvent::Begin { id, model, created: None, usage: self.counts.usage() });
        }
    }

    fn usage(&mut self, usage: Option<JsonRef<'_>>) {
        if let Some(usage) = usage {
            self.counts.take(usage);
            self.tier = response_read::tier(usage).or(self.tier.take());
        }
    }

    fn start(&mut self, index: u64, block: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        // A second block of one number: the stop of the first was lost.
        self.stop(index, out);
        let text = |key: &str| block.get(key).and_then(JsonRef::str).unwrap_or_default();
        let what = match &*text("type") {
            "text" => What::Text { block: None },
            "thinking" => What::Thought { block: None, signature: text("signature").into_owned() },
            "redacted_thinking" => {
                let proof = ReasoningSignature {
                    dialect: ME,
                    kind: SignatureKind::Redacted,
                    value: text("data").into_owned(),
                    id: None,
                };
                let number = open(&mut self.next, BlockStart::Reasoning { summary: false }, out);
                out.push(ChatEvent::Signature { block: number, signature: proof });
                out.push(ChatEvent::Close { block: number });
                return;
            }
            "tool_use" => {
                let id = self.calls.id(&text("id"));
                let name = self.carry.name(&text("name")).to_owned();
                let number = open(
                    &mut self.next,
                    BlockStart::ToolCall { id, name, form: CallKind::Function },
                    out,
                );
                let input = block.get("input").filter(|input| !input.is_blank());
                What::Call { block: number, input: blocks_read::input(input), grown: false }
            }
            _ => {
                let body = match serde_json::from_str(block.text()) {
                    Ok(Value::Object(body)) => body,
                    _ => Map::new(),
                };
                What::Foreign {
                    body,
                    raw: RawJson::from_json(block),
                    input: String::new(),
                    grown: false,
                }
            }
        };
        self.open.push(Open { index, what });
        match &*text("type") {
            "text" => {
                self.grow(index, Growth::Text(&text("text")), out);
                for citation in block.get("citations").into_iter().flat_map(JsonRef::items) {
                    self.grow(index, Growth::Citation(citation), out);
                }
            }
            "thinking" => self.grow(index, Growth::Thought(&text("thinking")), out),
            _ => {}
        }
    }

    fn delta(&mut self, index: u64, delta: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let foreign = self
            .open
            .iter()
            .any(|open| open.index == index && matches!(open.what, What::Foreign { .. }));
        if foreign {
            return self.grow(index, Growth::Other(delta), out);
        }
        for (key, value) in delta.members() {
            match (key, value.str()) {
                ("text", Some(text)) => self.grow(index, Growth::Text(&text), out),
                ("thinking", Some(text)) => self.grow(index, Growth::Thought(&text), out),
                ("partial_json", Some(text)) => self.grow(index, Growth::Arguments(&text), out),
                ("partial_json", None) if value.is_object() => {
                    self.grow(index, Growth::Arguments(value.text()), out)
                }
                ("signature", Some(text)) => self.grow(index, Growth::Signature(&text), out),
                ("citation", None) if value.is_object() => {
                    self.grow(index, Growth::Citation(value), out)
                }
                _ => {}
            }
        }
    }

    fn grow(&mut self, index: u64, growth: Growth<'_>, out: &mut Vec<ChatEvent>) {
        if matches!(growth, Growth::Text("") | Growth::Thought("") | Growth::Arguments("")) {
            return;
        }
        let at =
            match self.open.iter().rposition(|open| open.index == index && growth.fits(&open.what))
            {
                Some(at) => at,
                // Nobody opened the block, or as something else.
                None => {
                    let what = match growth {
                        Growth::Text(_) | Growth::Citation(_) => What::Text { block: None },
                        Growth::Thought(_) | Growth::Signature(_) => {
                            What::Thought { block: None, signature: String::new() }
                        }
                        Growth::Arguments(_) | Growth::Other(_) => return,
                    };
                    self.stop(index, out);
                    self.open.push(Open { index, what });
                    self.open.len() - 1
                }
            };
        let next = &mut self.next;
        match (&mut self.open[at].what, growth) {
            (What::Text { block }, Growth::Text(text)) => {
                let block = *block.get_or_insert_with(|| open(next, BlockStart::Text, out));
                out.push(ChatEvent::Delta { block, text: text.to_owned() });
            }
            (What::Text { block }, Growth::Citation(citation)) => {
                let block = *block.get_or_insert_with(|| open(next, BlockStart::Text, out));
                out.push(ChatEvent::Citation { block, citation: blocks_read::citation(citation) });
            }
            (What::Thought { block, .. }, Growth::Thought(text)) => {
                let block = *block.get_or_insert_with(|| {
                    open(next, BlockStart::Reasoning { summary: false }, out)
                });
                out.push(ChatEvent::Delta { block, text: text.to_owned() });
            }
            (What::Thought { signature, .. }, Growth::Signature(more)) => signature.push_str(more),
            (What::Call { block, grown, .. }, Growth::Arguments(text)) => {
                *grown = true;
                out.push(ChatEvent::Delta { block: *block, text: text.to_owned() });
            }
            (What::Foreign { body, input, grown, .. }, Growth::Other(delta)) => {
                *grown = true;
                fill(body, input, delta);
            }
            _ => {}
        }
    }

    /// The block is finished; what waited is told.
    fn stop(&mut self, index: u64, out: &mut Vec<ChatEvent>) {
        while let Some(at) = self.open.iter().position(|open| open.index == index) {
            let open = self.open.remove(at);
            self.close(open.what, out);
        }
    }

    fn close(&mut self, what: What, out: &mut Vec<ChatEvent>) {
        let block = match what {
            What::Text { block } => block,
            What::Thought { block, signature } => {
                let proof = blocks_read::signature(&signature);
                let block = if proof.is_some() && block.is_none() {
                    Some(open(&mut self.next, BlockStart::Reasoning { summary: false }, out))
                } else {
                    block
                };
                if let (Some(block), Some(proof)) = (block, proof) {
                    out.push(ChatEvent::Signature { block, signature: proof });
                }
                block
            }
            What::Call { block, input, grown } => {
                if !grown && !input.is_empty() {
                    out.push(ChatEvent::Delta { block, text: input });
                }
                Some(block)
            }
            What::Foreign { mut body, mut raw, input, grown } => {
                if grown {
                    if !input.is_empty() {
                        body.insert(
                            "input".to_owned(),
                            serde_json::from_str(&input).unwrap_or(Value::String(input)),
                        );
                    }
                    raw = RawJson::from(&Value::Object(body));
                }
                Some(open(&mut self.next, BlockStart::Foreign { dialect: ME, body: raw }, out))
            }
        };
        out.extend(block.map(|block| ChatEvent::Close { block }));
    }

    fn finish(&mut self, out: &mut Vec<ChatEvent>) {
        self.begin(String::new(), out);
        for open in std::mem::take(&mut self.open) {
            self.close(open.what, out);
        }
        self.done = true;
        let finish =
            response_read::finish(self.finish.clone(), self.sequence.take(), self.calls.any());
        out.push(ChatEvent::End {
            finish,
            usage: self.counts.usage(),
            service_tier: self.tier.clone(),
        });
    }

    /// The number of a block; without one, a start is the next block and anything else is about the
    /// last.
    fn index(&self, json: JsonRef<'_>, starts: bool) -> u64 {
        let last = self.open.last().map(|open| open.index);
        json.get("index").and_then(JsonRef::u64).unwrap_or_else(|| {
            if starts { u64::from(self.events) << 32 } else { last.unwrap_or(0) }
        })
    }
}

impl StreamReader for MessageReader {
    fn event(
        &mut self,
        name: &[u8],
        data: &[u8],
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        if self.done {
            return Ok(());
        }
        self.events = self.events.saturating_add(1);
        if data.len() < 20 && data.trim_ascii() == b"[DONE]" {
            if self.finish.is_some() {
                self.finish(out);
            }
            return Ok(());
        }
        let json = match json::parse(data) {
            Ok(json) => json,
            Err(_) if name == b"error" && !data.starts_with(b"{") => {
                return Err(Box::new(fault::said(data)));
            }
            Err(bad) => return Err(Box::new(fault::bad_event(self.events, bad, data))),
        };
        if !json.is_object() && !fault::is_error(json) {
            return Err(Box::new(response_read::not_an_event(json.kind())));
        }
        let told = json.get("type").and_then(JsonRef::str);
        let kind = told.as_deref().map_or(name, str::as_bytes);
        match kind {
            b"content_block_delta" => {
                self.begin(String::new(), out);
                if let Some(delta) = json.get("delta") {
                    self.delta(self.index(json, false), delta, out);
                }
            }
            b"content_block_start" => {
                self.begin(String::new(), out);
                if let Some(block) = json.get("content_block") {
                    self.start(self.index(json, true), block, out);
                }
            }
            b"content_block_stop" => self.stop(self.index(json, false), out),
            b"message_start" => {
                let message = json.get("message").unwrap_or(json);
                self.model = shape::name(message.get("model"));
                self.usage(message.get("usage"));
                self.begin(blocks_read::string(message, "id").unwrap_or_default(), out);
            }
            b"message_delta" => {
                let delta = json.get("delta").unwrap_or(json);
                self.finish = shape::name(delta.get("stop_reason")).or(self.finish.take());
                self.sequence =
                    blocks_read::string(delta, "stop_sequence").or(self.sequence.take());
                self.usage(json.get("usage").or_else(|| delta.get("usage")));
            }
            b"message_stop" => {
                if self.next == 0 && self.open.is_empty() && self.finish.is_none() {
                    return Err(Box::new(shape::empty()));
                }
                self.usage(json.get("usage"));
                self.finish(out);
            }
            b"error" => return Err(Box::new(fault::told(None, json))),
            _ if name == b"error" || fault::is_error(json) => {
                return Err(Box::new(fault::told(None, json)));
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<ChatEvent>) -> bool {
        if !self.done && self.finish.is_some() {
            self.finish(out);
        }
        self.done
    }

    fn summary(&self) -> Summary {
        Summary {
            usage: self.counts.usage(),
            finish: self.finish.clone(),
            model: self.model.clone(),
        }
    }
}

/// What is added to a block.
#[derive(Clone, Copy)]
enum Growth<'a> {
    Arguments(&'a str),
    Citation(JsonRef<'a>),
    /// To a block that only its dialect knows.
    Other(JsonRef<'a>),
    Signature(&'a str),
    Text(&'a str),
    Thought(&'a str),
}

impl Growth<'_> {
    fn fits(self, what: &What) -> bool {
        matches!(
            (what, self),
            (What::Call { .. }, Self::Arguments(_))
                | (What::Foreign { .. }, Self::Other(_))
                | (What::Text { .. }, Self::Text(_) | Self::Citation(_))
                | (What::Thought { .. }, Self::Thought(_) | Self::Signature(_))
        )
    }
}

fn open(next: &mut u32, head: BlockStart, out: &mut Vec<ChatEvent>) -> u32 {
    let block = *next;
    *next += 1;
    out.push(ChatEvent::Open { block, head });
    block
}

/// Texts grow, lists of citations too, everything else is replaced.
fn fill(body: &mut Map<String, Value>, input: &mut String, delta: JsonRef<'_>) {
    for (key, value) in delta.members() {
        match (key, value.str()) {
            ("type", _) => {}
            ("partial_json", Some(text)) => input.push_str(&text),
            (_, Some(text)) => shape::append(body.entry(key).or_insert(Value::Null), &text),
            _ => {
                body.insert(key.to_owned(), RawJson::from_json(value).to_value());
            }
        }
    }
}
