//! Runs the simulated world of `cargo bench --bench simulate` at a small size.

use aiproxy::config::settings::{AdaptiveMix, Strategy};

#[path = "../bench/world.rs"]
mod world;

use world::{SimulatedRouter, simulate};

#[test]
fn every_answerable_request_is_answered_by_every_strategy() {
    for (seed, strategy) in [
        (1, Strategy::Priority),
        (2, Strategy::RoundRobin),
        (3, Strategy::Weighted),
        (4, Strategy::LeastLatency),
        (5, Strategy::LeastCost),
        (6, Strategy::LeastBusy),
        (7, Strategy::Adaptive(AdaptiveMix::Balanced)),
    ] {
        let mut report =
            simulate(SimulatedRouter::Aiproxy { strategy, sticky: true }, 20_000, seed);
        assert_eq!(
            (report.requests, report.failed),
            (20_000, 0),
            "{strategy:?}: {:.4} %",
            report.success()
        );
        assert!(
            report.answered > 19_000 && report.attempts_each() < 1.2,
            "{strategy:?}: {:.3} attempts each",
            report.attempts_each()
        );
        assert!(
            report.p99().as_secs() < 20 && report.dollars_each_thousand() > 0.0,
            "{strategy:?}"
        );
    }
}

#[test]
fn affinity_has_more_cache_hits_than_round_robin() {
    let hits = |router| simulate(router, 20_000, 8).hits();
    let (plain, ours) = (
        hits(SimulatedRouter::RoundRobin),
        hits(SimulatedRouter::Aiproxy { strategy: Strategy::RoundRobin, sticky: true }),
    );
    let loose = hits(SimulatedRouter::Aiproxy { strategy: Strategy::RoundRobin, sticky: false });
    assert!(
        ours > 60.0 && ours > plain * 2.0 && ours > loose * 2.0,
        "{ours:.1} % against {plain:.1} % and {loose:.1} %"
    );
}
