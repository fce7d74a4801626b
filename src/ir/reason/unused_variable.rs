//! Why an environment variable is not used as a key.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A variable whose name is that of a provider's key, and why it is not used. `provider` is the
/// provider's title.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum UnusedVariable {
    /// It holds a client key of aiproxy.
    ClientKey { variable: Arc<str>, provider: Arc<str> },
    /// The provider also needs a base URL; `upstream` is its name in the config.
    NeedsUrl { variable: Arc<str>, provider: Arc<str>, upstream: Arc<str> },
    /// Its value has spaces or control characters.
    Spaces { variable: Arc<str> },
}

impl fmt::Display for UnusedVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientKey { variable, provider } => write!(
                f,
                "{variable} holds a client key of aiproxy; not used as a key of {provider}"
            ),
            Self::NeedsUrl { variable, provider, upstream } => write!(
                f,
                "{variable} is set; {provider} also needs a base URL: `aiproxy upstream add \
                 {upstream} --preset {upstream} --base-url URL`"
            ),
            Self::Spaces { variable } => {
                write!(f, "{variable} has spaces or line ends inside, which no key has; not used")
            }
        }
    }
}
