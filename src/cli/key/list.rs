//! `aiproxy key list`: the running proxy's keys, or those of the config with what their references resolve to.

use serde_json::json;

use crate::{
    base::clock::{Clock, System},
    cli::{
        Ctx,
        exit::{CliError, Exit},
        out::{self, Paint, Role},
        reach::Reach,
        settings, status,
        table::{Cell, Table},
    },
    secrets::Reference,
};

/// Lists the keys.
///
/// # Errors
///
/// The config has errors.
pub(super) async fn run(ctx: &Ctx) -> Result<Exit, CliError> {
    match Reach::look(ctx)? {
        Some(reach) => running(ctx, &reach).await,
        None => resting(ctx).await,
    }
}

async fn running(ctx: &Ctx, reach: &Reach) -> Result<Exit, CliError> {
    let keys = reach.snapshot().await?.keys;
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
        out::line("no keys; `aiproxy key add UPSTREAM` stores one")?;
    } else {
        out::print(&status::keys(&keys, System.unix(), Paint::stdout()))?;
    }
    Ok(Exit::Ok)
}

async fn resting(ctx: &Ctx) -> Result<Exit, CliError> {
    let file = settings::load(ctx)?;
    let settings = file.with_found();
    let resolver = file.resolver();
    let mut rows = Vec::new();
    let mut table = Table::new(&["KEY", "FINGERPRINT", "STATE", "REFERENCE"]);
    for upstream in &settings.upstreams {
        for key in &upstream.keys {
            // A listing starts no program: it could ask the person for a password.
            let (fingerprint, missing) = match &key.reference {
                Reference::Command(_) => (None, None),
                reference => match resolver.resolve(reference).await {
                    Ok(secret) => (Some(secret.fingerprint()), None),
                    Err(error) => (None, Some(error.to_string())),
                },
            };
            let state = match (&missing, key.enabled && upstream.enabled) {
                (_, false) => Some("disabled"),
                (Some(_), true) => Some("missing"),
                (None, true) => None,
            };
            rows.push(json!({
                "upstream": &*upstream.name,
                "label": &*key.label,
                "account": &*key.account,
                "fingerprint": fingerprint.as_deref(),
                "state": state,
                "cause": &missing,
                "until": null,
                "scopes": [],
                "reference": key.reference.to_string(),
            }));
            table.row(vec![
                (&*key.name).into(),
                fingerprint.as_deref().unwrap_or("–").into(),
                match &missing {
                    Some(why) => Cell::new(Role::Bad, format!("missing: {why}")),
                    None => state.unwrap_or("").into(),
                },
                Cell::new(Role::Dim, key.reference.to_string()),
            ]);
        }
    }
    if ctx.global.json {
        out::json(&rows)?;
        return Ok(Exit::Ok);
    }
    if table.is_empty() {
        out::line("no keys; `aiproxy key add UPSTREAM` stores one")?;
    } else {
        out::print(&table.show(Paint::stdout()))?;
    }
    out::note("note: the proxy does not run, so nothing is known about cooldowns");
    Ok(Exit::Ok)
}
