//! Decisions and ends together: what a request meets after what others met.

mod bound;
mod probed;
mod promises;

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    base::draw::ScriptedRng,
    config::settings::Upstream,
    events::kind::Severity,
    ir::{
        fault::{Fault, FaultKind, TransportFault, TransportKind},
        usage::Usage,
    },
    routing::{
        candidate::{
            Candidate, Chosen, KeyState, ScopeKind, Tried, Unfit, Why, candidates, keyless,
        },
        fixture::{at, policy, ready, target, upstream},
        outcome::{of_fault, of_transport},
    },
};

fn said(kind: FaultKind, status: u16, code: &str, hint: Option<u64>) -> Outcome {
    let code = (!code.is_empty()).then(|| code.to_owned());
    let fault = Fault {
        kind,
        status,
        message: String::new(),
        code,
        error_type: None,
        param: None,
        retry_after: None,
    };
    of_fault(&fault, hint.map(Duration::from_secs), true)
}

fn limited(hint: Option<u64>) -> Outcome {
    said(FaultKind::RateLimited, 429, "rate_limit_exceeded", hint)
}

fn broken() -> Outcome {
    said(FaultKind::Server, 500, "", None)
}

fn refused() -> Outcome {
    of_transport(&TransportFault {
        kind: TransportKind::Connect,
        message: "connection refused (a:443)".to_owned(),
        may_be_received: false,
    })
}

/// A board and what may serve.
struct World {
    board: Board,
    candidates: Vec<Candidate>,
}

impl World {
    fn new(upstreams: Vec<Upstream>) -> Self {
        let targets: Vec<_> =
            upstreams.into_iter().map(|upstream| target(&Arc::new(upstream), "gpt")).collect();
        Self::of(ready(&targets))
    }

    /// One upstream with so many keys.
    fn keys(n: u32) -> Self {
        Self::new(vec![upstream(1, "openai", None, n)])
    }

    fn of(candidates: Vec<Candidate>) -> Self {
        Self { board: Board::new(policy()), candidates }
    }

    fn ask(&self, tried: &[Tried], now: u64) -> (Decision, Option<Ticket>) {
        self.ask_large(tried, 100, now)
    }

    fn ask_large(&self, tried: &[Tried], estimate: u64, now: u64) -> (Decision, Option<Ticket>) {
        let question = Question { tried, estimate, ..Question::of(&self.candidates) };
        self.board.decide(&question, at(now), &mut ScriptedRng::new(&[0.0]))
    }

    fn verdict(&self, tried: &[Tried], now: u64) -> Verdict {
        let question = Question { tried, estimate: 100, ..Question::of(&self.candidates) };
        self.board.decide_dry(&question, at(now)).verdict
    }

    /// Starts an attempt, which must be at candidate `index`.
    #[track_caller]
    fn start(&self, index: usize, now: u64) -> Ticket {
        let (decision, ticket) = self.ask(&[], now);
        assert!(
            matches!(decision.verdict, Verdict::Try { index: got, .. } if got == index),
            "{decision:?}"
        );
        ticket.expect("a ticket comes with every try")
    }

    fn fail(&self, ticket: &Ticket, outcome: &Outcome, now: u64) -> Vec<Change> {
        self.board.record(ticket, End::Failed(outcome), at(now))
    }

    fn finish(&self, ticket: &Ticket, now: u64) {
        self.board.record(
            ticket,
            End::Finished {
                ttft: Some(Duration::from_millis(400)),
                usage: Some(Usage { input: 6, output: 4, ..Usage::default() }),
            },
            at(now),
        );
    }

    fn tried(&self, index: usize, outcome: &Outcome) -> Tried {
        let candidate = &self.candidates[index];
        Tried {
            key: candidate.key,
            upstream: candidate.upstream(),
            model: Arc::clone(&candidate.target.model),
            may_pass: outcome.may_pass(),
            upstream_failed: outcome.blames_upstream(),
        }
    }
}

fn tries(verdict: &Verdict) -> Option<(usize, bool)> {
    match verdict {
        Verdict::Try { index, probe, .. } => Some((*index, *probe)),
        _ => None,
    }
}

fn wait(seconds: u64) -> Verdict {
    Verdict::Wait { until: Some(at(seconds)) }
}

const AWAIT: Verdict = Verdict::Wait { until: None };

