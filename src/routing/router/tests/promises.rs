//! Tests the guarantees of routing: which keys are never picked, that attempts are bounded, and
//! that no healthy candidate starves.

use proptest::{
    collection::vec,
    prop_assert, prop_assert_eq, prop_oneof, proptest,
    strategy::{Just, Strategy as Generator},
};

use crate::routing::router::tests::*;
use crate::{
    base::money::NanoUsd,
    config::settings::Strategy,
    ir::{cost::Period, reason::budget::Holder},
    routing::{candidate::BudgetBlock, test_support::cases},
};

/// A source of random numbers that never repeats.
struct GoldenRatioRng(f64);

impl Rng for GoldenRatioRng {
    fn next_f64(&mut self) -> f64 {
        self.0 = (self.0 + 0.618_033_988_749_895).fract();
        self.0
    }
}

fn over(block: BudgetBlock, until: Option<u64>) -> KeyState {
    KeyState::OverBudget { block: block.into(), until: until.map(at) }
}

fn spent() -> BudgetBlock {
    BudgetBlock::Spent {
        holder: Holder::Upstream("a".into()),
        spent: NanoUsd(1),
        limit: NanoUsd(1),
        per: Period::Day,
        again_in: None,
    }
}

fn states() -> impl Generator<Value = KeyState> {
    prop_oneof![
        3 => Just(KeyState::Ready),
        1 => Just(KeyState::Waiting),
        1 => Just(KeyState::Disabled),
        1 => Just(KeyState::Missing(MissingSecret::Unsendable.into())),
        1 => Just(over(spent(), None)),
        1 => (1_u64..2_000).prop_map(|until| over(spent(), Some(until))),
        1 => Just(over(
            BudgetBlock::Reserved {
                holder: Holder::Upstream("a".into()),
                limit: NanoUsd(1),
                per: Period::Day,
            },
            None
        )),
        1 => Just(over(
            BudgetBlock::Unpriced { holder: Holder::All, model: "a/m".into() },
            None
        )),
    ]
}

/// Three upstreams with three keys each and these priorities and weights; one is in another region.
fn nine(priorities: [u32; 3], weights: &[u32]) -> RouterFixture {
    let each = (1..=3).map(|id| {
        let place = id as usize - 1;
        let mut one = upstream(id, ["a", "b", "c"][place], None, 3);
        (one.priority, one.weight) = (priorities[place], f64::from(weights[place]));
        one.region = if id == 2 { "here".to_owned() } else { String::new() };
        one
    });
    RouterFixture::new(each.collect())
}

fn outcome(how: usize) -> Outcome {
    let transport = |kind, sent| {
        classify_transport(&TransportFault {
            kind,
            reason: FailureReason::Truncated.into(),
            may_be_received: sent,
        })
    };
    match how {
        0 => limited(None),
        1 => limited(Some(1)),
        2 => broken(),
        3 => refused(),
        4 => reply(FaultKind::Quota, 402, "", None),
        5 => reply(FaultKind::KeyRejected, 401, "", None),
        6 => reply(FaultKind::ModelNotFound, 404, "", None),
        7 => reply(FaultKind::Conflict, 409, "", None),
        8 => reply(FaultKind::CaptivePortal, 200, "", None),
        9 => transport(TransportKind::Stale, false),
        10 => transport(TransportKind::FirstByteTimeout, true),
        11 => transport(TransportKind::NetworkDown, false),
        _ => reply(FaultKind::BadRequest, 400, "", None),
    }
}

