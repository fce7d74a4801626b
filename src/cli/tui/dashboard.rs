//! Shows the dashboard of the proxy that runs in this process, and the options of both kinds of
//! dashboard.

use std::net::SocketAddr;

use crate::{
    cli::{
        config::edit_file,
        error::{CliError, ExitStatus},
        explain,
        expose::expose_secret,
        output,
    },
    config::file::Paths,
    control::{client::ControlClient, rundir::dial_address},
    secrets::Secret,
    tui::{
        connection::ProxyConnection,
        event_loop::{self, DashboardOptions},
        strings::Lang,
    },
};

/// Shows the dashboard of the proxy in this process. Returns when the user stops the proxy or the
/// terminal is gone. If the user closes only the dashboard, the proxy continues.
///
/// # Errors
///
/// No terminal for the dashboard.
pub(in crate::cli) async fn run_in_process(
    paths: &Paths,
    addrs: &[SocketAddr],
    token: Secret,
) -> Result<ExitStatus, CliError> {
    let base = addrs
        .first()
        .map_or_else(String::new, |addr| format!("http://{}", dial_address(&addr.to_string())));
    let token_text = expose_secret(&token).to_owned();
    let reconnect_url = base.clone();
    let client = ControlClient::new(base, token);
    let reconnect = Box::new(move || {
        Some(ControlClient::new(reconnect_url.clone(), Secret::new(token_text.clone())))
    });
    let source = ProxyConnection { client, reconnect, explain: explain::render_plain };
    let result = run_dashboard(source, dashboard_options(paths, true)).await?;
    print_copied(&result.copied)?;
    if !result.stop_proxy {
        output::print_note(
            "the proxy keeps running; Ctrl-C or `aiproxy stop` stops it, `aiproxy tui` in another terminal opens the dashboard",
        );
        std::future::pending::<()>().await;
    }
    Ok(ExitStatus::Ok)
}

/// Prints what was copied in the dashboard, for terminals without clipboard access.
pub(super) fn print_copied(copied: &[String]) -> Result<(), CliError> {
    copied
        .iter()
        .try_for_each(|text| output::print(&format!("{}\n", event_loop::sanitize_lines(text))))
}

pub(super) async fn run_dashboard(
    source: ProxyConnection,
    options: DashboardOptions,
) -> Result<event_loop::LoopExit, CliError> {
    Box::pin(event_loop::run(source, options)).await.map_err(|e| CliError::failed(e.to_string()))
}

pub(super) fn dashboard_options(paths: &Paths, in_process: bool) -> DashboardOptions {
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
