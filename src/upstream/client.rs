//! Performs one attempt: sends a request and returns the response head, or the reason for the
//! failure.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, PROXY_AUTHORIZATION},
};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::upstream::{
    auth,
    decode::{ContentCoding, DecodeError, Decoder},
    fault,
    in_process::InProcess,
    keys::ProviderKeys,
    plain_pool::PooledBody,
    pool::{ConnectionPool, ConnectionPools},
    tracked_io::IoState,
    uri,
};
use crate::{
    config::settings::{DialectEndpoint, KeyId, Upstream},
    ir::{
        fault::{TransportFault, TransportKind},
        reason::failure::FailureReason,
    },
};

pub use crate::upstream::body::UpstreamBody;

/// The client for all upstreams. It lives as long as the process; a reload calls `retain`.
pub struct UpstreamClient {
    keys: Arc<ProviderKeys>,
    pools: ConnectionPools,
    in_process: Vec<(&'static str, Arc<dyn InProcess>)>,
}

/// One request to one endpoint of an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamRequest<'a> {
    pub upstream: &'a Arc<Upstream>,
    pub endpoint: &'a DialectEndpoint,
    pub key: Option<KeyId>,
    pub method: Method,
    /// Relative to the base URL; begins with `/`.
    pub path: &'a str,
    /// Without `?`. The endpoint's own query is added, and a `key` parameter is removed.
    pub query: Option<&'a str>,
    /// Already filtered; the client adds the credential, configured headers and `accept-encoding`.
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A response whose head has arrived.
#[derive(Debug)]
pub struct UpstreamResponse {
    pub status: StatusCode,
    /// As received, without coding and length if the body is decoded.
    pub headers: HeaderMap,
    pub body: UpstreamBody,
    /// The response came over a connection that had served before.
    pub reused: bool,
}

impl UpstreamClient {
    #[must_use]
    pub fn new(keys: Arc<ProviderKeys>) -> Self {
        Self { keys, pools: ConnectionPools::new(), in_process: Vec::new() }
    }

    /// Makes `local` respond, without a socket, to endpoints whose base URL begins with `scheme:`.
    #[must_use]
    pub fn with_in_process(mut self, scheme: &'static str, local: Arc<dyn InProcess>) -> Self {
        self.in_process.push((scheme, local));
        self
    }

    #[must_use]
    pub fn keys(&self) -> &Arc<ProviderKeys> {
        &self.keys
    }

    /// Drops the connections that none of these upstreams can use.
    pub fn retain(&self, upstreams: &[Arc<Upstream>]) {
        self.pools.retain(upstreams);
    }

    /// Drops idle connections that exceeded their timeout or were closed; called periodically.
    pub fn drop_stale(&self) {
        self.pools.drop_stale();
    }

    /// Drops all idle connections: after sleep, or when the network changed.
    pub fn drop_idle(&self) {
        self.pools.drop_idle();
    }

