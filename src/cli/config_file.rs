//! `aiproxy config`: the file itself. Shown, checked, and changed without losing a comment.

use std::{io::IsTerminal, path::Path, process::Command};

use clap::Subcommand;
use serde_json::json;

use super::{
    Ctx,
    exit::{self, CliError, Exit},
    out::{self, Paint, Role},
    prompt, reach, settings,
};
use crate::{
    base::{clean::clean, disk, near},
    config::{
        Environment, IdInterner, Problem, ProblemSeverity, check,
        edit::Edit,
        file::{self, Paths},
        keys, load, problem, show,
    },
    secrets::Reference,
};

const EXAMPLE: &str = include_str!("../../assets/config.example.toml");

const SET: &str = "\
Values are TOML; what is no TOML is text. Rows are named by their name.

Examples:
  aiproxy config set server.max_requests 256
  aiproxy config set timeouts.idle 5m
  aiproxy config set upstream.office.priority 5
  aiproxy config set aliases.fast openai:gpt-5-mini";

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print where the config file is
    Path,
    /// Write a commented example, if there is no file yet
    Init,
    /// Print every setting as it is used, defaults included
    Show,
    /// Print one setting as it is used
    Get {
        /// As in server.max_requests or upstream.office.priority
        path: String,
    },
    /// Change one setting in the file
    #[command(after_help = SET)]
    Set {
        /// As in server.max_requests or upstream.office.priority
        path: String,
        /// As it would stand in the file; quotes around text may be left out
        value: String,
    },
    /// Take one setting out of the file, so that its default applies
    Unset {
        /// As in server.max_requests or upstream.office.priority
        path: String,
    },
    /// Open the file in $VISUAL or $EDITOR; it is checked before it takes the old one's place
    Edit,
    /// Report every problem of the file: exit code 3 where it could not be used
    Check,
    /// Print the JSON schema of the file
    Schema,
}

/// Does one of the config commands.
///
/// # Errors
///
/// See each.
pub async fn run(ctx: &Ctx, command: ConfigCommand) -> Result<Exit, CliError> {
    match command {
        ConfigCommand::Check => check_all(ctx).await,
        ConfigCommand::Edit => edit(ctx).await,
        ConfigCommand::Get { path } => get(ctx, &path),
        ConfigCommand::Init => init(ctx),
        ConfigCommand::Path => path(ctx),
        ConfigCommand::Schema => {
            out::json(&keys::json_schema())?;
            Ok(Exit::Ok)
        }
        ConfigCommand::Set { path, value } => {
            let edit = Edit::Set { path: path.clone(), value };
            change(ctx, edit, &format!("{path} changed")).await
        }
        ConfigCommand::Show => show_all(ctx),
        ConfigCommand::Unset { path } => {
            let edit = Edit::Unset { path: path.clone() };
            change(ctx, edit, &format!("{path} has its default again")).await
        }
    }
}

async fn change(ctx: &Ctx, edit: Edit, done: &str) -> Result<Exit, CliError> {
    settings::edit(ctx, &[edit])?;
    reach::reload_if_running(ctx).await;
    ctx.done(done)
}

fn path(ctx: &Ctx) -> Result<Exit, CliError> {
    let place = ctx.global.place()?;
    if ctx.global.json {
        out::json(
            &json!({ "config": place.config, "exists": place.config.exists(), "data": place.data }),
        )?;
    } else {
        out::line(&place.config.display().to_string())?;
    }
    Ok(Exit::Ok)
}

