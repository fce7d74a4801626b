//! Provides the client for requests outside the request path, such as key tests, where convenience
//! matters more than CPU.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use crate::upstream::{
    auth,
    client::{UpstreamClient, UpstreamRequest},
    fault, uri,
};
use crate::{
    config::settings::{DialectEndpoint, KeyId, ProxySetting, Upstream},
    ir::{
        fault::{TransportFault, TransportKind},
        reason::failure::FailureReason,
    },
};

/// A small response, read completely.
#[derive(Clone, Debug)]
pub struct SmallResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

const MAX_BODY_BYTES: usize = 8 << 20;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the client with an upstream's proxy, roots and connect timeout. It is created once per
/// such set and then shared.
///
/// # Errors
///
/// `ca_file` cannot be read, or the proxy is not a URL.
pub async fn aux_client(
    upstream_client: &UpstreamClient,
    upstream: &Upstream,
) -> Result<reqwest::Client, TransportFault> {
    let pool = upstream_client.pool(upstream);
    let made = pool.aux_client.get_or_try_init(|| async {
        let tls =
            pool.tls.config().await.map_err(|message| setup_fault(TransportKind::Tls, message))?;
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
                    setup_fault(
                        TransportKind::Connect,
                        "the configured `proxy` is not a URL".to_owned(),
                    )
                })?;
                builder = builder.no_proxy().proxy(proxy);
            }
        }
        builder.build().map_err(|e| setup_fault(TransportKind::Tls, e.without_url().to_string()))
    });
    made.await.cloned()
}

/// Sends a GET for `path` to an endpoint with a key; the status shows whether the key is valid.
///
/// # Errors
///
/// No connection, no complete response within 10 s, or a response above 8 MiB.
pub async fn get(
    upstream_client: &UpstreamClient,
    upstream: &Arc<Upstream>,
    endpoint: &DialectEndpoint,
    key: Option<KeyId>,
    path: &str,
    mut headers: HeaderMap,
) -> Result<SmallResponse, TransportFault> {
    if upstream_client.in_process_for(endpoint).is_some()
        || (upstream.local && upstream.proxy == ProxySetting::Environment)
    {
        return get_via_upstream_client(upstream_client, upstream, endpoint, key, path, headers)
            .await;
    }
    auth::set_upstream_headers(
        &mut headers,
        upstream,
        endpoint.dialect,
        key,
        upstream_client.keys(),
    )?;
    let url =
        uri::build_uri(&endpoint.base_url, path, endpoint.query.as_deref(), None).map_err(|e| {
            setup_fault(
                TransportKind::Connect,
                format!("the address of `{}` is not a URL: {e}", upstream.name),
            )
        })?;
    let client = aux_client(upstream_client, upstream).await?;
    let exchange = async {
        let mut answer = client.get(url.to_string()).headers(headers).send().await?;
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_BODY_BYTES {
                break;
            }
        }
        Ok::<_, reqwest::Error>((answer.status(), answer.headers().clone(), body))
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, exchange).await {
        Ok(Ok((.., body))) if body.len() > MAX_BODY_BYTES => Err(TransportFault {
            kind: TransportKind::TooLarge,
            reason: FailureReason::text(format!("{} answered too much", upstream.name)).into(),
            may_be_received: true,
        }),
        Ok(Ok((status, headers, body))) => Ok(SmallResponse { status, headers, body: body.into() }),
        Ok(Err(error)) => Err(fault::aux_fault(&error, &endpoint.base_url, upstream.local)),
        Err(_) => Err(timeout_fault(upstream)),
    }
}

/// Serves local upstreams: inside this process, or without a proxy regardless of the environment.
async fn get_via_upstream_client(
    upstream_client: &UpstreamClient,
    upstream: &Arc<Upstream>,
    endpoint: &DialectEndpoint,
    key: Option<KeyId>,
    path: &str,
    headers: HeaderMap,
) -> Result<SmallResponse, TransportFault> {
    let call = UpstreamRequest {
        upstream,
        endpoint,
        key,
        method: Method::GET,
        path,
        query: None,
        headers,
        body: Bytes::new(),
    };
    let exchange = async {
        let answer = upstream_client.send(call).await?;
        let body = answer.body.read_to_end(MAX_BODY_BYTES as u64).await?;
        Ok(SmallResponse { status: answer.status, headers: answer.headers, body })
    };
    tokio::time::timeout(REQUEST_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| Err(timeout_fault(upstream)))
}

fn timeout_fault(upstream: &Upstream) -> TransportFault {
    let message =
        format!("no answer from {} within {} s", upstream.name, REQUEST_TIMEOUT.as_secs());
    TransportFault {
        kind: TransportKind::TotalTimeout,
        reason: FailureReason::text(message).into(),
        may_be_received: true,
    }
}

fn setup_fault(kind: TransportKind, message: String) -> TransportFault {
    TransportFault { kind, reason: FailureReason::text(message).into(), may_be_received: false }
}
