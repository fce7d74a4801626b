//! Implements the circuit of one scope (upstream, account, key, key and model): its states, and how
//! each signal changes them.

use std::{mem, sync::Arc, time::Duration};

use crate::base::{backoff::exponential, clock::Mono};
use crate::ir::reason::failure::FailureReason;
use crate::routing::{
    health::cooldown::{CooldownTerm, Failure, Policy},
    outcome::CooldownClass,
};

/// How long other attempts wait for a probe's result before one of them may be sent.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Delay before the first free check of a rejected key; it doubles up to [`MAX_RECHECK_AFTER`].
const RECHECK_AFTER: Duration = Duration::from_secs(600);
const MAX_RECHECK_AFTER: Duration = Duration::from_secs(6 * 3600);

/// Slow start ends when its width reaches this number of concurrent attempts.
const SLOW_START_DONE: u32 = 32;

/// The state of one scope. Attempts are identified by their ticket's number. `last_failure` is the
/// newest number issued when the last strike was counted, so an attempt started after that strike
/// exactly if its number is greater.
#[derive(Clone, Debug, PartialEq)]
pub enum Circuit {
    /// Usable; `strikes` have not opened it yet. `slow_start` is set while the scope has just
    /// recovered.
    Closed { strikes: u32, last_failure: u64, slow_start: Option<SlowStart> },
    /// Not used until `until`; after that one request tests it.
    Open { reason: OpenReason, until: Mono },
    /// An attempt is testing it; without a result it returns to `Open` with the same `until`.
    Probing { reason: OpenReason, attempt_id: u64, sent_at: Mono, until: Mono },
    /// Rejected: client traffic does not test it.
    Rejected {
        cause: Arc<FailureReason>,
        since: Mono,
        last_failure: u64,
        recheck_at: Mono,
        rechecks: u32,
    },
}

/// Why and since when a scope is not used.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenReason {
    pub strikes: u32,
    pub last_failure: u64,
    pub since: Mono,
    pub cause: Arc<FailureReason>,
    pub class: CooldownClass,
    /// Known to be unusable before the end (true), or only suspect (false).
    pub hard_block: bool,
    /// The end comes from the provider's hint, not from aiproxy's own estimate.
    pub from_provider: bool,
}

/// The slow start after a recovery: `width` concurrent attempts are allowed (1, 2, 4, …), and
/// `in_flight` are running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    pub width: u32,
    pub in_flight: u32,
    pub since: Mono,
    /// The last attempt that widened it. Attempts numbered up to `opened_after` are not counted in
    /// `in_flight`.
    last_success: u64,
    opened_after: u64,
}

/// What happened to an attempt, or what a user requested. `id` is the attempt's number,
/// `last_attempt_id` the newest number issued.
#[derive(Clone, Debug)]
pub enum CircuitSignal<'a> {
    /// One of aiproxy's probes got a response: a scope that was open because of failures may work
    /// again.
    ProbeSucceeded,
    /// Cooled by hand for this span.
    Cooled {
        span: Duration,
        last_attempt_id: u64,
    },
    /// The attempt is over, possibly without a result.
    Ended {
        id: u64,
    },
    Failed {
        id: u64,
        last_attempt_id: u64,
        failure: Failure<'a>,
    },
    /// A free check of a rejected key has started.
    RecheckStarted,
    Sent {
        id: u64,
    },
    /// The response began: the scope works again, but only a complete response clears earlier
    /// failures.
    FirstContent {
        id: u64,
        last_attempt_id: u64,
    },
    Succeeded {
        id: u64,
        last_attempt_id: u64,
    },
    /// Reset by hand, by a new secret, or by a check that succeeded.
    Reset,
}

/// What a scope allows at an instant; greater is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Availability {
    Available,
    /// The cooldown is over: one request tests it.
    ProbeDue,
    Suspect(Mono),
    /// An attempt's result is pending.
    Pending,
    Blocked(Mono),
    Rejected,
}

impl Default for Circuit {
    fn default() -> Self {
        Self::Closed { strikes: 0, last_failure: 0, slow_start: None }
    }
}

