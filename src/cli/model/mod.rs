//! `aiproxy model`: lists and edits logical models, aliases and discovered models.

mod catalog;
mod filter;
mod list;
mod show;
mod targets;

use clap::{Args, Subcommand};

use crate::{
    base::clock::{Clock, SystemClock},
    cli::{
        attach::{self, RunningProxy},
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        prompt,
    },
    config::{edit::Edit, settings::Strategy},
    control::{action::Action, action_message::ActionMessage, snapshot::ModelView},
    relay::state::learned_store::LearnedStore,
};

const ADD: &str = "\
One target creates an alias; several create a logical model that fails over from one to the
next. A target is UPSTREAM:MODEL or another model name. NAME may be a pattern, as in
'claude-*-haiku-*'.

Examples:
  aiproxy model add fast openai:gpt-5-mini
  aiproxy model add auto office:big-model openai:gpt-5
  aiproxy model add '*' auto                   every name that no upstream serves";

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Add an alias or a logical model
    #[command(after_help = ADD)]
    Add(ModelArgs),
    /// Forget what was learned of models from requests that upstreams refused
    Forget {
        /// Alias, logical model, model of any upstream, or UPSTREAM:MODEL
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// Forget what was learned of every model
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// List the models that clients can request
    #[command(after_help = list::EXAMPLES)]
    List(filter::ModelFilter),
    /// Show what a name resolves to: targets with state, keys, limits, prices, and what is known of
    /// their models
    Show {
        /// Alias, logical model, model listed by an upstream, or UPSTREAM:MODEL
        name: String,
    },
    /// Remove an alias or logical model from the config
    Remove {
        /// Alias or logical model
        name: String,
    },
}

#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Name that clients request
    name: String,
    /// Targets in order of priority
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    /// Selection among equal targets
    #[arg(long, value_name = "NAME", value_parser = Strategy::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>())]
    strategy: Option<String>,
}

/// What is known of the limits of a model.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TokenLimits {
    /// Tokens of request and response together: the smallest of its targets.
    pub(super) context: Option<u64>,
    /// Tokens of a response.
    pub(super) output: Option<u64>,
}

/// Looks up the limits of a name that clients can request; they are unknown if no such name is
/// listed.
///
/// # Errors
///
/// The config cannot be read, or the running proxy does not answer.
pub(super) async fn limits(ctx: &CommandContext, name: &str) -> Result<TokenLimits, CliError> {
    let catalog = catalog::ModelCatalog::read(ctx).await?;
    let Ok(row) = catalog.find(name) else { return Ok(TokenLimits::default()) };
    let facts = filter::CommonFacts::join(&catalog.facts(&row.targets), row.targets.len());
    Ok(TokenLimits { context: facts.context, output: facts.max_output })
}

/// Returns the model to use if the user names none: one of the best rank, else the first that the
/// user set up or that calls tools. Works without a running proxy.
///
/// # Errors
///
/// The config cannot be read, or the running proxy does not answer.
pub(super) async fn usual(
    ctx: &CommandContext,
    rank: impl Fn(&str) -> Option<usize>,
) -> Result<String, CliError> {
    let catalog = catalog::ModelCatalog::read(ctx).await?;
    let is_name = |name: &str| !name.contains(['*', '?']);
    let calls_tools = |row: &ModelView| {
        matches!(&*row.kind, "alias" | "logical")
            || catalog.facts(&row.targets).iter().any(|target| target.facts().tools == Some(true))
    };
    let named = || catalog.models.iter().filter(|row| is_name(&row.name));
    let ranked = named().filter_map(|row| Some((rank(&row.name)?, row)));
    let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, row)| row);
    let chosen = best.or_else(|| named().find(|row| calls_tools(row))).or_else(|| named().next());
    Ok(chosen.map_or_else(|| DEMO_MODEL.to_owned(), |row| row.name.clone()))
}

/// The model of a proxy without a provider.
const DEMO_MODEL: &str = "demo/echo";

/// Runs a `model` command.
///
/// # Errors
///
/// As the individual commands.
pub async fn run(ctx: &CommandContext, command: ModelCommand) -> Result<ExitStatus, CliError> {
    match command {
        ModelCommand::Add(args) => add(ctx, args).await,
        ModelCommand::Forget { name, .. } => forget(ctx, name).await,
        ModelCommand::List(filter) => list::run(ctx, &filter).await,
        ModelCommand::Remove { name } => remove(ctx, &name).await,
        ModelCommand::Show { name } => show::run(ctx, &name).await,
    }
}

async fn add(ctx: &CommandContext, args: ModelArgs) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_to_change(ctx)?;
    if catalog::configured_models(&file.settings).iter().any(|row| row.name == args.name) {
        return Err(CliError::failed(format!("model `{}` already exists", args.name))
            .hint(format!("`aiproxy model remove {}` removes it", args.name)));
    }
    let edit = match &args.targets[..] {
        [target] if args.strategy.is_none() => {
            Edit::SetAlias { name: args.name.clone(), target: target.clone() }
        }
        targets => Edit::AddModel {
            name: args.name.clone(),
            targets: targets.to_vec(),
            strategy: args.strategy,
        },
    };
    edit_file::edit_config(ctx, &[edit])?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("{} → {}", args.name, args.targets.join(", ")))
}

async fn remove(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_to_change(ctx)?;
    let rows = catalog::configured_models(&file.settings);
    // A row with an error may not be among them; then the edit itself finds it.
    if !file.has_errors && !rows.iter().any(|row| row.name == name) {
        return Err(catalog::unknown_model_error(name, &rows));
    }
    prompt::confirm(ctx, &format!("remove model {name} from the config?")).await?;
    edit_file::edit_config(ctx, &[Edit::RemoveModel { name: name.to_owned() }])?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("model {name} removed"))
}

async fn forget(ctx: &CommandContext, name: Option<String>) -> Result<ExitStatus, CliError> {
    let mut models: Vec<String> = name.into_iter().collect();
    if let Some(name) = models.first() {
        let rows = catalog::configured_models(&edit_file::load_or_empty(ctx)?.settings);
        let targets = rows.into_iter().filter(|row| row.name == *name).flat_map(|row| row.targets);
        models.extend(targets.collect::<Vec<_>>());
    }
    let text = match RunningProxy::try_connect(ctx)? {
        Some(proxy) => proxy.send_action(&Action::Forget { models }).await?,
        None => {
            let now = SystemClock.unix();
            let learned = LearnedStore::open(&ctx.global.paths()?.data, now);
            let models = learned.forget(&models, now);
            ActionMessage::Forgotten { models }.to_string()
        }
    };
    ctx.print_result(&text)
}
