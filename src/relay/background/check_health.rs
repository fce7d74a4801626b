//! Probes upstreams that have `health` configured. Detects an outage before a request fails, and a
//! recovery before a cooldown ends.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

use crate::relay::{
    attempt::build_request::required_header, engine::Engine, record::attempt_guard,
    state::health_checks::CheckResult,
};
use crate::{
    base::{clock::Mono, rng::Rng},
    config::settings::{HealthCheck, Upstream, UpstreamId},
    ir::{
        fault::{TransportFault, TransportKind},
        reason::failure::FailureReason,
    },
    routing::outcome,
    upstream::models::{self, ModelListError},
};

/// How often config changes are noticed.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Delay before the first probe of an upstream.
const FIRST_CHECK_DELAY: Duration = Duration::from_secs(2);
/// Random share of the interval by which probes are shifted, so that those of many upstreams do not
/// coincide.
const JITTER: f64 = 0.1;

/// Probes the configured upstreams, until dropped.
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
        let mut wait = POLL_INTERVAL;
        for (upstream, health) in probed() {
            let due = *next
                .entry(upstream.id)
                .or_insert_with(|| now + jittered(engine, health.interval.min(FIRST_CHECK_DELAY)));
            if due > now {
                wait = wait.min(due.since(now));
                continue;
            }
            // The next probe is scheduled when this one ends; until then none is due.
            next.insert(upstream.id, Mono(Duration::MAX));
            under_way.push(check_one(engine, Arc::clone(upstream), health.clone()));
        }
        tokio::select! {
            () = sleep(wait) => {}
            Some((id, every)) = under_way.next(), if !under_way.is_empty() => {
                next.insert(id, engine.clock.mono() + jittered(engine, every));
            }
        }
    }
}

fn jittered(engine: &Engine, span: Duration) -> Duration {
    span.mul_f64(1.0 + JITTER * engine.with_rng(|rng| 2.0 * rng.next_f64() - 1.0))
}

async fn check_one(
    engine: &Engine,
    upstream: Arc<Upstream>,
    health: HealthCheck,
) -> (UpstreamId, Duration) {
    if is_due(engine, &upstream, health.interval) {
        check_upstream(engine, &upstream, &health).await;
    }
    (upstream.id, health.interval)
}

/// Returns whether a probe is due. A recent successful request replaces a probe, and while the
/// local network is down a probe proves nothing.
fn is_due(engine: &Engine, upstream: &Upstream, every: Duration) -> bool {
    let now = engine.clock.mono();
    let recently_served =
        engine.router.last_served(upstream.id).is_some_and(|at| now.since(at) < every);
    !recently_served && (upstream.local || !engine.network.down())
}

async fn check_upstream(engine: &Engine, upstream: &Arc<Upstream>, health: &HealthCheck) {
    let Some(end) = upstream.endpoints.first() else { return };
    // Without a usable credential a response proves nothing, unless the upstream has no keys.
    let key = upstream
        .keys
        .iter()
        .find(|key| key.enabled && engine.keys.is_ready(key.id))
        .map(|key| key.id);
    if key.is_none() && !upstream.keys.is_empty() {
        return;
    }
    let (id, started) = (engine.router.begin_probe(), engine.clock.mono());
    let headers = required_header(end.dialect).into_iter().collect();
    let answer = models::fetch_model_list(
        &engine.upstream_client,
        upstream,
        end,
        key,
        &health.path,
        headers,
    )
    .await;
    let now = engine.clock.mono();
    let found = classify(engine, upstream, &answer);
    let (reply, verdict): (Arc<str>, _) = match found {
        CheckVerdict::Up(status) => (status.to_string().into(), Some(Ok(()))),
        CheckVerdict::Down(cause) => {
            let text = cause.to_string().into();
            let path = health.path.as_str().into();
            (text, Some(Err(Arc::new(FailureReason::Probe { path, cause }))))
        }
        // The probe proved nothing about the upstream.
        CheckVerdict::Inconclusive(reason) => (reason.into(), None),
    };
    let ok = matches!(verdict, Some(Ok(())));
    engine.health_checks.insert(
        upstream.id,
        CheckResult {
            at: engine.clock.unix(),
            duration: now.since(started),
            message: reply,
            is_reachable: ok,
        },
    );
    if let Some(verdict) = verdict {
        let changes = engine.router.record_probe(upstream, id, verdict.as_ref().copied(), now);
        if !changes.is_empty() {
            attempt_guard::publish_health_changes(engine, changes);
            engine.notify_waiters();
        }
    }
}

/// The verdict on a probe's response.
enum CheckVerdict {
    /// The upstream is up and answered with this status, even if it rejected the path or key.
    Up(u16),
    Down(Arc<FailureReason>),
    /// A login page, or the local network is down.
    Inconclusive(String),
}

fn classify(
    engine: &Engine,
    upstream: &Upstream,
    answer: &Result<bytes::Bytes, ModelListError>,
) -> CheckVerdict {
    match answer {
        Ok(body) if !upstream.local && body.trim_ascii_start().first() == Some(&b'<') => {
            CheckVerdict::Inconclusive("a login page answered".to_owned())
        }
        Ok(_) => {
            attempt_guard::record_reachable(engine, upstream);
            CheckVerdict::Up(200)
        }
        Err(ModelListError::Status { status, .. }) if status.is_redirection() => {
            CheckVerdict::Inconclusive(format!("{} (a login page?)", status.as_u16()))
        }
        Err(ModelListError::Status { status, .. }) => {
            attempt_guard::record_reachable(engine, upstream);
            if status.is_server_error() {
                let status = status.as_u16();
                CheckVerdict::Down(
                    FailureReason::Refused { status, code: None, model: None }.into(),
                )
            } else {
                CheckVerdict::Up(status.as_u16())
            }
        }
        Err(ModelListError::Transport(fault)) => {
            let down = attempt_guard::record_unreachable(engine, upstream, fault);
            let fault = if down {
                TransportFault { kind: TransportKind::NetworkDown, ..fault.clone() }
            } else {
                fault.clone()
            };
            let cause = outcome::classify_transport(&fault).cause;
            if fault.kind == TransportKind::NetworkDown {
                CheckVerdict::Inconclusive(cause.to_string())
            } else {
                CheckVerdict::Down(cause)
            }
        }
    }
}
