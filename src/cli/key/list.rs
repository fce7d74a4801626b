//! `aiproxy key list`: lists the running proxy's keys, or the config's keys and what their
//! references resolve to.

use serde_json::{Value, json};

use crate::{
    base::clock::{Clock, SystemClock},
    cli::{
        attach::{self, RunningProxy},
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        key::{
            find_key,
            table::{self, KeyAdvice},
        },
        output::{
            self, Styler, TextRole,
            table::{TableCell, TextTable},
        },
        status,
    },
    config::settings::{Upstream, UpstreamKey},
    secrets::{
        Reference,
        resolve::{ResolveError, SecretResolver},
        secret::Fingerprint,
    },
};

const NO_KEYS_HINT: &str = "no keys; `aiproxy key add UPSTREAM` stores one";

/// Lists all keys, those of one upstream, or one key; optionally with what is left of the
/// providers' limits.
///
/// # Errors
///
/// The config has errors, or there is no such key.
pub(super) async fn run(
    ctx: &CommandContext,
    key_filter: Option<&str>,
    long: bool,
) -> Result<ExitStatus, CliError> {
    match RunningProxy::try_connect(ctx)? {
        Some(proxy) => list_running(ctx, &proxy, key_filter, long).await,
        None => list_from_config(ctx, key_filter).await,
    }
}

/// Returns whether a key matches the filter.
fn matches_filter(key_filter: Option<&str>, upstream: &str, label: &str) -> bool {
    key_filter.is_none_or(|key_filter| {
        key_filter == upstream
            || key_filter.strip_prefix(upstream).and_then(|rest| rest.strip_prefix('/'))
                == Some(label)
    })
}

async fn list_running(
    ctx: &CommandContext,
    proxy: &RunningProxy,
    key_filter: Option<&str>,
    long: bool,
) -> Result<ExitStatus, CliError> {
    let all = proxy.snapshot().await?.keys;
    let keys: Vec<_> =
        all.iter().filter(|key| matches_filter(key_filter, &key.upstream, &key.label)).collect();
    if let (Some(key_filter), true) = (key_filter, keys.is_empty()) {
        find_key(key_filter, all.iter().map(|key| (key.upstream.as_str(), key.label.as_str())))?;
    }
    if ctx.global.json {
        let rows: Vec<_> = keys
            .iter()
            .map(|key| {
                let mut row = status::key_json(key);
                row["reference"] = key.reference.as_str().into();
                row
            })
            .collect();
        output::print_json(&rows)?;
    } else if keys.is_empty() {
        output::print_line(NO_KEYS_HINT)?;
    } else {
        let (now, styler) = (SystemClock.unix(), Styler::stdout());
        output::print(&table::keys_table(&keys, now, styler))?;
        if long || key_filter.is_some() {
            output::print(&table::limits_table(&keys, now, styler))?;
        }
    }
    Ok(ExitStatus::Ok)
}

async fn list_from_config(
    ctx: &CommandContext,
    key_filter: Option<&str>,
) -> Result<ExitStatus, CliError> {
    let file = edit_file::load(ctx)?;
    let settings = file.with_discovered();
    let resolver = file.resolver();
    let all = || settings.upstreams.iter().flat_map(|u| u.keys.iter().map(move |k| (u, k)));
    let mut rows = Vec::new();
    for (upstream, key) in all().filter(|(u, k)| matches_filter(key_filter, &u.name, &k.label)) {
        rows.push(ConfiguredKey::read(upstream, key, &resolver).await);
    }
    if let (Some(key_filter), true) = (key_filter, rows.is_empty()) {
        find_key(key_filter, all().map(|(u, k)| (&*u.name, &*k.label)))?;
    }
    if ctx.global.json {
        output::print_json(&rows.iter().map(ConfiguredKey::as_json).collect::<Vec<_>>())?;
        return Ok(ExitStatus::Ok);
    }
    if rows.is_empty() {
        output::print_line(NO_KEYS_HINT)?;
    } else {
        let mut table = TextTable::new(&["KEY", "FINGERPRINT", "STATE", "REFERENCE"]);
        let mut advice = KeyAdvice::default();
        for row in &rows {
            table.row(row.cells(&mut advice));
        }
        output::print(&(table.render(Styler::stdout()) + &advice.text()))?;
    }
    output::print_note(&format!(
        "note: {}, so cooldowns are unknown",
        attach::not_running_note(ctx).await
    ));
    Ok(ExitStatus::Ok)
}

/// A key of the config and the secret or error behind its reference.
struct ConfiguredKey<'a> {
    upstream: &'a Upstream,
    key: &'a UpstreamKey,
    /// `None` if the secret is missing or its reference was not read.
    fingerprint: Option<Fingerprint>,
    missing: Option<ResolveError>,
}

impl<'a> ConfiguredKey<'a> {
    async fn read(upstream: &'a Upstream, key: &'a UpstreamKey, resolver: &SecretResolver) -> Self {
        // A listing must not start a program, which could prompt for a password.
        let (fingerprint, missing) = match &key.reference {
            Reference::Command(_) => (None, None),
            reference => match resolver.resolve(reference).await {
                Ok(secret) => (Some(secret.fingerprint()), None),
                Err(error) => (None, Some(error)),
            },
        };
        Self { upstream, key, fingerprint, missing }
    }

    /// The state, as far as the config determines it.
    fn state(&self) -> Option<&'static str> {
        match &self.missing {
            _ if !(self.key.enabled && self.upstream.enabled) => Some("disabled"),
            Some(_) => Some("missing"),
            None => None,
        }
    }

    fn as_json(&self) -> Value {
        json!({
            "upstream": &*self.upstream.name,
            "label": &*self.key.label,
            "account": &*self.key.account,
            "fingerprint": self.fingerprint.as_deref(),
            "state": self.state(),
            "cause": self.missing.as_ref().map(ToString::to_string),
            "until": null,
            "scopes": [],
            "reference": self.key.reference.to_string(),
        })
    }

    fn cells(&self, advice: &mut KeyAdvice) -> Vec<TableCell> {
        let reference = self.key.reference.to_string();
        let state = match (&self.missing, self.state()) {
            (Some(error), Some("missing")) => TableCell::new(
                TextRole::Error,
                table::describe_missing(
                    &error.message_with_hint(&self.upstream.name),
                    &reference,
                    &self.key.name,
                    advice,
                ),
            ),
            (_, state) => state.unwrap_or("").into(),
        };
        vec![
            (&*self.key.name).into(),
            self.fingerprint.as_deref().unwrap_or("–").into(),
            state,
            TableCell::new(TextRole::Dim, &reference),
        ]
    }
}
