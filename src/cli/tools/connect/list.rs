//! `aiproxy connect --list`: which tools are connected, and by which files.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    facts,
    journal::{FileChange, Journal},
    plan::read_text,
};
use crate::cli::{
    context::CommandContext,
    error::{CliError, ExitStatus},
    output::{
        self, Styler,
        table::{TableCell, TextTable},
    },
    tools::edit::path,
};

/// Prints every tool with its state.
///
/// # Errors
///
/// A journal cannot be read.
pub(super) fn run(ctx: &CommandContext, data: &Path) -> Result<ExitStatus, CliError> {
    let mut rows = Vec::new();
    for (name, title) in facts::names() {
        let journal = Journal::read(data, name)?;
        let state = match &journal {
            None => "not connected",
            Some(journal) if journal.files.iter().all(is_in_place) => "connected",
            Some(_) => "changed",
        };
        rows.push((name, title, state, journal));
    }
    let files = |journal: &Option<Journal>| -> Vec<String> {
        let files = journal.iter().flat_map(|journal| &journal.files);
        files.map(|change| change.path.display().to_string()).collect()
    };
    if ctx.global.json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(name, _, state, journal)| {
                let project = journal.as_ref().map(|journal| &journal.project);
                json!({ "tool": name, "state": state, "project": project, "files": files(journal) })
            })
            .collect();
        output::print_json(&rows)?;
        return Ok(ExitStatus::Ok);
    }
    let mut table = TextTable::new(&["TOOL", "", "STATE", "PROJECT", "FILES"]);
    for (name, title, state, journal) in &rows {
        let project = journal.as_ref().map_or("", |journal| &*journal.project);
        let cells = [*name, title, state, project].map(TableCell::from);
        let mut cells = Vec::from(cells);
        cells.push(files(journal).join(" ").into());
        table.row(cells);
    }
    output::print(&table.render(Styler::stdout()))?;
    Ok(ExitStatus::Ok)
}

/// Returns whether the settings of a file are still those that were made.
pub(super) fn is_in_place(change: &FileChange) -> bool {
    let Ok(Some(text)) = read_text(&change.real) else { return false };
    if change.is_written(&text) {
        return true;
    }
    let Ok(value) = change.format.parse(text.trim_start_matches('\u{feff}')) else { return false };
    change.settings.iter().all(|setting| {
        let found = path::get(&value, &setting.at);
        setting.own || found == Some(&setting.to)
    })
}
