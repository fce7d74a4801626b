//! Reads the `config.yaml` of LiteLLM: deployments of models, their fallbacks and the master key.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    cli::tools::import::{
        address::{self, key_value, with_path},
        draft::{
            AliasDraft, AliasTarget, Draft, KeyDraft, KeyValue, ModelDraft, ProjectDraft,
            TargetDraft, UpstreamDraft,
        },
        facts::{self, COMPATIBLE},
        source::{Fields, ImportSource, text_of, texts_of},
    },
    config::presets,
    ir::op::Dialect,
};

/// The priority of the first model behind the others; each further one has the next.
const FALLBACK_PRIORITY: u64 = 100;

pub(super) fn read(source: &ImportSource, tree: Value, draft: &mut Draft) {
    let mut top = Fields::new(tree, "");
    let mut reader = Reader { source, draft, models: Vec::new() };
    for row in top.rows("model_list") {
        reader.read_deployment(row);
    }
    let mut general = top.table("general_settings");
    reader.read_master_key(&mut general);
    let mut settings = top.table("litellm_settings");
    let mut router = top.table("router_settings");
    for table in [&mut settings, &mut router] {
        reader.read_fallbacks(table);
        if let Some(retries) = table.count("num_retries") {
            reader.draft.retries(retries, "num_retries");
        }
        for key in ["request_timeout", "timeout"] {
            if let Some(seconds) = table.number(key).filter(|n| (0.001..=86_400.0).contains(n)) {
                let value = format!("\"{}ms\"", (seconds * 1_000.0).round());
                reader.draft.set("timeouts.total", value, key);
            }
        }
    }
    // What an upstream does not take is left out here in any case.
    drop(settings.take("drop_params"));
    reader.read_strategy(&mut router);
    reader.read_group_aliases(&mut router);
    let Reader { models, .. } = reader;
    draft.models.extend(models);
    for table in [general, settings, router] {
        table.finish(source, draft);
    }
    top.finish(source, draft);
}

struct Reader<'a> {
    source: &'a ImportSource,
    draft: &'a mut Draft,
    /// The names for clients, with the deployments of each.
    models: Vec<ModelDraft>,
}

/// A deployment: whose API it has, where, and the provider's name of the model.
struct Place {
    /// The name of the upstream.
    name: String,
    preset: Option<&'static str>,
    url: Option<String>,
    model: String,
}

