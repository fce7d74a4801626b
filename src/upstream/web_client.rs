//! The client for web addresses that are no upstream of models, such as MCP servers and their APIs.

use std::time::Duration;

use tokio::sync::OnceCell;

use crate::{config::base_url, upstream::tls::TlsSettings};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The clients, created on first use: no redirects, no retries, no limit on the time of an answer.
#[derive(Debug, Default)]
pub struct WebClient {
    /// For other machines: through the proxy of the environment.
    proxied: OnceCell<reqwest::Client>,
    /// For this machine.
    local: OnceCell<reqwest::Client>,
}

impl WebClient {
    /// Returns the client for an address.
    ///
    /// # Errors
    ///
    /// The system's certificates cannot be read.
    pub async fn for_url(&self, url: &str) -> Result<&reqwest::Client, String> {
        let local = is_local(url);
        let cell = if local { &self.local } else { &self.proxied };
        cell.get_or_try_init(|| async {
            let builder = builder().await?;
            let builder = if local { builder.no_proxy() } else { builder };
            builder.build().map_err(|error| error.without_url().to_string())
        })
        .await
    }
}

/// Returns a builder with the system's certificates, without redirects and retries.
///
/// # Errors
///
/// The system's certificates cannot be read.
pub async fn builder() -> Result<reqwest::ClientBuilder, String> {
    let tls = TlsSettings::new(None, false).config().await?;
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured((*tls).clone())
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true))
}

/// Whether the address is on this machine.
#[must_use]
pub fn is_local(url: &str) -> bool {
    base_url::host_port(url).is_some_and(|(host, _)| base_url::is_loopback(&host))
}
