//! `keys` of `[[upstream]]`: credentials as references, or as tables with limits of their own.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use toml::de::DeValue;
use toml_edit::{InlineTable, Value};

use super::{
    FILE_PRIORITY, MAX_COUNT, MONTH,
    budget::{Budget, BudgetRows},
    names::{ARC_TEXT, REFERENCE},
    path_base::PathBase,
    seconds,
};
use crate::{
    base::pattern::Pattern,
    config::{
        ids::{IdInterner, KeyId},
        kinds::{Flag, KindDescription, Maybe, Number, Text, TimeSpan, ValueKind, count},
        presets::{self, Preset},
        problem::Report,
        reader::{Node, SourceSpan, TableReader, ValueError, text},
        table::{ConfigTable, config, inline_table, table_schema},
    },
    secrets::Reference,
};

config! {
    /// A credential of an upstream: a reference, or a table with these keys.
    #[derive(Clone, Debug)]
    pub struct UpstreamKey in "upstream.keys" {
        /// Where the key is: keyring:LABEL, env:NAME, file:PATH, cmd:PROGRAM ARGS or vault:LABEL
        reference as "ref": Reference = Reference::Env(String::new()), REFERENCE, required;
        /// Name of the key; if omitted, the last part of the reference
        label: Arc<str> = Arc::default(), LABEL, inherited;
        /// Keys with the same account share their limits; if omitted, the key has its own account
        account: Arc<str> = Arc::default(), ARC_TEXT, inherited;
        /// Lower is tried first
        priority: u32 = FILE_PRIORITY, count(0, MAX_COUNT);
        /// Share inside a tier
        weight: f64 = 1.0, Number(0.001, 1e6);
        /// Requests per minute, all models together; 0 is unlimited
        rpm: u32 = 0, count(0, u32::MAX), omitted;
        /// Tokens per minute, all models together; 0 is unlimited
        tpm: u32 = 0, count(0, u32::MAX), omitted;
        /// Concurrent requests; 0 is unlimited
        max_concurrency: u32 = 0, count(0, MAX_COUNT), omitted;
        /// Limits of some models, by the upstream's names; the first match applies in addition:
        /// { "glm-*" = { rpm = 10 } }
        limits: Vec<(Pattern, KeyLimit)> = Vec::new(), ModelLimits;
        /// Spending limit; beyond it other keys serve until the period ends
        budget: Vec<Budget> = Vec::new(), BudgetRows;
        /// How often the reference is read again
        refresh: Option<Duration> = None, Maybe(TimeSpan(seconds(1), MONTH));
        /// Whether the key is used
        enabled: bool = true, Flag, omitted;
    }
    derived {
        id: KeyId = KeyId(0);
        /// `upstream/label`
        name: Arc<str> = Arc::default();
    }
}

config! {
    /// Requests and tokens per minute.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct KeyLimit in "upstream.keys.limits" {
        /// Requests per minute; 0 is unlimited
        rpm: u32 = 0, count(0, u32::MAX), omitted;
        /// Tokens per minute; 0 is unlimited
        tpm: u32 = 0, count(0, u32::MAX), omitted;
    }
}

impl KeyLimit {
    #[must_use]
    pub fn is_unlimited(self) -> bool {
        self == Self::default()
    }
}

impl UpstreamKey {
    /// Returns the limit of the key for all models together.
    #[must_use]
    pub fn limit(&self) -> KeyLimit {
        KeyLimit { rpm: self.rpm, tpm: self.tpm }
    }

    /// Returns the additional limit of the key for a model.
    #[must_use]
    pub fn limit_for(&self, model: &str) -> KeyLimit {
        self.limits
            .iter()
            .find(|(pattern, _)| pattern.matches(model))
            .map_or_else(KeyLimit::default, |(_, limit)| *limit)
    }

    /// Names the key after its upstream and label, and numbers it.
    pub(in crate::config) fn named(
        self,
        upstream: &str,
        label: String,
        ids: &mut IdInterner,
    ) -> Self {
        let name: Arc<str> = format!("{upstream}/{label}").into();
        let account = if self.account.is_empty() { name.clone() } else { self.account };
        Self { id: ids.key_id(&name), label: label.into(), account, name, ..self }
    }
}

