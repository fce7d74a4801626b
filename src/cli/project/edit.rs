//! Changes projects: `set`, `remove` and `rotate`.

use super::lookup::find_project;
use crate::{
    cli::{
        attach, client_key,
        config::edit_file::{self, ConfigFile},
        context::CommandContext,
        error::{CliError, ExitStatus},
        key::remove::delete_entry,
        prompt,
    },
    config::edit::Edit,
    secrets::{Reference, keyring::Keyring},
};

pub(super) const EXAMPLES: &str = "\
Values are TOML; anything that does not parse as TOML is taken as a string. The keys are those
of [[project]] in the config.

Examples:
  aiproxy project set ide rpm=120
  aiproxy project set ide 'budget={ usd = 5, per = \"day\" }'
  aiproxy project set agent 'models=[\"gpt-*\", \"!*-pro\"]'";

/// Changes settings of a project.
pub(super) async fn set(
    ctx: &CommandContext,
    name: &str,
    values: &[String],
) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_or_empty(ctx)?;
    let mut edits = Vec::new();
    // The implicit project has no row to change yet.
    if find_project(&file, name)?.key.is_none() {
        let (_, location) = client_key::default_client_key(&file.paths, &Keyring::system()).await?;
        edits.push(Edit::AddProject { name: name.to_owned(), key: location.reference() });
    }
    edits.extend(
        edit_file::parse_assignments(values)?.into_iter().map(|(path, value)| Edit::SetProject {
            name: name.to_owned(),
            path,
            value,
        }),
    );
    edit_file::edit_config(ctx, &edits)?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("project {name} changed"))
}

/// Removes a project, and its key if aiproxy generated it.
pub(super) async fn remove(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let file = edit_file::load(ctx)?;
    let project = find_project(&file, name)?;
    let Some(key) = &project.key else {
        return Err(CliError::failed("project `default` is built in and cannot be removed")
            .hint("`aiproxy project set default enabled=false` disables it"));
    };
    prompt::confirm(ctx, &format!("remove project {name} and its key?")).await?;
    edit_file::edit_config(ctx, &[Edit::RemoveProject { name: name.to_owned() }])?;
    if is_generated_key(&file, name, key) {
        match key {
            // Opening the encrypted file may require a passphrase, so the prompt appears only if
            // that file contains the key.
            Reference::Vault(_) => drop(delete_entry(&file, key).await),
            _ => client_key::delete_key(name, &file.paths.data, &Keyring::system()).await,
        }
    }
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("project {name} removed"))
}

/// Returns whether aiproxy generated the key. Keys stored elsewhere are the user's to change.
fn is_generated_key(file: &ConfigFile, name: &str, reference: &Reference) -> bool {
    match reference {
        Reference::Keyring(label) | Reference::Vault(label) => *label == format!("client/{name}"),
        Reference::File(path) => path.starts_with(&file.paths.data),
        Reference::Command(_) | Reference::Env(_) | Reference::Literal(_) => false,
    }
}

/// Replaces the key of a project by a new one.
pub(super) async fn rotate(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let file = edit_file::load(ctx)?;
    let project = find_project(&file, name)?;
    match &project.key {
        Some(key)
            if !is_generated_key(&file, name, key) && !matches!(key, Reference::Literal(_)) =>
        {
            return Err(CliError::failed(format!(
                "aiproxy did not create the key of project `{name}`, which is stored in {key}"
            ))
            .hint(format!(
                "change it there, or run `aiproxy config unset project.{name}.key` first"
            )));
        }
        _ => {}
    }
    prompt::confirm(
        ctx,
        &format!("create a new key for project {name}? Tools with the old key stop working"),
    )
    .await?;
    let (secret, location) =
        client_key::create_key(name, &file.paths.data, &Keyring::system()).await?;
    let now = location.reference();
    if project.key.as_ref().is_some_and(|key| key.to_string() != now) {
        edit_file::edit_config(
            ctx,
            &[Edit::SetProject {
                name: name.to_owned(),
                path: "key".to_owned(),
                value: edit_file::toml_string(&now),
            }],
        )?;
    }
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!(
        "project {name} has a new key ({}), stored in {location}",
        secret.fingerprint()
    ))
}
