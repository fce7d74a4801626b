//! Finds the price of a model: in the config's rows, then the built-in ones, by each name of the
//! model.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use crate::{
    config::{
        Settings, prices,
        settings::{ModelPrice, PriceCondition, PriceRow, Upstream},
    },
    ir::cost::{AppliedPrice, CostSource},
};

/// A price and its conditions, prepared in advance so that billing builds nothing.
#[derive(Debug)]
pub struct PriceRule {
    /// Prices by condition; those with more conditions first.
    pub(super) conditional: Vec<(PriceCondition, Arc<AppliedPrice>)>,
    pub(super) default_price: Arc<AppliedPrice>,
}

impl PriceRule {
    /// Returns the price without conditions.
    #[must_use]
    pub fn default_price(&self) -> &AppliedPrice {
        &self.default_price
    }
}

/// All prices of one vendor.
#[derive(Debug, Default)]
struct VendorPrices {
    exact: HashMap<String, Arc<PriceRule>>,
    /// Rows with a pattern as model, in their order.
    patterns: Vec<(PriceRow, Arc<PriceRule>)>,
}

/// All prices; rebuilt when the config changes.
#[derive(Debug, Default)]
pub struct PriceBook {
    config_prices: HashMap<String, VendorPrices>,
    builtin_prices: HashMap<String, VendorPrices>,
}

impl PriceBook {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mut book = Self::default();
        for (rows, shelves) in [
            (settings.prices.as_slice(), &mut book.config_prices),
            (prices::all(), &mut book.builtin_prices),
        ] {
            for row in rows {
                // The reader of the config has ensured that there is a rate.
                let Some(dollars) = prices::nanos_per_unit(&row.price.currency, &settings.rates)
                else {
                    continue;
                };
                let tariff = Arc::new(price_rule(row, dollars));
                let shelf: &mut VendorPrices = shelves.entry(row.vendor.clone()).or_default();
                if row.model.is_exact() {
                    shelf.exact.insert(row.model.text().to_owned(), tariff);
                } else {
                    shelf.patterns.push((row.clone(), tariff));
                }
            }
        }
        book
    }

    /// Finds the price of a model at an upstream: by the name as sent, as in the response, and both
    /// without their date.
    #[must_use]
    pub fn find(
        &self,
        upstream: &Upstream,
        sent: &str,
        answered: Option<&str>,
    ) -> Option<(CostSource, &PriceRule)> {
        let answered = answered.filter(|answered| *answered != sent);
        // Built lazily: the first name nearly always matches.
        let names = || {
            let given = [Some(sent), answered].into_iter().flatten();
            given.clone().map(Cow::Borrowed).chain(given.map(undated_name))
        };
        let vendors = [Some(&*upstream.name), upstream.preset.as_deref()];
        let from_config = find_first(&self.config_prices, &vendors, names())
            .map(|tariff| (CostSource::Config, tariff));
        from_config.or_else(|| {
            find_first(&self.builtin_prices, &vendors[1..], names())
                .map(|tariff| (CostSource::Builtin, tariff))
        })
    }
}

/// Returns the price of the first name that any of the vendors has a price for.
fn find_first<'a, 'n>(
    shelves: &'a HashMap<String, VendorPrices>,
    vendors: &[Option<&str>],
    mut names: impl Iterator<Item = Cow<'n, str>>,
) -> Option<&'a PriceRule> {
    let mut known = vendors.iter().flatten().filter_map(|vendor| shelves.get(*vendor));
    let shelves = [Some(known.next()?), known.next()];
    names.find_map(|name| {
        shelves.iter().flatten().find_map(|shelf| {
            let pattern = || {
                shelf
                    .patterns
                    .iter()
                    .find(|(row, _)| row.model.matches(&name))
                    .map(|(_, tariff)| tariff)
            };
            shelf.exact.get(&*name).or_else(pattern).map(|tariff| &**tariff)
        })
    })
}

