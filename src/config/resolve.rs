//! Resolves the config as written into settings, with presets and defaults filled in.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    base_url,
    ids::IdInterner,
    presets::{self, Preset},
    problem::Report,
    schema::{
        RawConfig, model,
        upstream::{self as written, PartialTimeouts, RawBaseUrl},
    },
    settings::{
        Alias, Auth, DialectEndpoint, Hedge, KeylessListener, ListenAddresses, LogicalModel,
        ModelTarget, Origin, Project, Settings, Timeouts, Upstream, UpstreamKey,
    },
};
use crate::config::{
    reader::{Located, truncate},
    validate,
};
use crate::{
    base::{pattern::Patterns, suggest},
    ir::op::Dialect,
    secrets::Reference,
};

/// Default priority of upstreams in the file, and of keys.
pub(super) const FILE_PRIORITY: u32 = 10;
/// Priority of discovered upstreams.
pub(super) const DISCOVERED_PRIORITY: u32 = 50;

/// The folders that paths in the file are relative to.
pub(super) struct PathBase<'a> {
    pub(super) folder: &'a Path,
    pub(super) home: Option<&'a Path>,
}

impl PathBase<'_> {
    /// Resolves `~/x` in the home folder, and `x` next to the config file.
    fn resolve(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => self.folder.join(path),
        }
    }
}

pub(super) fn resolve_settings(
    raw: RawConfig,
    path_base: &PathBase<'_>,
    ids: &mut IdInterner,
    report: &mut Report,
) -> Settings {
    validate::check_names(&raw, report);
    let mut upstreams = Vec::new();
    for row in &raw.upstreams {
        if let Some(upstream) = resolve_upstream(row, &raw.timeouts, path_base, ids, report) {
            validate::check_upstream(row, &upstream, &raw.server.value, report);
            upstreams.push(Arc::new(upstream));
        }
    }
    validate::check_targets(&raw.models, &raw.aliases, &raw.upstreams, report);
    let strategy = raw.routing.strategy;
    let (mut alerts, mut otlp) = (raw.alerts.value, raw.otlp);
    alerts.secret = alerts.secret.map(|secret| absolute_reference(&secret, path_base));
    for (_, value) in &mut otlp.headers {
        *value = absolute_reference(value, path_base);
    }
    Settings {
        server: raw.server.value,
        keyless: raw.keyless.into_iter().map(resolve_keyless).collect(),
        discover: raw.discover,
        log: raw.log,
        timeouts: raw.timeouts,
        retry: raw.retry,
        cooldown: raw.cooldown,
        routing: raw.routing,
        translation: raw.translation,
        models: raw
            .models
            .iter()
            .map(|row| Arc::new(resolve_model(row, strategy, &raw.upstreams)))
            .collect(),
        aliases: raw
            .aliases
            .into_iter()
            .map(|row| Alias { name: row.name.value, target: row.target.value.into() })
            .collect(),
        model_facts: raw.model_facts,
        projects: resolve_projects(raw.projects, path_base),
        budget: raw.budget,
        tui: raw.tui,
        ledger: raw.ledger,
        alerts,
        otlp,
        prices: raw.prices,
        rates: raw.rates,
        upstreams,
    }
}

fn resolve_keyless(row: super::schema::keyless::RawKeyless) -> KeylessListener {
    let (addresses, optional_v6) = row.listen.value;
    let project = row.project.map_or_else(|| Arc::from("default"), |name| Arc::from(name.value));
    let listen = ListenAddresses { addresses, optional_v6 };
    KeylessListener { listen, project, dialects: row.dialects }
}