#[test]
fn a_429_cools_the_key_for_that_model_only() {
    let mut world = World::keys(1);
    let other = ready(&[target(&world.candidates[0].target.upstream, "other")]);
    let changes = world.fail(&world.start(0, 0), &limited(Some(30)), 0);

    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].subject, "openai/k0");
    assert_eq!(changes[0].text, "cools for 30s: 429 rate_limit_exceeded for gpt");
    assert_eq!(world.verdict(&[], 1), wait(30));
    let view = world.board.key_view(KeyId(100), at(1));
    assert_eq!(view.health.state, HealthState::Ok);
    assert_eq!(
        (&*view.models[0].0, view.models[0].1.state, view.models[0].1.hinted),
        ("gpt", HealthState::Cooling, true)
    );

    world.candidates = other;
    assert_eq!(tries(&world.verdict(&[], 1)), Some((0, false)));
}

#[test]
fn after_a_429_all_requests_go_to_the_other_key() {
    let world = World::keys(2);
    world.fail(&world.start(0, 0), &limited(Some(30)), 0);
    for now in 0..20 {
        world.finish(&world.start(1, now), now);
    }
    assert_eq!(
        tries(&world.verdict(&[], 30)).map(|(index, _)| index),
        Some(0),
        "and comes back after thirty seconds"
    );
}

#[test]
fn pain_30_an_account_out_of_money_takes_all_its_keys_out_and_no_other() {
    let upstreams = [Arc::new(upstream(1, "openai", None, 3))];
    let account = |key: KeyId| AccountId(u32::from(key.0 == 102));
    let world = World::of(candidates(&[target(&upstreams[0], "gpt")], &|key| {
        (KeyState::Ready, account(key))
    }));
    let out = said(FaultKind::Quota, 429, "insufficient_quota", None);

    let changes = world.fail(&world.start(0, 0), &out, 0);

    assert_eq!(changes[0].text, "its account cools for 60m00s: 429 insufficient_quota");
    let ticket = world.start(2, 1);
    world.finish(&ticket, 2);
    world.board.set_accounts([(KeyId(101), AccountId(0))]);
    assert_eq!(world.board.key_view(KeyId(101), at(2)).health.state, HealthState::Cooling);
    assert_eq!(world.board.key_view(KeyId(102), at(2)).health.state, HealthState::Ok);
}

#[test]
fn one_500_on_the_only_key_is_no_outage() {
    let world = World::keys(1);
    world.fail(&world.start(0, 0), &broken(), 0);

    let (decision, ticket) = world.ask(&[], 1);
    assert_eq!(decision.verdict, Verdict::Try { index: 0, why: Chosen::LeastSuspect, probe: true });
    assert_eq!(world.verdict(&[], 2), AWAIT, "one at a time");
    assert!(
        tries(&world.verdict(&[], 6)).is_some(),
        "after five seconds without a verdict another may go"
    );

    world.board.record(&ticket.expect("a ticket"), End::Head2xx, at(3));
    assert_eq!(tries(&world.verdict(&[], 3)), Some((0, false)));
}

#[test]
fn a_429_without_a_hint_is_suspect_and_the_same_key_may_be_tried_again() {
    let world = World::keys(1);
    let outcome = limited(None);
    world.fail(&world.start(0, 0), &outcome, 0);
    let tried = [world.tried(0, &outcome)];
    assert_eq!(world.verdict(&tried, 0), Verdict::Again { index: 0 });
    assert_eq!(tries(&world.verdict(&[], 0)), Some((0, true)));
}

#[test]
fn what_failed_here_for_good_is_not_waited_for_but_its_end_is_told() {
    let world = World::keys(1);
    let outcome = said(FaultKind::Quota, 402, "", None);
    world.fail(&world.start(0, 0), &outcome, 0);
    assert_eq!(
        world.verdict(&[world.tried(0, &outcome)], 0),
        Verdict::Exhausted { retry_at: Some(at(3_600)) }
    );

    let world = World::keys(1);
    let outcome = limited(Some(2));
    world.fail(&world.start(0, 0), &outcome, 0);
    assert_eq!(world.verdict(&[world.tried(0, &outcome)], 0), wait(2), "a hint is waited for");
}

#[test]
fn two_requests_cannot_both_be_the_probe() {
    let world = World::keys(2);
    world.fail(&world.start(0, 0), &limited(Some(10)), 0);
    world.finish(&world.start(1, 1), 2);

    let (first, probe) = world.ask(&[], 10);
    let (second, _) = world.ask(&[], 10);

    assert_eq!(first.verdict, Verdict::Try { index: 0, why: Chosen::Probe, probe: true });
    assert_eq!(tries(&second.verdict), Some((1, false)));
    assert_eq!(second.others, [(0, Why::Probing)]);
    world.board.record(&probe.expect("a ticket"), End::Abandoned, at(11));
    let (third, _) = world.ask(&[], 11);
    assert_eq!(
        tries(&third.verdict),
        Some((0, true)),
        "a probe that said nothing gives its place back"
    );
}

