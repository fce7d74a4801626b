//! What is believed of one scope (upstream, account, key, key and model), and how each fact changes
//! it.

use std::{sync::Arc, time::Duration};

use super::outcome::Cool;
use crate::{
    base::{backoff::exponential, clock::Mono},
    config::settings::{Cooldown, RetrySettings},
};

/// How long a probe's verdict is awaited before another attempt may go.
pub const VERDICT: Duration = Duration::from_secs(5);

/// A server on this machine may be given the model at any moment.
const LOCAL_MODEL: Duration = Duration::from_secs(10);

/// After a rejection the key is checked for free: first after this, doubling up to [`RETEST_MAX`].
const RETEST: Duration = Duration::from_secs(600);
const RETEST_MAX: Duration = Duration::from_secs(6 * 3600);

/// Repeated cooldowns of our own making are shorter by up to this share, each by another: what
/// failed together is not tested together again.
const SCATTER: f64 = 0.1;

/// Attempts let through beyond which a scope that came back counts as well again.
const FULL_WIDTH: u32 = 32;

/// What the config says about failures.
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

/// The state of one scope. Attempts are told apart by their ticket's number: `struck` is the newest
/// number given out when the last strike fell, so an attempt began after it exactly when its number
/// is greater.
#[derive(Clone, Debug, PartialEq)]
pub enum Circuit {
    /// Fit for use; `strikes` have not opened it yet. `window` while it has only just come back.
    Closed { strikes: u32, struck: u64, window: Option<Window> },
    /// Left alone until `until`; after that one request tests it.
    Open { belief: Belief, until: Mono },
    /// An attempt is testing it; without a verdict it is left alone as before, until `until`.
    Probing { belief: Belief, ticket: u64, sent: Mono, until: Mono },
    /// Rejected: client traffic does not test it.
    Shut { cause: Arc<str>, since: Mono, struck: u64, retest_at: Mono, retests: u32 },
}

/// Why and since when a scope is left alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Belief {
    pub strikes: u32,
    pub struck: u64,
    pub since: Mono,
    pub cause: Arc<str>,
    pub class: Cool,
    /// Known to be of no use before the end (true), or merely suspect (false).
    pub blocked: bool,
    /// The end is the vendor's hint, not our own belief.
    pub hinted: bool,
}

/// After a recovery attempts go 1, 2, 4, …: how many may be under way, and how many are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub width: u32,
    pub out: u32,
    pub since: Mono,
    /// The attempt that widened it last; attempts numbered up to `first` are not counted in `out`.
    last: u64,
    first: u64,
}

/// What happened to an attempt, or what a person asked for. `id` is the attempt's number, `newest`
/// the newest given out.
#[derive(Clone, Debug)]
pub enum Signal<'a> {
    /// A probe of our own was answered: who was away for failures may be back.
    Answered,
    /// By hand, for so long.
    Cooled {
        span: Duration,
        newest: u64,
    },
    /// The attempt is over; it may have said nothing.
    Ended {
        id: u64,
    },
    Failed {
        id: u64,
        newest: u64,
        failure: Failure<'a>,
    },
    /// A free check of a rejected key is under way.
    Retested,
    Sent {
        id: u64,
    },
    /// It began to answer: the scope is back, but only a whole answer makes up for earlier
    /// failures.
    Spoke {
        id: u64,
        newest: u64,
    },
    Succeeded {
        id: u64,
        newest: u64,
    },
    /// By hand, by a new secret, or by a check that succeeded.
    Warmed,
}

#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    pub class: Cool,
    pub hint: Option<Duration>,
    pub cause: &'a Arc<str>,
    /// Strikes that open the scope.
    pub threshold: u32,
    /// The upstream is on this machine.
    pub local: bool,
}

/// What a scope allows at an instant; the greater, the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stance {
    Clear,
    /// The cooldown is over: one request tests it.
    Due,
    Suspect(Mono),
    /// An attempt's verdict is awaited.
    Held,
    Blocked(Mono),
    Shut,
}

impl Default for Circuit {
    fn default() -> Self {
        Self::Closed { strikes: 0, struck: 0, window: None }
    }
}

