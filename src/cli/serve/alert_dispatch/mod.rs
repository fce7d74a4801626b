//! Checks for alert conditions, publishes alerts and delivers them to the configured channels.

mod delivery;
mod inputs;
mod memory;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::{broadcast::error::RecvError, mpsc};

use self::memory::AlertMemory;
use crate::cli::serve::keys::load::KeyLoader;
use crate::{
    alerts::{
        message::AlertMessage,
        usage_spike::{self, DailyUse},
    },
    base::sync::{Mutex, MutexGuard},
    config::settings::{AlertReceiver, AlertSettings},
    control::active_alerts::ActiveAlerts,
    events::{
        alert::Alert,
        event::{EventKind, Severity},
    },
    ledger::{
        Ledger,
        query::QueryError,
        time_range::TimeRange,
        totals::{GroupBy, TotalsRow},
    },
    relay::{engine::Engine, record::budget_hold},
    telemetry::metrics::Metrics,
    upstream::webhook_client::WebhookClient,
};

/// Interval between checks; events trigger an earlier one.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
const SETTLE_DELAY: Duration = Duration::from_millis(200);
/// Interval between comparisons of today's usage with other days.
const SPIKE_CHECK_INTERVAL: Duration = Duration::from_secs(600);
/// Upper bound for messages queued per channel.
const MAX_QUEUED: usize = 64;
/// The name of the channel of desktop notifications; no receiver has a blank in its name.
const DESKTOP: &str = "the desktop";

/// The state for checking and delivering alerts.
pub(super) struct AlertDispatcher {
    pub(super) engine: Arc<Engine>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ledger: Option<Arc<Ledger>>,
    pub(super) loader: Arc<KeyLoader>,
    pub(super) active_alerts: Arc<ActiveAlerts>,
    pub(super) webhook_client: Arc<WebhookClient>,
    /// Environment variables for desktop notification programs.
    pub(super) env: HashMap<String, String>,
    pub(super) host: String,
    pub(super) memory: Mutex<AlertMemory>,
}

/// The delivery channels.
struct AlertChannels {
    desktop: mpsc::Sender<Arc<AlertMessage>>,
    /// With the name of the receiver.
    receivers: mpsc::Sender<(Arc<str>, Arc<AlertMessage>)>,
}

impl AlertDispatcher {
    /// Checks and delivers until the future is dropped.
    pub(super) async fn run(&self) {
        let (desktop, mut for_desktop) = mpsc::channel(MAX_QUEUED);
        let (receivers, mut for_receivers) = mpsc::channel(MAX_QUEUED);
        let channels = AlertChannels { desktop, receivers };
        tokio::join!(
            self.watch_events(channels),
            async {
                while let Some(message) = for_desktop.recv().await {
                    self.show_on_desktop(&message).await;
                }
            },
            self.deliver_queued(&mut for_receivers),
        );
    }

    async fn watch_events(&self, channels: AlertChannels) {
        let mut events = self.engine.bus.subscribe_status();
        let mut last_check = self.engine.clock.mono();
        loop {
            let wait = CHECK_INTERVAL.saturating_sub(self.engine.clock.mono().since(last_check));
            match tokio::time::timeout(wait, events.recv()).await {
                Ok(Ok(event)) => match &event.kind {
                    EventKind::Alert { alert } => {
                        self.send_to_channels(alert, &channels);
                        continue;
                    }
                    // Let the state settle, because a change may be reverted a moment later.
                    _ => tokio::time::sleep(SETTLE_DELAY).await,
                },
                Ok(Err(RecvError::Lagged(_))) | Err(_) => {}
                Ok(Err(RecvError::Closed)) => return,
            }
            if self.engine.clock.mono().since(last_check) >= SETTLE_DELAY {
                self.check();
                self.check_usage_spike().await;
                last_check = self.engine.clock.mono();
            }
        }
    }