impl Circuit {
    /// Returns the next state.
    #[must_use]
    pub fn after(self, signal: &CircuitSignal<'_>, policy: &Policy, now: Mono) -> Self {
        match *signal {
            CircuitSignal::Reset => Self::default(),
            CircuitSignal::Cooled { span, last_attempt_id } => {
                Self::manual(span, last_attempt_id, now)
            }
            CircuitSignal::ProbeSucceeded => self.after_probe(now),
            CircuitSignal::RecheckStarted => self.after_recheck(now),
            CircuitSignal::Sent { id } => self.after_sent(id, now),
            CircuitSignal::Ended { id } => self.after_end(id),
            CircuitSignal::FirstContent { id, last_attempt_id } => {
                self.after_content(id, last_attempt_id, now)
            }
            CircuitSignal::Succeeded { id, last_attempt_id } => {
                self.after_success(id, last_attempt_id, now)
            }
            CircuitSignal::Failed { id, last_attempt_id, ref failure } => {
                self.after_failure(id, last_attempt_id, failure, policy, now)
            }
        }
    }

    /// Shortens only cooldowns that aiproxy estimated, not those from the provider or a user.
    fn after_probe(self, now: Mono) -> Self {
        match self {
            Self::Open { reason, until }
                if until > now
                    && reason.class == CooldownClass::ServerError
                    && !reason.hard_block
                    && !reason.from_provider =>
            {
                Self::Open { reason, until: now }
            }
            state => state,
        }
    }

    fn after_recheck(self, now: Mono) -> Self {
        match self {
            Self::Rejected { cause, since, last_failure, rechecks, .. } => {
                let rechecks = rechecks.saturating_add(1);
                Self::Rejected {
                    cause,
                    since,
                    last_failure,
                    recheck_at: now + exponential(RECHECK_AFTER, MAX_RECHECK_AFTER, rechecks),
                    rechecks,
                }
            }
            state => state,
        }
    }

    fn after_sent(self, id: u64, now: Mono) -> Self {
        match self {
            Self::Open { reason, until } | Self::Probing { reason, until, .. } => {
                Self::Probing { reason, attempt_id: id, sent_at: now, until }
            }
            Self::Closed { strikes, last_failure, slow_start } => {
                let slow_start = slow_start
                    .filter(|w| w.since + PROBE_TIMEOUT > now)
                    .map(|w| SlowStart { in_flight: w.in_flight.saturating_add(1), ..w });
                Self::Closed { strikes, last_failure, slow_start }
            }
            Self::Rejected { .. } => self,
        }
    }

    fn after_end(self, id: u64) -> Self {
        match self {
            Self::Probing { reason, attempt_id, until, .. } if attempt_id == id => {
                Self::Open { reason, until }
            }
            Self::Closed { strikes, last_failure, slow_start } => {
                let slow_start = slow_start.map(|w| {
                    if id > w.opened_after {
                        SlowStart { in_flight: w.in_flight.saturating_sub(1), ..w }
                    } else {
                        w
                    }
                });
                Self::Closed { strikes, last_failure, slow_start }
            }
            state @ (Self::Open { .. } | Self::Probing { .. } | Self::Rejected { .. }) => state,
        }
    }

    fn after_content(self, id: u64, last_attempt_id: u64, now: Mono) -> Self {
        match self {
            Self::Closed { strikes, last_failure, slow_start } => {
                let slow_start = slow_start.and_then(|w| w.widen(id));
                Self::Closed { strikes, last_failure, slow_start }
            }
            Self::Open { reason: OpenReason { last_failure, strikes, .. }, .. }
            | Self::Probing { reason: OpenReason { last_failure, strikes, .. }, .. }
                if id > last_failure =>
            {
                let slow_start = Some(SlowStart::begin(id, last_attempt_id, now));
                Self::Closed { strikes, last_failure, slow_start }
            }
            state @ (Self::Open { .. } | Self::Probing { .. } | Self::Rejected { .. }) => state,
        }
    }

