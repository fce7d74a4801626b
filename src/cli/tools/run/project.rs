//! The project that a tool's requests count for, and its key.

use std::path::Path;

use super::{files, recipe::RunnableTool};
use crate::{
    cli::{
        attach, client_key, config::edit_file, context::CommandContext, error::CliError, output,
        project::lookup,
    },
    config::edit::Edit,
    secrets::{Secret, keyring::Keyring},
};

/// A project and the key that its clients send.
pub(super) struct ToolProject {
    pub(super) name: String,
    pub(super) key: Secret,
}

/// Finds the project that the user names, or the one with the tool's name, which is added if it does
/// not exist.
///
/// # Errors
///
/// The project that the user names, or with `--url` the one of the tool, does not exist, its key cannot be read, or the config cannot be
/// changed.
pub(super) async fn find_or_add(
    ctx: &CommandContext,
    tool: RunnableTool,
    named: Option<&str>,
    data: &Path,
) -> Result<ToolProject, CliError> {
    let name = named.unwrap_or(tool.name);
    if named.is_none() && !exists(ctx, name)? {
        if ctx.global.url.is_some() {
            return Err(CliError::usage(format!("no project `{name}` for the proxy of --url"))
                .hint("name one that this config and that proxy have, with --project"));
        }
        // Two runs that begin together must not make two keys.
        let lock = files::lock_runs(data)?;
        if !exists(ctx, name)? {
            add(ctx, name, data).await?;
        }
        drop(lock);
    }
    let key = lookup::client_key(ctx, name).await?;
    Ok(ToolProject { name: name.to_owned(), key })
}

fn exists(ctx: &CommandContext, name: &str) -> Result<bool, CliError> {
    let file = edit_file::load(ctx)?;
    Ok(file.settings.projects.iter().any(|project| *project.name == *name))
}

async fn add(ctx: &CommandContext, name: &str, data: &Path) -> Result<(), CliError> {
    let edits = |key: String| [Edit::AddProject { name: name.to_owned(), key }];
    // Found out before a key is made.
    edit_file::check_edit(ctx, &edits(client_key::usual_reference(name, data)))?;
    let keyring = Keyring::system();
    let (_, location) = client_key::create_key(name, data, &keyring).await?;
    if let Err(error) = edit_file::edit_config(ctx, &edits(location.reference())) {
        client_key::delete_key(name, data, &keyring).await;
        return Err(error);
    }
    attach::reload_if_running(ctx).await;
    output::print_note(&format!("note: added project `{name}`; its key is stored in {location}"));
    Ok(())
}
