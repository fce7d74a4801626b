//! Serves one client connection: HTTP version, timeouts and shutdown.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::{self, pin},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use http::header;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::service;
use crate::server::{
    activity::{ConnActivity, Phase},
    rewind_io::RewindIo,
    slots::ConnectionSlot,
    state::ServerState,
    unread_streams::UnreadStreams,
    websocket::{SessionTimes, UpgradeSlot},
};

/// Maximum size of one read. Large reads let a big body arrive in one piece, which need not be
/// joined.
const MAX_READ_BYTES: usize = 256 << 10;
/// RFC 9113 section 3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Limit for the whole request head. hyper limits the number of headers: it parses up to 100, its
/// default, without an allocation.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How long the rest of a refused body is read, in all and between two pieces, and how much of it.
const MAX_LINGER: Duration = Duration::from_secs(15);
const MAX_LINGER_PAUSE: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: usize = 256 << 20;
/// Small, because every place may linger at the same time.
const LINGER_BUFFER_BYTES: usize = 8 << 10;
/// The same while the proxy is shutting down.
const STOPPING_LINGER: Duration = Duration::from_millis(300);

/// Serves a connection until it ends.
pub async fn serve(
    server: Arc<ServerState>,
    mut stream: TcpStream,
    peer: SocketAddr,
    slot: ConnectionSlot,
    stop: CancellationToken,
) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(%peer, error = %e, "no TCP_NODELAY");
    }
    let timeouts = server.engine.generation().settings.timeouts;
    let activity = Arc::clone(&slot.activity);
    let mut first = BytesMut::with_capacity(H2_PREFACE.len());
    let peeked = tokio::select! {
        peeked = timeout(timeouts.client_head, sniff_protocol(&mut stream, &mut first)) => peeked,
        () = slot.close.cancelled() => return,
    };
    // The client was silent for too long or disconnected before the first byte.
    let Ok(Some(protocol)) = peeked else { return };
    let io = TokioIo::new(RewindIo::new(stream, first.freeze(), Arc::clone(&activity)));
    let deadlines = ConnTimeouts {
        activity: Arc::clone(&activity),
        head: timeouts.client_head,
        keepalive: timeouts.client_keepalive,
        stall_timeout: timeouts.client_idle,
    };
    match protocol {
        Protocol::Tls => {
            tracing::info!(%peer, "TLS handshake on the plain HTTP port; use http://, not https://");
        }
        Protocol::Http1 => serve_http1(server, io, peer, (&slot, &stop), &deadlines).await,
        Protocol::Http2 => {
            serve_http2(server, io, peer, (&slot, &stop), timeouts.client_idle).await;
        }
    }
}

async fn serve_http1(
    server: Arc<ServerState>,
    io: TokioIo<RewindIo>,
    peer: SocketAddr,
    (slot, stop): (&ConnectionSlot, &CancellationToken),
    deadlines: &ConnTimeouts,
) {
    let conn_activity = Arc::clone(&deadlines.activity);
    let upgrade = UpgradeSlot::default();
    let slot_of_requests = upgrade.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let (server, activity) = (Arc::clone(&server), Arc::clone(&conn_activity));
        if request.headers().contains_key(header::UPGRADE) {
            request.extensions_mut().insert(slot_of_requests.clone());
        }
        // Boxed because this future is large and ends when the response begins, while the memory
        // of the connection's own future lasts as long as the connection.
        Box::pin(service::serve_request(server, request, peer, activity))
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(false)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_READ_BYTES)
        .serve_connection(io, service);
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                match result {
                    Ok(()) => break,
                    Err(e) => tracing::debug!(%peer, error = %e, "connection ended"),
                }
                return;
            }
            () = slot.close.cancelled(), if !closing => {
                if must_give_way(slot, stop) {
                    return;
                }
                pin::Pin::new(&mut connection).graceful_shutdown();
                closing = true;
            }
            () = sleep_until(deadlines.next_check()) => match deadlines.check() {
                TimeoutAction::Continue => {}
                TimeoutAction::CloseIdle if !closing => {
                    pin::Pin::new(&mut connection).graceful_shutdown();
                    closing = true;
                }
                TimeoutAction::CloseIdle | TimeoutAction::Abort => return,
            },
        }
    }
    deadlines.activity.record_end();
    if let Some(session) = upgrade.take() {
        let parts = connection.into_parts();
        let times = SessionTimes { ping: deadlines.keepalive, unread: deadlines.stall_timeout };
        let end = (slot.close.clone(), times);
        // Boxed because it is large and rare.
        let io = parts.io.into_inner();
        return Box::pin(session.run(io, parts.read_buf, &deadlines.activity, end)).await;
    }
    let limit = if stop.is_cancelled() { STOPPING_LINGER } else { MAX_LINGER };
    let rest = linger(connection.into_parts().io.into_inner());
    tokio::select! {
        _ended = timeout(limit, rest) => {}
        () = slot.close.cancelled(), if !stop.is_cancelled() => {}
    }
}

