//! Describes why a connection could not be opened: resolver, socket, TLS and proxy.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use http::Uri;
use rustls::CertificateError;

use super::uri::host_port;
use crate::{
    ir::{
        fault::TransportKind,
        reason::failure::{ConnectionProblem, FailureReason},
    },
    upstream::dns::LookupError,
};

/// Why a connection could not be opened.
#[derive(Debug)]
pub(super) struct ConnectFault {
    pub(super) kind: TransportKind,
    pub(super) reason: Arc<FailureReason>,
}

impl fmt::Display for ConnectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)
    }
}

impl Error for ConnectFault {}

impl ConnectFault {
    /// Classifies the errors of resolver, socket and TLS.
    pub(super) fn from_error(to: &Uri, error: &(dyn Error + 'static)) -> Self {
        let (host, address) = (to.host().unwrap_or("?"), host_port(to));
        if let Some(error) = find_source::<rustls::Error>(error) {
            return Self::tls_failed(describe_tls_error(error, host, &address));
        }
        if find_source::<LookupError>(error).is_some() || error.to_string() == "dns error" {
            return Self::unresolved(to);
        }
        let Some(error) = find_source::<io::Error>(error) else {
            return Self::failed(&format!("no connection to {address}: {error}"));
        };
        match classify_socket_error(error) {
            Some((kind, problem)) => {
                let address = address.into();
                Self { kind, reason: FailureReason::Connection { problem, address }.into() }
            }
            None => Self::failed(&format!("no connection to {address}: {error}")),
        }
    }

    pub(super) fn unresolved(to: &Uri) -> Self {
        let host = to.host().unwrap_or("?").into();
        Self { kind: TransportKind::Dns, reason: FailureReason::Unresolved { host }.into() }
    }

    pub(super) fn timed_out(to: &Uri, timeout: Duration) -> Self {
        let reason =
            FailureReason::ConnectTimeout { waited: timeout.into(), address: host_port(to).into() };
        Self { kind: TransportKind::ConnectTimeout, reason: reason.into() }
    }

    pub(super) fn tls_failed(message: String) -> Self {
        Self { kind: TransportKind::Tls, reason: FailureReason::text(message).into() }
    }

    pub(super) fn failed(message: &str) -> Self {
        Self { kind: TransportKind::Connect, reason: FailureReason::text(sanitize(message)).into() }
    }

    /// Marks the unreachable host as a proxy, not the upstream.
    pub(super) fn at_proxy(self) -> Self {
        Self { reason: FailureReason::AtProxy { cause: self.reason }.into(), ..self }
    }
}

fn classify_socket_error(error: &io::Error) -> Option<(TransportKind, ConnectionProblem)> {
    use io::ErrorKind as Is;
    #[cfg(unix)]
    if let Some(code) = error.raw_os_error()
        && [rustix::io::Errno::MFILE.raw_os_error(), rustix::io::Errno::NFILE.raw_os_error()]
            .contains(&code)
    {
        // A local shortage, not a fault of the upstream.
        return Some((TransportKind::NetworkDown, ConnectionProblem::OutOfFiles));
    }
    Some(match error.kind() {
        Is::ConnectionRefused => (TransportKind::Connect, ConnectionProblem::Refused),
        Is::NetworkUnreachable | Is::NetworkDown => {
            (TransportKind::NetworkDown, ConnectionProblem::NetworkUnreachable)
        }
        Is::HostUnreachable => (TransportKind::NetworkDown, ConnectionProblem::NoRoute),
        Is::TimedOut => (TransportKind::ConnectTimeout, ConnectionProblem::TimedOut),
        Is::ConnectionReset | Is::ConnectionAborted | Is::BrokenPipe => {
            (TransportKind::Connect, ConnectionProblem::ResetWhileConnecting)
        }
        Is::UnexpectedEof => (TransportKind::Tls, ConnectionProblem::ClosedInHandshake),
        _ => return None,
    })
}

fn describe_tls_error(error: &rustls::Error, host: &str, address: &str) -> String {
    use rustls::Error as Is;
    let untrusted = |why: &str| {
        format!(
            "certificate of {host} not trusted: {why}; set `ca_file` or add it to the system store"
        )
    };
    match error {
        Is::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer => untrusted("unknown issuer"),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!(
                    "certificate of {host} not trusted: it has expired (or the clock here is wrong)"
                )
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!(
                    "certificate of {host} not trusted: it is not valid yet (or the clock here is wrong)"
                )
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("certificate of {host} not trusted: it was issued for another name")
            }
            CertificateError::Revoked => {
                format!("certificate of {host} not trusted: it was revoked")
            }
            other => untrusted(&sanitize(&other.to_string())),
        },
        Is::AlertReceived(alert) => format!("TLS handshake refused by {address}: {alert:?}"),
        Is::InvalidMessage(_) => format!(
            "no TLS answer from {address}; if it speaks plain HTTP, its URL begins with http://"
        ),
        other => sanitize(&format!("TLS handshake with {address}: {other}")),
    }
}

/// Returns the first error of type `T` in the chain, also inside I/O errors, which hide their
/// sources.
pub(super) fn find_source<'a, T: Error + 'static>(
    error: &'a (dyn Error + 'static),
) -> Option<&'a T> {
    let mut at = Some(error);
    for _ in 0..16 {
        let error = at?;
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = find_source::<T>(inner)
        {
            return Some(found);
        }
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        at = error.source();
    }
    None
}

/// Cleans text from outside: replaces control characters and limits the length.
pub(super) fn sanitize(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(300).collect()
}
