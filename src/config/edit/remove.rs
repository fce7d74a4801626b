//! Removes rows and keys from the text itself, so that every other byte stays.

use std::ops::Range;

use toml_edit::{Document, Item, Table, TableLike};

use crate::config::edit::{EditError, not_found, parse, row};

/// Removes a row with all its subtables.
pub(super) fn remove_row(text: &str, kind: &str, name: &str) -> Result<String, EditError> {
    let doc = Document::parse(text).map_err(|_| EditError::Syntax)?;
    let Some(Item::ArrayOfTables(rows)) = doc.get(kind) else {
        return remove_inline_row(text, kind, name);
    };
    let Some(found) = rows.iter().find(|row| row.get("name").and_then(Item::as_str) == Some(name))
    else {
        let known: Vec<_> =
            rows.iter().filter_map(|row| row.get("name").and_then(Item::as_str)).collect();
        return Err(not_found(kind, name, known));
    };
    let mut ranges = Vec::new();
    collect_table_ranges(text, found, &mut ranges);
    Ok(remove_ranges(text, ranges))
}

/// Removes a key by its full path.
pub(super) fn remove_key(text: &str, path: &[&str]) -> Result<String, EditError> {
    let doc = Document::parse(text).map_err(|_| EditError::Syntax)?;
    match find_removal(text, doc.as_table(), path) {
        Some(Removal::Ranges(ranges)) => Ok(remove_ranges(text, ranges)),
        Some(Removal::InlineTable) => remove_inline_key(text, |doc| Some(doc.as_table_mut()), path),
        None => Err(EditError::BadPath(format!("`{}` is not set in the file", path.join(".")))),
    }
}

/// Removes a key of a row.
pub(super) fn remove_row_key(
    text: &str,
    kind: &str,
    name: &str,
    path: &[String],
) -> Result<String, EditError> {
    let doc = Document::parse(text).map_err(|_| EditError::Syntax)?;
    let names: Vec<_> = path.iter().map(String::as_str).collect();
    let table = match doc.get(kind) {
        Some(Item::ArrayOfTables(rows)) => {
            rows.iter().find(|row| row.get("name").and_then(Item::as_str) == Some(name))
        }
        _ => None,
    };
    match table.map(|table| find_removal(text, table, &names)) {
        Some(Some(Removal::Ranges(ranges))) => Ok(remove_ranges(text, ranges)),
        Some(None) => Err(EditError::BadPath(format!(
            "`{kind}.{name}.{}` is not set in the file",
            path.join(".")
        ))),
        Some(Some(Removal::InlineTable)) | None => {
            remove_inline_key(text, |doc| row::find_row(doc, kind, name).ok(), &names)
        }
    }
}

enum Removal {
    Ranges(Vec<Range<usize>>),
    /// Inside an inline table, whose commas must remain valid.
    InlineTable,
}

fn find_removal(text: &str, table: &Table, path: &[&str]) -> Option<Removal> {
    let (name, rest) = path.split_first()?;
    let item = table.get(name)?;
    match item {
        Item::Table(child) if rest.is_empty() => {
            let mut ranges = Vec::new();
            collect_table_ranges(text, child, &mut ranges);
            Some(Removal::Ranges(ranges))
        }
        Item::Table(child) => find_removal(text, child, rest),
        Item::Value(value) if rest.is_empty() => {
            let start = table.key(name)?.span()?.start;
            let lines = line_start(text, start)..line_end(text, value.span()?.end);
            Some(Removal::Ranges(std::iter::once(lines).collect()))
        }
        Item::Value(value) if value.is_inline_table() => Some(Removal::InlineTable),
        Item::ArrayOfTables(rows) if rest.is_empty() => {
            let mut ranges = Vec::new();
            rows.iter().for_each(|row| collect_table_ranges(text, row, &mut ranges));
            Some(Removal::Ranges(ranges))
        }
        _ => None,
    }
}

