//! The cost of a response: prices by class, and the bill of an attempt.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize, de::Error as _, ser::SerializeMap};

use super::usage::Usage;
use crate::base::{
    choices::choices,
    money::{self, NanoUsd},
};

choices! {
    /// The period of a budget; days, weeks and months are those of the ledger's time zone.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Period {
        Day = "day",
        /// Begins on Monday.
        Week = "week",
        Month = "month",
        /// Never resets.
        Total = "total",
    }
}

/// A class of usage that has its own price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PriceClass {
    Input,
    CacheRead,
    CacheWrite5m,
    CacheWrite1h,
    AudioIn,
    ImageIn,
    Output,
    Reasoning,
    AudioOut,
    ImageOut,
    Search,
    Request,
}

impl PriceClass {
    /// In the order in which a bill lists them.
    pub const ALL: [Self; 12] = [
        Self::Input,
        Self::CacheRead,
        Self::CacheWrite5m,
        Self::CacheWrite1h,
        Self::AudioIn,
        Self::ImageIn,
        Self::Output,
        Self::Reasoning,
        Self::AudioOut,
        Self::ImageOut,
        Self::Search,
        Self::Request,
    ];

    /// The classes that a response's usage counts, in the order of [`Self::ALL`]; all but the last
    /// are tokens.
    pub const USED: [Self; 11] = {
        let [used @ .., Self::Request] = Self::ALL else { panic!("requests are the last class") };
        used
    };

    /// Returns the name in price tables, in the config and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CacheRead => "cache_read",
            Self::CacheWrite5m => "cache_write_5m",
            Self::CacheWrite1h => "cache_write_1h",
            Self::AudioIn => "audio_in",
            Self::ImageIn => "image_in",
            Self::Output => "output",
            Self::Reasoning => "reasoning",
            Self::AudioOut => "audio_out",
            Self::ImageOut => "image_out",
            Self::Search => "search",
            Self::Request => "request",
        }
    }

    /// Returns the number of units that a price is for: a million tokens, a thousand searches, one
    /// request.
    #[must_use]
    pub fn priced_units(self) -> u64 {
        match self {
            Self::Search => 1_000,
            Self::Request => 1,
            _ => 1_000_000,
        }
    }

    /// Returns the units of this class that a response used. One request counts as one.
    #[must_use]
    pub fn count(self, usage: &Usage) -> u64 {
        match self {
            Self::Input => usage.input,
            Self::CacheRead => usage.cache_read,
            Self::CacheWrite5m => usage.cache_write_5m,
            Self::CacheWrite1h => usage.cache_write_1h,
            Self::AudioIn => usage.audio_in,
            Self::ImageIn => usage.image_in,
            Self::Output => usage.output,
            Self::Reasoning => usage.reasoning,
            Self::AudioOut => usage.audio_out,
            Self::ImageOut => usage.image_out,
            Self::Search => usage.searches,
            Self::Request => 1,
        }
    }

    /// Returns the class whose price applies if this one has none; `None` means free.
    fn fallback_class(self) -> Option<Self> {
        match self {
            Self::CacheRead | Self::CacheWrite5m | Self::AudioIn | Self::ImageIn => {
                Some(Self::Input)
            }
            Self::CacheWrite1h => Some(Self::CacheWrite5m),
            Self::Reasoning | Self::AudioOut | Self::ImageOut => Some(Self::Output),
            Self::Input | Self::Output | Self::Request | Self::Search => None,
        }
    }
}

/// Prices by class, in billionths of the currency for [`PriceClass::priced_units`] units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriceRates([Option<i64>; PriceClass::ALL.len()]);

impl PriceRates {
    /// Returns the price as written; `None` if absent.
    #[must_use]
    pub fn explicit(&self, class: PriceClass) -> Option<i64> {
        self.0[class as usize]
    }

    /// Returns the price in force: the fallback class's price if this one has none, else zero.
    #[must_use]
    pub fn effective(&self, class: PriceClass) -> i64 {
        self.explicit(class)
            .unwrap_or_else(|| class.fallback_class().map_or(0, |other| self.effective(other)))
    }

    pub fn set(&mut self, class: PriceClass, price: Option<i64>) {
        self.0[class as usize] = price;
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Returns these prices, with `defaults` for the missing ones.
    #[must_use]
    pub fn with_defaults(&self, defaults: &Self) -> Self {
        let mut all = *defaults;
        for class in PriceClass::ALL {
            if let Some(price) = self.explicit(class) {
                all.set(class, Some(price));
            }
        }
        all
    }
}

impl Serialize for PriceRates {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let written = || {
            PriceClass::ALL
                .into_iter()
                .filter_map(|class| Some((class.name(), self.explicit(class)?)))
        };
        let mut map = to.serialize_map(Some(written().count()))?;
        for (name, price) in written() {
            map.serialize_entry(name, &money::format_nanos(price))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for PriceRates {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let map = std::collections::BTreeMap::<String, String>::deserialize(from)?;
        let mut rates = Self::default();
        for class in PriceClass::ALL {
            if let Some(text) = map.get(class.name()) {
                let number: f64 = text.parse().map_err(|_| D::Error::custom("not a price"))?;
                rates.set(
                    class,
                    Some(money::to_nanos(number).ok_or_else(|| D::Error::custom("not a price"))?),
                );
            }
        }
        Ok(rates)
    }
}

/// The price that an attempt was charged at. It is stored with the attempt, because prices change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedPrice {
    /// `vendor/model` of the table.
    pub name: Arc<str>,
    /// The condition under which these prices apply, in words; empty for the default prices.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    #[serde(rename = "when")]
    pub condition: Arc<str>,
    pub rates: PriceRates,
    pub currency: Arc<str>,
    /// Billionths of a dollar for one unit of the currency.
    #[serde(rename = "dollars")]
    pub nano_usd_per_unit: i64,
    /// The page where the price was read, and the date.
    pub page: Arc<str>,
    pub date: Arc<str>,
}

impl AppliedPrice {
    /// Returns the cost of this usage, rounded once.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> NanoUsd {
        let part = |class: PriceClass| {
            let scale = i128::from(1_000_000 / class.priced_units());
            i128::from(class.count(usage))
                .saturating_mul(i128::from(self.rates.effective(class)))
                .saturating_mul(scale)
        };
        let millionths = PriceClass::ALL.into_iter().map(part).fold(0_i128, i128::saturating_add);
        let divisor = 1_000_000 * i128::from(money::NANOS_PER_UNIT);
        let nano = millionths
            .saturating_mul(i128::from(self.nano_usd_per_unit))
            .saturating_add(divisor / 2)
            / divisor;
        NanoUsd(i64::try_from(nano).unwrap_or(i64::MAX))
    }
}