fn resolve_upstream(
    row: &written::RawUpstream,
    base: &Timeouts,
    path_base: &PathBase<'_>,
    ids: &mut IdInterner,
    report: &mut Report,
) -> Option<Upstream> {
    let name = row.name.value.as_str();
    let preset = preset_of(row, report)?;
    let ends = resolve_endpoints(row, preset, report)?;
    let keys = resolve_keys(row, path_base, ids, report);
    let auth = match preset {
        Some(preset) if preset.auth != Auth::None || keys.is_empty() => preset.auth.clone(),
        _ if keys.is_empty() => Auth::None,
        _ => default_auth(ends[0].dialect),
    };
    let local = ends.iter().any(|end| {
        base_url::host_port(&end.base_url).is_some_and(|(host, _)| base_url::is_loopback(&host))
    });
    Some(Upstream {
        id: ids.upstream_id(name),
        name: name.into(),
        origin: Origin::File,
        preset: preset.map(|preset| preset.name.clone()),
        endpoints: ends,
        auth,
        models: row
            .models
            .as_ref()
            .map(|at| at.value.clone())
            .or_else(|| preset.and_then(|preset| preset.models.clone())),
        rename: row.rename.iter().cloned().collect(),
        priority: row.priority.unwrap_or(FILE_PRIORITY),
        weight: row.weight.unwrap_or(1.0),
        max_concurrency: row.max_concurrency,
        max_rps: row.max_rps,
        region: row.region.clone(),
        proxy: row.proxy.clone(),
        headers: row.headers.clone(),
        ca_file: row.ca_file.as_ref().map(|file| path_base.resolve(file)),
        insecure_tls: row.insecure_tls.as_ref().is_some_and(|at| at.value),
        ask_usage: row.ask_usage.unwrap_or_else(|| preset.is_some_and(|preset| preset.ask_usage)),
        think_split: row.think_split,
        stream_keepalive: row.stream_keepalive,
        accepts_reasoning: preset.is_none_or(|preset| preset.accepts_reasoning),
        embed: preset.and_then(|preset| preset.embed),
        rerank: preset.and_then(|preset| preset.rerank),
        retry_statuses: row.retry_statuses.clone(),
        budget: row.budget.clone(),
        rules: row.rules.clone(),
        health: row.health.clone(),
        keys,
        enabled: row.enabled,
        timeouts: overlay_timeouts(base, &row.timeouts),
        patch: row.patch.clone(),
        prices_win: row.prices_win,
        accepts_compressed: preset
            .is_some_and(|preset| preset.accepts_compressed && row.base_url.is_none()),
        local,
        key_page: preset.and_then(|preset| preset.key_page.clone()),
        key_env: preset.and_then(|preset| preset.key_env.first().cloned()),
    })
}

/// Returns how a credential travels by default.
fn default_auth(dialect: Dialect) -> Auth {
    match dialect {
        Dialect::Anthropic => Auth::Header("x-api-key".to_owned()),
        Dialect::Gemini => Auth::Header("x-goog-api-key".to_owned()),
        Dialect::Ollama | Dialect::Openai | Dialect::Responses => Auth::Bearer,
    }
}

/// Returns the preset that the row names or is named after; `None` if the row cannot be used.
fn preset_of(row: &written::RawUpstream, report: &mut Report) -> Option<Option<&'static Preset>> {
    let names = || presets::all().iter().map(|preset| &*preset.name);
    if let Some(requested) = &row.preset {
        let found = presets::find(&requested.value);
        if found.is_none() {
            let help = match suggest::nearest(&requested.value, names()) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => "`aiproxy upstream presets` lists them; without a preset write `base_url` and `dialect`".to_owned(),
            };
            report.error(
                &requested.span,
                format!(
                    "`upstream.{}.preset`: there is no preset \"{}\"",
                    row.name.value,
                    truncate(&requested.value)
                ),
                Some(help),
            );
            return None;
        }
        return Some(found);
    }
    if row.base_url.is_some() {
        return Some(None);
    }
    let found = presets::find(&row.name.value);
    if found.is_none() {
        let help = match suggest::nearest(&row.name.value, names()) {
            Some(name) => format!("add base_url = \"https://…\", or preset = \"{name}\""),
            None => "add base_url = \"https://…\"; `aiproxy upstream presets` lists what is known"
                .to_owned(),
        };
        report.missing(
            &row.name.span,
            format!("`upstream.{}` has neither `base_url` nor `preset`", row.name.value),
            Some(help),
        );
        return None;
    }
    Some(found)
}

