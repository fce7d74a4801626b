//! Listening sockets, and the loop that accepts from them.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{connection, slots::ConnectionSlots};
use crate::{config::settings::ListenAddresses, server::state::ServerState};

const BACKLOG: u32 = 1_024;
/// Pause after an accept that failed because descriptors or memory ran out.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{addr}: {source}")]
pub struct ListenError {
    pub addr: SocketAddr,
    pub source: io::Error,
}

/// A bound address that does not accept connections yet.
pub struct BoundListener {
    socket: TcpSocket,
    pub addr: SocketAddr,
}

impl BoundListener {
    /// Starts to accept connections.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn listen(self) -> Result<TcpListener, ListenError> {
        let Self { socket, addr } = self;
        socket.listen(BACKLOG).map_err(|source| ListenError { addr, source })
    }
}

/// Binds all addresses. Leaves out IPv6 addresses that are optional if the machine has no IPv6.
///
/// # Errors
///
/// The first address that cannot be bound.
pub fn bind(listen: &ListenAddresses) -> Result<Vec<BoundListener>, ListenError> {
    let optional_v6 = listen.optional_v6;
    let mut out: Vec<BoundListener> = Vec::new();
    for &addr in &listen.addresses {
        // Port 0 means the same free port for both address families.
        let port =
            out.first().filter(|_| addr.port() == 0).map_or(addr.port(), |first| first.addr.port());
        let addr = SocketAddr::new(addr.ip(), port);
        match bind_addr(addr) {
            Ok(socket) => out.push(socket),
            Err(e)
                if addr.is_ipv6()
                    && optional_v6
                    && matches!(
                        e.kind(),
                        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
                    ) =>
            {
                tracing::warn!(%addr, "no IPv6 on this machine; this address is left out");
            }
            Err(e) if addr.is_ipv6() && optional_v6 && e.raw_os_error() == Some(97) => {
                tracing::warn!(%addr, "no IPv6 on this machine; this address is left out");
            }
            Err(source) => return Err(ListenError { addr, source }),
        }
    }
    Ok(out)
}

fn bind_addr(addr: SocketAddr) -> io::Result<BoundListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Allows a restart while old connections are still closing. On Windows the option has another
    // meaning.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    let addr = socket.local_addr()?;
    Ok(BoundListener { socket, addr })
}

/// Accepts connections until it is cancelled; every connection is a task of the tracker.
pub async fn accept_loop(
    listener: TcpListener,
    server: Arc<ServerState>,
    slots: Arc<ConnectionSlots>,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(slot) = slots.claim(&stop).await else { return };
                let (server, stop) = (Arc::clone(&server), stop.clone());
                tracker.spawn(connection::serve(server, stream, peer, slot, stop));
            }
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(e) => {
                // No descriptors left: the connection stays in the backlog. A tight loop would only
                // use CPU.
                tracing::warn!(error = %e, "cannot accept connections just now");
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}
