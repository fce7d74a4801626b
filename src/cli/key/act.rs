//! What is done to keys that are in use: test, cool, warm, enable, disable.

use std::time::Duration;

use super::find;
use crate::{
    cli::{
        Ctx,
        exit::{CliError, Exit},
        out,
        reach::{self, Reach},
        settings,
    },
    config::edit::Edit,
    control::{action::Action, snapshot::Snapshot},
};

fn named(snapshot: &Snapshot, key: &str) -> Result<String, CliError> {
    let (upstream, label) =
        find(key, snapshot.keys.iter().map(|k| (k.upstream.as_str(), k.label.as_str())))?;
    Ok(format!("{upstream}/{label}"))
}

/// Lets a key of the running proxy rest.
pub(super) async fn cool(
    ctx: &Ctx,
    key: String,
    model: Option<String>,
    span: Option<Duration>,
) -> Result<Exit, CliError> {
    let reach = Reach::find(ctx).await?;
    let key = named(&reach.snapshot().await?, &key)?;
    let for_ms = span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    let text = reach.act(&Action::Cool { key, model, for_ms }).await?;
    ctx.done(&text)
}

/// Ends cooldowns of the running proxy; without a key, all of them.
pub(super) async fn warm(
    ctx: &Ctx,
    key: Option<String>,
    model: Option<String>,
) -> Result<Exit, CliError> {
    let reach = Reach::find(ctx).await?;
    let key = match key {
        Some(key) => Some(named(&reach.snapshot().await?, &key)?),
        None => None,
    };
    let text = reach.act(&Action::Warm { key, model }).await?;
    ctx.done(&text)
}

/// Has the running proxy try one key or all of them; one that fails makes exit code 1.
pub(super) async fn test(ctx: &Ctx, key: Option<String>) -> Result<Exit, CliError> {
    let reach = Reach::find(ctx).await?;
    let snapshot = reach.snapshot().await?;
    let keys = match key {
        Some(key) => vec![named(&snapshot, &key)?],
        None => snapshot.keys.iter().map(|k| format!("{}/{}", k.upstream, k.label)).collect(),
    };
    if keys.is_empty() {
        return Err(CliError::failed("no keys").hint("`aiproxy key add UPSTREAM` stores one"));
    }
    let mut exit = Exit::Ok;
    for key in keys {
        let reply = reach.client.send_action(&Action::Test { key: key.clone() }).await?;
        if !reply.ok {
            exit = Exit::Failed;
        }
        if ctx.global.json {
            out::json_line(&serde_json::json!({ "key": key, "ok": reply.ok, "text": reply.text }))?;
        } else {
            out::line(&crate::base::clean::clean(&reply.text))?;
        }
    }
    Ok(exit)
}

/// Writes into the config whether a key is used.
pub(super) async fn enable(ctx: &Ctx, key: &str, on: bool) -> Result<Exit, CliError> {
    let file = settings::load(ctx)?;
    let keys =
        file.settings.upstreams.iter().flat_map(|u| u.keys.iter().map(|k| (&*u.name, &*k.label)));
    let (upstream, label) = find(key, keys)?;
    settings::edit(
        ctx,
        &[Edit::SetKeyEnabled { upstream: upstream.clone(), label: label.clone(), enabled: on }],
    )?;
    reach::reload_if_running(ctx).await;
    ctx.done(&format!("{upstream}/{label} is {}", if on { "enabled" } else { "disabled" }))
}
