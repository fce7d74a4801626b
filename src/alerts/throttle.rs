//! Decides whether an alert is sent: its kind is enabled, it is not a repetition, and there are not
//! too many.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    base::clock::Mono,
    config::settings::AlertEvent,
    events::alert::{Alert, AlertKind},
};

/// Maximum number of alerts within [`ALERT_WINDOW`], about any subject.
const MAX_ALERTS: usize = 20;
const ALERT_WINDOW: Duration = Duration::from_secs(10 * 60);

/// Returns the config value that enables a kind of alert; `None` for kinds that are always sent.
#[must_use]
pub fn alert_event(kind: AlertKind) -> Option<AlertEvent> {
    Some(match kind {
        AlertKind::BalanceLow => AlertEvent::Balance,
        AlertKind::BudgetNear | AlertKind::BudgetSpent => AlertEvent::Budget,
        AlertKind::ErrorRate => AlertEvent::ErrorRate,
        AlertKind::KeyOut | AlertKind::KeyRejected => AlertEvent::KeyDown,
        AlertKind::KeysCooling | AlertKind::UpstreamDown => AlertEvent::UpstreamDown,
        AlertKind::Ledger => AlertEvent::Ledger,
        AlertKind::Recovered => AlertEvent::Recovered,
        AlertKind::Test => return None,
        AlertKind::UsageSpike => AlertEvent::Spike,
    })
}

/// Alerts that were sent recently.
#[derive(Debug, Default)]
pub struct Throttle {
    last_sent: BTreeMap<(AlertKind, Arc<str>), Mono>,
    /// Subjects with a sent and unresolved alert; recoveries are sent only for these.
    open_subjects: BTreeMap<Arc<str>, Mono>,
    recent: VecDeque<Mono>,
    suppressed: u32,
}

impl Throttle {
    /// Returns `Some` if the alert is sent, with the number of alerts that were suppressed before
    /// it because there were too many.
    pub fn admit(
        &mut self,
        alert: &Alert,
        wanted: &[AlertEvent],
        repeat_after: Duration,
        now: Mono,
    ) -> Option<u32> {
        let Some(event) = alert_event(alert.kind) else { return Some(0) };
        if alert.kind == AlertKind::Recovered {
            // Removed first: after a recovery the next problem starts anew, even if recovery alerts
            // are disabled.
            self.open_subjects.remove(&alert.subject).filter(|_| wanted.contains(&event))?;
            return self.reserve_slot(now);
        }
        if !wanted.contains(&event) {
            return None;
        }
        self.last_sent.retain(|_, at| now.since(*at) < repeat_after);
        let id = (alert.kind, Arc::clone(&alert.subject));
        if self.last_sent.contains_key(&id) {
            return None;
        }
        let suppressed = self.reserve_slot(now)?;
        self.last_sent.insert(id, now);
        self.open_subjects.insert(Arc::clone(&alert.subject), now);
        // Bounds the map, because some problems never report their end.
        while self.open_subjects.len() > 1_000 {
            let oldest = self
                .open_subjects
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(subject, _)| Arc::clone(subject))?;
            self.open_subjects.remove(&oldest);
        }
        Some(suppressed)
    }

    fn reserve_slot(&mut self, now: Mono) -> Option<u32> {
        while self.recent.front().is_some_and(|at| now.since(*at) >= ALERT_WINDOW) {
            self.recent.pop_front();
        }
        if self.recent.len() >= MAX_ALERTS {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.recent.push_back(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::Severity;

    const ALL: [AlertEvent; 3] =
        [AlertEvent::UpstreamDown, AlertEvent::Recovered, AlertEvent::Budget];

    const REPEAT: Duration = Duration::from_secs(900);

    fn alert(what: AlertKind, subject: &str) -> Alert {
        Alert { kind: what, subject: subject.into(), text: "x".into(), level: Severity::Error }
    }

    fn at(minutes: u64) -> Mono {
        Mono(Duration::from_secs(minutes * 60))
    }

    #[test]
    fn same_problem_is_sent_once_in_fifteen_minutes_and_so_is_its_end() {
        let (mut throttle, down, well) = (
            Throttle::default(),
            alert(AlertKind::UpstreamDown, "groq"),
            alert(AlertKind::Recovered, "groq"),
        );
        let mut goes =
            |alert: &Alert, minute| throttle.admit(alert, &ALL, REPEAT, at(minute)).is_some();

        assert!(!goes(&well, 0), "its outage was not sent");
        assert!(goes(&down, 1) && goes(&well, 2));
        assert!(!goes(&down, 3), "it comes and goes");
        assert!(!goes(&well, 4), "and nobody hears of its end");
        assert!(goes(&alert(AlertKind::UpstreamDown, "mistral"), 5), "another is another matter");
        assert!(goes(&down, 16) && goes(&well, 17));
    }

    #[test]
    fn unselected_alerts_are_not_sent_and_tests_always_are() {
        let mut throttle = Throttle::default();
        for _ in 0..2 {
            assert_eq!(
                throttle.admit(&alert(AlertKind::ErrorRate, "groq"), &ALL, REPEAT, at(0)),
                None
            );
            assert_eq!(
                throttle.admit(&alert(AlertKind::Test, "test"), &[], REPEAT, at(0)),
                Some(0)
            );
        }
        assert_eq!(
            throttle.admit(
                &alert(AlertKind::UpstreamDown, "groq"),
                &[AlertEvent::UpstreamDown],
                REPEAT,
                at(0)
            ),
            Some(0)
        );
        assert_eq!(
            throttle.admit(
                &alert(AlertKind::Recovered, "groq"),
                &[AlertEvent::UpstreamDown],
                REPEAT,
                at(0)
            ),
            None
        );
    }

    #[test]
    fn flood_is_limited_and_the_next_alert_has_the_suppressed_count() {
        let mut throttle = Throttle::default();
        let goes = (0..50).filter(|n| {
            throttle
                .admit(&alert(AlertKind::BudgetNear, &format!("project {n}")), &ALL, REPEAT, at(0))
                .is_some()
        });
        assert_eq!(goes.count(), MAX_ALERTS);
        assert_eq!(
            throttle.admit(&alert(AlertKind::BudgetNear, "late"), &ALL, REPEAT, at(10)),
            Some(30)
        );
        assert_eq!(
            throttle.admit(&alert(AlertKind::BudgetNear, "later"), &ALL, REPEAT, at(10)),
            Some(0)
        );
    }
}
