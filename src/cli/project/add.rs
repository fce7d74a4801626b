//! `aiproxy project add`: adds a project and creates its key.

use clap::Args;

use crate::{
    cli::{
        attach, client_key,
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        prompt,
    },
    config::{edit::Edit, settings::Period},
    secrets::keyring::Keyring,
};

pub(super) const EXAMPLES: &str = "\
A project is a client identity with its own key. This command creates the key and stores it in
the OS keyring, or in a private file of the data dir if no keyring is available.

Examples:
  aiproxy project add ide
  aiproxy project add agent --models 'gpt-*,fast' --rpm 60 --budget 5/day --budget 50/month
  aiproxy project show agent --reveal            print the key for a tool's settings";

#[derive(Debug, Args)]
pub struct AddProjectArgs {
    /// Name: letters, digits, `-`, `_` and `.`
    name: String,
    /// Models it may use; patterns and !exclusions are allowed
    #[arg(long, value_name = "MODEL,…", value_delimiter = ',')]
    models: Vec<String>,
    /// Upstreams it may use
    #[arg(long, value_name = "UPSTREAM,…", value_delimiter = ',')]
    upstreams: Vec<String>,
    /// Requests per minute
    #[arg(long, value_name = "N")]
    rpm: Option<u32>,
    /// Tokens per minute
    #[arg(long, value_name = "N")]
    tpm: Option<u32>,
    /// Concurrent requests
    #[arg(long, value_name = "N")]
    max_concurrency: Option<u32>,
    /// Budget, as in 5/day: dollars per day, week, month or total; repeatable
    #[arg(long, value_name = "USD/PERIOD", value_parser = parse_budget)]
    budget: Vec<(f64, Period)>,
    /// Accept only clients from these networks, as in 192.168.1.0/24
    #[arg(long, value_name = "NET,…", value_delimiter = ',')]
    subnets: Vec<String>,
    /// Allow its key to use the control API
    #[arg(long)]
    admin: bool,
}

/// Adds the project.
///
/// # Errors
///
/// An invalid or existing name, or a config that cannot be changed.
pub(super) async fn run(
    ctx: &CommandContext,
    args: AddProjectArgs,
) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_to_change(ctx)?;
    check_name(&args.name)?;
    if file.settings.projects.iter().any(|p| *p.name == *args.name) {
        return Err(CliError::failed(format!("project `{}` already exists", args.name))
            .hint(format!("`aiproxy project set {0} KEY=VALUE` changes it, `aiproxy project rotate {0}` replaces its key", args.name)));
    }
    let settings = project_settings(&args);
    let edits = |reference: String| {
        let add = Edit::AddProject { name: args.name.clone(), key: reference };
        [vec![add], settings.clone()].concat()
    };
    // Found out before a key is made.
    edit_file::check_edit(ctx, &edits(client_key::usual_reference(&args.name, &file.paths.data)))?;
    let (secret, location) =
        client_key::create_key(&args.name, &file.paths.data, &Keyring::system()).await?;
    if let Err(error) = edit_file::edit_config(ctx, &edits(location.reference())) {
        client_key::delete_key(&args.name, &file.paths.data, &Keyring::system()).await;
        return Err(error);
    }
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!(
        "project {0} added; its key ({1}) is stored in {location}\n`eval \"$(aiproxy env {0})\"` uses it, `aiproxy project show {0} --reveal` prints it",
        args.name,
        secret.fingerprint()
    ))
}

/// Returns the settings of the new row besides its name and key.
fn project_settings(args: &AddProjectArgs) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut set = |key: &str, value| {
        edits.push(Edit::SetProject { name: args.name.clone(), path: key.to_owned(), value });
    };
    for (key, list) in
        [("models", &args.models), ("upstreams", &args.upstreams), ("subnets", &args.subnets)]
    {
        if !list.is_empty() {
            set(key, edit_file::toml_list(list));
        }
    }
    for (key, number) in
        [("rpm", args.rpm), ("tpm", args.tpm), ("max_concurrency", args.max_concurrency)]
    {
        if let Some(number) = number {
            set(key, number.to_string());
        }
    }
    if !args.budget.is_empty() {
        let each = args
            .budget
            .iter()
            .map(|(usd, per)| format!("{{ usd = {usd:?}, per = \"{}\" }}", per.name()));
        set("budget", format!("[{}]", each.collect::<Vec<_>>().join(", ")));
    }
    if args.admin {
        set("admin", "true".to_owned());
    }
    edits
}

/// Parses `5/day` or `$0.50/month`.
fn parse_budget(text: &str) -> Result<(f64, Period), String> {
    let expected = || {
        "expected dollars per period, as in 5/day; the period is day, week, month or total"
            .to_owned()
    };
    let (usd, per) = text.split_once('/').ok_or_else(expected)?;
    let usd = usd
        .trim()
        .trim_start_matches('$')
        .parse::<f64>()
        .ok()
        .filter(|usd| usd.is_finite() && *usd >= 0.0)
        .ok_or_else(expected)?;
    let (_, per) = Period::ALL.iter().find(|(name, _)| *name == per.trim()).ok_or_else(expected)?;
    Ok((usd, *per))
}

/// Checks a project's name, which is also a file name and part of a keyring entry.
fn check_name(name: &str) -> Result<(), CliError> {
    if prompt::looks_like_key(name) {
        return Err(CliError::usage("this looks like a key, not like a project name")
            .hint("give only a name; aiproxy creates the key"));
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_allowed) || name.starts_with('.')
    {
        return Err(CliError::usage(format!(
            "`{}` is not a valid project name",
            crate::base::sanitize::clean(name)
        ))
        .hint("use up to 64 letters, digits, `-`, `_` and `.`; the first is not `.`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_parsed_as_dollars_and_period() {
        assert_eq!(parse_budget("5/day"), Ok((5.0, Period::Day)));
        assert_eq!(parse_budget("$0.50/month"), Ok((0.5, Period::Month)));
        for wrong in ["5", "5/year", "x/day", "-1/day", "inf/day", "/day", ""] {
            assert!(parse_budget(wrong).is_err_and(|why| why.contains("5/day")), "{wrong}");
        }
    }
}
