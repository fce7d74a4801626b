//! Finds the running proxy that a command connects to, and builds the error if no proxy is running.

use std::time::Duration;

use crate::{
    cli::{
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        output, prompt,
    },
    control::{
        action::{Action, ActionReply},
        admin::ReloadResult,
        client::{ControlClient, ControlError},
        rundir::{RunDir, RunInfo, dial_address},
        snapshot::Snapshot,
    },
    events::status_message::reload::ReloadMessage,
    ir::reason::text_field::Reason,
    secrets::Secret,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);

/// A running proxy, found through its run dir or `--url`.
#[derive(Debug)]
pub struct RunningProxy {
    pub client: ControlClient,
    /// The contents of the run dir; `None` with `--url`.
    pub run_info: Option<RunInfo>,
}

impl RunningProxy {
    /// Finds the proxy of `--url` or of the data dir; `None` if no proxy is running.
    ///
    /// # Errors
    ///
    /// `--url` without a token, or no data dir.
    pub fn try_connect(ctx: &CommandContext) -> Result<Option<Self>, CliError> {
        if let Some(url) = &ctx.global.url {
            let base = if url.contains("://") { url.clone() } else { format!("http://{url}") };
            return Ok(Some(Self {
                client: ControlClient::new(base, control_token(ctx)?),
                run_info: None,
            }));
        }
        let Some(running) = RunDir::find_running(&ctx.global.paths()?.data) else {
            return Ok(None);
        };
        let Some(base) = running.base_url() else { return Ok(None) };
        if running.version != VERSION {
            output::print_note(&format!(
                "note: the running proxy is version {}, this command is {VERSION}; run `aiproxy restart`",
                running.version
            ));
        }
        let token = Secret::new(crate::cli::expose::expose_secret(&running.token).to_owned());
        Ok(Some(Self { client: ControlClient::new(base, token), run_info: Some(running) }))
    }

    /// Finds the proxy, or returns the error that none is running.
    ///
    /// # Errors
    ///
    /// As [`Self::try_connect`], and exit code 4 if no proxy is running.
    pub async fn connect(ctx: &CommandContext) -> Result<Self, CliError> {
        match Self::try_connect(ctx)? {
            Some(proxy) => Ok(proxy),
            None => Err(not_running_error(ctx).await),
        }
    }

    /// Fetches the current snapshot and checks that it comes from the proxy of the run dir.
    ///
    /// # Errors
    ///
    /// No response, or the response comes from another process.
    pub async fn snapshot(&self) -> Result<Snapshot, CliError> {
        let snapshot = self.client.snapshot().await?;
        match &self.run_info {
            Some(running) if running.pid != snapshot.pid => Err(ControlError::NotAiproxy.into()),
            None if snapshot.version != VERSION => {
                output::print_note(&format!(
                    "note: the running proxy is version {}, this command is {VERSION}",
                    snapshot.version
                ));
                Ok(snapshot)
            }
            _ => Ok(snapshot),
        }
    }

    /// Sends an action; a rejection is an error.
    ///
    /// # Errors
    ///
    /// No response, or the proxy rejects the action.
    pub async fn send_action(&self, action: &Action) -> Result<String, CliError> {
        match self.client.send_action(action).await? {
            ActionReply { ok: true, text, .. } => Ok(text.to_string()),
            ActionReply { ok: false, text, .. } => Err(CliError::failed(text.to_string())),
        }
    }
}

/// The control token for `--url`.
fn control_token(ctx: &CommandContext) -> Result<Secret, CliError> {
    let (bytes, from) = if let Some(path) = &ctx.global.token_file {
        (
            std::fs::read(path).map_err(|e| crate::cli::error::path_error(path, &e))?,
            "the token file",
        )
    } else if let Some(text) = std::env::var_os("AIPROXY_TOKEN") {
        (text.into_encoded_bytes(), "AIPROXY_TOKEN")
    } else {
        return Err(CliError::usage("--url needs a control token").hint(
            "set AIPROXY_TOKEN or --token-file; the proxy stores its token in DATA/run/token",
        ));
    };
    prompt::parse_token(bytes, from)
}

