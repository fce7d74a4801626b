//! `aiproxy project`: manages client identities and the keys that clients send.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    base::{
        clock::{Clock, SystemClock},
        pattern::Patterns,
        suggest,
    },
    cli::{
        attach::{self, RunningProxy},
        client_key,
        config::edit_file::{self, ConfigFile},
        context::CommandContext,
        error::{CliError, ExitStatus},
        expose::expose_secret,
        key::remove::delete_entry,
        output::{
            self, Styler, TextRole, budget_format,
            facts::facts_text,
            table::{TableCell, TextTable},
        },
        prompt,
    },
    config::{
        edit::Edit,
        settings::{Budget, Period, Project},
    },
    control::snapshot::BudgetView,
    secrets::{Reference, Secret, keyring::Keyring},
};

const ADD: &str = "\
A project is a client identity with a key of its own, which is made here and kept in the OS
keyring (or, where none answers, in a private file of the data dir).

Examples:
  aiproxy project add ide
  aiproxy project add agent --models 'gpt-*,fast' --rpm 60 --budget 5/day --budget 50/month
  aiproxy project show agent --reveal            the key, for a tool's settings";

const SET: &str = "\
Values are TOML; what is no TOML is text. The keys are those of [[project]] in the config.

Examples:
  aiproxy project set ide rpm=120
  aiproxy project set ide 'budget={ usd = 5, per = \"day\" }'
  aiproxy project set agent 'models=[\"gpt-*\", \"!*-pro\"]'";

#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Add a project and create its key
    #[command(after_help = ADD)]
    Add(ProjectArgs),
    /// List projects and what they may use
    List,
    /// Show a project and the fingerprint of its key
    Show {
        /// Project name
        #[arg(default_value = "default")]
        name: String,
        /// Print the key itself
        #[arg(long)]
        reveal: bool,
    },
    /// Change settings of a project
    #[command(after_help = SET)]
    Set {
        /// Project name
        name: String,
        /// Settings, as in rpm=120
        #[arg(required = true, value_name = "KEY=VALUE")]
        values: Vec<String>,
    },
    /// Remove a project from the config and its key from the keyring
    Remove {
        /// Project name
        name: String,
    },
    /// Create a new key; the old one stops working immediately
    Rotate {
        /// Project name
        #[arg(default_value = "default")]
        name: String,
    },
}

#[derive(Debug, Args)]
pub struct ProjectArgs {
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
    /// Client networks it accepts, as in 192.168.1.0/24
    #[arg(long, value_name = "NET,…", value_delimiter = ',')]
    subnets: Vec<String>,
    /// Allow it to control the proxy
    #[arg(long)]
    admin: bool,
}

/// Runs a `project` command.
///
/// # Errors
///
/// As the individual commands.
pub async fn run(ctx: &CommandContext, command: ProjectCommand) -> Result<ExitStatus, CliError> {
    match command {
        ProjectCommand::Add(args) => add(ctx, args).await,
        ProjectCommand::List => list(ctx).await,
        ProjectCommand::Remove { name } => remove(ctx, &name).await,
        ProjectCommand::Rotate { name } => rotate(ctx, &name).await,
        ProjectCommand::Set { name, values } => set(ctx, &name, &values).await,
        ProjectCommand::Show { name, reveal } => show(ctx, &name, reveal).await,
    }
}

/// The key that a project's clients send.
///
/// # Errors
///
/// The project does not exist, it is disabled, or its reference does not resolve.
pub(super) async fn client_key(ctx: &CommandContext, name: &str) -> Result<Secret, CliError> {
    let file = edit_file::load(ctx)?;
    let project = find_project(&file, name)?;
    if !project.enabled {
        return Err(CliError::failed(format!("project `{name}` is disabled"))
            .hint("name another project, or `aiproxy project set` it enabled=true"));
    }
    project_key(&file, project).await.map(|(secret, _)| secret)
}

fn find_project<'a>(file: &'a ConfigFile, name: &str) -> Result<&'a Project, CliError> {
    let projects = &file.settings.projects;
    projects.iter().find(|p| *p.name == *name).map(|p| &**p).ok_or_else(|| {
        let near = suggest::nearest(name, projects.iter().map(|p| &*p.name))
            .map(|near| format!("did you mean `{near}`? "))
            .unwrap_or_default();
        CliError::failed(format!("no project `{name}`"))
            .hint(format!("{near}`aiproxy project add {name}` makes one"))
    })
}