/// Collects the lines of a table and of each of its subtables.
fn collect_table_ranges(text: &str, table: &Table, ranges: &mut Vec<Range<usize>>) {
    let header = table.span().filter(|_| !table.is_implicit() && !table.is_dotted());
    let mut end = header.as_ref().map_or(0, |span| {
        line_end(text, text[span.start..].find('\n').map_or(text.len(), |at| span.start + at))
    });
    let mut first = header.as_ref().map(|span| line_start(text, span.start));
    for (name, item) in table {
        match item {
            Item::Table(child) if child.is_dotted() => {
                let mut dotted = Vec::new();
                collect_table_ranges(text, child, &mut dotted);
                end = dotted.iter().map(|range| range.end).max().map_or(end, |at| at.max(end));
                first = first.or_else(|| dotted.iter().map(|range| range.start).min());
            }
            Item::Table(child) => collect_table_ranges(text, child, ranges),
            Item::ArrayOfTables(rows) => {
                rows.iter().for_each(|row| collect_table_ranges(text, row, ranges));
            }
            Item::Value(value) => {
                let start = table
                    .key(name)
                    .and_then(toml_edit::Key::span)
                    .map(|span| line_start(text, span.start));
                first = first.or(start);
                end = value.span().map_or(end, |span| line_end(text, span.end).max(end));
            }
            Item::None => {}
        }
    }
    if let Some(first) = first {
        let start = if header.is_some() { comment_start(text, first) } else { first };
        ranges.push(start..end.max(first));
    }
}

/// Returns where the comment directly above a line begins; the file's own header stays.
fn comment_start(text: &str, line: usize) -> usize {
    let mut start = line;
    while start > 0 {
        let previous_line = line_start(text, start - 1);
        if !text[previous_line..start].trim_start().starts_with('#') {
            return start;
        }
        start = previous_line;
    }
    line
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |at| at + 1)
}

fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |next| at + next + 1)
}

/// Returns the text without these ranges, and without two empty lines where a range was.
fn remove_ranges(text: &str, mut ranges: Vec<Range<usize>>) -> String {
    ranges.sort_by_key(|range| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for range in ranges {
        if range.start < at {
            continue;
        }
        out.push_str(&text[at..range.start]);
        at = range.end;
        let gap = out.is_empty() || out.ends_with("\n\n") || out.ends_with("\n\r\n");
        if gap {
            let rest = &text[at..];
            at += if rest.starts_with("\r\n") { 2 } else { usize::from(rest.starts_with('\n')) };
        }
    }
    out.push_str(&text[at..]);
    out
}

/// Removes a key inside an inline table.
fn remove_inline_key(
    text: &str,
    find: impl for<'a> Fn(&'a mut toml_edit::DocumentMut) -> Option<&'a mut dyn TableLike>,
    path: &[&str],
) -> Result<String, EditError> {
    let mut doc = parse(text)?;
    let missing = || EditError::BadPath(format!("`{}` is not set in the file", path.join(".")));
    let (last, parents) = path.split_last().ok_or_else(missing)?;
    let mut table = find(&mut doc).ok_or_else(missing)?;
    for name in parents {
        table = table.get_mut(name).and_then(Item::as_table_like_mut).ok_or_else(missing)?;
    }
    table.remove(last).ok_or_else(missing)?;
    Ok(doc.to_string())
}

fn remove_inline_row(text: &str, kind: &str, name: &str) -> Result<String, EditError> {
    let mut doc = parse(text)?;
    let known = row::row_names(&doc, kind);
    let missing = not_found(kind, name, known.iter().map(String::as_str));
    let Some(rows) = doc.get_mut(kind).and_then(Item::as_array_mut) else { return Err(missing) };
    let fits = |value: &toml_edit::Value| {
        value.as_inline_table().and_then(|row| row.get("name")?.as_str()) == Some(name)
    };
    let Some(at) = rows.iter().position(fits) else { return Err(missing) };
    rows.remove(at);
    Ok(doc.to_string())
}