#[test]
fn a_probe_without_a_verdict_leaves_the_cooldown_as_it_was() {
    let world = World::keys(1);
    let ticket = world.start(0, 0);
    world.fail(&ticket, &limited(None), 0);
    let until = world.board.key_view(KeyId(100), at(0)).models[0].1.until;
    assert!(until.is_some(), "it cools");

    // Nobody else is there: the suspect is tried all the same, and its client goes away.
    let (decision, ticket) = world.ask(&[], 1);
    assert_eq!(tries(&decision.verdict), Some((0, true)));
    world.board.record(&ticket.expect("a ticket"), End::Abandoned, at(1));

    assert_eq!(world.board.key_view(KeyId(100), at(1)).models[0].1.until, until);
}

#[test]
fn large_requests_are_not_probes_while_another_is_ready() {
    let world = World::keys(2);
    world.fail(&world.start(0, 0), &limited(Some(10)), 0);
    let (decision, ticket) = world.ask_large(&[], 40_000, 10);
    assert_eq!(tries(&decision.verdict), Some((1, false)));
    world.fail(&ticket.expect("a ticket"), &limited(Some(60)), 10);
    assert_eq!(
        tries(&world.ask_large(&[], 40_000, 11).0.verdict),
        Some((0, true)),
        "unless there is no other"
    );
}

#[test]
fn twenty_parallel_failures_are_one_strike() {
    let world = World::keys(1);
    let tickets: Vec<Ticket> = (0..20).map(|_| world.start(0, 0)).collect();
    for ticket in &tickets {
        world.fail(ticket, &refused(), 1);
    }
    assert_eq!(world.board.upstream_view(UpstreamId(1), at(1)).state, HealthState::Ok);
    assert_eq!(tries(&world.verdict(&[], 1)), Some((0, false)));
}

#[test]
fn after_a_fault_of_an_upstream_others_of_its_tier_go_before_its_other_keys() {
    let world = World::new(vec![
        upstream(1, "a", None, 3),
        upstream(2, "b", None, 1),
        Upstream { priority: 20, ..upstream(3, "c", None, 1) },
    ]);
    let mut tried = Vec::new();
    for (outcome, want) in [(broken(), 3), (limited(Some(60)), 1), (broken(), 2), (broken(), 4)] {
        let from = tries(&world.verdict(&tried, 0)).map(|(index, _)| index).expect("somebody");
        tried.push(world.tried(from, &outcome));
        assert_eq!(
            tries(&world.verdict(&tried, 0)).map(|(index, _)| index),
            Some(want),
            "{tried:?}"
        );
    }
}

#[test]
fn after_faults_of_all_that_are_ready_a_suspect_goes_before_their_other_keys() {
    let world = World::new(vec![upstream(1, "a", None, 2), upstream(2, "b", None, 2)]);
    let tried = [world.tried(0, &broken())];
    for now in 0..3 {
        let (_, ticket) = world.ask(&tried, now);
        let ticket = ticket.expect("b");
        assert_eq!(*ticket.upstream_name, *"b");
        world.fail(&ticket, &refused(), now);
    }
    assert_eq!(tries(&world.verdict(&tried, 4)), Some((2, true)), "b cools, but a has just failed");
    assert_eq!(tries(&world.verdict(&[], 4)), Some((0, false)), "who has not asked a yet asks it");
    let both = [world.tried(0, &broken()), world.tried(2, &refused())];
    assert_eq!(tries(&world.verdict(&both, 4)), Some((1, false)), "then their other keys");
}

#[test]
fn a_second_is_taken_only_of_those_that_are_ready() {
    let world = World::new(vec![upstream(1, "a", None, 1), upstream(2, "b", None, 1)]);
    let ready = |tried: &[Tried], now: u64| {
        let question = Question { tried, ..Question::of(&world.candidates) };
        world.board.decide_ready(&question, None, at(now), &mut ScriptedRng::new(&[0.0])).map(
            |(index, ticket)| {
                world.board.record(&ticket, End::Abandoned, at(now));
                index
            },
        )
    };
    let first = [world.tried(0, &broken())];
    assert_eq!(ready(&first, 0), Some(1));
    let (_, ticket) = world.ask(&first, 0);
    world.fail(&ticket.expect("b"), &limited(Some(30)), 0);
    assert_eq!(ready(&first, 1), None, "nobody is waited for");
    assert_eq!(ready(&first, 31), None, "and nobody is tested");
    world.board.warm(&ActScope::All);
    assert_eq!(ready(&first, 31), Some(1));
}

