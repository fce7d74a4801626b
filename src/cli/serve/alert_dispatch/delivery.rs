//! Delivers alerts to the desktop, the webhook and the chat card.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::AlertDispatcher;
use crate::{
    alerts::{
        deliver::{self, DeliveryResult, ReceiverKind},
        desktop,
        message::AlertMessage,
    },
    base::id::RequestId,
    config::settings::{AlertSettings, OutboundUrl},
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

    /// Delivers messages one at a time; each is retried until it is accepted or dropped.
    pub(super) async fn deliver_queued(
        &self,
        form: ReceiverKind,
        messages: &mut mpsc::Receiver<Arc<AlertMessage>>,
    ) {
        while let Some(message) = messages.recv().await {
            let mut retry_delays = deliver::RETRY_DELAYS.iter();
            loop {
                // Read the settings for each try because a reload may have changed them.
                let settings = self.settings();
                let Some(url) = channel_url(&settings, form) else { break };
                match self.deliver_once(&settings, url, form, &message).await {
                    DeliveryResult::Delivered => break,
                    DeliveryResult::Retry { reason: why, retry_after: after } => match retry_delays
                        .next()
                    {
                        Some(delay) => {
                            tracing::debug!(channel = form.name(), "alert not accepted yet: {why}");
                            tokio::time::sleep(after.unwrap_or(*delay)).await;
                        }
                        None => {
                            tracing::warn!(channel = form.name(), id = %message.id, "alert dropped after all retries: {why}");
                            break;
                        }
                    },
                    DeliveryResult::Rejected { reason: why } => {
                        tracing::warn!(channel = form.name(), id = %message.id, "alert rejected by its receiver: {why}");
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
        for form in [ReceiverKind::Webhook, ReceiverKind::Card] {
            let Some(url) = channel_url(&settings, form) else { continue };
            let channel = form.name().into();
            channels.push(match self.deliver_once(&settings, url, form, &message).await {
                DeliveryResult::Delivered => {
                    AlertTestResult::Accepted { channel, origin: url.origin().into() }
                }
                DeliveryResult::Retry { reason: why, .. }
                | DeliveryResult::Rejected { reason: why } => {
                    AlertTestResult::Failed { channel, problem: why.into() }
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

fn channel_url(settings: &AlertSettings, form: ReceiverKind) -> Option<&OutboundUrl> {
    match form {
        ReceiverKind::Card => settings.feishu.as_ref(),
        ReceiverKind::Webhook => settings.webhook.as_ref(),
    }
}
