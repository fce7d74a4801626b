//! Remembers which alerts are active and which were sent.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    alerts::{rules::AlertState, throttle::Throttle},
    base::clock::{Mono, UnixMillis},
    config::settings::{AlertEvent, AlertSettings},
    control::snapshot::AlertView,
    events::alert::{Alert, AlertKind},
};

/// How long an alert stays active if nothing resolves it (a budget, a spike).
const UNRESOLVED_TTL: Duration = Duration::from_secs(3_600);
/// Upper bound for remembered alerts of other components.
const MAX_EXTERNAL: usize = 64;

/// The alerts seen so far.
#[derive(Default)]
pub(in crate::cli::serve) struct AlertMemory {
    pub(super) state: AlertState,
    /// By name of the receiver.
    pub(super) throttles: BTreeMap<Arc<str>, Throttle>,
    /// Alerts published by other components, with their times.
    external: Vec<AlertView>,
    /// The last day for which a spike was published.
    pub(super) last_spike_day: String,
    pub(super) compared_at: Option<Mono>,
}

impl AlertMemory {
    /// Records an alert of another component until it is resolved or `UNRESOLVED_TTL` has passed.
    pub(super) fn record(&mut self, alert: &Alert, at: UnixMillis) {
        let lasts = matches!(
            alert.kind,
            AlertKind::BalanceLow
                | AlertKind::BudgetNear
                | AlertKind::BudgetSpent
                | AlertKind::UsageSpike
        );
        if lasts || alert.kind == AlertKind::Recovered {
            self.external.retain(|other| other.alert.subject != alert.subject);
        }
        if lasts {
            self.external.push(AlertView { since: at, alert: alert.clone() });
            self.external.drain(..self.external.len().saturating_sub(MAX_EXTERNAL));
        }
    }

    /// Returns the channels that an alert is sent to, with the number of alerts that each has
    /// missed before. A channel without events of its own has those of `[alerts]`.
    pub(super) fn admit<'a>(
        &mut self,
        alert: &Alert,
        channels: impl Iterator<Item = (&'a Arc<str>, &'a Vec<AlertEvent>)>,
        settings: &AlertSettings,
        now: Mono,
    ) -> Vec<(Arc<str>, u32)> {
        let mut before = std::mem::take(&mut self.throttles);
        let mut admitted = Vec::new();
        for (name, events) in channels {
            let wanted = if events.is_empty() { &settings.events } else { events };
            let mut throttle = before.remove(name).unwrap_or_default();
            if let Some(left_out) = throttle.admit(alert, wanted, settings.repeat_after, now) {
                admitted.push((Arc::clone(name), left_out));
            }
            self.throttles.insert(Arc::clone(name), throttle);
        }
        admitted
    }

    /// Forgets the alerts of other components that have been active for `UNRESOLVED_TTL`.
    pub(super) fn drop_expired(&mut self, now: UnixMillis) {
        let ttl_ms = i64::try_from(UNRESOLVED_TTL.as_millis()).unwrap_or(i64::MAX);
        self.external.retain(|other| now.0 - other.since.0 < ttl_ms);
    }

    /// Makes the active budget alerts match the budgets that are full now. The counts persist
    /// across restarts.
    pub(super) fn sync_budgets(&mut self, full: Vec<Alert>, at: UnixMillis) {
        let is_budget =
            |alert: &Alert| matches!(alert.kind, AlertKind::BudgetNear | AlertKind::BudgetSpent);
        let same = |a: &Alert, b: &Alert| a.subject == b.subject && a.kind == b.kind;
        self.external.retain(|other| {
            !is_budget(&other.alert) || full.iter().any(|alert| same(alert, &other.alert))
        });
        for alert in full {
            match self.external.iter_mut().find(|other| same(&alert, &other.alert)) {
                Some(known) => known.alert = alert,
                None => self.external.push(AlertView { since: at, alert }),
            }
        }
    }

    pub(super) fn active(&self) -> Vec<AlertView> {
        let active = self
            .state
            .visible_alerts()
            .map(|(since, alert)| AlertView { since, alert: alert.clone() });
        active.chain(self.external.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::Severity;

    #[test]
    fn alert_stays_active_until_resolved_or_replaced() {
        let mut memory = AlertMemory::default();
        let alert = |what, subject: &str| Alert {
            kind: what,
            subject: subject.into(),
            text: "x".into(),
            level: Severity::Warn,
        };
        for (what, subject) in [
            (AlertKind::BudgetNear, "project ide"),
            (AlertKind::BalanceLow, "one/work"),
            (AlertKind::BudgetSpent, "project ide"),
            (AlertKind::KeyRejected, "two/work"),
            (AlertKind::Recovered, "one/work"),
        ] {
            memory.record(&alert(what, subject), UnixMillis(0));
        }
        let active: Vec<_> = memory
            .active()
            .into_iter()
            .map(|view| (view.alert.kind, view.alert.subject.to_string()))
            .collect();
        assert_eq!(active, [(AlertKind::BudgetSpent, "project ide".to_owned())]);
    }

    #[test]
    fn budget_alerts_follow_the_budgets() {
        let mut memory = AlertMemory::default();
        let alert = |what, text: &str| Alert {
            kind: what,
            subject: "project ide".into(),
            text: text.into(),
            level: Severity::Warn,
        };
        let active = |memory: &AlertMemory| {
            memory
                .active()
                .into_iter()
                .map(|view| (view.since.0, view.alert.text.to_string()))
                .collect::<Vec<_>>()
        };

        memory.sync_budgets(vec![alert(AlertKind::BudgetNear, "81 %")], UnixMillis(1));
        memory.sync_budgets(vec![alert(AlertKind::BudgetNear, "90 %")], UnixMillis(2));
        assert_eq!(active(&memory), [(1, "90 %".to_owned())]);
        memory.sync_budgets(vec![alert(AlertKind::BudgetSpent, "100 %")], UnixMillis(3));
        assert_eq!(active(&memory), [(3, "100 %".to_owned())]);
        memory.sync_budgets(Vec::new(), UnixMillis(4));
        assert_eq!(active(&memory), []);
    }
}
