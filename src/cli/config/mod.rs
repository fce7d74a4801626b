//! `aiproxy config`: shows, checks and changes the config file; changes preserve its comments.

pub mod edit_file;

use std::{io::IsTerminal, path::Path, process::Command};

use clap::Subcommand;
use serde_json::json;

use crate::{
    base::{fs, sanitize::clean, suggest},
    cli::{
        attach,
        context::CommandContext,
        error::{self, CliError, ExitStatus},
        output::{self, Styler, TextRole},
        prompt,
    },
    config::{
        Environment, IdInterner, Problem, ProblemSeverity,
        edit::Edit,
        file::{self, Paths},
        keys, load, problem, to_toml, validate, write,
    },
    secrets::Reference,
};

const EXAMPLE_CONFIG: &str = include_str!("../../../assets/config.example.toml");

const SET: &str = "\
Values are TOML; what is no TOML is text. Rows are named by their name.

Examples:
  aiproxy config set server.max_requests 256
  aiproxy config set timeouts.idle 5m
  aiproxy config set upstream.office.priority 5
  aiproxy config set aliases.fast openai:gpt-5-mini";

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the path of the config file
    Path,
    /// Write a commented example if there is no file yet
    Init,
    /// Print every effective setting, defaults included
    Show,
    /// Print one effective setting
    Get {
        /// Path, as in server.max_requests or upstream.office.priority
        path: String,
    },
    /// Change one setting in the file
    #[command(after_help = SET)]
    Set {
        /// Path, as in server.max_requests or upstream.office.priority
        path: String,
        /// Value as written in the file; quotes around text are optional
        value: String,
    },
    /// Remove one setting from the file; its default applies
    Unset {
        /// Path, as in server.max_requests or upstream.office.priority
        path: String,
    },
    /// Edit the file in $VISUAL or $EDITOR; it is replaced only if the result is valid
    Edit,
    /// Report every problem in the file; exit with code 3 if the file cannot be used
    Check,
    /// Print the JSON schema of the file
    Schema,
}

/// Runs a `config` command.
///
/// # Errors
///
/// As the individual commands.
pub async fn run(ctx: &CommandContext, command: ConfigCommand) -> Result<ExitStatus, CliError> {
    match command {
        ConfigCommand::Check => check_config(ctx).await,
        ConfigCommand::Edit => edit_in_editor(ctx).await,
        ConfigCommand::Get { path } => get_setting(ctx, &path),
        ConfigCommand::Init => init(ctx),
        ConfigCommand::Path => print_path(ctx),
        ConfigCommand::Schema => {
            output::print_json(&keys::json_schema())?;
            Ok(ExitStatus::Ok)
        }
        ConfigCommand::Set { path, value } => {
            let edit = Edit::Set { path: path.clone(), value };
            apply_edit(ctx, edit, &format!("{path} changed")).await
        }
        ConfigCommand::Show => show_all(ctx),
        ConfigCommand::Unset { path } => {
            let edit = Edit::Unset { path: path.clone() };
            apply_edit(ctx, edit, &format!("{path} has its default again")).await
        }
    }
}

async fn apply_edit(ctx: &CommandContext, edit: Edit, done: &str) -> Result<ExitStatus, CliError> {
    edit_file::edit_config(ctx, &[edit])?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(done)
}

fn print_path(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    let paths = ctx.global.paths()?;
    if ctx.global.json {
        output::print_json(
            &json!({ "config": paths.config, "exists": paths.config.exists(), "data": paths.data }),
        )?;
    } else {
        output::print_line(&paths.config.display().to_string())?;
    }
    Ok(ExitStatus::Ok)
}

fn init(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    let path = ctx.global.paths()?.config;
    if path.symlink_metadata().is_ok() {
        return Err(CliError::failed(format!("{} exists already", path.display()))
            .hint("`aiproxy config edit` opens it"));
    }
    write_config(&path, EXAMPLE_CONFIG)?;
    ctx.print_result(&format!("{} written; `aiproxy config edit` opens it", path.display()))
}

fn write_config(path: &Path, text: &str) -> Result<(), CliError> {
    // An existing folder keeps its mode.
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        fs::create_private_dir(folder).map_err(|e| error::path_error(folder, &e))?;
    }
    fs::write_atomic(path, text.as_bytes(), 0o600).map_err(|e| error::path_error(path, &e))
}

