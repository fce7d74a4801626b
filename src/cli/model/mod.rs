//! `aiproxy model`: lists and edits logical models, aliases and discovered models.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    base::{
        clock::{Clock, SystemClock},
        suggest,
    },
    cli::{
        attach::{self, RunningProxy},
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        model_facts,
        output::{
            self, Styler, TextRole,
            facts::facts_text,
            table::{TableCell, TextTable},
        },
        prompt,
    },
    config::{
        edit::Edit,
        settings::{ModelTarget, Settings, Strategy},
    },
    control::{action::Action, action_message::ActionMessage, snapshot::ModelView, views},
    pricing::PriceBook,
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
    List,
    /// Show what a name resolves to, and what is known of its models
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

/// Runs a `model` command.
///
/// # Errors
///
/// As the individual commands.
pub async fn run(ctx: &CommandContext, command: ModelCommand) -> Result<ExitStatus, CliError> {
    match command {
        ModelCommand::Add(args) => add(ctx, args).await,
        ModelCommand::Forget { name, .. } => forget(ctx, name).await,
        ModelCommand::List => list(ctx).await,
        ModelCommand::Remove { name } => remove(ctx, &name).await,
        ModelCommand::Show { name } => show(ctx, &name).await,
    }
}

async fn add(ctx: &CommandContext, args: ModelArgs) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_to_change(ctx)?;
    if configured_models(&file.settings).iter().any(|row| row.name == args.name) {
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
    let rows = configured_models(&file.settings);
    // A row with an error may not be among them; then the edit itself finds it.
    if !file.has_errors && !rows.iter().any(|row| row.name == name) {
        return Err(unknown_model_error(name, &rows));
    }
    prompt::confirm(ctx, &format!("remove model {name} from the config?")).await?;
    edit_file::edit_config(ctx, &[Edit::RemoveModel { name: name.to_owned() }])?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("model {name} removed"))
}

async fn forget(ctx: &CommandContext, name: Option<String>) -> Result<ExitStatus, CliError> {
    let mut models: Vec<String> = name.into_iter().collect();
    if let Some(name) = models.first() {
        let rows = configured_models(&edit_file::load_or_empty(ctx)?.settings);
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

fn unknown_model_error(name: &str, rows: &[ModelView]) -> CliError {
    let suggestion = suggest::nearest_few(name, rows.iter().map(|row| row.name.as_str()), 3);
    let suggestion = if suggestion.is_empty() {
        String::new()
    } else {
        format!("similar: {}; ", suggestion.join(", "))
    };
    CliError::failed(format!("no model `{name}`"))
        .hint(format!("{suggestion}`aiproxy model list` shows all"))
}

/// The running proxy's models, or those of the config.
async fn model_rows(ctx: &CommandContext) -> Result<Vec<ModelView>, CliError> {
    match RunningProxy::try_connect(ctx)? {
        Some(proxy) => Ok(proxy.snapshot().await?.models),
        None => {
            output::print_note(&format!(
                "note: {}, so only the models of the config are shown",
                attach::not_running_note(ctx).await
            ));
            Ok(configured_models(&edit_file::load(ctx)?.settings))
        }
    }
}

async fn list(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    let rows = model_rows(ctx).await?;
    if ctx.global.json {
        output::print_json(&rows)?;
    } else if rows.is_empty() {
        output::print_line("no models yet; `aiproxy model add NAME TARGET…` adds one")?;
    } else {
        let mut table = TextTable::new(&["MODEL", "KIND", "TARGETS"]);
        for row in &rows {
            table.row(vec![
                (&row.name).into(),
                TableCell::new(TextRole::Dim, &row.kind),
                row.targets.join(", ").into(),
            ]);
        }
        output::print(&table.render(Styler::stdout()))?;
    }
    Ok(ExitStatus::Ok)
}

async fn show(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let rows = model_rows(ctx).await?;
    // The config defines how the name is set up; a discovered name has no further settings.
    let settings = edit_file::load(ctx)?.settings;
    let target = direct_target(name, &settings);
    let row = rows
        .iter()
        .find(|row| row.name == name)
        .or(target.as_ref())
        .ok_or_else(|| unknown_model_error(name, &rows))?;
    let mut facts = json!({ "name": row.name, "kind": row.kind, "targets": row.targets });
    if let Some(model) = settings.models.iter().find(|model| model.name.text() == name) {
        facts["strategy"] = serde_json::to_value(model.strategy).unwrap_or(Value::Null);
        facts["targets"] = model.targets.iter().map(target_text).collect();
    }
    let learned = LearnedStore::open(&ctx.global.paths()?.data, SystemClock.unix()).repairs;
    let known = model_facts::of_targets(&settings, &learned, &row.targets);
    if ctx.global.json {
        facts["price"] = serde_json::to_value(&row.price).unwrap_or(Value::Null);
        facts["facts"] = model_facts::to_json(&known);
        output::print_json(&facts)?;
    } else {
        if let Some(price) = &row.price {
            let output = price.output.as_deref().unwrap_or("unknown");
            let text = format!(
                "{} {} in, {output} out, for a million tokens",
                price.currency, price.input
            );
            facts["price"] = text.into();
        }
        output::print(&facts_text(&facts))?;
        output::print(&model_facts::to_text(&known, Styler::stdout()))?;
        output::print_line(&format!(
            "\n`aiproxy route {name}` shows where a request would go now"
        ))?;
    }
    Ok(ExitStatus::Ok)
}

/// Returns a name of the form `upstream:model` as a target of its own.
fn direct_target(name: &str, settings: &Settings) -> Option<ModelView> {
    let (upstream, model) = name.split_once(':')?;
    let upstream = settings.upstreams.iter().find(|row| *row.name == *upstream)?;
    let prices = PriceBook::new(settings);
    let price = prices.find(upstream, model, None).map(|(_, rule)| rule.default_price());
    Some(ModelView {
        name: name.to_owned(),
        kind: "target".to_owned(),
        price: price.and_then(views::price_view),
        targets: vec![name.to_owned()],
    })
}

fn target_text(t: &ModelTarget) -> String {
    let name = t
        .upstream
        .as_ref()
        .map_or_else(|| t.model.to_string(), |upstream| format!("{upstream}:{}", t.model));
    let priority = t.priority.map(|p| format!(" priority {p}")).unwrap_or_default();
    let weight = t.weight.map(|w| format!(" weight {w}")).unwrap_or_default();
    format!("{name}{priority}{weight}")
}

/// The config's aliases and logical models, in its order.
fn configured_models(settings: &Settings) -> Vec<ModelView> {
    let models = settings.models.iter().map(|model| ModelView {
        name: model.name.text().to_owned(),
        kind: "logical".to_owned(),
        price: None,
        targets: model.targets.iter().map(target_text).collect(),
    });
    let aliases = settings.aliases.iter().map(|alias| ModelView {
        name: alias.name.text().to_owned(),
        kind: "alias".to_owned(),
        price: None,
        targets: vec![alias.target.to_string()],
    });
    models.chain(aliases).collect()
}