#[test]
fn three_strikes_open_an_upstream_and_another_serves() {
    let world = World::new(vec![upstream(1, "a", None, 1), upstream(2, "b", None, 1)]);
    for now in 0..2 {
        assert!(world.fail(&world.start(0, now), &refused(), now).is_empty());
    }
    let changes = world.fail(&world.start(0, 2), &refused(), 2);
    assert_eq!(
        changes,
        [Change {
            subject: "a".to_owned(),
            text: "cools for 15s: connection refused (a:443)".to_owned(),
            level: Severity::Warn
        }]
    );

    let ticket = world.start(1, 3);

    let view = world.board.upstream_view(UpstreamId(1), at(3));
    assert_eq!((view.state, view.until), (HealthState::Open, Some(at(17))));
    world.finish(&ticket, 4);
    let probe = world.start(0, 17);
    assert!(probe.probe);
    world.board.record(&probe, End::Head2xx, at(18));
    assert_eq!(
        world.board.upstream_view(UpstreamId(1), at(18)).state,
        HealthState::Probing,
        "a head is not content"
    );
    let told = world.board.record(&probe, End::Content, at(18));
    assert_eq!(told[0].text, "works again");
    assert_eq!(world.board.upstream_view(UpstreamId(1), at(18)).state, HealthState::Ok);
}

#[test]
fn a_refusal_shows_that_the_upstream_works() {
    let world = World::keys(2);
    for now in 0..2 {
        world.fail(&world.start(now as usize % 2, now), &refused(), now);
    }
    for outcome in
        [said(FaultKind::BadRequest, 400, "", None), said(FaultKind::Forbidden, 403, "", None)]
    {
        let (_, ticket) = world.ask(&[], 3);
        world.fail(&ticket.expect("a ticket"), &outcome, 3);
    }
    let (_, ticket) = world.ask(&[], 4);
    world.fail(&ticket.expect("a ticket"), &refused(), 4);
    assert_eq!(
        world.board.upstream_view(UpstreamId(1), at(4)).state,
        HealthState::Ok,
        "the strikes began anew"
    );
}

#[test]
fn pain_29_a_bad_request_cools_nothing() {
    let world = World::keys(1);
    for _ in 0..10 {
        assert!(
            world
                .fail(&world.start(0, 0), &said(FaultKind::BadRequest, 400, "", None), 0)
                .is_empty()
        );
    }
    assert_eq!(world.board.stats(UpstreamId(1), at(0)).errors, 0);
    assert_eq!(world.board.key_view(KeyId(100), at(0)).running, 0);
}

#[test]
fn a_stream_that_broke_after_content_counts_against_the_upstream_only() {
    let world = World::keys(1);
    let lost = of_transport(&TransportFault {
        kind: TransportKind::BodyBroken,
        message: "cut".to_owned(),
        may_be_received: true,
    });
    let breaks = |now| {
        let ticket = world.start(0, now);
        world.board.record(&ticket, End::Content, at(now));
        world.board.record(&ticket, End::BrokeAfterContent(&lost), at(now));
        world.board.upstream_view(UpstreamId(1), at(now)).state
    };
    assert_eq!([breaks(0), breaks(1)], [HealthState::Ok; 2]);
    world.board.record(&world.start(0, 1), End::Finished { ttft: None, usage: None }, at(1));
    assert_eq!(
        [breaks(2), breaks(3), breaks(4)],
        [HealthState::Ok, HealthState::Ok, HealthState::Open]
    );
    assert_eq!(
        breaks(1_000),
        HealthState::Open,
        "one that speaks as a probe and breaks again is not back"
    );
    assert_eq!(world.board.key_view(KeyId(100), at(4)).health.state, HealthState::Ok);
}

