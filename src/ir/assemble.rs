//! Converts a response's events into one response, and a response into events.

use crate::{
    base::json::raw::RawJson,
    ir::{
        block::{Block, BlockKind, Reasoning, TextBlock, ToolCall},
        event::{BlockStart, ChatEvent},
        response::ChatResponse,
    },
};

/// Assembles a response from its events.
#[derive(Debug, Default)]
pub struct Assembler {
    response: ChatResponse,
    logprobs: String,
    ended: bool,
}

impl Assembler {
    pub fn feed(&mut self, event: &ChatEvent) {
        match event {
            ChatEvent::Begin { id, model, created, usage } => {
                self.response.id.clone_from(id);
                self.response.model.clone_from(model);
                (self.response.created, self.response.usage) = (*created, *usage);
            }
            ChatEvent::Open { head, .. } => self.response.blocks.push(Block::new(match head {
                BlockStart::Text => BlockKind::Text(TextBlock::default()),
                BlockStart::Reasoning { summary } => {
                    BlockKind::Reasoning(Reasoning { text: String::new(), summary: *summary })
                }
                BlockStart::Refusal => BlockKind::Refusal(String::new()),
                BlockStart::ToolCall { id, name, form } => BlockKind::ToolCall(ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    arguments: String::new(),
                    form: *form,
                }),
                BlockStart::Media(media) => BlockKind::Media(media.clone()),
                BlockStart::Foreign { dialect, body } => {
                    BlockKind::Foreign { dialect: *dialect, body: body.clone() }
                }
            })),
            ChatEvent::Delta { block, text } => {
                if let Some(block) = self.block_mut(*block) {
                    match &mut block.kind {
                        BlockKind::Text(it) => it.text.push_str(text),
                        BlockKind::Reasoning(it) => it.text.push_str(text),
                        BlockKind::Refusal(it) => it.push_str(text),
                        BlockKind::ToolCall(it) => it.arguments.push_str(text),
                        BlockKind::Media(_)
                        | BlockKind::ToolResult(_)
                        | BlockKind::Foreign { .. } => {}
                    }
                }
            }
            ChatEvent::Signature { block, signature: proof } => {
                if let Some(block) = self.block_mut(*block) {
                    block.signature = Some(proof.clone());
                }
            }
            ChatEvent::Phase { block, phase } => {
                if let Some(block) = self.block_mut(*block) {
                    block.set_phase(phase);
                }
            }
            ChatEvent::Citation { block, citation } => {
                if let Some(Block { kind: BlockKind::Text(text), .. }) = self.block_mut(*block) {
                    text.citations.push(citation.clone());
                }
            }
            ChatEvent::Logprobs(raw) => {
                for item in raw.json().items() {
                    self.logprobs.push(if self.logprobs.is_empty() { '[' } else { ',' });
                    self.logprobs.push_str(item.text());
                }
            }
            ChatEvent::Close { .. } => {}
            ChatEvent::End { finish, usage, service_tier } => {
                self.response.finish = finish.clone();
                self.response.usage = usage.or(self.response.usage);
                self.response.service_tier.clone_from(service_tier);
                self.ended = true;
            }
        }
    }

    /// Returns the response; `None` if its end has not arrived.
    #[must_use]
    pub fn finish(mut self) -> Option<ChatResponse> {
        if !self.logprobs.is_empty() {
            self.logprobs.push(']');
            self.response.logprobs = RawJson::parse(&self.logprobs);
        }
        self.ended.then_some(self.response)
    }

    fn block_mut(&mut self, number: u32) -> Option<&mut Block> {
        self.response.blocks.get_mut(number as usize)
    }
}

/// Returns the events of a complete response.
#[must_use]
pub fn to_events(response: &ChatResponse) -> Vec<ChatEvent> {
    let mut out = vec![ChatEvent::Begin {
        id: response.id.clone(),
        model: response.model.clone(),
        created: response.created,
        usage: response.usage,
    }];
    let mut logprobs = response.logprobs.as_ref();
    for (block, number) in response.blocks.iter().zip(0..) {
        let (head, text) = match &block.kind {
            BlockKind::Text(it) => (BlockStart::Text, it.text.as_str()),
            BlockKind::Reasoning(it) => {
                (BlockStart::Reasoning { summary: it.summary }, it.text.as_str())
            }
            BlockKind::Refusal(it) => (BlockStart::Refusal, it.as_str()),
            BlockKind::ToolCall(it) => (
                BlockStart::ToolCall { id: it.id.clone(), name: it.name.clone(), form: it.form },
                it.arguments.as_str(),
            ),
            BlockKind::Media(it) => (BlockStart::Media(it.clone()), ""),
            BlockKind::Foreign { dialect, body } => {
                (BlockStart::Foreign { dialect: *dialect, body: body.clone() }, "")
            }
            // The client supplies tool results; no response contains one.
            BlockKind::ToolResult(_) => continue,
        };
        out.push(ChatEvent::Open { block: number, head });
        out.extend(block.phase().map(|phase| ChatEvent::Phase { block: number, phase }));
        if !text.is_empty() {
            out.push(ChatEvent::Delta { block: number, text: text.to_owned() });
        }
        if let BlockKind::Text(it) = &block.kind {
            out.extend(logprobs.take().cloned().map(ChatEvent::Logprobs));
            out.extend(
                it.citations
                    .iter()
                    .cloned()
                    .map(|citation| ChatEvent::Citation { block: number, citation }),
            );
        }
        out.extend(
            block
                .signature
                .clone()
                .map(|proof| ChatEvent::Signature { block: number, signature: proof }),
        );
        out.push(ChatEvent::Close { block: number });
    }
    out.push(ChatEvent::End {
        finish: response.finish.clone(),
        usage: response.usage,
        service_tier: response.service_tier.clone(),
    });
    out
}