/// Reports every problem in the file, then every reference that does not resolve.
async fn check_config(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    let file = if ctx.global.json { load_reporting_json(ctx)? } else { edit_file::load(ctx)? };
    let styler = Styler::stderr();
    let source = file.text.as_deref().unwrap_or_default();
    let mut warnings: Vec<String> = file.warnings.iter().map(Problem::one_line).collect();
    let mut nowhere = validate::check_references(&file.settings, &file.env);
    nowhere.extend(unresolved_stored_keys(&file).await);
    if !ctx.global.json {
        if !file.warnings.is_empty() {
            output::print_note(
                problem::render(&file.warnings, source, styler.is_enabled()).trim_end(),
            );
        }
        for warning in &nowhere {
            output::print_note(&format!(
                "{} {}",
                styler.style(TextRole::Warn, "warning:"),
                clean(warning)
            ));
        }
    }
    warnings.append(&mut nowhere);
    if ctx.global.json {
        output::print_json(&json!({ "ok": true, "problems": [], "warnings": warnings }))?;
        return Ok(ExitStatus::Ok);
    }
    let path = file.paths.config.display();
    let what = if file.text.is_some() {
        format!("{path}: ok")
    } else {
        format!("ok: there is no {path}, so the defaults apply")
    };
    output::print_line(&match warnings.len() {
        0 => what,
        1 => format!("{what}, 1 warning"),
        n => format!("{what}, {n} warnings"),
    })?;
    Ok(ExitStatus::Ok)
}

/// Like `edit_file::load`, but prints the problems as JSON on stdout.
fn load_reporting_json(ctx: &CommandContext) -> Result<edit_file::ConfigFile, CliError> {
    let paths = ctx.global.paths()?;
    let print_problems = |problems: &[Problem]| {
        let texts = |level| {
            problems.iter().filter(|p| p.level == level).map(Problem::one_line).collect::<Vec<_>>()
        };
        output::print_json(
            &json!({ "ok": false, "problems": texts(ProblemSeverity::Error), "warnings": texts(ProblemSeverity::Warning) }),
        )
    };
    let source = match file::read_config(&paths.config) {
        Ok(source) => source.unwrap_or_default(),
        Err(problem) => {
            print_problems(&[problem])?;
            return Err(CliError::quiet(ExitStatus::Config));
        }
    };
    let loaded = load::load(
        &source,
        &paths.config,
        &Environment::from_process(),
        &mut IdInterner::default(),
    );
    if loaded.settings.is_none() {
        print_problems(&loaded.problems)?;
        return Err(CliError::quiet(ExitStatus::Config));
    }
    edit_file::load(ctx)
}

/// References into the keyring and the encrypted file that do not resolve. A check does not run
/// `cmd:` programs.
async fn unresolved_stored_keys(file: &edit_file::ConfigFile) -> Vec<String> {
    let resolver = file.resolver();
    let keys = file
        .settings
        .upstreams
        .iter()
        .filter(|u| u.enabled)
        .flat_map(|u| &u.keys)
        .filter(|k| k.enabled);
    let keys = keys.map(|k| (format!("key `{}`", k.name), &k.reference));
    let projects = file
        .settings
        .projects
        .iter()
        .filter_map(|p| Some((format!("key of project `{}`", p.name), p.key.as_ref()?)));
    let mut problems = Vec::new();
    for (owner, reference) in keys.chain(projects) {
        if matches!(reference, Reference::Keyring(_) | Reference::Vault(_))
            && let Err(error) = resolver.resolve_any_key(reference).await
        {
            problems.push(format!("{owner}: {}; {}", error.text(), error.hint()));
        }
    }
    problems
}