/// The key and a description of its location.
async fn project_key(file: &ConfigFile, project: &Project) -> Result<(Secret, String), CliError> {
    match &project.key {
        Some(reference) => {
            let secret = file
                .resolver()
                .resolve_any_key(reference)
                .await
                .map_err(|e| CliError::failed(e.text()).hint(e.hint()))?;
            Ok((secret, reference.to_string()))
        }
        None => {
            let (secret, location) =
                client_key::default_client_key(&file.paths, &Keyring::system()).await?;
            Ok((secret, location.reference()))
        }
    }
}

async fn add(ctx: &CommandContext, args: ProjectArgs) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_or_empty(ctx)?;
    check_name(&args.name)?;
    if file.settings.projects.iter().any(|p| *p.name == *args.name) {
        return Err(CliError::failed(format!("there is a project `{}` already", args.name))
            .hint(format!("`aiproxy project set {0} KEY=VALUE` changes it, `aiproxy project rotate {0}` gives it a new key", args.name)));
    }
    let (secret, location) =
        client_key::create_key(&args.name, &file.paths.data, &Keyring::system()).await?;
    let mut edits = vec![Edit::AddProject { name: args.name.clone(), key: location.reference() }];
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
    if let Err(error) = edit_file::edit_config(ctx, &edits) {
        client_key::delete_key(&args.name, &file.paths.data, &Keyring::system()).await;
        return Err(error);
    }
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!(
        "project {0} added; its key ({1}) is kept in {location}\n`eval \"$(aiproxy env {0})\"` uses it, `aiproxy project show {0} --reveal` prints it",
        args.name,
        secret.fingerprint()
    ))
}

/// Parses `5/day` or `$0.50/month`.
fn parse_budget(text: &str) -> Result<(f64, Period), String> {
    let form = || {
        "write dollars and a period, as in 5/day; a period is day, week, month or total".to_owned()
    };
    let (usd, per) = text.split_once('/').ok_or_else(form)?;
    let usd = usd
        .trim()
        .trim_start_matches('$')
        .parse::<f64>()
        .ok()
        .filter(|usd| usd.is_finite() && *usd >= 0.0)
        .ok_or_else(form)?;
    let (_, per) = Period::ALL.iter().find(|(name, _)| *name == per.trim()).ok_or_else(form)?;
    Ok((usd, *per))
}

/// Checks a project's name, which is also a file name and part of a keyring entry.
fn check_name(name: &str) -> Result<(), CliError> {
    if prompt::looks_like_key(name) {
        return Err(CliError::usage("that looks like a key, not like the name of a project")
            .hint("the key is made for you"));
    }
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fine) || name.starts_with('.') {
        return Err(CliError::usage(format!(
            "`{}` is no name for a project",
            crate::base::sanitize::clean(name)
        ))
        .hint("letters, digits, `-`, `_` and `.`, at most 64"));
    }
    Ok(())
}

async fn list(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
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
        "AT ONCE",
        "BUDGET",
        "FROM",
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
            TableCell::new(TextRole::Dim, key.as_deref().unwrap_or("made at first use")),
            notes.collect::<Vec<_>>().join(" ").into(),
        ]);
    }
    output::print(&table.render(Styler::stdout()))?;
    Ok(ExitStatus::Ok)
}

fn pattern_texts(patterns: &Patterns) -> Vec<String> {
    patterns
        .include
        .iter()
        .map(|p| p.text().to_owned())
        .chain(patterns.exclude.iter().map(|p| format!("!{}", p.text())))
        .collect()
}