/// Returns the endpoints by dialect; `None` if a problem was reported.
fn resolve_endpoints(
    row: &written::RawUpstream,
    preset: Option<&Preset>,
    report: &mut Report,
) -> Option<Vec<DialectEndpoint>> {
    let path = format!("upstream.{}", row.name.value);
    let requested = row.dialects.as_ref();
    if let Some(requested) = requested.filter(|asked| asked.value.is_empty()) {
        report.error(
            &requested.span,
            format!("`{path}.dialect` names no dialect"),
            Some("write dialect = \"openai\"".to_owned()),
        );
        return None;
    }
    let requested: Option<Vec<Dialect>> =
        requested.map(|list| list.value.iter().map(|at| at.value).collect());
    match (&row.base_url, preset) {
        (Some(RawBaseUrl::PerDialect(each, span)), _) => {
            let mut out: Vec<DialectEndpoint> = Vec::new();
            for (dialect, url) in each {
                out.push(resolve_endpoint(&path, url, dialect.value, preset, report)?);
            }
            if let Some(missing) = requested
                .iter()
                .flatten()
                .find(|dialect| !out.iter().any(|end| end.dialect == **dialect))
            {
                report.error(
                    span,
                    format!("`{path}.base_url` has no URL for the dialect \"{missing}\""),
                    Some(format!("add {missing} = \"https://…\"")),
                );
                return None;
            }
            if out.is_empty() {
                report.error(
                    span,
                    format!("`{path}.base_url` is an empty table"),
                    Some("write { openai = \"https://…\" }".to_owned()),
                );
                return None;
            }
            let order = requested.unwrap_or_default();
            out.sort_by_key(|end| {
                order.iter().position(|dialect| *dialect == end.dialect).unwrap_or(usize::MAX)
            });
            Some(out)
        }
        (Some(RawBaseUrl::Single(url)), Some(preset)) => {
            rebased_endpoints(&path, url, requested, preset, report)
        }
        (Some(RawBaseUrl::Single(url)), None) => {
            let dialects = requested.unwrap_or_else(|| {
                vec![base_url::dialect_of(&url.value).unwrap_or(Dialect::Openai)]
            });
            dialects
                .into_iter()
                .map(|dialect| resolve_endpoint(&path, url, dialect, None, report))
                .collect()
        }
        (None, Some(preset)) if preset.needs_url => {
            let help = format!(
                "add base_url = \"{}\" with the name of yours",
                preset.endpoints[0].base_url
            );
            report.missing(
                &row.name.span,
                format!("`{path}` needs a `base_url`: {} has one for each customer", preset.title),
                Some(help),
            );
            None
        }
        (None, Some(preset)) => {
            let Some(requested) = requested else { return Some(preset.endpoints.clone()) };
            let endpoints: Vec<_> =
                requested.iter().filter_map(|dialect| preset.endpoint(*dialect).cloned()).collect();
            if endpoints.len() == requested.len() {
                return Some(endpoints);
            }
            let known = preset
                .endpoints
                .iter()
                .map(|end| end.dialect.name())
                .collect::<Vec<_>>()
                .join(", ");
            let span = row.dialects.as_ref().map_or(&row.name.span, |at| &at.span);
            report.error(
                span,
                format!("`{path}.dialect`: {} speaks {known}", preset.title),
                Some("leave the others out, or name their `base_url`".to_owned()),
            );
            None
        }
        // `preset_of` has reported it.
        (None, None) => None,
    }
}

/// Moves the endpoints of a preset to another address, with all endpoints at or below the base URL
/// of its first one.
fn rebased_endpoints(
    path: &str,
    url: &Located<String>,
    requested: Option<Vec<Dialect>>,
    preset: &Preset,
    report: &mut Report,
) -> Option<Vec<DialectEndpoint>> {
    let first = &preset.endpoints[0];
    let first_moved = resolve_endpoint(path, url, first.dialect, Some(preset), report)?;
    let dialects = requested.unwrap_or_else(|| {
        preset
            .endpoints
            .iter()
            .filter(|end| end.base_url.starts_with(&first.base_url))
            .map(|end| end.dialect)
            .collect()
    });
    let endpoint_of = |dialect: Dialect, report: &mut Report| match preset
        .endpoint(dialect)
        .and_then(|end| end.base_url.strip_prefix(&first.base_url))
    {
        Some(below) if dialect == first.dialect || !below.is_empty() => Some(DialectEndpoint {
            dialect,
            base_url: format!("{}{below}", first_moved.base_url),
            query: first_moved.query.clone(),
        }),
        _ => resolve_endpoint(path, url, dialect, Some(preset), report),
    };
    dialects.into_iter().map(|dialect| endpoint_of(dialect, report)).collect()
}

