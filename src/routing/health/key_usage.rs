//! Tracks the usage of a key against its limits, in total and per model: configured limits, and
//! those that the provider reports.

use std::sync::Arc;

use crate::routing::health::rate_limits::{LimitKind, LimitWindow, RateLimitState, TokenDemand};
use crate::{
    base::{
        clock::Mono,
        rolling::{MINUTE, RollingReservation, SlidingLog, SlidingSum},
    },
    config::settings::KeyLimit,
    ir::reason::skip::ConfiguredLimit,
};

/// Models of one key that are counted separately. Their names come from clients, so the number is
/// bounded.
const MAX_MODELS: usize = 64;

/// The usage of one key.
#[derive(Debug, Default)]
pub struct KeyUsage {
    total: UsageCounter,
    models: Vec<(Arc<str>, UsageCounter, RateLimitState)>,
}

#[derive(Debug, Default)]
struct UsageCounter {
    requests: SlidingLog,
    tokens: SlidingSum,
}

/// What an attempt reserved; its actual usage settles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyReservation {
    total: Option<RollingReservation>,
    model: Option<RollingReservation>,
}

/// The limit that blocks an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitHit {
    /// A configured limit is used up.
    Configured { limit: ConfiguredLimit, until: Mono },
    /// The provider reported that too little is left.
    Provider { kind: LimitKind, window: LimitWindow },
}

impl KeyUsage {
    /// Returns whether any limit needs a check. Most keys have no limits, and their providers
    /// report none.
    #[must_use]
    pub fn is_limited(&self, all: KeyLimit, narrow: KeyLimit) -> bool {
        !(all.is_unlimited() && narrow.is_unlimited() && self.models.is_empty())
    }

    /// Returns the limit that blocks an attempt with this demand. Configured limits take precedence
    /// over those that the provider reported.
    #[must_use]
    pub fn limit_hit(
        &self,
        model: &Arc<str>,
        all: KeyLimit,
        narrow: KeyLimit,
        demand: TokenDemand,
        now: Mono,
    ) -> Option<LimitHit> {
        let full = |until: Option<Mono>, what| until.map(|until| (until, what));
        let row = if self.models.is_empty() {
            None
        } else {
            self.models.iter().find(|(name, ..)| same_model(name, model))
        };
        let mut worst = full(
            self.total.requests.full_until(all.rpm, MINUTE, now),
            ConfiguredLimit::RequestsPerMinute,
        );
        if all.tpm > 0 {
            worst = worst.max(full(
                self.total.tokens.full_until(u64::from(all.tpm), demand.total(), now),
                ConfiguredLimit::TokensPerMinute,
            ));
        }
        if let Some((_, count, _)) = row {
            worst = worst.max(full(
                count.requests.full_until(narrow.rpm, MINUTE, now),
                ConfiguredLimit::ModelRequestsPerMinute,
            ));
            let tokens = count.tokens.full_until(u64::from(narrow.tpm), demand.total(), now);
            worst = worst.max(full(tokens, ConfiguredLimit::ModelTokensPerMinute));
        }
        if let Some((until, limit)) = worst {
            return Some(LimitHit::Configured { limit, until });
        }
        let (kind, window) = row?.2.exhausted_by(demand, now)?;
        Some(LimitHit::Provider { kind, window })
    }

    /// Counts an attempt.
    pub fn reserve(
        &mut self,
        model: &Arc<str>,
        all: KeyLimit,
        narrow: KeyLimit,
        demand: TokenDemand,
        now: Mono,
    ) -> Option<KeyReservation> {
        let mut reserved =
            KeyReservation { total: self.total.reserve(all, demand, now), model: None };
        if !narrow.is_unlimited() || !self.models.is_empty() {
            if !narrow.is_unlimited() {
                reserved.model = self.model_usage_mut(model, now).1.reserve(narrow, demand, now);
            }
            if let Some((.., learned)) =
                self.models.iter_mut().find(|(name, ..)| same_model(name, model))
            {
                learned.consume(demand);
            }
        }
        (reserved.total.is_some() || reserved.model.is_some()).then_some(reserved)
    }

    /// Records the number of tokens that the attempt used.
    pub fn settle(&mut self, model: &Arc<str>, reserved: KeyReservation, tokens: u64) {
        if let Some(booked) = reserved.total {
            self.total.tokens.correct(booked, tokens);
        }
        if let Some(booked) = reserved.model
            && let Some((_, count, _)) =
                self.models.iter_mut().find(|(name, ..)| same_model(name, model))
        {
            count.tokens.correct(booked, tokens);
        }
    }

    /// Returns the provider's reported limits for a model; creates the entry if it is missing.
    pub fn rate_limits_mut(&mut self, model: &Arc<str>, now: Mono) -> &mut RateLimitState {
        &mut self.model_usage_mut(model, now).2
    }

    /// Drops the provider's reported limits, for one model or all.
    pub fn clear_rate_limits(&mut self, model: Option<&Arc<str>>) {
        for (name, _, learned) in &mut self.models {
            if model.is_none_or(|model| same_model(name, model)) {
                *learned = RateLimitState::default();
            }
        }
    }

