//! What the service runs, independent of the system that runs it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    cli::{
        config::edit_file,
        context::CommandContext,
        error::{self, CliError},
    },
    config::{Environment, file::Paths},
    secrets::{Reference, resolve::PASSPHRASE_FILE},
};

/// Time after `server.drain` in which the process ends.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// The service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Definition {
    /// The program, absolute.
    pub(super) program: PathBuf,
    /// Its arguments, beginning with `serve`.
    pub(super) args: Vec<String>,
    /// Folders that it writes to.
    pub(super) writable: Vec<PathBuf>,
    /// Variables that it needs; none of them is confidential.
    pub(super) variables: Vec<(String, String)>,
    /// A file with `NAME=VALUE` lines, which need not exist.
    pub(super) variables_file: PathBuf,
    /// How long it may take to stop.
    pub(super) stop_timeout: Duration,
    /// Variables that contain keys of the config; the service has not those of a shell.
    pub(super) key_variables: Vec<String>,
}

impl Definition {
    /// Describes the service for the config and data of this command.
    ///
    /// # Errors
    ///
    /// The config is invalid, or the program's own path is unknown.
    pub(super) fn of(ctx: &CommandContext) -> Result<Self, CliError> {
        let file = edit_file::load_or_empty(ctx)?;
        let settings = &file.settings;
        let paths = absolute(&file.paths)?;
        let program = std::env::current_exe().map_err(|error| {
            CliError::failed(format!("the path of aiproxy is unknown: {error}"))
        })?;
        let text = |path: &Path| path.display().to_string();
        let mut args = vec!["serve".to_owned()];
        // A config that does not exist yet is found at its usual place once it does.
        if paths.explicit || file.text.is_some() {
            args.extend(["--config".to_owned(), text(&paths.config)]);
        }
        args.extend(["--data-dir".to_owned(), text(&paths.data)]);
        let folder = paths.config.parent().unwrap_or(Path::new("/")).to_owned();
        let elsewhere = [Some(&settings.ledger.path), settings.log.file.as_ref()];
        let elsewhere = elsewhere.into_iter().flatten().filter(|path| path.is_absolute());
        let variables_file = folder.join("env");
        let mut writable = vec![paths.data, folder];
        for folder in elsewhere.filter_map(|path| path.parent()) {
            if !writable.iter().any(|known| folder.starts_with(known)) {
                writable.push(folder.to_owned());
            }
        }
        let passphrase = file.env.get(PASSPHRASE_FILE).filter(|path| !path.is_empty());
        let variables = passphrase.map(|path| (PASSPHRASE_FILE.to_owned(), path.to_owned()));
        let keys = settings.upstreams.iter().flat_map(|upstream| &upstream.keys);
        let key_variables = keys.filter_map(|key| match &key.reference {
            Reference::Env(name) => Some(name.clone()),
            _ => None,
        });
        Ok(Self {
            program,
            args,
            writable,
            variables: variables.into_iter().collect(),
            variables_file,
            stop_timeout: settings.server.drain + STOP_MARGIN,
            key_variables: key_variables.collect(),
        })
    }
}

fn absolute(paths: &Paths) -> Result<Paths, CliError> {
    let full = |path: &Path| std::path::absolute(path).map_err(|e| error::path_error(path, &e));
    Ok(Paths { config: full(&paths.config)?, data: full(&paths.data)?, explicit: paths.explicit })
}

/// The folder of the user's own settings; systemd looks there too.
pub(super) fn config_home() -> Result<PathBuf, CliError> {
    let env = Environment::from_process();
    let set = |name: &str| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set("XDG_CONFIG_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".config")))
        .ok_or_else(|| CliError::failed("there is no home directory"))
}
