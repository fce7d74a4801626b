//! `aiproxy upstream show`: prints the settings and the current state of one upstream.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    base::{
        clock::{Clock, SystemClock, UnixMillis},
        sanitize::clean,
    },
    cli::{
        attach::{self, RunningProxy},
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        key,
        output::facts::pattern_texts,
        output::{
            self, Styler, TextRole, budget_format,
            table::{TableCell, TextTable},
            time_format,
        },
        status,
        upstream::lookup::ensure_known,
    },
    config::settings::{KeyLimit, Upstream, UpstreamKey},
    control::snapshot::{BudgetView, KeyView, Snapshot, UpstreamState, UpstreamView},
    events::record::{AttemptRecord, RequestRecord},
};

/// Upper bound for the recent failures shown.
const MAX_FAILURES_SHOWN: usize = 5;
/// Upper bound for the model names shown as text; the JSON contains all.
const MAX_MODELS_SHOWN: usize = 12;
/// Width of the column with the names of the facts.
const NAME_WIDTH: usize = 12;

/// Prints one upstream.
///
/// # Errors
///
/// The upstream is not in the config, not discovered, and not in the running proxy.
pub(super) async fn run(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let settings = edit_file::load(ctx)?.with_discovered();
    let live = match RunningProxy::try_connect(ctx)? {
        Some(proxy) => Some(proxy.snapshot().await?),
        None => None,
    };
    let one = UpstreamDetail {
        name,
        configured: settings.upstreams.iter().find(|u| *u.name == *name).map(|u| &**u),
        // Only the running proxy knows this upstream: a local server that it discovered.
        view: live.as_ref().and_then(|s| s.upstreams.iter().find(|u| u.name == name)),
        snapshot: live.as_ref(),
    };
    if one.configured.is_none() && one.view.is_none() {
        let running = live.iter().flat_map(|s| &s.upstreams).map(|u| u.name.as_str());
        ensure_known(name, settings.upstreams.iter().map(|u| &*u.name).chain(running))?;
    }
    if ctx.global.json {
        output::print_json(&one.as_json())?;
        return Ok(ExitStatus::Ok);
    }
    output::print(&one.as_text(SystemClock.unix(), Styler::stdout()))?;
    if live.is_none() {
        output::print_note(&format!(
            "note: {}, so its state is unknown",
            attach::not_running_note(ctx).await
        ));
    }
    Ok(ExitStatus::Ok)
}

/// The known facts about an upstream.
struct UpstreamDetail<'a> {
    name: &'a str,
    configured: Option<&'a Upstream>,
    view: Option<&'a UpstreamView>,
    snapshot: Option<&'a Snapshot>,
}

