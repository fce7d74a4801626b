//! `aiproxy key remove`: out of the config, and out of the keyring where nobody else refers to it.

use super::{find, store::Store};
use crate::{
    cli::{
        Ctx,
        exit::{CliError, Exit},
        out, prompt, reach, settings,
    },
    config::{edit::Edit, settings::Settings},
    secrets::Reference,
};

/// Removes one key.
///
/// # Errors
///
/// No such key; the person says no; the file cannot be changed.
pub(super) async fn run(ctx: &Ctx, key: &str) -> Result<Exit, CliError> {
    let file = settings::load(ctx)?;
    let known =
        file.settings.upstreams.iter().flat_map(|u| u.keys.iter().map(|k| (&*u.name, &*k.label)));
    let (upstream, label) = find(key, known)?;
    let name = format!("{upstream}/{label}");
    let reference = file
        .settings
        .upstreams
        .iter()
        .flat_map(|u| &u.keys)
        .find(|k| *k.name == *name)
        .map(|k| k.reference.clone());
    prompt::confirm(ctx, &format!("remove key {name}?")).await?;
    settings::edit(ctx, &[Edit::RemoveKey { upstream, label }])?;
    let forgotten = match &reference {
        Some(reference) if uses(&file.settings, reference) == 1 => forget(&file, reference).await,
        _ => None,
    };
    reach::reload_if_running(ctx).await;
    ctx.done(&match forgotten {
        Some(place) => format!("{name} removed from the config and from {place}"),
        None => format!("{name} removed from the config"),
    })
}

/// How many keys of the config are this one entry.
fn uses(settings: &Settings, reference: &Reference) -> usize {
    let shown = reference.to_string();
    let keys = settings.upstreams.iter().flat_map(|u| &u.keys).map(|k| &k.reference);
    keys.chain(settings.projects.iter().filter_map(|p| p.key.as_ref()))
        .filter(|r| r.to_string() == shown)
        .count()
}

/// Deletes the entry behind a reference; where it was. The config is changed already, so a store
/// that does not answer is a warning.
pub(in crate::cli) async fn forget(
    file: &settings::File,
    reference: &Reference,
) -> Option<&'static str> {
    let (store, entry) = match reference {
        Reference::Keyring(entry) => (Store::keyring().await, entry),
        Reference::Vault(entry) => (Store::vault(&file.place).await, entry),
        Reference::Command(_) | Reference::Env(_) | Reference::File(_) | Reference::Literal(_) => {
            return None;
        }
    };
    let deleted = match store {
        Ok(mut store) => store.delete(entry).await.map(|there| there.then(|| store.name())),
        Err(error) => Err(error),
    };
    deleted.unwrap_or_else(|error| {
        out::note(&format!("warning: {reference} was not deleted: {error}"));
        None
    })
}
