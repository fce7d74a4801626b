//! Posts small things on our own account: alerts, traces. To an address of the config, not to an
//! upstream.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::sync::OnceCell;

use super::{fault, tls::Tls};
use crate::{
    config::{base_url, settings::OutboundUrl},
    ir::fault::{TransportFault, TransportKind},
    secrets::Secret,
};

/// Nobody needs longer to take a few kilobytes.
const LONGEST: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// Of an answer that is only looked at.
const LARGEST: usize = 16 << 10;
/// A longer `Retry-After` is not heeded.
const PATIENCE: Duration = Duration::from_secs(300);

/// The clients, made when they are first needed.
#[derive(Debug, Default)]
pub struct Poster {
    /// For other machines: through the proxy of the environment.
    far: OnceCell<reqwest::Client>,
    /// For this one.
    near: OnceCell<reqwest::Client>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    /// Its beginning.
    pub body: Bytes,
}

impl Poster {
    /// Posts JSON.
    ///
    /// # Errors
    ///
    /// No connection, or no answer within 10 s. Of the address only scheme, host and port are
    /// named.
    pub async fn post(
        &self,
        url: &OutboundUrl,
        headers: HeaderMap,
        credentials: &[(String, Secret)],
        body: Bytes,
    ) -> Result<Answered, TransportFault> {
        let client = self.client(url).await?;
        let mut headers = headers;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
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
        let asked = async {
            let mut answer = client.post(url.full()).headers(headers).body(body).send().await?;
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await? {
                body.extend_from_slice(
                    &piece[..piece.len().min(LARGEST.saturating_sub(body.len()))],
                );
                if body.len() >= LARGEST {
                    break;
                }
            }
            let after = answer
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let retry_after = after.map(|seconds| Duration::from_secs(seconds).min(PATIENCE));
            Ok::<_, reqwest::Error>(Answered {
                status: answer.status(),
                retry_after,
                body: body.into(),
            })
        };
        match tokio::time::timeout(LONGEST, asked).await {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(error)) => Err(fault::of_side(&error, url.origin(), is_near(url))),
            Err(_) => {
                let message =
                    format!("no answer from {} within {} s", url.origin(), LONGEST.as_secs());
                Err(TransportFault {
                    kind: TransportKind::TotalTimeout,
                    message,
                    may_be_received: true,
                })
            }
        }
    }

    async fn client(&self, url: &OutboundUrl) -> Result<&reqwest::Client, TransportFault> {
        let near = is_near(url);
        let cell = if near { &self.near } else { &self.far };
        let unusable = |message: String| TransportFault {
            kind: TransportKind::Tls,
            message,
            may_be_received: false,
        };
        cell.get_or_try_init(|| async {
            let tls = Tls::new(None, false).config().await.map_err(unusable)?;
            let builder = reqwest::Client::builder()
                .tls_backend_preconfigured((*tls).clone())
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .connect_timeout(CONNECT)
                .pool_max_idle_per_host(1);
            let builder = if near { builder.no_proxy() } else { builder };
            builder.build().map_err(|e| unusable(e.without_url().to_string()))
        })
        .await
    }
}

fn is_near(url: &OutboundUrl) -> bool {
    base_url::host_port(url.origin()).is_some_and(|(host, _)| base_url::is_loopback(&host))
}
