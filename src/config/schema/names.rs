//! Kinds of values that several rows share: names, references, patterns, dialects.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use toml::de::DeValue;
use toml_edit::{InlineTable, Value};

use crate::{
    base::{pattern::Patterns, suggest},
    config::{
        kinds::{KindDescription, List, TEXT, Text, ValueKind},
        problem::Report,
        reader::{self, Located, Node, TableReader, ValueError, text, truncate},
    },
    ir::op::Dialect,
    secrets::Reference,
};

/// A name that is part of other names: `upstream/label`, `upstream:model`, `config set
/// upstream.NAME…`.
pub(super) const NAME: Text<Arc<str>> = Text {
    type_name: "name",
    read: |value| read_name(value).map(Arc::from),
    write: |name| Some(name.to_string()),
};

/// Any text, shared.
pub(super) const ARC_TEXT: Text<Arc<str>> = Text {
    type_name: "text",
    read: |value| text(value).map(Arc::from),
    write: |text| Some(text.to_string()),
};

/// A reference to a key, or a literal key; messages quote neither.
pub(super) const REFERENCE: Text<Reference> = Text {
    type_name: "reference",
    read: read_reference,
    write: |reference| Some(reference.to_string()),
};

/// The name of a dialect.
pub(super) struct DialectName;

impl ValueKind for DialectName {
    type Value = Dialect;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Dialect> {
        reader::read_value(path, node, report, &read_dialect).map(|at| at.value)
    }

    fn write(&self, dialect: &Dialect) -> Option<Value> {
        Some(dialect.name().into())
    }

    fn describe(&self) -> KindDescription {
        KindDescription::text("dialect", json!({ "$ref": "#/$defs/dialect" }))
    }
}

pub(super) fn read_name(value: &DeValue<'_>) -> Result<String, ValueError> {
    let name = text(value)?;
    if name.is_empty() {
        return Err(ValueError::new("an empty name"));
    }
    if name.chars().count() > 64 {
        return Err(ValueError::new("a name of more than 64 characters"));
    }
    if let Some(bad) = name.chars().find(|c| !c.is_alphanumeric() && !matches!(c, '-' | '_' | '.'))
    {
        return Err(ValueError::with_help(
            format!("`{}` has {bad:?} in it", truncate(&name)),
            "names are of letters, digits, `-`, `_` and `.`",
        ));
    }
    Ok(name)
}

/// Reads the `name` of a row; a row without a name is reported and skipped.
pub(super) fn read_row_name(
    row: &mut TableReader<'_>,
    kind: &str,
    report: &mut Report,
    read: impl Fn(&DeValue<'_>) -> Result<String, ValueError>,
) -> Option<Located<String>> {
    let before = report.findings.len();
    let found = row.read("name", report, read);
    match &found {
        Some(name) => row.set_path(format!("{kind}.{}", name.value)),
        // A bad name has been reported already.
        None if report.findings.len() == before => {
            report.missing(
                &row.span,
                format!("a [[{kind}]] without `name`"),
                Some("add a line `name = \"…\"`".to_owned()),
            );
        }
        None => {}
    }
    found
}

pub(super) fn read_reference(value: &DeValue<'_>) -> Result<Reference, ValueError> {
    let written = value.as_str().ok_or_else(|| {
        ValueError::new(format!("expected a key reference, found {}", reader::type_name(value)))
    })?;
    Reference::parse(written).map_err(ValueError::from_sentence)
}

fn read_dialect(value: &DeValue<'_>) -> Result<Dialect, ValueError> {
    let name = text(value)?;
    parse_dialect(&name)
}

pub(super) fn parse_dialect(name: &str) -> Result<Dialect, ValueError> {
    let names = Dialect::ALL.map(Dialect::name);
    Dialect::parse(name).ok_or_else(|| ValueError {
        title: format!("\"{}\" is not a dialect: {}", truncate(name), names.join(", ")),
        help: suggest::nearest(name, names).map(|known| format!("did you mean \"{known}\"?")),
    })
}

/// A list of patterns and exclusions. Each invalid one is reported at its own position.
pub(super) struct PatternList;

impl ValueKind for PatternList {
    type Value = Patterns;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Patterns> {
        let list = List(PATTERN).read(path, node, report)?;
        Patterns::parse(list.iter().map(String::as_str)).ok()
    }

    fn write(&self, patterns: &Patterns) -> Option<Value> {
        let include = patterns.include.iter().map(|pattern| pattern.text().to_owned());
        let exclude = patterns.exclude.iter().map(|pattern| format!("!{}", pattern.text()));
        Some(Value::Array(include.chain(exclude).collect()))
    }

    fn describe(&self) -> KindDescription {
        List(PATTERN).describe()
    }
}

const PATTERN: Text<String> =
    Text { type_name: "pattern", read: read_pattern, write: |pattern| Some(pattern.clone()) };

fn read_pattern(value: &DeValue<'_>) -> Result<String, ValueError> {
    let pattern = text(value)?;
    if pattern.trim_start_matches('!').is_empty() {
        return Err(ValueError::with_help(
            "an empty pattern",
            "write a name, a glob such as \"gpt-*\", \"re:REGEX\" or \"!EXCLUSION\"",
        ));
    }
    match Patterns::parse([pattern.as_str()]) {
        Ok(_) => Ok(pattern),
        Err((_, sentence)) => Err(ValueError::new(format!(
            "`{}` is no regular expression: {sentence}",
            truncate(&pattern)
        ))),
    }
}

/// A table of text to text.
pub(super) struct TextMap;

impl ValueKind for TextMap {
    type Value = BTreeMap<String, String>;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Self::Value> {
        let mut table = TableReader::from_node(path, node, report)?;
        let rows = table.remaining().into_iter();
        let each = rows.filter_map(|(name, node)| {
            let text = TEXT.read(&table.key_path(&name.value), node, report)?;
            Some((name.value, text))
        });
        Some(each.collect())
    }

    fn write(&self, map: &Self::Value) -> Option<Value> {
        let each = map.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        (!map.is_empty()).then(|| Value::InlineTable(each.collect::<InlineTable>()))
    }

    fn describe(&self) -> KindDescription {
        describe_text_map()
    }
}

pub(super) fn describe_text_map() -> KindDescription {
    let schema = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    KindDescription::new("table of text", schema)
}
