//! Sends a message where it is to go, and again where that failed.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use super::message::{self, Message};
use crate::{
    base::{clean, clock::UnixMillis},
    config::settings::OutboundUrl,
    secrets::Secret,
    upstream::post::{WebhookClient, WebhookResponse},
};

/// Pauses between tries; then it is given up.
pub const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(240),
];

/// What kind of receiver an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Card,
    Webhook,
}

impl Form {
    /// The key of the config that names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Card => "feishu",
            Self::Webhook => "webhook",
        }
    }
}

/// How a try went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Try {
    Done,
    /// Another try may help, after this if it was told.
    Again {
        why: String,
        after: Option<Duration>,
    },
    Refused {
        why: String,
    },
}

/// One try.
pub async fn once(
    poster: &WebhookClient,
    url: &OutboundUrl,
    form: Form,
    secret: Option<&Secret>,
    message: &Message,
    now: UnixMillis,
) -> Try {
    let mut headers = HeaderMap::new();
    let body = match form {
        Form::Card => message.card(secret, now),
        Form::Webhook => {
            let body = message.json();
            dress(&mut headers, secret, message, now, &body);
            body
        }
    };
    match poster.post(url, headers, &[], body).await {
        Ok(answered) => judge(form, url, &answered),
        Err(fault) => Try::Again { why: fault.message, after: None },
    }
}

fn dress(
    headers: &mut HeaderMap,
    secret: Option<&Secret>,
    message: &Message,
    now: UnixMillis,
    body: &Bytes,
) {
    let seconds = now.0 / 1_000;
    let mut put = |name: &'static str, value: String| {
        // Digits and letters of our own.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    put("x-aiproxy-id", message.id.clone());
    put("x-aiproxy-timestamp", seconds.to_string());
    if let Some(secret) = secret {
        put("x-aiproxy-signature", message::signature(secret, seconds, body));
    }
}

fn judge(form: Form, url: &OutboundUrl, answered: &WebhookResponse) -> Try {
    let status = answered.status;
    if !status.is_success() {
        let why = format!("{} answered {}", url.origin(), status.as_u16());
        let again = status.is_server_error()
            || matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            );
        return if again {
            Try::Again { why, after: answered.retry_after }
        } else {
            Try::Refused { why }
        };
    }
    if form == Form::Webhook {
        return Try::Done;
    }
    // Bots answer 200 and say in the body what is wrong.
    let said: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
    match said["code"].as_i64().or_else(|| said["StatusCode"].as_i64()) {
        None | Some(0) => Try::Done,
        Some(code) => {
            let text = clean::clean(said["msg"].as_str().unwrap_or_default());
            let why = format!("{} said {code}: {}", url.origin(), clean::truncate_end(&text, 200));
            // Too many messages.
            if matches!(code, 9_499 | 11_232) {
                Try::Again { why, after: None }
            } else {
                Try::Refused { why }
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
    fn only_what_may_pass_is_tried_again_and_no_path_is_told() {
        for (form, status, body, want) in [
            (Form::Webhook, 200, "", "done"),
            (Form::Webhook, 204, "", "done"),
            (Form::Webhook, 400, "", "refused"),
            (Form::Webhook, 302, "", "refused"),
            (Form::Webhook, 429, "", "again"),
            (Form::Webhook, 503, "", "again"),
            (Form::Card, 200, r#"{"code":0,"msg":"success"}"#, "done"),
            (Form::Card, 200, "", "done"),
            (Form::Card, 200, r#"{"code":19021,"msg":"sign match fail"}"#, "refused"),
            (Form::Card, 200, r#"{"code":11232,"msg":"frequency limited"}"#, "again"),
        ] {
            let found = match judge(form, &url(), &answered(status, body)) {
                Try::Done => "done",
                Try::Again { why, .. } => {
                    assert!(
                        why.starts_with("https://hooks.example ") && !why.contains("secret"),
                        "{why}"
                    );
                    "again"
                }
                Try::Refused { why } => {
                    assert!(!why.contains("secret"), "{why}");
                    "refused"
                }
            };
            assert_eq!(found, want, "{form:?} {status} {body}");
        }
    }
}
