//! `aiproxy key list`: the running proxy's keys, or those of the config with what their references
//! resolve to.

use serde_json::json;

use super::{
    find,
    table::{self, Advice},
};
use crate::{
    base::clock::{Clock, SystemClock},
    cli::{
        Ctx,
        exit::{CliError, Exit},
        out::{self, Paint, Role},
        reach::{self, Reach},
        settings, status,
        table::{Cell, Table},
    },
    secrets::Reference,
};

const NONE: &str = "no keys; `aiproxy key add UPSTREAM` stores one";

/// Lists the keys: all, those of one upstream, or one; with what is left of their providers' limits
/// where that is wanted.
///
/// # Errors
///
/// The config has errors; no such key.
pub(super) async fn run(ctx: &Ctx, asked: Option<&str>, long: bool) -> Result<Exit, CliError> {
    match Reach::look(ctx)? {
        Some(reach) => running(ctx, &reach, asked, long).await,
        None => resting(ctx, asked).await,
    }
}

/// Whether a key is among those that are asked for.
fn wanted(asked: Option<&str>, upstream: &str, label: &str) -> bool {
    asked.is_none_or(|asked| {
        asked == upstream
            || asked.strip_prefix(upstream).and_then(|rest| rest.strip_prefix('/')) == Some(label)
    })
}

async fn running(
    ctx: &Ctx,
    reach: &Reach,
    asked: Option<&str>,
    long: bool,
) -> Result<Exit, CliError> {
    let all = reach.snapshot().await?.keys;
    let keys: Vec<_> = all.iter().filter(|key| wanted(asked, &key.upstream, &key.label)).collect();
    if let (Some(asked), true) = (asked, keys.is_empty()) {
        find(asked, all.iter().map(|key| (key.upstream.as_str(), key.label.as_str())))?;
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
        out::json(&rows)?;
    } else if keys.is_empty() {
        out::line(NONE)?;
    } else {
        let (now, paint) = (SystemClock.unix(), Paint::stdout());
        out::print(&table::keys(&keys, now, paint))?;
        if long || asked.is_some() {
            out::print(&table::limits(&keys, now, paint))?;
        }
    }
    Ok(Exit::Ok)
}

async fn resting(ctx: &Ctx, asked: Option<&str>) -> Result<Exit, CliError> {
    let file = settings::load(ctx)?;
    let settings = file.with_found();
    let resolver = file.resolver();
    let mut rows = Vec::new();
    let mut table = Table::new(&["KEY", "FINGERPRINT", "STATE", "REFERENCE"]);
    let mut advice = Advice::default();
    for upstream in &settings.upstreams {
        for key in upstream.keys.iter().filter(|key| wanted(asked, &upstream.name, &key.label)) {
            // A listing starts no program: it could ask the person for a password.
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
                    Some(error) if on => Cell::new(
                        Role::Bad,
                        table::missing(
                            &error.message_with_hint(&upstream.name),
                            &reference,
                            &key.name,
                            &mut advice,
                        ),
                    ),
                    _ => state.unwrap_or("").into(),
                },
                Cell::new(Role::Dim, &reference),
            ]);
        }
    }
    if let (Some(asked), true) = (asked, rows.is_empty()) {
        find(
            asked,
            settings.upstreams.iter().flat_map(|u| u.keys.iter().map(|k| (&*u.name, &*k.label))),
        )?;
    }
    if ctx.global.json {
        out::json(&rows)?;
        return Ok(Exit::Ok);
    }
    if table.is_empty() {
        out::line(NONE)?;
    } else {
        out::print(&(table.show(Paint::stdout()) + &advice.text()))?;
    }
    out::note(&format!("note: {}, so nothing is known about cooldowns", reach::absent(ctx).await));
    Ok(Exit::Ok)
}