impl Reader<'_> {
    fn read_deployment(&mut self, row: Value) {
        let mut row = Fields::new(row, "model_list");
        let name = row.text("model_name").unwrap_or_default();
        let line = self.source.line_of(&name);
        let mut params = row.table("litellm_params");
        if let Some(info) = row.take("model_info") {
            self.lose_once("model_info", &info);
        }
        row.finish(self.source, self.draft);
        let Some(model) = params.text("model").filter(|_| !name.is_empty()) else {
            let name = if name.is_empty() { "model_list".to_owned() } else { name };
            return self.draft.lose(name, "nothing says which model it is", line);
        };
        let place = match self.place_of(&name, &model, &mut params) {
            Ok(place) => place,
            Err(why) => return self.draft.lose(name, why, line),
        };
        let key = params.text("api_key").and_then(|text| {
            let value = key_value(&text);
            if value.is_none() {
                self.draft.lose(format!("{name}.api_key"), "it cannot be a key", line);
            }
            value
        });
        let (rpm, tpm) = (params.count("rpm"), params.count("tpm"));
        let (weight, order) = (params.number("weight"), params.count("order"));
        let model = place.model.clone();
        let at = match self.upstream(place, key, (rpm, tpm)) {
            Ok(at) => at,
            Err(why) => return self.draft.lose(name, why, line),
        };
        params.finish(self.source, self.draft);
        if name.contains('*') {
            return self.add_pattern(&name, &model, at, line);
        }
        let weight = weight.filter(|n| (0.001..=1e6).contains(n));
        let target = TargetDraft { upstream: at, model: model.clone(), priority: order, weight };
        let models = self.draft.upstreams[at].models.get_or_insert_default();
        if !models.contains(&model) {
            models.push(model);
        }
        match self.models.iter_mut().find(|known| known.name == name) {
            Some(known) => known.targets.push(target),
            None => self.models.push(ModelDraft { name, targets: vec![target] }),
        }
    }

    fn lose_once(&mut self, key: &str, value: &Value) {
        let is_known = self.draft.unequal.iter().any(|known| known.name == key);
        if !is_known && value.as_object().is_some_and(|map| !map.is_empty()) {
            self.draft.lose(key, facts::reason(key), self.source.line_of(key));
        }
    }

    /// Finds out whose API a deployment has: the part before the model's name is the provider.
    fn place_of(&self, name: &str, model: &str, params: &mut Fields) -> Result<Place, String> {
        let url = params.text("api_base").or_else(|| params.text("base_url"));
        let own = params.text("custom_llm_provider");
        let (provider, rest) = match (own, model.split_once('/')) {
            (Some(provider), Some((first, rest))) if first == provider => (provider, rest),
            (Some(provider), _) => (provider, model),
            (None, Some((first, rest))) if facts::litellm_preset(first).is_some() => {
                (first.to_owned(), rest)
            }
            (None, Some((first, _))) if url.is_none() => {
                return Err(format!("no provider here is `{first}`"));
            }
            (None, _) if url.is_none() && model.starts_with("claude") => {
                ("anthropic".to_owned(), model)
            }
            (None, _) => ("openai".to_owned(), model),
        };
        let preset = facts::litellm_preset(&provider).filter(|preset| *preset != COMPATIBLE);
        if preset.is_none() && url.is_none() {
            return Err(format!("no provider here is `{provider}`"));
        }
        // `groq/*` of clients is the upstream `groq`.
        let prefix = name.strip_suffix("/*").filter(|prefix| !prefix.contains(['/', '*']));
        let name = prefix.map_or(provider, str::to_owned);
        Ok(Place { name, preset, url, model: rest.to_owned() })
    }

    /// Returns the position of the upstream with this address and key, which is added if missing.
    fn upstream(
        &mut self,
        place: Place,
        key: Option<KeyValue>,
        (rpm, tpm): (Option<u64>, Option<u64>),
    ) -> Result<usize, String> {
        let known = place.preset.and_then(presets::find);
        let mut upstream = UpstreamDraft { name: place.name, ..UpstreamDraft::default() };
        match (&place.url, known) {
            (Some(url), Some(preset)) if preset.needs_url => {
                upstream.preset = Some(preset.name.to_string());
                upstream.base_url = Some(with_path(url, facts::channel_path(&preset.name)));
            }
            (Some(url), known) => {
                let dialect = known.map_or(Dialect::Openai, |preset| preset.endpoints[0].dialect);
                let path = match dialect {
                    Dialect::Anthropic => "/v1",
                    Dialect::Gemini => "/v1beta",
                    _ => "",
                };
                address::place(&mut upstream, &with_path(url, path), dialect)
                    .map_err(|why| format!("its api_base: {why}"))?;
            }
            (None, Some(preset)) if preset.needs_url => return Err("it has no api_base".into()),
            (None, Some(preset)) => upstream.preset = Some(preset.name.to_string()),
            (None, None) => return Err("it has no api_base".to_owned()),
        }
        // LiteLLM reads the provider's own variable if it is given no key.
        let own = known.filter(|_| place.url.is_none()).and_then(|preset| preset.key_env.first());
        let key = key.or_else(|| own.map(|name| KeyValue::Env(name.to_string())));
        let same_key = |known: &UpstreamDraft| match (&known.keys[..], &key) {
            ([], None) => true,
            ([known], Some(key)) => known.value.is_same(key),
            _ => false,
        };
        let is_it = |known: &UpstreamDraft| {
            known.preset == upstream.preset
                && known.base_url == upstream.base_url
                && known.dialect == upstream.dialect
                && same_key(known)
                && (known.name == upstream.name || known.name.starts_with(&upstream.name))
        };
        let at = match self.draft.upstreams.iter().position(is_it) {
            Some(at) => at,
            None => {
                let keys = key.into_iter().map(|value| KeyDraft { value, limits: Vec::new() });
                upstream.keys = keys.collect();
                self.draft.upstreams.push(upstream);
                self.draft.upstreams.len() - 1
            }
        };
        if let (Some(key), true) =
            (self.draft.upstreams[at].keys.first_mut(), rpm.or(tpm).is_some())
        {
            let limit = (place.model, rpm.unwrap_or_default(), tpm.unwrap_or_default());
            key.limits.push(limit);
        }
        Ok(at)
    }

    /// A pattern of names means the same names at the provider, with or without a prefix.
    fn add_pattern(&mut self, name: &str, model: &str, at: usize, line: usize) {
        let upstream = &mut self.draft.upstreams[at];
        let rest = name.strip_prefix(&format!("{}/", upstream.name)).unwrap_or(name);
        if rest == model || model == "*" {
            let models = upstream.models.get_or_insert_default();
            let pattern = rest.to_owned();
            if !models.contains(&pattern) {
                models.push(pattern);
            }
        } else {
            let why = "a pattern of names cannot be served by a pattern of other names";
            self.draft.lose(name, why, line);
        }
    }

    fn read_master_key(&mut self, general: &mut Fields) {
        let Some(text) = general.text("master_key") else { return };
        match key_value(&text) {
            Some(key) => {
                let name = "litellm".to_owned();
                self.draft.projects.push(ProjectDraft { name, key, models: None });
            }
            None => {
                let line = self.source.line_of("master_key");
                self.draft.lose("general_settings.master_key", "it cannot be a key", line);
            }
        }
    }

    /// Models behind a model are further targets with a later priority.
    fn read_fallbacks(&mut self, table: &mut Fields) {
        let rows = table.rows("fallbacks");
        let mut behind: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, list) in rows.iter().filter_map(Value::as_object).flatten() {
            behind.entry(name.clone()).or_default().extend(texts_of(list));
        }
        let firsts: BTreeMap<String, Vec<TargetDraft>> =
            self.models.iter().map(|model| (model.name.clone(), model.targets.clone())).collect();
        for (name, list) in behind {
            let mut more = Vec::new();
            for (priority, other) in (FALLBACK_PRIORITY..).zip(&list) {
                match firsts.get(other) {
                    Some(targets) => more.extend(
                        targets
                            .iter()
                            .cloned()
                            .map(|target| TargetDraft { priority: Some(priority), ..target }),
                    ),
                    None => {
                        let why = format!("the file has no model `{other}`");
                        let line = self.source.line_of("fallbacks");
                        self.draft.lose(format!("fallbacks.{name}"), why, line);
                    }
                }
            }
            match self.models.iter_mut().find(|known| known.name == name) {
                Some(model) => model.targets.extend(more),
                None => {
                    let why = format!("the file has no model `{name}`");
                    let line = self.source.line_of("fallbacks");
                    self.draft.lose(format!("fallbacks.{name}"), why, line);
                }
            }
        }
    }

    fn read_strategy(&mut self, router: &mut Fields) {
        let Some(text) = router.text("routing_strategy") else { return };
        let strategy = match text.as_str() {
            // Targets of the same priority are chosen by weight.
            "simple-shuffle" => return,
            "least-busy" => "least_busy",
            "latency-based-routing" => "least_latency",
            "cost-based-routing" => "least_cost",
            _ => {
                let line = self.source.line_of("routing_strategy");
                let why = "no `strategy` here does the same";
                return self.draft.lose("router_settings.routing_strategy", why, line);
            }
        };
        self.draft.set("routing.strategy", format!("\"{strategy}\""), "routing_strategy");
    }

    /// Other names for models: a name, or a table with one.
    fn read_group_aliases(&mut self, router: &mut Fields) {
        let Some(Value::Object(map)) = router.take("model_group_alias") else { return };
        for (name, target) in map {
            match text_of(&target).or_else(|| target.get("model").and_then(text_of)) {
                Some(target) if self.models.iter().any(|known| known.name == target) => {
                    let target = AliasTarget::Name(target);
                    self.draft.aliases.push(AliasDraft { name, target });
                }
                _ => {
                    let line = self.source.line_of(&name);
                    let why = "the file has no model that it means";
                    self.draft.lose(format!("model_group_alias.{name}"), why, line);
                }
            }
        }
    }
}
