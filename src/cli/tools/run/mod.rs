//! `aiproxy run`: starts a tool that uses the proxy, without changing the tool's own files.

mod account;
mod files;
mod model;
mod program;
mod project;
pub(in crate::cli) mod recipe;
mod supervise;
pub(in crate::cli::tools) mod values;

use std::{ffi::OsString, path::Path, process::Command, time::Duration};

use clap::Args;

use crate::{
    base::clock::{Clock, SystemClock, UnixMillis},
    cli::{
        attach::{self, RunningProxy},
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        expose::expose_secret,
        output,
    },
    config::Environment,
};

use files::RunFolder;
use recipe::RunnableTool;
use values::Values;

pub(in crate::cli) const EXAMPLES: &str = "\
Tools: claude-code, codex, gemini-cli, qwen-code, opencode, aider, llm, continue, cline, crush,
goose. A tool gets variables, arguments and temporary files; its own files stay as they are.
It has a project of its own, made at the first run, and no key of a provider. At its end, a
line on stderr says what it used. The exit code is the tool's, or 128 + N if signal N ended it.

Examples:
  aiproxy run claude-code
  aiproxy run codex --model smart -- exec 'fix the tests'
  aiproxy run llm --project scripts -- 'three names for a cat'";

/// The longest time that the line of account may take.
const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(5);
/// The exit status of shells for a program that cannot be started.
const NOT_STARTED: u8 = 126;

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Tool to start
    tool: String,
    /// Model that it uses [default: one that calls tools]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Project that it counts for [default: one with the tool's name]
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Arguments of the tool, after `--`
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Runs a tool to its end.
///
/// # Errors
///
/// No such tool, the tool is not installed (exit code 127), no proxy is running, or the project
/// cannot be used.
pub async fn run(ctx: &CommandContext, args: RunArgs) -> Result<ExitStatus, CliError> {
    let tool = recipe::find(&args.tool)?;
    let path = program::find(tool)?;
    let proxy = RunningProxy::connect(ctx).await?;
    let data = ctx.global.paths()?.data;
    let project = project::find_or_add(ctx, tool, args.project.as_deref(), &data).await?;
    let model = model::choose(ctx, &proxy, tool, &project.name, args.model).await?;
    let folder = RunFolder::create(&data)?;
    let mut values = Values {
        base: &attach::base_url_of(ctx, &proxy),
        key: expose_secret(&project.key),
        is_native: tool.recipe.is_native(&model.name),
        model: &model.name,
        context: model.context,
        output: model.output,
        folder: folder.path(),
        now: SystemClock.unix().to_string(),
        json: None,
        helper: None,
    };
    let json = tool.recipe.json.as_ref().and_then(|template| values.value(template));
    values.json = json.map(|value| value.to_string());
    folder.fill(tool.recipe, &values)?;
    let mut command = command(ctx, tool, &path, &values, &args.args)?;
    let start = SystemClock.unix();
    let ended = supervise::run(&mut command);
    drop(folder);
    let code = ended.map_err(|error| {
        let error = CliError::failed(format!("cannot start {}: {error}", path.display()));
        CliError { exit: ExitStatus::Program(NOT_STARTED), ..error }
    })?;
    print_account(ctx, tool, &project.name, start).await;
    Ok(ExitStatus::Program(code))
}

fn command(
    ctx: &CommandContext,
    tool: RunnableTool,
    path: &Path,
    values: &Values<'_>,
    own_args: &[OsString],
) -> Result<Command, CliError> {
    let settings = edit_file::load(ctx)?.with_discovered();
    let env = Environment::from_process();
    let mut command = Command::new(path);
    command.args(program::arguments(tool, values, own_args));
    for (name, value) in program::environment(tool, values, &settings, &env) {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Ok(command)
}

/// Prints what the run used. The exit status stays the tool's if that cannot be found out.
async fn print_account(ctx: &CommandContext, tool: RunnableTool, project: &str, since: UnixMillis) {
    let read = tokio::time::timeout(ACCOUNT_TIMEOUT, account::read(ctx, project, since)).await;
    let line = match read {
        Ok(Ok(account)) => account.line(tool.name),
        Ok(Err(error)) => format!("{}: what it used is unknown: {}", tool.name, error.text),
        Err(_) => format!("{}: what it used is unknown: the proxy does not answer", tool.name),
    };
    output::print_note(&line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_tool() {
        let tools = EXAMPLES.split(". ").next().unwrap_or_default().replace('\n', " ");
        let names: Vec<_> = recipe::runnable_names().map(|(name, _)| name).collect();
        assert_eq!(tools, format!("Tools: {}", names.join(", ")));
    }
}
