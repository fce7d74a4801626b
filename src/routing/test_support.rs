//! Builds upstreams, keys and settings for the tests of this module.

use std::{sync::Arc, time::Duration};

use crate::routing::{
    candidate::{AccountId, Candidate, KeyState, Target, build_candidates},
    health::cooldown::Policy,
};
use crate::{
    base::{clock::Mono, pattern::Patterns},
    config::settings::{
        Auth, Cooldown, DialectEndpoint, KeyId, Project, RetrySettings, Settings, Timeouts,
        Upstream, UpstreamId, UpstreamKey,
    },
    ir::op::Dialect,
    secrets::Reference,
};

pub(super) fn at(seconds: u64) -> Mono {
    Mono(Duration::from_secs(1_000_000 + seconds))
}

pub(super) fn cases() -> proptest::test_runner::Config {
    // `PROPTEST_CASES` overrides the number of cases.
    let usual = proptest::test_runner::Config { failure_persistence: None, ..Default::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        usual
    } else {
        proptest::test_runner::Config { cases: 128, ..usual }
    }
}

pub(super) fn policy() -> Policy {
    Policy { cooldown: Cooldown::default(), retry: RetrySettings::default() }
}

fn timeouts() -> Timeouts {
    let s = Duration::from_secs(10);
    Timeouts {
        connect: s,
        first_byte: s,
        idle: s,
        total: s,
        client_head: s,
        client_idle: s,
        client_keepalive: s,
    }
}

/// An upstream that speaks one dialect, with `keys` keys.
pub(super) fn upstream(id: u32, name: &str, models: Option<&[&str]>, keys: u32) -> Upstream {
    Upstream {
        id: UpstreamId(id),
        name: name.into(),
        endpoints: vec![DialectEndpoint {
            dialect: Dialect::Openai,
            base_url: format!("https://{name}.example/v1"),
            query: None,
        }],
        auth: if keys == 0 { Auth::None } else { Auth::Bearer },
        models: models.map(|list| Patterns::parse(list.iter().copied()).expect("good patterns")),
        keys: (0..keys).map(|n| Arc::new(key(id * 100 + n, name, n))).collect(),
        timeouts: timeouts(),
        ..Upstream::default()
    }
}

pub(super) fn key(id: u32, upstream: &str, n: u32) -> UpstreamKey {
    let name: Arc<str> = format!("{upstream}/k{n}").into();
    UpstreamKey {
        id: KeyId(id),
        name: Arc::clone(&name),
        label: format!("k{n}").into(),
        reference: Reference::parse(&format!("env:KEY_{id}")).expect("a reference"),
        account: name,
        ..UpstreamKey::default()
    }
}

pub(super) fn target(upstream: &Arc<Upstream>, model: &str) -> Arc<Target> {
    Arc::new(Target {
        upstream: Arc::clone(upstream),
        model: model.into(),
        dialect: Dialect::Openai,
        priority: upstream.priority,
        weight: upstream.weight,
    })
}

/// Candidates whose keys are all ready and each have their own account.
pub(super) fn ready_candidates(targets: &[Arc<Target>]) -> Vec<Candidate> {
    build_candidates(targets, &|key| (KeyState::Ready, AccountId(key.0)))
}

pub(super) fn project(models: &[&str], upstreams: &[&str]) -> Project {
    Project {
        name: "ide".into(),
        models: Patterns::parse(models.iter().copied()).expect("good patterns"),
        upstreams: Patterns::parse(upstreams.iter().copied()).expect("good patterns"),
        ..Project::default()
    }
}

pub(super) fn settings(upstreams: Vec<Upstream>) -> Settings {
    let policy = policy();
    Settings {
        timeouts: timeouts(),
        retry: policy.retry,
        cooldown: policy.cooldown,
        upstreams: upstreams.into_iter().map(Arc::new).collect(),
        ..Settings::default()
    }
}
