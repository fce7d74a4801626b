//! Reads all tables of a file into settings, with presets and defaults filled in.

use std::sync::Arc;

use crate::config::model_facts::FactOrigin;

use toml::de::DeTable;

use super::{
    ids::IdInterner,
    prices,
    problem::Report,
    reader::TableReader,
    schema::{
        alert_receiver::read_alert_receiver,
        alerts::{AlertSettings, OtlpSettings},
        budget::BudgetRows,
        general::{LogSettings, RoutingSettings},
        keyless::read_keyless,
        ledger::LedgerSettings,
        mcp::read_mcp,
        model::{read_aliases, read_model},
        model_facts::read_facts_row,
        path_base::PathBase,
        price::{CurrencyRates, PriceRow, read_price_rows, read_rates},
        project::{Project, read_project},
        targets::UpstreamNames,
        upstream::{RowContext, read_upstream},
    },
    settings::Settings,
    table::{Written, read_key, read_table},
    validate::{self, FileRows},
};

/// Reads the whole file. Reports every problem.
pub(super) fn read_settings(
    table: &DeTable<'_>,
    path_base: PathBase<'_>,
    ids: &mut IdInterner,
    report: &mut Report,
) -> Settings {
    let mut top = TableReader::new("", 0..0, table);
    let timeouts = read_table(&mut top, report).value;
    let routing: RoutingSettings = read_table(&mut top, report).value;
    let mut otlp: OtlpSettings = read_table(&mut top, report).value;
    for (_, value) in &mut otlp.headers {
        *value = path_base.absolute_reference(value.clone());
    }
    let mut log: LogSettings = read_table(&mut top, report).value;
    log.file = log.file.map(|file| path_base.resolve_home(&file));
    let mut ledger: LedgerSettings = read_table(&mut top, report).value;
    ledger.path = path_base.resolve_home(&ledger.path);
    let (rates, prices) = read_prices(&mut top, report);
    let rows = read_rows(&mut top, RowContext { path_base, ids, timeouts }, &routing, report);
    let facts = top.children("model_facts", report).into_iter();
    let facts = facts
        .filter_map(|row| read_facts_row(row, FactOrigin::Config, report))
        .map(Arc::new)
        .collect();
    let settings = Settings {
        model_facts: facts,
        discover: read_table(&mut top, report).value,
        log,
        timeouts,
        retry: read_table(&mut top, report).value,
        cooldown: read_table(&mut top, report).value,
        routing,
        translation: read_table(&mut top, report).value,
        ledger,
        otlp,
        tui: read_table(&mut top, report).value,
        budget: read_key(&mut top, "budget", &BudgetRows, report).unwrap_or_default(),
        prices,
        rates,
        ..Settings::default()
    };
    top.finish(report);
    validate::check_rows(&rows, report);
    with_rows(settings, rows)
}

fn read_rows(
    top: &mut TableReader<'_>,
    mut context: RowContext<'_>,
    routing: &RoutingSettings,
    report: &mut Report,
) -> FileRows {
    let path_base = context.path_base;
    let server = read_table(top, report);
    let mut alerts = read_table::<AlertSettings>(top, report);
    let secret = &mut alerts.value.secret;
    *secret = secret.take().map(|secret| path_base.absolute_reference(secret));
    let rows = top.children("upstream", report).into_iter();
    let upstreams: Vec<_> =
        rows.filter_map(|row| read_upstream(row, &mut context, report)).collect();
    let names = UpstreamNames(upstreams.iter().map(|row| row.name.value.clone()).collect());
    let rows = top.children("model", report).into_iter();
    let models = rows.filter_map(|row| read_model(row, routing.strategy, &names, report)).collect();
    let aliases = top.child("aliases", report);
    let aliases = aliases.map(|table| read_aliases(table, &names, report)).unwrap_or_default();
    let rows = top.children("project", report).into_iter();
    let projects = rows.filter_map(|row| read_project(row, &path_base, report)).collect();
    let rows = top.children("mcp", report).into_iter();
    let mcp = rows.filter_map(|row| read_mcp(row, &path_base, report)).collect();
    let rows = top.children("keyless", report).into_iter();
    let keyless = rows.filter_map(|row| read_keyless(row, report)).collect();
    let rows = top.children("alert_receiver", report).into_iter();
    let mut receivers: Vec<_> = rows.filter_map(|row| read_alert_receiver(row, report)).collect();
    for Written { value, .. } in &mut receivers {
        value.secret = value.secret.take().map(|secret| path_base.absolute_reference(secret));
    }
    FileRows {
        server,
        alerts,
        upstreams,
        names,
        models,
        aliases,
        mcp,
        projects,
        keyless,
        receivers,
    }
}