#[test]
fn a_rejected_key_is_not_tested_by_traffic() {
    let world = World::keys(1);
    let rejected = said(FaultKind::KeyRejected, 401, "invalid_api_key", None);
    let (early, late) = (world.start(0, 0), world.start(0, 0));
    let changes = world.fail(&early, &rejected, 0);
    assert_eq!((changes[0].level, changes[0].subject.as_str()), (Severity::Error, "openai/k0"));
    assert_eq!(world.verdict(&[], 1_000_000), Verdict::Exhausted { retry_at: None });
    let (decision, _) = world.ask(&[], 1);
    assert_eq!(decision.others, [(0, Why::Rejected { cause: "401 invalid_api_key".into() })]);

    assert_eq!(world.board.rejected_due(at(599)), []);
    assert_eq!(world.board.rejected_due(at(600)), [KeyId(100)]);
    assert_eq!(world.board.rejected_due(at(601)), [], "the next check is later");

    world.board.forget_key(KeyId(100));
    world.fail(&late, &rejected, 602);
    assert_eq!(
        tries(&world.verdict(&[], 602)),
        Some((0, false)),
        "the old secret's failure says nothing about the new one"
    );
}

#[test]
fn a_free_check_brings_a_rejected_key_back() {
    let world = World::keys(1);
    world.fail(&world.start(0, 0), &said(FaultKind::KeyRejected, 401, "", None), 0);
    world.board.clear_rejected(KeyId(100));
    assert_eq!(tries(&world.verdict(&[], 1)), Some((0, false)));
}

#[test]
fn pain_1_no_cooldown_outlives_its_cap_and_the_next_request_tests_it() {
    let world = World::keys(1);
    let days = limited(Some(156 * 3_600));
    world.fail(&world.start(0, 0), &days, 0);
    assert!(
        !matches!(world.verdict(&[], 3_599), Verdict::Try { .. }),
        "an hour is what a vendor gets at most"
    );

    let (decision, ticket) = world.ask(&[], 3_600);
    assert_eq!(
        tries(&decision.verdict),
        Some((0, true)),
        "one request goes through, whatever the vendor said"
    );
    world.finish(&ticket.expect("a ticket"), 3_601);
    assert_eq!(
        tries(&world.verdict(&[], 3_602)),
        Some((0, false)),
        "and it is as if nothing had been"
    );
    for _ in 0..20 {
        world.fail(&world.start(0, 4_000), &limited(None), 4_000);
    }
    assert!(
        matches!(world.verdict(&[], 4_000 + 601), Verdict::Try { .. }),
        "doubling has its ceiling"
    );
}

#[test]
fn warming_clears_everything_narrower() {
    let world = World::keys(1);
    for (scope, outcome) in [
        (ActScope::Key(KeyId(100)), broken()),
        (ActScope::Key(KeyId(100)), limited(Some(60))),
        (ActScope::Key(KeyId(100)), said(FaultKind::Quota, 402, "", None)),
        (ActScope::KeyModel(KeyId(100), "gpt".into()), limited(Some(60))),
        (ActScope::Upstream(UpstreamId(1)), said(FaultKind::KeyRejected, 401, "", None)),
        (ActScope::All, said(FaultKind::Quota, 402, "", None)),
    ] {
        world.fail(&world.start(0, 0), &outcome, 0);
        let before = world.board.changed();
        world.board.warm(&scope);
        assert_eq!(tries(&world.verdict(&[], 0)), Some((0, false)), "{scope:?} {}", outcome.cause);
        assert!(world.board.changed() > before, "waiters are woken");
    }
}

#[test]
fn what_was_cooled_by_hand_stays_so_until_its_end() {
    let world = World::keys(2);
    let running = world.start(0, 0);
    world.board.cool(&ActScope::Key(KeyId(100)), Duration::from_secs(600), at(0));
    world.finish(&running, 1);
    world.finish(&world.start(1, 1), 2);
    let view = world.board.key_view(KeyId(100), at(2)).health;
    assert_eq!(
        (view.state, view.until, view.cause.as_deref()),
        (HealthState::Cooling, Some(at(600)), Some("cooled by hand"))
    );
    assert_eq!(tries(&world.verdict(&[], 600)).map(|(index, _)| index), Some(0));
}

#[test]
fn limits_hold_and_free_themselves() {
    let mut limited = upstream(1, "openai", None, 1);
    Arc::make_mut(&mut limited.keys[0]).limit.rpm = 2;
    let world = World::new(vec![limited]);
    for now in [0, 10] {
        world.finish(&world.start(0, now), now);
    }
    assert_eq!(world.verdict(&[], 20), wait(60));
    assert_eq!(tries(&world.verdict(&[], 60)), Some((0, false)));

    for (key, upstream_wide) in [(1, 0), (0, 1)] {
        let mut busy = upstream(1, "openai", None, 1);
        Arc::make_mut(&mut busy.keys[0]).max_concurrency = key;
        busy.max_concurrency = upstream_wide;
        let world = World::new(vec![busy]);
        let running = world.start(0, 0);
        assert_eq!(world.verdict(&[], 0), AWAIT);
        let before = world.board.changed();
        world.finish(&running, 1);
        assert!(world.board.changed() > before);
        assert_eq!(tries(&world.verdict(&[], 1)), Some((0, false)));
    }

    let mut slow = upstream(1, "openai", None, 1);
    slow.max_rps = 1.0;
    let world = World::new(vec![slow]);
    world.finish(&world.start(0, 0), 0);
    assert_eq!(world.verdict(&[], 0), wait(1));
}

