//! `aiproxy key list`: lists the running proxy's keys, or the config's keys and what their
//! references resolve to.

use serde_json::json;

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
    secrets::Reference,
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
    let mut rows = Vec::new();
    let mut table = TextTable::new(&["KEY", "FINGERPRINT", "STATE", "REFERENCE"]);
    let mut advice = KeyAdvice::default();
    for upstream in &settings.upstreams {
        for key in upstream
            .keys
            .iter()
            .filter(|key| matches_filter(key_filter, &upstream.name, &key.label))
        {
            // A listing must not start a program, which could prompt for a password.
            let (fingerprint, missing) = match &key.reference {
                Reference::Command(_) => (None, None),
                reference => match resolver.resolve(reference).await {
                    Ok(secret) => (Some(secret.fingerprint()), None),
                    Err(error) => (None, Some(error)),
                },
            };
            let on = key.enabled && upstream.enabled;
            let state = match &missing {
                _ if !on => Some("disabled"),
                Some(_) => Some("missing"),
                None => None,
            };
            rows.push(json!({
                "upstream": &*upstream.name,
                "label": &*key.label,
                "account": &*key.account,
                "fingerprint": fingerprint.as_deref(),
                "state": state,
                "cause": missing.as_ref().map(ToString::to_string),
                "until": null,
                "scopes": [],
                "reference": key.reference.to_string(),
            }));
            let reference = key.reference.to_string();
            table.row(vec![
                (&*key.name).into(),
                fingerprint.as_deref().unwrap_or("–").into(),
                match &missing {
                    Some(error) if on => TableCell::new(
                        TextRole::Error,
                        table::describe_missing(
                            &error.message_with_hint(&upstream.name),
                            &reference,
                            &key.name,
                            &mut advice,
                        ),
                    ),
                    _ => state.unwrap_or("").into(),
                },
                TableCell::new(TextRole::Dim, &reference),
            ]);
        }
    }
    if let (Some(key_filter), true) = (key_filter, rows.is_empty()) {
        find_key(
            key_filter,
            settings.upstreams.iter().flat_map(|u| u.keys.iter().map(|k| (&*u.name, &*k.label))),
        )?;
    }
    if ctx.global.json {
        output::print_json(&rows)?;
        return Ok(ExitStatus::Ok);
    }
    if table.is_empty() {
        output::print_line(NO_KEYS_HINT)?;
    } else {
        output::print(&(table.render(Styler::stdout()) + &advice.text()))?;
    }
    output::print_note(&format!(
        "note: {}, so nothing is known about cooldowns",
        attach::not_running_note(ctx).await
    ));
    Ok(ExitStatus::Ok)
}
