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
    if let Some(name) = journal.made_project.clone()
        && !has_project(ctx, &name)?
    {
        let before = text(ctx)?.unwrap_or_default();
        make_project(ctx, &name, data).await?;
        record(journal, insertion(&before, &text(ctx)?.unwrap_or_default()), data)?;
    }
    if let Some(port) = ollama_port {
        let file = edit_file::load_or_empty(ctx)?;
        let before = file.text.unwrap_or_default();
        let row = listener_row(&before, &journal.project, port);
        record(journal, Some(row.clone()), data)?;
        let path = file.paths.config;
        let target = std::fs::canonicalize(&path).unwrap_or(path);
        write::replace(&target, &format!("{before}{row}"))
            .map_err(|error| path_error(&target, &error))?;
    }
    attach::reload_if_running(ctx).await;
    Ok(())
}

async fn make_project(ctx: &CommandContext, name: &str, data: &Path) -> Result<(), CliError> {
    let edits = |key: String| [Edit::AddProject { name: name.to_owned(), key }];
    // Checked before a key is made.
    edit_file::check_edit(ctx, &edits(client_key::usual_reference(name, data)))?;
    let keyring = Keyring::system();
    let (_, location) = client_key::create_key(name, data, &keyring).await?;
    if let Err(error) = edit_file::edit_config(ctx, &edits(location.reference())) {
        client_key::delete_key(name, data, &keyring).await;
        return Err(error);
    }
    Ok(())
}

/// Records what is put into the config.
fn record(journal: &mut Journal, inserted: Option<String>, data: &Path) -> Result<(), CliError> {
    journal.config.get_or_insert_default().inserted.extend(inserted);
    journal.write(data)
}

fn listener_row(before: &str, project: &str, port: u16) -> String {
    let gap = if before.is_empty() || before.ends_with('\n') { "\n" } else { "\n\n" };
    format!(
        "{gap}[[keyless]]\nlisten = \"127.0.0.1:{port}\"\nproject = \"{project}\"\ndialects = [\"ollama\", \"openai\"]\n"
    )
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
        let restored = without_insertions(&change, &now);
        let path = ctx.global.paths()?.config;
        let target = std::fs::canonicalize(&path).unwrap_or(path);
        let done = if restored.is_empty() && change.before.is_none() {
            std::fs::remove_file(&target)
        } else if restored == now {
            Ok(())
        } else {
            write::replace(&target, &restored)
        };
        done.map_err(|error| path_error(&target, &error))?;
    }
    if let Some(name) = &journal.made_project {
        // Still there if its row was changed since.
        if has_project(ctx, name)? {
            edit_file::edit_config(ctx, &[Edit::RemoveProject { name: name.clone() }])?;
        }
        client_key::delete_key(name, data, &Keyring::system()).await;
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

/// Returns the text without what was inserted. A part that is not in it once stays.
fn without_insertions(change: &ConfigChange, now: &str) -> String {
    change.inserted.iter().rev().fold(now.to_owned(), |text, inserted| {
        match text.split_once(inserted.as_str()) {
            Some((before, after)) if !after.contains(inserted.as_str()) => {
                format!("{before}{after}")
            }
            _ => text,
        }
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
            assert_eq!(without_insertions(&change, after), before);
            assert_eq!(without_insertions(&change, before), before);
        }
        assert_eq!(insertion("ab", "ac"), None);
        assert_eq!(insertion("ab", "ab"), None);
    }
}
