//! Computes how long a failure keeps a scope from use.

use std::{sync::Arc, time::Duration};

use crate::routing::{outcome::CooldownClass, retry::MIN_PAUSE};
use crate::{
    base::backoff::exponential,
    config::settings::{Cooldown, RetrySettings},
    ir::reason::failure::FailureReason,
};

/// A server on this machine may load the model at any moment.
const LOCAL_MODEL_COOLDOWN: Duration = Duration::from_secs(10);

/// Repeated cooldowns that aiproxy sets itself are shortened by up to this share, which differs per
/// attempt. Scopes that failed together are then not tested together again.
const JITTER: f64 = 0.1;

/// The configured failure handling.
#[derive(Clone, Debug)]
pub struct Policy {
    pub cooldown: Cooldown,
    pub retry: RetrySettings,
}

impl Policy {
    #[must_use]
    pub fn new(cooldown: &Cooldown, retry: &RetrySettings) -> Self {
        Self { cooldown: cooldown.clone(), retry: retry.clone() }
    }
}

/// A failed attempt as the circuit of a scope sees it.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    pub class: CooldownClass,
    pub hint: Option<Duration>,
    pub cause: &'a Arc<FailureReason>,
    /// The number of strikes that opens the scope.
    pub threshold: u32,
    /// The upstream is on this machine.
    pub local: bool,
}

/// How long a failure opens a scope, and how certain that is.
pub(super) struct CooldownTerm {
    pub(super) span: Duration,
    pub(super) hard_block: bool,
    pub(super) from_provider: bool,
    /// Set by an explicit provider statement, which overrides aiproxy's own state.
    pub(super) definite: bool,
}

impl CooldownTerm {
    pub(super) fn for_failure(
        failure: &Failure<'_>,
        strikes: u32,
        id: u64,
        policy: &Policy,
    ) -> Self {
        let cooldown = &policy.cooldown;
        // A hint of zero is ignored, because the next request would come at once; so would it after
        // a few milliseconds.
        let hint = failure
            .hint
            .filter(|hint| !hint.is_zero())
            .map(|hint| hint.max(MIN_PAUSE).min(cooldown.max_hint));
        let nth = strikes.saturating_sub(failure.threshold.max(1));
        let own = |base| {
            let span = exponential(base, cooldown.max.max(base), nth);
            if nth > 0 { span.mul_f64(1.0 - JITTER * jitter_fraction(id)) } else { span }
        };
        let fixed = |span: Duration| Self {
            span: hint.unwrap_or_default().max(span),
            hard_block: true,
            from_provider: hint.is_some_and(|h| h > span),
            definite: true,
        };
        match (failure.class, hint) {
            (CooldownClass::RateLimited, Some(span)) => {
                Self { span, hard_block: true, from_provider: true, definite: true }
            }
            (CooldownClass::RateLimited, None) => Self {
                span: own(cooldown.rate_limited),
                hard_block: false,
                from_provider: false,
                definite: false,
            },
            (CooldownClass::ServerError, hint) => {
                let span = own(cooldown.server_error);
                let hinted = hint.filter(|hint| *hint > span);
                Self {
                    span: hinted.unwrap_or(span),
                    hard_block: false,
                    from_provider: hinted.is_some(),
                    definite: false,
                }
            }
            (CooldownClass::ModelMissing, _) if failure.local => Self {
                span: LOCAL_MODEL_COOLDOWN.min(cooldown.quota),
                hard_block: true,
                from_provider: false,
                definite: true,
            },
            (CooldownClass::ModelMissing | CooldownClass::Quota, _) => fixed(cooldown.quota),
            // Handled before; there is no cooldown.
            (CooldownClass::None | CooldownClass::Rejected, _) => Self {
                span: Duration::ZERO,
                hard_block: false,
                from_provider: false,
                definite: false,
            },
        }
    }
}

/// Returns a number from 0 to 1 that differs from attempt to attempt.
fn jitter_fraction(id: u64) -> f64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    (id.wrapping_mul(MULTIPLIER) >> 32) as f64 / f64::from(u32::MAX)
}
