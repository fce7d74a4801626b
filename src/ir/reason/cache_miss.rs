//! Why a provider's prompt cache no longer hits.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::ir::reason::{span::Span, text_field::Reason};

/// The first cause that explains a cache miss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MissCause {
    /// The request no longer marks anything for caching.
    CacheControl,
    /// Nothing changed, but the conversation was idle for this long.
    Expired {
        #[serde(rename = "idle_ms")]
        idle: Span,
    },
    /// The key belongs to another account.
    Key {
        from: Arc<str>,
        to: Arc<str>,
    },
    /// The client changed a message; the first has number 1.
    Message {
        number: usize,
        role: PrefixRole,
    },
    Model {
        from: Arc<str>,
        to: Arc<str>,
    },
    /// Nothing changed and little time passed: the provider dropped the cache.
    Provider,
    System,
    /// A cause that is only known as a text.
    Text {
        text: Arc<str>,
    },
    ToolOrder,
    Tools,
    /// The request was translated and the one before was not, or the reverse.
    Translation {
        translated: bool,
    },
    Upstream {
        from: Arc<str>,
        to: Arc<str>,
    },
}

/// The author of a message in a prompt's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixRole {
    Assistant,
    Other,
    Tool,
    User,
}

impl PrefixRole {
    /// Returns the name of the role; `None` for an unknown one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Assistant => Some("assistant"),
            Self::Other => None,
            Self::Tool => Some("tool"),
            Self::User => Some("user"),
        }
    }
}

impl MissCause {
    /// Returns whether the miss is expected and needs no investigation.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        matches!(self, Self::Expired { .. })
    }
}

impl Reason for MissCause {
    fn from_text(text: Arc<str>) -> Self {
        Self::Text { text }
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

impl fmt::Display for MissCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CacheControl => {
                f.write_str("the client asks for nothing to be cached any more (`cache_control`)")
            }
            Self::Expired { idle } => {
                write!(f, "nothing was asked for {idle}, longer than the provider keeps it")
            }
            Self::Key { from, to } => {
                write!(f, "it went to {to}, whose account is not that of {from}")
            }
            Self::Message { number, role } => {
                write!(f, "the client changed message {number}")?;
                role.name().map_or(Ok(()), |role| write!(f, " ({role})"))
            }
            Self::Model { from, to } => write!(f, "it went to the model {to}, before to {from}"),
            Self::Provider => f.write_str("nothing changed here; the provider let it go"),
            Self::System => f.write_str("the client changed the system prompt"),
            Self::Text { text } => f.write_str(text),
            Self::ToolOrder => f.write_str("the client changed the order of the tools"),
            Self::Tools => f.write_str("the client changed the tools"),
            Self::Translation { translated: true } => {
                f.write_str("it was translated, before it went as it was")
            }
            Self::Translation { translated: false } => {
                f.write_str("it went as it was, before it was translated")
            }
            Self::Upstream { from, to } => write!(f, "it went to {to}, before to {from}"),
        }
    }
}
