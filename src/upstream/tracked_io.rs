//! Wraps a connection to an upstream and records what was transferred.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

/// TCP, or TLS to a proxy over TCP.
pub(super) type RawIo = MaybeHttpsStream<TokioIo<TcpStream>>;

/// The transport to the upstream's host, direct or through a proxy; TLS to the upstream runs over
/// it.
pub(super) struct ProxyHop {
    pub(super) raw: RawIo,
    /// The peer is a proxy that takes requests in absolute form.
    pub(super) proxied: bool,
}

/// The recorded state of a connection; shared with the code that classifies its end.
#[derive(Debug, Default)]
pub(super) struct IoState {
    /// Responses whose head was received.
    pub(super) responses: AtomicU32,
    /// Data was received since the last write.
    pub(super) received_any: AtomicBool,
    /// The connection was idle in the pool before its first request.
    pub(super) idle_before_use: AtomicBool,
}

impl IoState {
    /// Returns whether the connection was already open when its current request started.
    pub(super) fn reused(&self) -> bool {
        self.responses.load(Relaxed) > 0 || self.idle_before_use.load(Relaxed)
    }
}

/// A connection that was unused for this long before its first request may have been closed
/// meanwhile.
const MAX_UNUSED_AGE: Duration = Duration::from_millis(500);

/// The connection as the HTTP client sees it.
pub(super) struct TrackedIo {
    io: TokioIo<MaybeHttpsStream<ProxyHop>>,
    state: Arc<IoState>,
    opened: Instant,
    written: bool,
    /// Writing failed: the peer no longer reads. What it sent may still be read.
    write_failed: bool,
}

impl TrackedIo {
    pub(super) fn new(io: MaybeHttpsStream<ProxyHop>) -> Self {
        Self {
            io: TokioIo::new(io),
            state: Arc::default(),
            opened: Instant::now(),
            written: false,
            write_failed: false,
        }
    }

    pub(super) fn state(&self) -> &Arc<IoState> {
        &self.state
    }

    fn before_write(&mut self) {
        if !self.written {
            self.written = true;
            self.state.idle_before_use.store(self.opened.elapsed() > MAX_UNUSED_AGE, Relaxed);
        }
        if self.state.received_any.load(Relaxed) {
            self.state.received_any.store(false, Relaxed);
        }
    }

    /// Hides a failed write. An upstream may respond (413) and close while the request is still
    /// being written, and the client would stop at the error without reading the response. The rest
    /// of the request is discarded, and reading shows the result.
    fn after_write(
        &mut self,
        result: Poll<io::Result<usize>>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Err(_)) => {
                self.write_failed = true;
                Poll::Ready(Ok(length))
            }
            other => other,
        }
    }
}

impl AsyncRead for TrackedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buf);
        if buf.filled().len() > before && !this.state.received_any.load(Relaxed) {
            this.state.received_any.store(true, Relaxed);
        }
        result
    }
}

impl AsyncWrite for TrackedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.write_failed {
            return Poll::Ready(Ok(buf.len()));
        }
        this.before_write();
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.after_write(result, buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = || bufs.iter().map(|b| b.len()).sum();
        if this.write_failed {
            return Poll::Ready(Ok(length()));
        }
        this.before_write();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.after_write(result, length())
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.write_failed {
            return Poll::Ready(Ok(()));
        }
        let result = Pin::new(&mut this.io).poll_flush(cx).map_ok(|()| 0);
        this.after_write(result, 0).map_ok(drop)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl Connection for TrackedIo {
    fn connected(&self) -> Connected {
        self.io.inner().connected().extra(Arc::clone(&self.state))
    }
}

impl Connection for ProxyHop {
    // Omits the addresses that a TCP stream would add: they would be copied into every response.
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl Read for ProxyHop {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().raw).poll_read(cx, buf)
    }
}

impl Write for ProxyHop {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().raw).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().raw).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().raw).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.raw.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().raw).poll_write_vectored(cx, bufs)
    }
}
