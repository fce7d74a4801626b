//! `aiproxy route`: where a request would go now, and the reason every other candidate lost.

use clap::Args;

use super::{
    Ctx,
    exit::{CliError, Exit},
    out::{self, Paint, Role},
    reach::Reach,
    table::{Cell, Table},
};
use crate::{
    base::clean::clean,
    control::route::{RouteExplainRequest, RouteExplanation},
    ir::op::Dialect,
};

pub(super) const EXAMPLES: &str = "\
Nothing is sent to a provider and no state changes. The running proxy answers, with the
cooldowns of this moment.

Examples:
  aiproxy route gpt-5-mini
  aiproxy route smart --project ide --json";

#[derive(Clone, Debug, Args)]
pub struct RouteArgs {
    /// The name a client would ask for
    model: String,
    /// As this project [default: default]
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// As a client of this dialect: openai, responses, anthropic, gemini or ollama
    #[arg(long, value_name = "NAME", default_value = "openai", value_parser = dialect)]
    dialect: Dialect,
}

pub(super) fn dialect(name: &str) -> Result<Dialect, String> {
    Dialect::parse(name)
        .ok_or_else(|| "one of openai, responses, anthropic, gemini, ollama".to_owned())
}

/// Asks the running proxy and prints its decision.
///
/// # Errors
///
/// None runs. A name that nobody serves is exit code 1, after the explanation.
pub async fn run(ctx: &Ctx, args: RouteArgs) -> Result<Exit, CliError> {
    let reach = Reach::find(ctx).await?;
    let question = RouteExplainRequest {
        model: args.model,
        project: args.project,
        dialect: Some(args.dialect),
    };
    let answer: RouteExplanation = reach.client.post_json("/aiproxy/v1/route", &question).await?;
    if ctx.global.json {
        out::json(&answer)?;
    } else {
        out::print(&show(&answer, Paint::stdout()))?;
    }
    // That everything is blocked just now is an answer; that nobody serves the name is a mistake.
    Ok(if answer.verdict == "unknown" || answer.verdict.is_empty() {
        Exit::Failed
    } else {
        Exit::Ok
    })
}

fn show(answer: &RouteExplanation, paint: Paint) -> String {
    let mut text = paint.paint(Role::Strong, &clean(&answer.requested_model));
    if let Some(by) = answer.resolved_by.as_deref().filter(|by| !by.is_empty()) {
        text.push_str(&format!(" ({})", clean(by)));
    }
    if !answer.verdict.is_empty() {
        text.push_str(&format!(": {}", clean(&answer.verdict)));
    }
    text.push('\n');
    if let Some(error) = &answer.error {
        text.push_str(&paint.paint(Role::Bad, &clean(error)));
        text.push('\n');
    }
    let mut table = Table::new(&["", "UPSTREAM", "KEY", "MODEL", "WHY"]);
    for (mark, role, candidate) in answer
        .chosen
        .iter()
        .map(|c| ("→", Role::Good, c))
        .chain(answer.others.iter().map(|c| (" ", Role::Plain, c)))
    {
        table.row(vec![
            Cell::new(role, mark),
            Cell::new(role, &candidate.upstream),
            if candidate.key.is_empty() { "–".into() } else { (&candidate.key).into() },
            (&candidate.model).into(),
            (&candidate.reason).into(),
        ]);
    }
    if !table.is_empty() {
        text.push('\n');
        text.push_str(&table.show(paint));
    }
    if !answer.plan.is_empty() {
        text.push('\n');
    }
    for line in &answer.plan {
        text.push_str(&paint.paint(Role::Dim, &clean(line)));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loser_stands_there_with_its_reason() {
        let answer: RouteExplanation = serde_json::from_value(serde_json::json!({
            "asked": "smart", "resolved_by": "alias smart", "verdict": "try",
            "chosen": {"upstream": "anthropic", "key": "work", "model": "claude-x", "tier": [10, 0], "why": "first of the best tier"},
            "others": [{"upstream": "openai", "key": "main", "model": "gpt", "tier": [10, 0], "why": "cooling for 41s: 429"},
                       {"upstream": "ollama", "key": "", "model": "qwen", "tier": [50, 0], "why": "lower tier"}],
            "error": null, "plan": ["strategy priority"],
        }))
        .unwrap();

        let text = show(&answer, Paint::none());

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