/// Opens a copy in the editor. The copy replaces the file only if it loads.
async fn edit_in_editor(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    let paths = ctx.global.paths()?;
    let before =
        file::read_config(&paths.config).map_err(|problem| CliError::config(problem.one_line()))?;
    if !std::io::stdin().is_terminal() {
        return Err(CliError::failed("no terminal for an editor")
            .hint("`aiproxy config set PATH VALUE` changes one setting"));
    }
    edit_file::check_writable(ctx)?;
    fs::create_private_dir(&paths.data).map_err(|e| error::path_error(&paths.data, &e))?;
    let copy = paths.data.join("config.edit.toml");
    write_config(&copy, before.as_deref().unwrap_or(EXAMPLE_CONFIG))?;
    loop {
        open_editor(&copy)?;
        let text = file::read_config(&copy)
            .map_err(|problem| CliError::failed(problem.one_line()))?
            .unwrap_or_default();
        if Some(&text) == before.as_ref() {
            drop(std::fs::remove_file(&copy));
            return ctx.print_result("nothing was changed");
        }
        let loaded = load::load(
            &text,
            &paths.config,
            &Environment::from_process(),
            &mut IdInterner::default(),
        );
        if loaded.settings.is_some() {
            replace_config(&paths, before.as_deref(), &text, &copy)?;
            if !loaded.problems.is_empty() {
                output::print_note(
                    problem::render(&loaded.problems, &text, Styler::stderr().is_enabled())
                        .trim_end(),
                );
            }
            attach::reload_if_running(ctx).await;
            return ctx.print_result(&format!("{} changed", paths.config.display()));
        }
        output::print_note(
            problem::render(&loaded.problems, &text, Styler::stderr().is_enabled()).trim_end(),
        );
        let answer = prompt::ask_line("open it again? [Y/n] ").await?;
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "n" | "no") {
            return Err(CliError::config("the config was not changed")
                .hint(format!("your text is in {}", copy.display())));
        }
    }
}

/// Replaces the file with the edited text, unless another process changed the file in the meantime.
fn replace_config(
    paths: &Paths,
    before: Option<&str>,
    text: &str,
    copy: &Path,
) -> Result<(), CliError> {
    let now =
        file::read_config(&paths.config).map_err(|problem| CliError::failed(problem.one_line()))?;
    if now.as_deref() != before {
        return Err(CliError::failed(format!(
            "{} was changed by another program meanwhile",
            paths.config.display()
        ))
        .hint(format!("your text is in {}", copy.display())));
    }
    // Write through a symlink and preserve the file's mode.
    match std::fs::canonicalize(&paths.config) {
        Ok(target) => {
            write::replace(&target, text).map_err(|e| error::path_error(&target, &e))?;
        }
        Err(_) => write_config(&paths.config, text)?,
    }
    drop(std::fs::remove_file(copy));
    Ok(())
}

/// $VISUAL and $EDITOR may contain arguments, so a shell parses them, as in other tools.
fn open_editor(path: &Path) -> Result<(), CliError> {
    let named = ["VISUAL", "EDITOR"]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty());
    let status = if cfg!(windows) {
        Command::new(named.unwrap_or_else(|| "notepad".into())).arg(path).status()
    } else {
        let mut line = named.unwrap_or_else(|| "vi".into());
        line.push(" \"$1\"");
        Command::new("sh").arg("-c").arg(line).arg("sh").arg(path).status()
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CliError::failed(format!("the editor ended with {status}"))
            .hint(format!("your text is in {}", path.display()))),
        Err(error) => Err(CliError::failed(format!("the editor did not start: {error}"))
            .hint("set VISUAL or EDITOR")),
    }
}

fn show_all(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    let text = to_toml::to_toml(&edit_file::load(ctx)?.settings);
    if ctx.global.json {
        output::print_json(&toml_to_json(&text)?)?;
    } else {
        output::print(&text)?;
    }
    Ok(ExitStatus::Ok)
}

fn get_setting(ctx: &CommandContext, path: &str) -> Result<ExitStatus, CliError> {
    let file = edit_file::load(ctx)?;
    let Some(text) = to_toml::key_to_toml(&file.settings, path) else {
        let near = suggest::nearest(path, keys::all().map(|key| key.path.as_str()))
            .map(|near| format!("did you mean `{near}`? "))
            .unwrap_or_default();
        return Err(CliError::failed(format!("there is no `{}` in the config", clean(path)))
            .hint(format!("{near}`aiproxy config show` prints everything")));
    };
    if ctx.global.json {
        output::print_json(&setting_to_json(&text))?;
    } else {
        output::print_line(text.trim_end())?;
    }
    Ok(ExitStatus::Ok)
}

/// Converts TOML to JSON.
fn toml_to_json(text: &str) -> Result<serde_json::Value, CliError> {
    toml::from_str(text).map_err(|e| {
        CliError::failed(format!("cannot write the settings as JSON: {}", e.message()))
    })
}

/// Converts one setting to JSON. Text that is not a table, a list or a number becomes a string.
fn setting_to_json(text: &str) -> serde_json::Value {
    let row = toml::from_str::<serde_json::Value>(&format!("v = {}", text.trim()))
        .ok()
        .and_then(|mut row| row.get_mut("v").map(serde_json::Value::take));
    row.or_else(|| toml::from_str(text).ok()).unwrap_or_else(|| text.trim().into())
}
