//! Measures a routing decision: with one candidate, and with twenty upstreams of ten keys, all
//! healthy or half of them cooling.

use std::{fmt::Write, hint::black_box, path::Path, sync::Arc, time::Duration};

use aiproxy::{
    base::{clock::Mono, rng::XorShiftRng},
    config::{
        IdInterner,
        discover::Environment,
        load::load,
        settings::{AdaptiveMix, Settings, Strategy},
    },
    ir::op::Dialect,
    routing::{
        candidate::{AccountId, Candidate, KeyState, build_candidates},
        catalog::Catalog,
        decision::RouteQuery,
        health::cooldown::Policy,
        name_resolver::OnUnknownList,
        resolve::resolve,
        router::{AttemptEnd, Router, Scope},
    },
};

const ROUNDS: u32 = 1_000;

/// Prints nanoseconds per call.
pub(super) fn run() {
    for (upstreams, keys) in [(1, 1), (1, 10), (20, 10)] {
        let settings = settings(upstreams, keys);
        let found = candidates_of(&settings);
        let (board, mut luck) =
            (Router::new(Policy::new(&settings.cooldown, &settings.retry)), XorShiftRng::new(1));
        for strategy in [
            Strategy::Priority,
            Strategy::Weighted,
            Strategy::LeastLatency,
            Strategy::Adaptive(AdaptiveMix::Balanced),
        ] {
            let question = RouteQuery {
                strategy,
                input_estimate: 1_000,
                max_output: 4_096,
                ..RouteQuery::first_attempt(&found)
            };
            let mut round = |now| {
                let (decision, ticket) = board.decide(&question, now, &mut luck);
                black_box(&decision);
                if let Some(ticket) = ticket {
                    board.record(&ticket, AttemptEnd::Finished { ttft: None, usage: None }, now);
                }
            };
            print(
                &format!("decide + record, {} candidates, {strategy:?}", found.len()),
                &mut round,
            );
        }
        for candidate in found.iter().step_by(2).take(found.len() / 2) {
            board.cool(&Scope::Key(candidate.key), Duration::from_secs(1 << 30), Mono::default());
        }
        let question = RouteQuery {
            input_estimate: 1_000,
            max_output: 4_096,
            ..RouteQuery::first_attempt(&found)
        };
        print(
            &format!("decide alone, {} candidates, half of them cooling", found.len()),
            &mut |now| {
                black_box(board.preview(&question, now));
            },
        );
        let (catalog, project) = (Catalog::new(&settings), Arc::clone(&settings.projects[0]));
        print(&format!("resolve a name, {upstreams} upstreams"), &mut |_| {
            black_box(
                resolve(
                    &catalog,
                    "model-1",
                    Dialect::Openai,
                    false,
                    &project,
                    &|_| None,
                    OnUnknownList::Wait,
                )
                .is_ok(),
            );
        });
    }
}

fn settings(upstreams: u32, keys: u32) -> Settings {
    let mut text = String::new();
    for u in 0..upstreams {
        let keys: Vec<String> = (0..keys).map(|k| format!("\"env:KEY_{u}_{k}\"")).collect();
        let keys = keys.join(", ");
        write!(text, "[[upstream]]\nname = \"u{u}\"\nbase_url = \"https://u{u}.example/v1\"\ndialect = \"openai\"\nmodels = [\"model-*\"]\nkeys = [{keys}]\n")
            .expect("a string takes everything");
    }
    let none = Environment { vars: std::collections::HashMap::new() };
    load(&text, Path::new("bench.toml"), &none, &mut IdInterner::default())
        .settings
        .expect("a good config")
}

fn candidates_of(settings: &Settings) -> Vec<Candidate> {
    let found = resolve(
        &Catalog::new(settings),
        "model-1",
        Dialect::Openai,
        false,
        &settings.projects[0],
        &|_| None,
        OnUnknownList::Wait,
    );
    build_candidates(&found.expect("everybody serves it").targets, &|key| {
        (KeyState::Ready, AccountId(key.0))
    })
}

fn print(what: &str, round: &mut dyn FnMut(Mono)) {
    let mut second = 1_000_000;
    let time = super::best_time(|| {
        for _ in 0..ROUNDS {
            second += 1;
            round(Mono(Duration::from_secs(second)));
        }
    });
    println!("{what:<55} {:8.0} ns", time / f64::from(ROUNDS));
}
