//! `aiproxy mcp login`.

use std::{process::Stdio, time::Duration};

use crate::{
    base::clock::{Clock, SystemClock},
    cli::{
        attach::RunningProxy,
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        mcp::lookup::find_server,
        output,
    },
    mcp::oauth::login::PendingLogin,
    secrets::keyring::Keyring,
    upstream::web_client::WebClient,
};

/// How long the user may take in the browser.
const PATIENCE: Duration = Duration::from_secs(300);

/// Logs in at a server and keeps the tokens in the keyring.
pub(super) async fn run(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    let file = edit_file::load(ctx)?;
    let row = find_server(&file, name)?;
    let Some(url) = row.url.as_deref().filter(|_| row.oauth) else {
        return Err(CliError::failed(format!("`{name}` needs no login"))
            .hint("a row with `url` and `oauth = true` does"));
    };
    let failed = |why: String| CliError::failed(format!("{name}: {why}"));
    let keyring = Keyring::system();
    keyring.probe().await.map_err(|error| failed(error.to_string()).hint(error.hint()))?;
    let web = WebClient::default();
    let login = PendingLogin::begin(&web, url).await.map_err(failed)?;
    output::print_note(&format!("open this address to log in:\n{}", login.address));
    open_browser(&login.address);
    let waiting = tokio::time::timeout(PATIENCE, login.finish(&web, SystemClock.unix())).await;
    let tokens = waiting.map_err(|_| failed("nobody logged in".to_owned()))?.map_err(failed)?;
    tokens.store(&keyring, name).await.map_err(failed)?;
    // The proxy tries again at once.
    if let Ok(Some(proxy)) = RunningProxy::try_connect(ctx) {
        let path = format!("/aiproxy/v1/mcp/{name}/test");
        drop(proxy.client.get_json::<serde_json::Value>(&path).await);
    }
    ctx.print_result(&format!("logged in at {name}; the tokens are in the keyring"))
}

/// Opens an address in the user's browser, if there is one.
fn open_browser(address: &str) {
    let browser = std::env::var_os("BROWSER").filter(|browser| !browser.is_empty());
    let usual = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let program = browser.unwrap_or_else(|| usual.into());
    let started = std::process::Command::new(program)
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    // The address is on the screen too.
    drop(started);
}
