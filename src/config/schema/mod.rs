//! The keys of the config, table by table, as written: every value has its position, and no
//! defaults are filled in.

pub(super) mod alerts;
pub(super) mod budget;
pub(super) mod general;
pub(super) mod keyless;
pub(super) mod ledger;
pub(super) mod model;
pub(super) mod model_facts;
pub(super) mod price;
pub(super) mod project;
pub(super) mod upstream;

use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use std::time::Duration;

use super::{
    facts_row::FactsRow,
    prices,
    problem::Report,
    settings::{
        Budget, Cooldown, DiscoverySettings, LedgerSettings, LogSettings, OtlpSettings, PriceRow,
        RetrySettings, RoutingSettings, Timeouts, TranslationSettings, TuiSettings,
    },
    table::{Written, read_table},
};
use crate::base::pattern::Patterns;
use crate::config::reader::{self, Located, TableReader, ValueError};

const MAX_COUNT: u32 = 1_000_000;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = seconds(3_600);
const DAY: Duration = seconds(86_400);
const MONTH: Duration = seconds(30 * 86_400);

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The whole file as written.
pub(super) struct RawConfig {
    pub(super) server: Written<general::ServerSettings>,
    pub(super) discover: DiscoverySettings,
    pub(super) log: LogSettings,
    pub(super) timeouts: Timeouts,
    pub(super) retry: RetrySettings,
    pub(super) cooldown: Cooldown,
    pub(super) routing: RoutingSettings,
    pub(super) translation: TranslationSettings,
    pub(super) ledger: LedgerSettings,
    pub(super) alerts: Written<alerts::AlertSettings>,
    pub(super) otlp: OtlpSettings,
    pub(super) tui: TuiSettings,
    pub(super) upstreams: Vec<upstream::RawUpstream>,
    pub(super) models: Vec<model::RawModel>,
    pub(super) aliases: Vec<model::RawAlias>,
    pub(super) model_facts: Vec<Arc<FactsRow>>,
    pub(super) projects: Vec<project::RawProject>,
    pub(super) budget: Vec<Budget>,
    pub(super) keyless: Vec<keyless::RawKeyless>,
    pub(super) prices: Vec<PriceRow>,
    pub(super) rates: price::CurrencyRates,
}

pub(super) fn read_config(table: &DeTable<'_>, report: &mut Report) -> RawConfig {
    let mut top = TableReader::new("", 0..0, table);
    let rates = top
        .child("rates", report)
        .map(|table| price::read_rates(table, report))
        .unwrap_or_default();
    let mut currencies = prices::currencies().clone();
    currencies.extend(rates.clone());
    let raw = RawConfig {
        server: read_table(&mut top, report),
        discover: read_table(&mut top, report).value,
        log: read_table(&mut top, report).value,
        timeouts: read_table(&mut top, report).value,
        retry: read_table(&mut top, report).value,
        cooldown: read_table(&mut top, report).value,
        routing: read_table(&mut top, report).value,
        translation: read_table(&mut top, report).value,
        ledger: read_table(&mut top, report).value,
        alerts: read_table(&mut top, report),
        otlp: read_table(&mut top, report).value,
        tui: read_table(&mut top, report).value,
        upstreams: top
            .children("upstream", report)
            .into_iter()
            .filter_map(|row| upstream::read_upstream(row, report))
            .collect(),
        models: top
            .children("model", report)
            .into_iter()
            .filter_map(|row| model::read_model(row, report))
            .collect(),
        aliases: top
            .child("aliases", report)
            .map(|table| model::read_aliases(table, report))
            .unwrap_or_default(),
        model_facts: top
            .children("model_facts", report)
            .into_iter()
            .filter_map(|row| model_facts::read_row(row, true, report).map(Arc::new))
            .collect(),
        keyless: top
            .children("keyless", report)
            .into_iter()
            .filter_map(|row| keyless::read_keyless(row, report))
            .collect(),
        prices: top
            .child("prices", report)
            .map(|table| price::read_price_rows(table, &currencies, report))
            .unwrap_or_default(),
        rates,
        projects: top
            .children("project", report)
            .into_iter()
            .filter_map(|row| project::read_project(row, report))
            .collect(),
        budget: budget::read_budgets(&mut top, report),
    };
    top.finish(report);
    raw
}

/// Reads a name that is part of other names: `upstream/label`, `upstream:model`, `config set
/// upstream.NAME…`.
fn read_name(value: &DeValue<'_>) -> Result<String, ValueError> {
    let text = reader::text(value)?;
    if text.is_empty() {
        return Err(ValueError::new("an empty name"));
    }
    if text.chars().count() > 64 {
        return Err(ValueError::new("a name of more than 64 characters"));
    }
    if let Some(bad) = text.chars().find(|c| !c.is_alphanumeric() && !matches!(c, '-' | '_' | '.'))
    {
        return Err(ValueError::with_help(
            format!("`{}` has {bad:?} in it", reader::truncate(&text)),
            "names are of letters, digits, `-`, `_` and `.`",
        ));
    }
    Ok(text)
}

/// Reads the `name` of a row; a row without a name is reported and skipped.
fn read_row_name(
    row: &mut TableReader<'_>,
    kind: &str,
    report: &mut Report,
    read: impl Fn(&DeValue<'_>) -> Result<String, ValueError>,
) -> Option<Located<String>> {
    let before = report.findings.len();
    let found = row.read("name", report, read);
    match &found {
        Some(name) => row.set_path(format!("{kind}.{}", name.value)),
        // A bad name has been reported already.
        None if report.findings.len() == before => {
            report.missing(
                &row.span,
                format!("a [[{kind}]] without `name`"),
                Some("add a line `name = \"…\"`".to_owned()),
            );
        }
        None => {}
    }
    found
}

/// Reads a list of patterns; each invalid one is reported at its own position.
fn read_patterns(
    table: &mut TableReader<'_>,
    name: &'static str,
    report: &mut Report,
) -> Option<Located<Patterns>> {
    let list = table.read_list(name, report, |value| {
        let text = reader::text(value)?;
        if text.trim_start_matches('!').is_empty() {
            return Err(ValueError::with_help(
                "an empty pattern",
                "write a name, a glob such as \"gpt-*\", \"re:REGEX\" or \"!EXCLUSION\"",
            ));
        }
        match Patterns::parse([text.as_str()]) {
            Ok(_) => Ok(text),
            Err((_, sentence)) => Err(ValueError::new(format!(
                "`{}` is no regular expression: {sentence}",
                reader::truncate(&text)
            ))),
        }
    })?;
    let parsed = Patterns::parse(list.value.iter().map(|at| at.value.as_str())).ok()?;
    Some(Located::new(parsed, list.span))
}