fn resolve_endpoint(
    path: &str,
    url: &Located<String>,
    dialect: Dialect,
    preset: Option<&Preset>,
    report: &mut Report,
) -> Option<DialectEndpoint> {
    let known = preset.and_then(|preset| preset.endpoint(dialect));
    // The preset's own URL needs no rules: some presets have no path although the dialect has a
    // default.
    if let Some(known) =
        known.filter(|known| known.base_url == url.value.trim().trim_end_matches('/'))
    {
        return Some(known.clone());
    }
    let default_query = known.and_then(|known| known.query.clone());
    let parsed = if default_query.is_some() || preset.is_some_and(|preset| preset.needs_url) {
        base_url::parse(&url.value, dialect)
    } else {
        base_url::normalize(&url.value, dialect)
            .map(|base| base_url::BaseUrlParts { base, query: None })
    };
    match parsed {
        Ok(parts) => Some(DialectEndpoint {
            dialect,
            base_url: parts.base,
            query: parts.query.or(default_query),
        }),
        Err(sentence) => {
            let (title, help) = sentence
                .split_once("; ")
                .map_or((sentence.as_str(), None), |(title, help)| (title, Some(help.to_owned())));
            let message = format!("`{path}.base_url`: {title}");
            // One invalid URL for three dialects is reported once.
            if !report.findings.iter().any(|f| f.span == url.span && f.title == message) {
                report.error(&url.span, message, help);
            }
            None
        }
    }
}

/// Returns the label of a key: as written, else from its reference; literals are numbered.
pub(super) fn key_label(
    written: Option<&str>,
    reference: &Reference,
    literals: &mut usize,
) -> String {
    if matches!(reference, Reference::Literal(_)) {
        *literals += 1;
    }
    match (written, reference.default_label()) {
        (Some(label), _) => label.to_owned(),
        (None, Some(label)) => label
            .chars()
            .map(|c| if c.is_whitespace() || c.is_control() { '-' } else { c })
            .collect(),
        (None, None) => format!("literal-{literals}"),
    }
}

fn resolve_keys(
    row: &written::RawUpstream,
    path_base: &PathBase<'_>,
    ids: &mut IdInterner,
    report: &mut Report,
) -> Vec<Arc<UpstreamKey>> {
    let mut out: Vec<Arc<UpstreamKey>> = Vec::new();
    let mut spans = Vec::new();
    let mut literals = 0;
    for key in &row.keys {
        let label = key_label(
            key.label.as_ref().map(|at| at.value.as_str()),
            &key.reference.value,
            &mut literals,
        );
        let span = key.label.as_ref().map_or(&key.reference.span, |at| &at.span);
        if let Some(first) = out.iter().position(|known| *known.label == label) {
            let help = Some(
                "give one of them another label: { ref = \"…\", label = \"second\" }".to_owned(),
            );
            report.duplicate(
                span,
                &spans[first],
                format!("two keys of `upstream.{}` are called `{label}`", row.name.value),
                help,
            );
            continue;
        }
        spans.push(span.clone());
        let name: Arc<str> = format!("{}/{label}", row.name.value).into();
        out.push(Arc::new(UpstreamKey {
            id: ids.key_id(&name),
            label: label.into(),
            reference: absolute_reference(&key.reference.value, path_base),
            account: key.account.as_deref().map_or_else(|| name.clone(), Arc::from),
            priority: key.priority.unwrap_or(FILE_PRIORITY),
            weight: key.weight.unwrap_or(1.0),
            limit: key.limit,
            limits: key.limits.clone(),
            max_concurrency: key.max_concurrency,
            budget: key.budget.clone(),
            refresh: key.refresh,
            enabled: key.enabled,
            name,
        }));
    }
    out
}

fn absolute_reference(reference: &Reference, path_base: &PathBase<'_>) -> Reference {
    match reference {
        Reference::File(path) => Reference::File(path_base.resolve(path)),
        other => other.clone(),
    }
}