impl UpstreamDetail<'_> {
    fn keys(&self) -> Vec<&KeyView> {
        self.snapshot.iter().flat_map(|s| &s.keys).filter(|key| key.upstream == self.name).collect()
    }

    fn budgets(&self) -> Vec<&BudgetView> {
        let belongs = |holder: &str| {
            holder.strip_prefix("upstream ") == Some(self.name)
                || holder
                    .strip_prefix("key ")
                    .and_then(|key| key.strip_prefix(self.name))
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        self.snapshot
            .iter()
            .flat_map(|s| &s.budgets)
            .filter(|budget| belongs(&budget.holder))
            .collect()
    }

    /// Known models, by the provider's names.
    fn models(&self) -> BTreeSet<&str> {
        let targets = self.snapshot.iter().flat_map(|s| &s.models).flat_map(|model| &model.targets);
        targets.filter_map(|target| target.strip_prefix(self.name)?.strip_prefix(':')).collect()
    }

    /// The most recent failed attempts, newest first.
    fn failures(&self) -> Vec<(&RequestRecord, &AttemptRecord)> {
        let recent = self.snapshot.iter().flat_map(|s| s.live.recent.iter().rev());
        let attempts = recent.flat_map(|record| {
            record.attempts.iter().rev().map(move |attempt| (&**record, attempt))
        });
        attempts
            .filter(|(_, attempt)| {
                *attempt.upstream == *self.name && attempt.outcome.is_some() && !attempt.won
            })
            .take(MAX_FAILURES_SHOWN)
            .collect()
    }

    /// Contains no secrets: keys appear as references and headers by name only.
    fn as_json(&self) -> Value {
        let mut facts = match self.configured {
            Some(upstream) => upstream_config_json(upstream),
            None => json!({ "name": self.name, "keys": [] }),
        };
        if let Some(view) = self.view {
            let now = status::upstream_json(view);
            for field in ["origin", "state", "cause", "until", "probe"] {
                facts[field] = now[field].clone();
            }
            if self.configured.is_none() {
                facts["dialects"] = view
                    .dialects
                    .iter()
                    .map(|name| json!({ "dialect": name, "base_url": view.base_url }))
                    .collect();
                facts["priority"] = view.priority.into();
            }
            facts["stats"] = json!({
                "attempts": view.stats.attempts,
                "errors": view.stats.errors,
                "ttft_p50_ms": view.stats.ttft_p50_ms,
                "ttft_p95_ms": view.stats.ttft_p95_ms,
            });
            facts["known_models"] = self.models().into_iter().collect();
            facts["budgets"] = self.budgets().into_iter().map(budget_format::budget_json).collect();
            facts["failures"] = self.failures().into_iter().map(failure_json).collect();
        }
        for view in self.keys() {
            let now = status::key_json(view);
            let rows = facts["keys"].as_array_mut();
            if let Some(row) =
                rows.and_then(|rows| rows.iter_mut().find(|row| row["label"] == *view.label))
            {
                for field in
                    ["fingerprint", "state", "cause", "until", "scopes", "balance", "limits"]
                {
                    row[field] = now[field].clone();
                }
            }
        }
        facts
    }

    fn as_text(&self, now: UnixMillis, styler: Styler) -> String {
        let mut lines = Vec::new();
        let origin = self.configured.map(|u| u.origin).or(self.view.map(|view| view.origin));
        let from = origin.map_or("", status::origin_name);
        let preset = self
            .configured
            .and_then(|u| u.preset.as_deref())
            .map(|preset| format!(", preset {preset}"))
            .unwrap_or_default();
        lines.push(("name", format!("{} ({from}{preset})", self.name)));
        match self.view {
            Some(view) => lines.push(("state", state_text(view, now))),
            None if self.configured.is_some_and(|u| !u.enabled) => {
                lines.push(("state", "disabled".to_owned()));
            }
            None => {}
        }
        match (self.configured, self.view) {
            (Some(u), _) => u.endpoints.iter().for_each(|end| {
                lines.push(("speaks", format!("{} at {}", end.dialect.name(), end.base_url)));
            }),
            (None, Some(view)) => {
                lines
                    .push(("speaks", format!("{} at {}", view.dialects.join(", "), view.base_url)));
            }
            (None, None) => {}
        }
        if let Some(u) = self.configured {
            push_config_lines(u, &mut lines);
        }
        if let Some(view) = self.view {
            lines.push(("models", models_text(&self.models(), view.models)));
            lines.push(("recent", recent_stats_text(view)));
            if let Some(probe) = &view.probe {
                let ago = time_format::span(now.0 - probe.at.0);
                lines.push((
                    "probe",
                    format!(
                        "{}: {} after {}, {ago} ago",
                        probe.path,
                        probe.message,
                        time_format::seconds(probe.took_ms)
                    ),
                ));
            }
        }
        let mut text = String::new();
        let mut before = "";
        for (name, value) in &lines {
            let label = if *name == before { "" } else { *name };
            text.push_str(&format!(
                "{}{}\n",
                styler.dim(&format!("{label:<NAME_WIDTH$}")),
                clean(value)
            ));
            before = name;
        }
        text.push_str(&self.tables_text(now, styler));
        if self.configured.is_some() {
            text.push_str(&styler.dim(&format!(
                "\n`aiproxy config get upstream.{}` prints every setting\n",
                self.name
            )));
        }
        text
    }

    fn tables_text(&self, now: UnixMillis, styler: Styler) -> String {
        let (mut text, keys, budgets, failures) =
            (String::new(), self.keys(), self.budgets(), self.failures());
        match self.configured {
            _ if !keys.is_empty() => {
                text.push_str(&format!(
                    "\n{}{}",
                    key::table::keys_table(&keys, now, styler),
                    key::table::limits_table(&keys, now, styler)
                ));
            }
            Some(u) if !u.keys.is_empty() => {
                text.push_str(&format!("\n{}", configured_keys_table(&u.keys, styler)));
            }
            _ => {}
        }
        if !budgets.is_empty() {
            text.push_str(&format!("\n{}", budget_format::render_table(&budgets, now, styler)));
        }
        if !failures.is_empty() {
            let mut table = TextTable::new(&["FAILED AT", "REQUEST", "MODEL", "KEY", "WHY"]);
            for (record, attempt) in failures {
                table.row(vec![
                    time_format::date_time(UnixMillis(
                        record.at.0 + i64::from(attempt.ended_ms.unwrap_or(attempt.started_ms)),
                    ))
                    .into(),
                    TableCell::new(TextRole::Dim, record.id.to_string()),
                    (&*attempt.model).into(),
                    (&*attempt.key).into(),
                    TableCell::new(
                        TextRole::Error,
                        attempt.outcome.as_ref().map(ToString::to_string).unwrap_or_default(),
                    ),
                ]);
            }
            text.push_str(&format!("\n{}", table.render(styler)));
        }
        text
    }
}

fn state_text(view: &UpstreamView, now: UnixMillis) -> String {
    let word = match view.state {
        UpstreamState::Cooling => "cooling",
        UpstreamState::Disabled => "disabled",
        UpstreamState::Healthy => "healthy",
        UpstreamState::NoKey => "no usable key",
        UpstreamState::Open => "open",
        UpstreamState::Probing => "probing",
    };
    let left = view
        .until
        .map(|until| format!(" for {}", time_format::remaining(Some(until), now)))
        .unwrap_or_default();
    let cause = view.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{word}{left}{cause}")
}

