//! Fits what was read into this config: names that are free, entries of the key store, and the
//! edits of the config file.

use std::collections::HashSet;

use toml_edit::{Array, InlineTable, Value};

use crate::{
    cli::{
        config::edit_file::{self, ConfigFile},
        error::CliError,
        key::store::KeyStore,
        tools::import::{
            draft::{
                AliasTarget, Draft, KeyDraft, KeyValue, ModelDraft, ProjectDraft, UpstreamDraft,
            },
            existing,
            names::{free_name, usable_name},
        },
    },
    config::edit::Edit,
    secrets::Secret,
};

/// Upper bound for numbers behind labels of keys.
const MAX_LABELS: usize = 1_000;

/// What an import would change.
#[derive(Default)]
pub(super) struct Plan<'d> {
    pub(super) edits: Vec<Edit>,
    /// Entries of the key store, with their keys.
    pub(super) puts: Vec<(String, &'d Secret)>,
    /// Final names, those included that were there already.
    pub(super) upstreams: Vec<String>,
    pub(super) models: Vec<String>,
    pub(super) projects: Vec<String>,
    /// Names in the file, and the names here, where they differ.
    pub(super) renamed: Vec<(String, String)>,
    /// Names and settings that this config has with another meaning, and why they stay.
    pub(super) kept: Vec<(String, &'static str)>,
}

/// Builds the plan.
///
/// # Errors
///
/// The key store cannot be read.
pub(super) async fn build<'d>(
    file: &ConfigFile,
    store: Option<&KeyStore>,
    draft: &'d Draft,
) -> Result<Plan<'d>, CliError> {
    let mut planner = Planner { file, store, plan: Plan::default(), entries: HashSet::new() };
    planner.add_settings(draft);
    for upstream in &draft.upstreams {
        planner.add_upstream(upstream).await?;
    }
    for model in &draft.models {
        planner.add_model(model);
    }
    planner.add_aliases(draft);
    for project in &draft.projects {
        planner.add_project(project).await?;
    }
    Ok(planner.plan)
}

struct Planner<'d, 'f> {
    file: &'f ConfigFile,
    /// `None` in a dry run, which reads no keys.
    store: Option<&'f KeyStore>,
    plan: Plan<'d>,
    /// Entries of the key store that this plan fills.
    entries: HashSet<String>,
}

