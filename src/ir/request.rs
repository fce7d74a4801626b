//! A chat request, neutral of any dialect.

use crate::ir::{
    block::{Block, BlockKind},
    extras::Extras,
    generation_settings::GenerationSettings,
    op::Dialect,
    tool::{ORIGINAL_TOOL_NOTE, Tool, ToolChoice},
};

/// A parsed request. It does not contain the model name, because routing decides it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatRequest {
    /// Blocks before the conversation (system prompt, `instructions`, a leading system message).
    pub system: Vec<Block>,
    pub messages: Vec<ChatMessage>,
    pub tools: Vec<Tool>,
    pub tool_choice: Option<ToolChoice>,
    pub settings: GenerationSettings,
    pub stream: bool,
    /// Fields of the request that the response must repeat (Responses).
    pub echoed_fields: Extras,
    pub extras: Extras,
}

/// The note on a request whose answer is to be a summary of its conversation (Responses).
pub const COMPACTION_NOTE: &str = "compaction_trigger";

impl ChatRequest {
    /// Whether the answer is to be one item that stands for the conversation from then on.
    #[must_use]
    pub fn is_compaction(&self) -> bool {
        self.extras.get(Dialect::Responses, COMPACTION_NOTE).is_some()
    }

    /// Returns the tools inside a namespace: the name that calls use, the namespace, and the name
    /// inside it.
    #[must_use]
    pub fn namespaced_tools(&self) -> Vec<(String, String, String)> {
        self.tools
            .iter()
            .filter_map(|tool| match tool {
                Tool::Function(tool) => {
                    let inner = tool.inner_name().into_owned();
                    Some((tool.name.clone(), tool.namespace.clone()?, inner))
                }
                Tool::Custom(tool) => {
                    let (space, inner) = tool.namespace()?;
                    Some((tool.name.clone(), space, inner))
                }
                Tool::Hosted(_) => None,
            })
            .collect()
    }

    /// Returns the tools that Responses defines by their types and the client runs: the name that
    /// calls use, and the type.
    #[must_use]
    pub fn client_tools(&self) -> Vec<(String, String)> {
        self.tools
            .iter()
            .filter_map(|tool| match tool {
                Tool::Function(tool) => {
                    let original = tool.extras.get(Dialect::Responses, ORIGINAL_TOOL_NOTE)?;
                    Some((tool.name.clone(), original.json().string_at("type")?))
                }
                Tool::Custom(_) | Tool::Hosted(_) => None,
            })
            .collect()
    }

    /// Returns the name of each call in the conversation.
    pub fn called_tools(&self) -> impl Iterator<Item = &str> + Clone {
        self.messages.iter().flat_map(|message| &message.blocks).filter_map(|block| {
            match &block.kind {
                BlockKind::ToolCall(call) => Some(call.name.as_str()),
                _ => None,
            }
        })
    }
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

/// The author of a message. Tool results are blocks of a user message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A system or developer message inside the conversation.
    System,
    User,
    Assistant,
}
