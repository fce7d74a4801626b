//! Tests aiproxy's own probes, which run alongside traffic.

use crate::routing::router::tests::*;

fn probe_cause() -> Arc<FailureReason> {
    let cause = FailureReason::Refused { status: 503, code: None, model: None }.into();
    FailureReason::Probe { path: "/models".into(), cause }.into()
}

/// Runs a probe that begins and ends now.
fn probe(world: &RouterFixture, fails: bool, now: u64) -> Vec<HealthChange> {
    let cause = probe_cause();
    let id = world.router.begin_probe();
    world.router.record_probe(
        &world.candidates[0].target.upstream,
        id,
        if fails { Err(&cause) } else { Ok(()) },
        at(now),
    )
}

fn state(world: &RouterFixture, now: u64) -> HealthState {
    world.router.upstream_view(UpstreamId(1), at(now)).state
}

#[test]
fn failed_probes_open_an_upstream_and_success_admits_a_request() {
    let world = RouterFixture::with_keys(1);

    let reported: Vec<_> = (0..3).map(|n| probe(&world, true, n).len()).collect();
    assert_eq!(reported, [0, 0, 1], "three strikes");
    assert_eq!(state(&world, 3), HealthState::Open);
    let view = world.router.upstream_view(UpstreamId(1), at(3));
    assert_eq!(view.cause, Some(probe_cause()));

    let reported = probe(&world, false, 4);
    assert_eq!(reported[0].message, HealthMessage::AnswersProbe { name: "openai".into() });
    let (decision, ticket) = world.decide(&[], 5);
    assert!(matches!(decision.verdict, Verdict::Try { probe: true, .. }), "{decision:?}");
    world.router.record(
        &ticket.expect("a ticket"),
        AttemptEnd::Finished { ttft: None, usage: None },
        at(5),
    );
    assert_eq!(state(&world, 5), HealthState::Ok);
    assert_eq!(world.router.last_served(UpstreamId(1)), Some(at(5)));
}

#[test]
fn probe_does_not_lift_manual_cooldowns_or_newer_failures() {
    let world = RouterFixture::with_keys(1);
    world.router.cool(&Scope::Upstream(UpstreamId(1)), Duration::from_secs(100), at(0));
    assert_eq!(probe(&world, false, 1), []);
    assert_eq!(state(&world, 2), HealthState::Cooling);

    let world = RouterFixture::with_keys(1);
    let early = world.router.begin_probe();
    for now in 0..3 {
        let ticket = world.decide(&[], now * 20).1.expect("a ticket");
        world.router.record(&ticket, AttemptEnd::Failed(&refused()), at(now * 20));
    }
    let open = world.router.upstream_view(UpstreamId(1), at(41));
    let cause = probe_cause();
    assert_eq!(
        world.router.record_probe(&world.candidates[0].target.upstream, early, Err(&cause), at(41)),
        [],
        "it began before the strikes"
    );
    assert_eq!(world.router.upstream_view(UpstreamId(1), at(41)), open);
}