fn overlay_timeouts(base: &Timeouts, part: &PartialTimeouts) -> Timeouts {
    Timeouts {
        connect: part.connect.unwrap_or(base.connect),
        first_byte: part.first_byte.unwrap_or(base.first_byte),
        idle: part.idle.unwrap_or(base.idle),
        total: part.total.unwrap_or(base.total),
        client_head: part.client_head.unwrap_or(base.client_head),
        client_idle: part.client_idle.unwrap_or(base.client_idle),
        client_keepalive: part.client_keepalive.unwrap_or(base.client_keepalive),
    }
}

fn resolve_model(
    row: &model::RawModel,
    strategy: super::settings::Strategy,
    upstreams: &[written::RawUpstream],
) -> LogicalModel {
    let target = |target: &model::RawTarget| match target {
        model::RawTarget::Name(text) => {
            let (upstream, model) = validate::split_target(&text.value, upstreams);
            ModelTarget {
                upstream: upstream.map(Arc::from),
                model: model.into(),
                priority: None,
                weight: None,
            }
        }
        model::RawTarget::Table { upstream, model, priority, weight } => ModelTarget {
            upstream: upstream.as_ref().map(|at| at.value.as_str().into()),
            model: model.value.as_str().into(),
            priority: *priority,
            weight: *weight,
        },
    };
    LogicalModel {
        name: row.name.value.clone(),
        targets: row.targets.iter().map(target).collect(),
        strategy: row.strategy.unwrap_or(strategy),
        sticky: row.sticky,
        sticky_ttl: row.sticky_ttl,
        hedge: row.hedge.as_ref().map(|hedge| {
            let &model::RawHedge { after, max_share, max_tokens } = hedge;
            Arc::new(Hedge { model: row.name.value.text().into(), after, max_share, max_tokens })
        }),
        rescue: row.rescue,
        first_byte: row.timeouts.first_byte,
        idle: row.timeouts.idle,
        total: row.timeouts.total,
    }
}

fn resolve_projects(
    rows: Vec<super::schema::project::RawProject>,
    path_base: &PathBase<'_>,
) -> Vec<Arc<Project>> {
    let mut out = Vec::new();
    if !rows.iter().any(|row| row.name.value == "default") {
        out.push(Arc::new(default_project()));
    }
    for row in rows {
        out.push(Arc::new(Project {
            key: row.key.map(|at| absolute_reference(&at.value, path_base)),
            models: row.models.unwrap_or_else(Patterns::any),
            upstreams: row.upstreams.map_or_else(Patterns::any, |at| at.value),
            rpm: row.rpm,
            tpm: row.tpm,
            max_concurrency: row.max_concurrency,
            budget: row.budget,
            subnets: row.subnets,
            admin: row.admin,
            enabled: row.enabled,
            name: row.name.value.into(),
        }));
    }
    out
}