#[test]
fn a_worse_tier_serves_only_while_the_better_cannot() {
    let mut spare = upstream(2, "spare", None, 1);
    spare.priority = 20;
    let world = World::new(vec![spare, upstream(1, "main", None, 1)]);
    let (decision, ticket) = world.ask(&[], 0);
    assert_eq!(decision.others, [(0, Why::LowerTier)]);
    world.fail(&ticket.expect("a ticket"), &limited(Some(10)), 0);
    world.finish(&world.start(0, 5), 5);
    assert_eq!(
        tries(&world.verdict(&[], 10)),
        Some((1, true)),
        "the better tier is tested as soon as it may be"
    );
}

#[test]
fn keys_that_cannot_be_used_say_why() {
    let one = Arc::new(upstream(1, "openai", None, 1));
    let ask = |state: KeyState| {
        let world =
            World::of(candidates(&[target(&one, "gpt")], &|key| (state.clone(), AccountId(key.0))));
        let (decision, _) = world.ask(&[], 0);
        (decision.verdict, decision.others)
    };
    let exhausted = Verdict::Exhausted { retry_at: None };
    assert_eq!(ask(KeyState::Waiting), (AWAIT, vec![(0, Why::WaitingForKey)]));
    assert_eq!(
        ask(KeyState::Missing("no".into())),
        (exhausted.clone(), vec![(0, Why::Missing("no".into()))])
    );
    assert_eq!(ask(KeyState::Disabled), (exhausted.clone(), vec![(0, Why::Disabled)]));
    assert_eq!(World::of(Vec::new()).verdict(&[], 0), exhausted);

    let mut bare = upstream(3, "bare", None, 0);
    assert_eq!(ready(&[target(&Arc::new(bare.clone()), "m")])[0].key, keyless(UpstreamId(3)));
    bare.auth = crate::config::settings::Auth::Bearer;
    let without = ready(&[target(&Arc::new(bare), "m")]);
    assert!(
        matches!(&without[0].key_state, KeyState::Missing(text) if text.contains("aiproxy key add bare"))
    );
}

#[test]
fn a_fresh_list_brings_a_missing_model_back() {
    let world = World::keys(1);
    world.fail(
        &world.start(0, 0),
        &said(FaultKind::ModelNotFound, 404, "model_not_found", None),
        0,
    );
    assert_eq!(world.verdict(&[], 1), wait(3_600));
    let why = world.ask(&[], 1).0.others;
    assert!(
        matches!(
            &why[..],
            [(0, Why::Cooling { scope: ScopeKind::KeyModel, class: Cool::ModelMissing, .. })]
        ),
        "{why:?}"
    );
    world.board.listed(UpstreamId(1), &|name| name == "other");
    assert_eq!(world.verdict(&[], 1), wait(3_600));
    world.board.listed(UpstreamId(1), &|name| name == "gpt");
    assert_eq!(tries(&world.verdict(&[], 1)), Some((0, false)));
}

#[test]
fn a_reload_keeps_what_stays_and_drops_what_is_gone() {
    let world = World::new(vec![upstream(1, "a", None, 1), upstream(2, "b", None, 0)]);
    let out = said(FaultKind::Quota, 402, "", None);
    let late = world.start(0, 0);
    world.fail(&world.start(0, 0), &out, 0);
    let keyless_ticket = world.start(1, 0);
    world.fail(&keyless_ticket, &out, 0);

    world.board.keep(&[UpstreamId(2)], &[]);

    assert_eq!(tries(&world.verdict(&[], 1)), Some((0, false)), "gone and back: clean");
    assert_eq!(
        world.board.key_view(keyless(UpstreamId(2)), at(1)).health.state,
        HealthState::Cooling
    );
    assert!(world.fail(&late, &out, 1).is_empty(), "an attempt of what is gone changes nothing");
    assert_eq!(tries(&world.verdict(&[], 1)), Some((0, false)));
}

