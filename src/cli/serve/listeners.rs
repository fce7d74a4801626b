//! Binds the listen addresses and accepts connections on them.

use std::{net::SocketAddr, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cli::{error::CliError, serve::process},
    config::{Settings, settings::KeylessListener},
    server::{
        listen::{self, BoundListener, ListenError},
        slots::ConnectionSlots,
        state::ServerState,
    },
};

/// Sockets that are bound but do not accept connections yet.
pub(super) struct Listeners {
    main: Vec<BoundListener>,
    /// The listeners of `[[keyless]]`, each with its row.
    keyless: Vec<(KeylessListener, Vec<BoundListener>)>,
}

impl Listeners {
    /// Binds every address of the settings.
    ///
    /// # Errors
    ///
    /// An address is in use, not permitted, or not an address of this machine.
    pub(super) fn bind(settings: &Settings) -> Result<Self, CliError> {
        let main = listen::bind(&settings.server.listen).map_err(listen_error)?;
        let keyless = settings.keyless.iter().map(|row| {
            let bound = listen::bind(&row.listen).map_err(listen_error)?;
            Ok((row.clone(), bound))
        });
        Ok(Self { main, keyless: keyless.collect::<Result<_, CliError>>()? })
    }

    /// The bound addresses, without those of `[[keyless]]`. A port 0 has become a real one.
    pub(super) fn addrs(&self) -> Vec<SocketAddr> {
        self.main.iter().map(|bound| bound.addr).collect()
    }

    /// Accepts connections on all sockets until `closing` is cancelled.
    ///
    /// # Errors
    ///
    /// The system refuses to listen on an address.
    pub(super) fn accept(
        self,
        server_state: &Arc<ServerState>,
        max_connections: usize,
        tracker: &TaskTracker,
        closing: &CancellationToken,
    ) -> Result<(), CliError> {
        let slots = ConnectionSlots::new(max_connections);
        let start = |bound: BoundListener, server_state: &Arc<ServerState>| {
            let listener = bound.listen().map_err(listen_error)?;
            tracker.spawn(listen::accept_loop(
                listener,
                Arc::clone(server_state),
                Arc::clone(&slots),
                tracker.clone(),
                closing.clone(),
            ));
            Ok::<(), CliError>(())
        };
        for bound in self.main {
            start(bound, server_state)?;
        }
        for (row, sockets) in self.keyless {
            let server_state = Arc::new(ServerState {
                mcp: Arc::clone(&server_state.mcp),
                engine: Arc::clone(&server_state.engine),
                clients: Arc::clone(&server_state.clients),
                control: Arc::clone(&server_state.control),
                keyless: Some(row),
                probes: Arc::clone(&server_state.probes),
            });
            for bound in sockets {
                start(bound, &server_state)?;
            }
        }
        Ok(())
    }
}

/// Logs settings with which others can read keys or reach the proxy.
pub(super) fn warn_about_exposure(settings: &Settings, addrs: &[SocketAddr]) {
    for upstream in settings.upstreams.iter().filter(|upstream| upstream.insecure_tls) {
        tracing::warn!(upstream = %upstream.name, "insecure_tls is on: others on the network path can read the key");
    }
    if let Some(addr) = addrs.iter().find(|addr| !addr.ip().is_loopback()) {
        tracing::warn!(%addr, "listening on an address that other machines can reach; every request needs a client key");
    }
}

fn listen_error(error: ListenError) -> CliError {
    use std::io::ErrorKind;
    let ListenError { addr, source } = error;
    match source.kind() {
        ErrorKind::AddrInUse => {
            let by = process::process_listening_on(addr)
                .map_or_else(String::new, |process| format!(" by {process}"));
            CliError::failed(format!("{addr} is in use{by}"))
                .hint("`aiproxy serve --listen 127.0.0.1:PORT` uses another port; `aiproxy status` shows whether a proxy is running")
        }
        ErrorKind::PermissionDenied => {
            CliError::failed(format!("cannot listen on {addr}: permission denied"))
                .hint("ports below 1024 need privileges; choose a higher port")
        }
        ErrorKind::AddrNotAvailable => {
            CliError::failed(format!("{addr} is not an address of this machine"))
                .hint("`listen` under [server] sets the address")
        }
        _ => CliError::failed(format!("cannot listen on {addr}: {source}")),
    }
}
