//! The request that carries an alert to a receiver, in the form that its service takes.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::{
    message::{self, AlertMessage},
    throttle,
};
use crate::{
    base::{
        clock::UnixMillis,
        message_template::{fill_template, is_json_template},
        sanitize,
    },
    config::settings::{AlertFormat, AlertReceiver, OutboundUrl},
    events::event::Severity,
    secrets::Secret,
};

/// Longest message of Discord, in characters; the shortest limit of the chats.
const MAX_CHARACTERS: usize = 2_000;

/// A POST request to a receiver.
pub struct AlertRequest {
    pub url: OutboundUrl,
    pub headers: HeaderMap,
    /// Headers that are secret.
    pub credentials: Vec<(String, Secret)>,
    pub body: Bytes,
}

/// Builds the request to a receiver that is not a mailbox.
#[must_use]
pub fn build_request(
    receiver: &AlertReceiver,
    url: &OutboundUrl,
    secret: Option<&Secret>,
    message: &AlertMessage,
    now: UnixMillis,
) -> AlertRequest {
    let mut request = AlertRequest {
        url: url.clone(),
        headers: HeaderMap::new(),
        credentials: Vec::new(),
        body: body(receiver, secret, message, now),
    };
    if !receiver.template.is_empty() && !is_json_template(&receiver.template) {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        request.headers.insert(header::CONTENT_TYPE, plain);
    }
    match receiver.format {
        AlertFormat::Webhook => set_webhook_headers(&mut request, secret, message, now),
        // https://open.dingtalk.com/document/robots/customize-robot-security-settings
        AlertFormat::DingTalk => {
            if let Some(secret) = secret {
                let signed = format!("{}\n{}", now.0, secret.expose());
                let sign = BASE64_STANDARD.encode(secret.sign(signed.as_bytes()));
                let sign = utf8_percent_encode(&sign, NON_ALPHANUMERIC);
                request.url = url.with_query(&format!("timestamp={}&sign={sign}", now.0));
            }
        }
        // https://core.telegram.org/bots/api#making-requests
        AlertFormat::Telegram => {
            if let Some(token) = secret {
                request.url = url.with_path(&format!("/bot{}/sendMessage", token.expose()));
            }
        }
        // https://docs.ntfy.sh/publish/: JSON goes to the root, with the topic inside.
        AlertFormat::Ntfy => {
            if receiver.template.is_empty() {
                request.url = url.with_path("/");
            }
            if let Some(token) = secret {
                let value = Secret::new(format!("Bearer {}", token.expose()));
                request.credentials.push(("authorization".to_owned(), value));
            }
        }
        _ => {}
    }
    request
}

fn body(
    receiver: &AlertReceiver,
    secret: Option<&Secret>,
    message: &AlertMessage,
    now: UnixMillis,
) -> Bytes {
    if !receiver.template.is_empty() {
        return fill_template(&receiver.template, |name| value_of(message, name)).into();
    }
    let (title, text) = (message.title(), message.text());
    let text = sanitize::truncate_end(&text, MAX_CHARACTERS / 2).into_owned();
    let footer = format!("{} · {}", message.host, message.at);
    let lines = format!("{title}\n{text}\n{footer}");
    let body = match receiver.format {
        AlertFormat::Webhook | AlertFormat::Mail => return message.webhook_body(),
        AlertFormat::Feishu => return message.card_body(secret, now),
        // https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks; `&`, `<` and
        // `>` are control characters there.
        AlertFormat::Slack => {
            let escaped = lines.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            json!({ "text": escaped })
        }
        // https://discord.com/developers/docs/resources/webhook#execute-webhook; a message that
        // contains `@everyone` must not call everyone.
        AlertFormat::Discord => json!({ "content": lines, "allowed_mentions": { "parse": [] } }),
        // https://open.dingtalk.com/document/robots/custom-robot-access
        AlertFormat::DingTalk => json!({
            "msgtype": "markdown",
            "markdown": { "title": title, "text": format!("#### {title}\n\n{text}\n\n> {footer}") },
        }),
        // https://developer.work.weixin.qq.com/document/path/91770
        AlertFormat::WeCom => json!({
            "msgtype": "markdown",
            "markdown": { "content": format!("**{title}**\n{text}\n> {footer}") },
        }),
        // https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/
        // connectors-using: a card inside of a message.
        AlertFormat::Teams => teams_card(message, &title, &text, &footer),
        // https://core.telegram.org/bots/api#sendmessage
        AlertFormat::Telegram => json!({ "chat_id": receiver.chat, "text": lines }),
        AlertFormat::Ntfy => {
            let path = receiver.url.as_ref().map(OutboundUrl::path).unwrap_or_default();
            let topic = path.trim_matches('/').rsplit('/').next().unwrap_or_default();
            let (priority, tag) = match message.alert.level {
                Severity::Error => (4, "rotating_light"),
                Severity::Warn => (3, "warning"),
                Severity::Info => (2, "white_check_mark"),
            };
            json!({ "topic": topic, "title": title, "message": format!("{text}\n{footer}"),
                "priority": priority, "tags": [tag] })
        }
    };
    body.to_string().into()
}

fn teams_card(message: &AlertMessage, title: &str, text: &str, footer: &str) -> serde_json::Value {
    let color = match message.alert.level {
        Severity::Error => "attention",
        Severity::Info => "good",
        Severity::Warn => "warning",
    };
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [
                    { "type": "TextBlock", "text": title, "weight": "bolder", "color": color,
                      "wrap": true },
                    { "type": "TextBlock", "text": text, "wrap": true },
                    { "type": "TextBlock", "text": footer, "isSubtle": true, "wrap": true },
                ],
            },
        }],
    })
}

/// Returns the value of a template's placeholder; `None` for unknown names.
#[must_use]
pub fn value_of(message: &AlertMessage, name: &str) -> Option<String> {
    let (upstream, key, model, project) = message.subject_parts();
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    Some(match name {
        "title" => message.title(),
        "text" => message.text(),
        "level" => message.alert.level.name().to_owned(),
        "kind" => message.alert.kind.name().to_owned(),
        "event" => throttle::alert_event(message.alert.kind)
            .map_or_else(|| "test".to_owned(), |event| event.name().to_owned()),
        "subject" => message.alert.subject.to_string(),
        "upstream" => text(upstream),
        "key" => text(key),
        "model" => text(model),
        "project" => text(project),
        "host" => message.host.clone(),
        "at" => message.at.to_string(),
        "id" => message.id.clone(),
        _ => return None,
    })
}

fn set_webhook_headers(
    request: &mut AlertRequest,
    secret: Option<&Secret>,
    message: &AlertMessage,
    now: UnixMillis,
) {
    let seconds = now.0 / 1_000;
    let signature = secret.map(|secret| message::webhook_signature(secret, seconds, &request.body));
    let headers = [
        ("x-aiproxy-id", Some(message.id.clone())),
        ("x-aiproxy-timestamp", Some(seconds.to_string())),
        ("x-aiproxy-signature", signature),
    ];
    for (name, value) in headers {
        // The value contains only digits and letters.
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            request.headers.insert(name, value);
        }
    }
}
