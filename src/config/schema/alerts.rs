//! `[alerts]` and `[otlp]`: where alerts and traces go besides the dashboard.

use http::{HeaderName, HeaderValue, Uri};
use toml::de::DeValue;

use super::upstream::read_reference;
use crate::{
    config::{
        problem::Report,
        reader::{self, SourceSpan, TableReader, ValueError, flag, one_of, text, truncate},
        settings::{AlertEvent, AlertSettings, OtlpSettings, OutboundUrl},
    },
    secrets::Reference,
};

/// The two tables as written.
#[derive(Default)]
pub(in crate::config) struct AlertsAndOtlp {
    pub(in crate::config) alerts: AlertSettings,
    /// The position of `secret`, for checks.
    pub(in crate::config) secret_at: Option<SourceSpan>,
    pub(in crate::config) otlp: OtlpSettings,
}

pub(super) fn read_alerts_and_otlp(
    top: &mut TableReader<'_>,
    report: &mut Report,
) -> AlertsAndOtlp {
    let mut tables = AlertsAndOtlp::default();
    if let Some(mut table) = top.child("alerts", report) {
        tables.alerts.desktop = table.read_or("desktop", report, false, flag);
        tables.alerts.webhook = table.read_or("webhook", report, None, read_url);
        let secret = table.read("secret", report, |value| {
            if value.as_str() == Some("") { Ok(None) } else { read_reference(value).map(Some) }
        });
        tables.secret_at = secret.as_ref().map(|at| at.span.clone());
        tables.alerts.secret = secret.and_then(|at| at.value);
        tables.alerts.feishu = table.read_or("feishu", report, None, read_url);
        if let Some(list) = table.read_list("events", report, one_of(&AlertEvent::ALL)) {
            tables.alerts.events = list.value.into_iter().map(|at| at.value).collect();
        }
        table.finish(report);
    }
    if let Some(mut table) = top.child("otlp", report) {
        tables.otlp.url = table.read_or("url", report, None, read_collector_url);
        tables.otlp.headers = read_headers(&mut table, report);
        table.finish(report);
    }
    tables
}

/// Reads the URL of a receiver; an empty text means none.
fn read_url(value: &DeValue<'_>) -> Result<Option<OutboundUrl>, ValueError> {
    let written = text(value)?;
    if written.is_empty() {
        return Ok(None);
    }
    let bad = || {
        ValueError::with_help(
            "this is no address that something can be sent to",
            "write it whole, as in \"https://hooks.example/abc\"",
        )
    };
    let uri: Uri = written.parse().map_err(|_| bad())?;
    let scheme = uri.scheme_str().ok_or_else(bad)?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
    if !matches!(scheme, "http" | "https") {
        return Err(ValueError::with_help(
            format!("`{}:` is not spoken here", truncate(scheme)),
            "write an address that begins with https:// or http://",
        ));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(ValueError::with_help(
            "a user name in an address is not sent",
            "leave it out; `secret` signs what is sent, `headers` under [otlp] takes credentials",
        ));
    }
    let port = uri.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    let origin = format!("{scheme}://{host}{port}");
    Ok(Some(OutboundUrl::new(written, origin)))
}

/// Reads the URL of a collector; one without a path gets the default path.
fn read_collector_url(value: &DeValue<'_>) -> Result<Option<OutboundUrl>, ValueError> {
    Ok(read_url(value)?.map(|url| {
        let bare =
            url.full().strip_prefix(url.origin()).is_some_and(|path| matches!(path, "" | "/"));
        if bare {
            OutboundUrl::new(format!("{}/v1/traces", url.origin()), url.origin().to_owned())
        } else {
            url
        }
    }))
}

/// Reads header names with references to values or the values themselves.
fn read_headers(table: &mut TableReader<'_>, report: &mut Report) -> Vec<(String, Reference)> {
    let path = table.key_path("headers");
    let Some(mut rows) = table.child("headers", report) else { return Vec::new() };
    let mut found = Vec::new();
    for (name, node) in rows.remaining() {
        if HeaderName::from_bytes(name.value.as_bytes()).is_err() {
            report.error(
                &name.span,
                format!("`{}` is no name of a header", truncate(&name.value)),
                None,
            );
            continue;
        }
        let value = reader::read_value(&format!("{path}.{}", name.value), node, report, &|value| {
            let written = text(value)?;
            let literal = || {
                Reference::Literal(std::sync::Arc::new(crate::secrets::Secret::new(
                    written.clone(),
                )))
            };
            if HeaderValue::from_str(&written).is_err() {
                return Err(ValueError::new("this cannot be sent as a header"));
            }
            // A text with spaces is not a key, but may well be a header: `Basic abc`.
            Ok(Reference::parse(&written).unwrap_or_else(|_| literal()))
        });
        found.extend(value.map(|at| (name.value.to_ascii_lowercase(), at.value)));
    }
    rows.finish(report);
    found
}