    fn after_success(self, id: u64, last_attempt_id: u64, now: Mono) -> Self {
        match self {
            Self::Closed { strikes, last_failure, slow_start } => Self::Closed {
                strikes: if id > last_failure { 0 } else { strikes },
                last_failure,
                slow_start: slow_start.and_then(|w| w.widen(id)),
            },
            Self::Open { reason: OpenReason { last_failure, .. }, .. }
            | Self::Probing { reason: OpenReason { last_failure, .. }, .. }
            | Self::Rejected { last_failure, .. }
                if id > last_failure =>
            {
                let slow_start = Some(SlowStart::begin(id, last_attempt_id, now));
                Self::Closed { strikes: 0, last_failure, slow_start }
            }
            state => state,
        }
    }

    fn after_failure(
        self,
        id: u64,
        last_attempt_id: u64,
        failure: &Failure<'_>,
        policy: &Policy,
        now: Mono,
    ) -> Self {
        match (self, failure.class) {
            (state @ Self::Rejected { .. }, _) | (state, CooldownClass::None) => state,
            (_, CooldownClass::Rejected) => Self::Rejected {
                cause: Arc::clone(failure.cause),
                since: now,
                last_failure: last_attempt_id,
                recheck_at: now + RECHECK_AFTER,
                rechecks: 0,
            },
            (state, _) => state.after_strike(id, last_attempt_id, failure, policy, now),
        }
    }

    fn manual(span: Duration, last_attempt_id: u64, now: Mono) -> Self {
        let reason = OpenReason {
            strikes: 0,
            last_failure: last_attempt_id,
            since: now,
            cause: FailureReason::CooledByHand.into(),
            class: CooldownClass::None,
            hard_block: true,
            from_provider: false,
        };
        Self::Open { reason, until: now + span }
    }

    /// Handles a failure. It adds a strike only if its attempt started after the last strike. An
    /// explicit provider statement (a hint, a quota, a missing model) extends the end in any case.
    fn after_strike(
        self,
        id: u64,
        last_attempt_id: u64,
        failure: &Failure<'_>,
        policy: &Policy,
        now: Mono,
    ) -> Self {
        let (strikes, last_failure) = self.strikes();
        let is_new = id > last_failure;
        let strikes = if is_new { strikes.saturating_add(1) } else { strikes };
        let term = CooldownTerm::for_failure(failure, strikes, id, policy);
        let cooling = match &self {
            Self::Open { reason, until } if *until > now => {
                Some((reason.since, *until, reason.hard_block, reason.from_provider))
            }
            _ => None,
        };
        // While a newer probe is in flight, its result counts, not that of the probe it replaced.
        let overtaken = matches!(&self, Self::Probing { attempt_id, .. } if *attempt_id > id);
        if (!is_new || overtaken) && !term.definite {
            return self;
        }
        let last_failure = if is_new { last_attempt_id } else { last_failure };
        let opens =
            term.definite || strikes >= failure.threshold || !matches!(self, Self::Closed { .. });
        if !opens {
            return Self::Closed { strikes, last_failure, slow_start: None };
        }
        let end = now + term.span;
        if let (Some((since, until, blocked, hinted)), Self::Open { reason, .. }) = (cooling, &self)
            && until >= end
        {
            let reason = OpenReason {
                strikes,
                last_failure,
                since,
                hard_block: blocked || term.hard_block,
                from_provider: hinted,
                ..reason.clone()
            };
            return Self::Open { reason, until };
        }
        let reason = OpenReason {
            strikes,
            last_failure,
            since: cooling.map_or(now, |(since, ..)| since),
            cause: Arc::clone(failure.cause),
            class: failure.class,
            hard_block: term.hard_block || cooling.is_some_and(|(_, _, blocked, _)| blocked),
            from_provider: term.from_provider,
        };
        Self::Open { reason, until: end }
    }

    fn strikes(&self) -> (u32, u64) {
        match self {
            Self::Closed { strikes, last_failure, .. } => (*strikes, *last_failure),
            Self::Open { reason, .. } | Self::Probing { reason, .. } => {
                (reason.strikes, reason.last_failure)
            }
            Self::Rejected { last_failure, .. } => (0, *last_failure),
        }
    }