#[test]
fn a_model_that_cannot_take_the_request_is_passed_over_while_another_can() {
    let mut spare = upstream(2, "spare", None, 1);
    spare.priority = 20;
    let mut world = World::new(vec![upstream(1, "main", None, 1), spare]);
    let unfit = Unfit::Context { needs: 9_000, holds: 8_192 };
    world.candidates[0].unfit = Some(unfit);

    let (decision, ticket) = world.ask(&[], 0);
    assert_eq!(*ticket.expect("a ticket").key_name, *"spare/k0");
    assert_eq!(decision.others, [(0, Why::Unfit(unfit))]);

    // Where the other refused for good, or neither can, it is tried all the same: what is known may
    // be wrong.
    let refused = world.tried(1, &said(FaultKind::BadRequest, 400, "", None));
    assert!(matches!(world.verdict(&[refused], 1), Verdict::Try { index: 0, .. }));
    world.candidates[1].unfit = Some(Unfit::Vision);
    assert!(matches!(world.verdict(&[], 1), Verdict::Try { index: 0, .. }));
}

#[test]
fn every_other_candidate_has_its_reason() {
    let world = World::new(vec![
        upstream(1, "a", None, 3),
        upstream(2, "b", None, 2),
        upstream(3, "c", None, 0),
    ]);
    let (decision, _) = world.ask(&[world.tried(0, &broken())], 0);
    let reasons: Vec<String> = decision.others.iter().map(|(_, why)| why.text(at(0))).collect();
    assert_eq!(reasons[0], "already failed in this request");
    assert_eq!(decision.others.len(), 5);
    // An upstream without keys is level with the others.
    assert!(
        decision.others.iter().all(|(_, why)| matches!(why, Why::FailedHere | Why::NotDrawn)),
        "{reasons:?}"
    );
}

#[test]
fn attempts_tokens_and_times_are_counted() {
    let world = World::keys(1);
    world.finish(&world.start(0, 0), 1);
    let running = world.start(0, 2);
    let view = world.board.key_view(KeyId(100), at(2));
    assert_eq!(
        (view.requests, view.tokens, view.running, world.board.running(UpstreamId(1))),
        (2, 10, 1, 1)
    );
    world.board.record(&running, End::Abandoned, at(3));
    let stats = world.board.stats(UpstreamId(1), at(3));
    assert_eq!(
        (stats.attempts, stats.errors, stats.ttft_p50),
        (1, 0, Some(Duration::from_millis(400)))
    );
}

mod model_check {
    use proptest::{
        prop_assert, prop_assert_eq, prop_oneof, proptest,
        strategy::{Just, Strategy as Generator},
    };

    use super::*;
    use crate::routing::fixture::cases;

    #[derive(Clone, Debug)]
    enum Step {
        Ask,
        /// Ends the attempt at this place among those under way, in this way.
        End(usize, usize),
        Pass(u64),
        Warm,
    }

