//! `aiproxy tui`: the dashboard of the running proxy, or of one started for it in this process.

use std::{io::IsTerminal, net::SocketAddr};

use super::{
    Ctx, ServeArgs,
    exit::{CliError, Exit},
    explain, out,
    reach::{self, Reach},
    reveal::reveal,
    serve, settings,
};
use crate::{
    config::file::Paths,
    control::{
        client::ControlClient,
        rundir::{RunDir, RunInfo, dial_address},
    },
    secrets::Secret,
    tui::{
        run::{self, DashboardOptions},
        source::ProxyConnection,
        text::Lang,
    },
};

/// Opens the dashboard.
///
/// # Errors
///
/// No terminal to show it on; what `serve` says where it has to start a proxy.
pub async fn run(ctx: &Ctx) -> Result<Exit, CliError> {
    if !std::io::stdout().is_terminal() {
        return Err(CliError::failed("the dashboard needs a terminal")
            .hint("`aiproxy status` and `aiproxy log` print"));
    }
    let place = ctx.global.place()?;
    let Some(reach) = Reach::look(ctx)? else {
        if RunDir::is_locked(&place.data) {
            return Err(reach::not_running(ctx).await);
        }
        return serve::serve(&ctx.global, ServeArgs { tui: true, ..ServeArgs::default() }).await;
    };
    // Asked once before the screen is taken: what is wrong is then said where it can be read.
    reach.snapshot().await?;
    let again: Box<dyn Fn() -> Option<ControlClient> + Send + Sync> = match &ctx.global.url {
        Some(_) => {
            let global = ctx.global.clone();
            Box::new(move || {
                Reach::look(&Ctx { global: global.clone() })
                    .ok()
                    .flatten()
                    .map(|reach| reach.client)
            })
        }
        None => Box::new({
            let data = place.data.clone();
            move || RunDir::find_running(&data).as_ref().and_then(client)
        }),
    };
    let source =
        ProxyConnection { client: reach.client, reconnect: again, explain: explain::plain };
    let left = show(source, options(&place, false)).await?;
    print(&left.copied)?;
    Ok(Exit::Ok)
}

/// The dashboard of the proxy in this process. Ends when its reader wants the proxy stopped, or the
/// terminal is gone; where only the dashboard was left, the proxy goes on.
///
/// # Errors
///
/// No terminal to show it on.
pub(super) async fn in_process(
    place: &Paths,
    addrs: &[SocketAddr],
    token: Secret,
) -> Result<Exit, CliError> {
    let base = addrs
        .first()
        .map_or_else(String::new, |addr| format!("http://{}", dial_address(&addr.to_string())));
    let text = reveal(&token).to_owned();
    let again = base.clone();
    let client = ControlClient::new(base, token);
    let reconnect =
        Box::new(move || Some(ControlClient::new(again.clone(), Secret::new(text.clone()))));
    let source = ProxyConnection { client, reconnect, explain: explain::plain };
    let left = show(source, options(place, true)).await?;
    print(&left.copied)?;
    if !left.stop_proxy {
        out::note(
            "the proxy goes on; Ctrl-C or `aiproxy stop` ends it, `aiproxy tui` in another terminal shows it",
        );
        std::future::pending::<()>().await;
    }
    Ok(Exit::Ok)
}

/// What was copied in the dashboard, for terminals that keep their clipboard to themselves.
fn print(copied: &[String]) -> Result<(), CliError> {
    copied.iter().try_for_each(|text| out::print(&format!("{}\n", run::sanitize_lines(text))))
}

async fn show(
    source: ProxyConnection,
    options: DashboardOptions,
) -> Result<run::LoopExit, CliError> {
    Box::pin(run::run(source, options)).await.map_err(|e| CliError::failed(e.to_string()))
}

fn client(running: &RunInfo) -> Option<ControlClient> {
    Some(ControlClient::new(running.base_url()?, Secret::new(reveal(&running.token).to_owned())))
}

fn options(place: &Paths, in_process: bool) -> DashboardOptions {
    let tui = settings::tui(place);
    let (utf8, locale) = (utf8(), locale());
    DashboardOptions {
        theme: Box::new({
            let place = place.clone();
            move || settings::tui(&place).theme
        }),
        mouse: tui.mouse,
        in_process,
        utf8,
        color: out::colour_wanted(),
        screen: None,
        // A terminal that shows only ASCII shows only English.
        lang: if utf8 { Lang::pick(&tui.lang, &locale) } else { Lang::English },
        editor: ["VISUAL", "EDITOR"]
            .into_iter()
            .filter_map(std::env::var_os)
            .find_map(|it| it.into_string().ok().filter(|it| !it.is_empty())),
    }
}

/// The language that the reader wants messages in.
fn locale() -> String {
    let said = ["LC_ALL", "LC_MESSAGES", "LANG"]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty());
    said.map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The first of these variables that says anything decides, as in the C library.
fn utf8() -> bool {
    let said = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty());
    match said {
        Some(locale) => {
            let locale = locale.to_string_lossy().to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        }
        None => cfg!(windows),
    }
}
