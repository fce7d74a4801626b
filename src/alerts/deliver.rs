//! Sends an alert to a receiver and retries after a failure.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use crate::alerts::message::{self, AlertMessage};
use crate::{
    base::{clock::UnixMillis, sanitize},
    config::settings::OutboundUrl,
    secrets::Secret,
    upstream::webhook_client::{WebhookClient, WebhookResponse},
};

/// Delays between attempts; after the last one the alert is dropped.
pub const RETRY_DELAYS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(240),
];

/// The kind of receiver that an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverKind {
    Card,
    Webhook,
}

impl ReceiverKind {
    /// The config key of this kind of receiver.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Card => "feishu",
            Self::Webhook => "webhook",
        }
    }
}

/// The result of a delivery attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryResult {
    Delivered,
    /// Another attempt may help, after this delay if the receiver sent one.
    Retry {
        reason: String,
        retry_after: Option<Duration>,
    },
    Rejected {
        reason: String,
    },
}

/// Makes one delivery attempt.
pub async fn deliver_once(
    poster: &WebhookClient,
    url: &OutboundUrl,
    receiver: ReceiverKind,
    secret: Option<&Secret>,
    message: &AlertMessage,
    now: UnixMillis,
) -> DeliveryResult {
    let mut headers = HeaderMap::new();
    let body = match receiver {
        ReceiverKind::Card => message.card_body(secret, now),
        ReceiverKind::Webhook => {
            let body = message.webhook_body();
            set_headers(&mut headers, secret, message, now, &body);
            body
        }
    };
    match poster.post(url, headers, &[], body).await {
        Ok(response) => classify_response(receiver, url, &response),
        Err(fault) => DeliveryResult::Retry { reason: fault.reason.to_string(), retry_after: None },
    }
}

fn set_headers(
    headers: &mut HeaderMap,
    secret: Option<&Secret>,
    message: &AlertMessage,
    now: UnixMillis,
    body: &Bytes,
) {
    let seconds = now.0 / 1_000;
    let mut put = |name: &'static str, value: String| {
        // The value contains only digits and letters.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    put("x-aiproxy-id", message.id.clone());
    put("x-aiproxy-timestamp", seconds.to_string());
    if let Some(secret) = secret {
        put("x-aiproxy-signature", message::webhook_signature(secret, seconds, body));
    }
}

fn classify_response(
    receiver: ReceiverKind,
    url: &OutboundUrl,
    response: &WebhookResponse,
) -> DeliveryResult {
    let status = response.status;
    if !status.is_success() {
        let why = format!("{} answered {}", url.origin(), status.as_u16());
        let is_retryable = status.is_server_error()
            || matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            );
        return if is_retryable {
            DeliveryResult::Retry { reason: why, retry_after: response.retry_after }
        } else {
            DeliveryResult::Rejected { reason: why }
        };
    }
    if receiver == ReceiverKind::Webhook {
        return DeliveryResult::Delivered;
    }
    // Chat bots answer 200 and report errors in the body.
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    match body["code"].as_i64().or_else(|| body["StatusCode"].as_i64()) {
        None | Some(0) => DeliveryResult::Delivered,
        Some(code) => {
            let text = sanitize::clean(body["msg"].as_str().unwrap_or_default());
            let why =
                format!("{} said {code}: {}", url.origin(), sanitize::truncate_end(&text, 200));
            // Too many messages.
            if matches!(code, 9_499 | 11_232) {
                DeliveryResult::Retry { reason: why, retry_after: None }
            } else {
                DeliveryResult::Rejected { reason: why }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> WebhookResponse {
        WebhookResponse {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            body: body.to_owned().into(),
        }
    }

    fn url() -> OutboundUrl {
        let text = "[alerts]\nwebhook = \"https://hooks.example/secret-path\"\n";
        let loaded = crate::config::load::load(
            text,
            std::path::Path::new("c.toml"),
            &crate::config::Environment::default(),
            &mut crate::config::IdInterner::default(),
        );
        loaded.settings.unwrap().alerts.webhook.unwrap()
    }

    #[test]
    fn only_transient_failures_are_retried_and_no_path_is_shown() {
        for (form, status, body, want) in [
            (ReceiverKind::Webhook, 200, "", "done"),
            (ReceiverKind::Webhook, 204, "", "done"),
            (ReceiverKind::Webhook, 400, "", "refused"),
            (ReceiverKind::Webhook, 302, "", "refused"),
            (ReceiverKind::Webhook, 429, "", "again"),
            (ReceiverKind::Webhook, 503, "", "again"),
            (ReceiverKind::Card, 200, r#"{"code":0,"msg":"success"}"#, "done"),
            (ReceiverKind::Card, 200, "", "done"),
            (ReceiverKind::Card, 200, r#"{"code":19021,"msg":"sign match fail"}"#, "refused"),
            (ReceiverKind::Card, 200, r#"{"code":11232,"msg":"frequency limited"}"#, "again"),
        ] {
            let found = match classify_response(form, &url(), &answered(status, body)) {
                DeliveryResult::Delivered => "done",
                DeliveryResult::Retry { reason: why, .. } => {
                    assert!(
                        why.starts_with("https://hooks.example ") && !why.contains("secret"),
                        "{why}"
                    );
                    "again"
                }
                DeliveryResult::Rejected { reason: why } => {
                    assert!(!why.contains("secret"), "{why}");
                    "refused"
                }
            };
            assert_eq!(found, want, "{form:?} {status} {body}");
        }
    }
}