fn read_prices(top: &mut TableReader<'_>, report: &mut Report) -> (CurrencyRates, Vec<PriceRow>) {
    let rates = top.child("rates", report);
    let rates = rates.map(|table| read_rates(table, report)).unwrap_or_default();
    let mut currencies = prices::currencies().clone();
    currencies.extend(rates.clone());
    let rows = top.child("prices", report);
    let rows = rows.map(|table| read_price_rows(table, &currencies, report)).unwrap_or_default();
    (rates, rows)
}

fn with_rows(settings: Settings, rows: FileRows) -> Settings {
    let configured_projects = rows.projects.len();
    let mut projects: Vec<_> = rows.projects.into_iter().map(|row| Arc::new(row.value)).collect();
    if !projects.iter().any(|project| &*project.name == "default") {
        projects.insert(0, Arc::new(Project::default()));
    }
    let upstreams = rows.upstreams.into_iter().filter_map(|row| row.upstream);
    Settings {
        server: rows.server.value,
        alerts: rows.alerts.value,
        alert_receivers: rows.receivers.into_iter().map(|row| Arc::new(row.value)).collect(),
        upstreams: upstreams.map(|row| Arc::new(row.value)).collect(),
        models: rows.models.into_iter().map(|row| Arc::new(row.value)).collect(),
        aliases: rows.aliases.into_iter().map(|row| row.value).collect(),
        mcp: rows.mcp.into_iter().map(|row| Arc::new(row.value)).collect(),
        projects,
        configured_projects,
        keyless: rows.keyless.into_iter().map(|row| row.value).collect(),
        ..settings
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::{
            Environment,
            load::load,
            settings::{Auth, Upstream},
        },
        ir::op::Dialect,
    };

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
    fn preset_dialect_and_base_url_are_combined() {
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
            (r#"base_url = "https://api.anthropic.com""#, "anthropic=https://api.anthropic.com/v1"),
            (
                r#"base_url = "https://api.anthropic.com/v1/messages""#,
                "anthropic=https://api.anthropic.com/v1",
            ),
            (
                r#"base_url = "https://api.anthropic.com/v1"
dialect = "openai""#,
                "openai=https://api.anthropic.com/v1",
            ),
            (
                r#"base_url = "https://generativelanguage.googleapis.com""#,
                "gemini=https://generativelanguage.googleapis.com/v1beta openai=https://generativelanguage.googleapis.com/v1beta/openai",
            ),
            (
                r#"base_url = "https://generativelanguage.googleapis.com/v1beta/openai/""#,
                "openai=https://generativelanguage.googleapis.com/v1beta/openai",
            ),
            (
                r#"base_url = "https://generativelanguage.googleapis.com"
dialect = "openai""#,
                "openai=https://generativelanguage.googleapis.com/v1beta/openai",
            ),
            (
                r#"base_url = "https://generativelanguage.googleapis.com/v1""#,
                "gemini=https://generativelanguage.googleapis.com/v1",
            ),
            (
                r#"base_url = "http://api.openai.com/v1"
dialect = "openai""#,
                "openai=http://api.openai.com/v1",
            ),
            (
                r#"base_url = "https://api.openai.com""#,
                "openai=https://api.openai.com/v1 responses=https://api.openai.com/v1",
            ),
            (
                r#"base_url = "https://api.deepseek.com/anthropic""#,
                "anthropic=https://api.deepseek.com/anthropic/v1",
            ),
            (
                r#"base_url = "https://api.z.ai/api/coding/paas/v4""#,
                "openai=https://api.z.ai/api/coding/paas/v4",
            ),
            (
                r#"base_url = "https://mine.openai.azure.com""#,
                "openai=https://mine.openai.azure.com/openai/v1 responses=https://mine.openai.azure.com/openai/v1",
            ),
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
    fn known_address_selects_the_preset_of_its_provider() {
        let upstream =
            upstream("base_url = \"https://api.anthropic.com\"\nkeys = [\"env:K\"]\npriority = 3");
        assert_eq!(upstream.preset.as_deref(), Some("anthropic"));
        assert_eq!(upstream.auth, Auth::Header("x-api-key".to_owned()));
        assert_eq!(
            (upstream.priority, upstream.origin),
            (3, crate::config::settings::Origin::File)
        );
    }

    #[test]
    fn known_address_suggests_its_preset_and_rejects_other_dialects() {
        for (row, part, fix) in [
            (
                "base_url = \"https://api.openai.com/v1\"",
                "preset \"openai\"",
                "preset = \"openai\"",
            ),
            (
                "base_url = \"https://api.openai.com/v1\"\ndialect = \"anthropic\"",
                "does not speak anthropic",
                "openai, responses",
            ),
            (
                "base_url = \"https://generativelanguage.googleapis.com\"\ndialect = \"anthropic\"",
                "does not speak anthropic",
                "leave `dialect` out",
            ),
            (
                "base_url = \"https://api.deepseek.com/v1\"\ndialect = \"anthropic\"",
                "does not speak anthropic there",
                "https://api.deepseek.com/anthropic/v1",
            ),
            (
                "base_url = { anthropic = \"https://api.openai.com/v1\" }",
                "does not speak anthropic",
                "openai",
            ),
            (
                "preset = \"gemini\"\nbase_url = \"https://api.openai.com/v1\"",
                "the address of OpenAI, and the preset that of Google Gemini",
                "write preset = \"openai\"",
            ),
            (
                "preset = \"openai\"\nbase_url = \"https://api.groq.com/openai/v1\"",
                "is the address of Groq",
                "write preset = \"groq\"",
            ),
        ] {
            let text = format!("[[upstream]]\nname = \"u\"\n{row}\n");
            let path = Path::new("config.toml");
            let loaded = load(&text, path, &Environment::default(), &mut IdInterner::default());
            let reply: Vec<_> = loaded.problems.iter().map(|p| p.one_line()).collect();
            assert!(reply.iter().any(|s| s.contains(part) && s.contains(fix)), "{row}: {reply:?}");
            let works = row.contains("groq") || part.starts_with("preset");
            assert_eq!(loaded.settings.is_some(), works, "{row}: {reply:?}");
        }
    }

    #[test]
    fn auth_scheme_depends_on_the_endpoint() {
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
    fn keys_have_labels_and_files_are_relative_to_the_config() {
        let upstream = upstream(
            "base_url = \"https://a.example\"\nkeys = [\"keyring:a/work\", \"sk-one\", \"file:k/two.key\", \"sk-three\", { ref = \"env:X\", label = \"x\", account = \"me\" }]",
        );
        let names: Vec<_> = upstream.keys.iter().map(|key| &*key.name).collect();
        assert_eq!(names, ["u/work", "u/literal-1", "u/two.key", "u/literal-2", "u/x"]);
        assert_eq!(upstream.keys[2].reference.to_string(), "file:/etc/x/k/two.key");
        assert_eq!((&*upstream.keys[0].account, &*upstream.keys[4].account), ("u/work", "me"));
    }

    #[test]
    fn id_of_a_name_is_stable_across_reloads() {
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
