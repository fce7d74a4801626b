//! A request parsed into the IR, for every operation that can be translated.

use crate::relay::request::proxy_request::ProxyRequest;
use crate::{
    dialect::{
        ChatEndpoint,
        ops::{count, embed, rerank},
        registry, stored,
    },
    ir::{
        embed::EmbedRequest,
        fault::ProxyError,
        op::{Dialect, Op},
        request::ChatRequest,
        rerank::RerankRequest,
    },
};

/// A parsed request.
pub enum ParsedRequest {
    Chat(ChatRequest),
    /// A conversation to be compacted: the original, and the request for its summary.
    Compact {
        original: Box<ChatRequest>,
        summary_request: Box<ChatRequest>,
    },
    /// A conversation whose tokens are to be counted.
    Count(ChatRequest),
    Embed(EmbedRequest),
    Rerank(RerankRequest),
}

/// Paths of the Responses dialect for operations on a conversation.
pub(in crate::relay) const COMPACT_PATH: &str = "/responses/compact";
pub(in crate::relay) const INPUT_TOKENS_PATH: &str = "/responses/input_tokens";

impl ParsedRequest {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// The error that the dialect's own provider would return.
    pub(in crate::relay) fn parse(request: &ProxyRequest) -> Result<Self, ProxyError> {
        let (dialect, body) = (request.endpoint.dialect, &request.body);
        let conversation = |body: &[u8]| {
            registry::ingress(request.body_dialect).read_request(chat_endpoint(request), body)
        };
        match request.endpoint.op {
            Op::CountTokens => {
                conversation(&count::unwrap_conversation(dialect, body)?).map(Self::Count)
            }
            Op::Embed => {
                embed::read_request(dialect, &request.endpoint.path, body).map(Self::Embed)
            }
            Op::Rerank => rerank::read_request(&request.endpoint.path, body).map(Self::Rerank),
            Op::Stored if request.endpoint.path == INPUT_TOKENS_PATH => {
                conversation(body).map(Self::Count)
            }
            Op::Stored => {
                let original = conversation(body)?;
                Ok(Self::Compact {
                    summary_request: Box::new(stored::compaction_request(&original)),
                    original: Box::new(original),
                })
            }
            _ => conversation(body).map(Self::Chat),
        }
    }

    /// Returns the conversation to send to an upstream.
    #[must_use]
    pub fn upstream_conversation(&self) -> Option<&ChatRequest> {
        match self {
            Self::Chat(request) | Self::Count(request) => Some(request),
            Self::Compact { summary_request: ask, .. } => Some(ask),
            Self::Embed(_) | Self::Rerank(_) => None,
        }
    }

    /// Returns the conversation to send to an upstream, to be fitted to it.
    pub(in crate::relay) fn upstream_conversation_mut(&mut self) -> Option<&mut ChatRequest> {
        match self {
            Self::Chat(request) | Self::Count(request) => Some(request),
            Self::Compact { summary_request: ask, .. } => Some(ask),
            Self::Embed(_) | Self::Rerank(_) => None,
        }
    }

    /// Returns the conversation that the client sent.
    pub(in crate::relay) fn client_conversation_mut(&mut self) -> Option<&mut ChatRequest> {
        match self {
            Self::Chat(request) | Self::Count(request) => Some(request),
            Self::Compact { original: whole, .. } => Some(whole),
            Self::Embed(_) | Self::Rerank(_) => None,
        }
    }
}

/// Returns the endpoint of its dialect.
#[must_use]
pub(in crate::relay) fn chat_endpoint(request: &ProxyRequest) -> ChatEndpoint {
    match (request.endpoint.op, &*request.endpoint.path) {
        (Op::Completions, _) => ChatEndpoint::Completions,
        (_, "/api/generate") => ChatEndpoint::Generate,
        _ => ChatEndpoint::Chat,
    }
}

/// Returns whether requests like this one can be translated to another dialect.
#[must_use]
pub(in crate::relay) fn is_translatable(request: &ProxyRequest) -> bool {
    match request.endpoint.op {
        Op::Chat | Op::Completions | Op::CountTokens | Op::Embed => true,
        Op::Stored => {
            request.endpoint.dialect == Dialect::Responses
                && matches!(&*request.endpoint.path, COMPACT_PATH | INPUT_TOKENS_PATH)
        }
        _ => false,
    }
}
