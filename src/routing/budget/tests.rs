use std::collections::HashMap;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::config::settings::{Budget, UnpricedPolicy};
use crate::routing::test_support::{cases, project, settings, upstream};

const NANO_USD_PER_DOLLAR: i64 = 1_000_000_000;

fn usd(dollars: f64) -> NanoUsd {
    NanoUsd::from_dollars(dollars).unwrap()
}

fn at(text: &str) -> UnixMillis {
    UnixMillis(text.parse::<Timestamp>().unwrap().as_millisecond())
}

fn noon() -> UnixMillis {
    at("2025-09-03T12:00:00Z")
}

fn budget(dollars: f64, per: Period, unpriced: UnpricedPolicy) -> Budget {
    Budget { usd: usd(dollars), period: per, unpriced }
}

/// Settings in which project `ide` has these budgets.
fn of_project(budgets: &[Budget]) -> Settings {
    let mut settings = settings(Vec::new());
    settings.projects = vec![Arc::new(crate::config::settings::Project {
        budget: budgets.to_vec(),
        ..project(&["*"], &["*"])
    })];
    settings
}

fn ide() -> Holder {
    Holder::Project("ide".into())
}

fn budgets(rows: &[Budget]) -> Budgets {
    let budgets = Budgets::new(TimeZone::UTC);
    budgets.configure(&of_project(rows), noon());
    budgets
}

fn spend(budgets: &Budgets, dollars: f64, now: UnixMillis) -> Vec<u8> {
    let booked =
        budgets.reserve(vec![ide()], Some(NanoUsd(1)), now).expect("there is something left");
    budgets.settle(booked, Some(usd(dollars)), now).iter().map(|reached| reached.percent).collect()
}

#[test]
fn reservations_count_before_they_are_spent() {
    let budgets = budgets(&[budget(1.0, Period::Day, UnpricedPolicy::Warn)]);
    let reserve = |dollars| budgets.reserve(vec![ide()], Some(usd(dollars)), noon());

    let first = reserve(0.6).expect("all of it is left");
    let (holder, lack) = reserve(0.6).expect_err("together they would be too much");
    assert!(matches!(lack, BudgetDenied::Reserved { .. }) && holder == ide(), "{lack:?}");
    reserve(0.4).expect("this one fits");

    assert!(budgets.settle(first, Some(usd(0.1)), noon()).is_empty());
    assert_eq!(budgets.states(noon())[0].spent, usd(0.1));
    assert_eq!(budgets.states(noon())[0].reserved, usd(0.4));
    reserve(0.5).expect("it took less than was thought");
}

#[test]
fn single_request_may_exceed_the_rest_and_blocks_later_ones() {
    let budgets = budgets(&[budget(1.0, Period::Day, UnpricedPolicy::Warn)]);

    let large =
        budgets.reserve(vec![ide()], Some(usd(7.0)), noon()).expect("nothing else is under way");
    let reported = budgets.settle(large, Some(usd(1.5)), noon());

    assert_eq!(
        reported.iter().map(|reached| reached.percent).collect::<Vec<_>>(),
        [100],
        "100 implies 80"
    );
    let until = Some(at("2025-09-04T00:00:00Z"));
    let day = budget(1.0, Period::Day, UnpricedPolicy::Warn);
    assert_eq!(
        budgets.denial(&ide(), Some(NanoUsd(1)), noon()),
        Some(BudgetDenied::Spent { budget: day, spent: usd(1.5), until })
    );
    assert_eq!(
        budgets.denial(&ide(), Some(NanoUsd::ZERO), noon()),
        None,
        "what costs nothing goes on"
    );
    assert!(budgets.denial(&ide(), None, noon()).is_some(), "what may cost something does not");
    assert_eq!(
        budgets.denial(&ide(), Some(NanoUsd(1)), at("2025-09-04T00:00:00Z")),
        None,
        "a new day"
    );
    assert_eq!(budgets.denial(&Holder::All, Some(NanoUsd(1)), noon()), None);
}

