//! Reads the `config.yaml` of CLIProxyAPI: lists of keys by kind of provider, and servers of the
//! OpenAI dialect.

use serde_json::Value;

use crate::{
    cli::tools::import::{
        address::{add_key, key_value, place, toml_text, with_path},
        draft::{AliasDraft, AliasTarget, Draft, ProjectDraft, UpstreamDraft},
        source::{Fields, ImportSource, text_of},
    },
    ir::op::Dialect,
};

/// The lists of keys: the preset of each, its dialect, the path behind the address, and the models
/// that an entry serves if it names none.
const KINDS: [(&str, &str, Dialect, &str, &str); 4] = [
    ("gemini-api-key", "gemini", Dialect::Gemini, "/v1beta", "gemini-*"),
    ("generative-language-api-key", "gemini", Dialect::Gemini, "/v1beta", "gemini-*"),
    ("claude-api-key", "anthropic", Dialect::Anthropic, "/v1", "claude-*"),
    ("codex-api-key", "openai", Dialect::Responses, "", "gpt-*"),
];

/// Keys by which the file is recognised.
pub(super) const MARKS: [&str; 6] = [
    "openai-compatibility",
    "gemini-api-key",
    "generative-language-api-key",
    "claude-api-key",
    "codex-api-key",
    "api-keys",
];

pub(super) fn read(source: &ImportSource, tree: Value, draft: &mut Draft) {
    let mut top = Fields::new(tree, "");
    let host = top.text("host").unwrap_or_default();
    if let Some(port) = top.text("port") {
        draft.listen(&host, &port, "port");
    }
    let proxy = top.text("proxy-url");
    if let Some(retries) = top.count("request-retry") {
        draft.retries(retries, "request-retry");
    }
    if top.take("debug") == Some(Value::Bool(true)) {
        draft.log_level("debug", "debug");
    }
    for (list, preset, dialect, path, family) in KINDS {
        let kind = Kind { list, preset, dialect, path, family };
        for row in entries(top.take(list)) {
            read_entry(source, row, &kind, proxy.as_deref(), draft);
        }
    }
    let list = "openai-compatibility";
    let kind = Kind { list, preset: "", dialect: Dialect::Openai, path: "", family: "" };
    for row in entries(top.take(list)) {
        read_entry(source, row, &kind, proxy.as_deref(), draft);
    }
    read_clients(source, top.take("api-keys"), draft);
    let mut routing = top.table("routing");
    match routing.text("strategy").as_deref() {
        Some("round-robin") => draft.set("routing.strategy", "\"round_robin\"".into(), "routing"),
        Some("fill-first") => draft.set("routing.strategy", "\"priority\"".into(), "routing"),
        _ => {}
    }
    routing.finish(source, draft);
    top.finish(source, draft);
}

struct Kind {
    list: &'static str,
    /// Empty if an entry must name its address.
    preset: &'static str,
    dialect: Dialect,
    path: &'static str,
    family: &'static str,
}

/// The entries of a list; a text alone is a key.
fn entries(list: Option<Value>) -> Vec<Value> {
    let Some(Value::Array(list)) = list else { return Vec::new() };
    let each = list.into_iter().map(|one| match one {
        Value::String(key) => serde_json::json!({ "api-key": key }),
        other => other,
    });
    each.collect()
}

fn read_entry(
    source: &ImportSource,
    row: Value,
    kind: &Kind,
    proxy: Option<&str>,
    draft: &mut Draft,
) {
    let mut row = Fields::new(row, kind.list);
    let name = row.text("name").unwrap_or_else(|| kind.preset.to_owned());
    let name = if name.is_empty() { "openai-compatible".to_owned() } else { name };
    let url = row.text("base-url");
    let line = url.as_deref().map_or(source.line_of(kind.list), |url| source.line_of(url));
    let mut upstream = UpstreamDraft { name: name.clone(), ..UpstreamDraft::default() };
    let mut proxy = row.text("proxy-url").or_else(|| proxy.map(str::to_owned));
    for key in row_keys(&mut row, &mut proxy) {
        if !add_key(&mut upstream, &key) {
            draft.lose(format!("{name}.api-key"), "it cannot be a key", line);
        }
    }
    // A server other than the provider's may list no models.
    let family = if url.is_some() { kind.family } else { "" };
    read_models(&mut row, family, &mut upstream);
    let prefix = row.text("prefix");
    let headers = row.text_map("headers");
    upstream.disabled = row.take("disabled") == Some(Value::Bool(true));
    row.finish(source, draft);
    match &url {
        Some(url) => {
            if let Err(why) = place(&mut upstream, &with_path(url, kind.path), kind.dialect) {
                return draft.lose(name, format!("its base-url: {why}"), line);
            }
        }
        None if kind.preset.is_empty() => return draft.lose(name, "it has no base-url", line),
        None => upstream.preset = Some(kind.preset.to_owned()),
    }
    if let Some(proxy) = proxy.filter(|proxy| !proxy.is_empty()) {
        upstream.fields.push(("proxy", toml_text(&proxy)));
    }
    if !headers.is_empty() {
        let table: toml_edit::InlineTable = headers.into_iter().collect();
        upstream.fields.push(("headers", toml_edit::Value::InlineTable(table).to_string()));
    }
    let at = add_or_join(upstream, draft);
    if let Some(prefix) = prefix {
        add_prefix(source, &prefix, at, draft);
    }
}

