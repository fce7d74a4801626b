//! `[prices."vendor/model"]` and `[rates]`, and the lists of the built-in table, which have the
//! same rows.

use std::{collections::BTreeMap, sync::Arc};

use toml::de::DeValue;

use crate::{
    base::{
        clock::UnixMillis,
        money::{NANOS_PER_UNIT, to_nanos},
        pattern::Pattern,
    },
    config::{
        problem::Report,
        reader::{self, TableReader, ValueError, count, flag, number, text, truncate},
        settings::{ModelPrice, PriceCondition, PriceRow},
    },
    ir::cost::{PriceClass, PriceRates},
};

/// Maximum dollars for a million tokens; a higher price is a mistake.
const MAX_PRICE: f64 = 100_000.0;

/// Billionths of a dollar for one unit of each currency.
pub(in crate::config) type CurrencyRates = BTreeMap<String, i64>;

/// Reads `[rates]`: dollars for one unit of a currency.
pub(in crate::config) fn read_rates(
    mut table: TableReader<'_>,
    report: &mut Report,
) -> CurrencyRates {
    let mut out = CurrencyRates::new();
    for (name, node) in table.remaining() {
        if name.value.len() != 3 || !name.value.bytes().all(|b| b.is_ascii_uppercase()) {
            let help = Some("currencies have three capital letters: CNY, EUR".to_owned());
            report.error(&name.span, format!("`{}` is no currency", truncate(&name.value)), help);
            continue;
        }
        let path = table.key_path(&name.value);
        if let Some(rate) = reader::read_value(&path, node, report, &number(1e-6, 1e6)) {
            out.insert(name.value, to_nanos(rate.value).unwrap_or_default());
        }
    }
    out
}

/// Reads `[prices]`: rows by `"vendor/model"`.
pub(in crate::config) fn read_price_rows(
    mut table: TableReader<'_>,
    known: &CurrencyRates,
    report: &mut Report,
) -> Vec<PriceRow> {
    let mut out = Vec::new();
    for (name, node) in table.remaining() {
        let Some(row) =
            TableReader::from_node(format!("prices.\"{}\"", truncate(&name.value)), node, report)
        else {
            continue;
        };
        let price = read_price(row, known, &ModelPrice::default(), report);
        let help = "write [prices.\"UPSTREAM/MODEL\"]; the model may be a glob";
        match name
            .value
            .split_once('/')
            .filter(|(vendor, model)| !vendor.is_empty() && !model.is_empty())
        {
            Some((vendor, model)) => match Pattern::parse(model) {
                Ok(model) => out.push(PriceRow { vendor: vendor.to_owned(), model, price }),
                Err(sentence) => report.error(
                    &name.span,
                    format!("`{}` is no pattern: {sentence}", truncate(model)),
                    None,
                ),
            },
            None => report.error(
                &name.span,
                format!("`{}` names no model of an upstream", truncate(&name.value)),
                Some(help.to_owned()),
            ),
        }
    }
    out
}

/// Reads one row: prices, the conditions under which other prices apply, and their source.
pub(in crate::config) fn read_price(
    mut row: TableReader<'_>,
    known: &CurrencyRates,
    defaults: &ModelPrice,
    report: &mut Report,
) -> ModelPrice {
    let span = row.span.clone();
    let rates = read_class_prices(&mut row, report);
    let price = ModelPrice {
        rates,
        conditions: row
            .children("when", report)
            .into_iter()
            .map(|table| read_condition(table, report))
            .collect(),
        currency: row
            .read("currency", report, text)
            .map_or_else(|| Arc::clone(&defaults.currency), |at| at.value.to_uppercase().into()),
        page: row
            .read("page", report, text)
            .map_or_else(|| Arc::clone(&defaults.page), |at| at.value.into()),
        date: row
            .read("date", report, text)
            .map_or_else(|| Arc::clone(&defaults.date), |at| at.value.into()),
    };
    let path = row.key_path("currency");
    row.finish(report);
    if *price.currency != *"USD" && !known.contains_key(&*price.currency) {
        let help =
            Some(format!("add it under [rates]: {} = 0.14 (dollars for one)", price.currency));
        report.error(
            &span,
            format!("`{path}`: there is no rate for {}", truncate(&price.currency)),
            help,
        );
    }
    if price.rates.is_empty() {
        report.error(
            &span,
            "a price without prices",
            Some("add input = …, output = …: for a million tokens".to_owned()),
        );
    }
    price
}

