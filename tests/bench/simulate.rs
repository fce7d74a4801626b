//! Compares routing with plain round robin in a simulated world: `cargo bench --bench simulate`.
//!
//! Simulates a million requests for each router. `cargo bench --bench simulate -- 100000 7`
//! simulates 100,000 with seed 7.
#![expect(clippy::print_stdout, reason = "a program that prints")]

use aiproxy::config::settings::{AdaptiveMix, Strategy};

mod world;

use world::{SimulatedRouter, simulate};

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse::<u64>().ok());
    let (requests, seed) = (numbers.next().unwrap_or(1_000_000), numbers.next().unwrap_or(42));
    println!("{requests} requests, 6 upstreams, 30 keys of 60 requests a minute, seed {seed}");
    println!(
        "success: of the requests for which some key could have answered; p99: to the first token; cached: of all input\n"
    );
    println!(
        "{:<28} {:>10} {:>7} {:>13} {:>9} {:>8} {:>12}",
        "", "success", "lost", "attempts each", "p99", "cached", "$ per 1,000"
    );
    let ours = |strategy| SimulatedRouter::Aiproxy { strategy, sticky: true };
    let loose = SimulatedRouter::Aiproxy { strategy: Strategy::RoundRobin, sticky: false };
    let rows = [
        ("plain round robin", SimulatedRouter::RoundRobin),
        ("round_robin, sticky off", loose),
        ("priority", ours(Strategy::Priority)),
        ("round_robin", ours(Strategy::RoundRobin)),
        ("weighted", ours(Strategy::Weighted)),
        ("least_latency", ours(Strategy::LeastLatency)),
        ("least_cost", ours(Strategy::LeastCost)),
        ("least_busy", ours(Strategy::LeastBusy)),
        ("adaptive", ours(Strategy::Adaptive(AdaptiveMix::Balanced))),
    ];
    for (name, router) in rows {
        let mut report = simulate(router, requests, seed);
        let p99 = report.p99();
        println!(
            "{name:<28} {:>8.4} % {:>7} {:>13.3} {:>7.2} s {:>6.1} % {:>12.3}",
            report.success(),
            report.failed,
            report.attempts_each(),
            p99.as_secs_f64(),
            report.hits(),
            report.dollars_each_thousand()
        );
    }
}
