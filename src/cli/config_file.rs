//! `aiproxy config`: the file itself. Shown, checked, and changed without losing a comment.

use std::{path::Path, process::Command};

use clap::Subcommand;
use serde_json::json;

use super::{
    Ctx,
    exit::{self, CliError, Exit},
    out, prompt, reach, settings,
};
use crate::{
    base::disk,
    config::{edit::Edit, keys, show},
};

const EXAMPLE: &str = include_str!("../../assets/config.example.toml");

const SET: &str = "\
Values are TOML; what is no TOML is text. Rows are named by their name.

Examples:
  aiproxy config set server.max_requests 256
  aiproxy config set timeouts.idle 5m
  aiproxy config set upstream.nvidia.priority 5
  aiproxy config set aliases.fast groq:llama-3.3-70b-versatile";

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
        /// As in server.max_requests or upstream.nvidia.priority
        path: String,
    },
    /// Change one setting in the file
    #[command(after_help = SET)]
    Set { path: String, value: String },
    /// Take one setting out of the file, so that its default applies
    Unset { path: String },
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
        ConfigCommand::Check => check(ctx).await,
        ConfigCommand::Edit => edit(ctx).await,
        ConfigCommand::Get { path } => get(ctx, &path),
        ConfigCommand::Init => init(ctx),
        ConfigCommand::Path => path(ctx),
        ConfigCommand::Schema => {
            out::json(&keys::schema())?;
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