fn read_class_prices(table: &mut TableReader<'_>, report: &mut Report) -> PriceRates {
    let mut rates = PriceRates::default();
    for class in PriceClass::ALL {
        rates.set(
            class,
            table
                .read(class.name(), report, number(0.0, MAX_PRICE))
                .and_then(|at| to_nanos(at.value)),
        );
    }
    rates
}

fn read_condition(mut table: TableReader<'_>, report: &mut Report) -> PriceCondition {
    let tokens = |at: Option<reader::Located<u32>>| at.map(|at| u64::from(at.value));
    let limit = || count(0, u32::MAX);
    let when = PriceCondition {
        input_above: tokens(table.read("input_above", report, limit())),
        input_upto: tokens(table.read("input_upto", report, limit())),
        output_above: tokens(table.read("output_above", report, limit())),
        output_upto: tokens(table.read("output_upto", report, limit())),
        tier: table.read("tier", report, text).map(|at| at.value),
        resolution: table.read("resolution", report, text).map(|at| at.value),
        quality: table.read("quality", report, text).map(|at| at.value),
        thinking: table.read("thinking", report, flag).map(|at| at.value),
        from: table.read("from", report, read_instant).map(|at| at.value),
        until: table.read("until", report, read_instant).map(|at| at.value),
        hours: table.read("hours", report, read_hours).map(|at| at.value),
        rates: read_class_prices(&mut table, report),
    };
    let span = table.span.clone();
    table.finish(report);
    if when.is_unconditional() {
        report.error(
            &span,
            "a condition that always holds",
            Some(
                "name one: input_above = 200_000, tier = \"flex\", hours = \"16:30-00:30\""
                    .to_owned(),
            ),
        );
    }
    when
}

/// Reads a date (midnight in UTC) or an RFC 3339 time.
fn read_instant(value: &DeValue<'_>) -> Result<UnixMillis, ValueError> {
    let text = text(value)?;
    let date = || {
        text.parse::<jiff::civil::Date>()
            .ok()?
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|at| at.timestamp())
    };
    let at = text.parse::<jiff::Timestamp>().ok().or_else(date);
    at.map(|at| UnixMillis(at.as_millisecond())).ok_or_else(|| {
        ValueError::with_help(
            format!("`{}` is no date", truncate(&text)),
            "write it like \"2025-09-01\" or \"2025-09-01T16:00:00Z\"",
        )
    })
}

/// Reads a time span of the day in UTC, which may cross midnight. Returns minutes of the day.
fn read_hours(value: &DeValue<'_>) -> Result<(u16, u16), ValueError> {
    let text = text(value)?;
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    text.split_once('-').and_then(|(from, to)| Some((minute(from)?, minute(to)?))).ok_or_else(
        || {
            ValueError::with_help(
                format!("`{}` is no span of a day", truncate(&text)),
                "write it in UTC like \"16:30-00:30\"",
            )
        },
    )
}

/// The built-in table: rates, and price lists by preset.
pub(in crate::config) struct PriceLists {
    pub(in crate::config) currencies: CurrencyRates,
    pub(in crate::config) rows: Vec<PriceRow>,
}

pub(in crate::config) fn read_price_lists(
    mut top: TableReader<'_>,
    report: &mut Report,
) -> PriceLists {
    let currencies =
        top.child("rates", report).map(|table| read_rates(table, report)).unwrap_or_default();
    let mut rows = Vec::new();
    for mut list in top.children("list", report) {
        let words = |at: Option<reader::Located<Vec<reader::Located<String>>>>| {
            at.map(|at| at.value.into_iter().map(|at| at.value).collect::<Vec<_>>())
        };
        let presets = words(list.read_list("presets", report, text)).unwrap_or_default();
        let mut take = |name| {
            list.read(name, report, text).map(|at| Arc::<str>::from(at.value)).unwrap_or_default()
        };
        let (page, date, currency) = (take("page"), take("date"), take("currency"));
        let defaults = ModelPrice {
            page,
            date,
            currency: if currency.is_empty() { "USD".into() } else { currency },
            ..ModelPrice::default()
        };
        if let Some(mut models) = list.child("models", report) {
            for (name, node) in models.remaining() {
                let Some(row) = TableReader::from_node(name.value.clone(), node, report) else {
                    continue;
                };
                let price = read_price(row, &currencies, &defaults, report);
                for vendor in &presets {
                    rows.push(PriceRow {
                        vendor: vendor.clone(),
                        model: Pattern::Exact(name.value.clone()),
                        price: price.clone(),
                    });
                }
            }
        }
        list.finish(report);
    }
    top.finish(report);
    PriceLists { currencies, rows }
}

/// One dollar in billionths of a dollar.
pub(in crate::config) const NANOS_PER_DOLLAR: i64 = NANOS_PER_UNIT;
