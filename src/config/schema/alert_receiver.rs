//! `[[alert_receiver]]`: chats, push services and mailboxes that alerts go to.

use std::sync::Arc;

use toml::de::DeValue;

use super::{
    alerts::{AlertSettings, OutboundUrl, REFERENCE_OR_EMPTY, parse_url},
    names::NAME,
};
use crate::{
    base::message_template,
    config::{
        choices::{AlertEvent, AlertFormat},
        kinds::{List, TEXT, Text, Words},
        problem::Report,
        reader::{KeySpans, TableReader, ValueError, text},
        table::{ConfigTable, Written, config},
    },
    secrets::Reference,
};

config! {
    /// A chat, push service or mailbox that alerts go to.
    #[derive(Clone, Debug)]
    pub struct AlertReceiver in "alert_receiver" {
        /// Its name in logs and test results
        name: Arc<str> = "".into(), NAME, required;
        /// What it is; recognized by the host of `url` if it is left out, else `webhook`
        format: AlertFormat = AlertFormat::Webhook, Words(AlertFormat::ALL), inherited;
        /// Its URL; for mail `smtps://HOST` or `smtp://HOST`, which then has to offer STARTTLS
        url: Option<OutboundUrl> = None, RECEIVER_OR_MAIL, required;
        /// Reference to what signs or authorizes: a signing secret, a token, the mail password
        secret: Option<Reference> = None, REFERENCE_OR_EMPTY, omitted;
        /// Chat that a Telegram bot writes to, as `chat_id`
        chat: String = String::new(), TEXT, omitted;
        /// User name at the mail server; the sender's address if it is left out
        user: String = String::new(), TEXT, omitted;
        /// Sender of a mail
        from: String = String::new(), TEXT, omitted;
        /// Recipients of a mail
        to: Vec<String> = Vec::new(), List(TEXT), omitted;
        /// Body to send instead of the usual one, with placeholders such as `{title}` and `{text}`
        template: String = String::new(), TEMPLATE, omitted;
        /// Which alerts it gets; those of `[alerts]` if it is left out
        events: Vec<AlertEvent> = Vec::new(), List(Words(AlertEvent::ALL)), omitted;
    }
}

impl AlertReceiver {
    /// Returns the receivers of `[alerts]`, which have no rows of their own.
    #[must_use]
    pub fn of_alerts(alerts: &AlertSettings) -> Vec<Arc<Self>> {
        let rows = [(AlertFormat::Webhook, &alerts.webhook), (AlertFormat::Feishu, &alerts.feishu)];
        let rows = rows.into_iter().filter(|(_, url)| url.is_some()).map(|(format, url)| Self {
            name: format.name().into(),
            format,
            url: url.clone(),
            secret: alerts.secret.clone(),
            ..Self::default()
        });
        rows.map(Arc::new).collect()
    }
}

/// Reads a row; `None` if alerts cannot be sent to it.
pub(in crate::config) fn read_alert_receiver(
    mut row: TableReader<'_>,
    report: &mut Report,
) -> Option<Written<AlertReceiver>> {
    let before = report.findings.len();
    let mut value = AlertReceiver::read_keys(&mut row, AlertReceiver::default(), report);
    let readable = report.findings.len() == before;
    let spans = row.finish(report);
    if !readable {
        return None;
    }
    if spans.get("format").is_none()
        && let Some(url) = &value.url
    {
        value.format = format_of_host(url);
    }
    match missing_key(&value, &spans) {
        Some((key, example)) => {
            report.missing(
                &spans.table,
                format!("an [[alert_receiver]] without `{key}`"),
                Some(format!("add a line `{key} = {example}`")),
            );
            None
        }
        None => {
            check_format(&value, &spans, report);
            Some(Written { value, spans })
        }
    }
}

