//! `[prices."vendor/model"]` and `[rates]`, and the lists of the built-in table, which have the
//! same rows.

use std::{collections::BTreeMap, sync::Arc};

use toml::de::DeValue;
use toml_edit::{Array, InlineTable, Value};

use super::names::ARC_TEXT;
use crate::{
    base::{
        clock::UnixMillis,
        money::{NANOS_PER_UNIT, to_nanos},
        pattern::Pattern,
    },
    config::{
        kinds::{Flag, KindDescription, List, Maybe, Number, TEXT, Text, ValueKind, count},
        problem::Report,
        reader::{Node, TableReader, ValueError, text, truncate},
        table::{
            ConfigTable, KeyDefault, KeySpec, KeyText, config, describe_by_hand, read_key,
            table_schema,
        },
    },
    ir::cost::{PriceClass, PriceRates},
};

/// Maximum dollars for a million tokens; a higher price is a mistake.
const PRICE: Number = Number(0.0, 100_000.0);

config! {
    /// The prices of a model, in dollars or another currency with a rate. They take precedence over
    /// the built-in table.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ModelPrice in "prices" {
        /// Currency of the prices; another one than USD needs a rate
        currency: Arc<str> = "USD".into(), CURRENCY;
        /// Page on which the prices were read
        page: Arc<str> = Arc::default(), ARC_TEXT, omitted;
        /// Date on which they were read
        date: Arc<str> = Arc::default(), ARC_TEXT, omitted;
        /// Other prices under conditions; the row with the most conditions that are all met applies
        conditions as "when": Vec<PriceCondition> = Vec::new(), Conditions;
    }
    derived {
        rates: PriceRates = PriceRates::default();
    }
}

config! {
    /// Conditions that must all be met, and the prices that then apply. Classes that a row does not
    /// name keep their price.
    #[derive(Clone, Debug, PartialEq)]
    pub struct PriceCondition in "prices.when" {
        /// Minimum input tokens, exclusive; includes cached ones
        input_above: Option<u64> = None, Maybe(count(0, u32::MAX));
        /// Maximum input tokens, inclusive; includes cached ones
        input_upto: Option<u64> = None, Maybe(count(0, u32::MAX));
        /// Minimum output tokens, exclusive
        output_above: Option<u64> = None, Maybe(count(0, u32::MAX));
        /// Maximum output tokens, inclusive
        output_upto: Option<u64> = None, Maybe(count(0, u32::MAX));
        /// Service tier
        tier: Option<String> = None, Maybe(TEXT);
        /// Resolution of images: 1024x1024
        resolution: Option<String> = None, Maybe(TEXT);
        /// Quality of images
        quality: Option<String> = None, Maybe(TEXT);
        /// Whether the model reasoned
        thinking: Option<bool> = None, Maybe(Flag);
        /// First instant: a date, which begins at midnight in UTC, or a time
        from: Option<UnixMillis> = None, Maybe(INSTANT);
        /// Instant at which the prices end
        until: Option<UnixMillis> = None, Maybe(INSTANT);
        /// Span of the day in UTC, which may cross midnight: 16:30-00:30
        hours: Option<(u16, u16)> = None, Maybe(HOURS);
    }
    derived {
        rates: PriceRates = PriceRates::default();
    }
}

impl PriceCondition {
    /// Returns the number of conditions: the row with more conditions wins.
    #[must_use]
    pub fn condition_count(&self) -> usize {
        self.written_keys().len()
    }
}

/// Describes the prices themselves.
fn rate_keys(table: &'static str) -> Vec<KeySpec> {
    let describe = |class: PriceClass| {
        let text = KeyText(table, class.name(), rate_doc(class));
        describe_by_hand(text, PRICE.describe(), KeyDefault::Inherited)
    };
    PriceClass::ALL.map(describe).to_vec()
}

fn rate_doc(class: PriceClass) -> &'static str {
    match class {
        PriceClass::Input => "Price of a million input tokens",
        PriceClass::CacheRead => {
            "Price of input read from the prompt cache; if omitted, that of input"
        }
        PriceClass::CacheWrite5m => {
            "Price of input written to the cache for five minutes; if omitted, that of input"
        }
        PriceClass::CacheWrite1h => {
            "Price of input written to the cache for an hour; if omitted, that for five minutes"
        }
        PriceClass::AudioIn => "Price of audio input; if omitted, that of input",
        PriceClass::ImageIn => "Price of image input; if omitted, that of input",
        PriceClass::Output => "Price of a million output tokens",
        PriceClass::Reasoning => "Price of reasoning; if omitted, that of output",
        PriceClass::AudioOut => "Price of audio output; if omitted, that of output",
        PriceClass::ImageOut => "Price of image output; if omitted, that of output",
        PriceClass::Search => "Price of a thousand web searches",
        PriceClass::Request => "Price of one request",
    }
}

/// Describes every key of a row of `[prices]`.
pub(in crate::config) fn price_keys() -> Vec<KeySpec> {
    [rate_keys("prices"), ModelPrice::keys()].concat()
}

