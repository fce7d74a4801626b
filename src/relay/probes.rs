//! Active probes: an upstream with `health` is asked for a path now and then, so that it is known
//! to be away before a request finds out, and to be back before a cooldown ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

use super::{engine::Engine, prepare::required};
use crate::{
    base::{
        clock::{Mono, UnixMillis},
        draw::Rng,
    },
    config::settings::{HealthCheck, Upstream, UpstreamId},
    ir::fault::{TransportFault, TransportKind},
    routing::outcome,
    upstream::models::{self, ModelListError},
};

/// A config that changed is noticed this often.
const LOOK: Duration = Duration::from_secs(2);
/// The first probe of an upstream comes so soon.
const FIRST: Duration = Duration::from_secs(2);
/// Share of the interval by which probes are scattered, so that those of many upstreams do not fall
/// together.
const JITTER: f64 = 0.1;

/// What the newest probe of each upstream found.
#[derive(Debug, Default)]
pub struct Probes(Mutex<HashMap<UpstreamId, Probed>>);

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    pub at: UnixMillis,
    pub took: Duration,
    /// In words: `200`, `503`, `connection refused`.
    pub said: Arc<str>,
    /// Whether the upstream can be reached.
    pub ok: bool,
}

impl Probes {
    /// What the newest one found.
    #[must_use]
    pub fn of(&self, upstream: UpstreamId) -> Option<Probed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&upstream).cloned()
    }

    fn put(&self, upstream: UpstreamId, probed: Probed) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(upstream, probed);
    }
}

/// Probes as configured, until dropped.
pub async fn run(engine: &Arc<Engine>) {
    let mut next: HashMap<UpstreamId, Mono> = HashMap::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        let (now, settings) = (engine.clock.mono(), Arc::clone(&engine.generation().settings));
        let probed = || {
            settings
                .upstreams
                .iter()
                .filter(|upstream| upstream.enabled)
                .filter_map(|u| Some((u, u.health.as_ref()?)))
        };
        next.retain(|id, _| probed().any(|(upstream, _)| upstream.id == *id));
        let mut wait = LOOK;
        for (upstream, health) in probed() {
            let due = *next
                .entry(upstream.id)
                .or_insert_with(|| now + scattered(engine, health.interval.min(FIRST)));
            if due > now {
                wait = wait.min(due.since(now));
                continue;
            }
            // The next one is counted from this one's end; until then none is due.
            next.insert(upstream.id, Mono(Duration::MAX));
            under_way.push(one(engine, Arc::clone(upstream), health.clone()));
        }
        tokio::select! {
            () = sleep(wait) => {}
            Some((id, every)) = under_way.next(), if !under_way.is_empty() => {
                next.insert(id, engine.clock.mono() + scattered(engine, every));
            }
        }
    }
}

fn scattered(engine: &Engine, span: Duration) -> Duration {
    span.mul_f64(1.0 + JITTER * engine.with_luck(|luck| 2.0 * luck.next_f64() - 1.0))
}

async fn one(
    engine: &Engine,
    upstream: Arc<Upstream>,
    health: HealthCheck,
) -> (UpstreamId, Duration) {
    if is_wanted(engine, &upstream, health.interval) {
        probe(engine, &upstream, &health).await;
    }
    (upstream.id, health.interval)
}

/// Requests tell as much as probes do, and while our own network is down nobody learns anything.
fn is_wanted(engine: &Engine, upstream: &Upstream, every: Duration) -> bool {
    let now = engine.clock.mono();
    let heard = engine.board.last_served(upstream.id).is_some_and(|at| now.since(at) < every);
    !heard && (upstream.local || !engine.network.down())
}

async fn probe(engine: &Engine, upstream: &Arc<Upstream>, health: &HealthCheck) {
    let Some(end) = upstream.endpoints.first() else { return };
    // Without a credential that may be used there is nothing to be learned from an answer, and none
    // is needed where there are no keys.
    let key = upstream
        .keys
        .iter()
        .find(|key| key.enabled && engine.keys.is_ready(key.id))
        .map(|key| key.id);
    if key.is_none() && !upstream.keys.is_empty() {
        return;
    }
    let (id, begun) = (engine.board.begin_probe(), engine.clock.mono());
    let headers = required(end.dialect).into_iter().collect();
    let answer =
        models::fetch_model_list(&engine.gateway, upstream, end, key, &health.path, headers).await;
    let now = engine.clock.mono();
    let found = judge(engine, upstream, &answer);
    let (said, verdict): (Arc<str>, _) = match found {
        Found::Answers(status) => (status.to_string().into(), Some(Ok(()))),
        Found::Broken(cause) => {
            let told: Arc<str> = format!("{cause} (probe of {})", health.path).into();
            (cause.into(), Some(Err(told)))
        }
        // Nobody learned anything about the upstream.
        Found::Nothing(why) => (why.into(), None),
    };
    let ok = matches!(verdict, Some(Ok(())));
    engine
        .probes
        .put(upstream.id, Probed { at: engine.clock.unix(), took: now.since(begun), said, ok });
    if let Some(verdict) = verdict {
        let changes = engine.board.record_probe(upstream, id, verdict.as_ref().copied(), now);
        if !changes.is_empty() {
            engine.tell_changes(changes);
            engine.touch();
        }
    }
}

/// What an answer shows.
enum Found {
    /// It is up: with this status, whatever it thinks of path and key.
    Answers(u16),
    Broken(String),
    /// A login page, or no network of our own.
    Nothing(String),
}

fn judge(
    engine: &Engine,
    upstream: &Upstream,
    answer: &Result<bytes::Bytes, ModelListError>,
) -> Found {
    match answer {
        Ok(body) if !upstream.local && body.trim_ascii_start().first() == Some(&b'<') => {
            Found::Nothing("a login page answered".to_owned())
        }
        Ok(_) => {
            engine.answered(upstream);
            Found::Answers(200)
        }
        Err(ModelListError::Status { status, .. }) if status.is_redirection() => {
            Found::Nothing(format!("{} (a login page?)", status.as_u16()))
        }
        Err(ModelListError::Status { status, .. }) => {
            engine.answered(upstream);
            if status.is_server_error() {
                Found::Broken(status.as_u16().to_string())
            } else {
                Found::Answers(status.as_u16())
            }
        }
        Err(ModelListError::Transport(fault)) => {
            let down = engine.unreachable(upstream, fault);
            let fault = if down {
                TransportFault { kind: TransportKind::NetworkDown, ..fault.clone() }
            } else {
                fault.clone()
            };
            let cause = outcome::classify_transport(&fault).cause.to_string();
            if fault.kind == TransportKind::NetworkDown {
                Found::Nothing(cause)
            } else {
                Found::Broken(cause)
            }
        }
    }
}
