//! Why a key has no usable secret.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a key cannot be used, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MissingSecret {
    /// The variable is set, but empty.
    EmptyVariable { upstream: Arc<str>, name: Arc<str> },
    /// The upstream needs a key and has none.
    NoKey { upstream: Arc<str> },
    /// The OS keyring has no such entry.
    NotInKeyring { label: Arc<str>, hint: Arc<str> },
    /// The file does not exist.
    NoFile { path: Arc<str>, hint: Arc<str> },
    /// Any other error of a secret store, with its hint.
    Other { text: Arc<str>, hint: Arc<str> },
    /// The secret has characters that no header can carry.
    Unsendable,
    /// The variable is not set.
    UnsetVariable { upstream: Arc<str>, name: Arc<str> },
}

impl fmt::Display for MissingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyVariable { upstream, name } => {
                write!(f, "`env:{name}`: the variable is set, but empty; ")?;
                write_variable_hint(f, upstream, name)
            }
            Self::NoKey { upstream } => {
                write!(f, "{upstream} has no key; `aiproxy key add {upstream}` adds one")
            }
            Self::NotInKeyring { label, hint } => {
                write!(f, "`keyring:{label}`: no such entry in the OS keyring; {hint}")
            }
            Self::NoFile { path, hint } => write!(f, "`file:{path}`: no such file; {hint}"),
            Self::Other { text, hint } => write!(f, "{text}; {hint}"),
            Self::Unsendable => f.write_str(
                "the key has characters that no header can carry; was it copied whole, on one \
                 line?",
            ),
            Self::UnsetVariable { upstream, name } => {
                write!(f, "`env:{name}`: {name} is not set; ")?;
                write_variable_hint(f, upstream, name)
            }
        }
    }
}

fn write_variable_hint(f: &mut fmt::Formatter<'_>, upstream: &str, name: &str) -> fmt::Result {
    write!(
        f,
        "set {name} where aiproxy starts and `aiproxy restart`, or keep the key in the keyring: \
         `aiproxy key add {upstream}`"
    )
}
