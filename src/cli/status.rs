//! `aiproxy status`: shows the proxy's state as text, or as JSON for scripts.

use serde_json::{Value, json};

use crate::{
    base::{
        clock::{Clock, SystemClock, UnixMillis},
        sanitize::clean,
    },
    cli::{
        attach::RunningProxy,
        context::CommandContext,
        error::{CliError, ExitStatus},
        key,
        output::{
            self, Styler, TextRole, budget_format,
            table::{TableCell, TextTable},
            time_format,
        },
    },
    config::settings::Origin,
    control::snapshot::{AlertView, KeyView, Snapshot, UpstreamState, UpstreamView},
    events::event::Severity,
};

/// Shows the running proxy's state.
///
/// # Errors
///
/// No proxy is running, or another program answers.
pub async fn run(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    let snapshot = RunningProxy::connect(ctx).await?.snapshot().await?;
    let now = SystemClock.unix();
    if ctx.global.json {
        output::print_json(&status_json(&snapshot, now))?;
    } else {
        output::print(&status_text(&snapshot, now, Styler::stdout()))?;
    }
    Ok(ExitStatus::Ok)
}

fn timestamp(at: Option<UnixMillis>) -> Option<String> {
    at.map(|at| at.to_string())
}

/// The documented form of `status --json`.
fn status_json(s: &Snapshot, now: UnixMillis) -> Value {
    json!({
        "version": s.version,
        "pid": s.pid,
        "listen": s.listen,
        "uptime_s": (now.0 - s.started.0).max(0) / 1000,
        "config": { "path": s.config.path, "problems": s.config.problems },
        "upstreams": s.upstreams.iter().map(upstream_json).collect::<Vec<_>>(),
        "keys": s.keys.iter().map(key_json).collect::<Vec<_>>(),
        "alerts": s.alerts.iter().map(alert_json).collect::<Vec<_>>(),
        "budgets": s.budgets.iter().map(budget_format::budget_json).collect::<Vec<_>>(),
        "requests": { "running": s.live.running.len(), "total": s.live.totals.requests, "failed": s.live.totals.failed },
    })
}

/// The JSON of one active alert.
pub(super) fn alert_json(a: &AlertView) -> Value {
    json!({ "kind": a.alert.kind, "subject": &*a.alert.subject, "text": &*a.alert.text, "level": a.alert.level, "since": a.since.to_string() })
}

/// The JSON of one upstream, the same in every listing.
pub(super) fn upstream_json(u: &UpstreamView) -> Value {
    json!({
        "name": u.name,
        "dialect": u.dialects.first(),
        "origin": u.origin,
        "state": u.state,
        "cause": u.cause.as_ref().map(ToString::to_string),
        "until": timestamp(u.until),
        "probe": u.probe.as_ref().map(|probe| json!({
            "path": probe.path,
            "at": timestamp(Some(probe.at)),
            "took_ms": probe.took_ms,
            "said": probe.message,
            "ok": probe.ok,
        })),
    })
}

/// The JSON of one key, the same in every listing.
pub(super) fn key_json(k: &KeyView) -> Value {
    json!({
        "upstream": k.upstream,
        "label": k.label,
        "account": k.account,
        "fingerprint": k.fingerprint,
        "state": k.state,
        "cause": k.cause.as_ref().map(ToString::to_string),
        "until": timestamp(k.until),
        "scopes": k.scopes.iter().map(|scope| json!({
            "model": scope.model,
            "state": scope.state,
            "cause": scope.cause.as_ref().map(ToString::to_string),
            "until": timestamp(scope.until),
        })).collect::<Vec<_>>(),
        "balance": k.balance.as_ref().map(|balance| json!({
            "amount": balance.amount,
            "currency": balance.currency,
            "low": balance.low,
            "at": timestamp(Some(balance.at)),
        })),
        "limits": k.limits.iter().map(|left| json!({
            "model": left.model,
            "what": left.kind,
            "limit": left.limit,
            "remaining": left.remaining,
            "until": timestamp(Some(left.until)),
        })).collect::<Vec<_>>(),
    })
}

