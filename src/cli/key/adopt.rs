//! `aiproxy key adopt`: keys that stand in the config file move into the keyring.

use super::store::KeyStore;
use crate::{
    cli::{
        CommandContext, attach, config_edit,
        error::{CliError, ExitStatus},
        output,
    },
    config::edit::Edit,
    secrets::{Reference, Secret},
};

/// A name that is taken by another key gets a number; this many are tried.
const MAX_NAMES: u32 = 100;

/// Moves every literal key.
///
/// # Errors
///
/// No keyring; the file cannot be changed, in which case it still holds the keys.
pub(super) async fn run(ctx: &CommandContext, vault: bool) -> Result<ExitStatus, CliError> {
    let file = config_edit::load(ctx)?;
    let keys: Vec<_> = file
        .settings
        .upstreams
        .iter()
        .flat_map(|u| u.keys.iter().map(move |k| (u, k)))
        .filter_map(|(u, k)| match &k.reference {
            Reference::Literal(secret) => Some((u, k, secret)),
            _ => None,
        })
        .collect();
    let projects: Vec<_> = file
        .settings
        .projects
        .iter()
        .filter_map(|p| match &p.key {
            Some(Reference::Literal(secret)) => Some((p, secret)),
            _ => None,
        })
        .collect();
    if keys.is_empty() && projects.is_empty() {
        return ctx.print_result("no key stands in the config file");
    }
    let mut store = if vault {
        KeyStore::open_vault(&file.paths).await?
    } else {
        KeyStore::open_keyring().await?
    };
    let mut edits = Vec::new();
    for (upstream, key, secret) in keys {
        let entry =
            store_under_free_name(&mut store, &format!("{}/{}", upstream.name, key.label), secret)
                .await?;
        let reference = store.reference(&entry);
        output::print_note(&format!("{} ({}) → {reference}", key.name, secret.fingerprint()));
        edits.push(Edit::ReplaceKeyReference {
            upstream: upstream.name.to_string(),
            label: key.label.to_string(),
            reference,
        });
    }
    for (project, secret) in projects {
        let entry =
            store_under_free_name(&mut store, &format!("client/{}", project.name), secret).await?;
        let reference = store.reference(&entry);
        output::print_note(&format!(
            "project {} ({}) → {reference}",
            project.name,
            secret.fingerprint()
        ));
        let value = config_edit::toml_string(&reference);
        edits.push(Edit::SetProject {
            name: project.name.to_string(),
            path: "key".to_owned(),
            value,
        });
    }
    // Last: until here the file holds every key, and what lies in the store twice does no harm.
    config_edit::edit_config(ctx, &edits)?;
    attach::reload_if_running(ctx).await;
    let many = if edits.len() == 1 { "1 key".to_owned() } else { format!("{} keys", edits.len()) };
    ctx.print_result(&format!(
        "{many} moved into {}; the config refers to them",
        store.display_name()
    ))
}

/// Stores a key under this name, or where another key has it, under the name with a number.
async fn store_under_free_name(
    store: &mut KeyStore,
    entry: &str,
    secret: &Secret,
) -> Result<String, CliError> {
    for number in 1..MAX_NAMES {
        let name = if number == 1 { entry.to_owned() } else { format!("{entry}-{number}") };
        match store.get(&name).await? {
            Some(stored) if stored.digest() == secret.digest() => return Ok(name),
            Some(_) => {}
            None => {
                store.put(&name, secret).await?;
                return Ok(name);
            }
        }
    }
    Err(CliError::failed(format!("{} holds too many keys named {entry}", store.display_name())))
}