const LABEL: Text<Arc<str>> =
    Text { type_name: "name", read: read_label, write: |label| Some(label.to_string()) };

fn read_label(value: &DeValue<'_>) -> Result<Arc<str>, ValueError> {
    let label = text(value)?;
    if label.is_empty() || label.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
    {
        return Err(ValueError::with_help(
            "a label is one word without `/`",
            "as in label = \"work\"",
        ));
    }
    Ok(label.into())
}

/// Limits by model: `{ "glm-*" = { rpm = 10 } }`.
struct ModelLimits;

impl ValueKind for ModelLimits {
    type Value = Vec<(Pattern, KeyLimit)>;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Self::Value> {
        let mut rows = TableReader::from_node(path, node, report)?;
        let mut out = Vec::new();
        for (name, node) in rows.remaining() {
            let path = rows.key_path(&name.value);
            let pattern = Pattern::parse(&name.value)
                .ok()
                .filter(|_| !name.value.is_empty() && !name.value.starts_with('!'));
            let Some(pattern) = pattern else {
                report.error(
                    &name.span,
                    format!("`{path}`: not a model's name or pattern"),
                    Some("write it as in \"glm-*\"".to_owned()),
                );
                continue;
            };
            if let Some(mut row) = TableReader::from_node(path, node, report) {
                out.push((pattern, KeyLimit::read_keys(&mut row, KeyLimit::default(), report)));
                row.finish(report);
            }
        }
        Some(out)
    }

    fn write(&self, limits: &Self::Value) -> Option<Value> {
        let each = limits.iter().map(|(pattern, limit)| (pattern.text(), inline_table(limit)));
        (!limits.is_empty()).then(|| Value::InlineTable(each.collect::<InlineTable>()))
    }

    fn describe(&self) -> KindDescription {
        let limit = table_schema(&KeyLimit::keys());
        let schema = json!({ "type": "object", "additionalProperties": limit });
        KindDescription::new("table of limits by model", schema)
    }
}

pub(super) fn describe_keys() -> KindDescription {
    let table = table_schema(&UpstreamKey::keys());
    let schema = json!({ "anyOf": [{ "type": "string" }, table] });
    KindDescription::text("reference or table", schema).one_or_many()
}

/// Writes a key as a table.
pub(super) fn write_upstream_key(key: &UpstreamKey) -> Value {
    let mut keys = key.written_keys();
    keys.retain(|(name, _)| *name != "account" || key.account != key.name);
    Value::InlineTable(keys.into_iter().collect())
}

/// The kind of a literal key, by its first characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum KeyKind {
    /// A client key of aiproxy.
    Client,
    /// A key for this preset.
    Provider(&'static str),
    Unknown,
}

impl KeyKind {
    pub(in crate::config) fn detect(key: &str) -> Self {
        if key.starts_with("aip-") {
            return Self::Client;
        }
        presets::by_key_prefix(key).map_or(Self::Unknown, |preset| Self::Provider(&preset.name))
    }
}

/// Returns the label of a key: as written, else from its reference; literals are numbered.
pub(in crate::config) fn key_label(
    written: Option<&str>,
    reference: &Reference,
    literals: &mut usize,
) -> String {
    if matches!(reference, Reference::Literal(_)) {
        *literals += 1;
    }
    match (written, reference.default_label()) {
        (Some(label), _) => label.to_owned(),
        (None, Some(label)) => label
            .chars()
            .map(|c| if c.is_whitespace() || c.is_control() { '-' } else { c })
            .collect(),
        (None, None) => format!("literal-{literals}"),
    }
}