    /// Returns what the scope allows now.
    #[must_use]
    pub fn availability(&self, now: Mono) -> Availability {
        match self {
            Self::Closed { slow_start: Some(w), .. }
                if w.in_flight >= w.width && w.since + PROBE_TIMEOUT > now =>
            {
                Availability::Pending
            }
            Self::Closed { .. } => Availability::Available,
            Self::Open { until, .. } if *until <= now => Availability::ProbeDue,
            Self::Open { reason, until } if reason.hard_block => Availability::Blocked(*until),
            Self::Open { until, .. } => Availability::Suspect(*until),
            Self::Probing { sent_at: sent, .. } if *sent + PROBE_TIMEOUT <= now => {
                Availability::ProbeDue
            }
            Self::Probing { .. } => Availability::Pending,
            Self::Rejected { .. } => Availability::Rejected,
        }
    }

    /// Moves to the next state in place; returns the previous one.
    pub fn apply(&mut self, signal: &CircuitSignal<'_>, policy: &Policy, now: Mono) -> Self {
        let before = self.clone();
        *self = mem::take(self).after(signal, policy, now);
        before
    }

    #[must_use]
    pub fn open_reason(&self) -> Option<&OpenReason> {
        match self {
            Self::Open { reason, .. } | Self::Probing { reason, .. } => Some(reason),
            Self::Closed { .. } | Self::Rejected { .. } => None,
        }
    }
}

impl SlowStart {
    /// Begins slow start after the attempt `id` succeeded.
    fn begin(id: u64, last_attempt_id: u64, now: Mono) -> Self {
        Self { width: 2, in_flight: 0, since: now, last_success: id, opened_after: last_attempt_id }
    }

