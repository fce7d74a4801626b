//! Polls providers for the remaining balance, at intervals and after an out-of-credit error.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::HeaderMap;
use serde_json::Value;
use tokio::time::timeout;

use crate::relay::{engine::Engine, state::balances::Balance};
use crate::{
    base::money::{NANOS_PER_UNIT, NanoUsd, to_nanos},
    config::{
        base_url,
        presets::{self, BalanceProbe},
        prices,
        settings::{DialectEndpoint, Upstream, UpstreamKey},
    },
    events::{
        alert::{Alert, AlertKind},
        event::{EventKind, Severity},
    },
    routing::health::view::HealthState,
    upstream::aux_client,
};

/// How long a probe that does not answer a key is not tried again with it.
const FAILED_PROBE_PAUSE: Duration = Duration::from_secs(6 * 3_600);
/// How often added and removed keys are noticed.
const KEY_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum bytes of a response; balances are small.
const MAX_RESPONSE_BYTES: usize = 64 << 10;
/// Polls all providers that report balances, until dropped.
pub async fn run(engine: &Arc<Engine>) {
    loop {
        let (now, settings) = (engine.clock.mono(), Arc::clone(&engine.generation().settings));
        let mut keys = Vec::new();
        let mut due = Vec::new();
        for upstream in settings.upstreams.iter().filter(|upstream| upstream.enabled) {
            let Some(probes) = upstream
                .preset
                .as_deref()
                .and_then(presets::find)
                .map(|preset| preset.balance.as_slice())
            else {
                continue;
            };
            if probes.is_empty() {
                continue;
            }
            for key in
                upstream.keys.iter().filter(|key| key.enabled && engine.keys.is_ready(key.id))
            {
                keys.push(key.id);
                let rejected =
                    engine.router.key_view(key.id, now).health.state == HealthState::Rejected;
                if rejected || (engine.network.down() && !upstream.local) {
                    continue;
                }
                let fingerprint = engine.keys.summary(key.id).fingerprint;
                if let Some(open) =
                    engine.balances.take_due(key.id, &fingerprint, probes.len(), now)
                {
                    due.push(poll_key(engine, upstream, key, probes, open));
                }
            }
        }
        engine.balances.retain(&keys);
        join_all(due).await;
        // A timeout without a notification is the normal case.
        timeout(KEY_CHECK_INTERVAL, engine.balances.changed()).await.unwrap_or_default();
    }
}

/// Tries one probe after the other until one reports a balance.
async fn poll_key(
    engine: &Engine,
    upstream: &Arc<Upstream>,
    key: &UpstreamKey,
    probes: &[BalanceProbe],
    open: Vec<usize>,
) {
    let Some(end) = upstream.endpoints.first().and_then(server_root) else { return };
    for probe in open {
        let fact = &probes[probe];
        let answer = aux_client::get(
            &engine.upstream_client,
            upstream,
            &end,
            Some(key.id),
            &fact.path,
            HeaderMap::new(),
        )
        .await;
        match answer {
            Ok(answer) if answer.status.is_success() && answer.body.len() <= MAX_RESPONSE_BYTES => {
                let Some((amount, currency)) = parse_balance(fact, &answer.body) else { continue };
                return record_balance(engine, upstream, key, amount, currency);
            }
            // The provider does not have this path, or not for this key.
            Ok(answer) if answer.status.is_client_error() && answer.status.as_u16() != 429 => {
                engine.balances.pause_probe(
                    key.id,
                    probe,
                    engine.clock.mono() + FAILED_PROBE_PAUSE,
                );
            }
            Ok(answer) => tracing::debug!(key = %key.name, status = %answer.status, "no balance"),
            Err(fault) => tracing::debug!(key = %key.name, error = %fault.reason, "no balance"),
        }
    }
}

/// Returns the server's root, to which the paths of balance probes are relative.
fn server_root(end: &DialectEndpoint) -> Option<DialectEndpoint> {
    let (scheme, _) = end.base_url.split_once("://")?;
    let (host, port) = base_url::host_port(&end.base_url)?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(DialectEndpoint {
        dialect: end.dialect,
        base_url: format!("{scheme}://{host}:{port}"),
        query: None,
    })
}

/// Stores a reported balance, and reports if it is newly low or has increased.
fn record_balance(
    engine: &Engine,
    upstream: &Upstream,
    key: &UpstreamKey,
    amount: f64,
    currency: String,
) {
    let rate = prices::nanos_per_unit(&currency, &engine.generation().settings.rates);
    let usd =
        rate.and_then(|rate| to_nanos(amount * rate as f64 / NANOS_PER_UNIT as f64)).map(NanoUsd);
    let balance = Balance { amount, currency, usd, at: engine.clock.unix() };
    let limit = engine.generation().settings.alerts.balance_below;
    let low = balance.is_low(limit);
    let text = balance.text();
    let before = engine.balances.replace(key.id, balance);
    let was_low = before.as_ref().is_some_and(|before| before.is_low(limit));
    let alert = match (was_low, low) {
        (false, true) => {
            let page =
                upstream.key_page.as_deref().map(|page| format!("; {page}")).unwrap_or_default();
            Some((
                AlertKind::BalanceLow,
                Severity::Warn,
                format!("{} has {text} left at its provider{page}", key.name),
            ))
        }
        (true, false) => Some((
            AlertKind::Recovered,
            Severity::Info,
            format!("{} has {text} left at its provider again", key.name),
        )),
        _ => None,
    };
    if let Some((what, level, text)) = alert {
        tracing::info!("{text}");
        let alert = Alert { kind: what, subject: Arc::clone(&key.name), text: text.into(), level };
        engine.bus.publish(engine.clock.unix(), EventKind::Alert { alert });
    }
    // The account was topped up, so its quota block ends.
    if before.is_some_and(|before| amount > before.amount)
        && engine.router.clear_quota_block(key.id)
    {
        tracing::info!(key = %key.name, "has money again");
        engine.notify_waiters();
    }
}

