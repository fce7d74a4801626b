//! Prints the startup panel of `serve`: addresses, client key, upstreams.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::timeout;
use unicode_width::UnicodeWidthStr;

use crate::cli::{expose::expose_secret, output, serve::proxy_admin::ProxyAdmin};
use crate::{
    config::settings::Origin,
    control::{
        rundir::dial_address,
        snapshot::{KeyStatus, UpstreamState},
        views,
    },
    server::state::ServerState,
};

/// How long the panel waits for the client key, so that a slow keyring does not delay it.
const CLIENT_KEY_WAIT: Duration = Duration::from_secs(5);

/// Prints the panel if stdout has a reader. `flags` are the options that other commands need to
/// find this proxy.
pub(super) async fn print_banner(
    server_state: &Arc<ServerState>,
    admin: &Arc<ProxyAdmin>,
    addrs: &[SocketAddr],
    flags: &str,
) {
    let base = addrs.first().map_or_else(String::new, |addr| dial_address(&addr.to_string()));
    let styler = output::Styler::stdout();
    let (mut lines, dim) = (Vec::new(), |text: &str| styler.dim(text));
    let mut rest = String::new();
    if let Some(more) = addrs.get(1..).filter(|more| !more.is_empty()) {
        rest = format!(
            " (and {})",
            more.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        );
    }
    lines.push(format!(
        "{} listens on {base}{rest}",
        styler.bold(concat!("aiproxy ", env!("CARGO_PKG_VERSION")))
    ));
    for (name, url) in [
        ("OpenAI", format!("http://{base}/v1")),
        ("Anthropic", format!("http://{base}")),
        ("Gemini", format!("http://{base}")),
        ("Ollama", format!("http://{base}")),
    ] {
        lines.push(format!("  {name:<11}{url}"));
    }
    let changed = server_state.clients.changed.notified();
    if server_state.clients.table().loading {
        drop(timeout(CLIENT_KEY_WAIT, changed).await);
    }
    let key = admin
        .loader
        .default_key
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .map(|(secret, location)| (Arc::clone(secret), location.to_string()));
    match key {
        Some((secret, location)) => {
            lines.push(format!("  {:<11}{}", "client key", expose_secret(&secret)));
            lines.push(format!(
                "  {:<11}{}",
                "",
                dim(&format!(
                    "kept in {location}; `eval \"$(aiproxy env{flags})\"` sets it in a shell"
                ))
            ));
        }
        None => lines.push(format!(
            "  {:<11}{}",
            "client key",
            dim(&format!("as the config says; `aiproxy project list{flags}` shows the projects"))
        )),
    }
    let generation = server_state.engine.generation();
    let keys = views::keys(&server_state.engine, &generation);
    let upstreams = views::upstreams(&server_state.engine, &generation);
    let widest =
        upstreams.iter().map(|view| view.name.width() + 2).max().unwrap_or_default().max(11);
    for view in &upstreams {
        let upstream_keys: Vec<_> = keys.iter().filter(|key| key.upstream == view.name).collect();
        let ok = upstream_keys.iter().filter(|key| key.state == KeyStatus::Ok).count();
        let keys = match (upstream_keys.len(), ok) {
            (0, _) => "no key needed".to_owned(),
            (all, ok) if all == ok => format!("{all} key{}", if all == 1 { "" } else { "s" }),
            (1, _) => format!("its key is not usable; `aiproxy key list{flags}` tells why"),
            (all, ok) => format!("{ok} of {all} keys usable"),
        };
        let origin = match view.origin {
            Origin::Demo => "built in; needs no account",
            Origin::Env => "found in the environment",
            Origin::File => "",
            Origin::Local => "found on this machine",
        };
        let off = if view.state == UpstreamState::Disabled { "disabled, " } else { "" };
        let origin = if origin.is_empty() { String::new() } else { dim(&format!("  {origin}")) };
        let gap = " ".repeat(widest - view.name.width());
        lines.push(format!("  {}{gap}{off}{keys}{origin}", view.name));
    }
    lines.push(dim(&format!("  `aiproxy tui{flags}` shows what happens, Ctrl-C stops")));
    lines.push(String::new());
    // A closed pipe (`aiproxy serve | head -1`) does not stop the proxy.
    drop(output::print(&lines.join("\n")));
}