/// How reliable a sum is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    #[default]
    Exact,
    /// Tokens were estimated: `~`.
    Estimate,
    /// A lower bound: `≥`.
    AtLeast,
}

impl Precision {
    /// Returns the mark before a sum.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Exact => "",
            Self::Estimate => "~",
            Self::AtLeast => "≥",
        }
    }
}

/// The source of a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostSource {
    /// The built-in table.
    Builtin,
    /// `[prices]` of the config.
    Config,
    /// Nothing was charged: an error or a free model.
    Free,
    /// A server on this machine.
    Local,
    /// The provider reported it.
    Reported,
    /// No price is known.
    #[default]
    Unknown,
}

impl CostSource {
    pub const ALL: [Self; 6] =
        [Self::Builtin, Self::Config, Self::Free, Self::Local, Self::Reported, Self::Unknown];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::Config => "config",
            Self::Free => "free",
            Self::Local => "local",
            Self::Reported => "reported",
            Self::Unknown => "unknown",
        }
    }
}

/// The cost of one attempt, with its source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// The cost that counts; `None` if it is unknown.
    pub cost: Option<NanoUsd>,
    #[serde(rename = "sure")]
    pub precision: Precision,
    pub source: CostSource,
    /// The cost by tokens and price, if a price is known.
    pub computed: Option<NanoUsd>,
    /// The cost that the provider reports.
    pub reported: Option<NanoUsd>,
    pub price: Option<Arc<AppliedPrice>>,
}

/// The cost of a request, all attempts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// `None` if no attempt that may have cost something has a known price.
    pub usd: Option<NanoUsd>,
    #[serde(default)]
    #[serde(rename = "sure")]
    pub precision: Precision,
}

impl Cost {
    /// Adds up bills. One unknown price makes the sum a lower bound; if all are unknown, the sum is
    /// unknown.
    #[must_use]
    pub fn sum_of<'a>(bills: impl IntoIterator<Item = &'a Bill>) -> Self {
        let (mut sum, mut known, mut unknown, mut sure) =
            (NanoUsd::ZERO, false, false, Precision::Exact);
        for bill in bills {
            match bill.cost {
                Some(cost) => {
                    sum += cost;
                    known |= bill.source != CostSource::Free;
                    sure = sure.max(bill.precision);
                }
                None => unknown = true,
            }
        }
        match (known, unknown) {
            (false, true) => Self { usd: None, precision: Precision::Exact },
            (true, true) => Self { usd: Some(sum), precision: Precision::AtLeast },
            (_, false) => Self { usd: Some(sum), precision: sure },
        }
    }
}

impl fmt::Display for Cost {
    /// Writes `$0.021`, `~$0.021`, `≥$0.021`, or `–` if the cost is unknown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.usd {
            Some(usd) => f.pad(&format!("{}{usd}", self.precision.prefix())),
            None => f.pad("–"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unknown_price_makes_a_lower_bound() {
        let bill = |cost: Option<i64>, sure| Bill {
            cost: cost.map(NanoUsd),
            precision: sure,
            source: CostSource::Config,
            ..Bill::default()
        };
        let free = Bill { cost: Some(NanoUsd::ZERO), source: CostSource::Free, ..Bill::default() };
        let known = bill(Some(21_000_000), Precision::Exact);
        for (bills, shown) in [
            (vec![known.clone()], "$0.021"),
            (vec![known.clone(), free.clone()], "$0.021"),
            (vec![known.clone(), bill(Some(1_000_000), Precision::Estimate)], "~$0.022"),
            (vec![known, bill(None, Precision::Exact)], "≥$0.021"),
            (vec![bill(None, Precision::Exact), free.clone()], "–"),
            (vec![free], "$0"),
            (Vec::new(), "$0"),
        ] {
            assert_eq!(Cost::sum_of(&bills).to_string(), shown, "{bills:?}");
        }
    }

    #[test]
    fn rates_round_trip_as_text() {
        let mut rates = PriceRates::default();
        rates.set(PriceClass::Input, money::to_nanos(0.6));
        rates.set(PriceClass::CacheWrite1h, money::to_nanos(6.0));

        let text = serde_json::to_string(&rates).unwrap();

        assert_eq!(text, r#"{"input":"0.6","cache_write_1h":"6"}"#);
        assert_eq!(serde_json::from_str::<PriceRates>(&text).unwrap(), rates);
    }
}