impl Circuit {
    /// The next state.
    #[must_use]
    pub fn after(self, signal: &Signal<'_>, policy: &Policy, now: Mono) -> Self {
        match (self, signal) {
            (_, Signal::Warmed) => Self::default(),
            (_, &Signal::Cooled { span, newest }) => Self::by_hand(span, newest, now),

            // Only what we believe ourselves: neither a vendor's word nor a person's.
            (Self::Open { belief, until }, Signal::Answered)
                if until > now
                    && belief.class == Cool::ServerError
                    && !belief.blocked
                    && !belief.hinted =>
            {
                Self::Open { belief, until: now }
            }
            (state, Signal::Answered) => state,

            (Self::Shut { cause, since, struck, retests, .. }, Signal::Retested) => {
                let retests = retests.saturating_add(1);
                Self::Shut {
                    cause,
                    since,
                    struck,
                    retest_at: now + exponential(RETEST, RETEST_MAX, retests),
                    retests,
                }
            }
            (state, Signal::Retested) => state,

            (
                Self::Open { belief, until } | Self::Probing { belief, until, .. },
                &Signal::Sent { id },
            ) => Self::Probing { belief, ticket: id, sent: now, until },
            (Self::Closed { strikes, struck, window }, Signal::Sent { .. }) => {
                let window = window
                    .filter(|w| w.since + VERDICT > now)
                    .map(|w| Window { out: w.out.saturating_add(1), ..w });
                Self::Closed { strikes, struck, window }
            }
            (state @ Self::Shut { .. }, Signal::Sent { .. }) => state,

            (Self::Probing { belief, ticket, until, .. }, Signal::Ended { id })
                if ticket == *id =>
            {
                Self::Open { belief, until }
            }
            (Self::Closed { strikes, struck, window }, &Signal::Ended { id }) => {
                let window = window.map(|w| {
                    if id > w.first { Window { out: w.out.saturating_sub(1), ..w } } else { w }
                });
                Self::Closed { strikes, struck, window }
            }
            (state, Signal::Ended { .. }) => state,

            (
                Self::Closed { strikes, struck, window },
                signal @ &(Signal::Spoke { id, .. } | Signal::Succeeded { id, .. }),
            ) => {
                let strikes = if id > struck && matches!(signal, Signal::Succeeded { .. }) {
                    0
                } else {
                    strikes
                };
                Self::Closed { strikes, struck, window: window.and_then(|w| w.widened(id)) }
            }
            (
                Self::Open { belief: Belief { struck, strikes, .. }, .. }
                | Self::Probing { belief: Belief { struck, strikes, .. }, .. },
                &Signal::Spoke { id, newest },
            ) if id > struck => Self::Closed {
                strikes,
                struck,
                window: Some(Window { width: 2, out: 0, since: now, last: id, first: newest }),
            },
            (state, Signal::Spoke { .. }) => state,
            (
                Self::Open { belief: Belief { struck, .. }, .. }
                | Self::Probing { belief: Belief { struck, .. }, .. }
                | Self::Shut { struck, .. },
                &Signal::Succeeded { id, newest },
            ) if id > struck => Self::Closed {
                strikes: 0,
                struck,
                window: Some(Window { width: 2, out: 0, since: now, last: id, first: newest }),
            },
            (state, Signal::Succeeded { .. }) => state,

            (state @ Self::Shut { .. }, Signal::Failed { .. }) => state,
            (state, Signal::Failed { failure: Failure { class: Cool::Nothing, .. }, .. }) => state,
            (
                _,
                Signal::Failed {
                    newest,
                    failure: Failure { class: Cool::Rejected, cause, .. },
                    ..
                },
            ) => Self::Shut {
                cause: Arc::clone(cause),
                since: now,
                struck: *newest,
                retest_at: now + RETEST,
                retests: 0,
            },
            (state, &Signal::Failed { id, newest, failure }) => {
                state.failed(id, newest, &failure, policy, now)
            }
        }
    }

    fn by_hand(span: Duration, newest: u64, now: Mono) -> Self {
        let belief = Belief {
            strikes: 0,
            struck: newest,
            since: now,
            cause: "cooled by hand".into(),
            class: Cool::Nothing,
            blocked: true,
            hinted: false,
        };
        Self::Open { belief, until: now + span }
    }

