//! Actions on keys in use: test, cool, warm, enable, disable.

use std::time::Duration;

use crate::{
    cli::{
        attach::{self, RunningProxy},
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        key::find_key,
        output,
    },
    config::edit::Edit,
    control::{action::Action, snapshot::Snapshot},
};

fn resolve_key(snapshot: &Snapshot, key: &str) -> Result<String, CliError> {
    let (upstream, label) =
        find_key(key, snapshot.keys.iter().map(|k| (k.upstream.as_str(), k.label.as_str())))?;
    Ok(format!("{upstream}/{label}"))
}

/// Puts a key of the running proxy on cooldown.
pub(super) async fn cool(
    ctx: &CommandContext,
    key: String,
    model: Option<String>,
    span: Option<Duration>,
) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    let key = resolve_key(&proxy.snapshot().await?, &key)?;
    let for_ms = span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    let text = proxy.send_action(&Action::Cool { key, model, for_ms }).await?;
    ctx.print_result(&text)
}

/// Ends cooldowns in the running proxy; all of them if no key is given.
pub(super) async fn warm(
    ctx: &CommandContext,
    key: Option<String>,
    model: Option<String>,
) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    let key = match key {
        Some(key) => Some(resolve_key(&proxy.snapshot().await?, &key)?),
        None => None,
    };
    let text = proxy.send_action(&Action::Warm { key, model }).await?;
    ctx.print_result(&text)
}

/// Makes the running proxy test one key or all of them. A failed test means exit code 1.
pub(super) async fn test(
    ctx: &CommandContext,
    key: Option<String>,
) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    let snapshot = proxy.snapshot().await?;
    let keys = match key {
        Some(key) => vec![resolve_key(&snapshot, &key)?],
        None => snapshot.keys.iter().map(|k| format!("{}/{}", k.upstream, k.label)).collect(),
    };
    if keys.is_empty() {
        return Err(CliError::failed("no keys").hint("`aiproxy key add UPSTREAM` stores one"));
    }
    let mut exit = ExitStatus::Ok;
    for key in keys {
        let reply = proxy.client.send_action(&Action::Test { key: key.clone() }).await?;
        if !reply.ok {
            exit = ExitStatus::Failed;
        }
        if ctx.global.json {
            output::print_json_line(
                &serde_json::json!({ "key": key, "ok": reply.ok, "text": reply.text.to_string() }),
            )?;
        } else {
            output::print_line(&crate::base::sanitize::clean(&reply.text.to_string()))?;
        }
    }
    Ok(exit)
}

/// Enables or disables a key in the config.
pub(super) async fn set_enabled(
    ctx: &CommandContext,
    key: &str,
    on: bool,
) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_to_change(ctx)?;
    let keys =
        file.settings.upstreams.iter().flat_map(|u| u.keys.iter().map(|k| (&*u.name, &*k.label)));
    let (upstream, label) = find_key(key, keys)?;
    edit_file::edit_config(
        ctx,
        &[Edit::SetKeyEnabled { upstream: upstream.clone(), label: label.clone(), enabled: on }],
    )?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("{upstream}/{label} is {}", if on { "enabled" } else { "disabled" }))
}
