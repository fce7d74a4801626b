//! Reads a JSON file whose `providers` are texts `NAME|URL|KEY` and whose `tokens` are `NAME|KEY`.

use serde_json::Value;

use crate::{
    base::pattern::Pattern,
    cli::{
        error::CliError,
        tools::import::{
            address::{add_key, key_value, place},
            draft::{Draft, ProjectDraft, UpstreamDraft},
            source::{Fields, ImportSource},
        },
    },
    ir::op::Dialect,
};

/// Reads the file.
///
/// # Errors
///
/// An entry that has not its parts, which the other program refuses too.
pub(super) fn read(source: &ImportSource, tree: Value, draft: &mut Draft) -> Result<(), CliError> {
    let mut top = Fields::new(tree, "");
    let (host, port) = (top.text("host").unwrap_or_default(), top.text("port"));
    if let Some(port) = port {
        draft.listen(&host, &port, "port");
    }
    if let Some(level) = top.text("log_level") {
        draft.log_level(&level, "log_level");
    }
    for (key, path) in
        [("stream_timeout", "timeouts.idle"), ("non_stream_timeout", "timeouts.total")]
    {
        if let Some(seconds) =
            top.number(key).filter(|seconds| (0.001..=86_400.0).contains(seconds))
        {
            draft.set(path, format!("\"{}ms\"", (seconds * 1_000.0).round()), key);
        }
    }
    if let Some(bytes) = top.count("max_response_size").filter(|n| (1 << 10..=1 << 32).contains(n))
    {
        draft.set("server.max_response_bytes", format!("\"{bytes}B\""), "max_response_size");
    }
    let models = read_models(source, &top.texts("supported_models"), draft);
    for entry in list(&mut top, "providers") {
        let line = source.line_of(entry.split('|').next().unwrap_or_default());
        let parts: Vec<&str> = entry.split('|').map(str::trim).collect();
        let [name, url, key] = parts[..] else {
            let why = "a provider is NAME|URL|KEY, and this one has not three parts";
            return Err(source.error_at(entry_line(source, &entry), why));
        };
        let mut upstream =
            UpstreamDraft { name: name.to_owned(), models: models.clone(), ..Default::default() };
        if let Err(why) = place(&mut upstream, url, Dialect::Openai) {
            return Err(source.error_at(entry_line(source, &entry), &why));
        }
        if !add_key(&mut upstream, key) {
            draft.lose(name, "its third part cannot be a key", line);
        }
        draft.upstreams.push(upstream);
    }
    for entry in list(&mut top, "tokens") {
        let parts = entry.split_once('|').map(|(name, key)| (name.trim(), key.trim()));
        let project = parts.filter(|(_, key)| !key.contains('|'));
        match project.and_then(|(name, key)| Some((name, key_value(key)?))) {
            Some((name, key)) => {
                draft.projects.push(ProjectDraft { name: name.to_owned(), key, models: None });
            }
            None => draft.lose("tokens", "a token is NAME|KEY", entry_line(source, &entry)),
        }
    }
    top.finish(source, draft);
    Ok(())
}

/// The texts of a list, whole.
fn list(top: &mut Fields, key: &str) -> Vec<String> {
    match top.take(key) {
        Some(Value::Array(list)) => {
            list.into_iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

/// The line of an entry, which begins with its quote.
fn entry_line(source: &ImportSource, entry: &str) -> usize {
    let found = source.text.lines().position(|line| line.contains(entry));
    found.map_or(1, |at| at + 1)
}

/// Reads regular expressions, which match from the beginning of a name.
fn read_models(
    source: &ImportSource,
    patterns: &[String],
    draft: &mut Draft,
) -> Option<Vec<String>> {
    let mut out = Vec::new();
    for pattern in patterns {
        let whole = if pattern.ends_with(".*") || pattern.ends_with('$') {
            format!("re:{}", pattern.trim_end_matches('$'))
        } else {
            format!("re:{pattern}.*")
        };
        match Pattern::parse(&whole) {
            _ if pattern == ".*" => out.push("*".to_owned()),
            Ok(_) => out.push(whole),
            Err(why) => {
                let line = source.line_of(pattern);
                draft.lose("supported_models", format!("no regular expression: {why}"), line);
            }
        }
    }
    (!out.is_empty()).then_some(out)
}