impl<'d> Planner<'d, '_> {
    fn add_settings(&mut self, draft: &Draft) {
        let mut seen = HashSet::new();
        for setting in draft.settings.iter().filter(|setting| seen.insert(setting.path)) {
            let text = self.file.text.as_deref().unwrap_or_default();
            match existing::setting(text, setting.path) {
                None => self.plan.edits.push(Edit::Set {
                    path: setting.path.to_owned(),
                    value: setting.value.clone(),
                }),
                Some(value) if value == setting.value => {}
                Some(_) => {
                    let name = format!("{} ({})", setting.from, setting.path);
                    self.plan.kept.push((name, "the config has a value of its own, which stays"));
                }
            }
        }
    }

    async fn add_upstream(&mut self, draft: &'d UpstreamDraft) -> Result<(), CliError> {
        let wanted = usable_name(&draft.name, "upstream");
        let rows = &self.file.settings.upstreams;
        for row in rows.iter().filter(|row| existing::has_stem(&row.name, &wanted)) {
            let is_free = !self.plan.upstreams.iter().any(|name| **name == *row.name);
            if is_free && existing::is_same_upstream(row, draft, self.store).await? {
                self.plan.upstreams.push(row.name.to_string());
                return Ok(());
            }
        }
        let taken = |name: &str| {
            name == "demo"
                || rows.iter().any(|row| *row.name == *name)
                || self.plan.upstreams.iter().any(|known| known == name)
        };
        let name = free_name(&wanted, taken);
        self.note_rename(&draft.name, &name);
        let preset = draft.preset.clone().filter(|preset| *preset != name);
        self.plan.edits.push(Edit::AddUpstream {
            name: name.clone(),
            preset,
            base_url: draft.base_url.clone(),
            dialects: draft.dialect.iter().map(|dialect| dialect.name().to_owned()).collect(),
        });
        let mut fields: Vec<(&str, String)> = Vec::new();
        if !draft.keys.is_empty() {
            fields.push(("keys", self.keys_value(&name, &draft.keys).await?));
        }
        fields.extend(draft.models.as_ref().map(|list| ("models", edit_file::toml_list(list))));
        if !draft.rename.is_empty() {
            let table: InlineTable =
                draft.rename.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
            fields.push(("rename", Value::InlineTable(table).to_string()));
        }
        fields.extend(draft.fields.iter().map(|(key, value)| (*key, value.clone())));
        fields.extend(draft.disabled.then(|| ("enabled", "false".to_owned())));
        self.plan.edits.extend(fields.into_iter().map(|(key, value)| Edit::SetUpstream {
            name: name.clone(),
            path: key.to_owned(),
            value,
        }));
        self.plan.upstreams.push(name);
        Ok(())
    }

    /// The list of an upstream's keys as TOML; keys themselves get an entry of the store.
    async fn keys_value(
        &mut self,
        upstream: &str,
        keys: &'d [KeyDraft],
    ) -> Result<String, CliError> {
        let mut list = Array::new();
        for key in keys {
            let reference = match &key.value {
                KeyValue::Env(name) => format!("env:{name}"),
                KeyValue::Text(secret) => {
                    self.entry(secret, |number| match number {
                        1 => format!("{upstream}/main"),
                        number => format!("{upstream}/key{number}"),
                    })
                    .await?
                }
            };
            if key.limits.is_empty() {
                list.push(reference);
                continue;
            }
            let limits = key.limits.iter().map(|(model, rpm, tpm)| {
                let each = [("rpm", *rpm), ("tpm", *tpm)].into_iter().filter(|(_, n)| *n > 0);
                let number = |n: u64| i64::from(u32::try_from(n).unwrap_or(u32::MAX));
                let table: InlineTable = each.map(|(name, n)| (name, number(n))).collect();
                (model.as_str(), Value::InlineTable(table))
            });
            let mut table = InlineTable::new();
            table.insert("ref", reference.into());
            table.insert("limits", Value::InlineTable(limits.collect()));
            list.push(table);
        }
        Ok(Value::Array(list).to_string())
    }

    /// The reference of an entry for a key: one that has it already, else the first free one.
    async fn entry(
        &mut self,
        secret: &'d Secret,
        label: impl Fn(usize) -> String,
    ) -> Result<String, CliError> {
        for number in 1..MAX_LABELS {
            let entry = label(number);
            if self.entries.contains(&entry) {
                continue;
            }
            let stored = match self.store {
                Some(store) => store.get(&entry).await?,
                None => None,
            };
            match stored {
                Some(stored) if stored.digest() != secret.digest() => continue,
                Some(_) => {}
                None => self.plan.puts.push((entry.clone(), secret)),
            }
            self.entries.insert(entry.clone());
            return Ok(match self.store {
                Some(store) => store.reference(&entry),
                None => format!("keyring:{entry}"),
            });
        }
        Err(CliError::failed(format!("too many keys are named like {}", label(1))))
    }

    fn add_model(&mut self, draft: &ModelDraft) {
        let target = |at: usize| self.plan.upstreams.get(at).cloned().unwrap_or_default();
        let targets: Vec<_> = draft.targets.iter().map(|one| (target(one.upstream), one)).collect();
        if let Some(row) =
            self.file.settings.models.iter().find(|row| row.name.text() == draft.name)
        {
            let same = row.targets.len() == targets.len()
                && row.targets.iter().zip(&targets).all(|(known, (upstream, one))| {
                    known.upstream.as_deref() == Some(upstream) && *known.model == *one.model
                });
            if !same {
                let why = "the config has a model of this name, which stays";
                self.plan.kept.push((draft.name.clone(), why));
            }
            self.plan.models.push(draft.name.clone());
            return;
        }
        let is_plain =
            draft.targets.iter().all(|one| one.priority.is_none() && one.weight.is_none());
        let plain = targets.iter().map(|(upstream, one)| format!("{upstream}:{}", one.model));
        self.plan.edits.push(Edit::AddModel {
            name: draft.name.clone(),
            targets: plain.collect(),
            strategy: None,
        });
        if !is_plain {
            let tables = targets.iter().map(|(upstream, one)| {
                let mut table = InlineTable::new();
                table.insert("upstream", upstream.as_str().into());
                table.insert("model", one.model.as_str().into());
                if let Some(priority) = one.priority.and_then(|n| i64::try_from(n).ok()) {
                    table.insert("priority", priority.into());
                }
                if let Some(weight) = one.weight {
                    table.insert("weight", weight.into());
                }
                table
            });
            self.plan.edits.push(Edit::SetModel {
                name: draft.name.clone(),
                path: "targets".to_owned(),
                value: Value::Array(tables.collect()).to_string(),
            });
        }
        self.plan.models.push(draft.name.clone());
    }

    fn add_aliases(&mut self, draft: &Draft) {
        let settings = &self.file.settings;
        for alias in &draft.aliases {
            if self.plan.models.contains(&alias.name) {
                continue;
            }
            let target = match &alias.target {
                AliasTarget::Name(name) => name.clone(),
                AliasTarget::At(at, model) => {
                    let upstream = self.plan.upstreams.get(*at).map_or("", String::as_str);
                    format!("{upstream}:{model}")
                }
            };
            self.plan.models.push(alias.name.clone());
            let known = settings.aliases.iter().find(|known| known.name.text() == alias.name);
            let is_model = settings.models.iter().any(|row| row.name.text() == alias.name);
            match known {
                Some(known) if *known.target == *target => {}
                None if !is_model => {
                    self.plan.edits.push(Edit::SetAlias { name: alias.name.clone(), target });
                }
                _ => {
                    let why = "the config has a model or alias of this name, which stays";
                    self.plan.kept.push((alias.name.clone(), why));
                }
            }
        }
    }

    async fn add_project(&mut self, draft: &'d ProjectDraft) -> Result<(), CliError> {
        let wanted = usable_name(&draft.name, "client");
        let rows = &self.file.settings.projects;
        for row in rows {
            let may_be = self.store.is_some() || *row.name == *wanted;
            let Some(key) = row.key.as_ref().filter(|_| may_be) else { continue };
            if existing::is_same_key(key, &draft.key, self.store).await? {
                self.plan.projects.push(row.name.to_string());
                return Ok(());
            }
        }
        let taken = |name: &str| {
            rows.iter().any(|row| *row.name == *name)
                || self.plan.projects.iter().any(|known| known == name)
        };
        let name = free_name(&wanted, taken);
        self.note_rename(&draft.name, &name);
        let key = match &draft.key {
            KeyValue::Env(name) => format!("env:{name}"),
            KeyValue::Text(secret) => {
                self.entry(secret, |number| match number {
                    1 => format!("client/{name}"),
                    number => format!("client/{name}-{number}"),
                })
                .await?
            }
        };
        self.plan.edits.push(Edit::AddProject { name: name.clone(), key });
        if let Some(models) = &draft.models {
            self.plan.edits.push(Edit::SetProject {
                name: name.clone(),
                path: "models".to_owned(),
                value: edit_file::toml_list(models),
            });
        }
        self.plan.projects.push(name);
        Ok(())
    }

    fn note_rename(&mut self, from: &str, to: &str) {
        if from != to {
            self.plan.renamed.push((from.to_owned(), to.to_owned()));
        }
    }
}
