//! `[[upstream]]`: where requests are sent.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use toml_edit::{Array, InlineTable, Value};

use super::{
    FILE_PRIORITY, MAX_COUNT,
    budget::{Budget, BudgetRows},
    connection::{CA_FILE, ExtraHeaders, HealthCheck, PROXY, ProxySetting},
    endpoint::{Auth, DialectEndpoint},
    endpoints::{WrittenEndpoints, describe_base_url, written_url},
    general::{StatusSet, Statuses, Timeouts, describe_timeouts},
    names::{DialectName, PatternList, TextMap, read_name, read_row_name},
    patch::{Patch, Patches},
    path_base::PathBase,
    rules::{Rules, UpstreamRule},
    upstream_key::{UpstreamKey, describe_keys, read_upstream_keys, write_upstream_key},
};
use crate::{
    base::pattern::Patterns,
    config::{
        base_url,
        choices::Origin,
        ids::{IdInterner, UpstreamId},
        kinds::{Flag, List, Maybe, Number, TEXT, ValueKind, count},
        presets::Preset,
        problem::Report,
        reader::{Located, TableReader},
        table::{ConfigTable, Nested, Written, config},
    },
    ir::{embed::EmbedForm, op::Dialect, rerank::RerankForm},
};

config! {
    /// A provider, or a server of your own.
    #[derive(Clone, Debug)]
    pub struct Upstream in "upstream" {
        /// Models that it serves: names, globs, re:REGEX, !EXCLUSION; if omitted, all that it lists
        models: Option<Patterns> = None, Maybe(PatternList);
        /// Names for clients, and the upstream's names for them
        rename: BTreeMap<String, String> = BTreeMap::new(), TextMap;
        /// Lower is tried first
        priority: u32 = FILE_PRIORITY, count(0, MAX_COUNT);
        /// Share inside a tier
        weight: f64 = 1.0, Number(0.001, 1e6);
        /// Concurrent requests; 0 is unlimited
        max_concurrency: u32 = 0, count(0, MAX_COUNT);
        /// Requests per second; 0 is unlimited
        max_rps: f64 = 0.0, Number(0.0, 1e6);
        /// Region of its servers
        region: String = String::new(), TEXT, omitted;
        /// http, https, socks5 or socks5h URL; "none" ignores the proxies of the environment
        proxy: ProxySetting = ProxySetting::Environment, PROXY;
        /// Headers added to each request
        headers: Vec<(String, String)> = Vec::new(), ExtraHeaders;
        /// Certificates trusted in addition to the system's; relative to this file
        ca_file: Option<PathBuf> = None, CA_FILE;
        /// Trust any certificate
        insecure_tls: bool = false, Flag;
        /// Ask a stream for its usage if the client did not; presets set it
        ask_usage: bool = false, Flag, inherited;
        /// `<think>` text at the beginning of a response is reasoning
        think_split: bool = false, Flag;
        /// Run requests for a complete response as streams, so that no idle timeout ends them
        stream_keepalive: bool = false, Flag;
        /// Its rows in [prices] take precedence over the costs that it reports
        prices_win: bool = false, Flag, omitted;
        /// Instead of retry.statuses
        retry_statuses: Option<StatusSet> = None, Maybe(Statuses);
        /// The meaning of its errors, if it differs from the default; the first match counts
        rules as "rule": Vec<UpstreamRule> = Vec::new(), Rules;
        /// Spending limit; beyond it other upstreams serve until the period ends
        budget: Vec<Budget> = Vec::new(), BudgetRows;
        /// Request that is sent regularly to check whether it works
        health: Option<HealthCheck> = None, Maybe(Nested::new());
        /// Whether it is used
        enabled: bool = true, Flag;
        /// Edits to request bodies; names are JSON pointers
        patch: Patch = Patch::default(), Patches;
    }
    described {
        /// Name of the upstream; a preset with this name fills in the rest
        "name": TEXT.describe(), required;
        /// A known provider, which fills in the rest; `aiproxy upstream presets` lists them
        "preset": TEXT.describe();
        /// Its URL; a table by dialect if they differ
        "base_url": describe_base_url();
        /// Dialects that it speaks: one or several of openai, responses, anthropic, gemini, ollama
        "dialect": List(DialectName).describe();
        /// Credentials: references, or tables
        "keys": describe_keys();
        /// Instead of [timeouts]
        "timeouts": describe_timeouts();
    }
    derived {
        id: UpstreamId = UpstreamId(0);
        name: Arc<str> = Arc::default();
        origin: Origin = Origin::File;
        preset: Option<Arc<str>> = None;
        /// Its native dialects, the preferred endpoint first; never empty.
        endpoints: Vec<DialectEndpoint> = Vec::new();
        auth: Auth = Auth::None;
        /// Whether its chat models accept their reasoning back as `reasoning_content`.
        accepts_reasoning: bool = true;
        /// The form of its embedding requests, if it differs from its dialect.
        embed: Option<EmbedForm> = None;
        /// The form of its rerank requests, if known.
        rerank: Option<RerankForm> = None;
        /// Empty if no credential is needed (`auth` is then `None`) or none is configured yet.
        keys: Vec<Arc<UpstreamKey>> = Vec::new();
        timeouts: Timeouts = Timeouts::default();
        /// Whether it accepts compressed request bodies unchanged.
        accepts_compressed: bool = false;
        /// On this machine: loopback or the demo.
        local: bool = false;
        /// The page on which a person gets a key, from the preset.
        key_page: Option<Arc<str>> = None;
        /// The variable that usually contains its key, from the preset.
        key_env: Option<Arc<str>> = None;
    }
}

