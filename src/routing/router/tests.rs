//! Tests decisions and ends together: how earlier attempts affect a request.

mod bound;
mod probed;
mod promises;

use std::{sync::Arc, time::Duration};

use crate::routing::router::*;
use crate::{
    base::rng::ScriptedRng,
    config::settings::{KeyId, Upstream},
    events::{event::Severity, status_message::health::HealthMessage},
    ir::{
        fault::{Fault, FaultKind, TransportFault, TransportKind},
        reason::{failure::FailureReason, missing_secret::MissingSecret, span::Span},
        usage::Usage,
    },
    routing::{
        candidate::{
            AccountId, Candidate, KeyState, MissingCapability, build_candidates, keyless_id,
        },
        decision::{ChoiceReason, FailedAttempt, ScopeKind, SkipReason},
        outcome::{CooldownClass, classify_fault, classify_transport},
        test_support::{at, policy, ready_candidates, target, upstream},
    },
};

fn reply(kind: FaultKind, status: u16, code: &str, hint: Option<u64>) -> Outcome {
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
    classify_fault(&fault, hint.map(Duration::from_secs), true)
}

fn limited(hint: Option<u64>) -> Outcome {
    reply(FaultKind::RateLimited, 429, "rate_limit_exceeded", hint)
}

fn broken() -> Outcome {
    reply(FaultKind::Server, 500, "", None)
}

fn refused() -> Outcome {
    classify_transport(&TransportFault {
        kind: TransportKind::Connect,
        reason: FailureReason::text("connection refused (a:443)").into(),
        may_be_received: false,
    })
}

/// A router and its candidates.
struct RouterFixture {
    router: Router,
    candidates: Vec<Candidate>,
}

impl RouterFixture {
    fn new(upstreams: Vec<Upstream>) -> Self {
        let targets: Vec<_> =
            upstreams.into_iter().map(|upstream| target(&Arc::new(upstream), "gpt")).collect();
        Self::with_candidates(ready_candidates(&targets))
    }

    /// One upstream with `n` keys.
    fn with_keys(n: u32) -> Self {
        Self::new(vec![upstream(1, "openai", None, n)])
    }

    fn with_candidates(candidates: Vec<Candidate>) -> Self {
        Self { router: Router::new(policy()), candidates }
    }

    fn decide(&self, tried: &[FailedAttempt], now: u64) -> (Decision, Option<AttemptTicket>) {
        self.decide_large(tried, 100, now)
    }

    fn decide_large(
        &self,
        tried: &[FailedAttempt],
        estimate: u64,
        now: u64,
    ) -> (Decision, Option<AttemptTicket>) {
        let question = RouteQuery {
            failed_attempts: tried,
            input_estimate: estimate,
            ..RouteQuery::first_attempt(&self.candidates)
        };
        self.router.decide(&question, at(now), &mut ScriptedRng::new(&[0.0]))
    }

    fn preview_verdict(&self, tried: &[FailedAttempt], now: u64) -> Verdict {
        let question = RouteQuery {
            failed_attempts: tried,
            input_estimate: 100,
            ..RouteQuery::first_attempt(&self.candidates)
        };
        self.router.preview(&question, at(now)).verdict
    }

    /// Starts an attempt, which must use candidate `index`.
    #[track_caller]
    fn start_attempt(&self, index: usize, now: u64) -> AttemptTicket {
        let (decision, ticket) = self.decide(&[], now);
        assert!(
            matches!(decision.verdict, Verdict::Try { index: got, .. } if got == index),
            "{decision:?}"
        );
        ticket.expect("a ticket comes with every try")
    }

    fn fail_attempt(
        &self,
        ticket: &AttemptTicket,
        outcome: &Outcome,
        now: u64,
    ) -> Vec<HealthChange> {
        self.router.record(ticket, AttemptEnd::Failed(outcome), at(now)).changes
    }

    fn finish_attempt(&self, ticket: &AttemptTicket, now: u64) -> RecordedEnd {
        self.router.record(
            ticket,
            AttemptEnd::Finished {
                ttft: Some(Duration::from_millis(400)),
                usage: Some(Usage { input: 6, output: 4, ..Usage::default() }),
            },
            at(now),
        )
    }

