//! Estimates the tokens of a conversation if no provider can count them; prefers a count that is
//! too high.
//!
//! A client that gets a count that is too low never shortens its conversation and is rejected in
//! the end. So the estimate counts everything that is sent: each block, each tool with its schema,
//! the provider's own instructions about tools, media by their size, encrypted reasoning by its
//! length. It adds a fifth, because other vendors' vocabularies make more tokens than this one.

use crate::dialect::ops::media_size;
use crate::{
    base::json::raw::RawJson,
    ir::{
        block::{Block, BlockKind, Media, MediaSource, SignatureKind},
        generation_settings::ResponseFormat,
        request::ChatRequest,
        tool::Tool,
    },
};

/// Tokens around a conversation: some providers add the date and other facts before it.
const CONVERSATION_OVERHEAD: u64 = 32;
/// Tokens around a message, a block other than prose, and a tool.
const ITEM_OVERHEAD: u64 = 8;
/// Tokens of the provider's instructions about tool calls, if there is a tool.
const TOOL_USE_OVERHEAD: u64 = 520;
/// Tokens of the provider's instructions about a tool that it runs itself. The tool's results
/// cannot be predicted.
const HOSTED_TOOL_OVERHEAD: u64 = 2_500;
/// Tokens of the provider's instructions about an answer schema.
const SCHEMA_OVERHEAD: u64 = 160;

/// Returns an upper estimate. `count` is the tokenizer.
#[must_use]
pub fn estimate_tokens(request: &ChatRequest, count: &dyn Fn(&str) -> u64) -> u64 {
    let scale = TokenEstimator { count_tokens: count };
    let mut sum = CONVERSATION_OVERHEAD;
    if !request.system.is_empty() {
        sum += ITEM_OVERHEAD + scale.blocks(&request.system);
    }
    for message in &request.messages {
        sum += ITEM_OVERHEAD
            + scale.blocks(&message.blocks)
            + message.name.as_deref().map_or(0, count);
    }
    if !request.tools.is_empty() {
        sum += TOOL_USE_OVERHEAD + request.tools.iter().map(|tool| scale.tool(tool)).sum::<u64>();
    }
    if let Some(ResponseFormat::Schema { schema, description, name, .. }) = &request.settings.format
    {
        sum += SCHEMA_OVERHEAD
            + scale.raw(schema)
            + scale.optional_text(description.as_deref())
            + scale.optional_text(name.as_deref());
    }
    sum.saturating_add(sum / 5)
}

struct TokenEstimator<'c> {
    count_tokens: &'c dyn Fn(&str) -> u64,
}

