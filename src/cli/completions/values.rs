//! The values that complete an argument. They come from the config file at each call; a missing or
//! broken file has none.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    cli::{
        completions::kinds::ArgumentKind,
        config::edit_file,
        context::GlobalArgs,
        log::filter as log_filter,
        tools::{connect::facts, run::recipe},
    },
    config::{
        keys::{self, KeySpec, TableForm},
        presets,
        settings::{Origin, Project, Settings, UpstreamId},
    },
    ir::op::Dialect,
    ledger::totals::GroupBy,
    relay::state::model_lists::ModelLists,
    routing::catalog::{Catalog, ModelSet, served_names},
};

/// The project without limits, if the config has no other.
const DEFAULT_PROJECT: &str = "default";

/// A value for the word under the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CompletionCandidate {
    pub(super) value: String,
    /// One line, or empty.
    pub(super) help: String,
}

impl CompletionCandidate {
    pub(super) fn new(value: impl Into<String>, help: impl Into<String>) -> Self {
        Self { value: value.into(), help: help.into() }
    }
}

/// Returns every value of this kind. `typed` is the beginning of the value, for kinds whose values
/// depend on it.
pub(super) fn values(
    kind: ArgumentKind,
    typed: &str,
    global: &GlobalArgs,
) -> Vec<CompletionCandidate> {
    match kind {
        ArgumentKind::Dialect => Dialect::ALL
            .iter()
            .map(|dialect| CompletionCandidate::new(dialect.name(), ""))
            .collect(),
        ArgumentKind::File | ArgumentKind::Folder | ArgumentKind::Text => Vec::new(),
        ArgumentKind::LogFilter => log_filter_words(typed, global),
        ArgumentKind::Preset => preset_names(),
        ArgumentKind::ProjectSetting => settings_of_row("project", typed),
        ArgumentKind::RequestId => vec![CompletionCandidate::new("last", "the last request")],
        ArgumentKind::ConnectedTool => {
            facts::names().map(|(name, title)| CompletionCandidate::new(name, title)).collect()
        }
        ArgumentKind::Tool => recipe::runnable_names()
            .map(|(name, title)| CompletionCandidate::new(name, title))
            .collect(),
        ArgumentKind::UpstreamSetting => settings_of_row("upstream", typed),
        ArgumentKind::UsageGroup => {
            GroupBy::ALL.iter().map(|group| CompletionCandidate::new(group.name(), "")).collect()
        }
        _ => ConfigNames::read(global).map(|names| names.values(kind, typed)).unwrap_or_default(),
    }
}

fn preset_names() -> Vec<CompletionCandidate> {
    presets::all().iter().map(|preset| CompletionCandidate::new(&*preset.name, "preset")).collect()
}

/// The names in the config, and the models that its upstreams listed when the proxy last ran.
struct ConfigNames {
    settings: Settings,
    lists: ModelLists,
}

impl ConfigNames {
    fn read(global: &GlobalArgs) -> Option<Self> {
        let paths = global.paths().ok()?;
        let settings = edit_file::settings_with_discovered(&paths)?;
        let lists = ModelLists::new(Some(paths.data.join("models.json")), &settings.upstreams);
        Some(Self { settings, lists })
    }

    fn values(&self, kind: ArgumentKind, typed: &str) -> Vec<CompletionCandidate> {
        match kind {
            ArgumentKind::ConfigPath => self.config_paths(),
            ArgumentKind::ConfiguredModel => self.configured_models(),
            ArgumentKind::Key => self.keys(),
            ArgumentKind::Model => self.models(typed),
            ArgumentKind::Project => self.projects(),
            ArgumentKind::Upstream => self.upstreams(),
            ArgumentKind::UpstreamOrPreset => {
                let mut out = self.upstreams();
                let known =
                    |name: &CompletionCandidate| out.iter().any(|row| row.value == name.value);
                let presets: Vec<_> =
                    preset_names().into_iter().filter(|name| !known(name)).collect();
                out.extend(presets);
                out
            }
            _ => Vec::new(),
        }
    }

    fn upstreams(&self) -> Vec<CompletionCandidate> {
        let help = |origin| if origin == Origin::File { "upstream" } else { "found upstream" };
        self.settings
            .upstreams
            .iter()
            .map(|upstream| CompletionCandidate::new(&*upstream.name, help(upstream.origin)))
            .collect()
    }

    fn keys(&self) -> Vec<CompletionCandidate> {
        let keys = self.settings.upstreams.iter().flat_map(|upstream| &upstream.keys);
        keys.map(|key| CompletionCandidate::new(&*key.name, "key")).collect()
    }

