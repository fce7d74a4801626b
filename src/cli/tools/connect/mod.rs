//! `aiproxy connect` and `aiproxy disconnect`: point a tool's own files at the proxy, and undo that
//! exactly.

pub(in crate::cli) mod facts;
mod journal;
mod list;
mod own_config;
mod plan;
mod undo;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use clap::Args;
use regex::Regex;

use self::{
    facts::ConnectTool,
    journal::{ConfigChange, FileChange, Journal},
    plan::FilePlan,
};
use crate::{
    base::{
        clock::{Clock, SystemClock},
        fs,
    },
    cli::{
        attach,
        context::CommandContext,
        env,
        error::{CliError, ExitStatus, path_error},
        expose::expose_secret,
        log::diff::unified_diff,
        model::{self, TokenLimits},
        output, prompt,
        tools::run::{
            recipe,
            values::{HelperCommand, Values},
        },
    },
};

pub(in crate::cli) const EXAMPLES: &str = "\
The tool's own files are edited: a diff is shown first, comments and other settings stay, and
`aiproxy disconnect` undoes the edit exactly. The tool gets a project and a key of its own.
`aiproxy connect env` prints shell lines for SDKs.

Examples:
  aiproxy connect claude-code
  aiproxy connect codex --model smart --print      show the edit, change nothing
  aiproxy connect vscode --ollama                  as an Ollama server, without a key
  eval \"$(aiproxy connect env)\"
  aiproxy connect --list";

/// What stands for the key in everything that is shown.
const HIDDEN_KEY: &str = "aip-…";
/// The tool-like name of the variables of SDKs.
const ENV: &str = "env";

#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// Tool to connect, or `env` for the variables of SDKs; without one all are listed
    tool: Option<String>,
    /// Show which tools are connected
    #[arg(long, conflicts_with = "tool")]
    list: bool,
    /// Show the edit and change nothing
    #[arg(long)]
    print: bool,
    /// Model that the tool uses [default: one that calls tools]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Project that it counts for [default: one with the tool's name]
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Reach the proxy as an Ollama server that needs no key (vscode)
    #[arg(long)]
    ollama: bool,
    /// Shell syntax of `connect env`
    #[arg(long, value_enum, default_value_t)]
    shell: env::Shell,
}

#[derive(Debug, Args)]
pub struct DisconnectArgs {
    /// Tool to disconnect
    tool: String,
}

/// Connects a tool.
///
/// # Errors
///
/// No such tool, a file of it cannot be edited, or the user declines.
pub async fn run(ctx: &CommandContext, args: ConnectArgs) -> Result<ExitStatus, CliError> {
    let data = ctx.global.paths()?.data;
    let Some(name) = args.tool.as_deref().filter(|_| !args.list) else {
        return list::run(ctx, &data);
    };
    if name == ENV {
        return connect_env(ctx, &args, &data).await;
    }
    let tool = facts::find(name)?;
    if args.ollama && tool.ollama_files.is_empty() {
        return Err(CliError::usage(format!("{} has no --ollama", tool.title)));
    }
    // An unreadable config is reported before anything else.
    own_config::text(ctx)?;
    if !tool.print.is_empty() {
        return print_instructions(ctx, tool, &args, &data).await;
    }
    connect_files(ctx, tool, &args, &data).await
}

/// Disconnects a tool.
///
/// # Errors
///
/// No such tool, or a file cannot be restored.
pub async fn disconnect(
    ctx: &CommandContext,
    args: DisconnectArgs,
) -> Result<ExitStatus, CliError> {
    let data = ctx.global.paths()?.data;
    if args.tool != ENV {
        facts::find(&args.tool)?;
    }
    undo::run(ctx, &args.tool, &data).await
}

/// What an edit needs to know beside the facts.
struct ConnectTarget {
    base: String,
    model: String,
    limits: TokenLimits,
    helper: HelperCommand,
    folder: PathBuf,
}

impl ConnectTarget {
    fn values<'a>(&'a self, key: &'a str, base: &'a str, now: &str) -> Values<'a> {
        Values {
            base,
            key,
            is_native: false,
            model: &self.model,
            context: self.limits.context,
            output: self.limits.output,
            folder: &self.folder,
            now: now.to_owned(),
            json: None,
            helper: Some(&self.helper),
        }
    }
}