fn init(ctx: &Ctx) -> Result<Exit, CliError> {
    let path = ctx.global.place()?.config;
    if path.symlink_metadata().is_ok() {
        return Err(CliError::failed(format!("{} exists already", path.display()))
            .hint("`aiproxy config edit` opens it"));
    }
    write(&path, EXAMPLE)?;
    ctx.done(&format!("{} written; `aiproxy config edit` opens it", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    // A folder that is there already keeps the mode that somebody gave it.
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        disk::create_private_dir(folder).map_err(|e| exit::at(folder, &e))?;
    }
    disk::write_atomic(path, text.as_bytes(), 0o600).map_err(|e| exit::at(path, &e))
}

/// Reports everything that is wrong with the file, then every reference that leads nowhere.
async fn check_all(ctx: &Ctx) -> Result<Exit, CliError> {
    let file = if ctx.global.json { checked_json(ctx)? } else { settings::load(ctx)? };
    let paint = Paint::stderr();
    let source = file.text.as_deref().unwrap_or_default();
    let mut warnings: Vec<String> = file.warnings.iter().map(Problem::one_line).collect();
    let mut nowhere = check::check_references(&file.settings, &file.env);
    nowhere.extend(stores(&file).await);
    if !ctx.global.json {
        if !file.warnings.is_empty() {
            out::note(problem::render(&file.warnings, source, paint.is_on()).trim_end());
        }
        for said in &nowhere {
            out::note(&format!("{} {}", paint.paint(Role::Warn, "warning:"), clean(said)));
        }
    }
    warnings.append(&mut nowhere);
    if ctx.global.json {
        out::json(&json!({ "ok": true, "problems": [], "warnings": warnings }))?;
        return Ok(Exit::Ok);
    }
    let path = file.place.config.display();
    let what = if file.text.is_some() {
        format!("{path}: ok")
    } else {
        format!("ok: there is no {path}, so the defaults apply")
    };
    out::line(&match warnings.len() {
        0 => what,
        1 => format!("{what}, 1 warning"),
        n => format!("{what}, {n} warnings"),
    })?;
    Ok(Exit::Ok)
}

/// As `settings::load`, with the problems as JSON on stdout.
fn checked_json(ctx: &Ctx) -> Result<settings::File, CliError> {
    let place = ctx.global.place()?;
    let said = |problems: &[Problem]| {
        let texts = |level| {
            problems.iter().filter(|p| p.level == level).map(Problem::one_line).collect::<Vec<_>>()
        };
        out::json(
            &json!({ "ok": false, "problems": texts(ProblemSeverity::Error), "warnings": texts(ProblemSeverity::Warning) }),
        )
    };
    let source = match file::read_config(&place.config) {
        Ok(source) => source.unwrap_or_default(),
        Err(problem) => {
            said(&[problem])?;
            return Err(CliError::quiet(Exit::Config));
        }
    };
    let loaded = load::load(
        &source,
        &place.config,
        &Environment::from_process(),
        &mut IdInterner::default(),
    );
    if loaded.settings.is_none() {
        said(&loaded.problems)?;
        return Err(CliError::quiet(Exit::Config));
    }
    settings::load(ctx)
}

/// References into the keyring and the encrypted file that lead nowhere; `cmd:` programs are not
/// run for a check.
async fn stores(file: &settings::File) -> Vec<String> {
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
    let mut said = Vec::new();
    for (whose, reference) in keys.chain(projects) {
        if matches!(reference, Reference::Keyring(_) | Reference::Vault(_))
            && let Err(error) = resolver.resolve_any_key(reference).await
        {
            said.push(format!("{whose}: {}; {}", error.text(), error.hint()));
        }
    }
    said
}

/// Opens a copy in the editor; only a text that loads takes the file's place.
async fn edit(ctx: &Ctx) -> Result<Exit, CliError> {
    let place = ctx.global.place()?;
    let before =
        file::read_config(&place.config).map_err(|problem| CliError::config(problem.one_line()))?;
    if !std::io::stdin().is_terminal() {
        return Err(CliError::failed("no terminal for an editor")
            .hint("`aiproxy config set PATH VALUE` changes one setting"));
    }
    disk::create_private_dir(&place.data).map_err(|e| exit::at(&place.data, &e))?;
    let copy = place.data.join("config.edit.toml");
    write(&copy, before.as_deref().unwrap_or(EXAMPLE))?;
    loop {
        open_editor(&copy)?;
        let text = file::read_config(&copy)
            .map_err(|problem| CliError::failed(problem.one_line()))?
            .unwrap_or_default();
        if Some(&text) == before.as_ref() {
            drop(std::fs::remove_file(&copy));
            return ctx.done("nothing was changed");
        }
        let loaded = load::load(
            &text,
            &place.config,
            &Environment::from_process(),
            &mut IdInterner::default(),
        );
        if loaded.settings.is_some() {
            take(&place, before.as_deref(), &text, &copy)?;
            if !loaded.problems.is_empty() {
                out::note(
                    problem::render(&loaded.problems, &text, Paint::stderr().is_on()).trim_end(),
                );
            }
            reach::reload_if_running(ctx).await;
            return ctx.done(&format!("{} changed", place.config.display()));
        }
        out::note(problem::render(&loaded.problems, &text, Paint::stderr().is_on()).trim_end());
        let answer = prompt::ask_line("open it again? [Y/n] ").await?;
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "n" | "no") {
            return Err(CliError::config("the config was not changed")
                .hint(format!("your text is in {}", copy.display())));
        }
    }
}

/// Puts the edited text in the file's place, unless somebody changed the file meanwhile.
fn take(place: &Paths, before: Option<&str>, text: &str, copy: &Path) -> Result<(), CliError> {
    let now =
        file::read_config(&place.config).map_err(|problem| CliError::failed(problem.one_line()))?;
    if now.as_deref() != before {
        return Err(CliError::failed(format!(
            "{} was changed by another program meanwhile",
            place.config.display()
        ))
        .hint(format!("your text is in {}", copy.display())));
    }
    // A link stays a link, and the file keeps the mode it has.
    let target = std::fs::canonicalize(&place.config).unwrap_or_else(|_| place.config.clone());
    write(&target, text)?;
    drop(std::fs::remove_file(copy));
    Ok(())
}

/// $VISUAL and $EDITOR may hold arguments, so that a shell reads them, as everywhere.
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

fn show_all(ctx: &Ctx) -> Result<Exit, CliError> {
    let text = show::to_toml(&settings::load(ctx)?.settings);
    if ctx.global.json {
        out::json(&as_json(&text)?)?;
    } else {
        out::print(&text)?;
    }
    Ok(Exit::Ok)
}

fn get(ctx: &Ctx, path: &str) -> Result<Exit, CliError> {
    let file = settings::load(ctx)?;
    let Some(text) = show::key_to_toml(&file.settings, path) else {
        let near = near::nearest(path, keys::KEYS.iter().map(|key| key.path))
            .map(|near| format!("did you mean `{near}`? "))
            .unwrap_or_default();
        return Err(CliError::failed(format!("there is no `{}` in the config", clean(path)))
            .hint(format!("{near}`aiproxy config show` prints everything")));
    };
    if ctx.global.json {
        out::json(&value_json(&text))?;
    } else {
        out::line(text.trim_end())?;
    }
    Ok(Exit::Ok)
}

/// TOML as JSON.
fn as_json(text: &str) -> Result<serde_json::Value, CliError> {
    toml::from_str(text).map_err(|e| {
        CliError::failed(format!("the settings cannot be told as JSON: {}", e.message()))
    })
}

/// One setting as JSON: a table, a list, a number; what is none of them is text.
fn value_json(text: &str) -> serde_json::Value {
    let row = toml::from_str::<serde_json::Value>(&format!("v = {}", text.trim()))
        .ok()
        .and_then(|mut row| row.get_mut("v").map(serde_json::Value::take));
    row.or_else(|| toml::from_str(text).ok()).unwrap_or_else(|| text.trim().into())
}
