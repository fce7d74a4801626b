//! Formats an alert: JSON for a webhook, a card for a chat, text for a desktop.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

use super::throttle;
use crate::{
    base::clock::UnixMillis,
    events::{
        alert::{Alert, AlertKind},
        event::Severity,
    },
    secrets::Secret,
};

/// An alert ready for delivery.
#[derive(Clone, Debug)]
pub struct AlertMessage {
    /// The same for every attempt and receiver, so that a recipient can detect duplicates.
    pub id: String,
    pub at: UnixMillis,
    pub alert: Alert,
    /// Number of earlier alerts that were suppressed because there were too many.
    pub suppressed: u32,
    /// The host name of the machine, if it has one.
    pub host: String,
}

impl AlertMessage {
    /// Returns a one-line title.
    #[must_use]
    pub fn title(&self) -> String {
        let what = match self.alert.kind {
            AlertKind::BalanceLow => "balance is low",
            AlertKind::BudgetNear => "budget is nearly spent",
            AlertKind::BudgetSpent => "budget is spent",
            AlertKind::ErrorRate => "many requests fail",
            AlertKind::KeyOut => "key cannot be used",
            AlertKind::KeyRejected => "key rejected",
            AlertKind::KeysCooling => "no key is ready",
            AlertKind::Ledger => "requests are not recorded",
            AlertKind::Recovered => "recovered",
            AlertKind::Test => "test",
            AlertKind::UpstreamDown => "upstream is down",
            AlertKind::UsageSpike => "unusual use",
        };
        format!("aiproxy: {what}")
    }

    /// Returns what happened and how many other alerts were suppressed.
    #[must_use]
    pub fn text(&self) -> String {
        match self.suppressed {
            0 => self.alert.text.to_string(),
            n => format!("{} (and {n} more alerts before this one)", self.alert.text),
        }
    }

    /// Returns the webhook body, which docs/observing.md describes.
    #[must_use]
    pub fn webhook_body(&self) -> Bytes {
        let (upstream, key, model, project) = self.subject_parts();
        let body = json!({
            "version": 1,
            "id": self.id,
            "at": self.at.to_string(),
            "event": throttle::alert_event(self.alert.kind).map_or("test", |event| event.name()),
            "kind": self.alert.kind.name(),
            "level": self.alert.level,
            "subject": &*self.alert.subject,
            "upstream": upstream,
            "key": key,
            "model": model,
            "project": project,
            "title": self.title(),
            "text": self.text(),
            "left_out": self.suppressed,
            "host": self.host,
            "source": concat!("aiproxy/", env!("CARGO_PKG_VERSION")),
        });
        body.to_string().into()
    }

    /// Returns the parts of the subject: upstream, key, model, project.
    pub(super) fn subject_parts(&self) -> (Option<&str>, Option<&str>, Option<&str>, Option<&str>) {
        let subject = &*self.alert.subject;
        // A budget belongs to a project, an upstream, a key, or everything.
        match subject.split_once(' ') {
            Some(("project", project)) => return (None, None, None, Some(project)),
            Some(("upstream", upstream)) => return (Some(upstream), None, None, None),
            Some(("key", key)) => {
                let (upstream, label) = key.split_once('/').unzip();
                return (upstream, label, None, None);
            }
            _ => {}
        }
        match self.alert.kind {
            AlertKind::BudgetNear
            | AlertKind::BudgetSpent
            | AlertKind::Ledger
            | AlertKind::Test
            | AlertKind::UsageSpike => (None, None, None, None),
            AlertKind::Recovered if matches!(subject, "ledger") => (None, None, None, None),
            _ => match (subject.split_once('/'), subject.split_once(':')) {
                (_, Some((upstream, model))) => (Some(upstream), None, Some(model), None),
                (Some((upstream, key)), None) => (Some(upstream), Some(key), None, None),
                (None, None) => (Some(subject), None, None, None),
            },
        }
    }

