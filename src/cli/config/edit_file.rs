//! Loads the config for commands and edits the config file.

use std::{collections::HashSet, sync::Arc};

use crate::{
    cli::{
        context::CommandContext,
        error::CliError,
        key::store,
        output::{self, Styler},
    },
    config::{
        Environment, IdInterner, Problem, ProblemSeverity, discover,
        edit::{self, Edit, ReadOnlyFile},
        file::{self, EditError, Paths},
        load, presets, problem,
        settings::{Settings, TuiSettings, Upstream},
        write,
    },
    secrets::{
        keyring::Keyring,
        resolve::{SecretResolver, VaultSource},
    },
};

/// The listen address used if the config cannot be read.
pub(in crate::cli) const DEFAULT_LISTEN: &str = "127.0.0.1:8642";

/// The loaded config file.
pub(in crate::cli) struct ConfigFile {
    pub(in crate::cli) paths: Paths,
    /// `None` if there is no file yet.
    pub(in crate::cli) text: Option<String>,
    /// The file's settings, without discovered upstreams.
    pub(in crate::cli) settings: Settings,
    /// The file has errors, so that `settings` are only what could be read of it.
    pub(in crate::cli) has_errors: bool,
    pub(in crate::cli) warnings: Vec<Problem>,
    pub(in crate::cli) env: Environment,
}

/// Loads the config; an explicitly named file that is missing is an error.
pub(in crate::cli) fn load(ctx: &CommandContext) -> Result<ConfigFile, CliError> {
    let file = load_or_empty(ctx)?;
    if file.text.is_none() && file.paths.explicit {
        return Err(CliError::config(format!("{}: no such file", file.paths.config.display()))
            .hint("`aiproxy config init` writes one"));
    }
    Ok(file)
}

/// Loads the config; a missing file is an empty config.
pub(in crate::cli) fn load_or_empty(ctx: &CommandContext) -> Result<ConfigFile, CliError> {
    let file = load_to_change(ctx)?;
    if file.has_errors {
        let source = file.text.as_deref().unwrap_or_default();
        return Err(invalid_config_error(&file.warnings, source, &file.paths));
    }
    Ok(file)
}

/// Loads the config for a command that changes or creates it. A file with errors is allowed,
/// because the change may be their remedy; [`edit_config`] refuses one that is not.
pub(in crate::cli) fn load_to_change(ctx: &CommandContext) -> Result<ConfigFile, CliError> {
    let paths = ctx.global.paths()?;
    let env = Environment::from_process();
    let text =
        file::read_config(&paths.config).map_err(|problem| CliError::config(problem.one_line()))?;
    let source = text.as_deref().unwrap_or_default();
    let loaded = load::load(source, &paths.config, &env, &mut IdInterner::default());
    let has_errors = loaded.settings.is_none();
    match loaded.settings.or(loaded.readable) {
        Some(settings) if edit::is_toml(source) => {
            Ok(ConfigFile { paths, settings, has_errors, warnings: loaded.problems, env, text })
        }
        _ => Err(invalid_config_error(&loaded.problems, source, &paths)),
    }
}

/// Prints all problems and builds the error that the file cannot be used.
pub(in crate::cli) fn invalid_config_error(
    problems: &[Problem],
    source: &str,
    paths: &Paths,
) -> CliError {
    output::print_note(problem::render(problems, source, Styler::stderr().is_enabled()).trim_end());
    let errors = problems.iter().filter(|problem| problem.level == ProblemSeverity::Error).count();
    CliError::config(format!(
        "{} has {errors} error{}",
        paths.config.display(),
        if errors == 1 { "" } else { "s" }
    ))
    .hint("`aiproxy config edit` opens it")
}

impl ConfigFile {
    /// The settings plus the upstreams discovered in the environment.
    pub(in crate::cli) fn with_discovered(&self) -> Settings {
        merge_discovered(&self.settings, &self.env)
    }

    /// A resolver that reads references as the proxy would, with this command's environment.
    pub(in crate::cli) fn resolver(&self) -> SecretResolver {
        let vault = VaultSource::from_env(store::vault_file(&self.paths), &self.env.vars);
        let names: HashSet<String> = presets::all()
            .iter()
            .flat_map(|preset| &preset.key_env)
            .map(ToString::to_string)
            .collect();
        SecretResolver::new(Keyring::system(), vault, self.env.vars.clone(), names)
    }
}

/// The configured listen addresses; the default if the config cannot be read.
pub(in crate::cli) fn listen_addresses(paths: &Paths) -> Vec<String> {
    let read = load_settings(paths);
    let addrs: Vec<String> =
        read.iter().flat_map(|s| &s.server.listen.addresses).map(ToString::to_string).collect();
    if addrs.is_empty() { vec![DEFAULT_LISTEN.to_owned()] } else { addrs }
}

/// The dashboard's settings; the defaults if the config cannot be read.
pub(in crate::cli) fn tui_settings(paths: &Paths) -> TuiSettings {
    load_settings(paths).map(|s| s.tui).unwrap_or_default()
}