/// Whether a connection whose token was cancelled ends at once: it makes room for another. At a stop,
/// and if a request has begun in the meantime, it ends in order.
fn must_give_way(slot: &ConnectionSlot, stop: &CancellationToken) -> bool {
    !stop.is_cancelled() && slot.activity.phase().0 != Phase::Busy
}

/// Ends the own side of a connection and reads on until the client ends its side, within limits.
/// If the socket were closed while the client still sends a body that was refused, the reset would
/// destroy the answer before the client reads it (RFC 9112 section 9.6).
async fn linger(mut io: RewindIo) {
    if io.shutdown().await.is_err() {
        return;
    }
    let mut discarded = vec![0_u8; LINGER_BUFFER_BYTES];
    let mut left = MAX_LINGER_BYTES;
    while left > 0 {
        match timeout(MAX_LINGER_PAUSE, io.read(&mut discarded)).await {
            Ok(Ok(length)) if length > 0 => left = left.saturating_sub(length),
            _ => return,
        }
    }
}

async fn serve_http2(
    server: Arc<ServerState>,
    io: TokioIo<RewindIo>,
    peer: SocketAddr,
    (slot, stop): (&ConnectionSlot, &CancellationToken),
    unread_timeout: Duration,
) {
    let activity = Arc::clone(&slot.activity);
    let streams = Arc::new(UnreadStreams::new());
    let watch = Arc::clone(&streams);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (server, activity) = (Arc::clone(&server), Arc::clone(&activity));
        let watch = Arc::clone(&watch);
        Box::pin(async move {
            let response = service::serve_request(server, request, peer, activity).await;
            response.map(|response| response.map(|body| watch.watch(body)))
        })
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_concurrent_streams(200)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut closing = false;
    loop {
        tokio::select! {
            result = &mut connection => {
                if let Err(e) = result {
                    tracing::debug!(%peer, error = %e, "connection ended");
                }
                return;
            }
            () = slot.close.cancelled(), if !closing => {
                if must_give_way(slot, stop) {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                closing = true;
            }
            () = sleep(unread_timeout / 4) => streams.give_up(unread_timeout),
        }
    }
}

enum Protocol {
    Http1,
    Http2,
    Tls,
}

/// Reads until the client's protocol is clear; `None` if the client disconnected before that.
async fn sniff_protocol(stream: &mut TcpStream, first: &mut BytesMut) -> Option<Protocol> {
    loop {
        if stream.read_buf(first).await.ok()? == 0 {
            return (!first.is_empty()).then_some(Protocol::Http1);
        }
        if first.starts_with(&[0x16, 0x03]) {
            return Some(Protocol::Tls);
        }
        let length = first.len().min(H2_PREFACE.len());
        if first[..length] != H2_PREFACE[..length] {
            return Some(Protocol::Http1);
        }
        if length == H2_PREFACE.len() {
            return Some(Protocol::Http2);
        }
    }
}

/// The timeouts of an HTTP/1 connection. One timer serves all of them and is reset only after it
/// has fired.
struct ConnTimeouts {
    activity: Arc<ConnActivity>,
    head: Duration,
    keepalive: Duration,
    stall_timeout: Duration,
}

enum TimeoutAction {
    Continue,
    CloseIdle,
    /// The client was too slow to send its head or to read its response.
    Abort,
}

impl ConnTimeouts {
    fn deadline(&self) -> Instant {
        let (phase, since) = self.activity.phase();
        let phase_deadline = match phase {
            Phase::Idle => since + self.keepalive,
            Phase::Head => since + self.head,
            Phase::Busy => Instant::now() + self.head,
        };
        match self.activity.stalled_since() {
            Some(stalled_since) if phase == Phase::Busy => {
                phase_deadline.min(stalled_since + self.stall_timeout)
            }
            _ => phase_deadline,
        }
    }

    /// Returns when to check next. The phase may change to one with an earlier deadline in the
    /// meantime, and the head timeout is the shortest.
    fn next_check(&self) -> Instant {
        self.deadline().min(Instant::now() + self.head)
    }

    fn check(&self) -> TimeoutAction {
        let now = Instant::now();
        let (phase, since) = self.activity.phase();
        match phase {
            Phase::Head if now >= since + self.head => TimeoutAction::Abort,
            Phase::Idle if now >= since + self.keepalive => TimeoutAction::CloseIdle,
            Phase::Busy
                if self
                    .activity
                    .stalled_since()
                    .is_some_and(|stalled_since| now >= stalled_since + self.stall_timeout) =>
            {
                TimeoutAction::Abort
            }
            _ => TimeoutAction::Continue,
        }
    }
}
