//! `aiproxy upstream`: manages the provider endpoints of the config and shows discovered ones.

mod show;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    base::{
        clock::{Clock, SystemClock},
        suggest, units,
    },
    cli::{
        attach::{self, RunningProxy},
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        key::{
            self, AddArgs, KeyCommand,
            verify::{self, KeyVerdict},
        },
        output::{
            self, Styler, TextRole,
            table::{TableCell, TextTable},
        },
        prompt, status,
    },
    config::{
        edit::Edit,
        presets,
        settings::{Auth, Settings, Upstream},
    },
    control::action::Action,
    ir::op::Dialect,
};

const ADD: &str = "\
A preset fills in URL, dialect and everything else that is known of a provider;
`aiproxy upstream presets` lists them.

Examples:
  aiproxy upstream add gemini
  aiproxy upstream add office --preset openai --base-url https://ai.example.com/v1
  aiproxy upstream add box --base-url http://192.168.1.5/v1 --dialect openai --models 'qwen*'
  pass show corp | aiproxy upstream add corp --base-url https://corp/v1 --dialect openai --stdin";

const SET: &str = "\
Values are TOML; what is no TOML is text. The keys are those of [[upstream]] in the config
(`aiproxy config schema`).

Examples:
  aiproxy upstream set office priority=5 max_concurrency=8
  aiproxy upstream set office 'models=[\"qwen*\"]' timeouts.first_byte=30s";

#[derive(Debug, Subcommand)]
pub enum UpstreamCommand {
    /// Add an upstream to the config
    #[command(after_help = ADD)]
    Add(UpstreamArgs),
    /// List upstreams from the config and discovered ones
    List,
    /// Show everything about an upstream
    Show {
        /// Upstream name
        name: String,
    },
    /// Change settings of an upstream
    #[command(after_help = SET)]
    Set {
        /// Upstream name
        name: String,
        /// Settings, as in priority=5
        #[arg(required = true, value_name = "KEY=VALUE")]
        values: Vec<String>,
    },
    /// Remove an upstream from the config; its keys stay in the keyring
    Remove {
        /// Upstream name
        name: String,
    },
    /// Enable an upstream
    Enable {
        /// Upstream name
        name: String,
    },
    /// Disable an upstream
    Disable {
        /// Upstream name
        name: String,
    },
    /// Test an upstream with each of its keys
    Test {
        /// Upstream name
        name: String,
    },
    /// Put an upstream on cooldown
    Cool {
        /// Upstream name
        name: String,
        /// Duration: 30s, 10m, 1h [default: 10m]
        #[arg(long = "for", value_name = "SPAN", value_parser = units::parse_duration)]
        span: Option<Duration>,
    },
    /// End the cooldowns of an upstream and its keys
    Warm {
        /// Upstream name
        name: String,
    },
    /// List the provider presets
    Presets,
}

#[derive(Debug, Args)]
pub struct UpstreamArgs {
    /// Name in the config, and before the `/` of its keys
    name: String,
    /// Provider preset [default: the one of that name, unless --base-url is given]
    #[arg(long, value_name = "PRESET")]
    preset: Option<String>,
    /// URL of its API
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// API dialect: openai, responses, anthropic, gemini or ollama
    #[arg(long, value_name = "NAME", value_parser = crate::cli::route::parse_dialect)]
    dialect: Option<Dialect>,
    /// Models it serves; patterns are allowed [default: the models it lists]
    #[arg(long, value_name = "MODEL,…", value_delimiter = ',')]
    models: Vec<String>,
    /// Priority; lower is tried first
    #[arg(long, value_name = "N")]
    priority: Option<u32>,
    /// Read its key from standard input and store it as `aiproxy key add` does
    #[arg(long)]
    stdin: bool,
    /// Store the key without testing it
    #[arg(long, requires = "stdin")]
    no_check: bool,
}

