//! The `stop`, `restart` and `reload` commands.

use std::{path::Path, time::Duration};

use clap::Args;

use crate::{
    cli::{
        attach::{self, RunningProxy},
        context::CommandContext,
        error::{CliError, ExitStatus},
        output,
        serve::{self, args::ServeArgs},
        tools::service,
    },
    control::{action::Action, rundir::RunDir},
};

const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Longer than any sensible `server.drain`.
const MAX_STOP_WAIT: Duration = Duration::from_secs(900);
/// Delay before a note at the terminal explains the wait.
const NOTICE_AFTER: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    /// Abort running requests instead of letting them finish
    #[arg(long)]
    now: bool,
}

#[derive(Clone, Debug, Args)]
pub struct RestartArgs {
    /// Abort running requests instead of letting them finish
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

/// Stops the running proxy and waits until it has exited.
///
/// # Errors
///
/// No proxy is running, or it does not stop.
pub async fn stop(ctx: &CommandContext, args: StopArgs) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    stop_proxy(ctx, &proxy, args.now).await?;
    ctx.print_result("stopped")
}

/// Stops the running proxy, if there is one, and serves in this terminal. One that runs as a service
/// is started as that again.
///
/// # Errors
///
/// As [`stop`], then as `serve`.
pub async fn restart(ctx: &CommandContext, args: RestartArgs) -> Result<ExitStatus, CliError> {
    if ctx.global.url.is_some() {
        return Err(CliError::usage("restart works on the proxy of this data dir, not with --url"));
    }
    match RunningProxy::try_connect(ctx)? {
        Some(proxy) => {
            let pid = proxy.run_info.as_ref().map(|info| info.pid);
            let is_service = pid.is_some_and(service::is_process);
            stop_proxy(ctx, &proxy, args.now).await?;
            if is_service {
                return service::start_again(ctx);
            }
        }
        None => output::print_note("no proxy was running"),
    }
    serve::serve(&ctx.global, args.serve).await
}

async fn stop_proxy(ctx: &CommandContext, proxy: &RunningProxy, now: bool) -> Result<(), CliError> {
    proxy.send_action(&Action::Stop { now }).await?;
    let stopped = async {
        match &proxy.run_info {
            Some(_) => wait_until_released(&ctx.global.paths()?.data).await,
            None => wait_until_unreachable(proxy).await,
        }
        Ok::<(), CliError>(())
    };
    tokio::pin!(stopped);
    if let Ok(done) = tokio::time::timeout(NOTICE_AFTER, &mut stopped).await {
        return done;
    }
    if output::stderr_is_terminal() {
        output::print_note(
            "waiting for running requests to finish; `aiproxy stop --now` aborts them",
        );
    }
    tokio::time::timeout(MAX_STOP_WAIT, stopped).await.map_err(|_| {
        CliError::failed("the proxy is still running after 15 minutes")
            .hint("`aiproxy stop --now` aborts running requests")
    })?
}

/// The OS releases the lock when the process ends for any reason.
async fn wait_until_released(data: &Path) {
    while RunDir::is_locked(data) {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn wait_until_unreachable(proxy: &RunningProxy) {
    while proxy.client.snapshot().await.is_ok() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Applies the config file.
///
/// # Errors
///
/// No proxy is running, or the file has problems (exit code 3). All problems are printed.
pub async fn reload(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    let proxy = RunningProxy::connect(ctx).await?;
    let answer = attach::request_reload(&proxy).await?;
    if !answer.ok {
        if ctx.global.json {
            output::print_json_line(
                &serde_json::json!({ "ok": false, "problems": answer.problems }),
            )?;
        }
        answer.problems.iter().for_each(|problem| output::print_note(problem));
        return Err(CliError::config(
            "the config was not applied; the previous config stays active",
        )
        .hint("`aiproxy config check` checks the file"));
    }
    let snapshot = proxy.snapshot().await?;
    snapshot.config.warnings.iter().for_each(|warning| output::print_note(warning));
    if snapshot.config.needs_restart {
        output::print_note("note: some changes need a restart: `aiproxy restart`");
    }
    ctx.print_result("reloaded")
}