/// The key's reference; `None` if the key of the implicit project has not been created yet.
async fn key_reference(file: &ConfigFile, p: &Project) -> Option<String> {
    match &p.key {
        Some(reference) => Some(reference.to_string()),
        None => client_key::find_default_key(&file.paths, &Keyring::system())
            .await
            .ok()
            .flatten()
            .map(|(_, location)| location.reference()),
    }
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

/// `$5.000 per day`
fn budget_text(budget: &Budget) -> String {
    format!("{} per {}", budget.usd, budget.period.name())
}

/// The current usage of the project's budgets and the global budgets, if a proxy is running.
async fn project_budgets(ctx: &CommandContext, name: &str) -> Result<Vec<BudgetView>, CliError> {
    let Some(proxy) = RunningProxy::try_connect(ctx)? else { return Ok(Vec::new()) };
    let mut budgets = proxy.snapshot().await?.budgets;
    budgets.retain(|budget| budget.holder == "all" || budget.holder == format!("project {name}"));
    Ok(budgets)
}

async fn show(ctx: &CommandContext, name: &str, revealed: bool) -> Result<ExitStatus, CliError> {
    let file = edit_file::load(ctx)?;
    let project = find_project(&file, name)?;
    let mut facts = project_json(project, key_reference(&file, project).await.as_deref());
    match project_key(&file, project).await {
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

async fn set(ctx: &CommandContext, name: &str, values: &[String]) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_or_empty(ctx)?;
    let mut edits = Vec::new();
    // The implicit project has no row to change yet.
    if find_project(&file, name)?.key.is_none() {
        let (_, location) = client_key::default_client_key(&file.paths, &Keyring::system()).await?;
        edits.push(Edit::AddProject { name: name.to_owned(), key: location.reference() });
    }
    edits.extend(
        edit_file::parse_assignments(values)?.into_iter().map(|(path, value)| Edit::SetProject {
            name: name.to_owned(),
            path,
            value,
        }),
    );
    edit_file::edit_config(ctx, &edits)?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("project {name} changed"))
}

async fn remove(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let file = edit_file::load(ctx)?;
    let project = find_project(&file, name)?;
    let Some(key) = &project.key else {
        return Err(CliError::failed("the project `default` is there by itself")
            .hint("`aiproxy project set default enabled=false` turns it off"));
    };
    prompt::confirm(ctx, &format!("remove project {name} and its key?")).await?;
    edit_file::edit_config(ctx, &[Edit::RemoveProject { name: name.to_owned() }])?;
    if is_generated_key(&file, name, key) {
        match key {
            // Opening the encrypted file may require a passphrase, so the prompt appears only if
            // that file contains the key.
            Reference::Vault(_) => drop(delete_entry(&file, key).await),
            _ => client_key::delete_key(name, &file.paths.data, &Keyring::system()).await,
        }
    }
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("project {name} removed"))
}

/// Returns whether aiproxy generated the key. Keys stored elsewhere are the user's to change.
fn is_generated_key(file: &ConfigFile, name: &str, reference: &Reference) -> bool {
    match reference {
        Reference::Keyring(label) | Reference::Vault(label) => *label == format!("client/{name}"),
        Reference::File(path) => path.starts_with(&file.paths.data),
        Reference::Command(_) | Reference::Env(_) | Reference::Literal(_) => false,
    }
}

async fn rotate(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let file = edit_file::load(ctx)?;
    let project = find_project(&file, name)?;
    match &project.key {
        Some(key)
            if !is_generated_key(&file, name, key) && !matches!(key, Reference::Literal(_)) =>
        {
            return Err(CliError::failed(format!(
                "the key of project `{name}` is kept in {key}, which is not ours to change"
            ))
            .hint(format!("change it there, or `aiproxy config unset project.{name}.key` first")));
        }
        _ => {}
    }
    prompt::confirm(
        ctx,
        &format!("make a new key for project {name}? Tools that hold the old one stop working"),
    )
    .await?;
    let (secret, location) =
        client_key::create_key(name, &file.paths.data, &Keyring::system()).await?;
    let now = location.reference();
    if project.key.as_ref().is_some_and(|key| key.to_string() != now) {
        edit_file::edit_config(
            ctx,
            &[Edit::SetProject {
                name: name.to_owned(),
                path: "key".to_owned(),
                value: edit_file::toml_string(&now),
            }],
        )?;
    }
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!(
        "project {name} has a new key ({}), kept in {location}",
        secret.fingerprint()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_dollars_and_a_period() {
        assert_eq!(parse_budget("5/day"), Ok((5.0, Period::Day)));
        assert_eq!(parse_budget("$0.50/month"), Ok((0.5, Period::Month)));
        for wrong in ["5", "5/year", "x/day", "-1/day", "inf/day", "/day", ""] {
            assert!(parse_budget(wrong).is_err_and(|why| why.contains("5/day")), "{wrong}");
        }
    }
}
