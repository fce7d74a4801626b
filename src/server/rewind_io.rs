//! Wraps a client's socket for hyper: replays peeked bytes and records when bytes last moved.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

/// What a connection is doing, for its timeouts.
pub struct ConnActivity {
    phase: AtomicU8,
    /// Milliseconds from `created` to the start of the phase.
    phase_since_ms: AtomicU64,
    /// Milliseconds from `created` to the start of a blocked write; 0 if no write is blocked.
    stalled_since_ms: AtomicU64,
    created: Instant,
}

/// The phases of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests, nothing read.
    Idle,
    /// A head is being read.
    Head,
    /// A request is being served.
    Busy,
}

impl ConnActivity {
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: AtomicU8::new(1),
            phase_since_ms: AtomicU64::new(0),
            stalled_since_ms: AtomicU64::new(0),
            created: Instant::now(),
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.created.elapsed().as_millis() as u64
    }

    pub fn enter_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.phase_since_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// Returns the phase and when it began.
    #[must_use]
    pub fn phase(&self) -> (Phase, Instant) {
        let phase = match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Busy,
        };
        (
            phase,
            self.created
                + std::time::Duration::from_millis(self.phase_since_ms.load(Ordering::Relaxed)),
        )
    }

    /// Returns since when the client has not read data that is ready for it.
    #[must_use]
    pub fn stalled_since(&self) -> Option<Instant> {
        match self.stalled_since_ms.load(Ordering::Relaxed) {
            0 => None,
            at => Some(self.created + std::time::Duration::from_millis(at)),
        }
    }
}

impl Default for ConnActivity {
    fn default() -> Self {
        Self::new()
    }
}

/// A socket that replays its peeked bytes first.
pub struct RewindIo {
    stream: TcpStream,
    peeked: Bytes,
    activity: Arc<ConnActivity>,
}

impl RewindIo {
    #[must_use]
    pub fn new(stream: TcpStream, peeked: Bytes, activity: Arc<ConnActivity>) -> Self {
        Self { stream, peeked, activity }
    }

    fn record_write(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Pending if self.activity.stalled_since_ms.load(Ordering::Relaxed) == 0 => {
                self.activity
                    .stalled_since_ms
                    .store(self.activity.elapsed_ms().max(1), Ordering::Relaxed);
            }
            Poll::Pending => {}
            Poll::Ready(_) if self.activity.stalled_since_ms.load(Ordering::Relaxed) != 0 => {
                self.activity.stalled_since_ms.store(0, Ordering::Relaxed);
            }
            Poll::Ready(_) => {}
        }
    }
}

impl AsyncRead for RewindIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.peeked.has_remaining() {
            let length = this.peeked.len().min(buf.remaining());
            buf.put_slice(&this.peeked.split_to(length));
            // Reads more data behind the peeked bytes. If the few peeked bytes were returned alone,
            // hyper's buffer would be twice as large for the life of the connection. The next read
            // reports an end or an error again.
            if buf.remaining() > 0 {
                let _more = Pin::new(&mut this.stream).poll_read(cx, buf);
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before
            && this.activity.phase.load(Ordering::Relaxed) == Phase::Idle as u8
        {
            this.activity.enter_phase(Phase::Head);
        }
        read
    }
}

impl AsyncWrite for RewindIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, data);
        this.record_write(&result);
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.record_write(&result);
        result
    }
}
