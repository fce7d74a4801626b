//! `GET /metrics`: collects the current state and the totals of finished requests.

use std::time::Duration;

use http::{Response, StatusCode};

use super::{
    api::ControlApi,
    snapshot::{KeyStatus, KeyView, UpstreamState, UpstreamView},
    views,
};
use crate::{
    base::{clock::UnixMillis, id::RequestId},
    relay::response::{self, ResponseBody},
    telemetry::{
        gauges::{
            Gauges, KeyGauges, LedgerFileGauges, LedgerGauges, ProcessGauges, UpstreamGauges,
        },
        prometheus_text::{self, TextEncoder},
    },
};

/// Maximum wait for queued entries to reach the totals; short, because the ledger file may be
/// locked.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

impl ControlApi {
    /// Answers `GET /metrics`.
    pub async fn metrics(&self, id: RequestId) -> Response<ResponseBody> {
        drop(tokio::time::timeout(FLUSH_TIMEOUT, self.engine.ledger_queue.flush()).await);
        let mut page = TextEncoder::default();
        self.gauges().write(&mut page);
        self.metrics.write(&mut page);
        let content_type = prometheus_text::CONTENT_TYPE;
        response::full_response(StatusCode::OK, content_type, id, page.finish().into())
    }

    fn gauges(&self) -> Gauges {
        let engine = &self.engine;
        let config = self.admin.config();
        let process = ProcessGauges {
            started: self.started,
            in_flight: engine.in_flight(),
            queue_length: engine.wait_queue.len(),
            network_down: engine.network.down(),
            config_ok: config.problems.is_empty(),
            config_applied: config.applied,
            alerts: self
                .alerts
                .list()
                .into_iter()
                .map(|active| (active.alert.kind.name(), active.alert.subject.to_string()))
                .collect(),
        };
        let queue = &engine.ledger_queue;
        let file = self.ledger_handle.as_ref().map(|handle| {
            let status = handle.ledger.status(queue);
            LedgerFileGauges {
                up: status.problem.is_none(),
                waiting_requests: status.waiting_requests,
                lost_requests: status.lost_requests,
            }
        });
        let ledger = LedgerGauges {
            unrecorded: queue.unrecorded(),
            skipped_bodies: queue.skipped_bodies(),
            queue_length: queue.pending(),
            file,
        };
        let (generation, now) = (engine.generation(), engine.clock.unix());
        let upstreams = views::upstreams(engine, &generation);
        let keys = views::keys(engine, &generation);
        let repaired = engine.learned.counts();
        Gauges {
            process,
            ledger,
            upstreams: upstreams
                .into_iter()
                .map(|view| upstream_gauges(view, &repaired, now))
                .collect(),
            keys: keys.into_iter().map(|view| key_gauges(view, now)).collect(),
        }
    }
}

fn seconds_until(until: Option<UnixMillis>, now: UnixMillis) -> f64 {
    until.map_or(0, |until| (until.0 - now.0).max(0)) as f64 / 1_000.0
}

fn upstream_gauges(
    view: UpstreamView,
    repaired: &[(String, u64)],
    now: UnixMillis,
) -> UpstreamGauges {
    let state = match view.state {
        UpstreamState::Cooling => "cooling",
        UpstreamState::Disabled => "disabled",
        UpstreamState::Healthy => "healthy",
        UpstreamState::NoKey => "no_key",
        UpstreamState::Open => "open",
        UpstreamState::Probing => "probing",
    };
    let repaired = repaired.iter().find(|(name, _)| *name == view.name);
    UpstreamGauges {
        repaired: repaired.map_or(0, |(_, count)| *count),
        name: view.name,
        state,
        cooldown: seconds_until(view.until, now),
    }
}

fn key_gauges(view: KeyView, now: UnixMillis) -> KeyGauges {
    let state = key_status_name(&view);
    let mut cooldowns = vec![(String::new(), seconds_until(view.until, now))];
    cooldowns.extend(
        view.scopes.into_iter().map(|scope| (scope.model, seconds_until(scope.until, now))),
    );
    KeyGauges {
        upstream: view.upstream,
        label: view.label,
        state,
        cooldowns,
        running: view.running,
        limits: view
            .limits
            .into_iter()
            .map(|limit| (limit.model, limit.kind, limit.remaining))
            .collect(),
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
