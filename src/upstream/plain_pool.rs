//! Pools idle HTTP/1 connections to plain-text hosts; the request that uses a connection also
//! drives it.
//!
//! The pooled client gives each connection a task of its own, and every head and chunk goes from
//! that task to the request's. If only HTTP/1 is possible, the request drives the connection
//! itself: no second task, and no scheduler turn for each event of a stream.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{HeaderValue, Request, Response, Uri, header::HOST, uri::Authority};
use http_body::Body;
use http_body_util::Full;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    client::conn::http1::{Builder, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{task::coop::has_budget_remaining, time::Instant};
use tower_service::Service;

use crate::base::sync::Mutex;
use crate::upstream::{
    connect::Connector,
    connect_fault::ConnectFault,
    tracked_io::{IoState, TrackedIo},
};

/// The number of polls after which a connection that keeps waking itself yields.
const MAX_POLLS: u8 = 8;

/// The idle plain-text connections of one route.
pub(super) struct PlainPool {
    /// Only a few, so they are searched in order.
    hosts: Mutex<Vec<HostConnections>>,
    idle_timeout: Duration,
    max_idle_per_host: usize,
    max_head_bytes: usize,
}

struct HostConnections {
    authority: Authority,
    /// Oldest first.
    idle: Vec<PooledConn>,
}

/// One connection.
struct PooledConn {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it has ended.
    connection: Option<Box<Connection<TokioIo<TrackedIo>, Full<Bytes>>>>,
    io_state: Arc<IoState>,
    waker: Arc<WakerRelay>,
    idle_since: Instant,
    /// The value of `Host`.
    host: HeaderValue,
}

/// Why no response head arrived.
pub(super) enum PlainSendError {
    Connect(ConnectFault),
    /// With the state of the connection.
    Exchange(hyper::Error, Arc<IoState>),
}

impl PlainPool {
    pub(super) fn new(
        idle_timeout: Duration,
        max_idle_per_host: usize,
        max_head_bytes: usize,
    ) -> Self {
        Self { hosts: Mutex::default(), idle_timeout, max_idle_per_host, max_head_bytes }
    }

    /// Sends a request in absolute form and waits for the response head. `reuse` allows an idle
    /// connection.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<Full<Bytes>>,
        connector: &Connector,
        reuse: bool,
    ) -> Result<(Response<PooledBody>, Arc<IoState>), PlainSendError> {
        let uri = std::mem::take(request.uri_mut());
        let Some(authority) = uri.authority().cloned() else {
            return Err(PlainSendError::Connect(ConnectFault::unresolved(&uri)));
        };
        let path = uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
        loop {
            let mut conn = match self.take_idle(&authority).filter(|_| reuse) {
                Some(conn) => conn,
                // Boxed: rare, and large.
                None => Box::pin(self.open(&uri, connector)).await?,
            };
            request.headers_mut().entry(HOST).or_insert_with(|| conn.host.clone());
            match conn.exchange(request).await {
                Ok(response) => {
                    let io_state = Arc::clone(&conn.io_state);
                    return Ok((
                        response
                            .map(|body| PooledBody::new(body, conn, authority, Arc::clone(self))),
                        io_state,
                    ));
                }
                Err((_, Some(unsent))) if conn.io_state.reused() => request = unsent,
                Err((error, _)) => return Err(PlainSendError::Exchange(error, conn.io_state)),
            }
        }
    }

    async fn open(&self, to: &Uri, connector: &Connector) -> Result<PooledConn, PlainSendError> {
        let io = connector.clone().call(to.clone()).await.map_err(PlainSendError::Connect)?;
        let io_state = Arc::clone(io.inner().state());
        match Builder::new().max_buf_size(self.max_head_bytes).handshake(io).await {
            Ok((sender, connection)) => Ok(PooledConn {
                sender,
                connection: Some(Box::new(connection)),
                io_state,
                waker: Arc::default(),
                idle_since: Instant::now(),
                host: host_header(to),
            }),
            Err(error) => Err(PlainSendError::Exchange(error, io_state)),
        }
    }

    /// Returns the most recently used connection that is still open.
    fn take_idle(&self, authority: &Authority) -> Option<PooledConn> {
        loop {
            let mut conn = {
                let mut hosts = self.hosts.lock();
                hosts.iter_mut().find(|host| host.authority == *authority)?.idle.pop()?
            };
            if conn.idle_since.elapsed() < self.idle_timeout && conn.check_idle() {
                return Some(conn);
            }
        }
    }

    fn return_idle(&self, mut conn: PooledConn, authority: Authority) {
        // The waker must not keep the connection's previous task in memory.
        drop(conn.waker.task.take());
        if !conn.check_idle() {
            return;
        }
        conn.idle_since = Instant::now();
        let mut hosts = self.hosts.lock();
        let host = match hosts.iter_mut().position(|host| host.authority == authority) {
            Some(at) => &mut hosts[at],
            None => {
                hosts.push(HostConnections { authority, idle: Vec::new() });
                let last = hosts.len() - 1;
                &mut hosts[last]
            }
        };
        if host.idle.len() < self.max_idle_per_host {
            host.idle.push(conn);
        }
    }

    /// Drops connections that exceeded the idle timeout, and those that the peer closed.
    pub(super) fn drop_stale(&self) {
        let mut hosts = self.hosts.lock();
        for host in hosts.iter_mut() {
            host.idle.retain_mut(|conn| {
                conn.idle_since.elapsed() < self.idle_timeout && conn.check_idle()
            });
        }
        hosts.retain(|host| !host.idle.is_empty());
    }

    /// Drops all idle connections.
    pub(super) fn drop_idle(&self) {
        self.hosts.lock().clear();
    }
}

