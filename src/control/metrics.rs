//! `GET /metrics`: totals of finished requests and the current state.

use std::time::Duration;

use super::{
    api::ControlApi,
    snapshot::{KeyStatus, KeyView, UpstreamState},
    views,
};
use crate::{base::clock::UnixMillis, telemetry::prometheus_text::TextEncoder};

/// Maximum wait for queued entries to reach the totals; short, because the ledger file may be
/// locked.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Writes the page.
pub(super) async fn metrics_page(control: &ControlApi) -> String {
    drop(tokio::time::timeout(FLUSH_TIMEOUT, control.engine.ledger_queue.flush()).await);
    let mut page = TextEncoder::default();
    write_process(control, &mut page);
    write_ledger(control, &mut page);
    write_upstreams(control, &mut page);
    control.metrics.write(&mut page);
    page.finish()
}

fn write_process(control: &ControlApi, page: &mut TextEncoder) {
    let engine = &control.engine;
    page.begin_family("aiproxy_build_info", "gauge", "The version that runs");
    page.write_sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let started = control.started.0 as f64 / 1_000.0;
    page.write_single(
        "process_start_time_seconds",
        "gauge",
        "When the process started, since 1970",
        started,
    );
    page.write_single(
        "aiproxy_requests_in_flight",
        "gauge",
        "Requests under way",
        engine.in_flight(),
    );
    page.write_single(
        "aiproxy_queue_length",
        "gauge",
        "Requests that wait for a key",
        engine.wait_queue.len(),
    );
    page.write_single(
        "aiproxy_network_down",
        "gauge",
        "1 while the local network is down",
        u8::from(engine.network.down()),
    );
    let config = control.admin.config();
    page.write_single(
        "aiproxy_config_ok",
        "gauge",
        "1 where the config file is what runs",
        u8::from(config.problems.is_empty()),
    );
    page.write_single(
        "aiproxy_config_applied_time_seconds",
        "gauge",
        "When it was applied, since 1970",
        config.applied.0 as f64 / 1_000.0,
    );
    page.begin_family("aiproxy_alert", "gauge", "1 for each trouble that stands");
    for standing in control.alerts.list() {
        page.write_sample(
            &[("kind", standing.alert.kind.name()), ("subject", &standing.alert.subject)],
            1,
        );
    }
}

fn write_ledger(control: &ControlApi, page: &mut TextEncoder) {
    let sink = &control.engine.ledger_queue;
    page.write_single(
        "aiproxy_ledger_unrecorded_total",
        "counter",
        "Requests that found no place in the ledger",
        sink.unrecorded(),
    );
    page.write_single(
        "aiproxy_ledger_bodies_skipped_total",
        "counter",
        "Bodies that were not kept, as too much came at once",
        sink.skipped_bodies(),
    );
    page.write_single(
        "aiproxy_ledger_queue_length",
        "gauge",
        "Notes for the ledger that are on their way",
        sink.pending(),
    );
    let Some(status) = control
        .ledger_handle
        .as_ref()
        .map(|ledger| ledger.ledger.status(&ledger.engine.ledger_queue))
    else {
        return;
    };
    page.write_single(
        "aiproxy_ledger_up",
        "gauge",
        "1 while the ledger's file can be written",
        u8::from(status.problem.is_none()),
    );
    page.write_single(
        "aiproxy_ledger_waiting",
        "gauge",
        "Requests held in memory until it can",
        status.waiting_requests,
    );
    page.write_single(
        "aiproxy_ledger_lost_total",
        "counter",
        "Requests lost for want of room there",
        status.lost_requests,
    );
}

fn write_upstreams(control: &ControlApi, page: &mut TextEncoder) {
    let engine = &control.engine;
    let generation = engine.generation();
    let now = engine.clock.unix();
    let left = |until: Option<UnixMillis>| {
        until.map_or(0, |until| (until.0 - now.0).max(0)) as f64 / 1_000.0
    };
    let upstreams = views::upstreams(engine, &generation);
    page.begin_family("aiproxy_upstream_state", "gauge", "1 for the state that an upstream is in");
    for upstream in &upstreams {
        let state = match upstream.state {
            UpstreamState::Cooling => "cooling",
            UpstreamState::Disabled => "disabled",
            UpstreamState::Healthy => "healthy",
            UpstreamState::Open => "open",
            UpstreamState::Probing => "probing",
        };
        page.write_sample(&[("upstream", &upstream.name), ("state", state)], 1);
    }
    page.begin_family(
        "aiproxy_upstream_cooldown_seconds",
        "gauge",
        "How long an upstream is left alone yet",
    );
    for upstream in &upstreams {
        page.write_sample(&[("upstream", &upstream.name)], left(upstream.until));
    }
    let keys = views::keys(engine, &generation);
    page.begin_family(
        "aiproxy_key_state",
        "gauge",
        "1 for the state that a key is in; partly: for some models",
    );
    for key in &keys {
        page.write_sample(
            &[("upstream", &key.upstream), ("key", &key.label), ("state", key_status_name(key))],
            1,
        );
    }
    page.begin_family(
        "aiproxy_key_cooldown_seconds",
        "gauge",
        "How long a key is left alone yet, for all models or one",
    );
    for key in &keys {
        page.write_sample(
            &[("upstream", &key.upstream), ("key", &key.label), ("model", "")],
            left(key.until),
        );
        for scope in &key.scopes {
            page.write_sample(
                &[("upstream", &key.upstream), ("key", &key.label), ("model", &scope.model)],
                left(scope.until),
            );
        }
    }
    page.begin_family("aiproxy_key_running", "gauge", "Attempts under way with a key");
    for key in &keys {
        page.write_sample(&[("upstream", &key.upstream), ("key", &key.label)], key.running);
    }
    page.begin_family(
        "aiproxy_key_limit_remaining",
        "gauge",
        "What the provider said is left of a limit",
    );
    for key in &keys {
        for limit in &key.limits {
            page.write_sample(
                &[
                    ("upstream", &key.upstream),
                    ("key", &key.label),
                    ("model", &limit.model),
                    ("what", &limit.kind),
                ],
                limit.remaining,
            );
        }
    }
}

fn key_status_name(key: &KeyView) -> &'static str {
    match key.state {
        KeyStatus::Cooling => "cooling",
        KeyStatus::Disabled => "disabled",
        KeyStatus::Missing => "missing",
        KeyStatus::Ok => "ok",
        KeyStatus::Partly => "partly",
        KeyStatus::Probing => "probing",
        KeyStatus::Rejected => "rejected",
        KeyStatus::Waiting => "waiting",
    }
}