proptest! {
    #![proptest_config(cases())]

    /// A spent budget, a disabled key or a missing secret excludes a key under every strategy,
    /// whatever happened before.
    #[test]
    fn excluded_candidate_is_never_picked(
        states in vec(states(), 9),
        history in vec((0_usize..13, 0_u64..40), 0..30),
        strategy in 0..Strategy::ALL.len(),
    ) {
        let mut world = nine([10, 10, 20], &[1, 1, 1]);
        let (mut now, mut draw) = (0, GoldenRatioRng(0.0));
        for (how, pause) in history {
            now += pause;
            if let Some(ticket) = world.decide(&[], now).1 {
                world.fail_attempt(&ticket, &outcome(how), now);
            }
        }
        for (candidate, state) in world.candidates.iter_mut().zip(&states) {
            candidate.key_state = state.clone();
        }
        for pause in [0, 1, 60, 4_000] {
            now += pause;
            let question = RouteQuery { strategy: Strategy::ALL[strategy].1, region: "here", ..RouteQuery::first_attempt(&world.candidates) };
            let (decision, ticket) = world.router.decide(&question, at(now), &mut draw);
            if let Some((index, _)) = tries(&decision.verdict) {
                prop_assert_eq!(&states[index], &KeyState::Ready);
                let listed: Vec<_> = decision.skipped.iter().filter(|(other, _)| matches!(states[*other], KeyState::OverBudget { .. })).collect();
                prop_assert!(listed.iter().all(|(_, why)| !matches!(why, SkipReason::NotPicked)), "{:?}", decision);
            }
            if let Some(ticket) = ticket {
                world.finish_attempt(&ticket, now);
            }
        }
    }

    /// The attempts of one request end within the configured limits and the free attempts, even
    /// with the worst responses. No candidate is tried more often than the pauses permit.
    #[test]
    fn number_of_attempts_is_bounded(hows in vec(0_usize..13, 200), keys in 1_u32..60) {
        let world = RouterFixture::new(vec![upstream(1, "a", None, keys), upstream(2, "b", None, 2)]);
        let most = policy().retry.max_attempts;
        let (mut now, mut draw, mut attempts) = (0_u64, GoldenRatioRng(0.0), AttemptCounts::default());
        let (mut tried, mut last, mut granted) = (Vec::<FailedAttempt>::new(), None::<Outcome>, false);
        let mut asked: std::collections::HashMap<KeyId, u32> = std::collections::HashMap::new();
        let mut hows = hows.into_iter();
        world.router.count_request(at(0));
        for _ in 0..500 {
            let mut again = |to, attempts: &mut AttemptCounts| {
                last.as_ref().is_none_or(|last: &Outcome| !matches!(world.router.may_retry(last, attempts, to, at(now), &mut draw), RetryDecision::Stop(_)))
            };
            let (decision, ticket) = world.decide(&tried, now);
            match decision.verdict {
                Verdict::Try { index, .. } => {
                    let ticket = ticket.expect("comes with a try");
                    if !std::mem::take(&mut granted) && !again(RetryTarget::Other, &mut attempts) {
                        world.router.record(&ticket, AttemptEnd::Abandoned, at(now));
                        break;
                    }
                    let outcome = outcome(hows.next().expect("it has ended long before"));
                    *asked.entry(ticket.key).or_default() += 1;
                    world.fail_attempt(&ticket, &outcome, now);
                    attempts.count_failure(&outcome);
                    tried.push(world.failed_attempt(index, &outcome));
                    last = Some(outcome);
                }
                Verdict::RetrySame { .. } | Verdict::Wait { .. } => {
                    if !again(RetryTarget::Same, &mut attempts) || last.is_none() {
                        break;
                    }
                    now += 10;
                    granted = true;
                    tried.retain(|tried| !tried.may_recover);
                }
                Verdict::Exhausted { .. } => break,
            }
        }
        let all: u32 = asked.values().sum();
        prop_assert!(attempts.costly <= most && attempts.free <= 33 && attempts.stale <= 3 && attempts.repeats < most, "{:?}", attempts);
        prop_assert!(all <= most + 33 + 3, "{} attempts", all);
        prop_assert!(asked.values().all(|times| *times <= attempts.repeats + 1 + attempts.stale), "{:?} {:?}", asked, attempts);
    }

    /// Strategies that share a tier include every healthy candidate, whatever happened before. Keys
    /// of one upstream share its requests under every strategy.
    #[test]
    fn no_healthy_candidate_starves(
        history in vec((0_usize..13, 0_u64..40), 0..40),
        weights in vec(1_u32..5, 3),
        sharing in 0_usize..3,
    ) {
        let world = nine([10; 3], &weights);
        let mut now = 0;
        for (how, pause) in history {
            now += pause;
            if let Some(ticket) = world.decide(&[], now).1 {
                world.fail_attempt(&ticket, &outcome(how), now);
            }
        }
        world.router.warm(&Scope::All);
        let mut served: std::collections::HashMap<KeyId, u32> = std::collections::HashMap::new();
        let mut draw = GoldenRatioRng(0.0);
        let strategy = [Strategy::RoundRobin, Strategy::Weighted, Strategy::LeastBusy][sharing];
        for _ in 0..120 {
            let question = RouteQuery { strategy, ..RouteQuery::first_attempt(&world.candidates) };
            let (_, ticket) = world.router.decide(&question, at(now), &mut draw);
            let ticket = ticket.expect("all are well");
            *served.entry(ticket.key).or_default() += 1;
            world.finish_attempt(&ticket, now);
        }
        prop_assert_eq!(served.len(), 9, "{:?}", &served);
        // Its share is at least 120 × 1/9, divided by three keys.
        prop_assert!(served.values().all(|times| *times >= 3), "{:?}", &served);

        let mut keys = std::collections::HashSet::new();
        for _ in 0..12 {
            let ticket = world.decide(&[], now).1.expect("all are well");
            keys.insert(ticket.key);
            world.finish_attempt(&ticket, now);
        }
        prop_assert_eq!(keys.len(), 3, "strict priority takes one upstream, and all its keys");
    }
}