    fn projects(&self) -> Vec<CompletionCandidate> {
        let mut out: Vec<CompletionCandidate> = self
            .settings
            .projects
            .iter()
            .map(|project: &Arc<Project>| CompletionCandidate::new(&*project.name, "project"))
            .collect();
        if !out.iter().any(|project| project.value == DEFAULT_PROJECT) {
            out.push(CompletionCandidate::new(DEFAULT_PROJECT, "project"));
        }
        out
    }

    fn configured_models(&self) -> Vec<CompletionCandidate> {
        let models = self.settings.models.iter();
        let aliases = self.settings.aliases.iter();
        models
            .map(|model| CompletionCandidate::new(model.name.text(), "logical model"))
            .chain(aliases.map(|alias| {
                CompletionCandidate::new(alias.name.text(), format!("alias of {}", alias.target))
            }))
            .collect()
    }

    /// The names without an upstream first; those with one only if a part of them is typed, because
    /// each is a second name of the same model.
    fn models(&self, typed: &str) -> Vec<CompletionCandidate> {
        let catalog = Catalog::new(&self.settings);
        let is_exact = |name: &CompletionCandidate| catalog.exact(&name.value).is_some();
        let mut out: Vec<CompletionCandidate> =
            self.configured_models().into_iter().filter(is_exact).collect();
        let learned = self.lists.learned();
        let lists = |id: UpstreamId| -> Option<Arc<ModelSet>> { learned.get(&id).cloned() };
        let mut seen: std::collections::HashSet<String> =
            out.iter().map(|name| name.value.clone()).collect();
        let mut qualified = Vec::new();
        for upstream in &catalog.upstreams {
            for (name, _) in served_names(upstream, &lists) {
                if seen.insert(name.to_string()) {
                    out.push(CompletionCandidate::new(
                        &*name,
                        format!("model of {}", upstream.name),
                    ));
                }
                qualified
                    .push(CompletionCandidate::new(format!("{}:{name}", upstream.name), "model"));
            }
        }
        if !typed.is_empty() {
            out.append(&mut qualified);
        }
        out
    }

    /// The paths of all settings. Those of a row contain the row's name.
    fn config_paths(&self) -> Vec<CompletionCandidate> {
        let names = |table: &str| -> Vec<String> {
            match table {
                "model" => {
                    self.settings.models.iter().map(|row| row.name.text().to_owned()).collect()
                }
                "project" => self.projects().into_iter().map(|row| row.value).collect(),
                "upstream" => self
                    .settings
                    .upstreams
                    .iter()
                    .filter(|row| row.origin == Origin::File)
                    .map(|row| row.name.to_string())
                    .collect(),
                _ => Vec::new(),
            }
        };
        let mut out: Vec<CompletionCandidate> = Vec::new();
        for table in keys::tables() {
            let rows = match table.form {
                TableForm::Once => vec![table.path.to_owned()],
                TableForm::Rows => {
                    names(table.path).iter().map(|name| format!("{}.{name}", table.path)).collect()
                }
                TableForm::ByName | TableForm::Nested => Vec::new(),
            };
            for row in rows {
                out.extend(table.keys.iter().map(|key| {
                    CompletionCandidate::new(format!("{row}.{}", key.name()), first_line(key.doc))
                }));
            }
        }
        let aliases = self.settings.aliases.iter();
        out.extend(aliases.map(|alias| {
            CompletionCandidate::new(format!("aliases.{}", alias.name.text()), "alias")
        }));
        out
    }
}

fn first_line(doc: &str) -> &str {
    doc.trim().lines().next().unwrap_or_default()
}

/// `KEY=` of a table's rows; after the `=`, the values of a closed list.
fn settings_of_row(table: &str, typed: &str) -> Vec<CompletionCandidate> {
    let specs = keys::tables().iter().find(|spec| spec.path == table).map(|spec| &spec.keys);
    let specs = specs.into_iter().flatten();
    match typed.split_once('=') {
        None => specs
            .map(|key| CompletionCandidate::new(format!("{}=", key.name()), first_line(key.doc)))
            .collect(),
        Some((name, _)) => specs
            .filter(|key| key.name() == name)
            .flat_map(closed_values)
            .map(|value| CompletionCandidate::new(format!("{name}={value}"), ""))
            .collect(),
    }
}

/// The values of the setting with this path, if there is a closed list of them.
pub(super) fn of_setting(path: &str) -> Vec<CompletionCandidate> {
    // The path of a row contains the row's name.
    let row_path = path.split_once('.').zip(path.rsplit_once('.'));
    let row_path = row_path.map(|((table, _), (_, key))| format!("{table}.{key}"));
    let spec = keys::find(path).or_else(|| keys::find(&row_path?));
    spec.map(closed_values)
        .unwrap_or_default()
        .into_iter()
        .map(|value| CompletionCandidate::new(value, ""))
        .collect()
}

