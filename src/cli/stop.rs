//! `stop`, `restart` and `reload`: what is done to the running proxy as a whole.

use std::{path::Path, time::Duration};

use clap::Args;

use super::{
    Ctx, ServeArgs,
    exit::{CliError, Exit},
    out,
    reach::{self, Reach},
    serve,
};
use crate::control::{action::Action, rundir::RunDir};

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longer than any sensible `server.drain`.
const PATIENCE: Duration = Duration::from_secs(900);
/// After this a person at the terminal is told why nothing happens.
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    /// Cut open requests instead of letting them finish
    #[arg(long)]
    now: bool,
}

#[derive(Clone, Debug, Args)]
pub struct RestartArgs {
    /// Cut open requests instead of letting them finish
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

/// Ends the running proxy and waits until it is gone.
///
/// # Errors
///
/// None runs; it does not go.
pub async fn stop(ctx: &Ctx, args: StopArgs) -> Result<Exit, CliError> {
    let reach = Reach::find(ctx).await?;
    end(ctx, &reach, args.now).await?;
    ctx.done("stopped")
}

/// Ends the running proxy, if one runs, and serves in this terminal.
///
/// # Errors
///
/// As [`stop`], then as `serve`.
pub async fn restart(ctx: &Ctx, args: RestartArgs) -> Result<Exit, CliError> {
    if ctx.global.url.is_some() {
        return Err(CliError::usage("restart works on the proxy of this data dir, not with --url"));
    }
    match Reach::look(ctx)? {
        Some(reach) => end(ctx, &reach, args.now).await?,
        None => out::note("no proxy was running"),
    }
    serve::serve(&ctx.global, args.serve).await
}

async fn end(ctx: &Ctx, reach: &Reach, now: bool) -> Result<(), CliError> {
    reach.act(&Action::Stop { now }).await?;
    let gone = async {
        match &reach.running {
            Some(_) => released(&ctx.global.place()?.data).await,
            None => unreachable(reach).await,
        }
        Ok::<(), CliError>(())
    };
    tokio::pin!(gone);
    if let Ok(done) = tokio::time::timeout(SILENCE, &mut gone).await {
        return done;
    }
    if out::watched() {
        out::note("waiting for open requests to finish; `aiproxy stop --now` cuts them");
    }
    tokio::time::timeout(PATIENCE, gone).await.map_err(|_| {
        CliError::failed("the proxy still runs after 15 minutes")
            .hint("`aiproxy stop --now` cuts open requests")
    })?
}

/// The lock is given back when the process ends, however it ends.
async fn released(data: &Path) {
    while RunDir::is_locked(data) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn unreachable(reach: &Reach) {
    while reach.client.snapshot().await.is_ok() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Applies the config file.
///
/// # Errors
///
/// None runs; the file has problems (exit code 3), which are all printed.
pub async fn reload(ctx: &Ctx) -> Result<Exit, CliError> {
    let reach = Reach::find(ctx).await?;
    let answer = reach::reload(&reach).await?;
    if !answer.ok {
        if ctx.global.json {
            out::json_line(&serde_json::json!({ "ok": false, "problems": answer.problems }))?;
        }
        answer.problems.iter().for_each(|problem| out::note(problem));
        return Err(CliError::config("the config was not applied; what ran before goes on")
            .hint("fix it and save, or see `aiproxy config check`"));
    }
    let snapshot = reach.snapshot().await?;
    snapshot.config.warnings.iter().for_each(|warning| out::note(warning));
    if snapshot.config.needs_restart {
        out::note("note: `listen` changed; `aiproxy restart` applies it");
    }
    ctx.done("reloaded")
}
