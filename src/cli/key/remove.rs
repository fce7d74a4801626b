//! `aiproxy key remove`: removes a key from the config, and from the keyring if nothing else refers
//! to it.

use crate::{
    cli::{
        attach,
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        key::{find_key, store::KeyStore},
        output, prompt,
    },
    config::{edit::Edit, settings::Settings},
    secrets::Reference,
};

/// Removes one key.
///
/// # Errors
///
/// No such key, the user declines, or the file cannot be changed.
pub(super) async fn run(ctx: &CommandContext, key: &str) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_to_change(ctx)?;
    let known =
        file.settings.upstreams.iter().flat_map(|u| u.keys.iter().map(|k| (&*u.name, &*k.label)));
    let (upstream, label) = find_key(key, known)?;
    let name = format!("{upstream}/{label}");
    let reference = file
        .settings
        .upstreams
        .iter()
        .flat_map(|u| &u.keys)
        .find(|k| *k.name == *name)
        .map(|k| k.reference.clone());
    prompt::confirm(ctx, &format!("remove key {name}?")).await?;
    edit_file::edit_config(ctx, &[Edit::RemoveKey { upstream, label }])?;
    let forgotten = match &reference {
        Some(reference) if count_uses(&file.settings, reference) == 1 => {
            delete_entry(&file, reference).await
        }
        _ => None,
    };
    attach::reload_if_running(ctx).await;
    ctx.print_result(&match forgotten {
        Some(store_name) => format!("{name} removed from the config and from {store_name}"),
        None => format!("{name} removed from the config"),
    })
}

/// The number of the config's keys that refer to this entry.
fn count_uses(settings: &Settings, reference: &Reference) -> usize {
    let text = reference.to_string();
    let keys = settings.upstreams.iter().flat_map(|u| &u.keys).map(|k| &k.reference);
    keys.chain(settings.projects.iter().filter_map(|p| p.key.as_ref()))
        .filter(|r| r.to_string() == text)
        .count()
}

/// Deletes the entry behind a reference and returns where it was. The config has already changed,
/// so a store that does not answer only causes a warning.
pub(in crate::cli) async fn delete_entry(
    file: &edit_file::ConfigFile,
    reference: &Reference,
) -> Option<&'static str> {
    let (store, entry) = match reference {
        Reference::Keyring(entry) => (KeyStore::open_keyring().await, entry),
        Reference::Vault(entry) => (KeyStore::open_vault(&file.paths).await, entry),
        Reference::Command(_) | Reference::Env(_) | Reference::File(_) | Reference::Literal(_) => {
            return None;
        }
    };
    let deleted = match store {
        Ok(mut store) => {
            store.delete(entry).await.map(|existed| existed.then(|| store.display_name()))
        }
        Err(error) => Err(error),
    };
    deleted.unwrap_or_else(|error| {
        output::print_note(&format!("warning: {reference} was not deleted: {error}"));
        None
    })
}
