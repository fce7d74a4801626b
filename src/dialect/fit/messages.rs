//! Fits the conversation: instructions in the middle, a begun answer, media.

use std::mem;

use crate::{
    dialect::{fit::Messages, losses::Losses},
    ir::{
        block::{Block, BlockKind, Media, MediaKind},
        model_facts::{Modality, ModelFacts, SystemPosition},
        op::Dialect,
        request::{ChatMessage, Role},
    },
};

/// The user turn after a begun answer that the model cannot continue directly.
const CONTINUE_TEXT: &str = "Continue your answer exactly where it ends.";

/// The messages that were replaced, in their order.
#[derive(Default)]
pub(super) struct FittedMessages {
    replaced: Vec<Replaced>,
    /// Whether a message was added at the end.
    is_extended: bool,
}

struct Replaced {
    index: usize,
    original: ChatMessage,
    /// Whether another message is in its place; otherwise it was removed.
    has_substitute: bool,
}

impl FittedMessages {
    /// Restores the original messages.
    pub(super) fn undo(self, messages: &mut Messages) {
        if self.is_extended {
            messages.pop();
        }
        if self.replaced.is_empty() {
            return;
        }
        let mut fitted = mem::take(messages).into_iter();
        for replaced in self.replaced {
            let kept = replaced.index.saturating_sub(messages.len());
            messages.extend(fitted.by_ref().take(kept));
            if replaced.has_substitute {
                fitted.next();
            }
            messages.push(replaced.original);
        }
        messages.extend(fitted);
    }
}

pub(super) fn fit(
    messages: &mut Messages,
    dialect: Dialect,
    facts: &ModelFacts,
    losses: &mut Losses,
) -> FittedMessages {
    let mut out = FittedMessages::default();
    // The other two dialects have no instructions inside the conversation, so their writers move
    // them anyway.
    let moves_system = matches!(dialect, Dialect::Ollama | Dialect::Openai | Dialect::Responses)
        && facts.system_messages != Some(SystemPosition::Anywhere);
    let changes = |message: &ChatMessage| {
        moves_system && message.role == Role::System
            || message.blocks.iter().any(|block| has_refused_media(block, facts))
    };
    if messages.iter().any(changes) {
        let mut fitted = Vec::with_capacity(messages.len());
        for (index, message) in mem::take(messages).into_iter().enumerate() {
            if !changes(&message) {
                fitted.push(message);
                continue;
            }
            let substitute = if moves_system && message.role == Role::System {
                system_as_user(&message, losses)
            } else {
                Some(without_refused_media(&message, facts, losses))
            };
            let has_substitute = substitute.is_some();
            fitted.extend(substitute);
            out.replaced.push(Replaced { index, original: message, has_substitute });
        }
        *messages = fitted;
    }
    let refuses_begun_answer = match facts.prefill {
        Some(prefill) => !prefill,
        None => dialect == Dialect::Anthropic,
    };
    if refuses_begun_answer && messages.last().is_some_and(is_begun_answer) {
        losses.add("messages.prefill");
        messages.push(ChatMessage::new(Role::User, vec![Block::text(CONTINUE_TEXT)]));
        out.is_extended = true;
    }
    out
}

/// Replaces media in the instructions; returns the original blocks if some were replaced.
pub(super) fn fit_system(
    system: &mut [Block],
    facts: &ModelFacts,
    losses: &mut Losses,
) -> Option<Vec<Block>> {
    if !system.iter().any(|block| has_refused_media(block, facts)) {
        return None;
    }
    let original = system.to_vec();
    replace_media(system, facts, losses);
    Some(original)
}

/// Returns an instruction as a user's message in the same form in which other dialects get it;
/// `None` if it has no text.
fn system_as_user(message: &ChatMessage, losses: &mut Losses) -> Option<ChatMessage> {
    let mut text = String::new();
    for block in &message.blocks {
        match &block.kind {
            BlockKind::Text(part) => text.push_str(&part.text),
            _ => losses.add("system.media"),
        }
    }
    let text = text.trim();
    (!text.is_empty()).then(|| {
        let words = format!("<system-message>\n{text}\n</system-message>");
        ChatMessage::new(Role::User, vec![Block::text(words)])
    })
}

fn is_begun_answer(message: &ChatMessage) -> bool {
    message.role == Role::Assistant
        && !message.blocks.iter().any(|block| matches!(block.kind, BlockKind::ToolCall(_)))
}

fn has_refused_media(block: &Block, facts: &ModelFacts) -> bool {
    match &block.kind {
        BlockKind::Media(media) => refused_media(media, facts).is_some(),
        BlockKind::ToolResult(result) => {
            result.content.iter().any(|block| has_refused_media(block, facts))
        }
        _ => false,
    }
}

/// Returns the loss and the name of a medium that the model is known not to read.
fn refused_media(media: &Media, facts: &ModelFacts) -> Option<(&'static str, &'static str)> {
    let (modality, loss, name) = match media.kind {
        MediaKind::Image => (Modality::Image, "messages.image", "image"),
        MediaKind::Audio => (Modality::Audio, "messages.audio", "audio"),
        MediaKind::Document => (Modality::Document, "messages.document", "document"),
        MediaKind::Video => (Modality::Video, "messages.video", "video"),
        MediaKind::File => return None,
    };
    let other_type = media.kind == MediaKind::Document
        && facts.documents.as_ref().is_some_and(|types| {
            media.mime.as_ref().is_some_and(|mime| types.iter().all(|known| known != mime))
        });
    // Text documents are written as text where documents are not read.
    let as_text = media.kind == MediaKind::Document
        && media.mime.as_deref().is_some_and(|mime| mime.starts_with("text/"));
    let refused = facts.reads(modality) == Some(false) || other_type;
    (refused && !as_text).then_some((loss, name))
}

fn without_refused_media(
    message: &ChatMessage,
    facts: &ModelFacts,
    losses: &mut Losses,
) -> ChatMessage {
    let mut message = message.clone();
    replace_media(&mut message.blocks, facts, losses);
    message
}

fn replace_media(blocks: &mut [Block], facts: &ModelFacts, losses: &mut Losses) {
    for block in blocks {
        match &mut block.kind {
            BlockKind::Media(media) => {
                if let Some((loss, name)) = refused_media(media, facts) {
                    losses.add(loss);
                    *block = Block::text(format!("[{name} left out: the model does not read it]"));
                }
            }
            BlockKind::ToolResult(result) => replace_media(&mut result.content, facts, losses),
            _ => {}
        }
    }
}