/// Reads `keys` of an upstream: one or several, each a reference or a table.
pub(super) fn read_upstream_keys(
    row: &mut TableReader<'_>,
    upstream: &str,
    preset: Option<&Preset>,
    path_base: &PathBase<'_>,
    ids: &mut IdInterner,
    report: &mut Report,
) -> Vec<Arc<UpstreamKey>> {
    let Some(node) = row.take_node("keys") else { return Vec::new() };
    let path = row.key_path("keys");
    let items = match node.get_ref() {
        DeValue::Array(items) => items.iter().collect(),
        _ => vec![node],
    };
    let mut out: Vec<Arc<UpstreamKey>> = Vec::new();
    let mut spans = Vec::new();
    let mut literals = 0;
    for item in items {
        let Some(written) = read_upstream_key(&path, item, report) else { continue };
        let WrittenKey { mut key, span, label_span, kind } = written;
        if matches!(key.reference, Reference::Literal(_)) {
            check_literal(&path, upstream, &span, kind, preset, report);
        }
        let label = Some(&*key.label).filter(|label| !label.is_empty());
        let label = key_label(label, &key.reference, &mut literals);
        let label_span = label_span.unwrap_or(span);
        if let Some(first) = out.iter().position(|known| *known.label == label) {
            let help = "give one of them another label: { ref = \"…\", label = \"second\" }";
            report.duplicate(
                &label_span,
                &spans[first],
                format!("two keys of `upstream.{upstream}` are called `{label}`"),
                Some(help.to_owned()),
            );
            continue;
        }
        spans.push(label_span);
        key.reference = path_base.absolute_reference(key.reference);
        out.push(Arc::new(key.named(upstream, label, ids)));
    }
    out
}

/// A key as written, before it has its name.
struct WrittenKey {
    key: UpstreamKey,
    /// The position of its reference.
    span: SourceSpan,
    label_span: Option<SourceSpan>,
    kind: KeyKind,
}

fn read_upstream_key(path: &str, node: &Node<'_>, report: &mut Report) -> Option<WrittenKey> {
    let kind_of = |text: Option<&str>| text.map_or(KeyKind::Unknown, KeyKind::detect);
    let DeValue::Table(fields) = node.get_ref() else {
        let reference = REFERENCE.read(path, node, report)?;
        let key = UpstreamKey { reference, ..UpstreamKey::default() };
        let kind = kind_of(node.get_ref().as_str());
        return Some(WrittenKey { key, span: node.span(), label_span: None, kind });
    };
    let written = fields.get("ref").and_then(|reference| reference.get_ref().as_str());
    let mut table = TableReader::from_node(path, node, report)?;
    let key = UpstreamKey::read_keys(&mut table, UpstreamKey::default(), report);
    let spans = table.finish(report);
    let Some(span) = spans.get("ref").cloned() else {
        report.missing(
            &spans.table,
            format!("`{path}`: a key without `ref`"),
            Some("write { ref = \"keyring:UPSTREAM/LABEL\" }".to_owned()),
        );
        return None;
    };
    let label_span = spans.get("label").cloned().filter(|_| !key.label.is_empty());
    let readable = written.is_some_and(|text| Reference::parse(text).is_ok());
    readable.then(|| WrittenKey { key, span, label_span, kind: kind_of(written) })
}

/// Reports a key that stands in the file itself, and one that belongs elsewhere.
fn check_literal(
    path: &str,
    upstream: &str,
    span: &SourceSpan,
    kind: KeyKind,
    preset: Option<&Preset>,
    report: &mut Report,
) {
    if kind == KeyKind::Client {
        report.error(
            span,
            format!("`{path}`: this is a client key of aiproxy (aip-…), not a key of a provider"),
            Some(format!("put the provider's key there: `aiproxy key add {upstream}`")),
        );
        return;
    }
    warn_literal(span, path, report);
    if let (KeyKind::Provider(other), Some(preset)) = (kind, preset)
        && other != &*preset.name
        && preset.key_prefix.is_some()
    {
        let title = presets::find(other).map_or(other, |other| &other.title);
        report.warn(
            span,
            format!("`{path}`: this looks like a key of {title}, not of {}", preset.title),
            None,
        );
    }
}

/// Warns about a key that stands in the file itself.
pub(in crate::config) fn warn_literal(span: &SourceSpan, path: &str, report: &mut Report) {
    let help = "`aiproxy key adopt` moves it into the keyring".to_owned();
    report.warn(span, format!("`{path}`: a key stands in the file itself"), Some(help));
}
