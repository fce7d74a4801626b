//! The client for everything beside the request path: key tests and the like, where convenience
//! counts and CPU does not.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::{
    auth, fault,
    send::{Call, Gateway},
    uri,
};
use crate::{
    config::settings::{DialectEndpoint, KeyId, ProxySetting, Upstream},
    ir::fault::{TransportFault, TransportKind},
};

/// A small answer, read whole.
#[derive(Clone, Debug)]
pub struct Checked {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

const LARGEST: usize = 8 << 20;
const LONGEST: Duration = Duration::from_secs(10);

/// The client with an upstream's proxy, roots and connect timeout; made once per such set, shared
/// afterwards.
///
/// # Errors
///
/// `ca_file` cannot be read, or the proxy is no URL.
pub async fn client(
    gateway: &Gateway,
    upstream: &Upstream,
) -> Result<reqwest::Client, TransportFault> {
    let pool = gateway.pool(upstream);
    let made = pool.side.get_or_try_init(|| async {
        let tls =
            pool.tls.config().await.map_err(|message| unusable(TransportKind::Tls, message))?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(upstream.timeouts.connect)
            .tcp_nodelay(true);
        match &upstream.proxy {
            ProxySetting::Environment => {}
            ProxySetting::Direct => builder = builder.no_proxy(),
            ProxySetting::Url(url) => {
                let proxy = reqwest::Proxy::all(url.as_str()).map_err(|_| {
                    unusable(
                        TransportKind::Connect,
                        "the configured `proxy` is not a URL".to_owned(),
                    )
                })?;
                builder = builder.no_proxy().proxy(proxy);
            }
        }
        builder.build().map_err(|e| unusable(TransportKind::Tls, e.without_url().to_string()))
    });
    made.await.cloned()
}

/// Asks an end for `path` with a key: whether the key is good is in the status.
///
/// # Errors
///
/// No connection, no whole answer within 10 s, or more than 8 MiB of it.
pub async fn get(
    gateway: &Gateway,
    upstream: &Arc<Upstream>,
    end: &DialectEndpoint,
    key: Option<KeyId>,
    path: &str,
    mut headers: HeaderMap,
) -> Result<Checked, TransportFault> {
    if gateway.local(end).is_some()
        || (upstream.local && upstream.proxy == ProxySetting::Environment)
    {
        return through_gateway(gateway, upstream, end, key, path, headers).await;
    }
    auth::dress(&mut headers, upstream, end.dialect, key, gateway.keys())?;
    let url = uri::build(&end.base_url, path, end.query.as_deref(), None).map_err(|e| {
        unusable(
            TransportKind::Connect,
            format!("the address of `{}` is not a URL: {e}", upstream.name),
        )
    })?;
    let client = client(gateway, upstream).await?;
    let asked = async {
        let mut answer = client.get(url.to_string()).headers(headers).send().await?;
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            body.extend_from_slice(&piece);
            if body.len() > LARGEST {
                break;
            }
        }
        Ok::<_, reqwest::Error>((answer.status(), answer.headers().clone(), body))
    };
    match tokio::time::timeout(LONGEST, asked).await {
        Ok(Ok((.., body))) if body.len() > LARGEST => Err(TransportFault {
            kind: TransportKind::TooLarge,
            message: format!("{} answered too much", upstream.name),
            may_be_received: true,
        }),
        Ok(Ok((status, headers, body))) => Ok(Checked { status, headers, body: body.into() }),
        Ok(Err(error)) => Err(fault::of_side(&error, &end.base_url, upstream.local)),
        Err(_) => Err(too_slow(upstream)),
    }
}

/// Upstreams on this machine: in the process, or behind no proxy whatever the environment says.
async fn through_gateway(
    gateway: &Gateway,
    upstream: &Arc<Upstream>,
    end: &DialectEndpoint,
    key: Option<KeyId>,
    path: &str,
    headers: HeaderMap,
) -> Result<Checked, TransportFault> {
    let call = Call {
        upstream,
        end,
        key,
        method: Method::GET,
        path,
        query: None,
        headers,
        body: Bytes::new(),
    };
    let asked = async {
        let answer = gateway.send(call).await?;
        let body = answer.body.read(LARGEST as u64).await?;
        Ok(Checked { status: answer.status, headers: answer.headers, body })
    };
    tokio::time::timeout(LONGEST, asked).await.unwrap_or_else(|_| Err(too_slow(upstream)))
}

fn too_slow(upstream: &Upstream) -> TransportFault {
    let message = format!("no answer from {} within {} s", upstream.name, LONGEST.as_secs());
    TransportFault { kind: TransportKind::TotalTimeout, message, may_be_received: true }
}

fn unusable(kind: TransportKind, message: String) -> TransportFault {
    TransportFault { kind, message, may_be_received: false }
}
