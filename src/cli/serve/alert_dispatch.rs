//! Checks for alert conditions, publishes alerts and delivers them to the configured channels.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{broadcast::error::RecvError, mpsc};

use crate::cli::serve::keys::KeyLoader;
use crate::{
    alerts::{
        deliver::{self, DeliveryResult, ReceiverKind},
        desktop,
        message::AlertMessage,
        rules::{AlertCooldown, AlertInputs, AlertState, KeyAlertInputs, UpstreamAlertInputs},
        throttle::Throttle,
        usage_spike::{self, DailyUse},
    },
    base::{
        clock::{Mono, UnixMillis},
        id::RequestId,
    },
    config::settings::{AlertSettings, OutboundUrl},
    control::{
        active_alerts::ActiveAlerts,
        snapshot::{AlertView, KeyStatus, KeyView, UpstreamState, UpstreamView},
        views,
    },
    events::{
        alert::{Alert, AlertKind},
        event::{EventKind, Severity},
    },
    ledger::{
        Ledger,
        query::QueryError,
        totals::{GroupBy, TimeRange, TotalsRow},
    },
    relay::{engine::Engine, record::budget_hold},
    secrets::Secret,
    telemetry::metrics::Metrics,
    upstream::webhook_client::WebhookClient,
};

/// Interval between checks; events trigger an earlier one.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
const SETTLE_DELAY: Duration = Duration::from_millis(200);
/// Interval between comparisons of today's usage with other days.
const SPIKE_CHECK_INTERVAL: Duration = Duration::from_secs(600);
/// How long an alert stays active if nothing resolves it (a budget, a spike).
const UNRESOLVED_TTL: Duration = Duration::from_secs(3_600);
/// Upper bound for messages queued per channel.
const MAX_QUEUED: usize = 64;

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

/// The alerts seen so far.
#[derive(Default)]
pub(super) struct AlertMemory {
    state: AlertState,
    throttle: Throttle,
    /// Alerts published by other components, with their times.
    external: Vec<AlertView>,
    /// The last day for which a spike was published.
    last_spike_day: String,
    compared_at: Option<Mono>,
}

impl AlertMemory {
    /// Records an alert of another component until it is resolved or `UNRESOLVED_TTL` has passed.
    fn record(&mut self, alert: &Alert, at: UnixMillis) {
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
            self.external.drain(..self.external.len().saturating_sub(MAX_QUEUED));
        }
    }

    /// Makes the active budget alerts match the budgets that are full now. The counts persist
    /// across restarts.
    fn sync_budgets(&mut self, full: Vec<Alert>, at: UnixMillis) {
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

    fn active(&self) -> Vec<AlertView> {
        let active = self
            .state
            .visible_alerts()
            .map(|(since, alert)| AlertView { since, alert: alert.clone() });
        active.chain(self.external.iter().cloned()).collect()
    }
}

/// The delivery channels.
struct AlertChannels {
    desktop: mpsc::Sender<Arc<AlertMessage>>,
    webhook: mpsc::Sender<Arc<AlertMessage>>,
    card: mpsc::Sender<Arc<AlertMessage>>,
}

