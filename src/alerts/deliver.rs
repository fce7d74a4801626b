//! Sends an alert to a receiver and retries after a failure.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::{formats, mail, message::AlertMessage};
use crate::{
    base::{clock::UnixMillis, sanitize},
    config::settings::{AlertFormat, AlertReceiver, OutboundUrl},
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
    receiver: &AlertReceiver,
    secret: Option<&Secret>,
    message: &AlertMessage,
    now: UnixMillis,
) -> DeliveryResult {
    let Some(url) = &receiver.url else {
        return DeliveryResult::Rejected { reason: "it has no address".to_owned() };
    };
    if receiver.format == AlertFormat::Mail {
        return mail::send_mail(receiver, url, secret, message).await;
    }
    let request = formats::build_request(receiver, url, secret, message, now);
    let posted =
        poster.post(&request.url, request.headers, &request.credentials, request.body).await;
    match posted {
        Ok(response) => classify_response(receiver.format, url, &response),
        Err(fault) => DeliveryResult::Retry { reason: fault.reason.to_string(), retry_after: None },
    }
}

fn classify_response(
    format: AlertFormat,
    url: &OutboundUrl,
    response: &WebhookResponse,
) -> DeliveryResult {
    let status = response.status;
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    if !status.is_success() {
        let why = format!("{} answered {}{}", url.origin(), status.as_u16(), error_text(&body));
        let is_retryable = status.is_server_error()
            || matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            );
        return if is_retryable {
            DeliveryResult::Retry {
                reason: why,
                retry_after: response.retry_after.or_else(|| retry_after(&body)),
            }
        } else {
            DeliveryResult::Rejected { reason: why }
        };
    }
    // Chat bots answer 200 and report errors in the body.
    let (code, too_many): (_, &[i64]) = match format {
        AlertFormat::Feishu => {
            (body["code"].as_i64().or_else(|| body["StatusCode"].as_i64()), &[9_499, 11_232])
        }
        AlertFormat::DingTalk => (body["errcode"].as_i64(), &[-1, 130_101]),
        AlertFormat::WeCom => (body["errcode"].as_i64(), &[-1, 45_009]),
        AlertFormat::Telegram if body["ok"] == false => (body["error_code"].as_i64(), &[429]),
        _ => (None, &[]),
    };
    match code {
        None | Some(0) => DeliveryResult::Delivered,
        Some(code) => {
            let why = format!("{} answered {code}{}", url.origin(), error_text(&body));
            if too_many.contains(&code) {
                DeliveryResult::Retry { reason: why, retry_after: retry_after(&body) }
            } else {
                DeliveryResult::Rejected { reason: why }
            }
        }
    }
}

/// Returns the error text of a body, after a colon.
fn error_text(body: &Value) -> String {
    let found = ["msg", "errmsg", "description", "message", "error"]
        .into_iter()
        .find_map(|name| body[name].as_str().filter(|text| !text.is_empty()));
    found.map_or_else(String::new, |text| {
        format!(": {}", sanitize::truncate_end(&sanitize::clean(text), 200))
    })
}

/// Returns when another attempt is welcome: Discord and Telegram send it in the body, in seconds.
fn retry_after(body: &Value) -> Option<Duration> {
    let seconds = body["retry_after"].as_f64().or(body["parameters"]["retry_after"].as_f64())?;
    Duration::try_from_secs_f64(seconds.clamp(0.0, 300.0)).ok()
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
            (AlertFormat::Webhook, 200, "", "done"),
            (AlertFormat::Webhook, 204, "", "done"),
            (AlertFormat::Webhook, 400, "", "refused"),
            (AlertFormat::Webhook, 302, "", "refused"),
            (AlertFormat::Webhook, 429, "", "again"),
            (AlertFormat::Webhook, 503, "", "again"),
            (AlertFormat::Feishu, 200, r#"{"code":0,"msg":"success"}"#, "done"),
            (AlertFormat::Feishu, 200, "", "done"),
            (AlertFormat::Feishu, 200, r#"{"code":19021,"msg":"sign match fail"}"#, "refused"),
            (AlertFormat::Feishu, 200, r#"{"code":11232,"msg":"frequency limited"}"#, "again"),
            (AlertFormat::DingTalk, 200, r#"{"errcode":0,"errmsg":"ok"}"#, "done"),
            (
                AlertFormat::DingTalk,
                200,
                r#"{"errcode":310000,"errmsg":"sign not match"}"#,
                "refused",
            ),
            (AlertFormat::DingTalk, 200, r#"{"errcode":130101,"errmsg":"send too fast"}"#, "again"),
            (
                AlertFormat::WeCom,
                200,
                r#"{"errcode":93000,"errmsg":"invalid webhook url"}"#,
                "refused",
            ),
            (
                AlertFormat::WeCom,
                200,
                r#"{"errcode":45009,"errmsg":"api freq out of limit"}"#,
                "again",
            ),
            (AlertFormat::Telegram, 200, r#"{"ok":true,"result":{}}"#, "done"),
            (
                AlertFormat::Telegram,
                400,
                r#"{"ok":false,"error_code":400,"description":"chat not found"}"#,
                "refused",
            ),
            (
                AlertFormat::Telegram,
                429,
                r#"{"ok":false,"error_code":429,"parameters":{"retry_after":3}}"#,
                "again",
            ),
            (AlertFormat::Slack, 200, "ok", "done"),
            (AlertFormat::Slack, 404, "no_service", "refused"),
            (AlertFormat::Discord, 204, "", "done"),
            (
                AlertFormat::Discord,
                429,
                r#"{"message":"You are being rate limited.","retry_after":0.5}"#,
                "again",
            ),
            (AlertFormat::Teams, 202, "", "done"),
            (AlertFormat::Ntfy, 403, r#"{"code":40301,"error":"forbidden"}"#, "refused"),
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
