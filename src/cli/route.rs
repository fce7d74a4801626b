//! `aiproxy route`: explains where a request would go now and why the other candidates were
//! skipped.

use clap::Args;

use crate::{
    base::sanitize::clean,
    cli::{
        attach::RunningProxy,
        context::CommandContext,
        error::{CliError, ExitStatus},
        output::{
            self, Styler, TextRole,
            table::{TableCell, TextTable},
        },
    },
    control::route::{RouteExplainRequest, RouteExplanation},
    ir::op::Dialect,
};

pub(super) const EXAMPLES: &str = "\
Sends nothing to a provider and changes no state. The running proxy answers with its current
cooldowns.

Examples:
  aiproxy route gpt-5-mini
  aiproxy route smart --project ide --json";

#[derive(Clone, Debug, Args)]
pub struct RouteArgs {
    /// Model, as a client would request it
    model: String,
    /// Route as this project [default: default]
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Route as a client of this dialect: openai, responses, anthropic, gemini or ollama
    #[arg(long, value_name = "NAME", default_value = "openai", value_parser = parse_dialect)]
    dialect: Dialect,
}

pub(super) fn parse_dialect(name: &str) -> Result<Dialect, String> {
    Dialect::parse(name)
        .ok_or_else(|| "one of openai, responses, anthropic, gemini, ollama".to_owned())
}

/// Asks the running proxy and prints its decision.
///
/// # Errors
///
/// No proxy is running. A name that no upstream serves means exit code 1, after the explanation.
pub async fn run(ctx: &CommandContext, args: RouteArgs) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    let request = RouteExplainRequest {
        model: args.model,
        project: args.project,
        dialect: Some(args.dialect),
    };
    let answer: RouteExplanation = proxy.client.post_json("/aiproxy/v1/route", &request).await?;
    if ctx.global.json {
        output::print_json(&answer)?;
    } else {
        output::print(&render(&answer, Styler::stdout()))?;
    }
    // A temporary block of all candidates is a valid answer; a name that no upstream serves is an
    // error.
    Ok(if answer.verdict == "unknown" || answer.verdict.is_empty() {
        ExitStatus::Failed
    } else {
        ExitStatus::Ok
    })
}

fn render(answer: &RouteExplanation, styler: Styler) -> String {
    let mut text = styler.style(TextRole::Strong, &clean(&answer.requested_model));
    if let Some(by) = answer.resolved_by.as_deref().filter(|by| !by.is_empty()) {
        text.push_str(&format!(" ({})", clean(by)));
    }
    if !answer.verdict.is_empty() {
        text.push_str(&format!(": {}", clean(&answer.verdict)));
    }
    text.push('\n');
    if let Some(error) = &answer.error {
        text.push_str(&styler.style(TextRole::Error, &clean(error)));
        text.push('\n');
    }
    let mut table = TextTable::new(&["", "UPSTREAM", "KEY", "MODEL", "WHY"]);
    for (mark, role, candidate) in answer
        .chosen
        .iter()
        .map(|c| ("→", TextRole::Success, c))
        .chain(answer.others.iter().map(|c| (" ", TextRole::Plain, c)))
    {
        table.row(vec![
            TableCell::new(role, mark),
            TableCell::new(role, &candidate.upstream),
            if candidate.key.is_empty() { "–".into() } else { (&candidate.key).into() },
            (&candidate.model).into(),
            (&candidate.text).into(),
        ]);
    }
    if !table.is_empty() {
        text.push('\n');
        text.push_str(&table.render(styler));
    }
    if !answer.plan.is_empty() {
        text.push('\n');
    }
    for line in &answer.plan {
        text.push_str(&styler.style(TextRole::Dim, &clean(line)));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_is_listed_with_its_reason() {
        let answer: RouteExplanation = serde_json::from_value(serde_json::json!({
            "asked": "smart", "resolved_by": "alias smart", "verdict": "try",
            "chosen": {"upstream": "anthropic", "key": "work", "model": "claude-x", "tier": [10, 0], "why": "first of the best tier"},
            "others": [{"upstream": "openai", "key": "main", "model": "gpt", "tier": [10, 0], "why": "cooling for 41s: 429"},
                       {"upstream": "ollama", "key": "", "model": "qwen", "tier": [50, 0], "why": "lower tier"}],
            "error": null, "plan": ["strategy priority"],
        }))
        .unwrap();

        let text = render(&answer, Styler::plain());

        for part in [
            "smart (alias smart): try",
            "→  anthropic  work",
            "cooling for 41s: 429",
            "lower tier",
            "ollama     –",
            "\n\nstrategy priority\n",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
