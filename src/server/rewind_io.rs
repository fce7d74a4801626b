//! Wraps a client's socket for hyper: replays peeked bytes and records when bytes last moved.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::server::activity::ConnActivity;

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
        self.activity.record_write(result.is_pending());
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
        if buf.filled().len() > before {
            this.activity.record_read();
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
