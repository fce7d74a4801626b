//! Reads a TOML tree key by key: every value has its position, keys that no reader asked for are
//! reported as unknown, and no problem hides another.

use std::{ops::Range, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::base::{suggest, units};
use crate::config::problem::Report;

pub(super) type SourceSpan = Range<usize>;
pub(super) type Node<'a> = Spanned<DeValue<'a>>;

/// A value and its position.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: SourceSpan,
}

impl<T> Located<T> {
    pub(super) fn new(value: T, span: SourceSpan) -> Self {
        Self { value, span }
    }
}

/// Positions of the values in a table.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySpans {
    /// Of the whole table.
    pub(super) table: SourceSpan,
    keys: Vec<(String, SourceSpan)>,
}

impl KeySpans {
    /// Returns the position of the row's name.
    pub(super) fn name(&self) -> &SourceSpan {
        self.get("name").unwrap_or(&self.table)
    }

    /// Returns the position of a key's value; `None` if the file omits the key.
    pub(super) fn get(&self, name: &str) -> Option<&SourceSpan> {
        self.keys.iter().find(|(known, _)| known == name).map(|(_, span)| span)
    }
}

/// Why a value cannot be used.
#[derive(Debug)]
pub(super) struct ValueError {
    pub(super) title: String,
    pub(super) help: Option<String>,
}

impl ValueError {
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), help: None }
    }

    pub(super) fn with_help(title: impl Into<String>, help: impl Into<String>) -> Self {
        Self { title: title.into(), help: Some(help.into()) }
    }

    /// Splits a message of `base` at its semicolon into the problem and the hint.
    pub(super) fn from_sentence(sentence: String) -> Self {
        match sentence.split_once("; ") {
            Some((title, help)) => Self::with_help(title, help),
            None => Self::new(sentence),
        }
    }
}

/// A table being read.
pub(super) struct TableReader<'a> {
    /// The path of its keys in messages and for `config set`: empty at the top, `timeouts`,
    /// `upstream.nvidia`.
    path: String,
    pub(super) span: SourceSpan,
    entries: Vec<TableEntry<'a>>,
    known_keys: Vec<&'static str>,
}

struct TableEntry<'a> {
    name: String,
    name_span: SourceSpan,
    value: &'a Node<'a>,
    consumed: bool,
}

impl<'a> TableReader<'a> {
    pub(super) fn new(path: impl Into<String>, span: SourceSpan, table: &'a DeTable<'a>) -> Self {
        let mut entries: Vec<_> = table
            .iter()
            .map(|(name, value)| TableEntry {
                name: name.get_ref().clone().into_owned(),
                name_span: name.span(),
                value,
                consumed: false,
            })
            .collect();
        // The map is sorted by name, but the order in the file matters to people and to aliases.
        entries.sort_by_key(|row| row.name_span.start);
        Self { path: path.into(), span, entries, known_keys: Vec::new() }
    }

    /// Returns a value as a table; reports anything else.
    pub(super) fn from_node(
        path: impl Into<String>,
        node: &'a Node<'a>,
        report: &mut Report,
    ) -> Option<Self> {
        let path = path.into();
        match node.get_ref() {
            DeValue::Table(table) => Some(Self::new(path, node.span(), table)),
            other => {
                report.error(
                    &node.span(),
                    format!("`{path}` must be a table, not {}", type_name(other)),
                    None,
                );
                None
            }
        }
    }

    /// Sets the path of its keys, once the row's own name is known.
    pub(super) fn set_path(&mut self, path: String) {
        self.path = path;
    }

    pub(super) fn key_path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn take_node(&mut self, name: &'static str) -> Option<&'a Node<'a>> {
        self.known_keys.push(name);
        let row = self.entries.iter_mut().find(|row| row.name == name)?;
        row.consumed = true;
        Some(row.value)
    }

    /// Reads the value of a key with `read`. An invalid value is reported and counts as absent.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        report: &mut Report,
        read: impl Fn(&DeValue<'_>) -> Result<T, ValueError>,
    ) -> Option<Located<T>> {
        let node = self.take_node(name)?;
        let path = self.key_path(name);
        read_value(&path, node, report, &read)
    }

