//! Sends an alert as a mail.

use std::time::Duration;

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::authentication::Credentials,
};

use super::{deliver::DeliveryResult, formats, message::AlertMessage};
use crate::{
    base::{message_template::fill_template, sanitize},
    config::settings::{AlertReceiver, OutboundUrl},
    secrets::Secret,
};

/// Ample time for a mail server to take a few kilobytes.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes one attempt to send a mail. The connection is encrypted, except to this machine.
pub async fn send_mail(
    receiver: &AlertReceiver,
    url: &OutboundUrl,
    password: Option<&Secret>,
    message: &AlertMessage,
) -> DeliveryResult {
    let (mail, transport) = match (mail(receiver, message), transport(receiver, url, password)) {
        (Ok(mail), Ok(transport)) => (mail, transport),
        (Err(reason), _) | (_, Err(reason)) => return DeliveryResult::Rejected { reason },
    };
    match tokio::time::timeout(SEND_TIMEOUT, transport.send(mail)).await {
        Ok(Ok(_)) => DeliveryResult::Delivered,
        Ok(Err(error)) => {
            let text = error_chain(&error);
            let text = sanitize::clean(&text);
            let reason = format!("{}: {}", url.origin(), sanitize::truncate_end(&text, 200));
            if error.is_permanent() {
                DeliveryResult::Rejected { reason }
            } else {
                DeliveryResult::Retry { reason, retry_after: None }
            }
        }
        Err(_) => DeliveryResult::Retry {
            reason: format!("no answer from {} within {} s", url.origin(), SEND_TIMEOUT.as_secs()),
            retry_after: None,
        },
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", error_chain(source)),
        None => error.to_string(),
    }
}

fn mail(receiver: &AlertReceiver, message: &AlertMessage) -> Result<Message, String> {
    let mailbox = |address: &str| {
        let parsed = address.parse::<Mailbox>();
        parsed.map_err(|error| format!("`{}`: {error}", sanitize::clean(address)))
    };
    let mut mail = Message::builder()
        .from(mailbox(&receiver.from)?)
        .subject(message.title())
        .message_id(Some(format!("<{}@aiproxy>", message.id)));
    for address in &receiver.to {
        mail = mail.to(mailbox(address)?);
    }
    let body = if receiver.template.is_empty() {
        format!("{}\n\n{} · {}\n", message.text(), message.host, message.at)
    } else {
        fill_template(&receiver.template, |name| formats::value_of(message, name))
    };
    mail.header(ContentType::TEXT_PLAIN).body(body).map_err(|error| error.to_string())
}

fn transport(
    receiver: &AlertReceiver,
    url: &OutboundUrl,
    password: Option<&Secret>,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    type Transport = AsyncSmtpTransport<Tokio1Executor>;
    let host = url.host();
    let is_local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    let builder = if url.origin().starts_with("smtps:") {
        Transport::relay(host)
    } else if is_local {
        Ok(Transport::builder_dangerous(host.trim_matches(['[', ']'])).port(25))
    } else {
        Transport::starttls_relay(host)
    };
    let mut builder = builder.map_err(|error| error.to_string())?.timeout(Some(SEND_TIMEOUT));
    if let Some(port) = url.port() {
        builder = builder.port(port);
    }
    if let Some(password) = password {
        let user = if receiver.user.is_empty() { &receiver.from } else { &receiver.user };
        let password = password.expose().to_owned();
        builder = builder.credentials(Credentials::new(user.clone(), password));
    }
    Ok(builder.build())
}