fn status_text(s: &Snapshot, now: UnixMillis, styler: Styler) -> String {
    let mut text = format!(
        "{} {} at {} · pid {} · up {}\n",
        styler.style(TextRole::Strong, "aiproxy"),
        clean(&s.version),
        clean(&s.listen.join(", ")),
        s.pid,
        time_format::span(now.0 - s.started.0)
    );
    text.push_str(&config_lines(s, styler));
    if s.offline {
        text.push_str(
            &styler.style(TextRole::Warn, "network   down: requests wait until it is back\n"),
        );
    }
    if s.draining {
        text.push_str(&styler.style(TextRole::Warn, "stopping  running requests may finish\n"));
    }
    if let Some(ledger) = &s.ledger
        && let Some(problem) = &ledger.problem
    {
        let line = format!(
            "ledger    {}: {}; {} requests are buffered in memory, {} were lost\n",
            ledger.path, problem, ledger.waiting_requests, ledger.lost_requests
        );
        text.push_str(&styler.style(TextRole::Error, &clean(line.trim_end())));
        text.push('\n');
    }
    if let Some(skipped) =
        s.ledger.as_ref().map(|ledger| ledger.skipped_bodies).filter(|skipped| *skipped > 0)
    {
        text.push_str(&styler.style(
            TextRole::Dim,
            &format!(
                "ledger    the bodies of {skipped} requests were not stored: too many at once\n"
            ),
        ));
    }
    for active in &s.alerts {
        let role =
            if active.alert.level == Severity::Error { TextRole::Error } else { TextRole::Warn };
        let line = format!(
            "alert     {}, for {}",
            clean(&active.alert.text),
            time_format::span(now.0 - active.since.0)
        );
        text.push_str(&styler.style(role, &line));
        text.push('\n');
    }
    text.push_str(&format!(
        "requests  {} running · {} ended{}\n\n",
        s.live.running.len(),
        s.live.totals.requests,
        if s.live.totals.failed > 0 {
            format!(", {} of them failed", s.live.totals.failed)
        } else {
            String::new()
        }
    ));
    text.push_str(&upstreams_table(&s.upstreams, now, styler));
    if !s.keys.is_empty() {
        text.push('\n');
        text.push_str(&key::table::keys_table(&s.keys.iter().collect::<Vec<_>>(), now, styler));
    }
    if !s.budgets.is_empty() {
        text.push('\n');
        text.push_str(&budget_format::render_table(
            &s.budgets.iter().collect::<Vec<_>>(),
            now,
            styler,
        ));
    }
    text
}

fn config_lines(s: &Snapshot, styler: Styler) -> String {
    let path = s.config.path.as_deref().map_or("no file: using discovered upstreams", |path| path);
    let mut text = format!("config    {}\n", clean(path));
    if !s.config.problems.is_empty() {
        text.push_str(&styler.style(
            TextRole::Error,
            "          the config file has problems and was not applied; the previous config stays active:\n",
        ));
    }
    let listed = s
        .config
        .problems
        .iter()
        .map(|p| (TextRole::Error, p))
        .chain(s.config.warnings.iter().map(|w| (TextRole::Warn, w)));
    for line in listed
        .flat_map(|(role, text)| text.lines().map(move |line| styler.style(role, &clean(line))))
    {
        text.push_str(&format!("          {line}\n"));
    }
    if s.config.needs_restart {
        text.push_str(
            &styler.style(
                TextRole::Warn,
                "          some changes need a restart: `aiproxy restart`\n",
            ),
        );
    }
    text
}

/// Upstreams as a table.
pub(super) fn upstreams_table(views: &[UpstreamView], now: UnixMillis, styler: Styler) -> String {
    let mut table =
        TextTable::new(&["UPSTREAM", "DIALECT", "ORIGIN", "STATE", "KEYS", "ENDS IN", "CAUSE"]);
    for u in views {
        table.row(vec![
            (&u.name).into(),
            u.dialects.join(",").into(),
            origin_name(u.origin).into(),
            upstream_state_cell(u.state),
            if u.keys == 0 { "–".into() } else { format!("{}/{}", u.keys_ready, u.keys).into() },
            time_format::remaining(u.until, now).into(),
            u.cause.as_ref().map(ToString::to_string).unwrap_or_default().into(),
        ]);
        if let Some(probe) = &u.probe {
            let text = format!(
                "{} after {}, {} ago",
                probe.message,
                time_format::seconds(probe.took_ms),
                time_format::span(now.0 - probe.at.0)
            );
            let mut row: Vec<TableCell> =
                vec![TableCell::new(TextRole::Dim, format!("  probe of {}", probe.path))];
            row.extend((0..5).map(|_| TableCell::from("")));
            row.push(TableCell::new(if probe.ok { TextRole::Dim } else { TextRole::Warn }, text));
            table.row(row);
        }
    }
    table.render(styler)
}

pub(super) fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Demo => "demo",
        Origin::Env => "env",
        Origin::File => "file",
        Origin::Local => "local",
    }
}