/// Returns the first key that is missing, with an example.
fn missing_key(row: &AlertReceiver, spans: &KeySpans) -> Option<(&'static str, &'static str)> {
    let is_mail = row.format == AlertFormat::Mail;
    [
        ("name", "\"team\"", spans.get("name").is_none()),
        ("url", "\"https://hooks.example/abc\"", row.url.is_none()),
        ("chat", "\"-1001234567890\"", row.format == AlertFormat::Telegram && row.chat.is_empty()),
        ("from", "\"aiproxy@example.com\"", is_mail && row.from.is_empty()),
        ("to", "[\"me@example.com\"]", is_mail && row.to.is_empty()),
    ]
    .into_iter()
    .find_map(|(key, example, is_missing)| is_missing.then_some((key, example)))
}

fn check_format(row: &AlertReceiver, spans: &KeySpans, report: &mut Report) {
    let Some(url) = &row.url else { return };
    let at = spans.get("url").unwrap_or(&spans.table);
    let is_mail_url = url.origin().starts_with("smtp");
    if is_mail_url != (row.format == AlertFormat::Mail) {
        let help = match row.format {
            AlertFormat::Mail => "write smtps://HOST or smtp://HOST",
            _ => "write an address that begins with https:// or http://, or `format = \"mail\"`",
        };
        let text = format!("format `{}` has another kind of address", row.format.name());
        report.error(at, text, Some(help.to_owned()));
    }
    if row.format == AlertFormat::Ntfy && url.path().trim_matches('/').is_empty() {
        let help = "write it with its topic, as in \"https://ntfy.sh/my-topic\"".to_owned();
        report.error(at, "an ntfy address without a topic", Some(help));
    }
    if matches!(row.secret, Some(Reference::Literal(_)))
        && let Some(at) = spans.get("secret")
    {
        let help = "store it elsewhere and refer to it: \"env:NAME\", \"file:PATH\" or \
                    \"keyring:LABEL\""
            .to_owned();
        report.warn(at, "`alert_receiver.secret`: the secret is in the file itself", Some(help));
    }
}

/// Recognizes the service by its host.
fn format_of_host(url: &OutboundUrl) -> AlertFormat {
    const HOSTS: [(&str, AlertFormat); 11] = [
        ("hooks.slack.com", AlertFormat::Slack),
        ("discord.com", AlertFormat::Discord),
        ("discordapp.com", AlertFormat::Discord),
        ("oapi.dingtalk.com", AlertFormat::DingTalk),
        ("qyapi.weixin.qq.com", AlertFormat::WeCom),
        ("open.feishu.cn", AlertFormat::Feishu),
        ("open.larksuite.com", AlertFormat::Feishu),
        ("webhook.office.com", AlertFormat::Teams),
        ("logic.azure.com", AlertFormat::Teams),
        ("api.telegram.org", AlertFormat::Telegram),
        ("ntfy.sh", AlertFormat::Ntfy),
    ];
    if url.origin().starts_with("smtp") {
        return AlertFormat::Mail;
    }
    let host = url.host();
    let matches = |known: &str| {
        host.strip_suffix(known).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    let found = HOSTS.iter().find(|(known, _)| matches(known));
    found.map_or(AlertFormat::Webhook, |(_, format)| *format)
}

/// The path is as confidential as a password, so it is not shown.
const RECEIVER_OR_MAIL: Text<Option<OutboundUrl>> = Text {
    type_name: "URL",
    read: |value| parse_url(value, &["https", "http", "smtps", "smtp"]),
    write: |url| Some(url.as_ref().map(|url| format!("{}/…", url.origin())).unwrap_or_default()),
};

const TEMPLATE: Text<String> =
    Text { type_name: "template", read: read_template, write: |text| Some(text.clone()) };

fn read_template(value: &DeValue<'_>) -> Result<String, ValueError> {
    let template = text(value)?;
    message_template::check_template(&template)
        .map_err(|(problem, help)| ValueError::with_help(problem, help))?;
    Ok(template)
}
