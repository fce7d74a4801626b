//! What `serve` says when it is up: addresses, client key, upstreams.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::timeout;
use unicode_width::UnicodeWidthStr;

use super::{
    super::{out, reveal::reveal},
    admin::Hands,
};
use crate::{
    config::settings::Origin,
    control::{
        rundir::dial_address,
        snapshot::{KeyStatus, UpstreamState},
        views,
    },
    server::gate::ServerState,
};

/// The client key is waited for this long; a slow keyring must not keep the rest back.
const KEY: Duration = Duration::from_secs(5);

/// Prints the panel; where nobody reads it, nothing happens. `flags` are what other commands need
/// to find this proxy.
pub(super) async fn print(
    gate: &Arc<ServerState>,
    hands: &Arc<Hands>,
    addrs: &[SocketAddr],
    flags: &str,
) {
    let base = addrs.first().map_or_else(String::new, |addr| dial_address(&addr.to_string()));
    let paint = out::Paint::stdout();
    let (mut lines, dim) = (Vec::new(), |text: &str| paint.dim(text));
    let mut rest = String::new();
    if let Some(more) = addrs.get(1..).filter(|more| !more.is_empty()) {
        rest = format!(
            " (and {})",
            more.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        );
    }
    lines.push(format!(
        "{} listens on {base}{rest}",
        paint.bold(concat!("aiproxy ", env!("CARGO_PKG_VERSION")))
    ));
    for (name, url) in [
        ("OpenAI", format!("http://{base}/v1")),
        ("Anthropic", format!("http://{base}")),
        ("Gemini", format!("http://{base}")),
        ("Ollama", format!("http://{base}")),
    ] {
        lines.push(format!("  {name:<11}{url}"));
    }
    let news = gate.clients.changed.notified();
    if gate.clients.table().loading {
        drop(timeout(KEY, news).await);
    }
    let key = hands
        .loader
        .default_key
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .map(|(secret, kept)| (Arc::clone(secret), kept.to_string()));
    match key {
        Some((secret, kept)) => {
            lines.push(format!("  {:<11}{}", "client key", reveal(&secret)));
            lines.push(format!(
                "  {:<11}{}",
                "",
                dim(&format!(
                    "kept in {kept}; `eval \"$(aiproxy env{flags})\"` sets it in a shell"
                ))
            ));
        }
        None => lines.push(format!(
            "  {:<11}{}",
            "client key",
            dim(&format!("as the config says; `aiproxy project list{flags}` shows the projects"))
        )),
    }
    let generation = gate.engine.generation();
    let keys = views::keys(&gate.engine, &generation);
    let upstreams = views::upstreams(&gate.engine, &generation);
    let widest =
        upstreams.iter().map(|view| view.name.width() + 2).max().unwrap_or_default().max(11);
    for view in &upstreams {
        let own: Vec<_> = keys.iter().filter(|key| key.upstream == view.name).collect();
        let ok = own.iter().filter(|key| key.state == KeyStatus::Ok).count();
        let keys = match (own.len(), ok) {
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
    // A closed pipe (`aiproxy serve | head -1`) is no reason to stop serving.
    drop(out::print(&lines.join("\n")));
}