pub(super) fn upstream_state_cell(state: UpstreamState) -> TableCell {
    let (role, word) = match state {
        UpstreamState::Cooling => (TextRole::Warn, "cooling"),
        UpstreamState::Disabled => (TextRole::Dim, "disabled"),
        UpstreamState::Healthy => (TextRole::Success, "healthy"),
        UpstreamState::NoKey => (TextRole::Error, "no key"),
        UpstreamState::Open => (TextRole::Error, "open"),
        UpstreamState::Probing => (TextRole::Warn, "probing"),
    };
    TableCell::new(role, word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::reason::failure::FailureReason;
    use crate::{
        control::snapshot::{ConfigView, KeyStatus, ModelScope, UpstreamStats},
        events::alert::{Alert, AlertKind},
    };

    const NOW: UnixMillis = UnixMillis(1_700_000_100_000);

    fn snapshot() -> Snapshot {
        Snapshot {
            version: "0.1.0".into(),
            pid: 7,
            at: NOW,
            started: UnixMillis(1_700_000_000_000),
            listen: vec!["127.0.0.1:8642".into()],
            config: ConfigView {
                path: Some("/c.toml".into()),
                problems: vec!["/c.toml:3:1: unknown key".into()],
                ..ConfigView::default()
            },
            upstreams: vec![UpstreamView {
                name: "nvidia".into(),
                dialects: vec!["openai".into(), "responses".into()],
                base_url: "https://x/v1".into(),
                origin: Origin::File,
                priority: 10,
                state: UpstreamState::Open,
                cause: Some(FailureReason::text("refused").into()),
                until: Some(UnixMillis(NOW.0 + 41_000)),
                keys_ready: 1,
                keys: 2,
                stats: UpstreamStats::default(),
                models: None,
                probe: None,
            }],
            keys: vec![KeyView {
                upstream: "nvidia".into(),
                label: "main".into(),
                account: "me".into(),
                fingerprint: "nvapi-…12ab".into(),
                reference: "keyring:nvidia/main".into(),
                state: KeyStatus::Partly,
                cause: None,
                until: None,
                since: None,
                from_provider: false,
                scopes: vec![ModelScope {
                    model: "glm".into(),
                    state: KeyStatus::Cooling,
                    cause: Some(FailureReason::text("429").into()),
                    until: Some(UnixMillis(NOW.0 + 5_000)),
                    since: None,
                    from_provider: true,
                }],
                requests: 1,
                tokens: 2,
                running: 0,
                balance: None,
                limits: Vec::new(),
            }],
            models: vec![],
            projects: vec![],
            live: crate::events::live::Live::default(),
            offline: false,
            draining: false,
            budgets: Vec::new(),
            ledger: None,
            alerts: vec![AlertView {
                since: UnixMillis(NOW.0 - 90_000),
                alert: Alert {
                    kind: AlertKind::ErrorRate,
                    subject: "nvidia".into(),
                    text: "nvidia fails often: 12 of the last 20 attempts".into(),
                    level: Severity::Warn,
                },
            }],
        }
    }

    #[test]
    fn json_matches_the_documentation() {
        let want = json!({
            "version": "0.1.0", "pid": 7, "listen": ["127.0.0.1:8642"], "uptime_s": 100,
            "config": {"path": "/c.toml", "problems": ["/c.toml:3:1: unknown key"]},
            "upstreams": [{"name": "nvidia", "dialect": "openai", "origin": "file", "state": "open", "cause": "refused",
                           "until": "2023-11-14T22:15:41.000Z", "probe": null}],
            "keys": [{"upstream": "nvidia", "label": "main", "account": "me", "fingerprint": "nvapi-…12ab", "state": "partly", "cause": null,
                      "until": null, "scopes": [{"model": "glm", "state": "cooling", "cause": "429", "until": "2023-11-14T22:15:05.000Z"}], "limits": [], "balance": null}],
            "budgets": [],
            "alerts": [{
                "kind": "error_rate", "subject": "nvidia", "text": "nvidia fails often: 12 of the last 20 attempts", "level": "warn",
                "since": "2023-11-14T22:13:30.000Z",
            }],
            "requests": {"running": 0, "total": 0, "failed": 0},
        });
        assert_eq!(status_json(&snapshot(), NOW), want);
    }

    #[test]
    fn text_has_states_causes_end_times_and_config_problems() {
        let text = status_text(&snapshot(), NOW, Styler::plain());
        for part in [
            "up 1m40s",
            "config file has problems",
            "/c.toml:3:1",
            "nvidia/main",
            "41s",
            "refused",
            "glm",
            "partly",
            "1/2",
            "12 of the last 20 attempts, for 1m30s",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
