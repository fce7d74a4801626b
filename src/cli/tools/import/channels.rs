//! Reads channels: exports of One-API and new-api, and the YAML file of the other AI Proxy.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    cli::tools::import::{
        address::{add_key, place, toml_text, with_path},
        draft::{Draft, UpstreamDraft},
        facts::{self, COMPATIBLE},
        source::{Fields, ImportSource, texts_of},
    },
    config::presets,
    ir::op::Dialect,
};

/// The name of the YAML file's format, as in `assets/import.toml`.
pub(super) const YAML: &str = "aiproxy-yaml";
pub(super) const ONE_API: &str = "one-api";
pub(super) const NEW_API: &str = "new-api";

/// Columns that only new-api has.
const NEW_API_MARKS: [&str; 8] = [
    "tag",
    "auto_ban",
    "setting",
    "settings",
    "param_override",
    "header_override",
    "channel_info",
    "status_code_mapping",
];
/// Common priority of upstreams.
const FIRST_PRIORITY: usize = 10;
/// The value of `status` of a channel that is used.
const ENABLED: f64 = 1.0;
/// The weight of a channel of the YAML file that names none.
const YAML_WEIGHT: f64 = 10.0;

/// Returns the channels of an export: a list, or one inside the answer of the API.
pub(super) fn rows_of(tree: &Value) -> Option<&Vec<Value>> {
    let inner = ["data", "channels", "items"].iter().find_map(|key| tree.get(key));
    let list = match (tree, inner) {
        (Value::Array(list), _) | (_, Some(Value::Array(list))) => list,
        (_, Some(inner)) => inner.get("items").or_else(|| inner.get("data"))?.as_array()?,
        _ => return None,
    };
    let is_channel = |row: &Value| row.get("type").is_some() && row.get("models").is_some();
    list.iter().any(is_channel).then_some(list)
}

/// Returns which program exported the channels.
pub(super) fn exporter(rows: &[Value]) -> &'static str {
    let is_new =
        |row: &Value| NEW_API_MARKS.iter().any(|key| row.get(key).is_some_and(|v| !v.is_null()));
    if rows.iter().any(is_new) { NEW_API } else { ONE_API }
}

/// Reads an export.
pub(super) fn read_export(
    source: &ImportSource,
    format: &'static str,
    tree: &Value,
    draft: &mut Draft,
) {
    let rows = rows_of(tree).cloned().unwrap_or_default();
    let priorities: BTreeSet<i64> = rows.iter().map(priority_of).collect();
    for row in rows {
        // The highest is tried first there, and the lowest here.
        let rank = priorities.iter().rev().position(|known| *known == priority_of(&row));
        read_channel(source, format, row, rank.unwrap_or_default(), draft);
    }
}

fn priority_of(row: &Value) -> i64 {
    row.get("priority").and_then(Value::as_i64).unwrap_or_default()
}

/// Reads the YAML file.
pub(super) fn read_yaml(source: &ImportSource, tree: Value, draft: &mut Draft) {
    let mut top = Fields::new(tree, "");
    for row in top.rows("channels") {
        read_channel(source, YAML, row, 0, draft);
    }
    let mut options = top.table("options");
    if let Some(retries) = options.count("RetryTimes") {
        draft.retries(retries, "options.RetryTimes");
    }
    options.finish(source, draft);
    if !top.rows("modelconfigs").is_empty() {
        draft.lose("modelconfigs", facts::reason("modelconfigs"), source.line_of("modelconfigs"));
    }
    top.finish(source, draft);
}

