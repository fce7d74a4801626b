//! What is known of each program that can be started: the run part of `assets/clients.toml`.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

use crate::{
    base::{pattern::Pattern, suggest},
    cli::error::CliError,
};

pub(in crate::cli::tools) const CLIENTS_TOML: &str =
    include_str!("../../../../assets/clients.toml");

#[derive(Default, Deserialize)]
struct Clients {
    shell: ShellFacts,
    tool: Vec<KnownTool>,
}

/// Variables of the shell that lead a program past the proxy.
#[derive(Default, Deserialize)]
pub(super) struct ShellFacts {
    /// Addresses of servers.
    pub(super) addresses: Vec<String>,
    /// Keys that no preset names, and what belongs to a key.
    pub(super) keys: Vec<String>,
    /// Keys that other programs need.
    pub(super) kept: Vec<String>,
}

/// A program that `aiproxy connect` or `aiproxy run` knows.
#[derive(Deserialize)]
pub(super) struct KnownTool {
    pub(super) name: String,
    pub(super) title: String,
    /// The name of its command.
    #[serde(default)]
    program: String,
    /// The command that installs it.
    #[serde(default)]
    install: String,
    run: Option<Recipe>,
}

/// How a program is started. The values contain placeholders.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Recipe {
    /// Groups of arguments before those of the user.
    pub(super) args: Vec<Vec<String>>,
    pub(super) env: BTreeMap<String, String>,
    /// Variables that it must not get.
    pub(super) unset: Vec<String>,
    /// The value of `{json}`.
    pub(super) json: Option<toml::Value>,
    #[serde(rename = "file")]
    pub(super) files: Vec<TemporaryFile>,
    /// A folder of the program whose other files are linked next to the temporary ones.
    pub(super) links: Option<String>,
    /// Models whose limits the program knows.
    native: Vec<String>,
    /// Models to choose first.
    prefer: Vec<String>,
}

/// A file that exists while the program runs.
#[derive(Deserialize)]
pub(super) struct TemporaryFile {
    /// Its name in the folder of the run.
    pub(super) path: String,
    /// A text, or a value that is written as JSON.
    pub(super) to: toml::Value,
}

/// A tool that can be started.
#[derive(Clone, Copy)]
pub(super) struct RunnableTool {
    pub(super) name: &'static str,
    pub(super) program: &'static str,
    pub(super) install: &'static str,
    pub(super) recipe: &'static Recipe,
}

/// A test proves that the file can be read.
static CLIENTS: LazyLock<Clients> =
    LazyLock::new(|| toml::from_str(CLIENTS_TOML).unwrap_or_default());

/// Returns the variables of the shell that lead past the proxy.
pub(super) fn shell_facts() -> &'static ShellFacts {
    &CLIENTS.shell
}

/// Returns every tool that can be started, with its title.
pub(in crate::cli) fn runnable_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    CLIENTS.tool.iter().filter(|tool| tool.run.is_some()).map(|tool| (&*tool.name, &*tool.title))
}

/// Finds a tool by its name or the name of its command.
///
/// # Errors
///
/// No such tool, or one that is no program of a terminal.
pub(super) fn find(name: &str) -> Result<RunnableTool, CliError> {
    let by_name = CLIENTS.tool.iter().find(|tool| tool.name == name);
    let by_program = || CLIENTS.tool.iter().find(|tool| tool.program == name && !name.is_empty());
    let Some(tool) = by_name.or_else(by_program) else { return Err(unknown_tool_error(name)) };
    let Some(recipe) = &tool.run else {
        return Err(CliError::usage(format!("{} is not started from a terminal", tool.title))
            .hint(format!("these can be started: {}", names())));
    };
    Ok(RunnableTool { name: &tool.name, program: &tool.program, install: &tool.install, recipe })
}

/// Returns the rank of a model among those that a tool takes first; `None` if it is not one.
pub(in crate::cli::tools) fn preference(tool: &str, model: &str) -> Option<usize> {
    let tool = CLIENTS.tool.iter().find(|known| known.name == tool)?;
    tool.run.as_ref()?.preference(model)
}

fn unknown_tool_error(name: &str) -> CliError {
    let known = CLIENTS.tool.iter().filter(|tool| tool.run.is_some());
    let near = suggest::nearest(name, known.flat_map(|tool| [&*tool.name, &*tool.program]));
    let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    CliError::usage(format!("no tool `{name}`"))
        .hint(format!("{near}these can be started: {}", names()))
}

fn names() -> String {
    runnable_names().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

impl Recipe {
    /// Returns whether the program knows the limits of the model by its name.
    pub(super) fn is_native(&self, model: &str) -> bool {
        self.native.iter().any(|pattern| matches(pattern, model))
    }

    /// Returns the place of the model among those to choose first; `None` if it is not one.
    pub(super) fn preference(&self, model: &str) -> Option<usize> {
        self.prefer.iter().position(|pattern| matches(pattern, model))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    Pattern::parse(pattern).is_ok_and(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_can_be_read() {
        if let Err(error) = toml::from_str::<Clients>(CLIENTS_TOML) {
            panic!("{error}");
        }
        for name in [
            "claude-code",
            "codex",
            "gemini-cli",
            "qwen-code",
            "opencode",
            "aider",
            "llm",
            "cline",
            "crush",
            "goose",
        ] {
            let tool = find(name).unwrap();
            assert!(!tool.program.is_empty() && !tool.install.is_empty(), "{name}");
            assert_eq!(find(tool.program).unwrap().name, name);
            assert!(!tool.recipe.env.is_empty() || !tool.recipe.files.is_empty(), "{name}");
            for pattern in tool.recipe.native.iter().chain(&tool.recipe.prefer) {
                assert!(Pattern::parse(pattern).is_ok(), "{name}: {pattern}");
            }
        }
    }

    #[test]
    fn a_near_name_is_offered() {
        for (name, want) in [
            ("claude-cod", "did you mean `claude-code`"),
            ("codx", "did you mean `codex`"),
            ("zed", "Zed is not started"),
            ("xyzzy-12", "no tool `xyzzy-12`"),
            ("", "no tool ``"),
        ] {
            let error = find(name).err().unwrap();
            assert_eq!(error.exit.code(), 2);
            assert!(error.to_string().contains(want), "{error}");
        }
    }
}
