//! Posts small messages such as alerts and traces to an address in the config, not to an upstream.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::sync::OnceCell;

use crate::upstream::{fault, tls::TlsSettings};
use crate::{
    config::{base_url, settings::OutboundUrl},
    ir::{
        fault::{TransportFault, TransportKind},
        reason::failure::FailureReason,
    },
    secrets::Secret,
};

/// Ample time for a receiver to take a few kilobytes.
const POST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a response that is only inspected.
const MAX_RESPONSE_BYTES: usize = 16 << 10;
/// The maximum `Retry-After` that is respected.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The clients, created on first use.
#[derive(Debug, Default)]
pub struct WebhookClient {
    /// For other machines: through the proxy of the environment.
    proxied_client: OnceCell<reqwest::Client>,
    /// For this machine.
    local_client: OnceCell<reqwest::Client>,
}

/// The response.
#[derive(Clone, Debug)]
pub struct WebhookResponse {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    /// The beginning of the body.
    pub body: Bytes,
}

impl WebhookClient {
    /// Posts a body, which is JSON unless `headers` state another type.
    ///
    /// # Errors
    ///
    /// No connection, or no response within 10 s. Errors name only scheme, host and port of the
    /// address.
    pub async fn post(
        &self,
        url: &OutboundUrl,
        headers: HeaderMap,
        credentials: &[(String, Secret)],
        body: Bytes,
    ) -> Result<WebhookResponse, TransportFault> {
        let client = self.client(url).await?;
        let mut headers = headers;
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("aiproxy/", env!("CARGO_PKG_VERSION"))),
        );
        for (name, value) in credentials {
            if let (Ok(name), Some(value)) =
                (HeaderName::from_bytes(name.as_bytes()), value.header_value())
            {
                headers.insert(name, value);
            }
        }
        let exchange = async {
            let mut answer = client.post(url.full()).headers(headers).body(body).send().await?;
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await? {
                body.extend_from_slice(
                    &piece[..piece.len().min(MAX_RESPONSE_BYTES.saturating_sub(body.len()))],
                );
                if body.len() >= MAX_RESPONSE_BYTES {
                    break;
                }
            }
            let after = answer
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let retry_after =
                after.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
            Ok::<_, reqwest::Error>(WebhookResponse {
                status: answer.status(),
                retry_after,
                body: body.into(),
            })
        };
        match tokio::time::timeout(POST_TIMEOUT, exchange).await {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(error)) => Err(fault::aux_fault(&error, url.origin(), is_local(url))),
            Err(_) => {
                let message =
                    format!("no answer from {} within {} s", url.origin(), POST_TIMEOUT.as_secs());
                Err(TransportFault {
                    kind: TransportKind::TotalTimeout,
                    reason: FailureReason::text(message).into(),
                    may_be_received: true,
                })
            }
        }
    }

    async fn client(&self, url: &OutboundUrl) -> Result<&reqwest::Client, TransportFault> {
        let local = is_local(url);
        let cell = if local { &self.local_client } else { &self.proxied_client };
        let unusable = |message: String| TransportFault {
            kind: TransportKind::Tls,
            reason: FailureReason::text(message).into(),
            may_be_received: false,
        };
        cell.get_or_try_init(|| async {
            let tls = TlsSettings::new(None, false).config().await.map_err(unusable)?;
            let builder = reqwest::Client::builder()
                .tls_backend_preconfigured((*tls).clone())
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_max_idle_per_host(1);
            let builder = if local { builder.no_proxy() } else { builder };
            builder.build().map_err(|e| unusable(e.without_url().to_string()))
        })
        .await
    }
}

fn is_local(url: &OutboundUrl) -> bool {
    base_url::host_port(url.origin()).is_some_and(|(host, _)| base_url::is_loopback(&host))
}
