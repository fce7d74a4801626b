//! Results of reloads of the config.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::ir::reason::text_field::Reason;

/// What a reload was caused by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReloadCause {
    FileChanged,
    /// Local servers were found or stopped.
    LocalServers,
    /// A user or a program asked for it.
    Requested,
    /// The process received SIGHUP.
    Signal,
    /// A user enabled or disabled a key or an upstream.
    Switched {
        name: Arc<str>,
        enabled: bool,
    },
}

impl ReloadCause {
    /// Whether someone asked for the reload, so that an empty config file is meant.
    #[must_use]
    pub fn is_request(&self) -> bool {
        !matches!(self, Self::FileChanged | Self::LocalServers)
    }
}

impl fmt::Display for ReloadCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FileChanged => "file changed",
            Self::LocalServers => "local servers changed",
            Self::Requested => "requested",
            Self::Signal => "SIGHUP",
            Self::Switched { name, enabled: true } => return write!(f, "{name} is enabled"),
            Self::Switched { name, enabled: false } => return write!(f, "{name} is disabled"),
        })
    }
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReloadMessage {
    /// The config is in force: the upstreams without the built-in one, and the projects.
    Applied { cause: ReloadCause, upstreams: usize, projects: usize, needs_restart: bool },
    /// The file has errors, and the previous config stays active. `problem` is the first error.
    Rejected { problem: Option<Arc<str>> },
    /// A message that is only known as a text.
    Text { text: Arc<str> },
}

impl Reason for ReloadMessage {
    fn from_text(text: Arc<str>) -> Self {
        Self::Text { text }
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

impl fmt::Display for ReloadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied { cause, upstreams, projects, needs_restart } => {
                write!(f, "config applied ({cause}): {upstreams} upstreams, {projects} projects")?;
                f.write_str(match needs_restart {
                    true => "; some changes need `aiproxy restart`",
                    false => "",
                })
            }
            Self::Rejected { problem } => write!(
                f,
                "config not applied, the previous one stays active: {}",
                problem.as_deref().unwrap_or("the config cannot be read")
            ),
            Self::Text { text } => f.write_str(text),
        }
    }
}
