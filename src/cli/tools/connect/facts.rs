//! What is known of the files of each tool: the connect part of `assets/clients.toml`.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use serde::Deserialize;

use crate::{
    base::{pattern::Pattern, suggest},
    cli::{
        error::CliError,
        tools::{
            edit::{FileSyntax, path::Step},
            run::recipe::CLIENTS_TOML,
        },
    },
};

#[derive(Default, Deserialize)]
struct ConnectFacts {
    tool: Vec<ConnectTool>,
}

/// A tool that can be connected.
#[derive(Deserialize)]
pub(super) struct ConnectTool {
    pub(super) name: String,
    pub(super) title: String,
    /// What the user still has to do.
    #[serde(default)]
    pub(super) note: String,
    /// What to enter by hand, if the tool has no file.
    #[serde(default)]
    pub(super) print: String,
    /// Whether it gets a project of its own.
    #[serde(default = "yes")]
    project: bool,
    #[serde(default, rename = "file")]
    pub(super) files: Vec<ToolFile>,
    /// The file with which it reaches the proxy as an Ollama server.
    #[serde(default, rename = "ollama_file")]
    pub(super) ollama_files: Vec<ToolFile>,
    /// A tool that is only started is in the same table.
    #[serde(default)]
    run: Option<toml::Table>,
}

/// A file that is edited.
#[derive(Deserialize)]
pub(super) struct ToolFile {
    path: String,
    macos: Option<String>,
    windows: Option<String>,
    pub(super) format: FileSyntax,
    /// Whether it contains the key.
    #[serde(default)]
    pub(super) key: bool,
    pub(super) set: Vec<SettingFact>,
}

/// A setting of a file; `to` contains placeholders.
#[derive(Deserialize)]
pub(super) struct SettingFact {
    pub(super) at: Vec<Step>,
    pub(super) to: toml::Value,
    /// Whether a setting of the user stays.
    #[serde(default)]
    pub(super) keep: bool,
    /// Whether the tool changes the value itself.
    #[serde(default)]
    pub(super) own: bool,
    unless: Option<String>,
}

fn yes() -> bool {
    true
}

/// A test proves that the file can be read.
static CLIENTS: LazyLock<ConnectFacts> =
    LazyLock::new(|| toml::from_str(CLIENTS_TOML).unwrap_or_default());

/// Returns the tools that can be connected, in the order of the file.
fn tools() -> impl Iterator<Item = &'static ConnectTool> {
    CLIENTS.tool.iter().filter(|tool| tool.can_connect())
}

/// Returns the names of the tools and of the shell variables.
pub(in crate::cli) fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    tools().map(|tool| (&*tool.name, &*tool.title)).chain([("env", "SDKs of a shell")])
}

/// Finds a tool by its name.
///
/// # Errors
///
/// No such tool.
pub(super) fn find(name: &str) -> Result<&'static ConnectTool, CliError> {
    tools().find(|tool| tool.name == name).ok_or_else(|| {
        let near = suggest::nearest(name, names().map(|(name, _)| name));
        let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        let all = names().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        CliError::usage(format!("no tool `{name}`"))
            .hint(format!("{near}these can be connected: {all}"))
    })
}

impl ConnectTool {
    fn can_connect(&self) -> bool {
        !self.files.is_empty() || !self.print.is_empty() || self.run.is_none()
    }

    /// Returns whether the tool gets a project.
    pub(super) fn has_project(&self) -> bool {
        self.project
    }
}

impl ToolFile {
    /// Returns the path of the file. `data` is the tool's folder in the data dir.
    ///
    /// # Errors
    ///
    /// There is no home folder.
    pub(super) fn resolve(&self, data: &Path) -> Result<PathBuf, CliError> {
        let template = match () {
            () if cfg!(target_os = "macos") => self.macos.as_ref(),
            () if cfg!(windows) => self.windows.as_ref(),
            () => None,
        }
        .unwrap_or(&self.path);
        if let Some(rest) = template.strip_prefix("{data}/") {
            return Ok(data.join(rest));
        }
        let home =
            || std::env::home_dir().ok_or_else(|| CliError::failed("there is no home folder"));
        let moved = template.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let Some((variable, rest)) = moved else { return Ok(home()?.join(template)) };
        let (variable, default) = variable.split_once(':').unwrap_or((variable, ""));
        let folder = match std::env::var_os(variable).filter(|value| !value.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => home()?.join(default),
        };
        Ok(folder.join(rest.trim_start_matches('/')))
    }
}

impl SettingFact {
    /// Returns whether the setting is left out for this model.
    pub(super) fn is_left_out(&self, model: &str) -> bool {
        self.unless.as_ref().is_some_and(|pattern| {
            Pattern::parse(pattern).is_ok_and(|pattern| pattern.matches(model))
        })
    }

    /// Returns whether the value contains the key.
    pub(super) fn has_key(&self) -> bool {
        contains_key(&self.to)
    }
}

fn contains_key(value: &toml::Value) -> bool {
    match value {
        toml::Value::String(text) => text.contains("{key}"),
        toml::Value::Array(items) => items.iter().any(contains_key),
        toml::Value::Table(fields) => fields.values().any(contains_key),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_facts_can_be_read() {
        if let Err(error) = toml::from_str::<ConnectFacts>(CLIENTS_TOML) {
            panic!("{error}");
        }
        for name in ["claude-code", "codex", "aider", "vscode", "jetbrains", "cursor"] {
            let tool = find(name).unwrap();
            assert_ne!(tool.files.is_empty(), tool.print.is_empty(), "{name}");
        }
        assert!(find("goose").is_err() && find("claude-cod").is_err());
    }
}
