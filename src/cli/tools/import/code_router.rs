//! Reads the `config.json` of claude-code-router. Its clients ask for `PROVIDER,MODEL`, and its
//! router names models for kinds of requests.

use serde_json::Value;

use crate::{
    cli::tools::import::{
        address::{add_key, key_value, place, toml_text, with_path},
        draft::{AliasDraft, AliasTarget, Draft, ProjectDraft, UpstreamDraft},
        facts,
        source::{Fields, ImportSource, text_of},
    },
    ir::op::Dialect,
};

pub(super) fn read(source: &ImportSource, tree: Value, draft: &mut Draft) {
    let mut top = Fields::new(tree, "");
    let proxy = top.text("PROXY_URL");
    for key in ["Providers", "providers"] {
        for row in top.rows(key) {
            read_provider(source, row, proxy.as_deref(), draft);
        }
    }
    read_router(source, top.table("Router"), draft);
    if let Some(key) = top.text("APIKEY") {
        match key_value(&key) {
            Some(key) => {
                let name = "claude-code-router".to_owned();
                draft.projects.push(ProjectDraft { name, key, models: None });
            }
            None => draft.lose("APIKEY", "it cannot be a key", source.line_of("APIKEY")),
        }
    }
    let host = top.text("HOST").unwrap_or_default();
    if let Some(port) = top.text("PORT") {
        draft.listen(&host, &port, "PORT");
    }
    if let Some(ms) = top.count("API_TIMEOUT_MS").filter(|ms| (1..=86_400_000).contains(ms)) {
        draft.set("timeouts.total", format!("\"{ms}ms\""), "API_TIMEOUT_MS");
    }
    if let Some(level) = top.text("LOG_LEVEL") {
        draft.log_level(&level, "LOG_LEVEL");
    }
    top.finish(source, draft);
}

fn read_provider(source: &ImportSource, row: Value, proxy: Option<&str>, draft: &mut Draft) {
    let mut row = Fields::new(row, "Providers");
    let name = row.text("name").unwrap_or_else(|| "provider".to_owned());
    let url = row.text("api_base_url").or_else(|| row.text("base_url")).unwrap_or_default();
    let keys: Vec<String> = row.text("api_key").into_iter().chain(row.texts("api_keys")).collect();
    let models = row.texts("models");
    let transformer = row.take("transformer");
    row.finish(source, draft);
    let line = source.line_of(&name);
    let used = transformer.as_ref().map(uses).unwrap_or_default();
    if transformer.is_some() && !draft.unequal.iter().any(|known| known.name == "transformer") {
        let line = source.line_of("transformer");
        draft.lose("transformer", facts::reason("transformer"), line);
    }
    if url.is_empty() {
        return draft.lose(name, "it has no api_base_url", line);
    }
    let mut upstream =
        UpstreamDraft { name: name.clone(), models: Some(models.clone()), ..Default::default() };
    let (url, dialect) = address(&url, &used);
    if let Err(why) = place(&mut upstream, &url, dialect) {
        return draft.lose(name, format!("its api_base_url: {why}"), line);
    }
    for key in keys {
        if !add_key(&mut upstream, &key) {
            draft.lose(format!("{name}.api_key"), "it cannot be a key", line);
        }
    }
    if let Some(proxy) = proxy {
        upstream.fields.push(("proxy", toml_text(proxy)));
    }
    let at = draft.upstreams.len();
    draft.upstreams.push(upstream);
    for model in models {
        let target = AliasTarget::At(at, model.clone());
        draft.aliases.push(AliasDraft { name: format!("{name},{model}"), target });
    }
}

/// The names of the transformers that all models of a provider use.
fn uses(transformer: &Value) -> Vec<String> {
    let list = transformer.get("use").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|one| text_of(one).or_else(|| one.get(0).and_then(text_of))).collect()
}

/// The address without the endpoint, and its dialect, which a transformer or the endpoint names.
fn address(url: &str, used: &[String]) -> (String, Dialect) {
    let has = |name: &str| used.iter().any(|used| used.to_ascii_lowercase() == name);
    let path = url.trim_end_matches('/');
    if has("gemini") || path.ends_with("/v1beta/models") {
        let base = path.strip_suffix("/models").unwrap_or(path);
        return (with_path(base, "/v1beta"), Dialect::Gemini);
    }
    if has("anthropic") || path.ends_with("/messages") {
        return (path.to_owned(), Dialect::Anthropic);
    }
    if has("openai-responses") || path.ends_with("/responses") {
        return (path.to_owned(), Dialect::Responses);
    }
    (path.to_owned(), Dialect::Openai)
}

/// Reads the router: its default is for every other name, and its background for small models.
fn read_router(source: &ImportSource, mut router: Fields, draft: &mut Draft) {
    for (key, pattern) in [("background", "claude-*haiku*"), ("default", "*")] {
        if let Some(text) = router.text(key) {
            let name = format!("Router.{key}");
            if let Some(target) = target(source, &name, &text, draft) {
                draft.aliases.push(AliasDraft { name: pattern.to_owned(), target });
            }
        }
    }
    // The others have no equal, but a gap in them is reported too.
    for key in ["think", "longContext", "webSearch", "image"] {
        if let Some(text) = router.text(key) {
            let name = format!("Router.{key}");
            if target(source, &name, &text, draft).is_some() {
                draft.lose(name, facts::reason(key), source.line_of(key));
            }
        }
    }
    router.finish(source, draft);
}

/// Reads `PROVIDER,MODEL`; reports a provider that the file does not describe.
fn target(source: &ImportSource, name: &str, text: &str, draft: &mut Draft) -> Option<AliasTarget> {
    let parts = text.split_once(',').map(|(provider, model)| (provider.trim(), model.trim()));
    let Some((provider, model)) = parts else {
        draft.lose(name, "it is not PROVIDER,MODEL", source.line_of(text));
        return None;
    };
    match draft.upstreams.iter().position(|known| known.name.eq_ignore_ascii_case(provider)) {
        Some(at) => Some(AliasTarget::At(at, model.to_owned())),
        None => {
            let why = format!("the file describes no provider `{provider}`");
            draft.lose(name, why, source.line_of(text));
            None
        }
    }
}