/// Runs an `upstream` command.
///
/// # Errors
///
/// As the individual commands.
pub async fn run(ctx: &CommandContext, command: UpstreamCommand) -> Result<ExitStatus, CliError> {
    match command {
        UpstreamCommand::Add(args) => Box::pin(add(ctx, args)).await,
        UpstreamCommand::Cool { name, span } => {
            let for_ms = span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
            send_upstream_action(ctx, &name, |upstream| Action::CoolUpstream { upstream, for_ms })
                .await
        }
        UpstreamCommand::Disable { name } => set_enabled(ctx, &name, false).await,
        UpstreamCommand::Enable { name } => set_enabled(ctx, &name, true).await,
        UpstreamCommand::List => list(ctx).await,
        UpstreamCommand::Presets => list_presets(ctx),
        UpstreamCommand::Remove { name } => remove(ctx, &name).await,
        UpstreamCommand::Set { name, values } => set(ctx, &name, &values).await,
        UpstreamCommand::Show { name } => show::run(ctx, &name).await,
        UpstreamCommand::Test { name } => test_upstream(ctx, &name).await,
        UpstreamCommand::Warm { name } => {
            send_upstream_action(ctx, &name, |upstream| Action::WarmUpstream { upstream }).await
        }
    }
}

async fn add(ctx: &CommandContext, args: UpstreamArgs) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_or_empty(ctx)?;
    if prompt::looks_like_key(&args.name) {
        return Err(CliError::usage("that looks like a key, not like the name of an upstream")
            .hint("aiproxy key add UPSTREAM asks for the key"));
    }
    if file.settings.upstreams.iter().any(|u| *u.name == *args.name) {
        return Err(CliError::failed(format!("there is an upstream `{}` already", args.name))
            .hint(format!("`aiproxy upstream set {} KEY=VALUE` changes it", args.name)));
    }
    let preset = match (&args.preset, &args.base_url) {
        (Some(preset), _) => Some(preset.clone()),
        (None, None) => Some(args.name.clone()),
        (None, Some(_)) => None,
    };
    if let Some(preset) = preset.as_deref().filter(|preset| presets::find(preset).is_none()) {
        let near = suggest::nearest(preset, presets::all().iter().map(|p| &*p.name))
            .map(|n| format!("did you mean `{n}`? "))
            .unwrap_or_default();
        return Err(CliError::failed(format!("no preset `{preset}`"))
            .hint(format!("{near}Another provider needs --base-url and --dialect")));
    }
    let dialects: Vec<String> = args.dialect.iter().map(|d| d.name().to_owned()).collect();
    let mut edits = vec![Edit::AddUpstream {
        name: args.name.clone(),
        preset,
        base_url: args.base_url,
        dialects,
    }];
    let mut set = |key: &str, value| {
        edits.push(Edit::SetUpstream { name: args.name.clone(), path: key.to_owned(), value });
    };
    if !args.models.is_empty() {
        set("models", edit_file::toml_list(&args.models));
    }
    if let Some(priority) = args.priority {
        set("priority", priority.to_string());
    }
    edit_file::edit_config(ctx, &edits)?;
    if args.stdin {
        return key::run(ctx, KeyCommand::Add(AddArgs::from_stdin(&args.name, args.no_check)))
            .await;
    }
    attach::reload_if_running(ctx).await;
    let file = edit_file::load(ctx)?;
    let added = file.settings.upstreams.iter().find(|u| *u.name == *args.name);
    let keyless = added.is_some_and(|u| u.auth != Auth::None && u.keys.is_empty());
    let next = if keyless {
        format!("; `aiproxy key add {}` gives it a key", args.name)
    } else {
        String::new()
    };
    ctx.print_result(&format!("upstream {} added{next}", args.name))
}

async fn send_upstream_action(
    ctx: &CommandContext,
    name: &str,
    action: impl FnOnce(String) -> Action,
) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    let snapshot = proxy.snapshot().await?;
    ensure_known(name, snapshot.upstreams.iter().map(|u| u.name.as_str()))?;
    let text = proxy.send_action(&action(name.to_owned())).await?;
    ctx.print_result(&text)
}

