//! A conversation that asks for an answer, in nobody's dialect.

use crate::ir::{
    block::Block,
    extras::Extras,
    generation_settings::GenerationSettings,
    tool::{Tool, ToolChoice},
};

/// A request, read whole. The model's name is not in it: routing decides that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatRequest {
    /// What stands before the conversation (system prompt, `instructions`, a leading system
    /// message).
    pub system: Vec<Block>,
    pub messages: Vec<ChatMessage>,
    pub tools: Vec<Tool>,
    pub tool_choice: Option<ToolChoice>,
    pub settings: GenerationSettings,
    pub stream: bool,
    /// Fields of the request that the answer has to repeat (Responses).
    pub echoed_fields: Extras,
    pub extras: Extras,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ChatMessage {
    pub role: Role,
    pub blocks: Vec<Block>,
    /// OpenAI's `name` of a participant.
    pub name: Option<String>,
    pub extras: Extras,
}

impl ChatMessage {
    #[must_use]
    pub fn new(role: Role, blocks: Vec<Block>) -> Self {
        Self { role, blocks, name: None, extras: Extras::default() }
    }
}

/// Who speaks. Tool results are blocks of a user message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A system or developer message inside the conversation.
    System,
    User,
    Assistant,
}