    /// Sends a request and waits for the response head, with no time limit except that for
    /// connecting. Dropping the future closes the connection.
    ///
    /// # Errors
    ///
    /// `Stale`: an idle connection was closed; the same request may be sent again at once, over a
    /// new connection. All other kinds are as `TransportKind` says; `may_be_received` says whether
    /// the upstream may have read the request.
    pub async fn send(
        &self,
        call: UpstreamRequest<'_>,
    ) -> Result<UpstreamResponse, TransportFault> {
        let UpstreamRequest { upstream, endpoint, key, method, path, query, mut headers, body } =
            call;
        auth::set_upstream_headers(&mut headers, upstream, endpoint.dialect, key, &self.keys)?;
        if let Some(local) = self.in_process_for(endpoint) {
            let uri = uri::build_uri("", path, endpoint.query.as_deref(), query)
                .map_err(|e| invalid_uri_fault(upstream, &e))?;
            let mut request = Request::new(body);
            (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) =
                (method, uri, headers);
            // Without a path of its own, the upstream cannot otherwise know the dialect of the
            // request.
            request.extensions_mut().insert(endpoint.dialect);
            let (head, body) = local.respond(request).await.into_parts();
            let body = UpstreamBody::from_in_process(body, Arc::clone(&upstream.name));
            return Ok(UpstreamResponse {
                status: head.status,
                headers: head.headers,
                body,
                reused: false,
            });
        }
        let uri = uri::build_uri(&endpoint.base_url, path, endpoint.query.as_deref(), query)
            .map_err(|e| invalid_uri_fault(upstream, &e))?;
        let pool = self.pool(upstream);
        if let Some(credentials) = pool.connector.proxy_credentials(&uri) {
            headers.insert(PROXY_AUTHORIZATION, credentials);
        }
        let bodiless = method == Method::HEAD;
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) =
            (method, uri, headers);
        let started = Instant::now();
        let (mut head, body, line) = if pool.connector.is_plain_http(request.uri()) {
            let sent = pool.plain_pool.send(request, &pool.connector, pool.trusts_idle()).await;
            let (response, line) = sent.map_err(|error| {
                note_stale(
                    &pool,
                    fault::plain_send_fault(&error, upstream, endpoint, started.elapsed()),
                )
            })?;
            let (head, body) = response.into_parts();
            (head, IncomingBody::Pooled(body), Some(line))
        } else {
            let sent = pool.client().request(request).await;
            let response = sent.map_err(|error| {
                note_stale(&pool, fault::send_fault(&error, upstream, endpoint, started.elapsed()))
            })?;
            let (mut head, body) = response.into_parts();
            let line = head.extensions.remove::<Arc<IoState>>();
            (head, IncomingBody::Network(body), line)
        };
        let reused = line.is_some_and(|line| line.responses.fetch_add(1, Relaxed) > 0);
        if head.status.is_informational() {
            // The request did not ask for a protocol change.
            return Err(garbage_fault(endpoint, "not an HTTP response"));
        }
        let mut decoder = None;
        if head.headers.contains_key(CONTENT_ENCODING) && !bodiless {
            decoder = ContentCoding::from_headers(&head.headers)
                .map_err(|e| decode_fault(endpoint, e))?
                .map(Decoder::new);
            head.headers.remove(CONTENT_ENCODING);
            if decoder.is_some() {
                head.headers.remove(CONTENT_LENGTH);
            }
        }
        let from = Arc::clone(&upstream.name);
        let body = match body {
            IncomingBody::Pooled(body) => UpstreamBody::from_pooled(body, decoder, from),
            IncomingBody::Network(body) => UpstreamBody::from_network(body, decoder, from),
        };
        Ok(UpstreamResponse { status: head.status, headers: head.headers, body, reused })
    }

    pub(super) fn pool(&self, upstream: &Upstream) -> Arc<ConnectionPool> {
        self.pools.for_upstream(upstream)
    }

    pub(super) fn in_process_for(&self, endpoint: &DialectEndpoint) -> Option<&Arc<dyn InProcess>> {
        let (scheme, _) = endpoint.base_url.split_once(':')?;
        self.in_process.iter().find(|(own, _)| *own == scheme).map(|(_, local)| local)
    }
}

impl fmt::Debug for UpstreamClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// The body of a response by the kind of its connection.
enum IncomingBody {
    Pooled(PooledBody),
    Network(Incoming),
}

/// After a stale idle connection, the pool does not reuse the others for a while.
fn note_stale(pool: &ConnectionPool, fault: TransportFault) -> TransportFault {
    if fault.kind == TransportKind::Stale {
        pool.distrust_idle();
    }
    fault
}

fn invalid_uri_fault(upstream: &Upstream, error: &http::uri::InvalidUri) -> TransportFault {
    let message = format!("the address at `{}` is not a URI: {error}", upstream.name);
    TransportFault {
        kind: TransportKind::Connect,
        reason: FailureReason::text(message).into(),
        may_be_received: false,
    }
}

fn garbage_fault(endpoint: &DialectEndpoint, what: &str) -> TransportFault {
    let message = format!("{what} ({})", uri::host_port_of(&endpoint.base_url));
    TransportFault {
        kind: TransportKind::InvalidHttp,
        reason: FailureReason::text(message).into(),
        may_be_received: true,
    }
}

fn decode_fault(endpoint: &DialectEndpoint, error: DecodeError) -> TransportFault {
    garbage_fault(endpoint, &error.to_string())
}
