//! Prints what an import would change, has changed, and could not take over.

use serde_json::json;

use crate::{
    base::sanitize::clean,
    cli::{
        context::CommandContext,
        error::CliError,
        key::store::KeyStore,
        output,
        tools::import::{draft::Draft, formats::Format, plan::Plan, source::ImportSource},
    },
    config::edit,
};

/// Prints the rows that would be added, and what has no equal.
///
/// # Errors
///
/// Standard output is closed.
pub(super) fn print_plan(
    ctx: &CommandContext,
    format: Format,
    source: &ImportSource,
    draft: &Draft,
    plan: &Plan<'_>,
) -> Result<(), CliError> {
    if ctx.global.json {
        return output::print_json_line(&to_json(format, draft, plan));
    }
    output::print_line(&format!("# {}: {}", source.path.display(), format.title()))?;
    if plan.edits.is_empty() {
        output::print_line("# all of it is in the config already")?;
    } else {
        // The edits only add rows, so they can be shown without the rest of the config.
        let rows = edit::apply_edits("", &plan.edits).unwrap_or_default();
        output::print_line(rows.trim_end())?;
    }
    print_unequal(source, draft, plan);
    Ok(())
}

/// Prints what was imported, and what has no equal.
///
/// # Errors
///
/// Standard output is closed.
pub(super) fn print_result(
    ctx: &CommandContext,
    format: Format,
    source: &ImportSource,
    draft: &Draft,
    plan: &Plan<'_>,
    store: Option<&KeyStore>,
) -> Result<(), CliError> {
    if ctx.global.json {
        return output::print_json_line(&to_json(format, draft, plan));
    }
    print_unequal(source, draft, plan);
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let parts = [
        count(plan.upstreams.len(), "upstream"),
        count(plan.models.len(), "model name"),
        count(plan.projects.len(), "project"),
    ];
    let title = format!("{}: {}", source.path.display(), format.title());
    if plan.edits.is_empty() {
        return output::print_line(&format!("{title}: everything was in the config already"));
    }
    let keys = match (plan.puts.len(), store) {
        (0, _) | (_, None) => String::new(),
        (n, Some(store)) => format!("; {} stored in {}", count(n, "key"), store.display_name()),
    };
    output::print_line(&format!("{title}: {}{keys}", parts.join(", ")))?;
    output::print_line("`aiproxy config check` checks it, `aiproxy serve` runs it")
}

/// Prints other names, what stays, and what has no equal, with its line in the file.
pub(super) fn print_unequal(source: &ImportSource, draft: &Draft, plan: &Plan<'_>) {
    for (from, to) in &plan.renamed {
        output::print_note(&format!("{} is called {} here", clean(from), clean(to)));
    }
    for (name, why) in &plan.kept {
        output::print_note(&format!("{}: {why}", clean(name)));
    }
    if draft.unequal.is_empty() {
        return;
    }
    output::print_note("without an equal here:");
    for one in &draft.unequal {
        let place = match one.line {
            0 => source.path.display().to_string(),
            line => format!("{}:{line}", source.path.display()),
        };
        output::print_note(&format!("  {place}: {}: {}", clean(&one.name), clean(&one.reason)));
    }
}

fn to_json(format: Format, draft: &Draft, plan: &Plan<'_>) -> serde_json::Value {
    let unequal = draft.unequal.iter().map(|one| {
        let line = (one.line > 0).then_some(one.line);
        json!({ "name": one.name, "reason": one.reason, "line": line })
    });
    let kept = plan.kept.iter().map(|(name, why)| json!({ "name": name, "reason": why }));
    let renamed = plan.renamed.iter().map(|(from, to)| json!({ "from": from, "to": to }));
    json!({
        "format": format.name(),
        "upstreams": plan.upstreams,
        "models": plan.models,
        "projects": plan.projects,
        "unequal": unequal.chain(kept).collect::<Vec<_>>(),
        "renamed": renamed.collect::<Vec<_>>(),
        "changed": !plan.edits.is_empty(),
    })
}