impl AlertDispatcher {
    /// Checks and delivers until the future is dropped.
    pub(super) async fn run(&self) {
        let (desktop, mut for_desktop) = mpsc::channel(MAX_QUEUED);
        let (webhook, mut for_webhook) = mpsc::channel(MAX_QUEUED);
        let (card, mut for_card) = mpsc::channel(MAX_QUEUED);
        let channels = AlertChannels { desktop, webhook, card };
        tokio::join!(
            self.watch_events(channels),
            async {
                while let Some(message) = for_desktop.recv().await {
                    self.show_on_desktop(&message).await;
                }
            },
            self.deliver_queued(ReceiverKind::Webhook, &mut for_webhook),
            self.deliver_queued(ReceiverKind::Card, &mut for_card),
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

    fn lock_memory(&self) -> std::sync::MutexGuard<'_, AlertMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks once. New alerts go to the bus and return from it like the alerts of other
    /// components.
    fn check(&self) {
        let (facts, now) = (self.collect_inputs(), self.engine.clock.unix());
        let alerts = {
            let mut memory = self.lock_memory();
            let alerts = memory.state.update(&facts, now);
            memory.external.retain(|other| {
                now.0 - other.since.0
                    < i64::try_from(UNRESOLVED_TTL.as_millis()).unwrap_or(i64::MAX)
            });
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
        let alert = usage_spike::detect_spike(now_used, &before);
        if let Some(alert) = alert
            && std::mem::replace(&mut self.lock_memory().last_spike_day, today.clone()) != today
        {
            self.publish(alert);
        }
    }

    fn collect_inputs(&self) -> AlertInputs {
        let generation = self.engine.generation();
        let keys = views::keys(&self.engine, &generation);
        let upstreams = views::upstreams(&self.engine, &generation);
        AlertInputs {
            upstreams: upstreams
                .iter()
                .filter(|u| u.state != UpstreamState::Disabled)
                .map(|u| self.upstream_inputs(u, &keys))
                .collect(),
            ledger_error: self
                .ledger
                .as_ref()
                .and_then(|ledger| ledger.status(&self.engine.ledger_queue).problem),
            unrecorded_requests: self.engine.ledger_queue.unrecorded(),
            offline: self.engine.network.down(),
        }
    }

    fn upstream_inputs(&self, view: &UpstreamView, keys: &[KeyView]) -> UpstreamAlertInputs {
        let usable = |key: &&KeyView| {
            key.upstream == view.name
                && !matches!(
                    key.state,
                    KeyStatus::Disabled | KeyStatus::Missing | KeyStatus::Waiting
                )
        };
        let (attempts, errors) = view
            .stats
            .spark
            .iter()
            .fold((0, 0), |(all, bad), (more, failed)| (all + more, bad + failed));
        UpstreamAlertInputs {
            name: view.name.clone(),
            outage: (view.state == UpstreamState::Open)
                .then(|| AlertCooldown { until: view.until, cause: view.cause.clone() }),
            keys: keys.iter().filter(usable).map(key_inputs).collect(),
            success_count: self.metrics.success_count(&view.name),
            recent_attempts: attempts,
            recent_errors: errors,
        }
    }

    /// Queues a published alert for every channel that accepts it.
    fn send_to_channels(&self, alert: &Alert, channels: &AlertChannels) {
        let settings = self.settings();
        let (now, at) = (self.engine.clock.mono(), self.engine.clock.unix());
        let suppressed = {
            let mut memory = self.lock_memory();
            memory.record(alert, at);
            self.active_alerts.set(memory.active());
            memory.throttle.admit(alert, &settings.events, now)
        };
        let Some(left_out) = suppressed else { return };
        let message = Arc::new(self.build_message(alert.clone(), left_out));
        for (wanted, channel, name) in [
            (settings.desktop, &channels.desktop, "desktop"),
            (settings.webhook.is_some(), &channels.webhook, "webhook"),
            (settings.feishu.is_some(), &channels.card, "feishu"),
        ] {
            if wanted && channel.try_send(Arc::clone(&message)).is_err() {
                tracing::warn!(way = name, alert = %alert.kind, "an alert is not sent: too many wait");
            }
        }
    }

    fn build_message(&self, alert: Alert, left_out: u32) -> AlertMessage {
        let at = self.engine.clock.unix();
        AlertMessage {
            id: RequestId::new(at).to_string(),
            at,
            alert,
            suppressed: left_out,
            host: self.host.clone(),
        }
    }

    fn settings(&self) -> AlertSettings {
        self.engine.generation().settings.alerts.clone()
    }

    async fn show_on_desktop(&self, message: &AlertMessage) {
        if let Err(why) = desktop::show_notification(
            &message.title(),
            &message.text(),
            message.alert.level == Severity::Error,
            &self.env,
        )
        .await
        {
            tracing::warn!("an alert is not shown on the desktop: {why}");
        }
    }

    /// Delivers messages one at a time; each is retried until it is accepted or dropped.
    async fn deliver_queued(
        &self,
        form: ReceiverKind,
        messages: &mut mpsc::Receiver<Arc<AlertMessage>>,
    ) {
        while let Some(message) = messages.recv().await {
            let mut pauses = deliver::RETRY_DELAYS.iter();
            loop {
                // Read the settings for each try because a reload may have changed them.
                let settings = self.settings();
                let Some(url) = channel_url(&settings, form) else { break };
                match self.deliver_once(&settings, url, form, &message).await {
                    DeliveryResult::Delivered => break,
                    DeliveryResult::Retry { reason: why, retry_after: after } => {
                        match pauses.next() {
                            Some(pause) => {
                                tracing::debug!(
                                    way = form.name(),
                                    "an alert is not taken yet: {why}"
                                );
                                tokio::time::sleep(after.unwrap_or(*pause)).await;
                            }
                            None => {
                                tracing::warn!(way = form.name(), id = %message.id, "an alert is given up: {why}");
                                break;
                            }
                        }
                    }
                    DeliveryResult::Rejected { reason: why } => {
                        tracing::warn!(way = form.name(), id = %message.id, "an alert is refused: {why}");
                        break;
                    }
                }
            }
        }
    }

    async fn deliver_once(
        &self,
        settings: &AlertSettings,
        url: &OutboundUrl,
        form: ReceiverKind,
        message: &AlertMessage,
    ) -> DeliveryResult {
        match self.signing_secret(settings).await {
            Ok(secret) => {
                deliver::deliver_once(
                    &self.webhook_client,
                    url,
                    form,
                    secret.as_ref(),
                    message,
                    self.engine.clock.unix(),
                )
                .await
            }
            // Do not send it unsigned: the receiver must reject an unsigned message.
            Err(why) => DeliveryResult::Retry { reason: why, retry_after: None },
        }
    }

    async fn signing_secret(&self, settings: &AlertSettings) -> Result<Option<Secret>, String> {
        let Some(reference) = &settings.secret else { return Ok(None) };
        let read = self.loader.resolver.resolve_any_key(reference).await;
        read.map(Some)
            .map_err(|error| format!("`alerts.secret`: {}; {}", error.text(), error.hint()))
    }

    /// Sends one test message to every configured channel and returns the results.
    pub(super) async fn send_test(&self) -> Result<String, String> {
        let settings = self.settings();
        let alert = Alert {
            kind: AlertKind::Test,
            subject: "test".into(),
            text: "a test of the alerts of aiproxy: if you read this, they arrive".into(),
            level: Severity::Info,
        };
        let message = self.build_message(alert, 0);
        let (mut lines, mut failed) = (Vec::new(), false);
        if settings.desktop {
            match desktop::show_notification(&message.title(), &message.text(), false, &self.env)
                .await
            {
                Ok(program) => lines.push(format!("desktop: shown by {program}")),
                Err(why) => {
                    failed = true;
                    lines.push(format!("desktop: {why}"));
                }
            }
        }
        for form in [ReceiverKind::Webhook, ReceiverKind::Card] {
            let Some(url) = channel_url(&settings, form) else { continue };
            match self.deliver_once(&settings, url, form, &message).await {
                DeliveryResult::Delivered => {
                    lines.push(format!("{}: taken by {}", form.name(), url.origin()));
                }
                DeliveryResult::Retry { reason: why, .. }
                | DeliveryResult::Rejected { reason: why } => {
                    failed = true;
                    lines.push(format!("{}: {why}", form.name()));
                }
            }
        }
        match (lines.is_empty(), failed) {
            (true, _) => {
                Err("alerts go nowhere: set `desktop`, `webhook` or `feishu` under [alerts]"
                    .to_owned())
            }
            (false, true) => Err(lines.join("\n")),
            (false, false) => Ok(lines.join("\n")),
        }
    }
}

fn channel_url(settings: &AlertSettings, form: ReceiverKind) -> Option<&OutboundUrl> {
    match form {
        ReceiverKind::Card => settings.feishu.as_ref(),
        ReceiverKind::Webhook => settings.webhook.as_ref(),
    }
}

fn key_inputs(view: &KeyView) -> KeyAlertInputs {
    let rest = |until: Option<UnixMillis>, cause: &Option<String>| AlertCooldown {
        until,
        cause: cause.clone(),
    };
    let resting = |state| matches!(state, KeyStatus::Cooling);
    KeyAlertInputs {
        name: format!("{}/{}", view.upstream, view.label),
        rejection: (view.state == KeyStatus::Rejected)
            .then(|| view.cause.clone().unwrap_or_default()),
        cooldown: resting(view.state).then(|| rest(view.until, &view.cause)),
        model_cooldowns: view
            .scopes
            .iter()
            .filter(|scope| resting(scope.state))
            .map(|scope| (scope.model.clone(), rest(scope.until, &scope.cause)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_told_stands_until_it_is_over_and_the_newest_counts() {
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
        let standing: Vec<_> = memory
            .active()
            .into_iter()
            .map(|view| (view.alert.kind, view.alert.subject.to_string()))
            .collect();
        assert_eq!(standing, [(AlertKind::BudgetSpent, "project ide".to_owned())]);
    }

    #[test]
    fn budgets_stand_while_they_are_full() {
        let mut memory = AlertMemory::default();
        let alert = |what, text: &str| Alert {
            kind: what,
            subject: "project ide".into(),
            text: text.into(),
            level: Severity::Warn,
        };
        let standing = |memory: &AlertMemory| {
            memory
                .active()
                .into_iter()
                .map(|view| (view.since.0, view.alert.text.to_string()))
                .collect::<Vec<_>>()
        };

        memory.sync_budgets(vec![alert(AlertKind::BudgetNear, "81 %")], UnixMillis(1));
        memory.sync_budgets(vec![alert(AlertKind::BudgetNear, "90 %")], UnixMillis(2));
        assert_eq!(standing(&memory), [(1, "90 %".to_owned())]);
        memory.sync_budgets(vec![alert(AlertKind::BudgetSpent, "100 %")], UnixMillis(3));
        assert_eq!(standing(&memory), [(3, "100 %".to_owned())]);
        memory.sync_budgets(Vec::new(), UnixMillis(4));
        assert_eq!(standing(&memory), []);
    }
}