fn read_channel(
    source: &ImportSource,
    format: &'static str,
    row: Value,
    rank: usize,
    draft: &mut Draft,
) {
    let mut row = Fields::new(row, if format == YAML { "channels" } else { "channel" });
    let kind = row.text("type").or_else(|| row.text("type_name")).unwrap_or_default();
    drop(row.take("type_name"));
    let name = row.text("name").unwrap_or_else(|| format!("channel-{kind}"));
    let line = source.line_of(&name);
    let Some(preset) = facts::channel_preset(format, &kind) else {
        let why = if kind.is_empty() {
            "it has no type".to_owned()
        } else {
            format!("no provider here has the API of its type {kind}")
        };
        return draft.lose(name, why, line);
    };
    let mut upstream = UpstreamDraft { name: name.clone(), ..UpstreamDraft::default() };
    let url = row.text("base_url").unwrap_or_default();
    if let Err(why) = locate(&mut upstream, format, preset, &url) {
        return draft.lose(name, why, line);
    }
    read_keys(&mut row, &mut upstream, line, draft);
    read_models(&mut row, &mut upstream);
    let status = row.number("status");
    // Without a status, a channel of the YAML file is not used.
    upstream.disabled = status.map_or(format == YAML, |status| status != ENABLED);
    let (weight, priority) = (row.number("weight"), row.number("priority"));
    let weight = if format == YAML { priority.map(|n| n / YAML_WEIGHT) } else { weight };
    if let Some(weight) = weight.filter(|n| (0.001..=1e6).contains(n)) {
        upstream.fields.push(("weight", format!("{weight:?}")));
    }
    if rank > 0 {
        upstream.fields.push(("priority", (FIRST_PRIORITY + rank).to_string()));
    }
    read_connection(&mut row, &mut upstream);
    row.finish(source, draft);
    draft.upstreams.push(upstream);
}

/// Gives the upstream its address: its own, with what the program appends, or the preset's.
fn locate(
    upstream: &mut UpstreamDraft,
    format: &str,
    preset: &'static str,
    url: &str,
) -> Result<(), String> {
    let known = presets::find(preset);
    let dialect = known.map_or(Dialect::Openai, |preset| preset.endpoints[0].dialect);
    if url.is_empty() {
        if preset == COMPATIBLE || known.is_none_or(|preset| preset.needs_url) {
            return Err("it has no base_url".to_owned());
        }
        upstream.preset = Some(preset.to_owned());
        return Ok(());
    }
    if known.is_some_and(|preset| preset.needs_url) {
        let path = facts::channel_path(preset);
        upstream.preset = Some(preset.to_owned());
        upstream.base_url = Some(with_path(url, path));
        return Ok(());
    }
    // The YAML file has the version in the address, except for the Gemini API.
    let path = match dialect {
        Dialect::Openai | Dialect::Anthropic if format == YAML => "",
        _ => facts::channel_path(preset),
    };
    place(upstream, &with_path(url, path), dialect).map_err(|why| format!("its base_url: {why}"))
}

/// Several keys stand on several lines, or in a JSON list.
fn read_keys(row: &mut Fields, upstream: &mut UpstreamDraft, line: usize, draft: &mut Draft) {
    let text = row.text("key").unwrap_or_default();
    let list = serde_json::from_str::<Vec<String>>(&text);
    let keys = list.unwrap_or_else(|_| text.lines().map(|key| key.trim().to_owned()).collect());
    let needs_key = upstream.preset.as_deref().and_then(presets::find);
    for key in keys.iter().filter(|key| !key.is_empty()) {
        if !add_key(upstream, key) {
            draft.lose(format!("{}.key", upstream.name), "it cannot be a key", line);
        }
    }
    if upstream.keys.is_empty() && needs_key.is_none_or(presets::Preset::needs_key) {
        let why = "its key is not in the file; `aiproxy key add` adds one";
        draft.lose(format!("{}.key", upstream.name), why, line);
    }
}

fn read_models(row: &mut Fields, upstream: &mut UpstreamDraft) {
    let models = row.take("models").map(|value| texts_of(&value)).unwrap_or_default();
    upstream.models = (!models.is_empty()).then_some(models);
    for (name, model) in row.text_map("model_mapping") {
        if name != model {
            upstream.rename.insert(name, model);
        }
    }
}

/// Reads the proxy, certificates and headers, which new-api keeps as JSON in texts.
fn read_connection(row: &mut Fields, upstream: &mut UpstreamDraft) {
    let mut proxy = row.text("proxy_url");
    for key in ["setting", "settings"] {
        let more = row.text_map(key).into_iter().find(|(name, _)| name == "proxy");
        proxy = proxy.or(more.map(|(_, url)| url));
    }
    if let Some(url) = proxy {
        upstream.fields.push(("proxy", toml_text(&url)));
    }
    if row.take("skip_tls_verify") == Some(Value::Bool(true)) {
        upstream.fields.push(("insecure_tls", "true".to_owned()));
    }
    let headers = row.text_map("header_override").into_iter();
    let headers: toml_edit::InlineTable =
        headers.filter(|(_, value)| !value.contains('{')).collect();
    if !headers.is_empty() {
        upstream.fields.push(("headers", toml_edit::Value::InlineTable(headers).to_string()));
    }
}
