//! `aiproxy doctor`: checks what can be in the way of a request, and names the command that mends it.

mod address;
mod check;
mod config;
mod environment;
mod files;
mod keyring;
mod upstream;
mod verdict;

use serde_json::json;

use crate::{
    base::sanitize::clean,
    cli::{
        context::CommandContext,
        error::{CliError, ExitStatus},
        output::{self, Styler, TextRole},
    },
    control::rundir::RunDir,
};

use check::{Check, CheckState};

pub(in crate::cli) const EXAMPLES: &str = "\
Looks at the config, keyring, ports, network, proxy variables, clock, data dir, disk,
permissions, ledger, and at each upstream and key with free calls only: the list of models.
What only a paid call could prove is named; `aiproxy ask` makes one. Changes nothing, and needs
no running proxy. Exits with code 1 if a check fails.

Examples:
  aiproxy doctor
  aiproxy doctor --json | jq '.checks[] | select(.state != \"ok\")'";

/// Runs all checks and prints a line for each.
///
/// # Errors
///
/// No data dir, or standard output is closed. A check that fails is exit code 1.
pub async fn run(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    let paths = ctx.global.paths()?;
    let running = RunDir::find_running(&paths.data);
    let mut checks = Vec::new();
    let file = config::check(&paths, &mut checks);
    let settings = file.with_discovered();
    address::check(&paths, &settings, running.as_ref(), &mut checks);
    environment::check_proxies(&file.env, &mut checks);
    files::check(&file, running.is_some(), &mut checks);
    let obstacle = keyring::check(&file.settings, &mut checks).await;
    let answers = upstream::check(&settings, &file.resolver(), obstacle, &mut checks).await;
    environment::check_clock(&answers, &mut checks);
    environment::check_tools(&file.env, &settings, running.as_ref(), &paths.data, &mut checks);
    print(ctx, &checks)?;
    let ok = checks.iter().all(|check| check.state != CheckState::Fail);
    Ok(if ok { ExitStatus::Ok } else { ExitStatus::Failed })
}

fn print(ctx: &CommandContext, checks: &[Check]) -> Result<(), CliError> {
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let failed = count(CheckState::Fail);
    if ctx.global.json {
        return output::print_json(&json!({ "ok": failed == 0, "checks": checks }));
    }
    let styler = Styler::stdout();
    for check in checks {
        let (word, role) = match check.state {
            CheckState::Ok => ("ok  ", TextRole::Success),
            CheckState::Warn => ("warn", TextRole::Warn),
            CheckState::Fail => ("fail", TextRole::Error),
        };
        let subject = match check.subject.as_str() {
            "" => String::new(),
            subject => format!(" {}", clean(subject)),
        };
        let fix = check.fix.as_ref().map(|fix| format!("; fix: {}", clean(fix)));
        output::print_line(&format!(
            "{}  {}{subject}: {}{}",
            styler.style(role, word),
            check.check,
            clean(&check.text),
            fix.unwrap_or_default()
        ))?;
    }
    let summary = match (failed, count(CheckState::Warn)) {
        (0, 0) => "all is well".to_owned(),
        (0, warnings) => format!("nothing fails; warnings: {warnings}"),
        (failed, warnings) => format!("failed: {failed}, warnings: {warnings}"),
    };
    output::print_line(&summary)
}
