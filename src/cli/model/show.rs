//! `aiproxy model show`: everything that is known of one name.

use serde_json::{Value, json};

use crate::{
    base::clock::{Clock, SystemClock},
    cli::{
        context::CommandContext,
        error::{CliError, ExitStatus},
        model::{
            catalog::{self, ModelCatalog},
            filter::CommonFacts,
            list, targets,
        },
        model_facts,
        output::{self, Styler, facts::facts_text},
    },
};

/// Prints what a name resolves to.
///
/// # Errors
///
/// No such name, or the config cannot be read.
pub(super) async fn run(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let catalog = ModelCatalog::read(ctx).await?;
    let row = catalog.find(name)?;
    let mut facts = json!({ "name": row.name, "kind": row.kind, "targets": row.targets });
    // The config defines how the name is set up; a discovered name has no further settings.
    if let Some(model) = catalog.settings.models.iter().find(|model| model.name.text() == name) {
        facts["strategy"] = serde_json::to_value(model.strategy).unwrap_or(Value::Null);
        facts["targets"] = model.targets.iter().map(catalog::target_text).collect();
    }
    let known = catalog.facts(&row.targets);
    let common = CommonFacts::join(&known, row.targets.len());
    let details = targets::of_targets(&catalog, &row.targets);
    if ctx.global.json {
        facts["price"] = serde_json::to_value(&row.price).unwrap_or(Value::Null);
        facts["limits"] = json!({ "context": common.context, "max_output": common.max_output });
        facts["states"] = targets::to_json(&details);
        facts["facts"] = model_facts::to_json(&known);
        output::print_json(&facts)?;
        return Ok(ExitStatus::Ok);
    }
    if let Some(price) = &row.price {
        let output = price.output.as_deref().unwrap_or("unknown");
        let text =
            format!("{} {} in, {output} out, for a million tokens", price.currency, price.input);
        facts["price"] = text.into();
    }
    let limits: Vec<String> = [(common.context, "context"), (common.max_output, "output")]
        .into_iter()
        .filter_map(|(count, what)| Some(format!("{} tokens {what}", list::tokens(count?))))
        .collect();
    facts["limits"] = limits.join(", ").into();
    let styler = Styler::stdout();
    output::print(&facts_text(&facts))?;
    output::print(&targets::to_text(&details, SystemClock.unix(), styler))?;
    output::print(&model_facts::to_text(&known, styler))?;
    output::print_line(&format!("\n`aiproxy route {name}` shows where a request would go now"))?;
    Ok(ExitStatus::Ok)
}