    /// Returns the body for a chat bot that accepts interactive cards; signed in the bot's format
    /// if there is a secret.
    #[must_use]
    pub fn card_body(&self, secret: Option<&Secret>, now: UnixMillis) -> Bytes {
        let color = match self.alert.level {
            Severity::Error => "red",
            Severity::Info => "green",
            Severity::Warn => "orange",
        };
        let plain = |text: &str| json!({ "tag": "plain_text", "content": text });
        let mut body = json!({
            "msg_type": "interactive",
            "card": {
                "config": { "wide_screen_mode": true },
                "header": { "template": color, "title": plain(&self.title()) },
                "elements": [
                    { "tag": "div", "text": plain(&self.text()) },
                    { "tag": "note", "elements": [plain(&format!("{} · {}", self.host, self.at))] },
                ],
            },
        });
        if let (Some(secret), Some(fields)) = (secret, body.as_object_mut()) {
            let seconds = (now.0 / 1_000).to_string();
            let sign =
                BASE64_STANDARD.encode(secret.sign_with_prefix(&format!("{seconds}\n"), b""));
            fields.insert("timestamp".to_owned(), Value::String(seconds));
            fields.insert("sign".to_owned(), Value::String(sign));
        }
        body.to_string().into()
    }
}

/// Returns the header that proves the origin of a webhook: HMAC-SHA256 over the time, a dot and the
/// body.
#[must_use]
pub fn webhook_signature(secret: &Secret, seconds: i64, body: &[u8]) -> String {
    let mut message = format!("{seconds}.").into_bytes();
    message.extend_from_slice(body);
    let digest: String = secret.sign(&message).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(what: AlertKind, subject: &str) -> AlertMessage {
        let alert = Alert {
            kind: what,
            subject: subject.into(),
            text: format!("{subject} is ill").into(),
            level: Severity::Error,
        };
        AlertMessage {
            id: "abc".to_owned(),
            at: UnixMillis(1_700_000_000_000),
            alert,
            suppressed: 0,
            host: "laptop".to_owned(),
        }
    }

    #[test]
    fn json_names_the_subject_of_the_alert() {
        for (what, subject, want) in [
            (AlertKind::KeyRejected, "openai/work", ["openai", "work", "", ""]),
            (AlertKind::KeyOut, "openai/work", ["openai", "work", "", ""]),
            (AlertKind::KeysCooling, "groq:meta/llama", ["groq", "", "meta/llama", ""]),
            (AlertKind::UpstreamDown, "groq", ["groq", "", "", ""]),
            (AlertKind::BudgetSpent, "project ide", ["", "", "", "ide"]),
            (AlertKind::BudgetSpent, "all", ["", "", "", ""]),
            (AlertKind::BudgetNear, "upstream groq", ["groq", "", "", ""]),
            (AlertKind::BudgetNear, "key openai/work", ["openai", "work", "", ""]),
            (AlertKind::BalanceLow, "openai/work", ["openai", "work", "", ""]),
            (AlertKind::Recovered, "ledger", ["", "", "", ""]),
            (AlertKind::Recovered, "groq", ["groq", "", "", ""]),
        ] {
            let reported: Value =
                serde_json::from_slice(&message(what, subject).webhook_body()).unwrap();
            let found = ["upstream", "key", "model", "project"]
                .map(|name| reported[name].as_str().unwrap_or_default().to_owned());
            assert_eq!(found, want, "{subject}");
        }
        let reported: Value =
            serde_json::from_slice(&message(AlertKind::KeyRejected, "openai/work").webhook_body())
                .unwrap();
        assert_eq!(
            (reported["event"].as_str(), reported["kind"].as_str(), reported["level"].as_str()),
            (Some("key_down"), Some("key_rejected"), Some("error"))
        );
        assert_eq!(
            (reported["id"].as_str(), reported["at"].as_str()),
            (Some("abc"), Some("2023-11-14T22:13:20.000Z"))
        );
    }

    #[test]
    fn suppressed_alerts_are_counted() {
        let many = AlertMessage { suppressed: 3, ..message(AlertKind::UpstreamDown, "groq") };
        assert_eq!(many.text(), "groq is ill (and 3 more alerts before this one)");
    }

    #[test]
    fn card_is_signed_if_a_secret_is_configured() {
        let now = UnixMillis(1_700_000_000_999);
        let message = message(AlertKind::UpstreamDown, "groq");
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let (bare, signed) = (
            read(&message.card_body(None, now)),
            read(&message.card_body(Some(&Secret::new("s3".to_owned())), now)),
        );

        assert!(bare.get("sign").is_none());
        assert_eq!(bare["card"]["header"]["template"], "red");
        assert_eq!(bare["card"]["elements"][0]["text"]["content"], "groq is ill");
        assert_eq!(signed["timestamp"], "1700000000");
        assert_eq!(signed["sign"].as_str().map(str::len), Some(44));
    }

    #[test]
    fn signature_is_a_standard_hmac() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
        let want = "sha256=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163";
        assert_eq!(
            webhook_signature(&Secret::new("secret".to_owned()), 1_700_000_000, b"{}"),
            want
        );
    }
}