    fn steps() -> impl Generator<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Ask),
            4 => (0_usize..8, 0_usize..11).prop_map(|(place, how)| Step::End(place, how)),
            2 => (0_u64..40).prop_map(Step::Pass),
            1 => Just(Step::Warm),
        ];
        proptest::collection::vec(step, 0..80)
    }

    fn outcomes() -> Vec<Outcome> {
        vec![
            limited(None),
            limited(Some(20)),
            broken(),
            refused(),
            said(FaultKind::Quota, 402, "", None),
            said(FaultKind::KeyRejected, 401, "", None),
            said(FaultKind::ModelNotFound, 404, "", None),
            said(FaultKind::BadRequest, 400, "", None),
        ]
    }

    fn end(world: &World, ticket: &Ticket, how: usize, now: u64) {
        match how {
            0 => world.finish(ticket, now),
            1 => drop(world.board.record(ticket, End::Abandoned, at(now))),
            2 => {
                world.board.record(ticket, End::Head2xx, at(now));
                world.board.record(ticket, End::Content, at(now));
                world.board.record(ticket, End::BrokeAfterContent(&broken()), at(now));
            }
            _ => drop(world.fail(ticket, &outcomes()[how - 3], now)),
        }
    }

    /// Two upstreams with two keys each, one of them disabled; a keyless one.
    fn world() -> World {
        let mut first = upstream(1, "a", None, 2);
        Arc::make_mut(&mut first.keys[1]).enabled = false;
        World::new(vec![first, upstream(2, "b", None, 2), upstream(3, "c", None, 0)])
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn nothing_disabled_rejected_or_blocked_is_ever_tried(steps in steps()) {
            let (world, mut now, mut running) = (world(), 0, Vec::<Ticket>::new());
            for step in steps {
                match step {
                    Step::Ask => {
                        let (decision, ticket) = world.ask(&[], now);
                        prop_assert_eq!(tries(&decision.verdict).is_some(), ticket.is_some());
                        let Some(ticket) = ticket else {
                            prop_assert_eq!(decision.others.len(), world.candidates.len());
                            continue;
                        };
                        prop_assert_eq!(decision.others.len(), world.candidates.len() - 1);
                        prop_assert!(ticket.key != KeyId(101), "disabled");
                        let before = world.board.key_view(ticket.key, at(now));
                        prop_assert!(!before.health.blocked, "{:?}", before);
                        prop_assert!(before.models.iter().all(|(_, view)| !view.blocked), "{:?}", before);
                        running.push(ticket);
                    }
                    Step::End(place, how) if !running.is_empty() => {
                        let ticket = running.remove(place % running.len());
                        end(&world, &ticket, how, now);
                    }
                    Step::End(..) => {}
                    Step::Pass(seconds) => now += seconds,
                    Step::Warm => world.board.warm(&ActScope::All),
                }
            }
            for ticket in running.drain(..) {
                world.board.record(&ticket, End::Abandoned, at(now));
            }
            let idle = [1, 2, 3].iter().all(|&id| world.board.running(UpstreamId(id)) == 0);
            prop_assert!(idle, "every attempt gave its place back");

            // A day later nothing but a rejection keeps anybody out.
            let day = now + 86_400;
            for candidate in &world.candidates {
                let question = Question::of(std::slice::from_ref(candidate));
                let verdict = world.board.decide_dry(&question, at(day)).verdict;
                let rejected = world.board.key_view(candidate.key, at(day)).health.state == HealthState::Rejected;
                let out = rejected || candidate.key_state == KeyState::Disabled;
                prop_assert_eq!(tries(&verdict).is_some(), !out, "{} {:?}", candidate.key_name, verdict);
            }
        }

        #[test]
        fn a_request_with_one_healthy_candidate_always_reaches_it(history in steps(), hows in proptest::collection::vec(3_usize..10, 8)) {
            let mut world = world();
            let (mut now, mut running) = (0, Vec::<Ticket>::new());
            for step in history {
                match step {
                    Step::Ask => running.extend(world.ask(&[], now).1),
                    Step::End(place, how) if !running.is_empty() => {
                        let ticket = running.remove(place % running.len());
                        end(&world, &ticket, how, now);
                    }
                    Step::End(..) | Step::Warm => {}
                    Step::Pass(seconds) => now += seconds,
                }
            }
            let mut last = upstream(9, "healthy", None, 1);
            last.priority = 99;
            world.candidates.extend(ready(&[target(&Arc::new(last), "gpt")]));
            let healthy = world.candidates.len() - 1;

            let (mut tried, mut hows) = (Vec::new(), hows.into_iter());
            loop {
                let (decision, ticket) = world.ask(&tried, now);
                let reached = tries(&decision.verdict);
                prop_assert!(reached.is_some(), "{:?}", decision);
                let (index, _) = reached.expect("just seen");
                if index == healthy {
                    break;
                }
                let how = hows.next().expect("no candidate is tried twice");
                tried.push(world.tried(index, &outcomes()[how - 3]));
                end(&world, &ticket.expect("a ticket"), how, now);
            }
        }

        #[test]
        fn there_is_never_more_than_one_probe_without_a_verdict(steps in steps()) {
            let (world, mut now, mut running) = (World::keys(1), 0, Vec::<Ticket>::new());
            for step in steps {
                match step {
                    Step::Ask => {
                        let Some(ticket) = world.ask(&[], now).1 else { continue };
                        let young = running.iter().filter(|other| other.probe && other.started + Duration::from_secs(5) > at(now)).count();
                        prop_assert!(!ticket.probe || young == 0, "{running:?}");
                        running.push(ticket);
                    }
                    Step::End(place, how) if !running.is_empty() => {
                        let ticket = running.remove(place % running.len());
                        end(&world, &ticket, how, now);
                        // A verdict of any attempt begins a new state; probes of the one before it
                        // are overtaken.
                        if how != 1 {
                            running.iter_mut().for_each(|other| other.probe = false);
                        }
                    }
                    Step::End(..) | Step::Warm => {}
                    Step::Pass(seconds) => now += seconds,
                }
            }
        }
    }
}
