//! What a file of another program asks for, before it is fitted into this config.

use std::collections::BTreeMap;

use crate::{ir::op::Dialect, secrets::Secret};

/// Everything that was read from one file.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) upstreams: Vec<UpstreamDraft>,
    pub(super) models: Vec<ModelDraft>,
    pub(super) aliases: Vec<AliasDraft>,
    pub(super) projects: Vec<ProjectDraft>,
    pub(super) settings: Vec<SettingDraft>,
    pub(super) unequal: Vec<Unequal>,
}

/// A provider.
#[derive(Debug, Default)]
pub(super) struct UpstreamDraft {
    /// The name in the file; it may be taken, or have characters that names cannot have.
    pub(super) name: String,
    pub(super) preset: Option<String>,
    /// `None` if the preset's own address is meant.
    pub(super) base_url: Option<String>,
    pub(super) dialect: Option<Dialect>,
    pub(super) keys: Vec<KeyDraft>,
    /// `None` if it serves what it lists.
    pub(super) models: Option<Vec<String>>,
    /// Names for clients, and the provider's names for them.
    pub(super) rename: BTreeMap<String, String>,
    /// Other keys of the row, with their values as TOML.
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) disabled: bool,
}

/// A credential of a provider, with limits by model.
#[derive(Debug)]
pub(super) struct KeyDraft {
    pub(super) value: KeyValue,
    /// The provider's model, requests and tokens per minute; 0 is unlimited.
    pub(super) limits: Vec<(String, u64, u64)>,
}

/// A credential as the file has it.
#[derive(Debug)]
pub(super) enum KeyValue {
    /// The credential itself, which goes to the key store.
    Text(Secret),
    /// The name of a variable that contains it.
    Env(String),
}

impl KeyValue {
    /// Returns whether both are the same credential.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.digest() == b.digest(),
            (Self::Env(a), Self::Env(b)) => a == b,
            _ => false,
        }
    }
}

/// A name for clients with targets of its own.
#[derive(Debug)]
pub(super) struct ModelDraft {
    pub(super) name: String,
    pub(super) targets: Vec<TargetDraft>,
}

/// A model of one upstream.
#[derive(Clone, Debug)]
pub(super) struct TargetDraft {
    /// Position in [`Draft::upstreams`].
    pub(super) upstream: usize,
    pub(super) model: String,
    pub(super) priority: Option<u64>,
    pub(super) weight: Option<f64>,
}

/// Another name for a model.
#[derive(Debug)]
pub(super) struct AliasDraft {
    pub(super) name: String,
    pub(super) target: AliasTarget,
}

#[derive(Debug)]
pub(super) enum AliasTarget {
    Name(String),
    /// A model of the upstream at this position in [`Draft::upstreams`].
    At(usize, String),
}

/// A client with its key.
#[derive(Debug)]
pub(super) struct ProjectDraft {
    pub(super) name: String,
    pub(super) key: KeyValue,
    /// `None` if it may use all.
    pub(super) models: Option<Vec<String>>,
}

/// A setting outside the rows.
#[derive(Debug)]
pub(super) struct SettingDraft {
    /// As in `config set`.
    pub(super) path: &'static str,
    /// Its value as TOML.
    pub(super) value: String,
    /// Its name in the file.
    pub(super) from: String,
}

/// Something that has no equal, or a gap in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unequal {
    /// Its name in the file; never a value, which may be confidential.
    pub(super) name: String,
    pub(super) reason: String,
    /// The line in the file, from 1; 0 if unknown.
    pub(super) line: usize,
}

impl Draft {
    pub(super) fn lose(&mut self, name: impl Into<String>, reason: impl Into<String>, line: usize) {
        self.unequal.push(Unequal { name: name.into(), reason: reason.into(), line });
    }

    pub(super) fn set(&mut self, path: &'static str, value: String, from: &str) {
        self.settings.push(SettingDraft { path, value, from: from.to_owned() });
    }

    /// Adds the address on which the other program listens; only loopback is taken over.
    pub(super) fn listen(&mut self, host: &str, port: &str, from: &str) {
        let port = port.trim().rsplit(':').next().unwrap_or_default();
        let Some(port) = port.parse::<u16>().ok().filter(|port| *port > 0) else { return };
        let host = match host.trim() {
            "localhost" | "::1" => "localhost",
            _ => "127.0.0.1",
        };
        let value = toml_edit::Value::from(format!("{host}:{port}")).to_string();
        self.set("server.listen", value, from);
    }

    /// Adds the number of retries after the first attempt.
    pub(super) fn retries(&mut self, retries: u64, from: &str) {
        self.set("retry.max_attempts", (retries + 1).clamp(1, 32).to_string(), from);
    }

    /// Adds the level of the log, if it is one.
    pub(super) fn log_level(&mut self, level: &str, from: &str) {
        let level = match level.to_ascii_lowercase().as_str() {
            "debug" => "debug",
            "info" => "info",
            "warn" | "warning" => "warn",
            "error" | "critical" | "fatal" => "error",
            _ => return,
        };
        self.set("log.level", format!("\"{level}\""), from);
    }
}
