//! Targets of models and aliases: which upstream serves a name, and under which name.

use std::sync::Arc;

use toml::de::DeValue;

use super::MAX_COUNT;
use crate::{
    base::suggest,
    config::{
        kinds::{KindDescription, Maybe, Number, Text, ValueKind, count},
        presets,
        problem::Report,
        reader::{Node, SourceSpan, TableReader, ValueError, text, truncate},
        table::{ConfigTable, config, table_schema},
    },
};

/// The name of the upstream that always exists.
pub(in crate::config) const DEMO_NAME: &str = "demo";

config! {
    /// A target of a model: "UPSTREAM:MODEL", or a table with these keys.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ModelTarget in "model.targets" {
        /// Upstream of the target; if omitted, any that serves the model
        upstream: Option<Arc<str>> = None, Maybe(TARGET);
        /// Name of the model at the upstream
        model: Arc<str> = Arc::default(), TARGET, required;
        /// Instead of the upstream's priority
        priority: Option<u32> = None, Maybe(count(0, MAX_COUNT));
        /// Instead of the upstream's weight
        weight: Option<f64> = None, Maybe(Number(0.001, 1e6));
    }
}

/// A name that is not empty.
pub(super) const TARGET: Text<Arc<str>> = Text {
    type_name: "text",
    read: |value| match text(value)? {
        name if name.trim().is_empty() || name.contains(char::is_control) => {
            Err(ValueError::new("an empty name"))
        }
        name => Ok(name.into()),
    },
    write: |name| Some(name.to_string()),
};

pub(super) fn describe_targets() -> KindDescription {
    let table = table_schema(&ModelTarget::keys());
    let schema = serde_json::json!({ "anyOf": [{ "type": "string" }, table] });
    KindDescription::text("text or table", schema).one_or_many()
}

/// The names of the file's upstreams, those included that cannot be used.
pub(in crate::config) struct UpstreamNames(pub(in crate::config) Vec<String>);

impl UpstreamNames {
    /// Whether an upstream has this name: in the file, of a preset (it may be discovered), or
    /// `demo`.
    fn contains(&self, name: &str) -> bool {
        name == DEMO_NAME
            || presets::find(name).is_some()
            || self.0.iter().any(|known| known == name)
    }

    /// Splits `upstream:model` if the first part is an upstream.
    pub(in crate::config) fn split_target<'a>(&self, text: &'a str) -> (Option<&'a str>, &'a str) {
        match text.split_once(':') {
            Some((upstream, model)) if self.contains(upstream) && !model.is_empty() => {
                (Some(upstream), model)
            }
            _ => (None, text),
        }
    }

    fn nearest(&self, name: &str) -> Option<&str> {
        let file = self.0.iter().map(String::as_str);
        suggest::nearest(name, file.chain(presets::all().iter().map(|preset| &*preset.name)))
    }

    /// Reports a target of the form `x:y` whose `x` is not an upstream, unless it is a model name
    /// with a colon in it.
    pub(super) fn check_target(
        &self,
        text: &str,
        span: &SourceSpan,
        path: &str,
        report: &mut Report,
    ) {
        let Some((upstream, model)) = text.split_once(':') else { return };
        if self.contains(upstream) || upstream == "re" {
            return;
        }
        // `llama3:8b`, `qwen2.5:latest`, `vendor/model:free`
        let tag = model.starts_with(|c: char| c.is_ascii_digit()) || model == "latest";
        let model_name =
            upstream.contains(['/', '.', '*']) || upstream.chars().any(|c| c.is_ascii_digit());
        if tag || (model_name && self.nearest(upstream).is_none()) {
            return;
        }
        self.report_unknown(upstream, Some(model), span, path, report);
    }

    fn report_unknown(
        &self,
        name: &str,
        model: Option<&str>,
        span: &SourceSpan,
        path: &str,
        report: &mut Report,
    ) {
        // Known providers are upstreams without a row, so an unknown name needs an address.
        let add = format!("`aiproxy upstream add {name} --base-url URL`");
        let help = match (self.nearest(name), model) {
            (Some(known), _) => format!("did you mean `{known}`?"),
            (None, Some(model)) => format!(
                "{add} adds it; a model whose name has a colon is written \
                 {{ model = \"{name}:{model}\" }}"
            ),
            (None, None) => format!("{add} adds it"),
        };
        report.error(
            span,
            format!("`{path}`: there is no upstream `{}`", truncate(name)),
            Some(help),
        );
    }
}

/// Reads `targets` of a model: one or several, each a text or a table.
pub(super) fn read_targets(
    row: &mut TableReader<'_>,
    names: &UpstreamNames,
    report: &mut Report,
) -> Vec<ModelTarget> {
    let path = row.key_path("targets");
    let Some(node) = row.take_node("targets") else {
        report_no_targets(&path, &row.span, report);
        return Vec::new();
    };
    let items = match node.get_ref() {
        DeValue::Array(items) => items.iter().collect(),
        _ => vec![node],
    };
    if items.is_empty() {
        report_no_targets(&path, &row.span, report);
    }
    items.into_iter().filter_map(|item| read_target(&path, item, names, report)).collect()
}

fn report_no_targets(path: &str, row: &SourceSpan, report: &mut Report) {
    let help = "write targets = [\"UPSTREAM:MODEL\"]".to_owned();
    report.missing(row, format!("`{path}` has no targets"), Some(help));
}

fn read_target(
    path: &str,
    node: &Node<'_>,
    names: &UpstreamNames,
    report: &mut Report,
) -> Option<ModelTarget> {
    let DeValue::Table(_) = node.get_ref() else {
        let text = TARGET.read(path, node, report)?;
        names.check_target(&text, &node.span(), path, report);
        let (upstream, model) = names.split_target(&text);
        let upstream = upstream.map(Arc::from);
        return Some(ModelTarget { upstream, model: model.into(), ..ModelTarget::default() });
    };
    let mut table = TableReader::from_node(path, node, report)?;
    let target = ModelTarget::read_keys(&mut table, ModelTarget::default(), report);
    let spans = table.finish(report);
    if spans.get("model").is_none() {
        report.missing(&spans.table, format!("`{path}`: a target without `model`"), None);
    }
    if let (Some(upstream), Some(span)) = (&target.upstream, spans.get("upstream"))
        && !names.contains(upstream)
    {
        names.report_unknown(upstream, None, span, path, report);
    }
    (!target.model.is_empty()).then_some(target)
}