/// Returns the remaining amount and its currency; of several, the largest number. An entry without
/// an amount, such as a key without a limit, is skipped.
fn parse_balance(fact: &BalanceProbe, body: &[u8]) -> Option<(f64, String)> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let rows: Vec<&Value> = match &fact.list_pointer {
        Some(pointer) => answer.pointer(pointer)?.as_array()?.iter().collect(),
        None => vec![&answer],
    };
    let number = |row: &Value, pointer: &str| match row.pointer(pointer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let one = |row: &Value| {
        let amount = match (&fact.remaining, &fact.total, &fact.used) {
            (Some(left_pointer), ..) => number(row, left_pointer)?,
            (None, Some(total), Some(used)) => number(row, total)? - number(row, used)?,
            _ => return None,
        };
        let currency = match fact.currency.starts_with('/') {
            true => row
                .pointer(&fact.currency)?
                .as_str()
                .filter(|code| code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()))?,
            false => &fact.currency,
        };
        amount.is_finite().then(|| (amount, currency.to_owned()))
    };
    rows.into_iter().filter_map(one).max_by(|a, b| a.0.total_cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::UnixMillis;

    /// Uses the examples of the providers' documentation.
    #[test]
    fn every_known_balance_format_is_read() {
        for (preset, place, body, want) in [
            (
                "deepseek",
                0,
                r#"{"is_available":true,"balance_infos":[{"currency":"CNY","total_balance":"110.00","granted_balance":"10.00","topped_up_balance":"100.00"}]}"#,
                Some("110.00 CNY"),
            ),
            (
                "deepseek",
                0,
                r#"{"balance_infos":[{"currency":"CNY","total_balance":"0.00"},{"currency":"USD","total_balance":"5.25"}]}"#,
                Some("$5.25"),
            ),
            ("deepseek", 0, r#"{"is_available":false,"balance_infos":[]}"#, None),
            (
                "openrouter",
                0,
                r#"{"data":{"label":"x","usage":1.5,"limit":10,"limit_remaining":8.5,"is_free_tier":false}}"#,
                Some("$8.50"),
            ),
            (
                "openrouter",
                0,
                r#"{"data":{"label":"x","usage":1.5,"limit":null,"limit_remaining":null}}"#,
                None,
            ),
            (
                "openrouter",
                1,
                r#"{"data":{"total_credits":100.5,"total_usage":25.75}}"#,
                Some("$74.75"),
            ),
            (
                "moonshot",
                0,
                r#"{"code":0,"data":{"available_balance":49.58894,"voucher_balance":46.58893,"cash_balance":3.00001},"scode":"0x0","status":true}"#,
                Some("$49.59"),
            ),
            (
                "moonshot-cn",
                0,
                r#"{"code":0,"data":{"available_balance":-1.5}}"#,
                Some("-1.50 CNY"),
            ),
            (
                "siliconflow",
                0,
                r#"{"code":20000,"data":{"balance":"0.88","status":"normal","chargeBalance":"88.00","totalBalance":"88.88"}}"#,
                Some("88.88 CNY"),
            ),
            ("siliconflow", 0, "<html>", None),
            ("siliconflow", 0, r#"{"data":{"totalBalance":{"a":1}}}"#, None),
        ] {
            let fact = &presets::find(preset).expect("a preset").balance[place];
            let read = parse_balance(fact, body.as_bytes());
            let shown = read.map(|(amount, currency)| {
                Balance { amount, currency, usd: None, at: UnixMillis(0) }.text()
            });
            assert_eq!(shown.as_deref(), want, "{preset} {body}");
        }
    }

    #[test]
    fn balance_paths_are_relative_to_the_server_root() {
        for (base, want) in [
            ("https://api.example/anthropic/v1", "https://api.example:443"),
            ("http://127.0.0.1:9/v1", "http://127.0.0.1:9"),
            ("http://[::1]:9", "http://[::1]:9"),
        ] {
            let end = DialectEndpoint {
                dialect: crate::ir::op::Dialect::Openai,
                base_url: base.to_owned(),
                query: Some("a=b".to_owned()),
            };
            assert_eq!(
                server_root(&end).map(|end| (end.base_url, end.query)),
                Some((want.to_owned(), None))
            );
        }
    }
}
