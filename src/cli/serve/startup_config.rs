//! Reads the config file at startup and applies the command-line arguments to it.

use crate::{
    base::clock::{Clock, SystemClock},
    cli::{
        error::CliError,
        output,
        serve::{args::ServeArgs, process},
        tools::import::foreign_config_error,
    },
    config::{
        Environment, IdInterner, Settings,
        file::{self, Paths},
        load::{self, parse_listen},
        problem,
        settings::ListenAddresses,
    },
    control::snapshot::ConfigView,
};

/// The config as loaded at startup.
pub(super) struct LoadedConfig {
    pub settings: Settings,
    pub config_view: ConfigView,
}

/// Loads the config file. Without a file, the defaults apply.
///
/// # Errors
///
/// The file is named explicitly and missing, cannot be read, or has errors, which are printed.
pub(super) fn read_config(
    paths: &Paths,
    env: &Environment,
    ids: &mut IdInterner,
) -> Result<LoadedConfig, CliError> {
    let text =
        file::read_config(&paths.config).map_err(|problem| CliError::config(problem.one_line()))?;
    if text.is_none() && paths.explicit {
        return Err(CliError::config(format!(
            "{}: no such file; `aiproxy config init` writes one",
            paths.config.display()
        )));
    }
    let source = text.clone().unwrap_or_default();
    let loaded = load::load(&source, &paths.config, env, ids);
    let Some(settings) = loaded.settings else {
        if let Some(error) = foreign_config_error(&paths.config, &source) {
            return Err(error);
        }
        output::print_note(&problem::render(
            &loaded.problems,
            &source,
            output::Styler::stderr().is_enabled(),
        ));
        return Err(CliError::config(format!(
            "{} has errors; nothing was started",
            paths.config.display()
        ))
        .hint("`aiproxy config edit` opens it, `aiproxy config check` checks it"));
    };
    let view = ConfigView {
        path: text.is_some().then(|| paths.config.display().to_string()),
        problems: Vec::new(),
        annotated: String::new(),
        warnings: loaded.problems.iter().map(problem::Problem::one_line).collect(),
        applied: SystemClock.unix(),
        needs_restart: false,
    };
    Ok(LoadedConfig { settings, config_view: view })
}

/// Applies the command-line arguments on top of the settings.
///
/// # Errors
///
/// An invalid `--listen` (a usage error).
pub(super) fn apply_arguments(
    mut settings: Settings,
    args: &ServeArgs,
) -> Result<Settings, CliError> {
    if !args.listen.is_empty() {
        let (mut addrs, mut optional) = (Vec::new(), false);
        for text in &args.listen {
            let (more, v6) =
                parse_listen(text).map_err(|e| CliError::usage(format!("--listen {text}: {e}")))?;
            addrs.extend(more);
            optional |= v6;
        }
        if !settings.server.auth && addrs.iter().any(|addr| !addr.ip().is_loopback()) {
            return Err(CliError::usage(
                "--listen: an address that others can reach needs `auth = true` under [server]",
            ));
        }
        settings.server.listen = ListenAddresses { addresses: addrs, optional_v6: optional };
    }
    if args.demo {
        settings.upstreams.clear();
        settings.models.clear();
        settings.aliases.clear();
    }
    if settings.server.max_buffered.is_none() {
        settings.server.max_buffered = Some(process::buffer_limit());
    }
    Ok(settings)
}
