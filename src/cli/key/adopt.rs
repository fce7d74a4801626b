//! `aiproxy key adopt`: moves keys from the config file into the keyring.

use crate::{
    cli::{
        attach,
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        key::store::KeyStore,
        output,
    },
    config::edit::Edit,
    secrets::{Reference, Secret},
};

/// If another key has the name, a number is appended; upper bound for that number.
const MAX_NAMES: u32 = 100;

/// Moves every literal key.
///
/// # Errors
///
/// No keyring, or the file cannot be changed and still contains the keys.
pub(super) async fn run(ctx: &CommandContext, vault: bool) -> Result<ExitStatus, CliError> {
    let file = edit_file::load(ctx)?;
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
        return ctx.print_result("the config file contains no keys");
    }
    edit_file::check_writable(ctx)?;
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
        let value = edit_file::toml_string(&reference);
        edits.push(Edit::SetProject {
            name: project.name.to_string(),
            path: "key".to_owned(),
            value,
        });
    }
    // The config changes last. Until then the file contains every key, and a duplicate in the store
    // is harmless.
    edit_file::edit_config(ctx, &edits)?;
    attach::reload_if_running(ctx).await;
    let count = if edits.len() == 1 { "1 key".to_owned() } else { format!("{} keys", edits.len()) };
    ctx.print_result(&format!(
        "{count} moved into {}; the config refers to them",
        store.display_name()
    ))
}

/// Stores a key under this name, or under a numbered name if another key has it.
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
    Err(CliError::failed(format!("{} contains too many keys named {entry}", store.display_name())))
}
