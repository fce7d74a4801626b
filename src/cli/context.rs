//! The options that every command accepts, and the context that every command receives.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{
        error::{CliError, ExitStatus},
        output,
    },
    config::{
        discover::Environment,
        file::{self, Paths},
    },
};

/// The context that every command receives.
#[derive(Debug)]
pub struct CommandContext {
    pub global: GlobalArgs,
}

impl CommandContext {
    /// Prints the result of an action: a sentence, or `{"ok": true, "text": …}`.
    ///
    /// # Errors
    ///
    /// Standard output is closed.
    pub fn print_result(&self, text: &str) -> Result<ExitStatus, CliError> {
        if self.global.json {
            output::print_json_line(&serde_json::json!({ "ok": true, "text": text }))?;
        } else {
            output::print_line(text)?;
        }
        Ok(ExitStatus::Ok)
    }
}

/// Options that every command accepts, before or after its name.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Config file [default: config.toml in the platform's config dir, or AIPROXY_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data dir [default: the platform's data dir, or AIPROXY_DATA_DIR]; commands use it to find
    /// the proxy
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Connect to the proxy at this URL; its control token comes from AIPROXY_TOKEN or --token-file
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// File with the control token for --url
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Skip confirmation prompts
    #[arg(long, short = 'y', global = true)]
    pub yes: bool,
}

impl GlobalArgs {
    /// Resolves the config file and the data dir.
    ///
    /// # Errors
    ///
    /// Neither a flag nor the environment names a location and there is no home directory, or the
    /// data dir is invalid.
    pub fn paths(&self) -> Result<Paths, CliError> {
        let paths = file::locate(
            self.config.as_deref(),
            self.data_dir.as_deref(),
            &Environment::from_process(),
        )
        .map_err(CliError::failed)?;
        if paths.data.is_file() {
            return Err(CliError::failed(format!(
                "{} is a file, not a folder",
                paths.data.display()
            ))
            .hint("name a folder with --data-dir or AIPROXY_DATA_DIR"));
        }
        Ok(paths)
    }
}

impl GlobalArgs {
    /// The options that make another command use the same config and data, each preceded by a
    /// space. Empty if no option is needed.
    #[must_use]
    pub fn path_flags(&self, paths: &Paths) -> String {
        let flag = |name: &str, path: &std::path::Path| {
            format!(" {name} {}", shell_quote(&path.display().to_string()))
        };
        let config = self.config.as_ref().map(|_| flag("--config", &paths.config));
        let data = self.data_dir.as_ref().map(|_| flag("--data-dir", &paths.data));
        [config, data].into_iter().flatten().collect()
    }
}

/// Quotes a word for a POSIX shell.
pub fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+@:,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_flags_point_other_commands_to_the_same_proxy() {
        let global = GlobalArgs { data_dir: Some("d".into()), ..GlobalArgs::default() };
        let paths = Paths { config: "/c".into(), data: "/my data/it's".into(), explicit: false };
        assert_eq!(global.path_flags(&paths), r" --data-dir '/my data/it'\''s'");
        assert_eq!(
            GlobalArgs { config: Some("c".into()), ..GlobalArgs::default() }.path_flags(&paths),
            " --config /c"
        );
        assert_eq!(GlobalArgs::default().path_flags(&paths), "");
    }
}