impl Upstream {
    /// Returns the endpoint that supports this dialect natively.
    #[must_use]
    pub fn endpoint(&self, dialect: Dialect) -> Option<&DialectEndpoint> {
        self.endpoints.iter().find(|end| end.dialect == dialect)
    }

    /// Returns how the credential travels to the endpoint of this dialect. A header that belongs to
    /// one dialect is used there only; the provider's other endpoints get the key as bearer.
    #[must_use]
    pub fn auth_for(&self, dialect: Dialect) -> &Auth {
        let owner = match &self.auth {
            Auth::Header(name) if name.eq_ignore_ascii_case("x-goog-api-key") => Dialect::Gemini,
            Auth::Header(name) if name.eq_ignore_ascii_case("x-api-key") => Dialect::Anthropic,
            auth => return auth,
        };
        if owner == dialect { &self.auth } else { &Auth::Bearer }
    }

    /// Returns an upstream with the facts of its preset, at the preset's own address.
    pub(in crate::config) fn of_preset(preset: &Preset) -> Self {
        Self {
            preset: Some(preset.name.clone()),
            endpoints: preset.endpoints.clone(),
            auth: preset.auth.clone(),
            models: preset.models.clone(),
            ask_usage: preset.ask_usage,
            accepts_reasoning: preset.accepts_reasoning,
            embed: preset.embed,
            rerank: preset.rerank,
            accepts_compressed: preset.accepts_compressed,
            local: preset.is_local(),
            key_page: preset.key_page.clone(),
            key_env: preset.key_env.first().cloned(),
            ..Self::default()
        }
    }
}

/// What rows refer to besides their own table.
pub(in crate::config) struct RowContext<'a> {
    pub(in crate::config) path_base: PathBase<'a>,
    pub(in crate::config) ids: &'a mut IdInterner,
    /// Of the whole file.
    pub(in crate::config) timeouts: Timeouts,
}

/// A row of `[[upstream]]`.
pub(in crate::config) struct UpstreamRow {
    pub(in crate::config) name: Located<String>,
    /// `None` if a problem was reported.
    pub(in crate::config) upstream: Option<Written<Upstream>>,
}

/// Reads a row; `None` if it has no usable name.
pub(in crate::config) fn read_upstream(
    mut row: TableReader<'_>,
    context: &mut RowContext<'_>,
    report: &mut Report,
) -> Option<UpstreamRow> {
    let name = read_row_name(&mut row, "upstream", report, read_name);
    let is_named = name.is_some();
    let name = name.unwrap_or_else(|| Located::new(String::new(), row.span.clone()));
    let written = WrittenEndpoints::read(&mut row, name.clone(), report);
    let preset = if is_named { written.preset(report) } else { None };
    let endpoints = preset.and_then(|preset| written.resolve(preset, report));
    let preset = preset.flatten();
    let RowContext { path_base, ids, .. } = context;
    let keys = read_upstream_keys(&mut row, &name.value, preset, path_base, ids, report);
    let mut timeouts = context.timeouts;
    if let Some(mut table) = row.child("timeouts", report) {
        timeouts = Timeouts::read_keys(&mut table, timeouts, report);
        table.finish(report);
    }
    let base = preset.map(Upstream::of_preset).unwrap_or_default();
    let mut upstream = Upstream::read_keys(&mut row, base, report);
    let spans = row.finish(report);
    if !is_named {
        return None;
    }
    let Some(endpoints) = endpoints else { return Some(UpstreamRow { name, upstream: None }) };
    upstream.auth = match preset {
        Some(preset) if preset.auth != Auth::None || keys.is_empty() => preset.auth.clone(),
        _ if keys.is_empty() => Auth::None,
        _ => Auth::of_dialect(endpoints[0].dialect),
    };
    upstream.id = context.ids.upstream_id(&name.value);
    upstream.name = name.value.as_str().into();
    upstream.local = endpoints.iter().any(|end| {
        base_url::host_port(&end.base_url).is_some_and(|(host, _)| base_url::is_loopback(&host))
    });
    upstream.accepts_compressed &= !written.has_base_url();
    upstream.ca_file = upstream.ca_file.map(|file| context.path_base.resolve(&file));
    (upstream.endpoints, upstream.keys, upstream.timeouts) = (endpoints, keys, timeouts);
    Some(UpstreamRow { name, upstream: Some(Written { value: upstream, spans }) })
}

/// Writes a row for `config show`. Timeouts that are those of the whole file are left out.
pub(in crate::config) fn write_upstream(
    upstream: &Upstream,
    defaults: &Timeouts,
) -> Vec<(&'static str, Value)> {
    let urls = upstream.endpoints.iter().map(|end| (end.dialect.name(), written_url(end)));
    let keys: Array = upstream.keys.iter().map(|key| write_upstream_key(key)).collect();
    let timeouts = upstream.timeouts.written_keys().into_iter().zip(defaults.written_keys());
    let timeouts: InlineTable = timeouts
        .filter(|((_, own), (_, default))| own.to_string() != default.to_string())
        .map(|(own, _)| own)
        .collect();
    let mut out = vec![("name", Value::from(&*upstream.name))];
    out.extend(upstream.preset.as_deref().map(|preset| ("preset", preset.into())));
    out.push(("base_url", urls.collect::<InlineTable>().into()));
    for (name, value) in upstream.written_keys() {
        if name == "enabled" {
            out.push(("keys", keys.clone().into()));
        }
        out.push((name, value));
        if name == "enabled" && !timeouts.is_empty() {
            out.push(("timeouts", timeouts.clone().into()));
        }
    }
    out
}