/// Describes every key of a table in `when`.
pub(in crate::config) fn condition_keys() -> Vec<KeySpec> {
    [PriceCondition::keys(), rate_keys("prices.when")].concat()
}

const CURRENCY: Text<Arc<str>> = Text {
    type_name: "currency",
    read: |value| Ok(text(value)?.to_uppercase().into()),
    write: |currency| Some(currency.to_string()),
};

struct Conditions;

impl ValueKind for Conditions {
    type Value = Vec<PriceCondition>;

    fn read(&self, _path: &str, node: &Node<'_>, report: &mut Report) -> Option<Self::Value> {
        let rows = TableReader::rows("when", node, report);
        Some(rows.into_iter().map(|row| read_condition(row, report)).collect())
    }

    fn write(&self, conditions: &Self::Value) -> Option<Value> {
        let each = conditions.iter().map(|when| {
            let keys = when.written_keys().into_iter().chain(written_rates(&when.rates));
            Value::InlineTable(keys.collect::<InlineTable>())
        });
        (!conditions.is_empty()).then(|| Value::Array(each.collect::<Array>()))
    }

    fn describe(&self) -> KindDescription {
        KindDescription::new("table", table_schema(&condition_keys())).one_or_many()
    }
}

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
        if let Some(rate) = Number(1e-6, 1e6).read(&path, node, report) {
            out.insert(name.value, to_nanos(rate).unwrap_or_default());
        }
    }
    out
}

/// One row of `[prices]` or of the built-in table.
#[derive(Clone, Debug)]
pub struct PriceRow {
    /// The name of an upstream or of its preset.
    pub vendor: String,
    pub model: Pattern,
    pub price: ModelPrice,
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
        let price = read_price(row, known, ModelPrice::default(), report);
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
    defaults: ModelPrice,
    report: &mut Report,
) -> ModelPrice {
    let path = row.key_path("currency");
    let rates = read_class_prices(&mut row, report);
    let price = ModelPrice { rates, ..ModelPrice::read_keys(&mut row, defaults, report) };
    let spans = row.finish(report);
    if *price.currency != *"USD" && !known.contains_key(&*price.currency) {
        let help =
            Some(format!("add it under [rates]: {} = 0.14 (dollars for one)", price.currency));
        report.error(
            &spans.table,
            format!("`{path}`: there is no rate for {}", truncate(&price.currency)),
            help,
        );
    }
    if price.rates.is_empty() {
        report.error(
            &spans.table,
            "a price without prices",
            Some("add input = …, output = …: for a million tokens".to_owned()),
        );
    }
    price
}

fn read_class_prices(table: &mut TableReader<'_>, report: &mut Report) -> PriceRates {
    let mut rates = PriceRates::default();
    for class in PriceClass::ALL {
        rates.set(class, read_key(table, class.name(), &PRICE, report).and_then(to_nanos));
    }
    rates
}

fn written_rates(rates: &PriceRates) -> impl Iterator<Item = (&'static str, Value)> {
    PriceClass::ALL.into_iter().filter_map(|class| {
        Some((class.name(), (rates.explicit(class)? as f64 / NANOS_PER_UNIT as f64).into()))
    })
}

/// Writes a row for `config show`.
pub(in crate::config) fn write_price(price: &ModelPrice) -> Vec<(&'static str, Value)> {
    written_rates(&price.rates).chain(price.written_keys()).collect()
}

fn read_condition(mut table: TableReader<'_>, report: &mut Report) -> PriceCondition {
    let rates = read_class_prices(&mut table, report);
    let when = PriceCondition::read_keys(&mut table, PriceCondition::default(), report);
    let spans = table.finish(report);
    if when.condition_count() == 0 {
        report.error(
            &spans.table,
            "a condition that always holds",
            Some(
                "name one: input_above = 200_000, tier = \"flex\", hours = \"16:30-00:30\""
                    .to_owned(),
            ),
        );
    }
    PriceCondition { rates, ..when }
}

const INSTANT: Text<UnixMillis> =
    Text { type_name: "date or time", read: read_instant, write: |at| Some(at.to_string()) };

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

/// Minutes of the day in UTC; may cross midnight.
const HOURS: Text<(u16, u16)> = Text {
    type_name: "span of the day",
    read: read_hours,
    write: |(from, to)| {
        Some(format!("{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60))
    },
};

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
        let presets = read_key(&mut list, "presets", &List(TEXT), report).unwrap_or_default();
        let defaults = ModelPrice {
            page: read_key(&mut list, "page", &ARC_TEXT, report).unwrap_or_default(),
            date: read_key(&mut list, "date", &ARC_TEXT, report).unwrap_or_default(),
            currency: read_key(&mut list, "currency", &CURRENCY, report)
                .unwrap_or_else(|| "USD".into()),
            ..ModelPrice::default()
        };
        if let Some(mut models) = list.child("models", report) {
            for (name, node) in models.remaining() {
                let Some(row) = TableReader::from_node(name.value.clone(), node, report) else {
                    continue;
                };
                let price = read_price(row, &currencies, defaults.clone(), report);
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
