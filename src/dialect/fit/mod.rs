//! Fits a request to what its target is known to accept, before it is written in the target's
//! dialect.
//!
//! A field that the model does not accept, or is not known to accept, is left out or bent to the
//! nearest accepted value, and named as a loss. Large parts of the request are moved and moved
//! back, so that fitting does not copy the conversation.

mod format;
mod messages;
mod own_fields;
mod reasoning;
mod sampling;
mod tools;

use crate::{
    dialect::{EncodedRequest, TargetTraits, losses::Losses, registry},
    ir::{
        block::Block,
        extras::Extras,
        generation_settings::GenerationSettings,
        model_facts::Acceptance,
        op::Dialect,
        request::{ChatMessage, ChatRequest},
        tool::{Tool, ToolChoice},
    },
};

/// Writes a conversation in a dialect, fitted to the target. The request is unchanged afterwards.
#[must_use]
pub fn encode_fitted(
    request: &mut ChatRequest,
    dialect: Dialect,
    traits: &TargetTraits,
) -> EncodedRequest {
    let mut losses = Losses::default();
    let fitting = Fitting::apply(request, dialect, traits, &mut losses);
    let mut encoded = registry::egress(dialect).write_request(request, traits);
    fitting.undo(request);
    for loss in std::mem::take(&mut encoded.losses) {
        losses.add(loss.0);
    }
    encoded.losses = losses.into_vec();
    encoded
}

/// The parts of a request that were replaced while it is fitted.
struct Fitting {
    settings: GenerationSettings,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<ToolChoice>,
    extras: Option<Extras>,
    /// The instructions, if media in them were replaced.
    system: Option<Vec<Block>>,
    system_len: usize,
    messages: messages::FittedMessages,
}

impl Fitting {
    fn apply(
        request: &mut ChatRequest,
        dialect: Dialect,
        traits: &TargetTraits,
        losses: &mut Losses,
    ) -> Self {
        let facts = &*traits.facts;
        let mut fitting = Self {
            settings: request.settings.clone(),
            tool_choice: request.tool_choice.clone(),
            tools: tools::fit(request, facts, losses),
            extras: None,
            system: messages::fit_system(&mut request.system, facts, losses),
            system_len: request.system.len(),
            messages: messages::fit(&mut request.messages, dialect, facts, losses),
        };
        reasoning::fit(&mut request.settings, dialect, facts, losses);
        sampling::fit(&mut request.settings, dialect, facts, losses);
        let has_tools = request.tools.iter().any(|tool| tool.name().is_some());
        if let Some(instruction) =
            format::fit(&mut request.settings, dialect, facts, has_tools, losses)
        {
            request.system.push(Block::text(instruction));
        }
        fitting.extras = own_fields::fit(request, &fitting.settings, dialect, facts);
        fitting
    }

    fn undo(self, request: &mut ChatRequest) {
        request.settings = self.settings;
        request.tool_choice = self.tool_choice;
        if let Some(tools) = self.tools {
            request.tools = tools;
        }
        if let Some(extras) = self.extras {
            request.extras = extras;
        }
        request.system.truncate(self.system_len);
        if let Some(system) = self.system {
            request.system = system;
        }
        self.messages.undo(&mut request.messages);
    }
}

/// Returns whether a field is accepted; an unknown one is not.
fn accepts(acceptance: Option<Acceptance>, thinks: bool) -> bool {
    match acceptance {
        Some(Acceptance::Yes) => true,
        Some(Acceptance::WithoutThinking) => !thinks,
        Some(Acceptance::No) | None => false,
    }
}

/// Messages of the client, for functions that take only these.
type Messages = Vec<ChatMessage>;
