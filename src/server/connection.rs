//! One client connection: which HTTP it speaks, its clocks, its end.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::BytesMut;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    gate::Gate,
    service,
    wire::{Phase, Pulse, Wire},
};

/// Read at once at most, where much comes: a body that is read in one piece need not be put
/// together.
const READ_BYTES: usize = 256 << 10;
/// RFC 9113 section 3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The request head, all of it. How many headers it may have is left to hyper, which parses its own
/// number of them (100) without an allocation.
const HEAD_BYTES: usize = 64 << 10;

/// Serves a connection to its end.
pub async fn serve(
    gate: Arc<Gate>,
    mut stream: TcpStream,
    peer: SocketAddr,
    stop: CancellationToken,
) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(%peer, error = %e, "no TCP_NODELAY");
    }
    let timeouts = gate.engine.generation().settings.timeouts;
    let pulse = Arc::new(Pulse::new());
    let mut first = BytesMut::with_capacity(H2_PREFACE.len());
    let peeked = tokio::select! {
        peeked = timeout(timeouts.client_head, peek(&mut stream, &mut first)) => peeked,
        () = stop.cancelled() => return,
    };
    // Silent for too long, or gone before the first byte.
    let Ok(Some(speaks)) = peeked else { return };
    let wire = TokioIo::new(Wire::new(stream, first.freeze(), Arc::clone(&pulse)));
    let clocks = Clocks {
        pulse: Arc::clone(&pulse),
        head: timeouts.client_head,
        keepalive: timeouts.client_keepalive,
        stuck: timeouts.client_idle,
    };
    match speaks {
        Speaks::Tls => {
            tracing::info!(%peer, "TLS handshake on the plain HTTP port; use http://, not https://")
        }
        Speaks::Http1 => {
            let handler = Arc::clone(&pulse);
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                handler.enter(Phase::Busy);
                service::answer(Arc::clone(&gate), request, peer, Some(Arc::clone(&handler)))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(None)
                .half_close(false)
                .max_header_size(HEAD_BYTES)
                .max_buf_size(READ_BYTES)
                .serve_connection(wire, service);
            let mut connection = pin!(connection);
            let mut closing = false;
            loop {
                tokio::select! {
                    biased;
                    result = &mut connection => {
                        if let Err(e) = result {
                            tracing::debug!(%peer, error = %e, "connection ended");
                        }
                        return;
                    }
                    () = stop.cancelled(), if !closing => {
                        connection.as_mut().graceful_shutdown();
                        closing = true;
                    }
                    () = sleep_until(clocks.next()) => match clocks.judge() {
                        Judgement::Fine => {}
                        Judgement::Idle if !closing => {
                            connection.as_mut().graceful_shutdown();
                            closing = true;
                        }
                        Judgement::Idle | Judgement::Slow => return,
                    },
                }
            }
        }
        Speaks::Http2 => {
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                service::answer(Arc::clone(&gate), request, peer, None)
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_header_list_size(HEAD_BYTES as u32)
                .max_concurrent_streams(200)
                .keep_alive_interval(Some(Duration::from_secs(30)))
                .keep_alive_timeout(Duration::from_secs(20))
                .serve_connection(wire, service);
            let mut connection = pin!(connection);
            tokio::select! {
                result = &mut connection => {
                    if let Err(e) = result {
                        tracing::debug!(%peer, error = %e, "connection ended");
                    }
                }
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    if let Err(e) = connection.await {
                        tracing::debug!(%peer, error = %e, "connection ended");
                    }
                }
            }
        }
    }
}

enum Speaks {
    Http1,
    Http2,
    Tls,
}

/// Reads until it is clear what the client speaks; `None` where it left before.
async fn peek(stream: &mut TcpStream, first: &mut BytesMut) -> Option<Speaks> {
    loop {
        if stream.read_buf(first).await.ok()? == 0 {
            return (!first.is_empty()).then_some(Speaks::Http1);
        }
        if first.starts_with(&[0x16, 0x03]) {
            return Some(Speaks::Tls);
        }
        let length = first.len().min(H2_PREFACE.len());
        if first[..length] != H2_PREFACE[..length] {
            return Some(Speaks::Http1);
        }
        if length == H2_PREFACE.len() {
            return Some(Speaks::Http2);
        }
    }
}

/// The clocks of an HTTP/1 connection; one timer for all of them, armed again only when it rings.
struct Clocks {
    pulse: Arc<Pulse>,
    head: Duration,
    keepalive: Duration,
    stuck: Duration,
}

enum Judgement {
    Fine,
    Idle,
    /// Too slow with its head, or with taking its answer.
    Slow,
}

impl Clocks {
    fn deadline(&self) -> Instant {
        let (phase, since) = self.pulse.phase();
        let own = match phase {
            Phase::Idle => since + self.keepalive,
            Phase::Head => since + self.head,
            Phase::Busy => Instant::now() + self.head,
        };
        match self.pulse.stuck() {
            Some(stuck) if phase == Phase::Busy => own.min(stuck + self.stuck),
            _ => own,
        }
    }

    /// When to look next. A phase may change to one with an earlier deadline meanwhile: the head's
    /// clock is the shortest.
    fn next(&self) -> Instant {
        self.deadline().min(Instant::now() + self.head)
    }

    fn judge(&self) -> Judgement {
        let now = Instant::now();
        let (phase, since) = self.pulse.phase();
        match phase {
            Phase::Head if now >= since + self.head => Judgement::Slow,
            Phase::Idle if now >= since + self.keepalive => Judgement::Idle,
            Phase::Busy if self.pulse.stuck().is_some_and(|stuck| now >= stuck + self.stuck) => {
                Judgement::Slow
            }
            _ => Judgement::Fine,
        }
    }
}
