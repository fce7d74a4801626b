//! One attempt: a request out, the head of an answer back, or the reason why not.

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

use super::{
    auth,
    decode::{Coding, DecodeError, Decoder},
    fault,
    keys::Keys,
    lane::LaneBody,
    line::LineState,
    local::Local,
    pool::{Pool, Pools},
    uri,
};
use crate::{
    config::settings::{DialectEndpoint, KeyId, Upstream},
    ir::fault::{TransportFault, TransportKind},
};

pub use super::body::AnswerBody;

/// The way out to all upstreams. Lives as long as the process; a reload calls `retain`.
pub struct Gateway {
    keys: Arc<Keys>,
    pools: Pools,
    locals: Vec<(&'static str, Arc<dyn Local>)>,
}

/// One request to one end of an upstream.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub upstream: &'a Arc<Upstream>,
    pub end: &'a DialectEndpoint,
    pub key: Option<KeyId>,
    pub method: Method,
    /// Below the base URL; begins with `/`.
    pub path: &'a str,
    /// Without `?`. The end's own query is added, a `key` is taken out.
    pub query: Option<&'a str>,
    /// Already filtered; credential, configured headers and `accept-encoding` are put in here.
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An answer whose head is there.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// As they came, less coding and length where the body is decoded.
    pub headers: HeaderMap,
    pub body: AnswerBody,
    /// It came over a connection that had served before.
    pub reused: bool,
}

impl Gateway {
    #[must_use]
    pub fn new(keys: Arc<Keys>) -> Self {
        Self { keys, pools: Pools::new(), locals: Vec::new() }
    }

    /// Ends whose base URL begins with `scheme:` are answered by `local`, without a socket.
    #[must_use]
    pub fn with_local(mut self, scheme: &'static str, local: Arc<dyn Local>) -> Self {
        self.locals.push((scheme, local));
        self
    }

    #[must_use]
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Drops the connections that none of these upstreams can use.
    pub fn retain(&self, upstreams: &[Arc<Upstream>]) {
        self.pools.retain(upstreams);
    }

    /// Drops idle connections that lay too long or were closed; to be called now and then.
    pub fn sweep(&self) {
        self.pools.sweep();
    }

    /// Drops all idle connections: after sleep, or when the network changed.
    pub fn drop_idle(&self) {
        self.pools.drop_idle();
    }

    /// Sends a request and waits for the head of its answer, without a limit of time but that for
    /// connecting. Dropping the future closes the connection.
    ///
    /// # Errors
    ///
    /// `Stale`: a kept connection was dead; the same may be sent again at once, and then gets a new
    /// connection. Everything else as `TransportKind` says; `sent` tells whether the upstream may
    /// have read the request.
    pub async fn send(&self, call: Call<'_>) -> Result<Answer, TransportFault> {
        let Call { upstream, end, key, method, path, query, mut headers, body } = call;
        auth::dress(&mut headers, upstream, end.dialect, key, &self.keys)?;
        if let Some(local) = self.local(end) {
            let uri = uri::build("", path, end.query.as_deref(), query)
                .map_err(|e| unsendable(upstream, &e))?;
            let mut request = Request::new(body);
            (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) =
                (method, uri, headers);
            // Without a path of its own the upstream cannot tell which protocol it is asked in.
            request.extensions_mut().insert(end.dialect);
            let (head, body) = local.answer(request).await.into_parts();
            let body = AnswerBody::local(body, Arc::clone(&upstream.name));
            return Ok(Answer { status: head.status, headers: head.headers, body, reused: false });
        }
        let uri = uri::build(&end.base_url, path, end.query.as_deref(), query)
            .map_err(|e| unsendable(upstream, &e))?;
        let pool = self.pool(upstream);
        if let Some(credentials) = pool.connector.proxy_credentials(&uri) {
            headers.insert(PROXY_AUTHORIZATION, credentials);
        }
        let bodiless = method == Method::HEAD;
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) =
            (method, uri, headers);
        let started = Instant::now();
        let (mut head, body, line) = if pool.connector.is_plain(request.uri()) {
            let sent = pool.lanes.send(request, &pool.connector, pool.trusts()).await;
            let (response, line) = sent.map_err(|error| {
                stale(&pool, fault::of_lane(&error, upstream, end, started.elapsed()))
            })?;
            let (head, body) = response.into_parts();
            (head, Coming::Lane(body), Some(line))
        } else {
            let sent = pool.client().request(request).await;
            let response = sent.map_err(|error| {
                stale(&pool, fault::of_send(&error, upstream, end, started.elapsed()))
            })?;
            let (mut head, body) = response.into_parts();
            let line = head.extensions.remove::<Arc<LineState>>();
            (head, Coming::Network(body), line)
        };
        let reused = line.is_some_and(|line| line.answers.fetch_add(1, Relaxed) > 0);
        if head.status.is_informational() {
            // Nobody asked for a change of protocol.
            return Err(garbage(end, "an HTTP answer that is none"));
        }
        let mut decoder = None;
        if head.headers.contains_key(CONTENT_ENCODING) && !bodiless {
            decoder = Coding::of(&head.headers).map_err(|e| undecodable(end, e))?.map(Decoder::new);
            head.headers.remove(CONTENT_ENCODING);
            if decoder.is_some() {
                head.headers.remove(CONTENT_LENGTH);
            }
        }
        let from = Arc::clone(&upstream.name);
        let body = match body {
            Coming::Lane(body) => AnswerBody::lane(body, decoder, from),
            Coming::Network(body) => AnswerBody::network(body, decoder, from),
        };
        Ok(Answer { status: head.status, headers: head.headers, body, reused })
    }

    pub(super) fn pool(&self, upstream: &Upstream) -> Arc<Pool> {
        self.pools.of(upstream)
    }

    pub(super) fn local(&self, end: &DialectEndpoint) -> Option<&Arc<dyn Local>> {
        let (scheme, _) = end.base_url.split_once(':')?;
        self.locals.iter().find(|(own, _)| *own == scheme).map(|(_, local)| local)
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// The body of an answer by the kind of connection that it comes over.
enum Coming {
    Lane(LaneBody),
    Network(Incoming),
}

/// Where a kept connection turned out dead, the others are not trusted for a while.
fn stale(pool: &Pool, fault: TransportFault) -> TransportFault {
    if fault.kind == TransportKind::Stale {
        pool.distrust();
    }
    fault
}

fn unsendable(upstream: &Upstream, error: &http::uri::InvalidUri) -> TransportFault {
    let message = format!("the address at `{}` is not a URI: {error}", upstream.name);
    TransportFault { kind: TransportKind::Connect, message, may_be_received: false }
}

fn garbage(end: &DialectEndpoint, what: &str) -> TransportFault {
    let message = format!("{what} ({})", uri::place_of(&end.base_url));
    TransportFault { kind: TransportKind::InvalidHttp, message, may_be_received: true }
}

fn undecodable(end: &DialectEndpoint, error: DecodeError) -> TransportFault {
    garbage(end, &error.to_string())
}
