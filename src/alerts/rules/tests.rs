use super::*;

const START: i64 = 1_700_000_000_000;

fn at(seconds: i64) -> UnixMillis {
    UnixMillis(START + seconds * 1_000)
}

fn cooldown(until: i64, cause: &str) -> Option<AlertCooldown> {
    Some(AlertCooldown { until: Some(at(until)), cause: Some(cause.to_owned()) })
}

fn groq_inputs(change: impl FnOnce(&mut UpstreamAlertInputs)) -> AlertInputs {
    let key =
        |label: &str| KeyAlertInputs { name: format!("groq/{label}"), ..KeyAlertInputs::default() };
    let mut upstream = UpstreamAlertInputs {
        name: "groq".to_owned(),
        keys: vec![key("a"), key("b")],
        ..UpstreamAlertInputs::default()
    };
    change(&mut upstream);
    AlertInputs { upstreams: vec![upstream], ..AlertInputs::default() }
}

fn alert_lines(watch: &mut AlertState, facts: &AlertInputs, seconds: i64) -> Vec<String> {
    watch
        .update(facts, at(seconds))
        .into_iter()
        .map(|alert| format!("{} {}: {}", alert.kind, alert.subject, alert.text))
        .collect()
}

#[test]
fn upstream_outage_is_reported_once_and_ends_with_an_answer() {
    let mut watch = AlertState::default();
    let down = |until| groq_inputs(|groq| groq.outage = cooldown(until, "connection refused"));

    assert_eq!(
        alert_lines(&mut watch, &down(15), 0),
        ["upstream_down groq: groq is down, next try in 15s: connection refused"]
    );
    assert!(alert_lines(&mut watch, &down(45), 20).is_empty(), "it is the same trouble");
    assert_eq!(watch.visible_alerts().count(), 1);
    assert!(
        alert_lines(&mut watch, &groq_inputs(|_| ()), 60).is_empty(),
        "that its rest has ended proves nothing"
    );
    assert_eq!(watch.visible_alerts().count(), 0);
    assert!(alert_lines(&mut watch, &down(90), 61).is_empty());
    assert_eq!(
        alert_lines(&mut watch, &groq_inputs(|groq| groq.success_count = 1), 120),
        ["recovered groq: groq answers again after 2m"]
    );
    assert_eq!(alert_lines(&mut watch, &down(200), 130).len(), 1, "the next time it is news again");
}

#[test]
fn cooling_of_all_keys_is_reported_unless_it_is_short() {
    for (name, keys, want) in [
        (
            "both for long",
            [cooldown(60, "429"), cooldown(41, "429")],
            Some("keys_cooling groq: all 2 keys of groq rest, back in 41s: 429"),
        ),
        ("one is left", [cooldown(60, "429"), None], None),
        ("for a moment", [cooldown(5, "429"), cooldown(60, "429")], None),
    ] {
        let facts = groq_inputs(|groq| {
            groq.keys.iter_mut().zip(keys).for_each(|(key, rests)| key.cooldown = rests);
        });
        assert_eq!(
            alert_lines(&mut AlertState::default(), &facts, 0),
            want.into_iter().collect::<Vec<_>>(),
            "{name}"
        );
    }
    // Repeated short cooldowns also count as a long one.
    let mut watch = AlertState::default();
    let short = |now: i64| {
        groq_inputs(|groq| {
            groq.keys.iter_mut().for_each(|key| key.cooldown = cooldown(now + 5, "429"));
        })
    };
    assert!(alert_lines(&mut watch, &short(0), 0).is_empty());
    assert!(alert_lines(&mut watch, &short(20), 20).is_empty());
    assert_eq!(alert_lines(&mut watch, &short(30), 30).len(), 1);
}

#[test]
fn key_without_credit_is_reported_although_another_works() {
    let mut watch = AlertState::default();
    let out = |until| groq_inputs(|groq| groq.keys[0].cooldown = cooldown(until, "402 no credit"));

    assert_eq!(
        alert_lines(&mut watch, &out(3_600), 0),
        ["key_out groq/a: groq/a cannot be used now, next try in 1h: 402 no credit"]
    );
    assert!(alert_lines(&mut watch, &out(3_600), 3_100).is_empty(), "the alert is known");
    assert_eq!(
        alert_lines(&mut watch, &groq_inputs(|_| ()), 3_601),
        ["recovered groq/a: groq/a is in use again after 1h1s"]
    );
    assert!(alert_lines(&mut watch, &out(4_000), 3_610).is_empty(), "a short cooldown");
}

