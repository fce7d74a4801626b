//! Delivers alerts to the desktop and to the receivers.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{AlertDispatcher, MAX_QUEUED};
use crate::{
    alerts::{
        deliver::{self, DeliveryResult},
        desktop,
        message::AlertMessage,
    },
    base::id::RequestId,
    config::settings::AlertReceiver,
    control::action_message::{ActionMessage, AlertTestResult},
    events::{
        alert::{Alert, AlertKind},
        event::Severity,
    },
    secrets::Secret,
};

impl AlertDispatcher {
    /// The message about an alert. `left_out` earlier alerts of its kind were suppressed.
    pub(super) fn build_message(&self, alert: Alert, left_out: u32) -> AlertMessage {
        let at = self.engine.clock.unix();
        AlertMessage {
            id: RequestId::new(at).to_string(),
            at,
            alert,
            suppressed: left_out,
            host: self.host.clone(),
        }
    }

    /// Shows one message on the desktop.
    pub(super) async fn show_on_desktop(&self, message: &AlertMessage) {
        if let Err(why) = desktop::show_notification(
            &message.title(),
            &message.text(),
            message.alert.level == Severity::Error,
            &self.env,
        )
        .await
        {
            tracing::warn!("alert not shown on the desktop: {why}");
        }
    }

    /// Delivers messages: to each receiver one at a time, and to different receivers at once.
    pub(super) async fn deliver_queued(
        &self,
        messages: &mut mpsc::Receiver<(Arc<str>, Arc<AlertMessage>)>,
    ) {
        // What waits for the receivers that are busy now.
        let mut waiting: BTreeMap<Arc<str>, VecDeque<Arc<AlertMessage>>> = BTreeMap::new();
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some((name, message)) = messages.recv() => match waiting.get_mut(&name) {
                    Some(queue) if queue.len() >= MAX_QUEUED => {
                        tracing::warn!(channel = %name, id = %message.id, "alert not sent: too many are queued");
                    }
                    Some(queue) => queue.push_back(message),
                    None => {
                        waiting.insert(Arc::clone(&name), VecDeque::new());
                        running.push(self.deliver(name, message));
                    }
                },
                Some(name) = running.next(), if !running.is_empty() => {
                    match waiting.get_mut(&name).and_then(VecDeque::pop_front) {
                        Some(message) => running.push(self.deliver(name, message)),
                        None => drop(waiting.remove(&name)),
                    }
                }
                else => return,
            }
        }
    }

    /// Tries until the message is accepted or dropped; returns the name of the receiver.
    async fn deliver(&self, name: Arc<str>, message: Arc<AlertMessage>) -> Arc<str> {
        let mut retry_delays = deliver::RETRY_DELAYS.iter();
        loop {
            // Read the settings for each try because a reload may have changed them.
            let receivers = self.receivers();
            let Some(receiver) = receivers.iter().find(|row| row.name == name) else { break };
            match self.deliver_once(receiver, &message).await {
                DeliveryResult::Delivered => break,
                DeliveryResult::Retry { reason, retry_after } => match retry_delays.next() {
                    Some(delay) => {
                        tracing::debug!(channel = %name, "alert not accepted yet: {reason}");
                        tokio::time::sleep(retry_after.unwrap_or(*delay)).await;
                    }
                    None => {
                        tracing::warn!(channel = %name, id = %message.id, "alert dropped after all retries: {reason}");
                        break;
                    }
                },
                DeliveryResult::Rejected { reason } => {
                    tracing::warn!(channel = %name, id = %message.id, "alert rejected by its receiver: {reason}");
                    break;
                }
            }
        }
        name
    }

    async fn deliver_once(
        &self,
        receiver: &AlertReceiver,
        message: &AlertMessage,
    ) -> DeliveryResult {
        match self.read_secret(receiver).await {
            Ok(secret) => {
                let now = self.engine.clock.unix();
                let client = &self.webhook_client;
                deliver::deliver_once(client, receiver, secret.as_ref(), message, now).await
            }
            // Do not send it unsigned: the receiver must reject an unsigned message.
            Err(reason) => DeliveryResult::Retry { reason, retry_after: None },
        }
    }

    async fn read_secret(&self, receiver: &AlertReceiver) -> Result<Option<Secret>, String> {
        let Some(reference) = &receiver.secret else { return Ok(None) };
        let read = self.loader.resolver.resolve_any_key(reference).await;
        read.map(Some).map_err(|error| {
            format!("secret of `{}`: {}; {}", receiver.name, error.text(), error.hint())
        })
    }

    /// Sends one test message to every configured channel and returns the results.
    pub(in crate::cli::serve) async fn send_test(&self) -> Result<ActionMessage, ActionMessage> {
        let settings = self.settings();
        let alert = Alert {
            kind: AlertKind::Test,
            subject: "test".into(),
            text: "test alert of aiproxy: delivery works".into(),
            level: Severity::Info,
        };
        let message = self.build_message(alert, 0);
        let mut channels = Vec::new();
        if settings.desktop {
            match desktop::show_notification(&message.title(), &message.text(), false, &self.env)
                .await
            {
                Ok(program) => channels.push(AlertTestResult::Shown { program: program.into() }),
                Err(why) => channels.push(AlertTestResult::Failed {
                    channel: "desktop".into(),
                    problem: why.into(),
                }),
            }
        }
        for receiver in self.receivers() {
            let channel = Arc::clone(&receiver.name);
            let origin = receiver.url.as_ref().map_or("", |url| url.origin()).into();
            channels.push(match self.deliver_once(&receiver, &message).await {
                DeliveryResult::Delivered => AlertTestResult::Accepted { channel, origin },
                DeliveryResult::Retry { reason, .. } | DeliveryResult::Rejected { reason } => {
                    AlertTestResult::Failed { channel, problem: reason.into() }
                }
            });
        }
        if channels.is_empty() {
            return Err(ActionMessage::NoAlertChannel);
        }
        let failed = channels.iter().any(|result| matches!(result, AlertTestResult::Failed { .. }));
        let tested = ActionMessage::AlertsTested { channels };
        if failed { Err(tested) } else { Ok(tested) }
    }
}