/// The error of a command that needs a running proxy. It names the expected address and any other
/// process that listens there.
pub async fn not_running_error(ctx: &CommandContext) -> CliError {
    let Ok(paths) = ctx.global.paths() else {
        return CliError::unreachable("the proxy is not running");
    };
    let addresses = edit_file::listen_addresses(&paths);
    if RunDir::is_locked(&paths.data) {
        return CliError::unreachable("the proxy is starting and does not listen yet")
            .hint("try again in a moment");
    }
    if let Some(addr) = first_responding(&addresses).await {
        return CliError::unreachable(format!(
            "the proxy is not running; another program listens at {addr}"
        ))
        .hint(format!(
            "no proxy is running for the data dir {}; select another with --data-dir or --url",
            paths.data.display()
        ));
    }
    CliError::unreachable(format!("the proxy is not running at {}", addresses.join(", ")))
        .hint("start it with `aiproxy serve`")
}

/// The first address that responds.
async fn first_responding(addresses: &[String]) -> Option<String> {
    for addr in addresses.iter().map(|addr| dial_address(addr)) {
        if matches!(
            tokio::time::timeout(PROBE_TIMEOUT, tokio::net::TcpStream::connect(&addr)).await,
            Ok(Ok(_))
        ) {
            return Some(addr);
        }
    }
    None
}

/// The note for commands that also work without a proxy: `the proxy is not running`.
pub async fn not_running_note(ctx: &CommandContext) -> String {
    let default_text = || "the proxy is not running".to_owned();
    let Ok(paths) = ctx.global.paths() else { return default_text() };
    match first_responding(&edit_file::listen_addresses(&paths)).await {
        Some(addr) => format!(
            "no proxy is running for the data dir {} (another program listens at {addr})",
            paths.data.display()
        ),
        None => default_text(),
    }
}

/// The base URL for clients: of the running proxy, or else of the configured listen address.
pub(super) async fn base_url(ctx: &CommandContext) -> Result<String, CliError> {
    if ctx.global.url.is_some() {
        return Ok(url_flag(ctx));
    }
    if let Some(base) = RunningProxy::try_connect(ctx)?
        .and_then(|proxy| proxy.run_info)
        .and_then(|running| running.base_url())
    {
        return Ok(base);
    }
    output::print_note(&format!(
        "note: {}; start it with `aiproxy serve`",
        not_running_note(ctx).await
    ));
    let listen = edit_file::listen_addresses(&ctx.global.paths()?);
    Ok(format!(
        "http://{}",
        listen
            .first()
            .map_or_else(|| edit_file::DEFAULT_LISTEN.to_owned(), |addr| dial_address(addr))
    ))
}

/// The base URL of a running proxy.
pub(super) fn base_url_of(ctx: &CommandContext, proxy: &RunningProxy) -> String {
    proxy.run_info.as_ref().and_then(RunInfo::base_url).unwrap_or_else(|| url_flag(ctx))
}

/// `--url` with its scheme.
fn url_flag(ctx: &CommandContext) -> String {
    let url = ctx.global.url.as_deref().unwrap_or_default().trim_end_matches('/');
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

/// Reloads the running proxy after a command changed the config. It is not an error if no proxy is
/// running. A rejection is only a warning because the file has already changed.
pub async fn reload_if_running(ctx: &CommandContext) {
    let Ok(Some(proxy)) = RunningProxy::try_connect(ctx) else { return };
    match request_reload(&proxy).await {
        Ok(ReloadResult { ok: true, .. }) => {}
        Ok(ReloadResult { problems, .. }) => {
            output::print_note("warning: the running proxy did not apply the change:");
            problems.iter().for_each(|problem| output::print_note(problem));
        }
        Err(error) if error.exit == ExitStatus::Unreachable => {}
        Err(error) => {
            output::print_note(&format!(
                "warning: the running proxy did not apply the change: {error}"
            ));
        }
    }
}

/// Requests a reload.
///
/// # Errors
///
/// No response. A result that reports a broken file is not an error.
pub async fn request_reload(proxy: &RunningProxy) -> Result<ReloadResult, CliError> {
    match proxy.client.post_json("/aiproxy/v1/reload", &serde_json::json!({})).await {
        Ok(reloaded) => Ok(reloaded),
        Err(ControlError::Refused(422, text)) => {
            let problems = proxy.snapshot().await?.config.problems;
            let problems = if problems.is_empty() { vec![text.clone()] } else { problems };
            let text = ReloadMessage::from_text(text.into()).into();
            Ok(ReloadResult { ok: false, problems, text, upstreams: 0 })
        }
        Err(error) => Err(error.into()),
    }
}
