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
        read::{self, Fault, Table, clip, count, flag, number, text},
        settings::{Price, PriceRow, When},
    },
    ir::cost::{PriceClass, PriceRates},
};

/// Dollars for a million tokens: beyond it is a mistake.
const MOST: f64 = 100_000.0;

/// Billionths of a dollar for one unit of each currency.
pub(in crate::config) type Currencies = BTreeMap<String, i64>;

/// `[rates]`: dollars for one unit of a currency.
pub(in crate::config) fn currencies(mut table: Table<'_>, report: &mut Report) -> Currencies {
    let mut out = Currencies::new();
    for (name, node) in table.rest() {
        if name.value.len() != 3 || !name.value.bytes().all(|b| b.is_ascii_uppercase()) {
            let help = Some("currencies have three capital letters: CNY, EUR".to_owned());
            report.error(&name.span, format!("`{}` is no currency", clip(&name.value)), help);
            continue;
        }
        let path = table.path_of(&name.value);
        if let Some(rate) = read::one(&path, node, report, &number(1e-6, 1e6)) {
            out.insert(name.value, to_nanos(rate.value).unwrap_or_default());
        }
    }
    out
}

/// `[prices]`: rows by `"vendor/model"`.
pub(in crate::config) fn rows(
    mut table: Table<'_>,
    known: &Currencies,
    report: &mut Report,
) -> Vec<PriceRow> {
    let mut out = Vec::new();
    for (name, node) in table.rest() {
        let Some(row) = Table::of(format!("prices.\"{}\"", clip(&name.value)), node, report) else {
            continue;
        };
        let price = price(row, known, &Price::default(), report);
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
                    format!("`{}` is no pattern: {sentence}", clip(model)),
                    None,
                ),
            },
            None => report.error(
                &name.span,
                format!("`{}` names no model of an upstream", clip(&name.value)),
                Some(help.to_owned()),
            ),
        }
    }
    out
}

/// One row: prices, the conditions under which others hold, and where they were read.
pub(in crate::config) fn price(
    mut row: Table<'_>,
    known: &Currencies,
    usual: &Price,
    report: &mut Report,
) -> Price {
    let span = row.span.clone();
    let rates = classes(&mut row, report);
    let price = Price {
        rates,
        when: row.tables("when", report).into_iter().map(|table| when(table, report)).collect(),
        currency: row
            .take("currency", report, text)
            .map_or_else(|| Arc::clone(&usual.currency), |at| at.value.to_uppercase().into()),
        page: row
            .take("page", report, text)
            .map_or_else(|| Arc::clone(&usual.page), |at| at.value.into()),
        date: row
            .take("date", report, text)
            .map_or_else(|| Arc::clone(&usual.date), |at| at.value.into()),
    };
    let path = row.path_of("currency");
    row.end(report);
    if *price.currency != *"USD" && !known.contains_key(&*price.currency) {
        let help =
            Some(format!("add it under [rates]: {} = 0.14 (dollars for one)", price.currency));
        report.error(
            &span,
            format!("`{path}`: there is no rate for {}", clip(&price.currency)),
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

fn classes(table: &mut Table<'_>, report: &mut Report) -> PriceRates {
    let mut rates = PriceRates::default();
    for class in PriceClass::ALL {
        rates.set(
            class,
            table.take(class.name(), report, number(0.0, MOST)).and_then(|at| to_nanos(at.value)),
        );
    }
    rates
}

fn when(mut table: Table<'_>, report: &mut Report) -> When {
    let tokens = |at: Option<read::At<u32>>| at.map(|at| u64::from(at.value));
    let limit = || count(0, u32::MAX);
    let when = When {
        input_above: tokens(table.take("input_above", report, limit())),
        input_upto: tokens(table.take("input_upto", report, limit())),
        output_above: tokens(table.take("output_above", report, limit())),
        output_upto: tokens(table.take("output_upto", report, limit())),
        tier: table.take("tier", report, text).map(|at| at.value),
        resolution: table.take("resolution", report, text).map(|at| at.value),
        quality: table.take("quality", report, text).map(|at| at.value),
        thinking: table.take("thinking", report, flag).map(|at| at.value),
        from: table.take("from", report, instant).map(|at| at.value),
        until: table.take("until", report, instant).map(|at| at.value),
        hours: table.take("hours", report, hours).map(|at| at.value),
        rates: classes(&mut table, report),
    };
    let span = table.span.clone();
    table.end(report);
    if when.is_always() {
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

/// A date (midnight in UTC) or an RFC 3339 time.
fn instant(value: &DeValue<'_>) -> Result<UnixMillis, Fault> {
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
        Fault::with(
            format!("`{}` is no date", clip(&text)),
            "write it like \"2025-09-01\" or \"2025-09-01T16:00:00Z\"",
        )
    })
}

/// A span of the day in UTC; it may go over midnight. Minutes of the day.
fn hours(value: &DeValue<'_>) -> Result<(u16, u16), Fault> {
    let text = text(value)?;
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    text.split_once('-').and_then(|(from, to)| Some((minute(from)?, minute(to)?))).ok_or_else(
        || {
            Fault::with(
                format!("`{}` is no span of a day", clip(&text)),
                "write it in UTC like \"16:30-00:30\"",
            )
        },
    )
}

/// The built-in table: rates, and lists of prices by the presets that they are of.
pub(in crate::config) struct Lists {
    pub(in crate::config) currencies: Currencies,
    pub(in crate::config) rows: Vec<PriceRow>,
}

pub(in crate::config) fn lists(mut top: Table<'_>, report: &mut Report) -> Lists {
    let currencies =
        top.table("rates", report).map(|table| currencies(table, report)).unwrap_or_default();
    let mut rows = Vec::new();
    for mut list in top.tables("list", report) {
        let words = |at: Option<read::At<Vec<read::At<String>>>>| {
            at.map(|at| at.value.into_iter().map(|at| at.value).collect::<Vec<_>>())
        };
        let presets = words(list.list("presets", report, text)).unwrap_or_default();
        let mut take = |name| {
            list.take(name, report, text).map(|at| Arc::<str>::from(at.value)).unwrap_or_default()
        };
        let (page, date, currency) = (take("page"), take("date"), take("currency"));
        let usual = Price {
            page,
            date,
            currency: if currency.is_empty() { "USD".into() } else { currency },
            ..Price::default()
        };
        if let Some(mut models) = list.table("models", report) {
            for (name, node) in models.rest() {
                let Some(row) = Table::of(name.value.clone(), node, report) else { continue };
                let price = price(row, &currencies, &usual, report);
                for vendor in &presets {
                    rows.push(PriceRow {
                        vendor: vendor.clone(),
                        model: Pattern::Exact(name.value.clone()),
                        price: price.clone(),
                    });
                }
            }
        }
        list.end(report);
    }
    top.end(report);
    Lists { currencies, rows }
}

/// One dollar in billionths of a dollar.
pub(in crate::config) const DOLLAR: i64 = NANOS_PER_UNIT;
