//! Kept HTTP/1 connections to plain-text hosts, moved by the request that uses them.
//!
//! The pooled client gives each connection a task of its own, and every head and chunk goes from
//! that task to the request's. Where nothing but HTTP/1 can be spoken, the request moves the
//! connection itself: no second task, no turn of the scheduler for each event of a stream.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
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

use super::{
    connect::Connector,
    fault::ConnectFault,
    line::{Line, LineState},
};

/// A connection that has news for itself again and again gives way after so many looks.
const LOOKS: u8 = 8;

/// The kept connections of one way of reaching hosts.
pub(super) struct Lanes {
    /// A handful: searched in order.
    hosts: Mutex<Vec<Host>>,
    idle: Duration,
    most: usize,
    max_head: usize,
}

struct Host {
    authority: Authority,
    /// Oldest first.
    kept: Vec<Lane>,
}

/// One connection.
struct Lane {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it has ended.
    connection: Option<Box<Connection<TokioIo<Line>, Full<Bytes>>>>,
    line: Arc<LineState>,
    news: Arc<News>,
    rested: Instant,
}

/// Why no head came.
pub(super) enum LaneError {
    Connect(ConnectFault),
    /// With what is known of the connection.
    Exchange(hyper::Error, Arc<LineState>),
}

impl Lanes {
    pub(super) fn new(idle: Duration, most: usize, max_head: usize) -> Self {
        Self { hosts: Mutex::default(), idle, most, max_head }
    }

    /// Sends a request in absolute form and waits for the head of its answer. `kept`: whether a
    /// kept connection will do.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<Full<Bytes>>,
        connector: &Connector,
        kept: bool,
    ) -> Result<(Response<LaneBody>, Arc<LineState>), LaneError> {
        let uri = std::mem::take(request.uri_mut());
        let Some(authority) = uri.authority().cloned() else {
            return Err(LaneError::Connect(ConnectFault::unresolved(&uri)));
        };
        request.headers_mut().entry(HOST).or_insert_with(|| host(&uri, &authority));
        let path = uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
        loop {
            let mut lane = match self.take(&authority).filter(|_| kept) {
                Some(lane) => lane,
                // Boxed: rare, and large.
                None => Box::pin(self.open(&uri, connector)).await?,
            };
            match lane.exchange(request).await {
                Ok(response) => {
                    let line = Arc::clone(&lane.line);
                    return Ok((
                        response.map(|body| LaneBody::new(body, lane, authority, Arc::clone(self))),
                        line,
                    ));
                }
                Err((_, Some(unsent))) if lane.line.reused() => request = unsent,
                Err((error, _)) => return Err(LaneError::Exchange(error, lane.line)),
            }
        }
    }

    async fn open(&self, to: &Uri, connector: &Connector) -> Result<Lane, LaneError> {
        let io = connector.clone().call(to.clone()).await.map_err(LaneError::Connect)?;
        let line = Arc::clone(io.inner().state());
        match Builder::new().max_buf_size(self.max_head).handshake(io).await {
            Ok((sender, connection)) => Ok(Lane {
                sender,
                connection: Some(Box::new(connection)),
                line,
                news: Arc::default(),
                rested: Instant::now(),
            }),
            Err(error) => Err(LaneError::Exchange(error, line)),
        }
    }

    /// The connection used last that is still good.
    fn take(&self, authority: &Authority) -> Option<Lane> {
        loop {
            let mut lane = {
                let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
                hosts.iter_mut().find(|host| host.authority == *authority)?.kept.pop()?
            };
            if lane.rested.elapsed() < self.idle && lane.rests() {
                return Some(lane);
            }
        }
    }

    fn give(&self, mut lane: Lane, authority: Authority) {
        // The task that had it must not be kept in memory by its waker.
        drop(lane.news.task.take());
        if !lane.rests() {
            return;
        }
        lane.rested = Instant::now();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = match hosts.iter_mut().position(|host| host.authority == authority) {
            Some(at) => &mut hosts[at],
            None => {
                hosts.push(Host { authority, kept: Vec::new() });
                let last = hosts.len() - 1;
                &mut hosts[last]
            }
        };
        if host.kept.len() < self.most {
            host.kept.push(lane);
        }
    }

    /// Drops what lay too long, and what the other side has closed.
    pub(super) fn sweep(&self) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        for host in hosts.iter_mut() {
            host.kept.retain_mut(|lane| lane.rested.elapsed() < self.idle && lane.rests());
        }
        hosts.retain(|host| !host.kept.is_empty());
    }

    /// Drops all that are kept.
    pub(super) fn clear(&self) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The value of `Host`: without the port that is meant anyway.