    /// Returns the provider's limits that have not been reset yet.
    pub fn rate_limits(
        &self,
        now: Mono,
    ) -> impl Iterator<Item = (&Arc<str>, LimitKind, LimitWindow)> {
        self.models.iter().flat_map(move |(model, _, learned)| {
            learned.active(now).map(move |(kind, window)| (model, kind, window))
        })
    }

    fn model_usage_mut(
        &mut self,
        model: &Arc<str>,
        now: Mono,
    ) -> &mut (Arc<str>, UsageCounter, RateLimitState) {
        let at = match self.models.iter().position(|(name, ..)| same_model(name, model)) {
            Some(at) => at,
            None => {
                if self.models.len() >= MAX_MODELS {
                    let over = self.models.iter().position(|(_, count, learned)| {
                        count.tokens.sum(now) == 0 && learned.is_expired(now)
                    });
                    self.models.remove(over.unwrap_or(0));
                }
                self.models.push((
                    Arc::clone(model),
                    UsageCounter::default(),
                    RateLimitState::default(),
                ));
                self.models.len() - 1
            }
        };
        &mut self.models[at]
    }
}

impl UsageCounter {
    fn reserve(
        &mut self,
        limit: KeyLimit,
        demand: TokenDemand,
        now: Mono,
    ) -> Option<RollingReservation> {
        if limit.rpm > 0 {
            self.requests.record(MINUTE, now);
        }
        (limit.tpm > 0).then(|| self.tokens.reserve(demand.total(), now))
    }
}

fn same_model(a: &Arc<str>, b: &Arc<str>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        ir::rate_limit::{RateLimit, RateLimits},
        routing::test_support::at,
    };

    const NO_LIMIT: KeyLimit = KeyLimit { rpm: 0, tpm: 0 };
    const SMALL_DEMAND: TokenDemand = TokenDemand { input: 100, output: 100 };

    #[test]
    fn limit_of_a_model_applies_to_that_model_only() {
        let (glm, gpt): (Arc<str>, Arc<str>) = ("glm".into(), "gpt".into());
        let (all, narrow) = (KeyLimit { rpm: 3, tpm: 0 }, KeyLimit { rpm: 1, tpm: 0 });
        let mut spent = KeyUsage::default();
        spent.reserve(&glm, all, narrow, SMALL_DEMAND, at(0));

        let limit = ConfiguredLimit::ModelRequestsPerMinute;
        assert_eq!(
            spent.limit_hit(&glm, all, narrow, SMALL_DEMAND, at(1)),
            Some(LimitHit::Configured { limit, until: at(60) })
        );
        assert_eq!(spent.limit_hit(&gpt, all, NO_LIMIT, SMALL_DEMAND, at(1)), None);
        spent.reserve(&gpt, all, NO_LIMIT, SMALL_DEMAND, at(1));
        spent.reserve(&gpt, all, NO_LIMIT, SMALL_DEMAND, at(2));
        let limit = ConfiguredLimit::RequestsPerMinute;
        assert_eq!(
            spent.limit_hit(&gpt, all, NO_LIMIT, SMALL_DEMAND, at(3)),
            Some(LimitHit::Configured { limit, until: at(60) }),
            "models share the key's own"
        );
    }

    #[test]
    fn tokens_are_settled_in_both_windows() {
        let model: Arc<str> = "m".into();
        let (all, narrow) = (KeyLimit { rpm: 0, tpm: 1_000 }, KeyLimit { rpm: 0, tpm: 250 });
        let mut spent = KeyUsage::default();
        let reserved =
            spent.reserve(&model, all, narrow, SMALL_DEMAND, at(0)).expect("both reserve");
        assert!(matches!(
            spent.limit_hit(&model, all, narrow, SMALL_DEMAND, at(1)),
            Some(LimitHit::Configured { limit: ConfiguredLimit::ModelTokensPerMinute, .. })
        ));
        spent.settle(&model, reserved, 20);
        assert_eq!(spent.limit_hit(&model, all, narrow, SMALL_DEMAND, at(1)), None);
    }

    #[test]
    fn provider_limits_belong_to_one_model() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut spent = KeyUsage::default();
        let none = RateLimit { limit: Some(10), remaining: 0, resets_in: Duration::from_secs(20) };
        spent.rate_limits_mut(&a, at(0)).update(
            &RateLimits { requests: Some(none), ..RateLimits::default() },
            MINUTE,
            at(0),
        );

        assert!(matches!(
            spent.limit_hit(&a, NO_LIMIT, NO_LIMIT, SMALL_DEMAND, at(1)),
            Some(LimitHit::Provider { kind: LimitKind::Requests, .. })
        ));
        assert_eq!(spent.limit_hit(&b, NO_LIMIT, NO_LIMIT, SMALL_DEMAND, at(1)), None);
        assert_eq!(spent.rate_limits(at(1)).count(), 1);
        spent.clear_rate_limits(Some(&a));
        assert_eq!(spent.limit_hit(&a, NO_LIMIT, NO_LIMIT, SMALL_DEMAND, at(1)), None);
    }
}
