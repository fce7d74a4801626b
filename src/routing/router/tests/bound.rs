//! Tests that conversations stay with the account that served them before.

use proptest::prelude::{prop_assert, proptest};

use crate::routing::router::tests::*;
use crate::routing::{
    affinity::{ConversationKeys, WORSE_TIER_GRACE},
    test_support::cases,
};

const ONE_HOUR: Duration = Duration::from_secs(3_600);

fn keys(chain: &[u64]) -> Arc<ConversationKeys> {
    Arc::new(ConversationKeys { session: None, chain: chain.to_vec(), preamble: None })
}

impl RouterFixture {
    /// Decides a turn of a conversation without serving it.
    fn decide_turn(
        &self,
        keys: &Arc<ConversationKeys>,
        now: u64,
    ) -> (Decision, Option<AttemptTicket>) {
        let question =
            RouteQuery { input_estimate: 2_000, ..RouteQuery::first_attempt(&self.candidates) };
        self.router.decide_with_affinity(
            &question,
            (keys, ONE_HOUR, at(now + 2)),
            at(now),
            &mut ScriptedRng::new(&[0.0]),
        )
    }

    /// Serves a turn; returns the key that served it.
    #[track_caller]
    fn serve_turn(&self, keys: &Arc<ConversationKeys>, now: u64) -> String {
        let (decision, ticket) = self.decide_turn(keys, now);
        let ticket = ticket.unwrap_or_else(|| panic!("{decision:?}"));
        self.finish_attempt(&ticket, now);
        ticket.key_name.to_string()
    }
}

#[test]
fn next_turn_uses_the_key_of_the_last_turn() {
    let world = RouterFixture::with_keys(3);
    let first = world.serve_turn(&keys(&[1]), 0);
    let other = world.serve_turn(&keys(&[50]), 1);
    assert_ne!(first, other, "another conversation is another turn of the wheel");
    for (n, chain) in
        [vec![3, 2, 1], vec![5, 4, 3, 2, 1], vec![7, 6, 5, 4, 3, 2, 1]].iter().enumerate()
    {
        assert_eq!(world.serve_turn(&keys(chain), 2 + n as u64), first);
    }
}

#[test]
fn unhealthy_binding_moves_with_the_failover() {
    let world = RouterFixture::with_keys(2);
    let first = world.serve_turn(&keys(&[1]), 0);
    let (_, ticket) = world.decide_turn(&keys(&[2, 1]), 1);
    let ticket = ticket.expect("a ticket");
    assert_eq!(*ticket.key_name, *first);
    world.fail_attempt(&ticket, &limited(Some(30)), 1);

    let second = world.serve_turn(&keys(&[2, 1]), 1);

    assert_ne!(second, first);
    assert_eq!(world.serve_turn(&keys(&[3, 2, 1]), 60), second, "it does not come back by itself");
}

#[test]
fn binding_to_a_lower_tier_expires_once_the_higher_recovers() {
    let mut spare = upstream(2, "spare", None, 1);
    spare.priority = 20;
    let world = RouterFixture::new(vec![upstream(1, "main", None, 1), spare]);
    let (_, ticket) = world.decide_turn(&keys(&[1]), 0);
    world.fail_attempt(&ticket.expect("a ticket"), &limited(Some(100)), 0);
    assert_eq!(world.serve_turn(&keys(&[1]), 1), "spare/k0");

    // `main` is back after a hundred seconds; its first request is a probe.
    let back = world.serve_turn(&keys(&[99]), 101);
    assert_eq!(back, "main/k0");
    assert_eq!(world.serve_turn(&keys(&[2, 1]), 110), "spare/k0");
    let (decision, _) = world.decide_turn(&keys(&[2, 1]), 120);
    assert!(
        matches!(
            decision.verdict,
            Verdict::Try { reason: ChoiceReason::Affinity { better_tier_ready: true }, .. }
        ),
        "{decision:?}"
    );
    assert_eq!(world.serve_turn(&keys(&[2, 1]), 110 + WORSE_TIER_GRACE.as_secs()), "main/k0");
}

#[test]
fn bound_request_waits_briefly_for_its_key() {
    let mut one = upstream(1, "openai", None, 2);
    for key in &mut one.keys {
        Arc::make_mut(key).max_concurrency = 1;
    }
    let world = RouterFixture::new(vec![one]);
    let first = world.serve_turn(&keys(&[1]), 0);
    let (_, busy) = world.decide_turn(&keys(&[2, 1]), 1);
    assert_eq!(*busy.expect("a ticket").key_name, *first);

    let question =
        RouteQuery { input_estimate: 2_000, ..RouteQuery::first_attempt(&world.candidates) };
    let ask = |wait, now| {
        world.router.decide_with_affinity(
            &question,
            (&keys(&[3, 2, 1]), ONE_HOUR, at(wait)),
            at(now),
            &mut ScriptedRng::new(&[0.0]),
        )
    };
    assert_eq!(ask(4, 2).0.verdict, Verdict::Wait { until: Some(at(4)) });
    let (_, ticket) = ask(4, 4);
    assert_ne!(*ticket.expect("served elsewhere").key_name, *first);
}

#[test]
fn binding_covers_the_account_and_not_one_key() {
    let targets = [target(&Arc::new(upstream(1, "openai", None, 4)), "gpt")];
    let world = RouterFixture::with_candidates(build_candidates(&targets, &|key| {
        (KeyState::Ready, AccountId(key.0 % 2))
    }));
    let account =
        |name: &str| name.trim_start_matches("openai/k").parse::<u32>().expect("a number") % 2;
    let first = account(&world.serve_turn(&keys(&[1]), 0));
    let turns: Vec<_> = (0..4).map(|n| world.serve_turn(&keys(&[2 + n, 1]), 1 + n)).collect();
    assert!(turns.iter().all(|name| account(name) == first), "{turns:?}");
    assert!(
        turns.windows(2).any(|pair| pair[0] != pair[1]),
        "keys of the account take turns: {turns:?}"
    );
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn bound_request_always_reaches_a_healthy_candidate(
        history in proptest::collection::vec((0_u64..6, 0_usize..9, 0_u64..40), 0..40)
    ) {
        let world = RouterFixture::new(vec![upstream(1, "a", None, 2), upstream(2, "b", None, 2), upstream(3, "c", None, 0)]);
        let outcomes = [limited(None), limited(Some(20)), broken(), refused(), reply(FaultKind::KeyRejected, 401, "", None)];
        let mut now = 0;
        for (talk, how, pass) in history {
            now += pass;
            if let (_, Some(ticket)) = world.decide_turn(&keys(&[talk]), now) {
                match outcomes.get(how) {
                    Some(outcome) => drop(world.fail_attempt(&ticket, outcome, now)),
                    None => drop(world.finish_attempt(&ticket, now)),
                }
            }
        }
        let mut healthy = upstream(9, "healthy", None, 1);
        healthy.priority = 99;
        let mut world = world;
        world.candidates.extend(ready_candidates(&[target(&Arc::new(healthy), "gpt")]));
        for talk in 0..6 {
            let (decision, ticket) = world.decide_turn(&keys(&[talk]), now);
            prop_assert!(ticket.is_some(), "{:?}", decision);
        }
    }
}
