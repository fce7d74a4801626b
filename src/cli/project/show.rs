//! `aiproxy project list` and `aiproxy project show`.

use serde_json::{Value, json};

use super::lookup::{self, find_project, key_reference, project_key};
use crate::{
    base::clock::{Clock, SystemClock},
    cli::{
        attach::{self, RunningProxy},
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        expose::expose_secret,
        output::{
            self, Styler, TextRole, budget_format,
            facts::{facts_text, pattern_texts},
            table::{TableCell, TextTable},
        },
    },
    config::settings::{Budget, Project},
    control::snapshot::BudgetView,
};

/// Prints the key of a project and nothing else.
pub(super) async fn key(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let key = lookup::client_key(ctx, name).await?;
    output::print_line(expose_secret(&key))?;
    Ok(ExitStatus::Ok)
}

/// Lists the projects of the config.
pub(super) async fn list(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    let file = edit_file::load(ctx)?;
    let mut rows = Vec::new();
    for p in &file.settings.projects {
        rows.push((p, key_reference(&file, p).await));
    }
    if ctx.global.json {
        output::print_json(
            &rows.iter().map(|(p, key)| project_json(p, key.as_deref())).collect::<Vec<_>>(),
        )?;
        return Ok(ExitStatus::Ok);
    }
    let mut table = TextTable::new(&[
        "PROJECT",
        "MODELS",
        "UPSTREAMS",
        "RPM",
        "TPM",
        "CONCURRENCY",
        "BUDGET",
        "SUBNETS",
        "KEY",
        "",
    ]);
    let number = |n: u32| if n == 0 { "–".to_owned() } else { n.to_string() };
    for (p, key) in &rows {
        let notes = [(p.admin, "admin"), (!p.enabled, "disabled")]
            .into_iter()
            .filter_map(|(on, word)| on.then_some(word));
        table.row(vec![
            (&*p.name).into(),
            pattern_texts(&p.models).join(" ").into(),
            pattern_texts(&p.upstreams).join(" ").into(),
            number(p.rpm).into(),
            number(p.tpm).into(),
            number(p.max_concurrency).into(),
            p.budget.iter().map(budget_text).collect::<Vec<_>>().join(", ").into(),
            p.subnets
                .iter()
                .map(|s| format!("{}/{}", s.addr, s.bits))
                .collect::<Vec<_>>()
                .join(" ")
                .into(),
            TableCell::new(TextRole::Dim, key.as_deref().unwrap_or("created at first use")),
            notes.collect::<Vec<_>>().join(" ").into(),
        ]);
    }
    output::print(&table.render(Styler::stdout()))?;
    Ok(ExitStatus::Ok)
}

fn project_json(p: &Project, key: Option<&str>) -> Value {
    json!({
        "name": &*p.name,
        "key": key,
        "models": pattern_texts(&p.models),
        "upstreams": pattern_texts(&p.upstreams),
        "rpm": p.rpm,
        "tpm": p.tpm,
        "max_concurrency": p.max_concurrency,
        "budget": p.budget.iter().map(budget_text).collect::<Vec<_>>().join(", "),
        "subnets": p.subnets.iter().map(|s| format!("{}/{}", s.addr, s.bits)).collect::<Vec<_>>(),
        "admin": p.admin,
        "enabled": p.enabled,
    })
}

/// `$5 per day`
fn budget_text(budget: &Budget) -> String {
    format!("{} per {}", budget.usd.format_short(), budget.period.name())
}

/// The current usage of the project's budgets and the global budgets, if a proxy is running.
async fn project_budgets(ctx: &CommandContext, name: &str) -> Result<Vec<BudgetView>, CliError> {
    let Some(proxy) = RunningProxy::try_connect(ctx)? else { return Ok(Vec::new()) };
    let mut budgets = proxy.snapshot().await?.budgets;
    budgets.retain(|budget| budget.holder == "all" || budget.holder == format!("project {name}"));
    Ok(budgets)
}

/// Shows one project, with its key if the user asks for it.
///
/// # Errors
///
/// No such project, or a key to be shown that cannot be read.
pub(super) async fn show(
    ctx: &CommandContext,
    name: &str,
    revealed: bool,
) -> Result<ExitStatus, CliError> {
    let file = edit_file::load(ctx)?;
    let project = find_project(&file, name)?;
    let mut facts = project_json(project, key_reference(&file, project).await.as_deref());
    match project_key(ctx, &file, project).await {
        Ok((secret, location)) => {
            facts["key"] = location.into();
            facts["fingerprint"] = (*secret.fingerprint()).into();
            if revealed {
                facts["client_key"] = expose_secret(&secret).into();
            }
        }
        // The user asked for the key, so there is nothing to show without it.
        Err(error) if revealed => return Err(error),
        Err(error) => output::print_note(&format!("warning: the key cannot be read: {error}")),
    }
    let budgets = project_budgets(ctx, name).await?;
    if ctx.global.json {
        facts["budgets"] = budgets.iter().map(budget_format::budget_json).collect();
        output::print_json(&facts)?;
        return Ok(ExitStatus::Ok);
    }
    // As in the list, a limit of 0 means no limit and is shown as a dash.
    for limit in ["rpm", "tpm", "max_concurrency"] {
        if facts[limit] == 0 {
            facts[limit] = "–".into();
        }
    }
    output::print(&facts_text(&facts))?;
    if !budgets.is_empty() {
        output::print(&format!(
            "\n{}",
            budget_format::render_table(
                &budgets.iter().collect::<Vec<_>>(),
                SystemClock.unix(),
                Styler::stdout()
            )
        ))?;
    }
    if revealed {
        let base = attach::base_url(ctx).await?;
        output::print(&format!(
            "\nopenai          {base}/v1\nanthropic       {base}\ngemini          {base}\nollama          {base}\n"
        ))?;
    } else {
        output::print_line(&format!("\n`aiproxy project show {name} --reveal` prints the key"))?;
    }
    Ok(ExitStatus::Ok)
}
