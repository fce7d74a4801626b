//! Notices of the proxy about its network, its ledger, its keys and itself.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::ir::{
    reason::{missing_secret::MissingSecret, text_field::Reason, unused_variable::UnusedVariable},
    repair::Repair,
};

/// A notice. Texts from outside are sanitised and redacted by the code that makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NoticeMessage {
    /// So many bodies were not stored because too many came at once.
    BodiesSkipped {
        requests: u64,
    },
    /// A new ledger stores the bodies of all requests, or of failed ones only. `keep` and `limit`
    /// are the configured retention and size: `30d`, `1GiB`.
    BodiesStored {
        only_failed: bool,
        keep: Arc<str>,
        limit: Arc<str>,
    },
    /// The data dir cannot be written, so nothing outlives this run.
    DataDirNotWritable {
        path: Arc<str>,
        problem: Arc<str>,
    },
    /// A key that was read before stays in use although it cannot be read now.
    KeyKept {
        name: Arc<str>,
        secret: Arc<MissingSecret>,
    },
    /// A key cannot be used.
    KeyNotUsable {
        name: Arc<str>,
        secret: Arc<MissingSecret>,
    },
    /// An upstream refused part of a request to a model, which was sent without it then.
    Learned {
        model: Arc<str>,
        upstream: Arc<str>,
        #[serde(rename = "learned")]
        repair: Arc<Repair>,
    },
    /// The ledger's file was damaged and moved to `aside`.
    LedgerDamaged {
        path: Arc<str>,
        problem: Arc<str>,
        aside: Arc<str>,
    },
    /// The ledger cannot run.
    LedgerNotStarted {
        problem: Arc<str>,
    },
    /// The ledger cannot be written at the moment.
    LedgerNotWritable {
        path: Arc<str>,
        problem: Arc<str>,
    },
    /// Another program removed or replaced the ledger's file.
    LedgerReplaced {
        path: Arc<str>,
    },
    /// The ledger can be written again.
    LedgerWritable {
        path: Arc<str>,
    },
    NetworkBack,
    NetworkDown,
    /// The proxy is shutting down.
    Stopping,
    /// A notice that is only known as a text.
    Text {
        text: Arc<str>,
    },
    /// A budget applies to a model without a price; `model` is `upstream/model`.
    Unpriced {
        model: Arc<str>,
    },
    /// An environment variable is not used as a key.
    UnusedVariable {
        variable: Arc<UnusedVariable>,
    },
}

impl Reason for NoticeMessage {
    fn from_text(text: Arc<str>) -> Self {
        Self::Text { text }
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

impl fmt::Display for NoticeMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BodiesSkipped { requests } => write!(
                f,
                "the bodies of {requests} requests were not stored: too many at once; the requests \
                 themselves are recorded"
            ),
            Self::BodiesStored { only_failed, keep, limit } => {
                f.write_str(match only_failed {
                    true => "failed requests and their answers are stored",
                    false => "requests and answers are stored",
                })?;
                write!(
                    f,
                    " for {keep}, at most {limit}; `aiproxy config set ledger.bodies off` stores \
                     none"
                )
            }
            Self::DataDirNotWritable { path, problem } => write!(
                f,
                "the data dir {path} cannot be written ({problem}), so this run keeps its state \
                 in memory only; free some space or make it writable, or name another one with \
                 --data-dir or AIPROXY_DATA_DIR"
            ),
            Self::KeyKept { name, secret } => write!(
                f,
                "{name} cannot be read now, the key that was read before stays in use: {secret}"
            ),
            Self::KeyNotUsable { name, secret } => write!(f, "{name} is not usable: {secret}"),
            Self::Learned { model, upstream, repair } => {
                write!(f, "learned: {model} at {upstream} {repair}")
            }
            Self::LedgerDamaged { path, problem, aside } => write!(
                f,
                "the ledger {path} is damaged ({problem}); it was moved to {aside}, and a new one \
                 is begun"
            ),
            Self::LedgerNotStarted { problem } => {
                write!(f, "requests are not recorded: cannot start the ledger's thread: {problem}")
            }
            Self::LedgerNotWritable { path, problem } => write!(
                f,
                "the ledger {path} cannot be written: {problem}. Requests go on; what happens is \
                 held in memory"
            ),
            Self::LedgerReplaced { path } => write!(
                f,
                "the ledger {path} was removed or replaced by another program; what follows is \
                 written to the file that is there now, or to a new one"
            ),
            Self::LedgerWritable { path } => write!(f, "the ledger {path} is written again"),
            Self::NetworkBack => f.write_str("the local network is back"),
            Self::NetworkDown => f.write_str(
                "the local network is down: no failure counts, and requests wait until it is back",
            ),
            Self::Stopping => f.write_str("stopping"),
            Self::Text { text } => f.write_str(text),
            Self::Unpriced { model } => write!(
                f,
                "the price of `{model}` is unknown: budgets count it as zero; add a row \
                 [prices.\"{model}\"] to the config"
            ),
            Self::UnusedVariable { variable } => write!(f, "{variable}"),
        }
    }
}