#[test]
fn budget_thresholds_are_reported_once_per_period() {
    let budgets = budgets(&[budget(1.0, Period::Day, UnpricedPolicy::Warn)]);
    let tomorrow = at("2025-09-04T12:00:00Z");

    let reported: Vec<_> =
        [0.5, 0.3, 0.1, 0.2].map(|dollars| spend(&budgets, dollars, noon())).into();

    assert_eq!(reported, [vec![], vec![80], vec![], vec![100]]);
    assert_eq!(spend(&budgets, 0.85, tomorrow), [80]);
    assert!(
        (budgets.max_used_fraction(&[Holder::All, ide()], tomorrow) - 0.85).abs() < 1e-9
            && budgets.max_used_fraction(&[Holder::All], tomorrow) == 0.0
    );
}

#[test]
fn longer_period_of_two_budgets_is_reported() {
    let (day, month) = (
        budget(1.0, Period::Day, UnpricedPolicy::Warn),
        budget(1.0, Period::Month, UnpricedPolicy::Warn),
    );
    let budgets = budgets(&[day, month]);
    spend(&budgets, 1.0, noon());

    assert!(
        matches!(budgets.denial(&ide(), Some(NanoUsd(1)), noon()), Some(BudgetDenied::Spent { budget, .. }) if budget == month)
    );
    let next = at("2025-10-01T00:00:00Z");
    assert_eq!(budgets.denial(&ide(), Some(NanoUsd(1)), next), None);
}

#[test]
fn clock_jump_does_not_refund_the_budget() {
    let budgets = budgets(&[budget(1.0, Period::Day, UnpricedPolicy::Warn)]);
    spend(&budgets, 1.0, noon());
    let is_spent = |now| {
        matches!(budgets.denial(&ide(), Some(NanoUsd(1)), now), Some(BudgetDenied::Spent { .. }))
    };

    assert!(is_spent(at("2025-09-02T12:00:00Z")), "set back by a day");
    assert!(!is_spent(at("2025-09-04T12:00:00Z")), "set ahead by a day");
    assert!(is_spent(noon()), "and set right again");
    assert!(is_spent(UnixMillis(0)));
}

#[test]
fn unknown_prices_are_counted_or_refused() {
    let refusing = budgets(&[budget(1.0, Period::Total, UnpricedPolicy::Refuse)]);
    assert!(matches!(refusing.denial(&ide(), None, noon()), Some(BudgetDenied::Unpriced { .. })));

    let warning = budgets(&[budget(1.0, Period::Total, UnpricedPolicy::Warn)]);
    let booked = warning.reserve(vec![ide()], None, noon()).expect("it is let in");
    assert!(warning.settle(booked, None, noon()).is_empty());
    assert_eq!(
        (warning.states(noon())[0].unpriced_attempts, warning.states(noon())[0].spent),
        (1, NanoUsd::ZERO)
    );
}

#[test]
fn spent_amounts_survive_a_reload_and_a_restart() {
    let day = budget(1.0, Period::Day, UnpricedPolicy::Warn);
    let first = budgets(&[day]);
    spend(&first, 0.9, noon());
    let raised = budget(2.0, Period::Day, UnpricedPolicy::Warn);
    assert_eq!(
        first.configure(
            &of_project(&[raised, budget(9.0, Period::Total, UnpricedPolicy::Warn)]),
            noon()
        ),
        [(ide(), Period::Total, UnixMillis(0))]
    );
    assert_eq!((first.states(noon())[0].spent, first.states(noon())[0].budget), (usd(0.9), raised));

    let kept = first.save(noon());
    let second = budgets(&[raised]);
    kept.iter().for_each(|kept| second.restore(kept));
    assert_eq!(second.states(noon())[0].spent, usd(0.9));
    assert_eq!(spend(&second, 0.8, noon()), [] as [u8; 0], "80 % was reported before");
    second.raise_spent(&ide(), Period::Day, at("2025-09-03T00:00:00Z"), usd(1.9));
    second.raise_spent(&ide(), Period::Day, at("2025-09-02T00:00:00Z"), usd(9.0));
    assert_eq!(
        second.states(noon())[0].spent,
        usd(1.9),
        "the ledger knows of more, and yesterday is over"
    );

    let tomorrow = Budgets::new(TimeZone::UTC);
    tomorrow.configure(&of_project(&[raised]), at("2025-09-04T12:00:00Z"));
    kept.iter().for_each(|kept| tomorrow.restore(kept));
    assert_eq!(tomorrow.states(at("2025-09-04T12:00:00Z"))[0].spent, NanoUsd::ZERO);

    first.configure(&of_project(&[]), noon());
    assert!(!first.has_any() && first.states(noon()).is_empty());
}