    fn lock_memory(&self) -> MutexGuard<'_, AlertMemory> {
        self.memory.lock()
    }

    /// Checks once. New alerts go to the bus and return from it like the alerts of other
    /// components.
    fn check(&self) {
        let (facts, now) = (
            inputs::collect_inputs(&self.engine, self.ledger.as_deref(), &self.metrics),
            self.engine.clock.unix(),
        );
        let alerts = {
            let mut memory = self.lock_memory();
            let alerts = memory.state.update(&facts, now);
            memory.drop_expired(now);
            memory.sync_budgets(budget_hold::budget_alerts(&self.engine), now);
            self.active_alerts.set(memory.active());
            alerts
        };
        for alert in alerts {
            self.publish(alert);
        }
    }

    fn publish(&self, alert: Alert) {
        let alert = Alert { text: self.engine.sanitize(&alert.text).into(), ..alert };
        match alert.level {
            Severity::Info => tracing::info!(alert = %alert.kind, "{}", alert.text),
            Severity::Warn => tracing::warn!(alert = %alert.kind, "{}", alert.text),
            Severity::Error => tracing::error!(alert = %alert.kind, "{}", alert.text),
        }
        self.engine.bus.publish(self.engine.clock.unix(), EventKind::Alert { alert });
    }

    /// Compares today's usage with the previous days.
    async fn check_usage_spike(&self) {
        let now = self.engine.clock.mono();
        let due =
            self.lock_memory().compared_at.is_none_or(|at| now.since(at) >= SPIKE_CHECK_INTERVAL);
        let Some(ledger) = self.ledger.clone().filter(|_| due) else { return };
        self.lock_memory().compared_at = Some(now);
        let at = self.engine.clock.unix();
        let query = tokio::task::spawn_blocking(move || {
            let reader = ledger.reader()?;
            let since = TimeRange::Days(u32::try_from(usage_spike::BASELINE_DAYS).unwrap_or(7) + 1);
            Ok::<_, QueryError>((
                reader.day_name(at),
                reader.usage(GroupBy::Day, since, None, at)?.days,
            ))
        });
        // Without a ledger there is no data to compare. Another alert reports that.
        let Ok(Ok((today, days))) = query.await else { return };
        let used = |row: &TotalsRow| DailyUse {
            cost: row.totals.cost,
            tokens: row.totals.usage.input_total().saturating_add(row.totals.usage.output_total()),
        };
        let now_used = days.iter().find(|row| row.name == today).map(used).unwrap_or_default();
        let before: Vec<DailyUse> = days.iter().filter(|row| row.name != today).map(used).collect();
        let alert = usage_spike::detect_spike(now_used, &before, self.settings().spike_factor);
        if let Some(alert) = alert
            && std::mem::replace(&mut self.lock_memory().last_spike_day, today.clone()) != today
        {
            self.publish(alert);
        }
    }

    /// Queues a published alert for every channel that accepts it.
    fn send_to_channels(&self, alert: &Alert, channels: &AlertChannels) {
        let settings = self.settings();
        let receivers = self.receivers();
        let (now, at) = (self.engine.clock.mono(), self.engine.clock.unix());
        let admitted = {
            let mut memory = self.lock_memory();
            memory.record(alert, at);
            self.active_alerts.set(memory.active());
            let names = receivers.iter().map(|receiver| (&receiver.name, &receiver.events));
            let desktop = (Arc::from(DESKTOP), Vec::new());
            let names = names.chain(settings.desktop.then_some((&desktop.0, &desktop.1)));
            memory.admit(alert, names, &settings, now)
        };
        for (name, left_out) in admitted {
            let message = Arc::new(self.build_message(alert.clone(), left_out));
            let queued = if *name == *DESKTOP {
                channels.desktop.try_send(message).is_ok()
            } else {
                channels.receivers.try_send((Arc::clone(&name), message)).is_ok()
            };
            if !queued {
                tracing::warn!(channel = %name, alert = %alert.kind, "alert not sent: too many are queued");
            }
        }
    }

    /// Returns the receivers of the current settings.
    fn receivers(&self) -> Vec<Arc<AlertReceiver>> {
        let settings = &self.engine.generation().settings;
        let mut receivers = AlertReceiver::of_alerts(&settings.alerts);
        receivers.extend(settings.alert_receivers.iter().cloned());
        receivers
    }

    /// The current settings of alerts.
    fn settings(&self) -> AlertSettings {
        self.engine.generation().settings.alerts.clone()
    }
}