impl TokenEstimator<'_> {
    fn text(&self, text: &str) -> u64 {
        (self.count_tokens)(text)
    }

    fn raw(&self, raw: &RawJson) -> u64 {
        self.text(raw.text())
    }

    fn optional_text(&self, text: Option<&str>) -> u64 {
        text.map_or(0, |text| self.text(text))
    }

    fn blocks(&self, blocks: &[Block]) -> u64 {
        blocks.iter().map(|block| self.block(block)).sum()
    }

    fn block(&self, block: &Block) -> u64 {
        // Plain signatures belong to readable text and cost nothing; encrypted reasoning is
        // estimated from the length of its data.
        let sealed = block
            .signature
            .as_ref()
            .filter(|proof| proof.kind != SignatureKind::Signature)
            .map_or(0, |proof| proof.value.len() as u64 / 5);
        let inside = match &block.kind {
            BlockKind::Text(it) => self.text(&it.text),
            BlockKind::Refusal(words) => self.text(words),
            BlockKind::Reasoning(it) => self.text(&it.text).max(sealed),
            BlockKind::Media(media) => ITEM_OVERHEAD + self.media(media),
            BlockKind::ToolCall(call) => {
                ITEM_OVERHEAD * 2
                    + self.text(&call.id)
                    + self.text(&call.name)
                    + self.text(&call.arguments)
            }
            BlockKind::ToolResult(result) => {
                ITEM_OVERHEAD * 2
                    + self.text(&result.call)
                    + self.optional_text(result.name.as_deref())
                    + self.blocks(&result.content)
            }
            BlockKind::Foreign { body, .. } => ITEM_OVERHEAD + self.raw(body),
        };
        inside.max(sealed)
    }

    fn media(&self, media: &Media) -> u64 {
        let name = self.optional_text(media.name.as_deref());
        let inside = media_size::media_tokens(media).unwrap_or_else(|| match &media.source {
            MediaSource::Text(text) => self.text(text),
            _ => 0,
        });
        name.saturating_add(inside)
    }

    fn tool(&self, tool: &Tool) -> u64 {
        ITEM_OVERHEAD * 2
            + match tool {
                Tool::Function(tool) => {
                    self.text(&tool.name)
                        + self.optional_text(tool.description.as_deref())
                        + self.optional_text(tool.namespace.as_deref())
                        + tool.schema.as_ref().map_or(0, |schema| self.raw(schema))
                }
                Tool::Custom(tool) => {
                    self.text(&tool.name)
                        + self.optional_text(tool.description.as_deref())
                        + tool.format.as_ref().map_or(0, |format| self.raw(format))
                }
                Tool::Hosted(tool) => HOSTED_TOOL_OVERHEAD + self.raw(&tool.body),
            }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        base::framing::Framing,
        dialect::{
            egress::AttemptContext, event_decoder::EventDecoder, ingress::ChatEndpoint, ops::count,
            registry, tests::recorded, tokenizer,
        },
        ir::{
            block::{CallKind, MediaKind, Reasoning, ReasoningSignature, ToolCall, ToolResult},
            op::Dialect,
            request::{ChatMessage, Role},
            tool::FunctionTool,
        },
    };

    #[test]
    fn every_part_of_the_request_counts() {
        let words = |text: &str| text.split_whitespace().count() as u64;
        let with = |blocks: Vec<Block>| ChatRequest {
            messages: vec![ChatMessage::new(Role::User, blocks)],
            ..ChatRequest::default()
        };
        let empty = estimate_tokens(&ChatRequest::default(), &words);
        let plain = estimate_tokens(&with(vec![Block::text("one two three")]), &words);
        assert_eq!((empty, plain), (32 + 6, 43 + 8));

        let call = ToolCall {
            id: "c".to_owned(),
            name: "f".to_owned(),
            arguments: "{ }".to_owned(),
            form: CallKind::Function,
        };
        let result = ToolResult {
            call: "c".to_owned(),
            content: vec![Block::text("a b c d")],
            ..ToolResult::default()
        };
        let picture = Media {
            kind: MediaKind::Image,
            source: MediaSource::Url("https://x".to_owned()),
            mime: None,
            name: None,
            detail: None,
        };
        let mut sealed = Block::new(BlockKind::Reasoning(Reasoning::default()));
        sealed.signature = Some(ReasoningSignature {
            dialect: Dialect::Responses,
            kind: SignatureKind::Encrypted,
            value: "x".repeat(500),
            id: None,
        });
        for (block, least) in [
            (Block::new(BlockKind::ToolCall(call)), 4),
            (Block::new(BlockKind::ToolResult(result)), 5),
            (Block::new(BlockKind::Media(picture)), 1_600),
            (sealed, 100),
            (Block::new(BlockKind::Refusal("no no".to_owned())), 2),
        ] {
            let got = estimate_tokens(&with(vec![block.clone()]), &words);
            assert!(got >= empty + ITEM_OVERHEAD + least, "{block:?}: {got}");
        }
        let tool = Tool::Function(FunctionTool {
            name: "f".to_owned(),
            schema: RawJson::parse("{ \"a\": 1 }"),
            ..FunctionTool::default()
        });
        assert!(
            estimate_tokens(&ChatRequest { tools: vec![tool], ..ChatRequest::default() }, &words)
                > empty + TOOL_USE_OVERHEAD + 4
        );
    }

    /// With a count that is too low, or that omits tools, a client never shortens its
    /// conversation.
    #[test]
    fn estimates_are_rarely_below_the_provider_counts() {
        let (mut all, mut below) = (0, Vec::new());
        for (dialect, api, framing) in [
            (Dialect::Anthropic, "anthropic.messages", Framing::Sse),
            (Dialect::Anthropic, "anthropic.count_tokens", Framing::Sse),
            (Dialect::Gemini, "gemini.generateContent", Framing::Sse),
            (Dialect::Gemini, "gemini.streamGenerateContent", Framing::Sse),
            (Dialect::Gemini, "gemini.countTokens", Framing::Sse),
            (Dialect::Ollama, "ollama.chat", Framing::Ndjson),
            (Dialect::Openai, "openai.chat", Framing::Sse),
            (Dialect::Responses, "openai.responses", Framing::Sse),
            (Dialect::Responses, "openai.responses.input_tokens", Framing::Sse),
        ] {
            for exchange in recorded::load_exchanges(&[api])
                .into_iter()
                .filter(|exchange| exchange.status == 200)
            {
                let request_body = exchange.request.to_string();
                let body = count::unwrap_conversation(dialect, request_body.as_bytes())
                    .expect("an object");
                let Ok(request) =
                    registry::ingress(dialect).read_request(ChatEndpoint::Chat, &body)
                else {
                    continue;
                };
                // The request does not contain what a provider adds itself (results of its tools,
                // cached or stored parts).
                let hosted = request.tools.iter().any(|tool| matches!(tool, Tool::Hosted(_)));
                if hosted
                    || request_body.contains("cachedContent")
                    || request_body.contains("mcp_servers")
                    || request_body.contains("previous_response_id")
                {
                    continue;
                }
                let egress = registry::egress(dialect);
                let reported = if exchange.streaming {
                    let mut decoder = EventDecoder::new(
                        framing,
                        egress.stream_reader(&AttemptContext::default()),
                        false,
                    );
                    let mut events = Vec::new();
                    decoder.feed(&Bytes::from(exchange.response), &mut events);
                    decoder.finish(&mut events);
                    decoder.summary().usage.map(|usage| usage.input_total())
                } else {
                    let response = egress.read_response(
                        "",
                        exchange.response.as_bytes(),
                        &AttemptContext::default(),
                    );
                    count::read_response("", exchange.response.as_bytes())
                        .ok()
                        .or_else(|| Some(response.ok()?.usage?.input_total()))
                };
                let (got, reported) =
                    (estimate_tokens(&request, &tokenizer::count_tokens), reported.unwrap_or(0));
                all += 1;
                if got < reported {
                    below.push((exchange.id, got, reported));
                }
            }
        }
        // Some gateways add text of their own to the request.
        assert!(below.len() * 20 <= all, "{} of {all}: {below:#?}", below.len());
    }
}
