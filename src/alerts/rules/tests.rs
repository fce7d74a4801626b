use super::*;

const START: i64 = 1_700_000_000_000;

fn at(seconds: i64) -> UnixMillis {
    UnixMillis(START + seconds * 1_000)
}

fn rest(until: i64, cause: &str) -> Option<Rest> {
    Some(Rest { until: Some(at(until)), cause: Some(cause.to_owned()) })
}

fn groq(change: impl FnOnce(&mut UpstreamFacts)) -> Facts {
    let key = |label: &str| KeyFacts { name: format!("groq/{label}"), ..KeyFacts::default() };
    let mut upstream = UpstreamFacts {
        name: "groq".to_owned(),
        keys: vec![key("a"), key("b")],
        ..UpstreamFacts::default()
    };
    change(&mut upstream);
    Facts { upstreams: vec![upstream], ..Facts::default() }
}

fn told(watch: &mut Watch, facts: &Facts, seconds: i64) -> Vec<String> {
    watch
        .look(facts, at(seconds))
        .into_iter()
        .map(|alert| format!("{} {}: {}", alert.kind, alert.subject, alert.text))
        .collect()
}

#[test]
fn an_upstream_that_is_down_is_told_once_and_is_well_when_it_answers() {
    let mut watch = Watch::default();
    let down = |until| groq(|groq| groq.down = rest(until, "connection refused"));

    assert_eq!(
        told(&mut watch, &down(15), 0),
        ["upstream_down groq: groq is down, next try in 15s: connection refused"]
    );
    assert!(told(&mut watch, &down(45), 20).is_empty(), "it is the same trouble");
    assert_eq!(watch.standing().count(), 1);
    assert!(
        told(&mut watch, &groq(|_| ()), 60).is_empty(),
        "that its rest has ended proves nothing"
    );
    assert_eq!(watch.standing().count(), 0);
    assert!(told(&mut watch, &down(90), 61).is_empty());
    assert_eq!(
        told(&mut watch, &groq(|groq| groq.answered = 1), 120),
        ["recovered groq: groq answers again after 2m"]
    );
    assert_eq!(told(&mut watch, &down(200), 130).len(), 1, "the next time it is news again");
}

#[test]
fn keys_that_all_rest_are_told_unless_it_is_over_soon() {
    for (name, keys, want) in [
        (
            "both for long",
            [rest(60, "429"), rest(41, "429")],
            Some("keys_cooling groq: all 2 keys of groq rest, back in 41s: 429"),
        ),
        ("one is left", [rest(60, "429"), None], None),
        ("for a moment", [rest(5, "429"), rest(60, "429")], None),
    ] {
        let facts =
            groq(|groq| groq.keys.iter_mut().zip(keys).for_each(|(key, rests)| key.rests = rests));
        assert_eq!(
            told(&mut Watch::default(), &facts, 0),
            want.into_iter().collect::<Vec<_>>(),
            "{name}"
        );
    }
    // Moment after moment is long as well.
    let mut watch = Watch::default();
    let short = |now: i64| {
        groq(|groq| groq.keys.iter_mut().for_each(|key| key.rests = rest(now + 5, "429")))
    };
    assert!(told(&mut watch, &short(0), 0).is_empty());
    assert!(told(&mut watch, &short(20), 20).is_empty());
    assert_eq!(told(&mut watch, &short(30), 30).len(), 1);
}

#[test]
fn a_model_that_no_key_may_use_is_told_with_its_name() {
    let facts = groq(|groq| {
        groq.keys[0].models = vec![
            ("big".to_owned(), rest(90, "429").unwrap()),
            ("small".to_owned(), rest(90, "429").unwrap()),
        ];
        groq.keys[1].models = vec![("big".to_owned(), rest(70, "429").unwrap())];
    });
    assert_eq!(
        told(&mut Watch::default(), &facts, 0),
        ["keys_cooling groq:big: all 2 keys of groq:big rest, back in 1m10s: 429"]
    );
    let rejected = groq(|groq| {
        groq.keys.truncate(1);
        groq.keys[0].rejected = Some("401".to_owned());
        groq.keys[0].models = vec![("big".to_owned(), rest(90, "429").unwrap())];
    });
    assert_eq!(told(&mut Watch::default(), &rejected, 0).len(), 1, "only the rejection counts");
}

#[test]
fn a_rejected_key_is_told_at_once_and_when_it_is_used_again() {
    let mut watch = Watch::default();
    let rejected = groq(|groq| groq.keys[0].rejected = Some("401 invalid key".to_owned()));

    assert_eq!(
        told(&mut watch, &rejected, 0),
        ["key_rejected groq/a: groq/a is rejected by its provider: 401 invalid key"]
    );
    assert_eq!(
        told(&mut watch, &groq(|_| ()), 90),
        ["recovered groq/a: groq/a is in use again after 1m30s"]
    );

    assert_eq!(told(&mut watch, &rejected, 100).len(), 1);
    assert!(
        told(&mut watch, &groq(|groq| drop(groq.keys.remove(0))), 110).is_empty(),
        "a key that was taken out is not well again"
    );
}

#[test]
fn many_failures_are_told_and_few_end_it() {
    let mut watch = Watch::default();
    let rate = |errors, attempts| groq(|groq| (groq.errors, groq.attempts) = (errors, attempts));

    for (errors, attempts) in [(9, 9), (9, 20), (0, 0)] {
        assert!(told(&mut watch, &rate(errors, attempts), 0).is_empty(), "{errors} of {attempts}");
    }
    assert_eq!(
        told(&mut watch, &rate(10, 20), 1),
        ["error_rate groq: groq fails often: 10 of the last 20 attempts"]
    );
    assert!(told(&mut watch, &rate(8, 20), 2).is_empty(), "better, but not well");
    assert_eq!(
        told(&mut watch, &rate(3, 20), 3),
        ["recovered groq: groq fails no more than usual: 3 of the last 20 attempts"]
    );
    told(&mut watch, &rate(20, 20), 4);
    assert!(told(&mut watch, &rate(0, 0), 400).is_empty(), "nobody can tell");
}

#[test]
fn while_our_own_network_is_down_nobody_else_is_blamed() {
    let facts = Facts { offline: true, ..groq(|groq| groq.down = rest(15, "unreachable")) };
    assert!(told(&mut Watch::default(), &facts, 0).is_empty());
}

#[test]
fn a_ledger_that_cannot_be_written_and_requests_without_a_place_are_told() {
    let mut watch = Watch::default();
    let full =
        |unrecorded| Facts { ledger: Some("disk full".to_owned()), unrecorded, ..Facts::default() };

    assert_eq!(
        told(&mut watch, &full(0), 0),
        ["ledger ledger: the ledger cannot be written: disk full"]
    );
    let lost = "ledger unrecorded requests: 3 requests are not in the ledger: it could not keep up";
    assert_eq!(told(&mut watch, &full(3), 10), [lost]);
    assert_eq!(
        told(&mut watch, &Facts { unrecorded: 3, ..Facts::default() }, 20),
        ["recovered ledger: the ledger is written again after 20s"]
    );
}