async fn connect_files(
    ctx: &CommandContext,
    tool: &ConnectTool,
    args: &ConnectArgs,
    data: &Path,
) -> Result<ExitStatus, CliError> {
    let lock = if args.print { None } else { Some(journal::lock(data)?) };
    let known = Journal::read(data, &tool.name)?;
    let named = args.project.as_deref();
    let project = named.or(known.as_ref().map(|known| &*known.project)).unwrap_or(&tool.name);
    if named.is_some() && !own_config::has_project(ctx, project)? {
        return Err(CliError::usage(format!("no project `{project}`"))
            .hint(format!("`aiproxy project add {project}` makes it")));
    }
    let exists = own_config::has_project(ctx, project)?;
    let target = target(ctx, tool, args, project, data).await?;
    let ollama_port = match args.ollama {
        true if !is_listening(known.as_ref()) => Some(own_config::free_ollama_port(ctx)?),
        _ => None,
    };
    let base = match ollama_port {
        Some(port) => format!("http://127.0.0.1:{port}"),
        None => target.base.clone(),
    };
    let now = SystemClock.unix().to_string();
    let files = if args.ollama { &tool.ollama_files } else { &tool.files };
    let plan = |key: &str| -> Result<Vec<FilePlan>, CliError> {
        let values = target.values(key, &base, &now);
        let earlier = |path: &Path| {
            known.iter().flat_map(|known| &known.files).find(|change| change.path == path)
        };
        let plan_one = |file: &facts::ToolFile| {
            let path = file.resolve(&target.folder)?;
            plan::plan_file(file, path.clone(), &values, earlier(&path))
        };
        files.iter().map(plan_one).collect()
    };
    let key = match exists && !args.print {
        true => Some(own_config::key(ctx, project).await?),
        false => None,
    };
    let shown = plan(key.as_ref().map_or(HIDDEN_KEY, expose_secret))?;
    let changes: Vec<&FilePlan> = shown.iter().filter(|plan| plan.is_change()).collect();
    if changes.is_empty() && exists {
        output::print_line(&format!("{} is connected already", tool.title))?;
        return Ok(ExitStatus::Ok);
    }
    let key_text = key.as_ref().map(expose_secret);
    if args.print || std::io::stdin().is_terminal() || ctx.global.yes {
        for change in &changes {
            output::print(&diff_text(change, key_text))?;
        }
    }
    if args.print {
        return Ok(ExitStatus::Ok);
    }
    confirm(ctx, tool).await?;
    // From here on, everything is in the journal before it is done.
    let mut journal = Journal {
        tool: tool.name.clone(),
        project: project.to_owned(),
        made_project: known
            .as_ref()
            .and_then(|known| known.made_project.clone())
            .or_else(|| (!exists).then(|| project.to_owned())),
        config: match &known {
            Some(known) => known.config.clone(),
            None => Some(ConfigChange { before: own_config::text(ctx)?, inserted: Vec::new() }),
        },
        files: with_earlier(shown.into_iter().map(|plan| plan.change), known.as_ref()),
        folders: known.as_ref().map(|known| known.folders.clone()).unwrap_or_default(),
    };
    journal.folders.extend(missing_folders(&journal));
    journal.write(data)?;
    if !exists || ollama_port.is_some() {
        own_config::add(ctx, &mut journal, data, ollama_port).await?;
    }
    let key = own_config::key(ctx, project).await?;
    let plans = plan(expose_secret(&key))?;
    journal.files = with_earlier(plans.iter().map(|plan| plan.change.clone()), known.as_ref());
    journal.write(data)?;
    write_files(&plans, &journal.folders)?;
    drop(lock);
    output::print_line(&format!(
        "{} uses {} with {}; `aiproxy disconnect {}` undoes it",
        tool.title, base, target.model, tool.name
    ))?;
    if !tool.note.is_empty() && !args.ollama {
        output::print_line(&tool.note)?;
    }
    Ok(ExitStatus::Ok)
}

/// Adds the files of an earlier connection that are elsewhere now, so that they are restored too.
fn with_earlier(
    files: impl Iterator<Item = FileChange>,
    known: Option<&Journal>,
) -> Vec<FileChange> {
    let mut files: Vec<FileChange> = files.collect();
    for earlier in known.iter().flat_map(|known| &known.files) {
        if !files.iter().any(|change| change.path == earlier.path) {
            files.push(earlier.clone());
        }
    }
    files
}

/// A connected tool and the ports of this machine that its files name.
pub(super) struct ToolAddress {
    pub(super) tool: String,
    pub(super) ports: Vec<u16>,
}

/// Returns the connected tools whose files still have the settings.
pub(super) fn connected_tools(data: &Path) -> Vec<ToolAddress> {
    let journals = facts::names().filter_map(|(name, _)| Journal::read(data, name).ok()?);
    journals
        .filter(|journal| journal.files.iter().all(list::is_in_place))
        .map(|journal| ToolAddress { ports: journal.ports(), tool: journal.tool })
        .collect()
}

fn is_listening(known: Option<&Journal>) -> bool {
    let change = known.and_then(|known| known.config.as_ref());
    change.is_some_and(|change| change.inserted.iter().any(|text| text.contains("keyless")))
}

async fn confirm(ctx: &CommandContext, tool: &ConnectTool) -> Result<(), CliError> {
    let question = format!("connect {}?", tool.title);
    prompt::confirm(ctx, &question).await.map_err(|error| match std::io::stdin().is_terminal() {
        true => error,
        // Nothing was tried, so this is a matter of the command line.
        false => CliError { exit: ExitStatus::Usage, ..error },
    })
}

async fn target(
    ctx: &CommandContext,
    tool: &ConnectTool,
    args: &ConnectArgs,
    project: &str,
    data: &Path,
) -> Result<ConnectTarget, CliError> {
    let base = attach::base_url(ctx).await?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => {
            let rank = |name: &str| recipe::preference(&tool.name, name);
            model::usual(ctx, rank).await?
        }
    };
    let limits = model::limits(ctx, &model).await?;
    let folder = journal::tool_folder(data, &tool.name);
    Ok(ConnectTarget { base, model, limits, helper: helper_command(ctx, project)?, folder })
}