    /// A failure adds a strike only if its attempt began after the last one; what the vendor said
    /// outright (a hint, a quota, a missing model) extends the end all the same.
    fn failed(
        self,
        id: u64,
        newest: u64,
        failure: &Failure<'_>,
        policy: &Policy,
        now: Mono,
    ) -> Self {
        let (strikes, struck) = self.strikes();
        let counts = id > struck;
        let strikes = if counts { strikes.saturating_add(1) } else { strikes };
        let term = Term::of(failure, strikes, id, policy);
        let cooling = match &self {
            Self::Open { belief, until } if *until > now => {
                Some((belief.since, *until, belief.blocked, belief.hinted))
            }
            _ => None,
        };
        // While a newer probe is under way its verdict is what counts, not that of one it took over
        // from.
        let overtaken = matches!(&self, Self::Probing { ticket, .. } if *ticket > id);
        if (!counts || overtaken) && !term.fact {
            return self;
        }
        let struck = if counts { newest } else { struck };
        let opens =
            term.fact || strikes >= failure.threshold || !matches!(self, Self::Closed { .. });
        if !opens {
            return Self::Closed { strikes, struck, window: None };
        }
        let end = now + term.span;
        if let (Some((since, until, blocked, hinted)), Self::Open { belief, .. }) = (cooling, &self)
            && until >= end
        {
            let belief = Belief {
                strikes,
                struck,
                since,
                blocked: blocked || term.blocked,
                hinted,
                ..belief.clone()
            };
            return Self::Open { belief, until };
        }
        let belief = Belief {
            strikes,
            struck,
            since: cooling.map_or(now, |(since, ..)| since),
            cause: Arc::clone(failure.cause),
            class: failure.class,
            blocked: term.blocked || cooling.is_some_and(|(_, _, blocked, _)| blocked),
            hinted: term.hinted,
        };
        Self::Open { belief, until: end }
    }

    fn strikes(&self) -> (u32, u64) {
        match self {
            Self::Closed { strikes, struck, .. } => (*strikes, *struck),
            Self::Open { belief, .. } | Self::Probing { belief, .. } => {
                (belief.strikes, belief.struck)
            }
            Self::Shut { struck, .. } => (0, *struck),
        }
    }

    /// What the scope allows now.
    #[must_use]
    pub fn stance(&self, now: Mono) -> Stance {
        match self {
            Self::Closed { window: Some(w), .. } if w.out >= w.width && w.since + VERDICT > now => {
                Stance::Held
            }
            Self::Closed { .. } => Stance::Clear,
            Self::Open { until, .. } if *until <= now => Stance::Due,
            Self::Open { belief, until } if belief.blocked => Stance::Blocked(*until),
            Self::Open { until, .. } => Stance::Suspect(*until),
            Self::Probing { sent, .. } if *sent + VERDICT <= now => Stance::Due,
            Self::Probing { .. } => Stance::Held,
            Self::Shut { .. } => Stance::Shut,
        }
    }

    #[must_use]
    pub fn belief(&self) -> Option<&Belief> {
        match self {
            Self::Open { belief, .. } | Self::Probing { belief, .. } => Some(belief),
            Self::Closed { .. } | Self::Shut { .. } => None,
        }
    }
}

impl Window {
    /// Each attempt that succeeds doubles the width once; a wide window is none.
    fn widened(self, id: u64) -> Option<Self> {
        if id == self.last {
            return Some(self);
        }
        let width = self.width.saturating_mul(2);
        (width < FULL_WIDTH).then_some(Self { width, last: id, ..self })
    }
}

/// For how long a failure closes a scope, and how sure that is.
struct Term {
    span: Duration,
    blocked: bool,
    hinted: bool,
    /// The vendor said so, whatever we believe.
    fact: bool,
}

