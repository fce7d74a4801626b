//! Reports to the service manager when the proxy is ready and when it stops, as systemd's
//! `Type=notify` expects.

/// A state that the service manager waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceState {
    Ready,
    Stopping,
}

/// Sends the state to the socket in NOTIFY_SOCKET. Does nothing without that variable, and ignores
/// errors: the proxy works without a service manager.
#[cfg(unix)]
pub(super) fn report_state(state: ServiceState) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let message: &[u8] = match state {
        ServiceState::Ready => b"READY=1",
        ServiceState::Stopping => b"STOPPING=1",
    };
    if let Err(error) = send(&socket, message) {
        tracing::debug!(%error, "the service manager was not notified");
    }
}

#[cfg(not(unix))]
pub(super) fn report_state(_: ServiceState) {}

#[cfg(unix)]
fn send(socket: &std::ffi::OsStr, message: &[u8]) -> std::io::Result<()> {
    use std::os::unix::net::UnixDatagram;

    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    // A name that begins with `@` is in the abstract namespace of Linux.
    #[cfg(target_os = "linux")]
    if let Some(name) = std::os::unix::ffi::OsStrExt::as_bytes(socket).strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return sender.send_to_addr(message, &address).map(drop);
    }
    sender.send_to(message, std::path::Path::new(socket)).map(drop)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    };

    use super::*;

    #[test]
    fn notify_socket_is_a_path_or_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("aiproxy-test-{}", std::process::id());
        let receivers = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
                format!("@{name}").into(),
            ),
        ];
        for (receiver, socket) in receivers {
            send(&socket, b"READY=1").unwrap();
            let mut text = [0; 16];
            let length = receiver.recv(&mut text).unwrap();
            assert_eq!(&text[..length], b"READY=1", "{}", socket.display());
        }
        assert!(send("/nonexistent/notify".as_ref(), b"READY=1").is_err());
    }
}