/// Returns the value of `Host`, without a default port.
fn host_header(uri: &Uri) -> HeaderValue {
    let authority = uri.authority().map_or("", Authority::as_str);
    let text = match uri.port_u16() {
        Some(80) | None => uri.host().unwrap_or_default(),
        Some(_) => authority.rsplit_once('@').map_or(authority, |(_, host_port)| host_port),
    };
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("localhost"))
}

impl PooledConn {
    /// Exchanges a request for the response head; returns the request if none of it was sent.
    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<Full<Bytes>>>)> {
        let mut sending = pin!(self.sender.try_send_request(request));
        let (connection, relay) = (&mut self.connection, &self.waker);
        let result = std::future::poll_fn(|cx| {
            drive_connection(connection, relay, cx, |quiet| sending.as_mut().poll(quiet))
        })
        .await;
        result.map_err(|mut error| {
            let unsent = error.take_message();
            (error.into_error(), unsent)
        })
    }

    /// Returns whether the connection is open, unused and ready for a request. Detects what the
    /// peer did meanwhile.
    fn check_idle(&mut self) -> bool {
        if let Some(connection) = &mut self.connection {
            let waker = Waker::from(Arc::clone(&self.waker));
            if Pin::new(&mut **connection).poll(&mut Context::from_waker(&waker)).is_ready() {
                self.connection = None;
            }
        }
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// Drives the connection and the future that waits for it, until that future is ready or both need
/// data from the socket.
///
/// Only the connection makes the waiting future progress, and this function polls that future after
/// each poll of the connection. The future therefore gets a no-op waker, and the connection's own
/// waker is suppressed during these polls. Otherwise each chunk would wake the task that is already
/// polling.
fn drive_connection<T>(
    connection: &mut Option<Box<Connection<TokioIo<TrackedIo>, Full<Bytes>>>>,
    relay: &Arc<WakerRelay>,
    cx: &mut Context<'_>,
    mut waits: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let mut quiet = Context::from_waker(Waker::noop());
    if let Poll::Ready(done) = waits(&mut quiet) {
        return Poll::Ready(done);
    }
    relay.task.register(cx.waker());
    let waker = Waker::from(Arc::clone(relay));
    for _ in 0..MAX_POLLS {
        relay.suppressed.store(true, SeqCst);
        relay.woken.store(false, SeqCst);
        let ended = connection.as_mut().is_some_and(|connection| {
            Pin::new(&mut **connection).poll(&mut Context::from_waker(&waker)).is_ready()
        });
        if ended {
            // The waiting future learns of the end when the connection is dropped.
            *connection = None;
        }
        let done = waits(&mut quiet);
        relay.suppressed.store(false, SeqCst);
        if done.is_ready() {
            return done;
        }
        if !relay.woken.swap(false, SeqCst) && has_budget_remaining() {
            return Poll::Pending;
        }
        if !has_budget_remaining() {
            break;
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Forwards a connection's wake-ups to the task that owns it.
#[derive(Default)]
struct WakerRelay {
    task: AtomicWaker,
    woken: AtomicBool,
    /// The task is polling the connection at the moment.
    suppressed: AtomicBool,
}

impl Wake for WakerRelay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, SeqCst);
        if !self.suppressed.load(SeqCst) {
            self.task.wake();
        }
    }
}

/// The body of a response, with its connection. Dropping it before its end closes the connection.
pub(super) struct PooledBody {
    body: Incoming,
    /// `None` once the connection was returned to the pool.
    conn: Option<(PooledConn, Authority, Arc<PlainPool>)>,
}

impl PooledBody {
    fn new(body: Incoming, conn: PooledConn, authority: Authority, pool: Arc<PlainPool>) -> Self {
        Self { body, conn: Some((conn, authority, pool)) }
    }

    fn return_conn(&mut self) {
        if let Some((conn, authority, pool)) = self.conn.take() {
            pool.return_idle(conn, authority);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some((conn, _, _)) = &mut this.conn else { return Poll::Ready(None) };
        let body = &mut this.body;
        let polled = drive_connection(&mut conn.connection, &conn.waker, cx, |quiet| {
            Pin::new(&mut *body).poll_frame(quiet)
        });
        match &polled {
            Poll::Ready(None) => this.return_conn(),
            Poll::Ready(Some(Err(_))) => this.conn = None,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.conn.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for PooledBody {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.return_conn();
        }
    }
}