    fn failed_attempt(&self, index: usize, outcome: &Outcome) -> FailedAttempt {
        let candidate = &self.candidates[index];
        FailedAttempt {
            key: candidate.key,
            upstream: candidate.upstream(),
            model: Arc::clone(&candidate.target.model),
            may_recover: outcome.may_recover(),
            upstream_failed: outcome.blames_upstream(),
            upstream_refuses: false,
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

const AWAIT_PROBE: Verdict = Verdict::Wait { until: None };

#[test]
fn rate_limit_cools_the_key_for_that_model_only() {
    let mut world = RouterFixture::with_keys(1);
    let other = ready_candidates(&[target(&world.candidates[0].target.upstream, "other")]);
    let changes = world.fail_attempt(&world.start_attempt(0, 0), &limited(Some(30)), 0);

    assert_eq!(changes.len(), 1);
    assert_eq!(*changes[0].message.subject(), *"openai/k0");
    assert_eq!(
        changes[0].message.to_string(),
        "openai/k0 cools for 30s: 429 rate_limit_exceeded for gpt"
    );
    assert_eq!(world.preview_verdict(&[], 1), wait(30));
    let view = world.router.key_view(KeyId(100), at(1));
    assert_eq!(view.health.state, HealthState::Ok);
    assert_eq!(
        (&*view.models[0].0, view.models[0].1.state, view.models[0].1.from_provider),
        ("gpt", HealthState::Cooling, true)
    );

    world.candidates = other;
    assert_eq!(tries(&world.preview_verdict(&[], 1)), Some((0, false)));
}

#[test]
fn requests_use_the_other_key_after_a_429() {
    let world = RouterFixture::with_keys(2);
    world.fail_attempt(&world.start_attempt(0, 0), &limited(Some(30)), 0);
    for now in 0..20 {
        world.finish_attempt(&world.start_attempt(1, now), now);
    }
    assert_eq!(
        tries(&world.preview_verdict(&[], 30)).map(|(index, _)| index),
        Some(0),
        "and comes back after thirty seconds"
    );
}

#[test]
fn account_without_credit_excludes_all_its_keys_only() {
    let upstreams = [Arc::new(upstream(1, "openai", None, 3))];
    let account = |key: KeyId| AccountId(u32::from(key.0 == 102));
    let world =
        RouterFixture::with_candidates(build_candidates(&[target(&upstreams[0], "gpt")], &|key| {
            (KeyState::Ready, account(key))
        }));
    let out = reply(FaultKind::Quota, 429, "insufficient_quota", None);

    let changes = world.fail_attempt(&world.start_attempt(0, 0), &out, 0);

    assert_eq!(
        changes[0].message.to_string(),
        "openai/k0 its account cools for 60m00s: 429 insufficient_quota"
    );
    let ticket = world.start_attempt(2, 1);
    world.finish_attempt(&ticket, 2);
    world.router.set_accounts([(KeyId(101), AccountId(0))]);
    assert_eq!(world.router.key_view(KeyId(101), at(2)).health.state, HealthState::Cooling);
    assert_eq!(world.router.key_view(KeyId(102), at(2)).health.state, HealthState::Ok);
}

#[test]
fn one_500_on_the_only_key_is_not_an_outage() {
    let world = RouterFixture::with_keys(1);
    world.fail_attempt(&world.start_attempt(0, 0), &broken(), 0);

    let (decision, ticket) = world.decide(&[], 1);
    assert_eq!(
        decision.verdict,
        Verdict::Try { index: 0, reason: ChoiceReason::LeastSuspect, probe: true }
    );
    assert_eq!(world.preview_verdict(&[], 2), AWAIT_PROBE, "one at a time");
    assert!(
        tries(&world.preview_verdict(&[], 6)).is_some(),
        "after five seconds without a verdict another may go"
    );

    world.router.record(&ticket.expect("a ticket"), AttemptEnd::Head2xx, at(3));
    assert_eq!(tries(&world.preview_verdict(&[], 3)), Some((0, false)));
}

#[test]
fn key_is_suspect_and_retryable_after_a_429_without_a_hint() {
    let world = RouterFixture::with_keys(1);
    let outcome = limited(None);
    world.fail_attempt(&world.start_attempt(0, 0), &outcome, 0);
    let tried = [world.failed_attempt(0, &outcome)];
    assert_eq!(world.preview_verdict(&tried, 0), Verdict::RetrySame { index: 0 });
    assert_eq!(tries(&world.preview_verdict(&[], 0)), Some((0, true)));
}

#[test]
fn permanently_failed_candidate_is_not_waited_for_but_its_end_is_reported() {
    let world = RouterFixture::with_keys(1);
    let outcome = reply(FaultKind::Quota, 402, "", None);
    world.fail_attempt(&world.start_attempt(0, 0), &outcome, 0);
    assert_eq!(
        world.preview_verdict(&[world.failed_attempt(0, &outcome)], 0),
        Verdict::Exhausted { retry_at: Some(at(3_600)) }
    );

    let world = RouterFixture::with_keys(1);
    let outcome = limited(Some(2));
    world.fail_attempt(&world.start_attempt(0, 0), &outcome, 0);
    assert_eq!(
        world.preview_verdict(&[world.failed_attempt(0, &outcome)], 0),
        wait(2),
        "a hint is waited for"
    );
}

#[test]
fn two_requests_cannot_both_be_the_probe() {
    let world = RouterFixture::with_keys(2);
    world.fail_attempt(&world.start_attempt(0, 0), &limited(Some(10)), 0);
    world.finish_attempt(&world.start_attempt(1, 1), 2);

    let (first, probe) = world.decide(&[], 10);
    let (second, _) = world.decide(&[], 10);

    assert_eq!(first.verdict, Verdict::Try { index: 0, reason: ChoiceReason::Probe, probe: true });
    assert_eq!(tries(&second.verdict), Some((1, false)));
    assert_eq!(second.skipped, [(0, SkipReason::Probing)]);
    world.router.record(&probe.expect("a ticket"), AttemptEnd::Abandoned, at(11));
    let (third, _) = world.decide(&[], 11);
    assert_eq!(
        tries(&third.verdict),
        Some((0, true)),
        "a probe without a verdict releases its slot"
    );
}

#[test]
fn probe_without_a_verdict_does_not_change_the_cooldown() {
    let world = RouterFixture::with_keys(1);
    let ticket = world.start_attempt(0, 0);
    world.fail_attempt(&ticket, &limited(None), 0);
    let until = world.router.key_view(KeyId(100), at(0)).models[0].1.until;
    assert!(until.is_some(), "it cools");

    // There is no other candidate: the suspect is tried all the same, and its client disconnects.
    let (decision, ticket) = world.decide(&[], 1);
    assert_eq!(tries(&decision.verdict), Some((0, true)));
    world.router.record(&ticket.expect("a ticket"), AttemptEnd::Abandoned, at(1));

    assert_eq!(world.router.key_view(KeyId(100), at(1)).models[0].1.until, until);
}

#[test]
fn large_requests_do_not_probe_while_another_is_ready() {
    let world = RouterFixture::with_keys(2);
    world.fail_attempt(&world.start_attempt(0, 0), &limited(Some(10)), 0);
    let (decision, ticket) = world.decide_large(&[], 40_000, 10);
    assert_eq!(tries(&decision.verdict), Some((1, false)));
    world.fail_attempt(&ticket.expect("a ticket"), &limited(Some(60)), 10);
    assert_eq!(
        tries(&world.decide_large(&[], 40_000, 11).0.verdict),
        Some((0, true)),
        "unless there is no other"
    );
}

#[test]
fn twenty_parallel_failures_are_one_strike() {
    let world = RouterFixture::with_keys(1);
    let tickets: Vec<AttemptTicket> = (0..20).map(|_| world.start_attempt(0, 0)).collect();
    for ticket in &tickets {
        world.fail_attempt(ticket, &refused(), 1);
    }
    assert_eq!(world.router.upstream_view(UpstreamId(1), at(1)).state, HealthState::Ok);
    assert_eq!(tries(&world.preview_verdict(&[], 1)), Some((0, false)));
}

#[test]
fn upstream_fault_prefers_other_upstreams_over_its_other_keys() {
    let world = RouterFixture::new(vec![
        upstream(1, "a", None, 3),
        upstream(2, "b", None, 1),
        Upstream { priority: 20, ..upstream(3, "c", None, 1) },
    ]);
    let mut tried = Vec::new();
    for (outcome, want) in [(broken(), 3), (limited(Some(60)), 1), (broken(), 2), (broken(), 4)] {
        let from =
            tries(&world.preview_verdict(&tried, 0)).map(|(index, _)| index).expect("somebody");
        tried.push(world.failed_attempt(from, &outcome));
        assert_eq!(
            tries(&world.preview_verdict(&tried, 0)).map(|(index, _)| index),
            Some(want),
            "{tried:?}"
        );
    }
}

#[test]
fn suspect_is_preferred_over_other_keys_of_faulty_upstreams() {
    let world = RouterFixture::new(vec![upstream(1, "a", None, 2), upstream(2, "b", None, 2)]);
    let tried = [world.failed_attempt(0, &broken())];
    for now in 0..3 {
        let (_, ticket) = world.decide(&tried, now);
        let ticket = ticket.expect("b");
        assert_eq!(*ticket.upstream_name, *"b");
        world.fail_attempt(&ticket, &refused(), now);
    }
    assert_eq!(
        tries(&world.preview_verdict(&tried, 4)),
        Some((2, true)),
        "b cools, but a has just failed"
    );
    assert_eq!(
        tries(&world.preview_verdict(&[], 4)),
        Some((0, false)),
        "who has not asked a yet asks it"
    );
    let both = [world.failed_attempt(0, &broken()), world.failed_attempt(2, &refused())];
    assert_eq!(tries(&world.preview_verdict(&both, 4)), Some((1, false)), "then their other keys");
}

#[test]
fn hedge_uses_only_ready_candidates() {
    let world = RouterFixture::new(vec![upstream(1, "a", None, 1), upstream(2, "b", None, 1)]);
    let ready = |tried: &[FailedAttempt], now: u64| {
        let question =
            RouteQuery { failed_attempts: tried, ..RouteQuery::first_attempt(&world.candidates) };
        world.router.decide_ready_only(&question, None, at(now), &mut ScriptedRng::new(&[0.0])).map(
            |(index, ticket)| {
                world.router.record(&ticket, AttemptEnd::Abandoned, at(now));
                index
            },
        )
    };
    let first = [world.failed_attempt(0, &broken())];
    assert_eq!(ready(&first, 0), Some(1));
    let (_, ticket) = world.decide(&first, 0);
    world.fail_attempt(&ticket.expect("b"), &limited(Some(30)), 0);
    assert_eq!(ready(&first, 1), None, "nobody is waited for");
    assert_eq!(ready(&first, 31), None, "and nobody is tested");
    world.router.warm(&Scope::All);
    assert_eq!(ready(&first, 31), Some(1));
}

#[test]
fn three_strikes_open_an_upstream_and_another_serves() {
    let world = RouterFixture::new(vec![upstream(1, "a", None, 1), upstream(2, "b", None, 1)]);
    for now in 0..2 {
        assert!(world.fail_attempt(&world.start_attempt(0, now), &refused(), now).is_empty());
    }
    let changes = world.fail_attempt(&world.start_attempt(0, 2), &refused(), 2);
    assert_eq!(
        changes,
        [HealthChange {
            message: HealthMessage::Cools {
                name: "a".into(),
                account: false,
                span: Span(Duration::from_secs(15)),
                cause: Arc::clone(&refused().cause),
                model: None,
            },
            level: Severity::Warn
        }]
    );

    let ticket = world.start_attempt(1, 3);

    let view = world.router.upstream_view(UpstreamId(1), at(3));
    assert_eq!((view.state, view.until), (HealthState::Open, Some(at(17))));
    world.finish_attempt(&ticket, 4);
    let probe = world.start_attempt(0, 17);
    assert!(probe.probe);
    world.router.record(&probe, AttemptEnd::Head2xx, at(18));
    assert_eq!(
        world.router.upstream_view(UpstreamId(1), at(18)).state,
        HealthState::Probing,
        "a head is not content"
    );
    let recorded = world.router.record(&probe, AttemptEnd::Content, at(18));
    assert!(recorded.capacity_changed, "slow start lets more requests in");
    assert_eq!(
        recorded.changes[0].message,
        HealthMessage::Works { name: "a".into(), account: false, model: None }
    );
    assert_eq!(world.router.upstream_view(UpstreamId(1), at(18)).state, HealthState::Ok);
}

#[test]
fn refusal_shows_that_the_upstream_works() {
    let world = RouterFixture::with_keys(2);
    for now in 0..2 {
        world.fail_attempt(&world.start_attempt(now as usize % 2, now), &refused(), now);
    }
    for outcome in
        [reply(FaultKind::BadRequest, 400, "", None), reply(FaultKind::Forbidden, 403, "", None)]
    {
        let (_, ticket) = world.decide(&[], 3);
        world.fail_attempt(&ticket.expect("a ticket"), &outcome, 3);
    }
    let (_, ticket) = world.decide(&[], 4);
    world.fail_attempt(&ticket.expect("a ticket"), &refused(), 4);
    assert_eq!(
        world.router.upstream_view(UpstreamId(1), at(4)).state,
        HealthState::Ok,
        "the strikes began anew"
    );
}

#[test]
fn bad_request_cools_nothing() {
    let world = RouterFixture::with_keys(1);
    for _ in 0..10 {
        assert!(
            world
                .fail_attempt(
                    &world.start_attempt(0, 0),
                    &reply(FaultKind::BadRequest, 400, "", None),
                    0
                )
                .is_empty()
        );
    }
    assert_eq!(world.router.stats(UpstreamId(1), at(0)).errors, 0);
    assert_eq!(world.router.key_view(KeyId(100), at(0)).running, 0);
}

#[test]
fn stream_broken_after_content_is_a_strike_for_the_upstream_only() {
    let world = RouterFixture::with_keys(1);
    let lost = classify_transport(&TransportFault {
        kind: TransportKind::BodyBroken,
        reason: FailureReason::text("cut").into(),
        may_be_received: true,
    });
    let breaks = |now| {
        let ticket = world.start_attempt(0, now);
        world.router.record(&ticket, AttemptEnd::Content, at(now));
        world.router.record(&ticket, AttemptEnd::BrokeAfterContent(&lost), at(now));
        world.router.upstream_view(UpstreamId(1), at(now)).state
    };
    assert_eq!([breaks(0), breaks(1)], [HealthState::Ok; 2]);
    world.router.record(
        &world.start_attempt(0, 1),
        AttemptEnd::Finished { ttft: None, usage: None },
        at(1),
    );
    assert_eq!(
        [breaks(2), breaks(3), breaks(4)],
        [HealthState::Ok, HealthState::Ok, HealthState::Open]
    );
    assert_eq!(
        breaks(1_000),
        HealthState::Open,
        "one that speaks as a probe and breaks again is not back"
    );
    assert_eq!(world.router.key_view(KeyId(100), at(4)).health.state, HealthState::Ok);
}

#[test]
fn rejected_key_is_not_probed_by_traffic() {
    let world = RouterFixture::with_keys(1);
    let rejected = reply(FaultKind::KeyRejected, 401, "invalid_api_key", None);
    let (early, late) = (world.start_attempt(0, 0), world.start_attempt(0, 0));
    let changes = world.fail_attempt(&early, &rejected, 0);
    assert_eq!((changes[0].level, &*changes[0].message.subject()), (Severity::Error, "openai/k0"));
    assert_eq!(world.preview_verdict(&[], 1_000_000), Verdict::Exhausted { retry_at: None });
    let (decision, _) = world.decide(&[], 1);
    assert_eq!(
        decision.skipped,
        [(
            0,
            SkipReason::Rejected {
                cause: FailureReason::Refused {
                    status: 401,
                    code: Some("invalid_api_key".into()),
                    model: None
                }
                .into()
            }
        )]
    );

    assert_eq!(world.router.rejected_keys_due(at(599)), []);
    assert_eq!(world.router.rejected_keys_due(at(600)), [KeyId(100)]);
    assert_eq!(world.router.rejected_keys_due(at(601)), [], "the next check is later");

    world.router.reset_key(KeyId(100));
    world.fail_attempt(&late, &rejected, 602);
    assert_eq!(
        tries(&world.preview_verdict(&[], 602)),
        Some((0, false)),
        "the old secret's failure does not affect the new one"
    );
}

#[test]
fn free_check_restores_a_rejected_key() {
    let world = RouterFixture::with_keys(1);
    world.fail_attempt(
        &world.start_attempt(0, 0),
        &reply(FaultKind::KeyRejected, 401, "", None),
        0,
    );
    world.router.clear_rejected(KeyId(100));
    assert_eq!(tries(&world.preview_verdict(&[], 1)), Some((0, false)));
}

#[test]
fn cooldown_ends_at_its_cap_and_the_next_request_probes() {
    let world = RouterFixture::with_keys(1);
    let days = limited(Some(156 * 3_600));
    world.fail_attempt(&world.start_attempt(0, 0), &days, 0);
    assert!(
        !matches!(world.preview_verdict(&[], 3_599), Verdict::Try { .. }),
        "an hour is what a vendor gets at most"
    );

    let (decision, ticket) = world.decide(&[], 3_600);
    assert_eq!(
        tries(&decision.verdict),
        Some((0, true)),
        "one request goes through despite the provider"
    );
    world.finish_attempt(&ticket.expect("a ticket"), 3_601);
    assert_eq!(
        tries(&world.preview_verdict(&[], 3_602)),
        Some((0, false)),
        "and it is as if nothing had been"
    );
    for _ in 0..20 {
        world.fail_attempt(&world.start_attempt(0, 4_000), &limited(None), 4_000);
    }
    assert!(
        matches!(world.preview_verdict(&[], 4_000 + 601), Verdict::Try { .. }),
        "doubling has its ceiling"
    );
}

#[test]
fn warming_clears_all_narrower_scopes() {
    let world = RouterFixture::with_keys(1);
    for (scope, outcome) in [
        (Scope::Key(KeyId(100)), broken()),
        (Scope::Key(KeyId(100)), limited(Some(60))),
        (Scope::Key(KeyId(100)), reply(FaultKind::Quota, 402, "", None)),
        (Scope::KeyModel(KeyId(100), "gpt".into()), limited(Some(60))),
        (Scope::Upstream(UpstreamId(1)), reply(FaultKind::KeyRejected, 401, "", None)),
        (Scope::All, reply(FaultKind::Quota, 402, "", None)),
    ] {
        world.fail_attempt(&world.start_attempt(0, 0), &outcome, 0);
        world.router.warm(&scope);
        assert_eq!(
            tries(&world.preview_verdict(&[], 0)),
            Some((0, false)),
            "{scope:?} {}",
            outcome.cause
        );
    }
}

#[test]
fn manual_cooldown_lasts_until_its_end() {
    let world = RouterFixture::with_keys(2);
    let running = world.start_attempt(0, 0);
    world.router.cool(&Scope::Key(KeyId(100)), Duration::from_secs(600), at(0));
    world.finish_attempt(&running, 1);
    world.finish_attempt(&world.start_attempt(1, 1), 2);
    let view = world.router.key_view(KeyId(100), at(2)).health;
    assert_eq!(
        (view.state, view.until, view.cause.as_deref()),
        (HealthState::Cooling, Some(at(600)), Some(&FailureReason::CooledByHand))
    );
    assert_eq!(tries(&world.preview_verdict(&[], 600)).map(|(index, _)| index), Some(0));
}

#[test]
fn limits_are_enforced_and_expire() {
    let mut limited = upstream(1, "openai", None, 1);
    Arc::make_mut(&mut limited.keys[0]).rpm = 2;
    let world = RouterFixture::new(vec![limited]);
    for now in [0, 10] {
        world.finish_attempt(&world.start_attempt(0, now), now);
    }
    assert_eq!(world.preview_verdict(&[], 20), wait(60));
    assert_eq!(tries(&world.preview_verdict(&[], 60)), Some((0, false)));

    for (key, upstream_wide) in [(1, 0), (0, 1)] {
        let mut busy = upstream(1, "openai", None, 1);
        Arc::make_mut(&mut busy.keys[0]).max_concurrency = key;
        busy.max_concurrency = upstream_wide;
        let world = RouterFixture::new(vec![busy]);
        let running = world.start_attempt(0, 0);
        assert_eq!(world.preview_verdict(&[], 0), AWAIT_PROBE);
        let recorded = world.finish_attempt(&running, 1);
        assert!(recorded.capacity_changed, "waiters are woken");
        assert_eq!(tries(&world.preview_verdict(&[], 1)), Some((0, false)));
    }

    let mut slow = upstream(1, "openai", None, 1);
    slow.max_rps = 1.0;
    let world = RouterFixture::new(vec![slow]);
    world.finish_attempt(&world.start_attempt(0, 0), 0);
    assert_eq!(world.preview_verdict(&[], 0), wait(1));
}

#[test]
fn lower_tier_serves_only_while_the_higher_cannot() {
    let mut spare = upstream(2, "spare", None, 1);
    spare.priority = 20;
    let world = RouterFixture::new(vec![spare, upstream(1, "main", None, 1)]);
    let (decision, ticket) = world.decide(&[], 0);
    assert_eq!(decision.skipped, [(0, SkipReason::LowerTier)]);
    world.fail_attempt(&ticket.expect("a ticket"), &limited(Some(10)), 0);
    world.finish_attempt(&world.start_attempt(0, 5), 5);
    assert_eq!(
        tries(&world.preview_verdict(&[], 10)),
        Some((1, true)),
        "the better tier is tested as soon as it may be"
    );
}

#[test]
fn unusable_keys_have_a_reason() {
    let one = Arc::new(upstream(1, "openai", None, 1));
    let ask = |state: KeyState| {
        let world =
            RouterFixture::with_candidates(build_candidates(&[target(&one, "gpt")], &|key| {
                (state.clone(), AccountId(key.0))
            }));
        let (decision, _) = world.decide(&[], 0);
        (decision.verdict, decision.skipped)
    };
    let exhausted = Verdict::Exhausted { retry_at: None };
    assert_eq!(ask(KeyState::Waiting), (AWAIT_PROBE, vec![(0, SkipReason::WaitingForKey)]));
    assert_eq!(
        ask(KeyState::Missing(MissingSecret::Unsendable.into())),
        (
            exhausted.clone(),
            vec![(0, SkipReason::KeyMissing { secret: MissingSecret::Unsendable.into() })]
        )
    );
    assert_eq!(ask(KeyState::Disabled), (exhausted.clone(), vec![(0, SkipReason::Disabled)]));
    assert_eq!(RouterFixture::with_candidates(Vec::new()).preview_verdict(&[], 0), exhausted);

    let mut bare = upstream(3, "bare", None, 0);
    assert_eq!(
        ready_candidates(&[target(&Arc::new(bare.clone()), "m")])[0].key,
        keyless_id(UpstreamId(3))
    );
    bare.auth = crate::config::settings::Auth::Bearer;
    let without = ready_candidates(&[target(&Arc::new(bare), "m")]);
    assert!(
        matches!(&without[0].key_state, KeyState::Missing(why) if matches!(&**why, MissingSecret::NoKey { upstream } if &**upstream == "bare"))
    );
}

#[test]
fn new_model_list_restores_a_missing_model() {
    let world = RouterFixture::with_keys(1);
    world.fail_attempt(
        &world.start_attempt(0, 0),
        &reply(FaultKind::ModelNotFound, 404, "model_not_found", None),
        0,
    );
    assert_eq!(world.preview_verdict(&[], 1), wait(3_600));
    let why = world.decide(&[], 1).0.skipped;
    assert!(
        matches!(
            &why[..],
            [(
                0,
                SkipReason::Cooling {
                    scope: ScopeKind::KeyModel,
                    class: CooldownClass::ModelMissing,
                    ..
                }
            )]
        ),
        "{why:?}"
    );
    world.router.record_model_list(UpstreamId(1), &|name| name == "other");
    assert_eq!(world.preview_verdict(&[], 1), wait(3_600));
    world.router.record_model_list(UpstreamId(1), &|name| name == "gpt");
    assert_eq!(tries(&world.preview_verdict(&[], 1)), Some((0, false)));
}

#[test]
fn reload_preserves_remaining_upstreams_and_drops_removed_ones() {
    let world = RouterFixture::new(vec![upstream(1, "a", None, 1), upstream(2, "b", None, 0)]);
    let out = reply(FaultKind::Quota, 402, "", None);
    let late = world.start_attempt(0, 0);
    world.fail_attempt(&world.start_attempt(0, 0), &out, 0);
    let keyless_ticket = world.start_attempt(1, 0);
    world.fail_attempt(&keyless_ticket, &out, 0);

    world.router.retain(&[UpstreamId(2)], &[]);

    assert_eq!(tries(&world.preview_verdict(&[], 1)), Some((0, false)), "gone and back: clean");
    assert_eq!(
        world.router.key_view(keyless_id(UpstreamId(2)), at(1)).health.state,
        HealthState::Cooling
    );
    assert!(
        world.fail_attempt(&late, &out, 1).is_empty(),
        "an attempt of what is gone changes nothing"
    );
    assert_eq!(tries(&world.preview_verdict(&[], 1)), Some((0, false)));
}

#[test]
fn model_unable_to_serve_the_request_is_skipped_for_another() {
    let mut spare = upstream(2, "spare", None, 1);
    spare.priority = 20;
    let mut world = RouterFixture::new(vec![upstream(1, "main", None, 1), spare]);
    let missing = MissingCapability::Context { required: 9_000, limit: 8_192 };
    world.candidates[0].missing_capability = Some(missing);

    let (decision, ticket) = world.decide(&[], 0);
    assert_eq!(*ticket.expect("a ticket").key_name, *"spare/k0");
    assert_eq!(decision.skipped, [(0, SkipReason::MissingCapability { missing })]);

    // If the other candidate refused for good, or neither is capable, this one is tried all the
    // same: the known capabilities may be wrong.
    let refused = world.failed_attempt(1, &reply(FaultKind::BadRequest, 400, "", None));
    assert!(matches!(world.preview_verdict(&[refused], 1), Verdict::Try { index: 0, .. }));
    world.candidates[1].missing_capability = Some(MissingCapability::Vision);
    assert!(matches!(world.preview_verdict(&[], 1), Verdict::Try { index: 0, .. }));
}

#[test]
fn every_skipped_candidate_has_a_reason() {
    let world = RouterFixture::new(vec![
        upstream(1, "a", None, 3),
        upstream(2, "b", None, 2),
        upstream(3, "c", None, 0),
    ]);
    let (decision, _) = world.decide(&[world.failed_attempt(0, &broken())], 0);
    assert_eq!(decision.skipped[0].1, SkipReason::AlreadyFailed);
    assert_eq!(decision.skipped.len(), 5);
    // An upstream without keys has the same priority as the others.
    assert!(
        decision
            .skipped
            .iter()
            .all(|(_, why)| matches!(why, SkipReason::AlreadyFailed | SkipReason::NotPicked)),
        "{decision:?}"
    );
}

#[test]
fn attempts_tokens_and_times_are_counted() {
    let world = RouterFixture::with_keys(1);
    world.finish_attempt(&world.start_attempt(0, 0), 1);
    let running = world.start_attempt(0, 2);
    let view = world.router.key_view(KeyId(100), at(2));
    assert_eq!(
        (view.requests, view.tokens, view.running, world.router.running(UpstreamId(1))),
        (2, 10, 1, 1)
    );
    world.router.record(&running, AttemptEnd::Abandoned, at(3));
    let stats = world.router.stats(UpstreamId(1), at(3));
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
    use crate::routing::test_support::cases;

    #[derive(Clone, Debug)]
    enum ModelStep {
        Decide,
        /// Ends the running attempt with this index in this way.
        EndAttempt(usize, usize),
        AdvanceTime(u64),
        Warm,
    }

    fn steps() -> impl Generator<Value = Vec<ModelStep>> {
        let step = prop_oneof![
            4 => Just(ModelStep::Decide),
            4 => (0_usize..8, 0_usize..11).prop_map(|(place, how)| ModelStep::EndAttempt(place, how)),
            2 => (0_u64..40).prop_map(ModelStep::AdvanceTime),
            1 => Just(ModelStep::Warm),
        ];
        proptest::collection::vec(step, 0..80)
    }

    fn outcomes() -> Vec<Outcome> {
        vec![
            limited(None),
            limited(Some(20)),
            broken(),
            refused(),
            reply(FaultKind::Quota, 402, "", None),
            reply(FaultKind::KeyRejected, 401, "", None),
            reply(FaultKind::ModelNotFound, 404, "", None),
            reply(FaultKind::BadRequest, 400, "", None),
        ]
    }

    fn end(world: &RouterFixture, ticket: &AttemptTicket, how: usize, now: u64) {
        match how {
            0 => drop(world.finish_attempt(ticket, now)),
            1 => drop(world.router.record(ticket, AttemptEnd::Abandoned, at(now))),
            2 => {
                world.router.record(ticket, AttemptEnd::Head2xx, at(now));
                world.router.record(ticket, AttemptEnd::Content, at(now));
                world.router.record(ticket, AttemptEnd::BrokeAfterContent(&broken()), at(now));
            }
            _ => drop(world.fail_attempt(ticket, &outcomes()[how - 3], now)),
        }
    }

    /// Two upstreams with two keys each, one of them disabled; and a keyless one.
    fn world() -> RouterFixture {
        let mut first = upstream(1, "a", None, 2);
        Arc::make_mut(&mut first.keys[1]).enabled = false;
        RouterFixture::new(vec![first, upstream(2, "b", None, 2), upstream(3, "c", None, 0)])
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn nothing_disabled_rejected_or_blocked_is_ever_tried(steps in steps()) {
            let (world, mut now, mut running) = (world(), 0, Vec::<AttemptTicket>::new());
            for step in steps {
                match step {
                    ModelStep::Decide => {
                        let (decision, ticket) = world.decide(&[], now);
                        prop_assert_eq!(tries(&decision.verdict).is_some(), ticket.is_some());
                        let Some(ticket) = ticket else {
                            prop_assert_eq!(decision.skipped.len(), world.candidates.len());
                            continue;
                        };
                        prop_assert_eq!(decision.skipped.len(), world.candidates.len() - 1);
                        prop_assert!(ticket.key != KeyId(101), "disabled");
                        let before = world.router.key_view(ticket.key, at(now));
                        prop_assert!(!before.health.hard_block, "{:?}", before);
                        prop_assert!(before.models.iter().all(|(_, view)| !view.hard_block), "{:?}", before);
                        running.push(ticket);
                    }
                    ModelStep::EndAttempt(place, how) if !running.is_empty() => {
                        let ticket = running.remove(place % running.len());
                        end(&world, &ticket, how, now);
                    }
                    ModelStep::EndAttempt(..) => {}
                    ModelStep::AdvanceTime(seconds) => now += seconds,
                    ModelStep::Warm => world.router.warm(&Scope::All),
                }
            }
            for ticket in running.drain(..) {
                world.router.record(&ticket, AttemptEnd::Abandoned, at(now));
            }
            let idle = [1, 2, 3].iter().all(|&id| world.router.running(UpstreamId(id)) == 0);
            prop_assert!(idle, "every attempt gave its place back");

            // A day later only a rejection still excludes a key.
            let day = now + 86_400;
            for candidate in &world.candidates {
                let question = RouteQuery::first_attempt(std::slice::from_ref(candidate));
                let verdict = world.router.preview(&question, at(day)).verdict;
                let rejected = world.router.key_view(candidate.key, at(day)).health.state == HealthState::Rejected;
                let out = rejected || candidate.key_state == KeyState::Disabled;
                prop_assert_eq!(tries(&verdict).is_some(), !out, "{} {:?}", candidate.key_name, verdict);
            }
        }

        #[test]
        fn request_with_one_healthy_candidate_always_reaches_it(history in steps(), hows in proptest::collection::vec(3_usize..10, 8)) {
            let mut world = world();
            let (mut now, mut running) = (0, Vec::<AttemptTicket>::new());
            for step in history {
                match step {
                    ModelStep::Decide => running.extend(world.decide(&[], now).1),
                    ModelStep::EndAttempt(place, how) if !running.is_empty() => {
                        let ticket = running.remove(place % running.len());
                        end(&world, &ticket, how, now);
                    }
                    ModelStep::EndAttempt(..) | ModelStep::Warm => {}
                    ModelStep::AdvanceTime(seconds) => now += seconds,
                }
            }
            let mut last = upstream(9, "healthy", None, 1);
            last.priority = 99;
            world.candidates.extend(ready_candidates(&[target(&Arc::new(last), "gpt")]));
            let healthy = world.candidates.len() - 1;

            let (mut tried, mut hows) = (Vec::new(), hows.into_iter());
            loop {
                let (decision, ticket) = world.decide(&tried, now);
                let reached = tries(&decision.verdict);
                prop_assert!(reached.is_some(), "{:?}", decision);
                let (index, _) = reached.expect("just seen");
                if index == healthy {
                    break;
                }
                let how = hows.next().expect("no candidate is tried twice");
                tried.push(world.failed_attempt(index, &outcomes()[how - 3]));
                end(&world, &ticket.expect("a ticket"), how, now);
            }
        }

        #[test]
        fn there_is_never_more_than_one_probe_without_a_verdict(steps in steps()) {
            let (world, mut now, mut running) = (RouterFixture::with_keys(1), 0, Vec::<AttemptTicket>::new());
            for step in steps {
                match step {
                    ModelStep::Decide => {
                        let Some(ticket) = world.decide(&[], now).1 else { continue };
                        let young = running.iter().filter(|other| other.probe && other.started + Duration::from_secs(5) > at(now)).count();
                        prop_assert!(!ticket.probe || young == 0, "{running:?}");
                        running.push(ticket);
                    }
                    ModelStep::EndAttempt(place, how) if !running.is_empty() => {
                        let ticket = running.remove(place % running.len());
                        end(&world, &ticket, how, now);
                        // A result of any attempt begins a new state, which replaces the probes of
                        // the previous one.
                        if how != 1 {
                            running.iter_mut().for_each(|other| other.probe = false);
                        }
                    }
                    ModelStep::EndAttempt(..) | ModelStep::Warm => {}
                    ModelStep::AdvanceTime(seconds) => now += seconds,
                }
            }
        }
    }
}