#[test]
fn model_without_a_usable_key_is_reported_by_name() {
    let facts = groq_inputs(|groq| {
        groq.keys[0].model_cooldowns = vec![
            ("big".to_owned(), cooldown(90, "429").unwrap()),
            ("small".to_owned(), cooldown(90, "429").unwrap()),
        ];
        groq.keys[1].model_cooldowns = vec![("big".to_owned(), cooldown(70, "429").unwrap())];
    });
    assert_eq!(
        alert_lines(&mut AlertState::default(), &facts, 0),
        ["keys_cooling groq:big: all 2 keys of groq:big rest, back in 1m10s: 429"]
    );
    let rejected = groq_inputs(|groq| {
        groq.keys.truncate(1);
        groq.keys[0].rejection = Some("401".to_owned());
        groq.keys[0].model_cooldowns = vec![("big".to_owned(), cooldown(90, "429").unwrap())];
    });
    assert_eq!(
        alert_lines(&mut AlertState::default(), &rejected, 0).len(),
        1,
        "only the rejection counts"
    );
}

#[test]
fn rejected_key_is_reported_at_once_and_when_it_works_again() {
    let mut watch = AlertState::default();
    let rejected = groq_inputs(|groq| groq.keys[0].rejection = Some("401 invalid key".to_owned()));

    assert_eq!(
        alert_lines(&mut watch, &rejected, 0),
        ["key_rejected groq/a: groq/a is rejected by its provider: 401 invalid key"]
    );
    assert_eq!(
        alert_lines(&mut watch, &groq_inputs(|_| ()), 90),
        ["recovered groq/a: groq/a is in use again after 1m30s"]
    );

    assert_eq!(alert_lines(&mut watch, &rejected, 100).len(), 1);
    assert!(
        alert_lines(&mut watch, &groq_inputs(|groq| drop(groq.keys.remove(0))), 110).is_empty(),
        "a key that was taken out is not well again"
    );
}

#[test]
fn high_error_rate_is_reported_until_it_is_low() {
    let mut watch = AlertState::default();
    let rate = |errors, attempts| {
        groq_inputs(|groq| (groq.recent_errors, groq.recent_attempts) = (errors, attempts))
    };

    for (errors, attempts) in [(9, 9), (9, 20), (0, 0)] {
        assert!(
            alert_lines(&mut watch, &rate(errors, attempts), 0).is_empty(),
            "{errors} of {attempts}"
        );
    }
    assert_eq!(
        alert_lines(&mut watch, &rate(10, 20), 1),
        ["error_rate groq: groq fails often: 10 of the last 20 attempts"]
    );
    assert!(alert_lines(&mut watch, &rate(8, 20), 2).is_empty(), "better, but not well");
    assert_eq!(
        alert_lines(&mut watch, &rate(3, 20), 3),
        ["recovered groq: groq fails no more than usual: 3 of the last 20 attempts"]
    );
    alert_lines(&mut watch, &rate(20, 20), 4);
    assert!(alert_lines(&mut watch, &rate(0, 0), 400).is_empty(), "the state is unknown");
}

#[test]
fn no_upstream_is_blamed_while_the_local_network_is_down() {
    let facts = AlertInputs {
        offline: true,
        ..groq_inputs(|groq| groq.outage = cooldown(15, "unreachable"))
    };
    assert!(alert_lines(&mut AlertState::default(), &facts, 0).is_empty());
}

#[test]
fn unwritable_ledger_and_unrecorded_requests_are_reported() {
    let mut watch = AlertState::default();
    let full = |unrecorded| AlertInputs {
        ledger_error: Some("disk full".to_owned()),
        unrecorded_requests: unrecorded,
        ..AlertInputs::default()
    };

    assert_eq!(
        alert_lines(&mut watch, &full(0), 0),
        ["ledger ledger: the ledger cannot be written: disk full"]
    );
    let lost = "ledger unrecorded requests: 3 requests are not in the ledger: it could not keep up";
    assert_eq!(alert_lines(&mut watch, &full(3), 10), [lost]);
    assert_eq!(
        alert_lines(
            &mut watch,
            &AlertInputs { unrecorded_requests: 3, ..AlertInputs::default() },
            20
        ),
        ["recovered ledger: the ledger is written again after 20s"]
    );
}