/// The command that prints the key of a project, from anywhere.
fn helper_command(ctx: &CommandContext, project: &str) -> Result<HelperCommand, CliError> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::failed(format!("this program has no path: {error}")))?;
    let paths = ctx.global.paths()?;
    let mut args = Vec::new();
    let mut push = |flag: &str, path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        args.extend([flag.to_owned(), path.display().to_string()]);
    };
    if ctx.global.config.is_some() {
        push("--config", &paths.config);
    }
    if ctx.global.data_dir.is_some() {
        push("--data-dir", &paths.data);
    }
    args.extend(["project".to_owned(), "key".to_owned(), project.to_owned()]);
    Ok(HelperCommand { program: program.display().to_string(), args })
}

/// The difference of a file, without keys.
fn diff_text(plan: &FilePlan, key: Option<&str>) -> String {
    let path = plan.change.path.display().to_string();
    let before = plan.current.as_deref().unwrap_or_default();
    let old_name = if plan.current.is_some() { &*path } else { "/dev/null" };
    let mut text = unified_diff(before, &plan.text, (old_name, &path));
    if let Some(key) = key {
        text = text.replace(key, HIDDEN_KEY);
    }
    if plan.has_key {
        // Lines around the edit may contain the keys of others.
        if let Ok(long_words) = Regex::new(r"[A-Za-z0-9_\-]{20,}") {
            text = text
                .lines()
                .map(|line| match line.starts_with("---") || line.starts_with("+++") {
                    true => format!("{line}\n"),
                    false => format!("{}\n", long_words.replace_all(line, "…")),
                })
                .collect();
        }
    }
    text
}

/// The folders of the files that do not exist yet, the outermost first.
fn missing_folders(journal: &Journal) -> Vec<PathBuf> {
    let mut missing = Vec::new();
    for change in &journal.files {
        let parents: Vec<_> = change.real.ancestors().skip(1).collect();
        for folder in parents.into_iter().rev() {
            let is_known = |list: &[PathBuf]| list.iter().any(|known| known == folder);
            if !folder.exists() && !is_known(&missing) && !is_known(&journal.folders) {
                missing.push(folder.to_owned());
            }
        }
    }
    missing
}

fn write_files(plans: &[FilePlan], folders: &[PathBuf]) -> Result<(), CliError> {
    for folder in folders.iter().filter(|folder| !folder.exists()) {
        let made =
            match plans.iter().any(|plan| plan.has_key && plan.change.real.starts_with(folder)) {
                true => fs::create_private_dir(folder),
                false => std::fs::create_dir_all(folder),
            };
        made.map_err(|error| path_error(folder, &error))?;
    }
    // Files with the key first, so that no file refers to one that is missing.
    let (with_key, others): (Vec<_>, Vec<_>) = plans.iter().partition(|plan| plan.has_key);
    for plan in with_key.into_iter().chain(others).filter(|plan| plan.is_change()) {
        journal::replace_file(&plan.change, &plan.text, plan.mode)
            .map_err(|error| path_error(&plan.change.path, &error))?;
    }
    Ok(())
}

/// Makes the tool's project, and prints what to enter in the tool.
async fn print_instructions(
    ctx: &CommandContext,
    tool: &ConnectTool,
    args: &ConnectArgs,
    data: &Path,
) -> Result<ExitStatus, CliError> {
    let project = args.project.as_deref().unwrap_or(&tool.name);
    let target = target(ctx, tool, args, project, data).await?;
    if tool.has_project() && args.project.is_none() && !args.print {
        make_project(ctx, &tool.name, data).await?;
    }
    let values = target.values(HIDDEN_KEY, &target.base, "");
    output::print_line(&values.text(tool.print.trim_end()).unwrap_or_default())?;
    Ok(ExitStatus::Ok)
}

/// Makes a project for a tool without files.
async fn make_project(ctx: &CommandContext, name: &str, data: &Path) -> Result<(), CliError> {
    let _lock = journal::lock(data)?;
    if own_config::has_project(ctx, name)? {
        return Ok(());
    }
    let mut journal = Journal {
        tool: name.to_owned(),
        project: name.to_owned(),
        made_project: Some(name.to_owned()),
        config: Some(ConfigChange { before: own_config::text(ctx)?, inserted: Vec::new() }),
        files: Vec::new(),
        folders: Vec::new(),
    };
    journal.write(data)?;
    own_config::add(ctx, &mut journal, data, None).await
}

/// Prints the variables of SDKs with a key of their own.
async fn connect_env(
    ctx: &CommandContext,
    args: &ConnectArgs,
    data: &Path,
) -> Result<ExitStatus, CliError> {
    let project = match &args.project {
        Some(name) => name.clone(),
        None => {
            if !args.print {
                make_project(ctx, ENV, data).await?;
            }
            ENV.to_owned()
        }
    };
    env::print_lines(ctx, &project, args.shell).await
}