/// The settings plus the upstreams discovered in the environment; `None` if the config cannot be
/// read. Prints nothing.
pub(in crate::cli) fn settings_with_discovered(paths: &Paths) -> Option<Settings> {
    let settings = load_settings(paths)?;
    let env = Environment::from_process();
    Some(merge_discovered(&settings, &env))
}

fn merge_discovered(settings: &Settings, env: &Environment) -> Settings {
    if !settings.discover.env {
        return settings.clone();
    }
    let (found, _) = discover::from_env(env, &mut IdInterner::default(), &settings.timeouts);
    discover::merge_discovered(settings, &found)
}

fn load_settings(paths: &Paths) -> Option<Settings> {
    let text = file::read_config(&paths.config).ok()?.unwrap_or_default();
    load::load(&text, &paths.config, &Environment::from_process(), &mut IdInterner::default())
        .settings
}

/// The upstream that a config row with only a preset defines.
pub(in crate::cli) fn upstream_from_preset(
    paths: &Paths,
    name: &str,
    preset: &str,
) -> Result<Arc<Upstream>, CliError> {
    let row =
        format!("[[upstream]]\nname = {}\npreset = {}\n", toml_string(name), toml_string(preset));
    let loaded =
        load::load(&row, &paths.config, &Environment::from_process(), &mut IdInterner::default());
    let upstream = loaded
        .settings
        .and_then(|settings| settings.upstreams.into_iter().find(|u| *u.name == *name));
    upstream.ok_or_else(|| {
        let why = loaded
            .problems
            .first()
            .map_or_else(|| "it cannot be used".to_owned(), |problem| problem.title.clone());
        CliError::failed(format!("`{name}` from the preset `{preset}`: {why}"))
    })
}

/// Changes the file atomically: all edits or none. If it still has errors, of which the change
/// removed some, they are printed.
///
/// # Errors
///
/// The result would not be a valid config (exit code 3), or the file cannot be written.
pub(in crate::cli) fn edit_config(ctx: &CommandContext, edits: &[Edit]) -> Result<(), CliError> {
    let paths = ctx.global.paths()?;
    let changed = file::edit_config(&paths.config, &Environment::from_process(), edits)
        .map_err(|error| edit_error(error, &paths))?;
    if changed.has_errors() {
        let source = file::read_config(&paths.config).ok().flatten().unwrap_or_default();
        output::print_note(&format!(
            "warning: {}; the file was changed, and these remain",
            invalid_config_error(&changed.problems, &source, &paths).text
        ));
    }
    Ok(())
}

/// Checks that the file can be changed so, before anything is stored elsewhere.
///
/// # Errors
///
/// As [`edit_config`].
pub(in crate::cli) fn check_edit(ctx: &CommandContext, edits: &[Edit]) -> Result<(), CliError> {
    let paths = ctx.global.paths()?;
    file::check_edit(&paths.config, &Environment::from_process(), edits)
        .map_err(|error| edit_error(error, &paths))
}

/// Checks that the file can be changed at all.
///
/// # Errors
///
/// It is read-only.
pub(in crate::cli) fn check_writable(ctx: &CommandContext) -> Result<(), CliError> {
    let paths = ctx.global.paths()?;
    write::check_writable(&paths.config, "", "").map_err(|error| edit_error(error, &paths))
}

/// The error of a config file that cannot be written, after the change that it needs.
pub(in crate::cli) fn read_only_error(file: &ReadOnlyFile) -> CliError {
    if file.line > 0 {
        let change = match file.lines.trim_end() {
            "" => "remove what stands there".to_owned(),
            lines => format!("write\n{lines}"),
        };
        output::print_note(&format!("the change that is needed: at line {}, {change}", file.line));
    }
    let text = format!("{}: the config file is read-only: {}", file.path.display(), file.reason);
    CliError::failed(text).hint(file.remedy.clone())
}

/// The error for a rejected change; prints every problem of the file.
pub(in crate::cli) fn edit_error(error: EditError, paths: &Paths) -> CliError {
    match error {
        EditError::Invalid { problems, source } => {
            output::print_note(
                problem::render(&problems, &source, Styler::stderr().is_enabled()).trim_end(),
            );
            CliError::config(format!(
                "{} was not changed: with this change it would not load",
                paths.config.display()
            ))
        }
        EditError::ReadOnly(file) => read_only_error(&file),
        EditError::Syntax => CliError::config(format!("{}: {error}", paths.config.display())),
        EditError::Busy(_) | EditError::Io { .. } | EditError::BadPath(_) => {
            CliError::failed(error.to_string())
        }
    }
}

/// Splits `KEY=VALUE` words.
///
/// # Errors
///
/// A word has no `=` (a usage error).
pub(in crate::cli) fn parse_assignments(
    words: &[String],
) -> Result<Vec<(String, String)>, CliError> {
    let cut = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(CliError::usage(format!(
            "`{}` is not KEY=VALUE",
            crate::base::sanitize::clean(word)
        ))
        .hint("as in priority=5")),
    };
    words.iter().map(cut).collect()
}

/// Formats a list of strings as TOML.
pub(in crate::cli) fn toml_list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| toml_string(item)).collect();
    format!("[{}]", items.join(", "))
}

/// Formats a string as TOML.
pub(in crate::cli) fn toml_string(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}