impl Term {
    fn of(failure: &Failure<'_>, strikes: u32, id: u64, policy: &Policy) -> Self {
        let cooldown = &policy.cooldown;
        // "Wait for nothing" is no hint: the same would come at once again.
        let hint =
            failure.hint.filter(|hint| !hint.is_zero()).map(|hint| hint.min(cooldown.max_hint));
        let nth = strikes.saturating_sub(failure.threshold.max(1));
        let own = |base| {
            let span = exponential(base, cooldown.max.max(base), nth);
            if nth > 0 { span.mul_f64(1.0 - SCATTER * fraction(id)) } else { span }
        };
        let fixed = |span: Duration| Self {
            span: hint.unwrap_or_default().max(span),
            blocked: true,
            hinted: hint.is_some_and(|h| h > span),
            fact: true,
        };
        match (failure.class, hint) {
            (Cool::RateLimited, Some(span)) => {
                Self { span, blocked: true, hinted: true, fact: true }
            }
            (Cool::RateLimited, None) => Self {
                span: own(cooldown.rate_limited),
                blocked: false,
                hinted: false,
                fact: false,
            },
            (Cool::ServerError, hint) => {
                let span = own(cooldown.server_error);
                let hinted = hint.filter(|hint| *hint > span);
                Self {
                    span: hinted.unwrap_or(span),
                    blocked: false,
                    hinted: hinted.is_some(),
                    fact: false,
                }
            }
            (Cool::ModelMissing, _) if failure.local => Self {
                span: LOCAL_MODEL.min(cooldown.quota),
                blocked: true,
                hinted: false,
                fact: true,
            },
            (Cool::ModelMissing | Cool::Quota, _) => fixed(cooldown.quota),
            // Handled before; nothing to leave alone.
            (Cool::Nothing | Cool::Rejected, _) => {
                Self { span: Duration::ZERO, blocked: false, hinted: false, fact: false }
            }
        }
    }
}

