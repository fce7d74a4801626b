//! The bill of one attempt: the price in force, the amount, and which source counts.

use std::sync::Arc;

use super::table::{PriceBook, PriceRule};
use crate::{
    base::{clock::UnixMillis, money::NanoUsd},
    config::settings::{PriceCondition, Upstream},
    ir::{
        cost::{AppliedPrice, Bill, CostSource, Precision},
        usage::Usage,
    },
};

const MINUTE_MS: i64 = 60_000;

/// An attempt to be billed.
#[derive(Clone, Copy, Debug)]
pub struct BillQuery<'a> {
    pub upstream: &'a Upstream,
    /// The model name in the request to the upstream.
    pub sent_model: &'a str,
    /// The model name in the response.
    pub reported_model: Option<&'a str>,
    pub usage: Option<&'a Usage>,
    /// The precision of the usage.
    pub precision: Precision,
    /// When the attempt began.
    pub started_at: UnixMillis,
    pub conditions: PriceConditions<'a>,
}

/// The values that price conditions test, besides tokens and time.
#[derive(Clone, Copy, Debug, Default)]
pub struct PriceConditions<'a> {
    pub tier: Option<&'a str>,
    pub resolution: Option<&'a str>,
    pub quality: Option<&'a str>,
}

/// Returns the bill of the attempt. The cost that the provider reports takes precedence over the
/// config, and the config over the built-in table. With `prices_win` the config comes first.
#[must_use]
pub fn bill(book: &PriceBook, question: &BillQuery<'_>) -> Bill {
    let BillQuery {
        upstream,
        sent_model: sent,
        reported_model: answered,
        usage,
        precision: sure,
        ..
    } = question;
    let found = book.find(upstream, sent, *answered);
    let reported = usage.and_then(|usage| usage.reported_cost);
    let priced = found.zip(*usage).map(|((source, tariff), usage)| {
        let price = Arc::clone(effective_price(tariff, usage, question));
        (source, price.cost(usage), price)
    });
    let computed = priced.as_ref().map(|(_, cost, _)| *cost);
    let (from_config, price) = match priced {
        Some((source, _, price)) => (source == CostSource::Config, Some((source, price))),
        None => (false, None),
    };
    let (cost, source, sure) = match (reported, &price) {
        (Some(_), Some((source, _))) if from_config && upstream.prices_win => {
            (computed, *source, *sure)
        }
        (Some(provider_cost), _) => (Some(provider_cost), CostSource::Reported, Precision::Exact),
        (None, Some((source, _))) => (computed, *source, *sure),
        (None, None) if upstream.local && found.is_none() => {
            (Some(NanoUsd::ZERO), CostSource::Local, Precision::Exact)
        }
        (None, None) => (None, CostSource::Unknown, Precision::Exact),
    };
    Bill { cost, precision: sure, source, computed, reported, price: price.map(|(_, price)| price) }
}

/// Returns the bill of an attempt that costs nothing.
#[must_use]
pub fn free_bill() -> Bill {
    Bill { cost: Some(NanoUsd::ZERO), source: CostSource::Free, ..Bill::default() }
}

fn effective_price<'a>(
    tariff: &'a PriceRule,
    usage: &Usage,
    question: &BillQuery<'_>,
) -> &'a Arc<AppliedPrice> {
    let conditional =
        tariff.conditional.iter().find(|(when, _)| condition_matches(when, usage, question));
    conditional.map_or(&tariff.default_price, |(_, price)| price)
}

fn condition_matches(when: &PriceCondition, usage: &Usage, question: &BillQuery<'_>) -> bool {
    let BillQuery { started_at: at, conditions: facts, .. } = question;
    let (input, output) = (usage.input_total(), usage.output_total());
    let same = |wanted: &Option<String>, is: Option<&str>| {
        wanted.as_ref().is_none_or(|wanted| is.is_some_and(|is| is.eq_ignore_ascii_case(wanted)))
    };
    when.input_above.is_none_or(|n| input > n)
        && when.input_upto.is_none_or(|n| input <= n)
        && when.output_above.is_none_or(|n| output > n)
        && when.output_upto.is_none_or(|n| output <= n)
        && when.thinking.is_none_or(|wanted| (usage.reasoning > 0) == wanted)
        && when.from.is_none_or(|from| *at >= from)
        && when.until.is_none_or(|until| *at < until)
        && when.hours.is_none_or(|(from, to)| {
            let now = at.0.div_euclid(MINUTE_MS).rem_euclid(24 * 60);
            let (from, to) = (i64::from(from), i64::from(to));
            if from <= to { (from..to).contains(&now) } else { now >= from || now < to }
        })
        && same(&when.tier, facts.tier)
        && same(&when.resolution, facts.resolution)
        && same(&when.quality, facts.quality)
}

#[cfg(test)]
mod tests;
