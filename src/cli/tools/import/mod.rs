//! `aiproxy import`: takes over the config of another program.

mod address;
mod channels;
mod cli_proxy;
mod code_router;
mod draft;
mod existing;
mod facts;
mod formats;
mod litellm;
mod names;
mod piped_json;
mod plan;
mod provider_env;
mod report;
mod source;
mod upstreams_yaml;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    cli::{
        attach,
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        key::store::KeyStore,
        prompt,
    },
    config::file::Paths,
    secrets::resolve::PASSPHRASE_FILE,
};

use draft::{Draft, KeyValue};
use plan::Plan;
use source::ImportSource;

pub(in crate::cli) const EXAMPLES: &str = "\
Reads: LiteLLM config.yaml, claude-code-router config.json, CLIProxyAPI config.yaml, channel
exports of One-API and new-api, the AI Proxy's config.yaml, YAML with upstreams and
project_auth, JSON with providers \"NAME|URL|KEY\", env files with LLM_PROVIDERS.
Keys go to the OS keyring, or with AIPROXY_KEYS_PASSPHRASE_FILE to the encrypted file; none to
the config. What has no equal is listed. A second import of the same file changes nothing.

Examples:
  aiproxy import litellm/config.yaml --dry-run      print the TOML and what has no equal
  aiproxy import ~/.claude-code-router/config.json";

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Config or export of another program
    file: PathBuf,
    /// Print what would be added, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
///
/// # Errors
///
/// A file that cannot be read (exit code 1, or 3 with its line), no consent (2), no key store, or a
/// config that cannot be changed. Nothing is changed then.
pub async fn run(ctx: &CommandContext, args: ImportArgs) -> Result<ExitStatus, CliError> {
    let source = ImportSource::read(&args.file)?;
    let (format, draft) = formats::read(&source)?;
    if !args.dry_run && !ctx.global.yes && !std::io::stdin().is_terminal() {
        return Err(CliError::usage("no terminal to confirm the import")
            .hint("--yes imports without a question, --dry-run shows what would be added"));
    }
    let file = edit_file::load_or_empty(ctx)?;
    if draft.upstreams.is_empty() {
        report::print_unequal(&source, &draft, &Plan::default());
        return Err(CliError::failed(format!(
            "{}: it describes no provider that could be imported",
            source.path.display()
        ))
        .hint("nothing was changed"));
    }
    if args.dry_run {
        let plan = plan::build(&file, None, &draft).await?;
        edit_file::check_edit(ctx, &plan.edits)?;
        report::print_plan(ctx, format, &source, &draft, &plan)?;
        return Ok(ExitStatus::Ok);
    }
    edit_file::check_writable(ctx)?;
    let mut store = if has_key(&draft) { Some(open_store(&file.paths).await?) } else { None };
    let plan = plan::build(&file, store.as_ref(), &draft).await?;
    edit_file::check_edit(ctx, &plan.edits)?;
    if !ctx.global.yes && !plan.edits.is_empty() {
        report::print_plan(ctx, format, &source, &draft, &plan)?;
        prompt::confirm(ctx, "import this?").await?;
    }
    apply(ctx, store.as_mut(), &plan).await?;
    report::print_result(ctx, format, &source, &draft, &plan, store.as_ref())?;
    Ok(ExitStatus::Ok)
}

fn has_key(draft: &Draft) -> bool {
    let of_upstreams = draft.upstreams.iter().flat_map(|upstream| &upstream.keys);
    let values = of_upstreams.map(|key| &key.value);
    let mut values = values.chain(draft.projects.iter().map(|project| &project.key));
    values.any(|value| matches!(value, KeyValue::Text(_)))
}

/// Opens the keyring, or the encrypted file if its passphrase is given and no keyring answers.
async fn open_store(paths: &Paths) -> Result<KeyStore, CliError> {
    match KeyStore::open_keyring().await {
        Err(_) if std::env::var_os(PASSPHRASE_FILE).is_some_and(|path| !path.is_empty()) => {
            KeyStore::open_vault(paths).await
        }
        Err(error) => Err(error.hint(format!(
            "nothing was changed; without a keyring, set {PASSPHRASE_FILE} to a file with a \
             passphrase, and the keys go to a file encrypted with it"
        ))),
        opened => opened,
    }
}

/// Stores the keys, then changes the config, which refers to them.
async fn apply(
    ctx: &CommandContext,
    mut store: Option<&mut KeyStore>,
    plan: &Plan<'_>,
) -> Result<(), CliError> {
    let mut stored = Vec::new();
    let mut outcome = Ok(());
    if let Some(store) = &mut store {
        for (entry, secret) in &plan.puts {
            outcome = store.put(entry, secret).await;
            if outcome.is_err() {
                break;
            }
            stored.push(entry);
        }
    }
    if outcome.is_ok() && !plan.edits.is_empty() {
        outcome = edit_file::edit_config(ctx, &plan.edits);
    }
    if let (Err(_), Some(store)) = (&outcome, store) {
        // Without their references in the config the keys could not be found.
        for entry in stored {
            drop(store.delete(entry).await);
        }
    }
    outcome?;
    attach::reload_if_running(ctx).await;
    Ok(())
}

/// The error that a config file is one of another program; nothing if it is not.
#[must_use]
pub fn foreign_config_error(path: &Path, text: &str) -> Option<CliError> {
    let source = ImportSource { path: path.to_owned(), text: text.to_owned() };
    let format = formats::Format::detect(&source.parse().ok()?)?;
    let error = CliError::config(format!("{} is {}", path.display(), format.title()));
    Some(error.hint(format!("`aiproxy import {}` takes it over", path.display())))
}
