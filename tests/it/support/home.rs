//! A separate home for one test: config, data and environment.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Removed when dropped.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir =
            tempfile::Builder::new().prefix("aiproxy-it-").tempdir().expect("a temporary folder");
        Self { dir, env: Vec::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("config.toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Writes the config file atomically, so that a watcher never reads half of it.
    pub(crate) fn write_config(&self, text: &str) {
        let next = self.path().join("config.toml.next");
        std::fs::write(&next, text).expect("write the config");
        std::fs::rename(&next, self.config()).expect("put the config in place");
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Returns the environment of all programs in this home; only the path comes from the machine.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let at = |below: &str| self.path().join(below).display().to_string();
        let mut env: Vec<_> = [
            ("PATH", std::env::var("PATH").unwrap_or_default()),
            ("HOME", at("")),
            ("XDG_CONFIG_HOME", at(".config")),
            ("XDG_DATA_HOME", at(".local/share")),
            ("XDG_CACHE_HOME", at(".cache")),
            ("XDG_RUNTIME_DIR", at("no-runtime-dir")),
            ("LANG", "C.UTF-8".to_owned()),
            ("AIPROXY_CONFIG", self.config().display().to_string()),
            ("AIPROXY_DATA_DIR", self.data().display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        env.extend(self.env.iter().cloned());
        env
    }

    /// Returns a command for the real program in this home.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aiproxy"));
        command.env_clear().envs(self.env()).env("NO_COLOR", "1").current_dir(self.path());
        command
    }
}
