//! Reports the end of each attempt to the router, and publishes what follows for the health of keys,
//! upstreams and the local network.

use std::sync::Arc;

use crate::relay::engine::Engine;
use crate::{
    config::settings::Upstream,
    events::{
        event::{EventKind, Severity},
        status_message::notice::NoticeMessage,
    },
    ir::{fault::TransportFault, rate_limit::RateLimits},
    routing::health::{
        attempt::AttemptTicket,
        record::{AttemptEnd, HealthChange},
    },
};

/// Reports an attempt's end to the router exactly once; an attempt dropped without a report counts
/// as abandoned.
pub struct AttemptGuard {
    engine: Arc<Engine>,
    ticket: Option<AttemptTicket>,
}

impl AttemptGuard {
    pub(in crate::relay) fn new(engine: &Arc<Engine>, ticket: AttemptTicket) -> Self {
        Self { engine: Arc::clone(engine), ticket: Some(ticket) }
    }

    /// Records an intermediate signal: the head or the first content arrived.
    pub(in crate::relay) fn record(&self, end: AttemptEnd<'_>) {
        if let Some(ticket) = &self.ticket {
            record_attempt_end(&self.engine, ticket, end);
        }
    }

    /// Records the provider's remaining limits from the response head.
    pub(in crate::relay) fn record_rate_limits(&self, limits: &RateLimits) {
        if let Some(ticket) = self.ticket.as_ref().filter(|_| !limits.is_empty()) {
            self.engine.router.record_rate_limits(ticket, limits, self.engine.clock.mono());
        }
    }

    /// Records the attempt's end.
    pub(in crate::relay) fn finish(&mut self, end: AttemptEnd<'_>) {
        if let Some(ticket) = self.ticket.take() {
            record_attempt_end(&self.engine, &ticket, end);
        }
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        self.finish(AttemptEnd::Abandoned);
    }
}

/// Records a signal of an attempt and publishes the health changes.
fn record_attempt_end(engine: &Engine, ticket: &AttemptTicket, end: AttemptEnd<'_>) {
    let recorded = engine.router.record(ticket, end, engine.clock.mono());
    publish_health_changes(engine, recorded.changes);
    if recorded.capacity_changed {
        engine.notify_waiters();
    }
}

/// Publishes health changes as events and log lines.
pub(in crate::relay) fn publish_health_changes(engine: &Engine, changes: Vec<HealthChange>) {
    for change in changes {
        let message = change.message.map_texts(&|text| engine.sanitize(text).into());
        match change.level {
            Severity::Info => tracing::info!("{message}"),
            Severity::Warn | Severity::Error => tracing::warn!("{message}"),
        }
        engine.bus.publish(engine.clock.unix(), EventKind::health(message, change.level));
    }
}

/// Records that an upstream answered, so the local network is up.
pub(in crate::relay) fn record_reachable(engine: &Engine, upstream: &Upstream) {
    if engine.network.answered(upstream, engine.clock.mono()) {
        // Connections from before the outage are dead, although they look alive.
        engine.upstream_client.drop_idle();
        engine.notify_waiters();
        publish_notice(engine, Severity::Info, NoticeMessage::NetworkBack);
    }
}

/// Records that an upstream was unreachable; returns whether that proves that the local network
/// is down, which is published once.
pub(in crate::relay) fn record_unreachable(
    engine: &Engine,
    upstream: &Upstream,
    fault: &TransportFault,
) -> bool {
    let was = engine.network.down();
    let down = engine.network.failed(upstream, fault, engine.clock.mono());
    if down && !was {
        publish_notice(engine, Severity::Warn, NoticeMessage::NetworkDown);
    }
    down
}

/// Publishes a notice as an event and a log line.
pub fn publish_notice(engine: &Engine, level: Severity, notice: NoticeMessage) {
    match level {
        Severity::Error => tracing::error!("{notice}"),
        Severity::Info => tracing::info!("{notice}"),
        Severity::Warn => tracing::warn!("{notice}"),
    }
    engine.bus.publish(engine.clock.unix(), EventKind::Notice { text: notice.into(), level });
}