    /// Doubles the width once for each successful attempt. Returns `None` once the width is large
    /// enough to end slow start.
    fn widen(self, id: u64) -> Option<Self> {
        if id == self.last_success {
            return Some(self);
        }
        let width = self.width.saturating_mul(2);
        (width < SLOW_START_DONE).then_some(Self { width, last_success: id, ..self })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::test_support::{self, at, policy};

    fn fail(
        class: CooldownClass,
        hint: Option<u64>,
        id: u64,
        newest: u64,
    ) -> CircuitSignal<'static> {
        static CAUSE: std::sync::LazyLock<Arc<FailureReason>> =
            std::sync::LazyLock::new(|| FailureReason::text("why").into());
        let hint = hint.map(Duration::from_secs);
        CircuitSignal::Failed {
            id,
            last_attempt_id: newest,
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
    fn only_a_longer_hint_extends_the_cooldown() {
        let policy = policy();
        let first = Circuit::default().after(
            &fail(CooldownClass::RateLimited, Some(10), 1, 3),
            &policy,
            at(0),
        );
        let longer = first.after(&fail(CooldownClass::RateLimited, Some(60), 2, 3), &policy, at(1));
        assert_eq!(until(&longer), at(61));
        let shorter =
            longer.after(&fail(CooldownClass::RateLimited, Some(1), 3, 3), &policy, at(2));
        assert_eq!(until(&shorter), at(61));
        assert_eq!(shorter.strikes().0, 1, "all three began before the strike");
    }

    #[test]
    fn hint_is_capped_and_zero_is_no_hint() {
        let policy = policy();
        let week = Circuit::default().after(
            &fail(CooldownClass::RateLimited, Some(7 * 86_400), 1, 1),
            &policy,
            at(0),
        );
        assert_eq!(until(&week), at(3_600));
        assert!(matches!(week.availability(at(0)), Availability::Blocked(_)));
        let zero = Circuit::default().after(
            &fail(CooldownClass::RateLimited, Some(0), 1, 1),
            &policy,
            at(0),
        );
        assert_eq!(until(&zero), at(5));
        assert!(matches!(zero.availability(at(0)), Availability::Suspect(_)));
    }

    #[test]
    fn strikes_double_the_cooldown_up_to_its_ceiling() {
        let policy = policy();
        let mut circuit = Circuit::default();
        for (id, seconds) in
            [(1, 15), (2, 30), (3, 60), (4, 120), (5, 240), (6, 480), (7, 600), (8, 600)]
        {
            circuit =
                circuit.after(&fail(CooldownClass::ServerError, None, id, id), &policy, at(0));
            let end = until(&circuit);
            assert!(end <= at(seconds) && end >= at(seconds * 9 / 10), "strike {id}: {end:?}");
        }
    }

    #[test]
    fn repeated_common_failures_get_staggered_probes() {
        let policy = policy();
        let again = |id| {
            let once = Circuit::default().after(
                &fail(CooldownClass::ServerError, None, id, id),
                &policy,
                at(0),
            );
            assert_eq!(until(&once), at(15), "the first time it is as configured");
            until(&once.after(
                &fail(CooldownClass::ServerError, None, id + 20, id + 20),
                &policy,
                at(15),
            ))
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
            circuit =
                circuit.after(&fail(CooldownClass::ServerError, None, id, 20), &policy, at(0));
        }
        assert_eq!(circuit.strikes().0, 1);
        assert_eq!(until(&circuit), at(15));
    }

    #[test]
    fn success_that_began_before_the_last_strike_resets_nothing() {
        let policy = policy();
        let open =
            Circuit::default().after(&fail(CooldownClass::ServerError, None, 5, 9), &policy, at(0));
        let same = open.clone().after(
            &CircuitSignal::Succeeded { id: 9, last_attempt_id: 9 },
            &policy,
            at(1),
        );
        assert_eq!(same, open);
        let closed =
            open.after(&CircuitSignal::Succeeded { id: 10, last_attempt_id: 10 }, &policy, at(1));
        assert_eq!(closed.availability(at(1)), Availability::Available);
        assert_eq!(closed.strikes().0, 0);
    }

    #[test]
    fn circuit_opens_only_at_its_strike_threshold() {
        let policy = policy();
        let mut circuit = Circuit::default();
        let cause = Arc::new(FailureReason::text("500"));
        for (id, stance) in [
            (1, Availability::Available),
            (2, Availability::Available),
            (3, Availability::Suspect(at(15))),
        ] {
            let failure = Failure {
                class: CooldownClass::ServerError,
                hint: None,
                cause: &cause,
                threshold: 3,
                local: false,
            };
            circuit = circuit.after(
                &CircuitSignal::Failed { id, last_attempt_id: id, failure },
                &policy,
                at(0),
            );
            assert_eq!(circuit.availability(at(0)), stance, "strike {id}");
        }
    }

    #[test]
    fn probe_reserves_the_scope_for_at_most_five_seconds() {
        let policy = policy();
        let open =
            Circuit::default().after(&fail(CooldownClass::ServerError, None, 1, 1), &policy, at(0));
        assert_eq!(open.availability(at(15)), Availability::ProbeDue);
        let probing = open.after(&CircuitSignal::Sent { id: 2 }, &policy, at(15));
        assert_eq!(probing.availability(at(19)), Availability::Pending);
        assert_eq!(probing.availability(at(20)), Availability::ProbeDue);
        let other = probing.clone().after(&CircuitSignal::Ended { id: 1 }, &policy, at(16));
        assert_eq!(
            other.availability(at(16)),
            Availability::Pending,
            "another attempt's end is not the probe's"
        );
        let back = probing.after(&CircuitSignal::Ended { id: 2 }, &policy, at(16));
        assert_eq!(back.availability(at(16)), Availability::ProbeDue);
    }

    #[test]
    fn closed_circuit_admits_two_then_four_then_all_attempts() {
        let policy = policy();
        let open =
            Circuit::default().after(&fail(CooldownClass::ServerError, None, 1, 1), &policy, at(0));
        let mut circuit = open.after(&CircuitSignal::Sent { id: 2 }, &policy, at(15)).after(
            &CircuitSignal::Succeeded { id: 2, last_attempt_id: 2 },
            &policy,
            at(15),
        );
        let mut id = 2;
        for width in [2, 4] {
            let mut went = 0;
            while circuit.availability(at(15)) == Availability::Available {
                id += 1;
                went += 1;
                circuit = circuit.after(&CircuitSignal::Sent { id }, &policy, at(15));
            }
            assert_eq!(went, width);
            for done in id - width + 1..=id {
                if done == id {
                    circuit = circuit.after(
                        &CircuitSignal::Succeeded { id: done, last_attempt_id: id },
                        &policy,
                        at(15),
                    );
                }
                circuit = circuit.after(&CircuitSignal::Ended { id: done }, &policy, at(15));
            }
        }
        let wide = Circuit::Closed {
            strikes: 0,
            last_failure: 0,
            slow_start: Some(SlowStart {
                width: 2,
                in_flight: 2,
                since: at(15),
                last_success: 0,
                opened_after: 0,
            }),
        };
        assert_eq!(wide.availability(at(15)), Availability::Pending);
        assert_eq!(
            wide.availability(at(20)),
            Availability::Available,
            "a window never holds longer than a verdict is awaited"
        );
    }

    #[test]
    fn rejected_key_is_rechecked_after_ten_minutes_up_to_six_hours() {
        let policy = policy();
        let mut circuit =
            Circuit::default().after(&fail(CooldownClass::Rejected, None, 1, 1), &policy, at(0));
        for minutes in [10, 20, 40, 80, 160, 320, 360, 360] {
            let Circuit::Rejected { recheck_at: retest_at, .. } = circuit else {
                panic!("{circuit:?}")
            };
            assert_eq!(retest_at, at(minutes * 60));
            circuit = circuit.after(&CircuitSignal::RecheckStarted, &policy, at(0));
        }
        assert_eq!(circuit.availability(at(1_000_000)), Availability::Rejected);
        assert_eq!(
            circuit.after(&CircuitSignal::Reset, &policy, at(0)).availability(at(0)),
            Availability::Available
        );
    }

    #[test]
    fn missing_model_is_retried_sooner_on_a_local_server() {
        let cause = Arc::new(FailureReason::text("404"));
        for (local, seconds) in [(true, 10), (false, 3_600)] {
            let failure = Failure {
                class: CooldownClass::ModelMissing,
                hint: None,
                cause: &cause,
                threshold: 1,
                local,
            };
            let circuit = Circuit::default().after(
                &CircuitSignal::Failed { id: 1, last_attempt_id: 1, failure },
                &policy(),
                at(0),
            );
            assert_eq!(circuit.availability(at(0)), Availability::Blocked(at(seconds)));
        }
    }

    fn signals() -> impl Strategy<Value = (u64, CircuitSignal<'static>)> {
        let class = prop_oneof![
            Just(CooldownClass::RateLimited),
            Just(CooldownClass::ServerError),
            Just(CooldownClass::Quota),
            Just(CooldownClass::ModelMissing)
        ];
        let signal = prop_oneof![
            (class, proptest::option::of(0_u64..100_000), 1_u64..60, 0_u64..5)
                .prop_map(|(c, h, id, more)| fail(c, h, id, id + more)),
            (1_u64..60).prop_map(|id| CircuitSignal::Succeeded { id, last_attempt_id: id }),
            (1_u64..60).prop_map(|id| CircuitSignal::FirstContent { id, last_attempt_id: id }),
            (1_u64..60).prop_map(|id| CircuitSignal::Sent { id }),
            (1_u64..60).prop_map(|id| CircuitSignal::Ended { id }),
            Just(CircuitSignal::ProbeSucceeded),
        ];
        (0_u64..4_000, signal)
    }

    proptest! {
        #![proptest_config(test_support::cases())]

        #[test]
        fn cooldowns_always_end(steps in proptest::collection::vec(signals(), 0..40)) {
            let policy = policy();
            let (mut circuit, mut now) = (Circuit::default(), 0);
            for (pause, signal) in steps {
                now += pause;
                circuit = circuit.after(&signal, &policy, at(now));
            }
            let ceiling = now + 3_600;
            prop_assert!(matches!(circuit.availability(at(ceiling)), Availability::Available | Availability::ProbeDue), "{circuit:?}");
        }

        #[test]
        fn failure_never_shortens_a_cooldown(steps in proptest::collection::vec(signals(), 0..40)) {
            let policy = policy();
            let (mut circuit, mut now) = (Circuit::default(), 0);
            for (pause, signal) in steps {
                now += pause % 5;
                let before = match &circuit { Circuit::Open { until, .. } => Some(*until), _ => None };
                circuit = circuit.after(&signal, &policy, at(now));
                if let (Some(before), CircuitSignal::Failed { .. }) = (before, &signal) {
                    prop_assert!(until(&circuit) >= before);
                }
            }
        }
    }
}