    /// Like [`Self::read`], with a default.
    pub(super) fn read_or<T>(
        &mut self,
        name: &'static str,
        report: &mut Report,
        default: T,
        read: impl Fn(&DeValue<'_>) -> Result<T, ValueError>,
    ) -> T {
        self.read(name, report, read).map_or(default, |at| at.value)
    }

    /// Reads a list; a single value is a list of one.
    pub(super) fn read_list<T>(
        &mut self,
        name: &'static str,
        report: &mut Report,
        read: impl Fn(&DeValue<'_>) -> Result<T, ValueError>,
    ) -> Option<Located<Vec<Located<T>>>> {
        let node = self.take_node(name)?;
        let path = self.key_path(name);
        let values = match node.get_ref() {
            DeValue::Array(items) => {
                items.iter().filter_map(|item| read_value(&path, item, report, &read)).collect()
            }
            _ => read_value(&path, node, report, &read).into_iter().collect(),
        };
        let values: Vec<_> = values;
        // Each value has been reported: an empty list would be reported again.
        let unusable =
            values.is_empty() && node.get_ref().as_array().is_none_or(|items| !items.is_empty());
        (!unusable).then(|| Located::new(values, node.span()))
    }

    /// Returns the table under a key.
    pub(super) fn child(
        &mut self,
        name: &'static str,
        report: &mut Report,
    ) -> Option<TableReader<'a>> {
        let node = self.take_node(name)?;
        TableReader::from_node(self.key_path(name), node, report)
    }

    /// Returns the tables of `[[name]]`.
    pub(super) fn children(
        &mut self,
        name: &'static str,
        report: &mut Report,
    ) -> Vec<TableReader<'a>> {
        self.take_node(name).map(|node| Self::rows(name, node, report)).unwrap_or_default()
    }

    /// Returns a value as the tables of `[[name]]`; reports anything else.
    pub(super) fn rows(name: &str, node: &'a Node<'a>, report: &mut Report) -> Vec<Self> {
        let DeValue::Array(items) = node.get_ref() else {
            report.error(
                &node.span(),
                format!("`{name}` is a list of tables"),
                Some(format!("begin each with a line `[[{name}]]`")),
            );
            return Vec::new();
        };
        let each = items.iter().enumerate();
        each.filter_map(|(index, item)| {
            TableReader::from_node(format!("{name}[{}]", index + 1), item, report)
        })
        .collect()
    }

    /// Returns the remaining entries by name, for tables whose keys are chosen by the user.
    pub(super) fn remaining(&mut self) -> Vec<(Located<String>, &'a Node<'a>)> {
        let rows = self.entries.iter_mut().filter(|row| !row.consumed);
        rows.map(|row| {
            row.consumed = true;
            (Located::new(row.name.clone(), row.name_span.clone()), row.value)
        })
        .collect()
    }

    /// Reports every remaining key as unknown. Returns the positions of all keys.
    pub(super) fn finish(mut self, report: &mut Report) -> KeySpans {
        let path = self.path.clone();
        for (name, _) in self.remaining() {
            let location = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
            let help = match suggest::nearest(&name.value, self.known_keys.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => {
                    let mut known = self.known_keys.clone();
                    known.sort_unstable();
                    format!("known here: {}", known.join(", "))
                }
            };
            report.error(
                &name.span,
                format!("unknown key `{}`{location}", truncate(&name.value)),
                Some(help),
            );
        }
        let keys = self.entries.into_iter().map(|row| (row.name, row.value.span())).collect();
        KeySpans { table: self.span, keys }
    }
}

pub(super) fn read_value<T>(
    path: &str,
    node: &Node<'_>,
    report: &mut Report,
    read: &impl Fn(&DeValue<'_>) -> Result<T, ValueError>,
) -> Option<Located<T>> {
    match read(node.get_ref()) {
        Ok(value) => Some(Located::new(value, node.span())),
        Err(error) => {
            report.error(&node.span(), format!("`{path}`: {}", error.title), error.help);
            None
        }
    }
}

/// Returns the type of a value, with its article.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn expected(what: &str, value: &DeValue<'_>) -> ValueError {
    ValueError::new(format!("expected {what}, found {}", type_name(value)))
}

/// Cuts long names before they are quoted.
pub(super) fn truncate(text: &str) -> String {
    if text.chars().count() <= 60 {
        text.to_owned()
    } else {
        text.chars().take(60).chain(['…']).collect()
    }
}

// The functions below read one value each.

pub(super) fn text(value: &DeValue<'_>) -> Result<String, ValueError> {
    value.as_str().map(str::to_owned).ok_or_else(|| expected("a string", value))
}

pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, ValueError> {
    value.as_bool().ok_or_else(|| match value.as_str() {
        Some("true" | "false") => {
            ValueError::with_help("expected a boolean, found a string", "write it without quotes")
        }
        _ => expected("true or false", value),
    })
}

fn integer(value: &DeValue<'_>) -> Result<i128, ValueError> {
    let DeValue::Integer(number) = value else {
        let error = expected("a whole number", value);
        let quoted = value.as_str().is_some_and(|text| text.parse::<i64>().is_ok());
        return Err(if quoted {
            ValueError { help: Some("write it without quotes".to_owned()), ..error }
        } else {
            error
        });
    };
    i128::from_str_radix(&number.as_str().replace('_', ""), number.radix())
        .map_err(|_| ValueError::new("a number far out of range"))
}

/// Reads a whole number within bounds.
pub(super) fn count(low: u32, high: u32) -> impl Fn(&DeValue<'_>) -> Result<u32, ValueError> {
    move |value| {
        let number = integer(value)?;
        u32::try_from(number)
            .ok()
            .filter(|n| (low..=high).contains(n))
            .ok_or_else(|| ValueError::new(format!("{number} is out of range: {low} to {high}")))
    }
}

/// Reads a number within bounds; whole numbers are accepted too.
pub(super) fn number(low: f64, high: f64) -> impl Fn(&DeValue<'_>) -> Result<f64, ValueError> {
    move |value| {
        let number = match value {
            DeValue::Float(float) => float
                .as_str()
                .replace('_', "")
                .parse::<f64>()
                .map_err(|_| expected("a number", value))?,
            DeValue::Integer(_) => integer(value)? as f64,
            _ => return Err(expected("a number", value)),
        };
        if number.is_finite() && (low..=high).contains(&number) {
            return Ok(number);
        }
        Err(ValueError::new(format!("{number} is out of range: {low} to {high}")))
    }
}

/// Reads a duration within bounds.
pub(super) fn duration(
    low: Duration,
    high: Duration,
) -> impl Fn(&DeValue<'_>) -> Result<Duration, ValueError> {
    move |value| {
        if let Ok(number) = integer(value) {
            return Err(ValueError::with_help(
                "a duration needs a unit",
                format!("for seconds write \"{number}s\"; units are ms, s, m, h, d"),
            ));
        }
        let text = value.as_str().ok_or_else(|| expected("a duration such as \"30s\"", value))?;
        let span = units::parse_duration(text).map_err(ValueError::from_sentence)?;
        if (low..=high).contains(&span) {
            return Ok(span);
        }
        let (low, high) = (units::print_duration(low), units::print_duration(high));
        Err(ValueError::new(format!("`{text}` is out of range: {low} to {high}")))
    }
}

/// Reads a size within bounds.
pub(super) fn size(low: u64, high: u64) -> impl Fn(&DeValue<'_>) -> Result<u64, ValueError> {
    move |value| {
        if let Ok(number) = integer(value) {
            return Err(ValueError::with_help(
                "a size needs a unit",
                format!("write \"{number}B\", or use KiB, MiB, GiB"),
            ));
        }
        let text = value.as_str().ok_or_else(|| expected("a size such as \"64MiB\"", value))?;
        let bytes = units::parse_size(text).map_err(ValueError::from_sentence)?;
        if (low..=high).contains(&bytes) {
            return Ok(bytes);
        }
        Err(ValueError::new(format!(
            "`{text}` is out of range: {} to {}",
            units::print_size(low),
            units::print_size(high)
        )))
    }
}

/// Reads one of a few words.
pub(super) fn one_of<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&DeValue<'_>) -> Result<T, ValueError> {
    move |value| {
        let text = value.as_str().ok_or_else(|| expected("a string", value))?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, found)| *found).ok_or_else(|| {
            not_one_of(text, &words.iter().map(|(word, _)| *word).collect::<Vec<_>>())
        })
    }
}

/// Reads one of a few words, as text.
pub(super) fn one_word(value: &DeValue<'_>, words: &[&str]) -> Result<String, ValueError> {
    let text = value.as_str().ok_or_else(|| expected("a string", value))?;
    if words.contains(&text) { Ok(text.to_owned()) } else { Err(not_one_of(text, words)) }
}

fn not_one_of(text: &str, words: &[&str]) -> ValueError {
    let all = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let help = suggest::nearest(text, words.iter().copied())
        .map(|word| format!("did you mean \"{word}\"?"));
    ValueError { title: format!("\"{}\" is not one of {all}", truncate(text)), help }
}