/// Returns an error with the nearest name if there is no such upstream.
pub(super) fn ensure_known<'a>(
    name: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), CliError> {
    if names.clone().any(|known| known == name) {
        return Ok(());
    }
    let near = suggest::nearest(name, names)
        .map(|near| format!("did you mean `{near}`? "))
        .unwrap_or_default();
    Err(CliError::failed(format!("no upstream `{name}`"))
        .hint(format!("{near}`aiproxy upstream list` shows all")))
}

async fn test_upstream(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    let snapshot = proxy.snapshot().await?;
    ensure_known(name, snapshot.upstreams.iter().map(|u| u.name.as_str()))?;
    let keys: Vec<String> = snapshot
        .keys
        .iter()
        .filter(|k| k.upstream == name)
        .map(|k| format!("{}/{}", k.upstream, k.label))
        .collect();
    if keys.is_empty() {
        return test_without_key(ctx, name).await;
    }
    let mut exit = ExitStatus::Ok;
    for key in keys {
        let reply = proxy.client.send_action(&Action::Test { key: key.clone() }).await?;
        if !reply.ok {
            exit = ExitStatus::Failed;
        }
        if ctx.global.json {
            output::print_json_line(&json!({ "key": key, "ok": reply.ok, "text": reply.text }))?;
        } else {
            output::print_line(&crate::base::sanitize::clean(&reply.text))?;
        }
    }
    Ok(exit)
}

/// Tests an upstream that needs no key, directly from this process.
async fn test_without_key(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let settings = edit_file::load(ctx)?.with_discovered();
    let Some(upstream) = settings.upstreams.iter().find(|u| *u.name == *name) else {
        return Err(CliError::failed(format!("`{name}` has no keys to try"))
            .hint(format!("`aiproxy upstream show {name}` tells its state")));
    };
    match verify::check_key(upstream, None).await {
        KeyVerdict::Good { models } => {
            let models = models.map(|n| format!(", {n} models")).unwrap_or_default();
            ctx.print_result(&format!("{name} answers{models}"))
        }
        KeyVerdict::Rejected { status, message: said } => {
            Err(CliError::failed(format!("{name} wants a key (status {status}): {said}"))
                .hint(format!("`aiproxy key add {name}` gives it one")))
        }
        KeyVerdict::Unknown(why) => Err(CliError::failed(format!("{name}: {why}"))),
    }
}

/// Checks that the name is in the file. A discovered upstream has no row to change.
fn ensure_in_file(file: &edit_file::ConfigFile, name: &str) -> Result<(), CliError> {
    let merged = file.with_discovered();
    if !file.settings.upstreams.iter().any(|u| *u.name == *name)
        && let Some(found) = merged.upstreams.iter().find(|u| *u.name == *name)
    {
        return Err(CliError::failed(format!(
            "`{name}` was found ({}) and is not in the config",
            status::origin_name(found.origin)
        ))
        .hint(format!("`aiproxy upstream add {name}` writes it there")));
    }
    ensure_known(name, file.settings.upstreams.iter().map(|u| &*u.name))
}

async fn set_enabled(ctx: &CommandContext, name: &str, on: bool) -> Result<ExitStatus, CliError> {
    ensure_in_file(&edit_file::load(ctx)?, name)?;
    edit_file::edit_config(
        ctx,
        &[Edit::SetUpstreamEnabled { name: name.to_owned(), enabled: on }],
    )?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("{name} is {}", if on { "enabled" } else { "disabled" }))
}

async fn set(ctx: &CommandContext, name: &str, values: &[String]) -> Result<ExitStatus, CliError> {
    ensure_in_file(&edit_file::load(ctx)?, name)?;
    let set = |(path, value)| Edit::SetUpstream { name: name.to_owned(), path, value };
    edit_file::edit_config(
        ctx,
        &edit_file::parse_assignments(values)?.into_iter().map(set).collect::<Vec<_>>(),
    )?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("upstream {name} changed"))
}

