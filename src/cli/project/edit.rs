//! Changes projects: `set`, `remove` and `rotate`.

use super::lookup::find_project;
use crate::{
    cli::{
        attach, client_key,
        config::edit_file::{self, ConfigFile},
        context::CommandContext,
        error::{CliError, ExitStatus},
        key::remove::delete_entry,
        output, prompt,
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
    let file = edit_file::load_to_change(ctx)?;
    let mut edits = Vec::new();
    // The implicit project has no row to change yet.
    if find_project(&file, name)?.key.is_none() {
        let key = client_key::default_client_key(&file.paths, &Keyring::system()).await?;
        key.note().iter().for_each(|note| output::print_note(&format!("note: {note}")));
        edits.push(Edit::AddProject { name: name.to_owned(), key: key.location.reference() });
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
    let file = edit_file::load_to_change(ctx)?;
    let project = find_project(&file, name)?;
    if project.key.is_none() && name == "default" {
        return Err(CliError::failed("project `default` is built in and cannot be removed")
            .hint("`aiproxy project set default enabled=false` disables it"));
    }
    prompt::confirm(ctx, &format!("remove project {name} and its key?")).await?;
    edit_file::edit_config(ctx, &[Edit::RemoveProject { name: name.to_owned() }])?;
    if let Some(key) = &project.key
        && is_generated_key(&file, name, key)
        && !is_shared(&file, key)
    {
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
        Reference::Keyring(label) | Reference::Vault(label) => {
            client_key::is_generated_label(label, name)
        }
        Reference::File(path) => path.starts_with(&file.paths.data),
        Reference::Command(_) | Reference::Env(_) | Reference::Literal(_) => false,
    }
}

/// Returns whether several projects have the key.
fn is_shared(file: &ConfigFile, reference: &Reference) -> bool {
    let text = reference.to_string();
    let keys = file.settings.projects.iter().filter_map(|project| project.key.as_ref());
    keys.filter(|key| key.to_string() == text).count() > 1
}

/// Replaces the key of a project by a new one.
pub(super) async fn rotate(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_to_change(ctx)?;
    let project = find_project(&file, name)?;
    match &project.key {
        // A key that two projects have is an error, of which a new key is the remedy.
        Some(key)
            if !is_generated_key(&file, name, key)
                && !matches!(key, Reference::Literal(_))
                && !is_shared(&file, key) =>
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
    let edits = |reference: &str| match &project.key {
        Some(key) if key.to_string() == reference => Vec::new(),
        // The key of the built-in project needs no row.
        None if name == "default" => Vec::new(),
        _ => vec![Edit::SetProject {
            name: name.to_owned(),
            path: "key".to_owned(),
            value: edit_file::toml_string(reference),
        }],
    };
    // Found out before the old key is replaced.
    edit_file::check_edit(ctx, &edits(&client_key::usual_reference(name, &file.paths.data)))?;
    let (secret, location) =
        client_key::create_key(name, &file.paths.data, &Keyring::system()).await?;
    let edits = edits(&location.reference());
    if !edits.is_empty() {
        edit_file::edit_config(ctx, &edits)?;
    }
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!(
        "project {name} has a new key ({}), stored in {location}",
        secret.fingerprint()
    ))
}
