//! `aiproxy tui`: opens the dashboard of the running proxy, or starts a proxy in this process.

use std::{io::IsTerminal, net::SocketAddr};

use super::{CommandContext, ServeArgs, explain, serve};
use crate::cli::{
    attach::{self, RunningProxy},
    config::edit_file,
    error::{CliError, ExitStatus},
    expose::expose_secret,
    output,
};
use crate::{
    config::file::Paths,
    control::{
        client::ControlClient,
        rundir::{RunDir, RunInfo, dial_address},
    },
    secrets::Secret,
    tui::{
        connection::ProxyConnection,
        event_loop::{self, DashboardOptions},
        strings::Lang,
    },
};

/// Opens the dashboard.
///
/// # Errors
///
/// No terminal for the dashboard, or an error from `serve` if a proxy has to be started.
pub async fn run(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    if !std::io::stdout().is_terminal() {
        return Err(CliError::failed("the dashboard needs a terminal")
            .hint("`aiproxy status` and `aiproxy log` print"));
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

/// Shows the dashboard of the proxy in this process. Returns when the user stops the proxy or the
/// terminal is gone. If the user closes only the dashboard, the proxy continues.
///
/// # Errors
///
/// No terminal for the dashboard.
pub(super) async fn run_in_process(
    paths: &Paths,
    addrs: &[SocketAddr],
    token: Secret,
) -> Result<ExitStatus, CliError> {
    let base = addrs
        .first()
        .map_or_else(String::new, |addr| format!("http://{}", dial_address(&addr.to_string())));
    let text = expose_secret(&token).to_owned();
    let again = base.clone();
    let client = ControlClient::new(base, token);
    let reconnect =
        Box::new(move || Some(ControlClient::new(again.clone(), Secret::new(text.clone()))));
    let source = ProxyConnection { client, reconnect, explain: explain::render_plain };
    let result = run_dashboard(source, dashboard_options(paths, true)).await?;
    print_copied(&result.copied)?;
    if !result.stop_proxy {
        output::print_note(
            "the proxy goes on; Ctrl-C or `aiproxy stop` ends it, `aiproxy tui` in another terminal shows it",
        );
        std::future::pending::<()>().await;
    }
    Ok(ExitStatus::Ok)
}

/// Prints what was copied in the dashboard, for terminals without clipboard access.
fn print_copied(copied: &[String]) -> Result<(), CliError> {
    copied
        .iter()
        .try_for_each(|text| output::print(&format!("{}\n", event_loop::sanitize_lines(text))))
}

async fn run_dashboard(
    source: ProxyConnection,
    options: DashboardOptions,
) -> Result<event_loop::LoopExit, CliError> {
    Box::pin(event_loop::run(source, options)).await.map_err(|e| CliError::failed(e.to_string()))
}

fn client_for(running: &RunInfo) -> Option<ControlClient> {
    Some(ControlClient::new(
        running.base_url()?,
        Secret::new(expose_secret(&running.token).to_owned()),
    ))
}

fn dashboard_options(paths: &Paths, in_process: bool) -> DashboardOptions {
    let tui = edit_file::tui_settings(paths);
    let (utf8, locale) = (is_utf8_locale(), message_locale());
    DashboardOptions {
        theme: Box::new({
            let paths = paths.clone();
            move || edit_file::tui_settings(&paths).theme
        }),
        mouse: tui.mouse,
        in_process,
        utf8,
        color: output::color_enabled(),
        screen: None,
        // A terminal limited to ASCII can only show English.
        lang: if utf8 { Lang::pick(&tui.lang, &locale) } else { Lang::English },
        editor: ["VISUAL", "EDITOR"]
            .into_iter()
            .filter_map(std::env::var_os)
            .find_map(|it| it.into_string().ok().filter(|it| !it.is_empty())),
    }
}

/// The user's locale for messages.
fn message_locale() -> String {
    let value = ["LC_ALL", "LC_MESSAGES", "LANG"]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty());
    value.map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The first non-empty variable decides, as in the C library.
fn is_utf8_locale() -> bool {
    let value = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty());
    match value {
        Some(locale) => {
            let locale = locale.to_string_lossy().to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        }
        None => cfg!(windows),
    }
}