/// Adds the settings that differ from the defaults.
fn push_config_lines(u: &Upstream, lines: &mut Vec<(&'static str, String)>) {
    lines.push(("priority", format!("{} (lower is tried first), weight {}", u.priority, u.weight)));
    for (limit, what) in
        [(f64::from(u.max_concurrency), "concurrent requests"), (u.max_rps, "requests per second")]
    {
        if limit > 0.0 {
            lines.push(("limit", format!("{limit} {what}")));
        }
    }
    if let Some(patterns) = &u.models {
        lines.push(("patterns", pattern_texts(patterns).join(", ")));
    }
    lines.extend(
        u.rename
            .iter()
            .map(|(requested, resolved)| ("rename", format!("{requested} → {resolved}"))),
    );
    lines.extend(
        u.budget
            .iter()
            .map(|budget| ("budget", format!("{} per {}", budget.usd, budget.period.name()))),
    );
    if !u.headers.is_empty() {
        lines.push((
            "headers",
            u.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
        ));
    }
    if u.insecure_tls {
        lines.push(("tls", "certificate not verified (insecure_tls)".to_owned()));
    }
    if let Some(page) = &u.key_page {
        lines.push(("key page", page.to_string()));
    }
}

fn models_text(names: &BTreeSet<&str>, listed: Option<u32>) -> String {
    if names.is_empty() {
        return listed
            .map_or_else(|| "none known yet".to_owned(), |listed| format!("{listed} known"));
    }
    let first: Vec<_> = names.iter().take(MAX_MODELS_SHOWN).copied().collect();
    let rest = names.len() - first.len();
    let more =
        if rest > 0 { format!(", and {rest} more: `aiproxy model list`") } else { String::new() };
    format!("{} known: {}{more}", names.len(), first.join(", "))
}

fn recent_stats_text(view: &UpstreamView) -> String {
    let stats = &view.stats;
    if stats.attempts == 0 {
        return "no requests in the last 15 minutes".to_owned();
    }
    let ttft = match (stats.ttft_p50_ms, stats.ttft_p95_ms) {
        (Some(p50), Some(p95)) => format!(
            "; time to first token {} (median), {} (95th percentile)",
            time_format::seconds(p50),
            time_format::seconds(p95)
        ),
        _ => String::new(),
    };
    let attempts = if stats.attempts == 1 {
        "1 attempt".to_owned()
    } else {
        format!("{} attempts", stats.attempts)
    };
    format!("{attempts}, {} failed{ttft}", stats.errors)
}

/// The config's keys, for when no proxy is running.
fn configured_keys_table(keys: &[std::sync::Arc<UpstreamKey>], styler: Styler) -> String {
    let mut table = TextTable::new(&["KEY", "REFERENCE", "PRIORITY", "WEIGHT", "LIMITS", ""]);
    for key in keys {
        table.row(vec![
            (&*key.name).into(),
            key.reference.to_string().into(),
            key.priority.to_string().into(),
            key.weight.to_string().into(),
            limit_text(key.limit(), key.max_concurrency).into(),
            if key.enabled { "".into() } else { TableCell::new(TextRole::Dim, "disabled") },
        ]);
    }
    table.render(styler)
}

fn limit_text(limit: KeyLimit, max_concurrency: u32) -> String {
    let each = [(limit.rpm, "rpm"), (limit.tpm, "tpm"), (max_concurrency, "concurrent")];
    each.into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn failure_json((record, attempt): (&RequestRecord, &AttemptRecord)) -> Value {
    json!({
        "request": record.id.to_string(),
        "at": UnixMillis(record.at.0 + i64::from(attempt.ended_ms.unwrap_or(attempt.started_ms))).to_string(),
        "model": &*attempt.model,
        "key": &*attempt.key,
        "status": attempt.status,
        "outcome": attempt.outcome.as_ref().map(ToString::to_string),
    })
}

/// The upstream's settings.
fn upstream_config_json(u: &Upstream) -> Value {
    json!({
        "name": &*u.name,
        "origin": u.origin,
        "preset": u.preset.as_deref(),
        "dialects": u.endpoints.iter().map(|end| json!({ "dialect": end.dialect, "base_url": end.base_url })).collect::<Vec<_>>(),
        "models": u.models.as_ref().map(pattern_texts),
        "rename": u.rename,
        "priority": u.priority,
        "weight": u.weight,
        "max_concurrency": u.max_concurrency,
        "max_rps": u.max_rps,
        "headers": u.headers.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "ask_usage": u.ask_usage,
        "insecure_tls": u.insecure_tls,
        "enabled": u.enabled,
        "key_page": u.key_page.as_deref(),
        "keys": u.keys.iter().map(|k| json!({
            "label": &*k.label,
            "reference": k.reference.to_string(),
            "account": &*k.account,
            "priority": k.priority,
            "weight": k.weight,
            "rpm": k.rpm,
            "tpm": k.tpm,
            "max_concurrency": k.max_concurrency,
            "enabled": k.enabled,
        })).collect::<Vec<_>>(),
    })
}
