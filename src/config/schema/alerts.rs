//! `[alerts]` and `[otlp]`: where news of the proxy goes beside the dashboard.

use http::{HeaderName, HeaderValue, Uri};
use toml::de::DeValue;

use super::upstream::reference;
use crate::{
    config::{
        problem::Report,
        read::{self, Fault, Span, Table, clip, flag, text, word},
        settings::{AlertEvent, Alerts, Otlp, SideUrl},
    },
    secrets::Reference,
};

/// The two tables as written.
#[derive(Default)]
pub(in crate::config) struct News {
    pub(in crate::config) alerts: Alerts,
    /// Where `secret` stands, for checks.
    pub(in crate::config) secret_at: Option<Span>,
    pub(in crate::config) otlp: Otlp,
}

pub(super) fn read(top: &mut Table<'_>, report: &mut Report) -> News {
    let mut news = News::default();
    if let Some(mut table) = top.table("alerts", report) {
        news.alerts.desktop = table.or("desktop", report, false, flag);
        news.alerts.webhook = table.or("webhook", report, None, address);
        let secret = table.take("secret", report, |value| {
            if value.as_str() == Some("") { Ok(None) } else { reference(value).map(Some) }
        });
        news.secret_at = secret.as_ref().map(|at| at.span.clone());
        news.alerts.secret = secret.and_then(|at| at.value);
        news.alerts.feishu = table.or("feishu", report, None, address);
        if let Some(list) = table.list("events", report, word(&AlertEvent::ALL)) {
            news.alerts.events = list.value.into_iter().map(|at| at.value).collect();
        }
        table.end(report);
    }
    if let Some(mut table) = top.table("otlp", report) {
        news.otlp.url = table.or("url", report, None, traces);
        news.otlp.headers = headers(&mut table, report);
        table.end(report);
    }
    news
}

/// An address that something is sent to; empty is none.
fn address(value: &DeValue<'_>) -> Result<Option<SideUrl>, Fault> {
    let written = text(value)?;
    if written.is_empty() {
        return Ok(None);
    }
    let bad = || {
        Fault::with(
            "this is no address that something can be sent to",
            "write it whole, as in \"https://hooks.example/abc\"",
        )
    };
    let uri: Uri = written.parse().map_err(|_| bad())?;
    let scheme = uri.scheme_str().ok_or_else(bad)?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
    if !matches!(scheme, "http" | "https") {
        return Err(Fault::with(
            format!("`{}:` is not spoken here", clip(scheme)),
            "write an address that begins with https:// or http://",
        ));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Fault::with(
            "a user name in an address is not sent",
            "leave it out; `secret` signs what is sent, `headers` under [otlp] takes credentials",
        ));
    }
    let port = uri.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    let place = format!("{scheme}://{host}{port}");
    Ok(Some(SideUrl::new(written, place)))
}

/// The address of a collector: without a path it gets the usual one.
fn traces(value: &DeValue<'_>) -> Result<Option<SideUrl>, Fault> {
    Ok(address(value)?.map(|url| {
        let bare =
            url.whole().strip_prefix(url.place()).is_some_and(|path| matches!(path, "" | "/"));
        if bare {
            SideUrl::new(format!("{}/v1/traces", url.place()), url.place().to_owned())
        } else {
            url
        }
    }))
}

/// Names, and references to values or the values themselves.
fn headers(table: &mut Table<'_>, report: &mut Report) -> Vec<(String, Reference)> {
    let path = table.path_of("headers");
    let Some(mut rows) = table.table("headers", report) else { return Vec::new() };
    let mut found = Vec::new();
    for (name, node) in rows.rest() {
        if HeaderName::from_bytes(name.value.as_bytes()).is_err() {
            report.error(
                &name.span,
                format!("`{}` is no name of a header", clip(&name.value)),
                None,
            );
            continue;
        }
        let value = read::one(&format!("{path}.{}", name.value), node, report, &|value| {
            let written = text(value)?;
            let literal = || {
                Reference::Literal(std::sync::Arc::new(crate::secrets::Secret::new(
                    written.clone(),
                )))
            };
            if HeaderValue::from_str(&written).is_err() {
                return Err(Fault::new("this cannot be sent as a header"));
            }
            // What has spaces is no key, but may well be a header: `Basic abc`.
            Ok(Reference::parse(&written).unwrap_or_else(|_| literal()))
        });
        found.extend(value.map(|at| (name.value.to_ascii_lowercase(), at.value)));
    }
    rows.end(report);
    found
}