/// A number from 0 to 1 that differs from attempt to attempt.
fn fraction(id: u64) -> f64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    (id.wrapping_mul(STEP) >> 32) as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::fixture::{self, at, policy};

    fn fail(class: Cool, hint: Option<u64>, id: u64, newest: u64) -> Signal<'static> {
        static CAUSE: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| "why".into());
        let hint = hint.map(Duration::from_secs);
        Signal::Failed {
            id,
            newest,
            failure: Failure { class, hint, cause: &CAUSE, threshold: 1, local: false },
        }
    }

    fn until(circuit: &Circuit) -> Mono {
        match circuit {
            Circuit::Open { until, .. } => *until,
            other => panic!("not open: {other:?}"),
        }
    }

    #[test]
    fn pain_29_a_longer_hint_extends_the_end_and_a_shorter_one_does_not() {
        let policy = policy();
        let first =
            Circuit::default().after(&fail(Cool::RateLimited, Some(10), 1, 3), &policy, at(0));
        let longer = first.after(&fail(Cool::RateLimited, Some(60), 2, 3), &policy, at(1));
        assert_eq!(until(&longer), at(61));
        let shorter = longer.after(&fail(Cool::RateLimited, Some(1), 3, 3), &policy, at(2));
        assert_eq!(until(&shorter), at(61));
        assert_eq!(shorter.strikes().0, 1, "all three began before the strike");
    }

    #[test]
    fn a_hint_is_capped_and_a_hint_of_nothing_is_none() {
        let policy = policy();
        let week = Circuit::default().after(
            &fail(Cool::RateLimited, Some(7 * 86_400), 1, 1),
            &policy,
            at(0),
        );
        assert_eq!(until(&week), at(3_600));
        assert!(matches!(week.stance(at(0)), Stance::Blocked(_)));
        let zero =
            Circuit::default().after(&fail(Cool::RateLimited, Some(0), 1, 1), &policy, at(0));
        assert_eq!(until(&zero), at(5));
        assert!(matches!(zero.stance(at(0)), Stance::Suspect(_)));
    }

    #[test]
    fn strikes_double_the_cooldown_up_to_its_ceiling() {
        let policy = policy();
        let mut circuit = Circuit::default();
        for (id, seconds) in
            [(1, 15), (2, 30), (3, 60), (4, 120), (5, 240), (6, 480), (7, 600), (8, 600)]
        {
            circuit = circuit.after(&fail(Cool::ServerError, None, id, id), &policy, at(0));
            let end = until(&circuit);
            assert!(end <= at(seconds) && end >= at(seconds * 9 / 10), "strike {id}: {end:?}");
        }
    }

    #[test]
    fn what_failed_together_again_and_again_is_not_tested_together() {
        let policy = policy();
        let again = |id| {
            let once =
                Circuit::default().after(&fail(Cool::ServerError, None, id, id), &policy, at(0));
            assert_eq!(until(&once), at(15), "the first time it is as configured");
            until(&once.after(&fail(Cool::ServerError, None, id + 20, id + 20), &policy, at(15)))
        };
        let ends: std::collections::BTreeSet<Mono> = (1..=20).map(again).collect();
        assert_eq!(ends.len(), 20);
        assert!(
            ends.first() >= Some(&at(15 + 27)) && ends.last() <= Some(&at(15 + 30)),
            "{ends:?}"
        );
    }

    #[test]
    fn twenty_parallel_failures_are_one_strike() {
        let policy = policy();
        let mut circuit = Circuit::default();
        for id in 1..=20 {
            circuit = circuit.after(&fail(Cool::ServerError, None, id, 20), &policy, at(0));
        }
        assert_eq!(circuit.strikes().0, 1);
        assert_eq!(until(&circuit), at(15));
    }

    #[test]
    fn a_success_that_began_before_the_last_strike_resets_nothing() {
        let policy = policy();
        let open = Circuit::default().after(&fail(Cool::ServerError, None, 5, 9), &policy, at(0));
        let same = open.clone().after(&Signal::Succeeded { id: 9, newest: 9 }, &policy, at(1));
        assert_eq!(same, open);
        let closed = open.after(&Signal::Succeeded { id: 10, newest: 10 }, &policy, at(1));
        assert_eq!(closed.stance(at(1)), Stance::Clear);
        assert_eq!(closed.strikes().0, 0);
    }

    #[test]
    fn a_threshold_opens_only_at_its_strike() {
        let policy = policy();
        let mut circuit = Circuit::default();
        let cause: Arc<str> = "500".into();
        for (id, stance) in [(1, Stance::Clear), (2, Stance::Clear), (3, Stance::Suspect(at(15)))] {
            let failure = Failure {
                class: Cool::ServerError,
                hint: None,
                cause: &cause,
                threshold: 3,
                local: false,
            };
            circuit = circuit.after(&Signal::Failed { id, newest: id, failure }, &policy, at(0));
            assert_eq!(circuit.stance(at(0)), stance, "strike {id}");
        }
    }

    #[test]
    fn a_probe_holds_the_scope_for_five_seconds_and_gives_it_back_without_a_verdict() {
        let policy = policy();
        let open = Circuit::default().after(&fail(Cool::ServerError, None, 1, 1), &policy, at(0));
        assert_eq!(open.stance(at(15)), Stance::Due);
        let probing = open.after(&Signal::Sent { id: 2 }, &policy, at(15));
        assert_eq!(probing.stance(at(19)), Stance::Held);
        assert_eq!(probing.stance(at(20)), Stance::Due);
        let other = probing.clone().after(&Signal::Ended { id: 1 }, &policy, at(16));
        assert_eq!(other.stance(at(16)), Stance::Held, "another attempt's end is not the probe's");
        let back = probing.after(&Signal::Ended { id: 2 }, &policy, at(16));
        assert_eq!(back.stance(at(16)), Stance::Due);
    }

    #[test]
    fn after_closing_attempts_go_two_then_four_then_all() {
        let policy = policy();
        let open = Circuit::default().after(&fail(Cool::ServerError, None, 1, 1), &policy, at(0));
        let mut circuit = open.after(&Signal::Sent { id: 2 }, &policy, at(15)).after(
            &Signal::Succeeded { id: 2, newest: 2 },
            &policy,
            at(15),
        );
        let mut id = 2;
        for width in [2, 4] {
            let mut went = 0;
            while circuit.stance(at(15)) == Stance::Clear {
                id += 1;
                went += 1;
                circuit = circuit.after(&Signal::Sent { id }, &policy, at(15));
            }
            assert_eq!(went, width);
            for done in id - width + 1..=id {
                if done == id {
                    circuit =
                        circuit.after(&Signal::Succeeded { id: done, newest: id }, &policy, at(15));
                }
                circuit = circuit.after(&Signal::Ended { id: done }, &policy, at(15));
            }
        }
        let wide = Circuit::Closed {
            strikes: 0,
            struck: 0,
            window: Some(Window { width: 2, out: 2, since: at(15), last: 0, first: 0 }),
        };
        assert_eq!(wide.stance(at(15)), Stance::Held);
        assert_eq!(
            wide.stance(at(20)),
            Stance::Clear,
            "a window never holds longer than a verdict is awaited"
        );
    }

    #[test]
    fn a_rejected_key_is_checked_after_ten_minutes_doubling_to_six_hours() {
        let policy = policy();
        let mut circuit =
            Circuit::default().after(&fail(Cool::Rejected, None, 1, 1), &policy, at(0));
        for minutes in [10, 20, 40, 80, 160, 320, 360, 360] {
            let Circuit::Shut { retest_at, .. } = circuit else { panic!("{circuit:?}") };
            assert_eq!(retest_at, at(minutes * 60));
            circuit = circuit.after(&Signal::Retested, &policy, at(0));
        }
        assert_eq!(circuit.stance(at(1_000_000)), Stance::Shut);
        assert_eq!(circuit.after(&Signal::Warmed, &policy, at(0)).stance(at(0)), Stance::Clear);
    }

    #[test]
    fn a_missing_model_is_asked_for_again_soon_where_the_server_is_local() {
        let cause: Arc<str> = "404".into();
        for (local, seconds) in [(true, 10), (false, 3_600)] {
            let failure = Failure {
                class: Cool::ModelMissing,
                hint: None,
                cause: &cause,
                threshold: 1,
                local,
            };
            let circuit = Circuit::default().after(
                &Signal::Failed { id: 1, newest: 1, failure },
                &policy(),
                at(0),
            );
            assert_eq!(circuit.stance(at(0)), Stance::Blocked(at(seconds)));
        }
    }

    fn signals() -> impl Strategy<Value = (u64, Signal<'static>)> {
        let class = prop_oneof![
            Just(Cool::RateLimited),
            Just(Cool::ServerError),
            Just(Cool::Quota),
            Just(Cool::ModelMissing)
        ];
        let signal = prop_oneof![
            (class, proptest::option::of(0_u64..100_000), 1_u64..60, 0_u64..5)
                .prop_map(|(c, h, id, more)| fail(c, h, id, id + more)),
            (1_u64..60).prop_map(|id| Signal::Succeeded { id, newest: id }),
            (1_u64..60).prop_map(|id| Signal::Spoke { id, newest: id }),
            (1_u64..60).prop_map(|id| Signal::Sent { id }),
            (1_u64..60).prop_map(|id| Signal::Ended { id }),
            Just(Signal::Answered),
        ];
        (0_u64..4_000, signal)
    }

    proptest! {
        #![proptest_config(fixture::cases())]

        #[test]
        fn cooldowns_always_end(steps in proptest::collection::vec(signals(), 0..40)) {
            let policy = policy();
            let (mut circuit, mut now) = (Circuit::default(), 0);
            for (pause, signal) in steps {
                now += pause;
                circuit = circuit.after(&signal, &policy, at(now));
            }
            let ceiling = now + 3_600;
            prop_assert!(matches!(circuit.stance(at(ceiling)), Stance::Clear | Stance::Due), "{circuit:?}");
        }

        #[test]
        fn a_failure_never_brings_the_end_nearer(steps in proptest::collection::vec(signals(), 0..40)) {
            let policy = policy();
            let (mut circuit, mut now) = (Circuit::default(), 0);
            for (pause, signal) in steps {
                now += pause % 5;
                let before = match &circuit { Circuit::Open { until, .. } => Some(*until), _ => None };
                circuit = circuit.after(&signal, &policy, at(now));
                if let (Some(before), Signal::Failed { .. }) = (before, &signal) {
                    prop_assert!(until(&circuit) >= before);
                }
            }
        }
    }
}