/// Returns the project that exists unless a row replaces it.
fn default_project() -> Project {
    Project {
        name: "default".into(),
        key: None,
        models: Patterns::any(),
        upstreams: Patterns::any(),
        rpm: 0,
        tpm: 0,
        max_concurrency: 0,
        budget: Vec::new(),
        subnets: Vec::new(),
        admin: false,
        enabled: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load::load};

    fn upstream(row: &str) -> Arc<Upstream> {
        let text = format!("[[upstream]]\nname = \"u\"\n{row}\n");
        let loaded = load(
            &text,
            Path::new("/etc/x/config.toml"),
            &Environment::default(),
            &mut IdInterner::default(),
        );
        loaded.settings.unwrap_or_else(|| panic!("{row}: {:#?}", loaded.problems)).upstreams[0]
            .clone()
    }

    fn ends(upstream: &Upstream) -> String {
        let each = upstream.endpoints.iter().map(|end| {
            format!("{}={}{}", end.dialect, end.base_url, end.query.as_deref().unwrap_or_default())
        });
        each.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn presets_dialects_and_addresses_come_together() {
        for (row, want) in [
            (
                r#"preset = "openai""#,
                "openai=https://api.openai.com/v1 responses=https://api.openai.com/v1",
            ),
            (
                r#"preset = "openai"
base_url = "https://gateway.example""#,
                "openai=https://gateway.example/v1 responses=https://gateway.example/v1",
            ),
            (
                r#"preset = "openai"
dialect = "responses""#,
                "responses=https://api.openai.com/v1",
            ),
            (
                r#"preset = "ollama"
base_url = "http://10.0.0.2:11434/api/chat""#,
                "ollama=http://10.0.0.2:11434 openai=http://10.0.0.2:11434/v1",
            ),
            (
                r#"preset = "perplexity"
base_url = "https://api.perplexity.ai/""#,
                "openai=https://api.perplexity.ai",
            ),
            (
                r#"preset = "azure-openai"
base_url = "https://mine.openai.azure.com/openai/v1?api-version=2026-01-01""#,
                "openai=https://mine.openai.azure.com/openai/v1api-version=2026-01-01 responses=https://mine.openai.azure.com/openai/v1api-version=2026-01-01",
            ),
            (r#"base_url = "https://a.example/v1/messages""#, "anthropic=https://a.example/v1"),
            (
                r#"base_url = "https://a.example"
dialect = ["anthropic", "gemini"]"#,
                "anthropic=https://a.example/v1 gemini=https://a.example/v1beta",
            ),
            (
                r#"base_url = { openai = "https://a.example/o", anthropic = "https://a.example/a" }
dialect = ["anthropic", "openai"]"#,
                "anthropic=https://a.example/a openai=https://a.example/o",
            ),
        ] {
            assert_eq!(ends(&upstream(row)), want, "{row}");
        }
    }

    #[test]
    fn a_key_travels_the_way_of_its_end() {
        let keys = "keys = [\"env:K\"]";
        for (row, dialect, want) in [
            (
                format!("preset = \"gemini\"\n{keys}"),
                Dialect::Gemini,
                Auth::Header("x-goog-api-key".to_owned()),
            ),
            (format!("preset = \"gemini\"\n{keys}"), Dialect::Openai, Auth::Bearer),
            (
                format!("preset = \"azure-openai\"\nbase_url = \"https://a.example/v1\"\n{keys}"),
                Dialect::Responses,
                Auth::Header("api-key".to_owned()),
            ),
            (
                format!("base_url = \"https://a.example\"\ndialect = \"anthropic\"\n{keys}"),
                Dialect::Anthropic,
                Auth::Header("x-api-key".to_owned()),
            ),
            (format!("preset = \"ollama\"\n{keys}"), Dialect::Ollama, Auth::Bearer),
            ("preset = \"ollama\"".to_owned(), Dialect::Ollama, Auth::None),
            ("base_url = \"http://127.0.0.1:9000\"".to_owned(), Dialect::Openai, Auth::None),
            ("preset = \"openai\"".to_owned(), Dialect::Openai, Auth::Bearer),
        ] {
            assert_eq!(upstream(&row).auth_for(dialect), &want, "{row}");
        }
    }

    #[test]
    fn keys_are_named_and_files_are_found_beside_the_config() {
        let upstream = upstream(
            "base_url = \"https://a.example\"\nkeys = [\"keyring:a/work\", \"sk-one\", \"file:k/two.key\", \"sk-three\", { ref = \"env:X\", label = \"x\", account = \"me\" }]",
        );
        let names: Vec<_> = upstream.keys.iter().map(|key| &*key.name).collect();
        assert_eq!(names, ["u/work", "u/literal-1", "u/two.key", "u/literal-2", "u/x"]);
        assert_eq!(upstream.keys[2].reference.to_string(), "file:/etc/x/k/two.key");
        assert_eq!((&*upstream.keys[0].account, &*upstream.keys[4].account), ("u/work", "me"));
    }

    #[test]
    fn a_name_keeps_its_number_over_reloads() {
        let mut ids = IdInterner::default();
        let mut numbers = |text: &str| {
            let loaded = load(text, Path::new("c.toml"), &Environment::default(), &mut ids);
            loaded.settings.expect("it loads").upstreams.iter().map(|u| u.id.0).collect::<Vec<_>>()
        };
        let (a, b) = (
            "[[upstream]]\nname = \"a\"\nbase_url = \"https://a.example\"\n",
            "[[upstream]]\nname = \"b\"\nbase_url = \"https://b.example\"\n",
        );
        assert_eq!(numbers(&format!("{a}{b}")), [0, 1]);
        assert_eq!(numbers(b), [1]);
        assert_eq!(numbers(&format!("{b}{a}")), [1, 0]);
    }
}
