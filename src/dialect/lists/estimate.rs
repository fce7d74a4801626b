//! How many tokens a conversation comes to, where nobody can be asked: rather too many than too few.
//!
//! A client that is told too few never makes its conversation shorter, and is refused in the end. So everything that is
//! sent counts: each block, each tool with its schema, what a provider says to its model about tools, media by their
//! size, sealed reasoning by its length. A fifth is added, because other vendors' vocabularies cut finer than the one
//! at hand.

use super::media_size;
use crate::{
    base::raw::Raw,
    ir::{
        block::{Block, BlockKind, Media, ProofKind, Source},
        request::ChatRequest,
        settings::Format,
        tool::Tool,
    },
};

/// What stands around a conversation.
const FRAME: u64 = 12;
/// What stands around a message, a block that is no prose, and a tool.
const AROUND: u64 = 8;
/// What providers tell the model about calling tools, where there is one.
const TOOLS: u64 = 520;
/// What a tool that the provider runs brings along.
const HOSTED: u64 = 400;

/// An estimate from above. `count` is the tokenizer.
#[must_use]
pub fn estimate(request: &ChatRequest, count: &dyn Fn(&str) -> u64) -> u64 {
    let scale = Scale { count };
    let mut sum = FRAME;
    if !request.system.is_empty() {
        sum += AROUND + scale.blocks(&request.system);
    }
    for message in &request.messages {
        sum += AROUND + scale.blocks(&message.blocks) + message.name.as_deref().map_or(0, count);
    }
    if !request.tools.is_empty() {
        sum += TOOLS + request.tools.iter().map(|tool| scale.tool(tool)).sum::<u64>();
    }
    if let Some(Format::Schema { schema, description, name, .. }) = &request.settings.format {
        sum += AROUND + scale.raw(schema) + scale.maybe(description.as_deref()) + scale.maybe(name.as_deref());
    }
    sum.saturating_add(sum / 5)
}

struct Scale<'c> {
    count: &'c dyn Fn(&str) -> u64,
}

impl Scale<'_> {
    fn text(&self, text: &str) -> u64 {
        (self.count)(text)
    }

    fn raw(&self, raw: &Raw) -> u64 {
        self.text(raw.text())
    }

    fn maybe(&self, text: Option<&str>) -> u64 {
        text.map_or(0, |text| self.text(text))
    }

    fn blocks(&self, blocks: &[Block]) -> u64 {
        blocks.iter().map(|block| self.block(block)).sum()
    }

    fn block(&self, block: &Block) -> u64 {
        // Signatures vouch for what is readable beside them; what is sealed is as long as its seal says.
        let sealed =
            block.proof.as_ref().filter(|proof| proof.kind != ProofKind::Signature).map_or(0, |proof| proof.value.len() as u64 / 5);
        let inside = match &block.kind {
            BlockKind::Text(it) => self.text(&it.text),
            BlockKind::Refusal(words) => self.text(words),
            BlockKind::Reasoning(it) => self.text(&it.text).max(sealed),
            BlockKind::Media(media) => AROUND + self.media(media),
            BlockKind::ToolCall(call) => AROUND * 2 + self.text(&call.id) + self.text(&call.name) + self.text(&call.arguments),
            BlockKind::ToolResult(result) => {
                AROUND * 2 + self.text(&result.call) + self.maybe(result.name.as_deref()) + self.blocks(&result.content)
            }
            BlockKind::Foreign { body, .. } => AROUND + self.raw(body),
        };
        inside.max(sealed)
    }

    fn media(&self, media: &Media) -> u64 {
        let name = self.maybe(media.name.as_deref());
        let inside = media_size::tokens(media).unwrap_or_else(|| match &media.source {
            Source::Text(text) => self.text(text),
            _ => 0,
        });
        name.saturating_add(inside)
    }

    fn tool(&self, tool: &Tool) -> u64 {
        AROUND * 2
            + match tool {
                Tool::Function(tool) => {
                    self.text(&tool.name)
                        + self.maybe(tool.description.as_deref())
                        + self.maybe(tool.namespace.as_deref())
                        + tool.schema.as_ref().map_or(0, |schema| self.raw(schema))
                }
                Tool::Custom(tool) => {
                    self.text(&tool.name)
                        + self.maybe(tool.description.as_deref())
                        + tool.format.as_ref().map_or(0, |format| self.raw(format))
                }
                Tool::Hosted(tool) => HOSTED + self.raw(&tool.body),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialect::{Place, recorded, registry, tokenizer},
        ir::{
            block::{CallForm, MediaKind, Proof, Reasoning, ToolCall, ToolResult},
            op::Dialect,
            request::{Message, Role},
            tool::FunctionTool,
        },
    };

    #[test]
    fn everything_that_is_sent_counts() {
        let words = |text: &str| text.split_whitespace().count() as u64;
        let with = |blocks: Vec<Block>| ChatRequest { messages: vec![Message::new(Role::User, blocks)], ..ChatRequest::default() };
        let empty = estimate(&ChatRequest::default(), &words);
        let plain = estimate(&with(vec![Block::text("one two three")]), &words);
        assert_eq!((empty, plain), (12 + 2, 23 + 4));

        let call = ToolCall { id: "c".to_owned(), name: "f".to_owned(), arguments: "{ }".to_owned(), form: CallForm::Function };
        let result = ToolResult { call: "c".to_owned(), content: vec![Block::text("a b c d")], ..ToolResult::default() };
        let picture = Media { kind: MediaKind::Image, source: Source::Url("https://x".to_owned()), mime: None, name: None, detail: None };
        let mut sealed = Block::new(BlockKind::Reasoning(Reasoning::default()));
        sealed.proof = Some(Proof { dialect: Dialect::Responses, kind: ProofKind::Encrypted, value: "x".repeat(500), id: None });
        for (block, least) in [
            (Block::new(BlockKind::ToolCall(call)), 4),
            (Block::new(BlockKind::ToolResult(result)), 5),
            (Block::new(BlockKind::Media(picture)), 1_600),
            (sealed, 100),
            (Block::new(BlockKind::Refusal("no no".to_owned())), 2),
        ] {
            let got = estimate(&with(vec![block.clone()]), &words);
            assert!(got >= empty + AROUND + least, "{block:?}: {got}");
        }
        let tool = Tool::Function(FunctionTool { name: "f".to_owned(), schema: Raw::parse("{ \"a\": 1 }"), ..FunctionTool::default() });
        assert!(estimate(&ChatRequest { tools: vec![tool], ..ChatRequest::default() }, &words) > empty + TOOLS + 4);
    }

    /// Pain 19: too few tokens, or tools that are not counted, keep a client from ever shortening its conversation.
    #[test]
    fn estimates_are_never_below_what_providers_counted() {
        for exchange in recorded::of(&["ollama.chat"]) {
            let request =
                registry::ingress(Dialect::Ollama).read_request(Place::Main, exchange.request.to_string().as_bytes()).expect("a request");
            let last: serde_json::Value = serde_json::from_str(exchange.response.trim().lines().last().expect("a line")).expect("json");
            let (got, told) = (estimate(&request, &tokenizer::count), last["prompt_eval_count"].as_u64().expect("a count"));
            assert!(got >= told && got < 3 * told + 100, "{}: {got} for {told}", exchange.id);
        }
    }
}
