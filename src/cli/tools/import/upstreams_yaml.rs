//! Reads a YAML file of `upstreams` and `project_auth`, whose proxy appends `/v1` to each address.

use serde_json::Value;

use crate::{
    cli::tools::import::{
        address::{add_key, key_value, place, toml_text, with_path},
        draft::{AliasDraft, AliasTarget, Draft, ProjectDraft, UpstreamDraft},
        source::{Fields, ImportSource},
    },
    ir::op::Dialect,
};

/// The first priority; the order of the file decides, and upstreams for any model come last.
const FIRST_PRIORITY: usize = 10;

pub(super) fn read(source: &ImportSource, tree: Value, draft: &mut Draft) {
    let mut top = Fields::new(tree, "");
    let mut server = top.table("server");
    if let Some(port) = server.text("port") {
        draft.listen("127.0.0.1", &port, "server.port");
    }
    if let Some(url) = server.text("notification_webhook") {
        draft.set("alerts.webhook", toml_text(&url), "server.notification_webhook");
    }
    if let Some(retries) = server.count("max_retries") {
        draft.retries(retries, "server.max_retries");
    }
    let names = server.text_map("auto_models");
    server.finish(source, draft);
    let rows = top.rows("upstreams");
    let count = rows.len();
    for (index, row) in rows.into_iter().enumerate() {
        read_upstream(source, row, (index, count), draft);
    }
    for (name, target) in &names {
        read_alias(source, name, target, draft);
    }
    for row in top.rows("project_auth") {
        read_project(source, row, &names, draft);
    }
    top.finish(source, draft);
}

fn read_upstream(
    source: &ImportSource,
    row: Value,
    (index, count): (usize, usize),
    draft: &mut Draft,
) {
    let mut row = Fields::new(row, "upstreams");
    let name = row.text("name").unwrap_or_else(|| format!("upstream-{}", index + 1));
    let line = source.line_of(&name);
    let mut upstream = UpstreamDraft { name: name.clone(), ..UpstreamDraft::default() };
    let models = row.texts("models");
    let url = row.text("base_url").unwrap_or_default();
    let keys = row.texts("keys");
    row.finish(source, draft);
    if url.is_empty() {
        return draft.lose(name, "it has no base_url", line);
    }
    if let Err(why) = place(&mut upstream, &with_path(&url, "/v1"), Dialect::Openai) {
        return draft.lose(name, format!("its base_url: {why}"), source.line_of(&url));
    }
    let is_any = models.iter().any(|model| model == "*");
    let priority = FIRST_PRIORITY + index + if is_any { count } else { 0 };
    upstream.fields.push(("priority", priority.to_string()));
    upstream.models = Some(models);
    for key in keys {
        if !add_key(&mut upstream, &key) {
            draft.lose(format!("{name}.keys"), "one of them cannot be a key", line);
        }
    }
    draft.upstreams.push(upstream);
}

/// Reads `upstream:model` or a model of any upstream.
fn read_alias(source: &ImportSource, name: &str, target: &str, draft: &mut Draft) {
    let named = target.split_once(':').filter(|(_, model)| !model.is_empty());
    let upstream = named.and_then(|(upstream, model)| {
        let at = draft.upstreams.iter().position(|known| known.name == upstream)?;
        Some((at, model))
    });
    let serves = |upstream: &UpstreamDraft| {
        upstream.models.iter().flatten().any(|model| model == target || model == "*")
    };
    let target = match upstream {
        Some((at, model)) => AliasTarget::At(at, model.to_owned()),
        None if draft.upstreams.iter().any(serves) => AliasTarget::Name(target.to_owned()),
        None => {
            let line = source.line_of(target);
            let why = format!("no upstream of the file serves its target `{target}`");
            return draft.lose(format!("auto_models.{name}"), why, line);
        }
    };
    draft.aliases.push(AliasDraft { name: name.to_owned(), target });
}

/// Reads a client. It may use an alias if it may use what the alias means.
fn read_project(source: &ImportSource, row: Value, names: &[(String, String)], draft: &mut Draft) {
    let mut row = Fields::new(row, "project_auth");
    let name = row.text("project_name").unwrap_or_else(|| "project".to_owned());
    let key = row.text("api_key");
    let mut models = row.texts("allowed_models");
    row.finish(source, draft);
    let line = source.line_of(&name);
    let Some(key) = key.as_deref().and_then(key_value) else {
        return draft.lose(name, "it has no api_key that can be a key", line);
    };
    if models.is_empty() {
        models.push("!*".to_owned());
    }
    for (alias, target) in names {
        let real = target.split_once(':').map_or(target.as_str(), |(_, model)| model);
        let may = models.iter().any(|model| model == real || model == target);
        if may && !models.contains(alias) {
            models.push(alias.clone());
        }
    }
    let models = Some(models).filter(|models| !models.iter().any(|model| model == "*"));
    draft.projects.push(ProjectDraft { name, key, models });
}
