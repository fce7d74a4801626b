//! The built-in model prices, from `assets/prices.toml`.

use std::{collections::BTreeMap, sync::LazyLock};

use toml::de::DeTable;

use super::{
    problem::Report,
    schema::price::{self, NANOS_PER_DOLLAR, PriceLists, PriceRow},
};
use crate::config::reader::TableReader;

const PRICES_TOML: &str = include_str!("../../assets/prices.toml");

static PRICE_LISTS: LazyLock<PriceLists> =
    LazyLock::new(|| read_prices(PRICES_TOML, &mut Report::default()));

/// Returns every row, each under its preset.
#[must_use]
pub fn all() -> &'static [PriceRow] {
    &PRICE_LISTS.rows
}

/// Returns billionths of a dollar for one unit of each currency in the table.
#[must_use]
pub fn currencies() -> &'static BTreeMap<String, i64> {
    &PRICE_LISTS.currencies
}

/// Returns billionths of a dollar for one unit of a currency; the config's rates take precedence.
#[must_use]
pub fn nanos_per_unit(currency: &str, config_rates: &BTreeMap<String, i64>) -> Option<i64> {
    if currency == "USD" {
        return Some(NANOS_PER_DOLLAR);
    }
    config_rates.get(currency).or_else(|| PRICE_LISTS.currencies.get(currency)).copied()
}

fn read_prices(text: &str, report: &mut Report) -> PriceLists {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        report.error(&error.span().unwrap_or(0..0), error.message(), None);
    }
    price::read_price_lists(TableReader::new("", 0..0, table.get_ref()), report)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{config::presets, ir::cost::PriceClass};

    #[test]
    fn embedded_table_is_valid() {
        let mut report = Report::default();
        let lists = read_prices(PRICES_TOML, &mut report);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert!(lists.rows.len() > 100, "{}", lists.rows.len());
        let names: BTreeSet<_> =
            lists.rows.iter().map(|row| (row.vendor.as_str(), row.model.text())).collect();
        assert_eq!(names.len(), lists.rows.len(), "one model stands there twice");
    }

    #[test]
    fn every_price_has_a_source_and_is_plausible() {
        for row in all() {
            let name = format!("{}/{}", row.vendor, row.model.text());
            assert!(presets::find(&row.vendor).is_some(), "{name}: no such preset");
            assert!(row.price.page.starts_with("https://"), "{name}");
            assert!(
                row.price.date.parse::<jiff::civil::Date>().is_ok(),
                "{name}: {}",
                row.price.date
            );
            let of = |class| row.price.rates.effective(class);
            assert!(
                of(PriceClass::CacheRead) <= of(PriceClass::Input),
                "{name}: cached input costs more than fresh"
            );
            assert!(of(PriceClass::CacheWrite1h) >= of(PriceClass::CacheWrite5m), "{name}");
            assert!(
                of(PriceClass::Output) == 0 || of(PriceClass::Output) >= of(PriceClass::Input) / 2,
                "{name}: input and output changed places?"
            );
        }
    }
}
