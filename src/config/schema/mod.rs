//! Which keys the config has, table by table, as written: every value with its place, nothing
//! filled in from elsewhere.

pub(super) mod alerts;
pub(super) mod budget;
pub(super) mod general;
pub(super) mod keyless;
pub(super) mod ledger;
pub(super) mod model;
pub(super) mod price;
pub(super) mod project;
pub(super) mod upstream;

use toml::de::{DeTable, DeValue};

use super::{
    prices,
    problem::Report,
    read::{self, At, Fault, Table},
    settings::{Budget, PriceRow, StatusSet, Strategy},
};
use crate::base::pattern::Patterns;

/// The whole file as written.
pub(super) struct Written {
    pub(super) general: general::General,
    pub(super) news: alerts::News,
    pub(super) upstreams: Vec<upstream::Upstream>,
    pub(super) models: Vec<model::Model>,
    pub(super) aliases: Vec<model::Alias>,
    pub(super) projects: Vec<project::Project>,
    pub(super) budget: Vec<Budget>,
    pub(super) keyless: Vec<keyless::Keyless>,
    pub(super) prices: Vec<PriceRow>,
    pub(super) rates: price::Currencies,
}

pub(super) fn read(table: &DeTable<'_>, report: &mut Report) -> Written {
    let mut top = Table::new("", 0..0, table);
    let rates = top
        .table("rates", report)
        .map(|table| price::currencies(table, report))
        .unwrap_or_default();
    let mut known = prices::currencies().clone();
    known.extend(rates.clone());
    let written = Written {
        general: general::read(&mut top, report),
        news: alerts::read(&mut top, report),
        upstreams: top
            .tables("upstream", report)
            .into_iter()
            .filter_map(|row| upstream::read(row, report))
            .collect(),
        models: top
            .tables("model", report)
            .into_iter()
            .filter_map(|row| model::read(row, report))
            .collect(),
        aliases: top
            .table("aliases", report)
            .map(|table| model::aliases(table, report))
            .unwrap_or_default(),
        keyless: top
            .tables("keyless", report)
            .into_iter()
            .filter_map(|row| keyless::read(row, report))
            .collect(),
        prices: top
            .table("prices", report)
            .map(|table| price::rows(table, &known, report))
            .unwrap_or_default(),
        rates,
        projects: top
            .tables("project", report)
            .into_iter()
            .filter_map(|row| project::read(row, report))
            .collect(),
        budget: budget::read(&mut top, report),
    };
    top.end(report);
    written
}

/// A name that is part of other names: `upstream/label`, `upstream:model`, `config set
/// upstream.NAME…`.
fn name(value: &DeValue<'_>) -> Result<String, Fault> {
    let text = read::text(value)?;
    if text.is_empty() {
        return Err(Fault::new("an empty name"));
    }
    if text.chars().count() > 64 {
        return Err(Fault::new("a name of more than 64 characters"));
    }
    if let Some(bad) = text.chars().find(|c| !c.is_alphanumeric() && !matches!(c, '-' | '_' | '.'))
    {
        return Err(Fault::with(
            format!("`{}` has {bad:?} in it", read::clip(&text)),
            "names are of letters, digits, `-`, `_` and `.`",
        ));
    }
    Ok(text)
}

/// The `name` of a row; a row without one is reported and left out.
fn row_name(
    row: &mut Table<'_>,
    kind: &str,
    report: &mut Report,
    read: impl Fn(&DeValue<'_>) -> Result<String, Fault>,
) -> Option<At<String>> {
    let before = report.findings.len();
    let found = row.take("name", report, read);
    match &found {
        Some(name) => row.rename(format!("{kind}.{}", name.value)),
        // A bad name has been reported already.
        None if report.findings.len() == before => {
            report.absent(
                &row.span,
                format!("a [[{kind}]] without `name`"),
                Some("add a line `name = \"…\"`".to_owned()),
            );
        }
        None => {}
    }
    found
}

/// A list of patterns; each bad one is reported at its own place.
fn patterns(
    table: &mut Table<'_>,
    name: &'static str,
    report: &mut Report,
) -> Option<At<Patterns>> {
    let list = table.list(name, report, |value| {
        let text = read::text(value)?;
        if text.trim_start_matches('!').is_empty() {
            return Err(Fault::with(
                "an empty pattern",
                "write a name, a glob such as \"gpt-*\", \"re:REGEX\" or \"!EXCLUSION\"",
            ));
        }
        match Patterns::parse([text.as_str()]) {
            Ok(_) => Ok(text),
            Err((_, sentence)) => Err(Fault::new(format!(
                "`{}` is no regular expression: {sentence}",
                read::clip(&text)
            ))),
        }
    })?;
    let parsed = Patterns::parse(list.value.iter().map(|at| at.value.as_str())).ok()?;
    Some(At::new(parsed, list.span))
}

/// `["429", "500-599"]`; numbers are taken too.
fn statuses(table: &mut Table<'_>, name: &'static str, report: &mut Report) -> Option<StatusSet> {
    let list = table.list(name, report, |value| {
        let text = match value {
            DeValue::Integer(number) => number.as_str().to_owned(),
            _ => read::text(value)?,
        };
        let bounds = text.split_once('-').unwrap_or((&text, &text));
        match (bounds.0.trim().parse::<u16>(), bounds.1.trim().parse::<u16>()) {
            (Ok(low), Ok(high))
                if (100..=599).contains(&low) && (100..=599).contains(&high) && low <= high =>
            {
                Ok((low, high))
            }
            _ => Err(Fault::with(
                format!("`{}` is not an HTTP status", read::clip(&text)),
                "write \"429\" or a range such as \"500-599\"",
            )),
        }
    })?;
    Some(StatusSet(list.value.into_iter().map(|at| at.value).collect()))
}

/// How a candidate is drawn.
fn strategy(value: &DeValue<'_>) -> Result<Strategy, Fault> {
    read::word(&Strategy::ALL)(value)
}