async fn remove(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    ensure_in_file(&edit_file::load(ctx)?, name)?;
    prompt::confirm(ctx, &format!("remove upstream {name} from the config?")).await?;
    edit_file::edit_config(ctx, &[Edit::RemoveUpstream { name: name.to_owned() }])?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("upstream {name} removed; its keys stay where they are"))
}

async fn list(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    if let Some(proxy) = RunningProxy::try_connect(ctx)? {
        let upstreams = proxy.snapshot().await?.upstreams;
        if ctx.global.json {
            output::print_json(&upstreams.iter().map(status::upstream_json).collect::<Vec<_>>())?;
        } else {
            output::print(&status::upstreams_table(
                &upstreams,
                SystemClock.unix(),
                Styler::stdout(),
            ))?;
        }
        return Ok(ExitStatus::Ok);
    }
    let settings = edit_file::load(ctx)?.with_discovered();
    if ctx.global.json {
        output::print_json(
            &settings.upstreams.iter().map(|u| configured_json(u)).collect::<Vec<_>>(),
        )?;
    } else if settings.upstreams.is_empty() {
        output::print_line(
            "no upstreams but the built-in `demo`; `aiproxy key add UPSTREAM` or `aiproxy upstream add NAME` adds one",
        )?;
    } else {
        output::print(&configured_table(&settings, Styler::stdout()))?;
    }
    Ok(ExitStatus::Ok)
}

fn configured_json(u: &Upstream) -> Value {
    json!({
        "name": &*u.name,
        "dialect": u.endpoints.first().map(|end| end.dialect),
        "origin": u.origin,
        "state": if u.enabled { Value::Null } else { "disabled".into() },
        "cause": null,
        "until": null,
    })
}

fn configured_table(settings: &Settings, styler: Styler) -> String {
    let mut table = TextTable::new(&["UPSTREAM", "DIALECT", "FROM", "KEYS", "URL", ""]);
    for u in &settings.upstreams {
        table.row(vec![
            (&*u.name).into(),
            u.endpoints.iter().map(|end| end.dialect.name()).collect::<Vec<_>>().join(",").into(),
            status::origin_name(u.origin).into(),
            u.keys.len().to_string().into(),
            u.endpoints.first().map_or("", |end| end.base_url.as_str()).into(),
            if u.enabled { "".into() } else { TableCell::new(TextRole::Dim, "disabled") },
        ]);
    }
    table.render(styler)
}

fn list_presets(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    if ctx.global.json {
        let rows: Vec<_> = presets::all()
            .iter()
            .map(|p| {
                json!({
                    "name": &*p.name,
                    "title": p.title,
                    "dialects": p.endpoints.iter().map(|end| end.dialect).collect::<Vec<_>>(),
                    "base_url": p.endpoints.first().map(|end| &end.base_url),
                    "key_env": p.key_env.iter().map(|name| &**name).collect::<Vec<_>>(),
                    "key_page": p.key_page.as_deref(),
                    "needs_url": p.needs_url,
                    "needs_key": p.needs_key(),
                })
            })
            .collect();
        output::print_json(&rows)?;
        return Ok(ExitStatus::Ok);
    }
    let mut table =
        TextTable::new(&["PRESET", "PROVIDER", "DIALECTS", "KEY VARIABLE", "KEYS FROM"]);
    for p in presets::all() {
        table.row(vec![
            (&*p.name).into(),
            (&p.title).into(),
            p.endpoints.iter().map(|end| end.dialect.name()).collect::<Vec<_>>().join(",").into(),
            p.key_env.first().map_or("", |name| &**name).into(),
            TableCell::new(TextRole::Dim, p.key_page.as_deref().unwrap_or("")),
        ]);
    }
    output::print(&table.render(Styler::stdout()))?;
    Ok(ExitStatus::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        let error = ensure_known("opneai", ["groq", "openai"].into_iter()).unwrap_err();
        assert!(error.hint.unwrap().contains("`openai`"));
    }
}