#[test]
fn holders_round_trip_as_text_and_are_ordered() {
    let all = [Holder::All, ide(), Holder::Upstream("a".into()), Holder::Key("a/work".into())];
    for holder in &all {
        assert_eq!(Holder::parse(&holder.text()).as_ref(), Some(holder));
    }
    assert_eq!(Holder::parse("nobody"), None);
    assert!(all.is_sorted());
    let mut settings = settings(vec![upstream(1, "a", None, 1)]);
    settings.budget = vec![budget(1.0, Period::Week, UnpricedPolicy::Warn)];
    assert_eq!(
        Budgets::new(TimeZone::UTC).configure(&settings, noon()),
        [(Holder::All, Period::Week, at("2025-09-01T00:00:00Z"))]
    );
}

proptest! {
    #![proptest_config(cases())]

    /// In any order of requests: no attempt starts on a spent budget, the displayed amount equals
    /// the billed amount, and every reservation is released.
    #[test]
    fn refused_amount_equals_the_displayed_amount(steps in prop::collection::vec((0_u8..3, 1_i64..400, 0_i64..600), 1..80)) {
        let limit = NANO_USD_PER_DOLLAR;
        let budgets = budgets(&[Budget { usd: NanoUsd(limit), period: Period::Total, unpriced: UnpricedPolicy::Warn }]);
        let mut under_way: HashMap<usize, BudgetReservation> = HashMap::new();
        let mut billed = 0_i64;
        for (number, (what, expected, real)) in steps.into_iter().enumerate() {
            let (expected, real) = (expected * NANO_USD_PER_DOLLAR / 1_000, real * NANO_USD_PER_DOLLAR / 1_000);
            if what > 0 {
                match budgets.reserve(vec![ide()], Some(NanoUsd(expected)), noon()) {
                    Ok(booked) => {
                        prop_assert!(billed < limit, "begun although spent");
                        under_way.insert(number, booked);
                    }
                    Err((_, BudgetDenied::Spent { spent, .. })) => prop_assert_eq!(spent.0, billed),
                    Err((_, BudgetDenied::Reserved { .. })) => prop_assert!(!under_way.is_empty()),
                    Err((_, lack)) => prop_assert!(false, "{:?}", lack),
                }
            } else if let Some(number) = under_way.keys().copied().min() {
                let booked = under_way.remove(&number).expect("it is there");
                budgets.settle(booked, Some(NanoUsd(real)), noon());
                billed += real;
            }
            let state = &budgets.states(noon())[0];
            prop_assert_eq!(state.spent.0, billed);
            prop_assert_eq!(under_way.is_empty(), state.reserved == NanoUsd::ZERO);
            prop_assert!(budgets.denial(&ide(), Some(NanoUsd(1)), noon()).is_none() || billed >= limit || !under_way.is_empty());
        }
        let left: Vec<BudgetReservation> = under_way.drain().map(|(_, booked)| booked).collect();
        let many = i64::try_from(left.len()).unwrap();
        left.into_iter().for_each(|booked| drop(budgets.settle(booked, Some(NanoUsd(NANO_USD_PER_DOLLAR / 10)), noon())));
        let state = &budgets.states(noon())[0];
        prop_assert_eq!(state.reserved, NanoUsd::ZERO);
        prop_assert_eq!(state.spent.0, billed + many * (NANO_USD_PER_DOLLAR / 10));
    }
}
