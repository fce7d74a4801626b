//! Checks the config file.

use crate::{
    cli::{config::edit_file::ConfigFile, tools::import},
    config::{
        Environment, IdInterner, ProblemSeverity,
        file::{self, Paths},
        load,
        settings::Settings,
    },
};

use super::check::Check;

const CHECK: &str = "config";

/// Checks the file, and returns what could be read of it.
pub(super) fn check(paths: &Paths, checks: &mut Vec<Check>) -> ConfigFile {
    let env = Environment::from_process();
    let shown = paths.config.display().to_string();
    let text = file::read_config(&paths.config).unwrap_or_else(|problem| {
        checks.push(Check::fail(
            CHECK,
            &shown,
            problem.one_line(),
            format!("make it readable: `chmod 600 {shown}`, as its owner"),
        ));
        None
    });
    let source = text.as_deref().unwrap_or_default();
    let loaded = load::load(source, &paths.config, &env, &mut IdInterner::default());
    let has_errors = loaded.settings.is_none();
    let settings = loaded.settings.or(loaded.readable).unwrap_or_default();
    if text.is_none() && paths.explicit {
        checks.push(Check::fail(CHECK, &shown, "no such file", "`aiproxy config init` writes one"));
    } else if let Some(error) =
        has_errors.then(|| import::foreign_config_error(&paths.config, source)).flatten()
    {
        checks.push(Check::fail(CHECK, &shown, error.text, error.hint.unwrap_or_default()));
    } else {
        for problem in &loaded.problems {
            let help = problem.help.as_deref().map(|help| format!("{help}; "));
            let fix = format!("{}`aiproxy config edit`", help.unwrap_or_default());
            let new = match problem.level {
                ProblemSeverity::Error => Check::fail,
                _ => Check::warn,
            };
            checks.push(new(CHECK, "", problem.one_line(), fix));
        }
        if !has_errors {
            checks.push(summary(text.is_some(), &shown, &settings));
        }
    }
    let (text, warnings, paths) = (text.clone(), loaded.problems, paths.clone());
    ConfigFile { paths, text, settings, has_errors, warnings, env }
}

fn summary(exists: bool, shown: &str, settings: &Settings) -> Check {
    if !exists {
        let text = "no file yet; the defaults count";
        return Check::ok(CHECK, shown, text);
    }
    let text = format!(
        "valid; upstreams: {}, models: {}, projects: {}",
        settings.upstreams.len(),
        settings.models.len() + settings.aliases.len(),
        settings.configured_projects
    );
    Check::ok(CHECK, shown, text)
}