/// Returns the name without prefix and date: removes `models/`, `-20250929`, `-2025-08-07`,
/// `@20250929`; `:free` stays.
fn undated_name(name: &str) -> Cow<'_, str> {
    let name = name.strip_prefix("models/").unwrap_or(name);
    // Cloud names: `us.anthropic.claude-…-v1:0`.
    let name = name.rsplit_once("anthropic.").map_or(name, |(_, rest)| rest);
    let name = name.strip_suffix("-v1:0").or_else(|| name.strip_suffix("-v2:0")).unwrap_or(name);
    let name = name.rsplit_once('@').map_or(name, |(name, _)| name);
    let name = name.strip_suffix("-latest").unwrap_or(name);
    let digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = name.split('-').collect();
    let keep = match parts.as_slice() {
        [rest @ .., y, m, d]
            if !rest.is_empty() && digits(y, 4) && digits(m, 2) && digits(d, 2) =>
        {
            rest.len()
        }
        [rest @ .., m, d] if rest.len() > 1 && digits(m, 2) && digits(d, 2) => rest.len(),
        [rest @ .., date] if !rest.is_empty() && digits(date, 8) => rest.len(),
        [rest @ .., date] if rest.len() > 1 && digits(date, 4) => rest.len(),
        all => all.len(),
    };
    if keep == parts.len() { Cow::Borrowed(name) } else { Cow::Owned(parts[..keep].join("-")) }
}

fn price_rule(row: &PriceRow, dollars: i64) -> PriceRule {
    let PriceRow { vendor, model, price } = row;
    let name: Arc<str> = format!("{vendor}/{}", model.text()).into();
    let ModelPrice { rates, conditions: when, currency, page, date } = price;
    let used = |when: &str, rates| {
        let (name, currency, page, date) =
            (Arc::clone(&name), Arc::clone(currency), Arc::clone(page), Arc::clone(date));
        Arc::new(AppliedPrice {
            name,
            condition: when.into(),
            rates,
            currency,
            nano_usd_per_unit: dollars,
            page,
            date,
        })
    };
    let mut conditional: Vec<_> = when
        .iter()
        .map(|when| {
            (when.clone(), used(&describe_conditions(when), when.rates.with_defaults(rates)))
        })
        .collect();
    // The sort is stable: of two with equally many conditions, the earlier one wins.
    conditional.sort_by_key(|(when, _)| std::cmp::Reverse(when.condition_count()));
    PriceRule { conditional, default_price: used("", *rates) }
}

/// Describes conditions for a person: `more than 200000 input tokens, tier flex`.
fn describe_conditions(when: &PriceCondition) -> String {
    let time = |at: u16| format!("{:02}:{:02}", at / 60, at % 60);
    let all = [
        when.input_above.map(|n| format!("more than {n} input tokens")),
        when.input_upto.map(|n| format!("at most {n} input tokens")),
        when.output_above.map(|n| format!("more than {n} output tokens")),
        when.output_upto.map(|n| format!("at most {n} output tokens")),
        when.tier.as_ref().map(|tier| format!("tier {tier}")),
        when.resolution.as_ref().map(|size| format!("pictures of {size}")),
        when.quality.as_ref().map(|quality| format!("quality {quality}")),
        when.thinking.map(|thinking| {
            if thinking { "with reasoning".to_owned() } else { "without reasoning".to_owned() }
        }),
        when.from.map(|at| format!("from {at}")),
        when.until.map(|at| format!("until {at}")),
        when.hours.map(|(from, to)| format!("{} to {} UTC", time(from), time(to))),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_versions_are_stripped_from_model_names() {
        for (name, want) in [
            ("gpt-4o-2024-08-06", "gpt-4o"),
            ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
            ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
            ("claude-3-5-haiku@20241022", "claude-3-5-haiku"),
            ("claude-3-7-sonnet-latest", "claude-3-7-sonnet"),
            ("models/gemini-2.5-flash-preview-05-20", "gemini-2.5-flash-preview"),
            ("kimi-k2-0905", "kimi-k2"),
            ("gpt-4", "gpt-4"),
            ("o1", "o1"),
            ("20250929", "20250929"),
            ("", ""),
        ] {
            assert_eq!(undated_name(name), want, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_stripped_without_panic(name in "[-a-z0-9@:./é]{0,40}") {
            proptest::prop_assert!(undated_name(&name).len() <= name.len());
        }
    }
}
