//! Actions of the running proxy on an upstream: test, cool, warm.

use serde_json::json;

use super::lookup::ensure_known;
use crate::{
    cli::{
        attach::RunningProxy,
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        key::verify::{self, KeyVerdict},
        output,
    },
    control::action::Action,
};

/// Sends an action about an upstream to the running proxy.
///
/// # Errors
///
/// No proxy is running, no such upstream, or the proxy rejects the action.
pub(super) async fn send(
    ctx: &CommandContext,
    name: &str,
    action: impl FnOnce(String) -> Action,
) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    let snapshot = proxy.snapshot().await?;
    ensure_known(name, snapshot.upstreams.iter().map(|u| u.name.as_str()))?;
    let text = proxy.send_action(&action(name.to_owned())).await?;
    ctx.print_result(&text)
}

/// Makes the running proxy test an upstream with each of its keys. A failed test means exit code 1.
pub(super) async fn test(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    let snapshot = proxy.snapshot().await?;
    ensure_known(name, snapshot.upstreams.iter().map(|u| u.name.as_str()))?;
    let keys: Vec<String> = snapshot
        .keys
        .iter()
        .filter(|k| k.upstream == name)
        .map(|k| format!("{}/{}", k.upstream, k.label))
        .collect();
    if keys.is_empty() {
        return test_without_key(ctx, name).await;
    }
    let mut exit = ExitStatus::Ok;
    for key in keys {
        let reply = proxy.client.send_action(&Action::Test { key: key.clone() }).await?;
        if !reply.ok {
            exit = ExitStatus::Failed;
        }
        if ctx.global.json {
            output::print_json_line(
                &json!({ "key": key, "ok": reply.ok, "text": reply.text.to_string() }),
            )?;
        } else {
            output::print_line(&crate::base::sanitize::clean(&reply.text.to_string()))?;
        }
    }
    Ok(exit)
}

/// Tests an upstream that needs no key, directly from this process.
async fn test_without_key(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let settings = edit_file::load(ctx)?.with_discovered();
    let Some(upstream) = settings.upstreams.iter().find(|u| *u.name == *name) else {
        return Err(CliError::failed(format!("`{name}` has no keys to test"))
            .hint(format!("`aiproxy upstream show {name}` shows its state")));
    };
    match verify::check_key(upstream, None).await {
        KeyVerdict::Good { models } => {
            let models = models.map(|n| format!(", {n} models")).unwrap_or_default();
            ctx.print_result(&format!("{name} responds{models}"))
        }
        KeyVerdict::Rejected { status, message } => {
            Err(CliError::failed(format!("{name} requires a key (status {status}): {message}"))
                .hint(format!("`aiproxy key add {name}` adds one")))
        }
        KeyVerdict::Unknown(why) => Err(CliError::failed(format!("{name}: {why}"))),
    }
}