/// The keys of an entry, which newer files write with a proxy for each.
fn row_keys(row: &mut Fields, proxy: &mut Option<String>) -> Vec<String> {
    let mut keys: Vec<String> = row.text("api-key").into_iter().collect();
    keys.extend(row.texts("api-keys"));
    for entry in entries(row.take("api-key-entries")) {
        let mut entry = Fields::new(entry, "api-key-entries");
        keys.extend(entry.text("api-key"));
        *proxy = entry.text("proxy-url").or_else(|| proxy.take());
    }
    keys
}

/// Reads the models, whose alias is the name for clients.
fn read_models(row: &mut Fields, family: &str, upstream: &mut UpstreamDraft) {
    let mut models = Vec::new();
    for model in row.rows("models") {
        let name = model.get("name").and_then(text_of).or_else(|| text_of(&model));
        let Some(name) = name else { continue };
        let alias = model.get("alias").and_then(text_of).unwrap_or_else(|| name.clone());
        if alias != name {
            upstream.rename.insert(alias.clone(), name);
        }
        models.push(alias);
    }
    if models.is_empty() && !family.is_empty() {
        models.push(family.to_owned());
    }
    models.extend(row.texts("excluded-models").into_iter().map(|model| format!("!{model}")));
    upstream.models = (!models.is_empty()).then_some(models);
}

/// Adds an upstream, or only its keys if one like it is there already. Returns its position.
fn add_or_join(upstream: UpstreamDraft, draft: &mut Draft) -> usize {
    let is_like = |known: &UpstreamDraft| {
        (&known.name, &known.preset, &known.base_url, &known.models, &known.rename, &known.fields)
            == (
                &upstream.name,
                &upstream.preset,
                &upstream.base_url,
                &upstream.models,
                &upstream.rename,
                &upstream.fields,
            )
            && known.disabled == upstream.disabled
    };
    if let Some(at) = draft.upstreams.iter().position(is_like) {
        let known = &mut draft.upstreams[at];
        for key in upstream.keys {
            if !known.keys.iter().any(|one| one.value.is_same(&key.value)) {
                known.keys.push(key);
            }
        }
        return at;
    }
    draft.upstreams.push(upstream);
    draft.upstreams.len() - 1
}

/// Adds the names `PREFIX/MODEL`.
fn add_prefix(source: &ImportSource, prefix: &str, at: usize, draft: &mut Draft) {
    let models: Vec<String> = draft.upstreams[at].models.iter().flatten().cloned().collect();
    let exact: Vec<_> =
        models.into_iter().filter(|name| !name.starts_with('!') && !name.contains('*')).collect();
    if exact.is_empty() {
        let why = "the names of its models are needed for their prefix";
        draft.lose(format!("prefix {prefix}"), why, source.line_of(prefix));
    }
    for model in exact {
        let name = format!("{prefix}/{model}");
        if !draft.aliases.iter().any(|known| known.name == name) {
            draft.aliases.push(AliasDraft { name, target: AliasTarget::At(at, model) });
        }
    }
}

fn read_clients(source: &ImportSource, list: Option<Value>, draft: &mut Draft) {
    for entry in entries(list) {
        let mut entry = Fields::new(entry, "api-keys");
        let name = entry.text("name").unwrap_or_else(|| "cliproxyapi".to_owned());
        let key = entry.text("api-key").or_else(|| entry.text("key"));
        match key.as_deref().and_then(key_value) {
            Some(key) => draft.projects.push(ProjectDraft { name, key, models: None }),
            None => {
                draft.lose("api-keys", "one of them cannot be a key", source.line_of("api-keys"));
            }
        }
        entry.finish(source, draft);
    }
}