fn host(uri: &Uri, authority: &Authority) -> HeaderValue {
    let text = match uri.port_u16() {
        Some(80) | None => authority.host(),
        Some(_) => {
            authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, place)| place)
        }
    };
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("localhost"))
}

impl Lane {
    /// The head of the answer; the request comes back where none of it was sent.
    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<Full<Bytes>>>)> {
        let mut sending = pin!(self.sender.try_send_request(request));
        let (connection, news) = (&mut self.connection, &self.news);
        let result = std::future::poll_fn(|cx| {
            drive(connection, news, cx, |quiet| sending.as_mut().poll(quiet))
        })
        .await;
        result.map_err(|mut error| {
            let unsent = error.take_message();
            (error.into_error(), unsent)
        })
    }

    /// Whether it lies open and unused, ready for a request. What the other side did meanwhile is
    /// noticed here.
    fn rests(&mut self) -> bool {
        if let Some(connection) = &mut self.connection {
            let waker = Waker::from(Arc::clone(&self.news));
            if Pin::new(&mut **connection).poll(&mut Context::from_waker(&waker)).is_ready() {
                self.connection = None;
            }
        }
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// Moves the connection and what waits for it, until the latter is ready or both need news from the
/// socket.
///
/// What waits is only ever moved on by the connection, and this looks at it after each of the
/// connection's moves: so it gets a waker that does nothing, and the connection's own is deaf while
/// both are looked at here. Else each chunk would wake the task that is at it already.
fn drive<T>(
    connection: &mut Option<Box<Connection<TokioIo<Line>, Full<Bytes>>>>,
    news: &Arc<News>,
    cx: &mut Context<'_>,
    mut waits: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let mut quiet = Context::from_waker(Waker::noop());
    if let Poll::Ready(done) = waits(&mut quiet) {
        return Poll::Ready(done);
    }
    news.task.register(cx.waker());
    let waker = Waker::from(Arc::clone(news));
    for _ in 0..LOOKS {
        news.deaf.store(true, SeqCst);
        news.came.store(false, SeqCst);
        let ended = connection.as_mut().is_some_and(|connection| {
            Pin::new(&mut **connection).poll(&mut Context::from_waker(&waker)).is_ready()
        });
        if ended {
            // What waits learns of the end when the connection goes.
            *connection = None;
        }
        let done = waits(&mut quiet);
        news.deaf.store(false, SeqCst);
        if done.is_ready() {
            return done;
        }
        if !news.came.swap(false, SeqCst) && has_budget_remaining() {
            return Poll::Pending;
        }
        if !has_budget_remaining() {
            break;
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Takes a connection's wake-ups to the task that has it.
#[derive(Default)]
struct News {
    task: AtomicWaker,
    came: AtomicBool,
    /// The task is looking at the connection just now.
    deaf: AtomicBool,
}

impl Wake for News {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.came.store(true, SeqCst);
        if !self.deaf.load(SeqCst) {
            self.task.wake();
        }
    }
}

/// The body of an answer, with the connection that it comes over. Dropped before its end, it closes
/// the connection.
pub(super) struct LaneBody {
    body: Incoming,
    /// `None` once the connection was given back.
    lane: Option<(Lane, Authority, Arc<Lanes>)>,
}

impl LaneBody {
    fn new(body: Incoming, lane: Lane, authority: Authority, home: Arc<Lanes>) -> Self {
        Self { body, lane: Some((lane, authority, home)) }
    }

    fn give_back(&mut self) {
        if let Some((lane, authority, home)) = self.lane.take() {
            home.give(lane, authority);
        }
    }
}

impl Body for LaneBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some((lane, _, _)) = &mut this.lane else { return Poll::Ready(None) };
        let body = &mut this.body;
        let polled = drive(&mut lane.connection, &lane.news, cx, |quiet| {
            Pin::new(&mut *body).poll_frame(quiet)
        });
        match &polled {
            Poll::Ready(None) => this.give_back(),
            Poll::Ready(Some(Err(_))) => this.lane = None,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.lane.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for LaneBody {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}
