//! `aiproxy route`: where a request would go now, and the reason every other candidate lost.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{
    Ctx,
    exit::{CliError, Exit},
    out::{self, Paint, Role},
    reach::Reach,
    table::{Cell, Table},
};
use crate::{base::clean::clean, ir::op::Dialect};

pub(super) const EXAMPLES: &str = "\
Nothing is sent to a provider and no state changes. The running proxy answers, with the cooldowns of this moment.

Examples:
  aiproxy route gpt-5-mini
  aiproxy route smart --project ide --json";

#[derive(Clone, Debug, Args)]
pub struct RouteArgs {
    /// The name a client would ask for
    model: String,
    /// As this project
    #[arg(long, value_name = "NAME", default_value = "default")]
    project: String,
    /// As a client of this dialect: openai, responses, anthropic, gemini or ollama
    #[arg(long, value_name = "NAME", default_value = "openai", value_parser = dialect)]
    dialect: Dialect,
}

pub(super) fn dialect(name: &str) -> Result<Dialect, String> {
    Dialect::parse(name).ok_or_else(|| "one of openai, responses, anthropic, gemini, ollama".to_owned())
}

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    project: &'a str,
    dialect: Dialect,
}

/// The proxy's answer, as it is printed with `--json`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Answer {
    asked: String,
    resolved_by: Option<String>,
    verdict: String,
    chosen: Option<Candidate>,
    others: Vec<Candidate>,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Candidate {
    upstream: String,
    key: Option<String>,
    model: String,
    why: String,
}

/// Asks the running proxy and prints its decision.
///
/// # Errors
///
/// None runs. A name that goes nowhere is exit code 1, after the explanation.
pub async fn run(ctx: &Ctx, args: RouteArgs) -> Result<Exit, CliError> {
    let reach = Reach::find(ctx).await?;
    let question = Question { model: &args.model, project: &args.project, dialect: args.dialect };
    let answer: Answer = reach.client.post_json("/aiproxy/v1/route", &question).await?;
    if ctx.global.json {
        out::json(&answer)?;
    } else {
        out::print(&show(&answer, Paint::stdout()))?;
    }
    Ok(if answer.chosen.is_none() && answer.error.is_some() { Exit::Failed } else { Exit::Ok })
}

fn show(answer: &Answer, paint: Paint) -> String {
    let mut text = paint.paint(Role::Strong, &clean(&answer.asked));
    if let Some(by) = answer.resolved_by.as_deref().filter(|by| !by.is_empty()) {
        text.push_str(&format!("  by {}", clean(by)));
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
    for (mark, role, candidate) in
        answer.chosen.iter().map(|c| ("→", Role::Good, c)).chain(answer.others.iter().map(|c| (" ", Role::Plain, c)))
    {
        table.row(vec![
            Cell::new(role, mark),
            Cell::new(role, &candidate.upstream),
            candidate.key.as_deref().filter(|key| !key.is_empty()).unwrap_or("–").into(),
            (&candidate.model).into(),
            (&candidate.why).into(),
        ]);
    }
    if !table.is_empty() {
        text.push('\n');
        text.push_str(&table.show(paint));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loser_stands_there_with_its_reason() {
        let answer: Answer = serde_json::from_value(serde_json::json!({
            "asked": "smart", "resolved_by": "alias smart", "verdict": "try",
            "chosen": {"upstream": "anthropic", "key": "work", "model": "claude-x", "why": "first of the best tier"},
            "others": [{"upstream": "openai", "key": "main", "model": "gpt", "why": "cooling for 41s: 429"},
                       {"upstream": "ollama", "key": null, "model": "qwen", "why": "lower tier"}],
        }))
        .unwrap();

        let text = show(&answer, Paint::none());

        for part in ["smart  by alias smart: try", "→  anthropic  work", "cooling for 41s: 429", "lower tier", "ollama     –"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
