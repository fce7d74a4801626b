//! `aiproxy tui`: opens the dashboard of the running proxy, or starts a proxy in this process.

pub(super) mod dashboard;

use std::io::IsTerminal;

use self::dashboard::{dashboard_options, print_copied, run_dashboard};
use crate::{
    cli::{
        attach::{self, RunningProxy},
        context::CommandContext,
        error::{CliError, ExitStatus},
        explain,
        expose::expose_secret,
        serve::{self, args::ServeArgs},
    },
    control::{
        client::ControlClient,
        rundir::{RunDir, RunInfo},
    },
    secrets::Secret,
    tui::connection::ProxyConnection,
};

/// Opens the dashboard.
///
/// # Errors
///
/// No terminal for the dashboard, or an error from `serve` if a proxy has to be started.
pub async fn run(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    if !std::io::stdout().is_terminal() {
        return Err(CliError::failed("the dashboard needs a terminal")
            .hint("`aiproxy status` and `aiproxy log` print text"));
    }
    let paths = ctx.global.paths()?;
    let Some(proxy) = RunningProxy::try_connect(ctx)? else {
        if RunDir::is_locked(&paths.data) {
            return Err(attach::not_running_error(ctx).await);
        }
        return serve::serve(&ctx.global, ServeArgs { tui: true, ..ServeArgs::default() }).await;
    };
    // Fetched once before the dashboard takes the screen, so that an error stays readable.
    proxy.snapshot().await?;
    let reconnect: Box<dyn Fn() -> Option<ControlClient> + Send + Sync> = match &ctx.global.url {
        Some(_) => {
            let global = ctx.global.clone();
            Box::new(move || {
                RunningProxy::try_connect(&CommandContext { global: global.clone() })
                    .ok()
                    .flatten()
                    .map(|proxy| proxy.client)
            })
        }
        None => Box::new({
            let data = paths.data.clone();
            move || RunDir::find_running(&data).as_ref().and_then(client_for)
        }),
    };
    let source =
        ProxyConnection { client: proxy.client, reconnect, explain: explain::render_plain };
    let result = run_dashboard(source, dashboard_options(&paths, false)).await?;
    print_copied(&result.copied)?;
    Ok(ExitStatus::Ok)
}

fn client_for(running: &RunInfo) -> Option<ControlClient> {
    Some(ControlClient::new(
        running.base_url()?,
        Secret::new(expose_secret(&running.token).to_owned()),
    ))
}
