//! aiproxy's own config: the project of a tool, and the listener that needs no key.

use std::{net::TcpListener, path::Path};

use super::journal::{ConfigChange, Journal};
use crate::{
    cli::{
        attach, client_key,
        config::edit_file,
        context::CommandContext,
        error::{CliError, path_error},
        project::lookup,
    },
    config::{edit::Edit, write},
    secrets::{Secret, keyring::Keyring},
};

/// The first port tried for a listener without a key: next to the one of Ollama itself.
const FIRST_OLLAMA_PORT: u16 = 11_435;
const PORTS_TRIED: u16 = 100;

/// Returns whether the config has the project.
///
/// # Errors
///
/// The config cannot be read.
pub(super) fn has_project(ctx: &CommandContext, name: &str) -> Result<bool, CliError> {
    let file = edit_file::load_or_empty(ctx)?;
    Ok(file.settings.projects.iter().any(|project| *project.name == *name))
}

/// Reads the text of the config.
///
/// # Errors
///
/// It cannot be read.
pub(super) fn text(ctx: &CommandContext) -> Result<Option<String>, CliError> {
    Ok(edit_file::load_or_empty(ctx)?.text)
}

/// Adds the project with a key of its own, and the listener if a port is given. Records in the
/// journal what was put into the config.
///
/// # Errors
///
/// The key cannot be stored, or the config cannot be changed.
pub(super) async fn add(
    ctx: &CommandContext,
    journal: &mut Journal,
    data: &Path,
    ollama_port: Option<u16>,
) -> Result<(), CliError> {
    let name = journal.project.clone();
    let before = text(ctx)?;
    if journal.made_project && !has_project(ctx, &name)? {
        let edits = |key: String| [Edit::AddProject { name: name.clone(), key }];
        // Checked before a key is made.
        edit_file::check_edit(ctx, &edits(client_key::usual_reference(&name, data)))?;
        let keyring = Keyring::system();
        let (_, location) = client_key::create_key(&name, data, &keyring).await?;
        if let Err(error) = edit_file::edit_config(ctx, &edits(location.reference())) {
            client_key::delete_key(&name, data, &keyring).await;
            return Err(error);
        }
    }
    let between = text(ctx)?;
    if let Some(port) = ollama_port {
        add_listener(ctx, &name, port)?;
    }
    if let Some(change) = &mut journal.config {
        let after = text(ctx)?;
        for (old, new) in [(&before, &between), (&between, &after)] {
            let texts = (old.as_deref().unwrap_or_default(), new.as_deref().unwrap_or_default());
            change.inserted.extend(insertion(texts.0, texts.1));
        }
    }
    journal.write(data)?;
    attach::reload_if_running(ctx).await;
    Ok(())
}

fn add_listener(ctx: &CommandContext, project: &str, port: u16) -> Result<(), CliError> {
    let file = edit_file::load_or_empty(ctx)?;
    let path = file.paths.config;
    let before = file.text.unwrap_or_default();
    let gap = if before.is_empty() || before.ends_with('\n') { "\n" } else { "\n\n" };
    let row = format!(
        "{gap}[[keyless]]\nlisten = \"127.0.0.1:{port}\"\nproject = \"{project}\"\ndialects = [\"ollama\", \"openai\"]\n"
    );
    let target = std::fs::canonicalize(&path).unwrap_or(path);
    write::replace(&target, &format!("{before}{row}")).map_err(|error| path_error(&target, &error))
}

/// Returns a free port for a listener without a key.
///
/// # Errors
///
/// None of many ports is free.
pub(super) fn free_ollama_port(ctx: &CommandContext) -> Result<u16, CliError> {
    let used: Vec<u16> = edit_file::load_or_empty(ctx)?
        .settings
        .keyless
        .iter()
        .flat_map(|row| row.listen.addresses.iter().map(std::net::SocketAddr::port))
        .collect();
    (FIRST_OLLAMA_PORT..FIRST_OLLAMA_PORT + PORTS_TRIED)
        .find(|port| !used.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| CliError::failed("no port from 11435 on is free"))
}

/// Takes the project and the listener out again. Text that was added to the config since stays.
///
/// # Errors
///
/// The config cannot be changed.
pub(super) async fn remove(
    ctx: &CommandContext,
    journal: &Journal,
    data: &Path,
) -> Result<(), CliError> {
    let change = journal.config.clone().unwrap_or_default();
    if let Some(now) = text(ctx)? {
        let restored = without_insertion(&change, &now);
        let path = ctx.global.paths()?.config;
        let target = std::fs::canonicalize(&path).unwrap_or(path);
        match restored {
            Some(text) if text.is_empty() && change.before.is_none() => {
                std::fs::remove_file(&target).map_err(|error| path_error(&target, &error))?;
            }
            Some(text) => {
                write::replace(&target, &text).map_err(|error| path_error(&target, &error))?;
            }
            None => {
                let name = journal.project.clone();
                if journal.made_project && has_project(ctx, &name)? {
                    edit_file::edit_config(ctx, &[Edit::RemoveProject { name }])?;
                }
            }
        }
    }
    if journal.made_project {
        client_key::delete_key(&journal.project, data, &Keyring::system()).await;
    }
    attach::reload_if_running(ctx).await;
    Ok(())
}

/// Returns the one text that was put into another; `None` if it is not one, or empty.
fn insertion(before: &str, after: &str) -> Option<String> {
    let same = before.chars().zip(after.chars()).take_while(|(old, new)| old == new);
    let start: usize = same.map(|(c, _)| c.len_utf8()).sum();
    let inserted = after[start..].strip_suffix(&before[start..])?;
    (!inserted.is_empty()).then(|| inserted.to_owned())
}

/// Returns the text without what was inserted; `None` if a part of that is not in it once.
fn without_insertion(change: &ConfigChange, now: &str) -> Option<String> {
    if change.inserted.is_empty() {
        return None;
    }
    change.inserted.iter().rev().try_fold(now.to_owned(), |text, inserted| {
        let (before, after) = text.split_once(inserted.as_str())?;
        (!after.contains(inserted.as_str())).then(|| format!("{before}{after}"))
    })
}

/// Reads the key of the tool's project.
///
/// # Errors
///
/// There is no such project, or its key cannot be read.
pub(super) async fn key(ctx: &CommandContext, project: &str) -> Result<Secret, CliError> {
    lookup::client_key(ctx, project).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserted_text_is_found_and_taken_out_again() {
        for (before, after) in [
            ("a\n", "a\n\n[[project]]\nx = 1\n"),
            (
                "[[project]]\nx = 1\n\n[[upstream]]\n",
                "[[project]]\nx = 1\n\n[[project]]\nx = 2\n\n[[upstream]]\n",
            ),
            ("", "ü\n"),
        ] {
            let inserted = insertion(before, after).into_iter().collect::<Vec<_>>();
            assert_eq!(inserted.len(), 1, "{before}");
            let change = ConfigChange { before: Some(before.to_owned()), inserted };
            assert_eq!(without_insertion(&change, after).as_deref(), Some(before));
            assert_eq!(without_insertion(&change, before), None);
        }
        assert_eq!(insertion("ab", "ac"), None);
        assert_eq!(insertion("ab", "ab"), None);
    }
}
