//! A request in the common form: read once, whatever is asked.

use super::ask::Ask;
use crate::{
    dialect::{
        ChatEndpoint,
        lists::{count, embed, rerank},
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

/// What was asked.
pub enum Said {
    Chat(ChatRequest),
    /// A conversation to be made shorter: itself, and the request that asks a model for its
    /// summary.
    Compact {
        whole: Box<ChatRequest>,
        ask: Box<ChatRequest>,
    },
    /// A conversation whose tokens are to be counted.
    Count(ChatRequest),
    Embed(EmbedRequest),
    Rerank(RerankRequest),
}

/// Paths of the Responses dialect that are questions about a conversation.
const COMPACT: &str = "/responses/compact";
const INPUT_TOKENS: &str = "/responses/input_tokens";

impl Said {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// What the dialect's own provider would refuse.
    pub(super) fn read(ask: &Ask) -> Result<Self, ProxyError> {
        let (dialect, body) = (ask.endpoint.dialect, &ask.body);
        let conversation =
            |body: &[u8]| registry::ingress(ask.read_as).read_request(place(ask), body);
        match ask.endpoint.op {
            Op::CountTokens => {
                conversation(&count::unwrap_conversation(dialect, body)?).map(Self::Count)
            }
            Op::Embed => embed::read_request(dialect, &ask.endpoint.path, body).map(Self::Embed),
            Op::Rerank => rerank::read_request(&ask.endpoint.path, body).map(Self::Rerank),
            Op::Stored if ask.endpoint.path == INPUT_TOKENS => conversation(body).map(Self::Count),
            Op::Stored => {
                let whole = conversation(body)?;
                Ok(Self::Compact {
                    ask: Box::new(stored::compaction_request(&whole)),
                    whole: Box::new(whole),
                })
            }
            _ => conversation(body).map(Self::Chat),
        }
    }

    /// The conversation that an upstream is to see.
    #[must_use]
    pub fn conversation(&self) -> Option<&ChatRequest> {
        match self {
            Self::Chat(request) | Self::Count(request) => Some(request),
            Self::Compact { ask, .. } => Some(ask),
            Self::Embed(_) | Self::Rerank(_) => None,
        }
    }

    /// The conversation that the client sent.
    pub(super) fn asked(&mut self) -> Option<&mut ChatRequest> {
        match self {
            Self::Chat(request) | Self::Count(request) => Some(request),
            Self::Compact { whole, .. } => Some(whole),
            Self::Embed(_) | Self::Rerank(_) => None,
        }
    }
}

/// Which of its dialect's endpoints was asked.
#[must_use]
pub(super) fn place(ask: &Ask) -> ChatEndpoint {
    match (ask.endpoint.op, ask.endpoint.path.as_str()) {
        (Op::Completions, _) => ChatEndpoint::Completions,
        (_, "/api/generate") => ChatEndpoint::Generate,
        _ => ChatEndpoint::Chat,
    }
}

/// Whether requests like this one can be put into another dialect.
#[must_use]
pub(super) fn translates(ask: &Ask) -> bool {
    match ask.endpoint.op {
        Op::Chat | Op::Completions | Op::CountTokens | Op::Embed => true,
        Op::Stored => {
            ask.endpoint.dialect == Dialect::Responses
                && matches!(ask.endpoint.path.as_str(), COMPACT | INPUT_TOKENS)
        }
        _ => false,
    }
}