/// The values of a setting, if its schema lists them.
fn closed_values(key: &KeySpec) -> Vec<String> {
    fn collect(schema: &Value, out: &mut Vec<String>) {
        if schema["$ref"] == "#/$defs/dialect" {
            out.extend(Dialect::ALL.map(|dialect| dialect.name().to_owned()));
        }
        if schema["type"] == "boolean" {
            out.extend(["true", "false"].map(str::to_owned));
        }
        let words = schema["enum"].as_array().into_iter().flatten();
        out.extend(words.filter_map(Value::as_str).map(str::to_owned));
        for part in schema["anyOf"].as_array().into_iter().flatten() {
            collect(part, out);
        }
    }
    let mut out = Vec::new();
    collect(&key.kind.schema, &mut out);
    if key.name() == "preset" {
        out.extend(presets::all().iter().map(|preset| preset.name.to_string()));
    }
    out
}

/// `FIELD:`, or the values of a field that is typed.
fn log_filter_words(typed: &str, global: &GlobalArgs) -> Vec<CompletionCandidate> {
    let Some((field, value)) = typed.split_once(':') else {
        let fields = log_filter::field_names();
        return fields.map(|field| CompletionCandidate::new(format!("{field}:"), "")).collect();
    };
    let listed = log_filter::closed_values(field);
    let values = if listed.is_empty() {
        let kind = match field {
            "key" => ArgumentKind::Key,
            "model" => ArgumentKind::Model,
            "project" => ArgumentKind::Project,
            "upstream" => ArgumentKind::Upstream,
            _ => return Vec::new(),
        };
        values(kind, value, global)
    } else {
        listed.into_iter().map(|value| CompletionCandidate::new(value, "")).collect()
    };
    let prefixed = |row: CompletionCandidate| CompletionCandidate {
        value: format!("{field}:{}", row.value),
        ..row
    };
    values.into_iter().map(prefixed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
[discover]
env = false
[[upstream]]
name = "box"
base_url = "http://127.0.0.1:9/v1"
dialect = "openai"
models = ["llama", "qwen*"]
keys = [{ ref = "sk-literal-1234567890abcdef", label = "night" }]
[[project]]
name = "ide"
key = "env:IDE_KEY"
[aliases]
fast = "box:llama"
"claude-*" = "box:llama"
"#;

    /// The values of a kind with this config, joined.
    fn joined(config: &str, kind: ArgumentKind, typed: &str) -> String {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config.toml");
        crate::base::fs::write_atomic(&path, config.as_bytes(), 0o600).unwrap();
        let global = GlobalArgs {
            config: Some(path),
            data_dir: Some(home.path().join("data")),
            ..GlobalArgs::default()
        };
        let found = values(kind, typed, &global);
        assert!(!home.path().join("data").exists(), "completion creates nothing");
        found.into_iter().map(|row| row.value).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_come_from_the_config_and_keys_are_labels() {
        for (kind, typed, want) in [
            (ArgumentKind::Upstream, "", "box"),
            (ArgumentKind::Key, "", "box/night"),
            (ArgumentKind::Model, "", "fast llama"),
            (ArgumentKind::Model, "b", "fast llama box:llama"),
            (ArgumentKind::ConfiguredModel, "", "fast claude-*"),
            (ArgumentKind::LogFilter, "level:", "level:error level:info level:warn"),
            (ArgumentKind::LogFilter, "upstream:", "upstream:box"),
            (ArgumentKind::UpstreamSetting, "enabled=", "enabled=true enabled=false"),
        ] {
            assert_eq!(joined(CONFIG, kind, typed), want, "{kind:?} {typed}");
        }
        assert!(joined(CONFIG, ArgumentKind::Project, "").contains("ide"));
        let paths = joined(CONFIG, ArgumentKind::ConfigPath, "");
        for path in ["server.max_requests", "upstream.box.priority", "aliases.fast"] {
            assert!(paths.split(' ').any(|found| found == path), "{path} is missing: {paths}");
        }
    }

    #[test]
    fn broken_config_completes_no_names() {
        assert_eq!(joined("[[upstream\n", ArgumentKind::Upstream, ""), "");
        assert_eq!(joined("[[upstream]]\nname = 3\n", ArgumentKind::Model, ""), "");
        assert!(joined("[[upstream\n", ArgumentKind::Preset, "").contains("openai"));
    }
}
