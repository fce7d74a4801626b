//! Results of actions, as values that each viewer words in its language.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    base::id::RequestId,
    events::status_message::{health::HealthMessage, reload::ReloadMessage},
    ir::{
        op::Op,
        reason::{missing_secret::MissingSecret, text_field::Reason},
    },
};

/// What an action did, or why it could not. `name` is that of a key or an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ActionMessage {
    /// A running request was ended.
    Aborted {
        id: RequestId,
    },
    /// The results of a test alert, a line per channel.
    AlertsTested {
        channels: Vec<AlertTestResult>,
    },
    /// The body of the request is not in the ledger, or not whole.
    BodyNotStored,
    /// The built-in upstream cannot be changed.
    BuiltIn,
    /// A request of this operation cannot be sent again.
    CannotReplay {
        op: Op,
    },
    /// What was learned of a number of models was forgotten.
    Forgotten {
        models: usize,
    },
    /// A cooldown began or ended.
    Health {
        change: Arc<HealthMessage>,
    },
    /// The provider refused a key's test.
    KeyFailed {
        name: Arc<str>,
        problem: Arc<str>,
    },
    /// A key could not be tested because it has no secret.
    KeyMissing {
        name: Arc<str>,
        secret: Arc<MissingSecret>,
    },
    /// A key passed its test.
    KeyWorks {
        name: Arc<str>,
    },
    /// No channel for alerts is configured.
    NoAlertChannel,
    NoLedger,
    /// The upstream was discovered and is not in the config file.
    NotInFile {
        name: Arc<str>,
    },
    /// The request has ended.
    NotRunning {
        id: RequestId,
    },
    /// The project of a request to send again was removed.
    ProjectGone {
        project: Arc<str>,
    },
    Reload {
        result: Arc<ReloadMessage>,
    },
    /// A request was sent again.
    SentAgain {
        original: RequestId,
        id: RequestId,
    },
    /// The upstream has several keys, so that its name does not select one.
    SeveralKeys {
        name: Arc<str>,
        keys: Vec<Arc<str>>,
    },
    /// The proxy is shutting down.
    Stopping,
    /// A key or an upstream was enabled or disabled.
    Switched {
        name: Arc<str>,
        enabled: bool,
    },
    /// A message that is only known as a text.
    Text {
        text: Arc<str>,
    },
    UnknownKey {
        name: Arc<str>,
    },
    UnknownRequest,
    UnknownUpstream {
        name: Arc<str>,
    },
}

/// The result of a test alert in one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AlertTestResult {
    /// The receiver at this origin accepted it.
    Accepted {
        channel: Arc<str>,
        origin: Arc<str>,
    },
    Failed {
        channel: Arc<str>,
        problem: Arc<str>,
    },
    /// A program showed it on the desktop.
    Shown {
        program: Arc<str>,
    },
}

impl ActionMessage {
    /// Makes a message that is only a text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text { text: text.into() }
    }
}

impl Reason for ActionMessage {
    fn from_text(text: Arc<str>) -> Self {
        Self::Text { text }
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

impl fmt::Display for AlertTestResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { channel, origin } => write!(f, "{channel}: accepted by {origin}"),
            Self::Failed { channel, problem } => write!(f, "{channel}: {problem}"),
            Self::Shown { program } => write!(f, "desktop: shown by {program}"),
        }
    }
}

impl fmt::Display for ActionMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted { id } => write!(f, "request {id} was aborted"),
            Self::AlertsTested { channels } => {
                let lines: Vec<_> = channels.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::BodyNotStored => {
                f.write_str("its body was not stored completely (`bodies` under [ledger])")
            }
            Self::BuiltIn => f.write_str("the built-in upstream `demo` cannot be changed"),
            Self::CannotReplay { op } => write!(f, "a `{op}` request cannot be sent again"),
            Self::Forgotten { models: 0 } => f.write_str("nothing was learned of it"),
            Self::Forgotten { models } => {
                write!(f, "what was learned is forgotten (models: {models})")
            }
            Self::Health { change } => write!(f, "{change}"),
            Self::KeyFailed { name, problem } => write!(f, "{name}: {problem}"),
            Self::KeyMissing { name, secret } => write!(f, "{name}: {secret}"),
            Self::KeyWorks { name } => {
                write!(f, "{name} works: the provider returned its model list")
            }
            Self::NoAlertChannel => f.write_str(
                "no alert channel is configured: set `desktop` or `webhook` under [alerts], or \
                 add an [[alert_receiver]]",
            ),
            Self::NoLedger => f.write_str("there is no ledger, so no request can be sent again"),
            Self::NotInFile { name } => write!(
                f,
                "`{name}` was discovered and is not in the config; `aiproxy upstream add {name}` \
                 adds it"
            ),
            Self::NotRunning { id } => write!(f, "request {id} is not running"),
            Self::ProjectGone { project } => write!(f, "project `{project}` no longer exists"),
            Self::Reload { result } => write!(f, "{result}"),
            Self::SentAgain { original, id } => {
                write!(f, "request {original} was sent again as {id}")
            }
            Self::SeveralKeys { name, keys } => {
                write!(f, "`{name}` has {} keys: {}", keys.len(), keys.join(", "))
            }
            Self::Stopping => f.write_str("stopping"),
            Self::Switched { name, enabled: true } => write!(f, "{name} is enabled"),
            Self::Switched { name, enabled: false } => write!(f, "{name} is disabled"),
            Self::Text { text } => f.write_str(text),
            Self::UnknownKey { name } => {
                write!(f, "no key is named `{name}`; `aiproxy key list` shows all")
            }
            Self::UnknownRequest => f.write_str("no running request has this id"),
            Self::UnknownUpstream { name } => {
                write!(f, "no upstream is named `{name}`; `aiproxy upstream list` shows all")
            }
        }
    }
}
