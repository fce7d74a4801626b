//! Describes why a connection could not be opened: resolver, socket, TLS and proxy.

use std::{error::Error, fmt, io, time::Duration};

use http::Uri;
use rustls::CertificateError;

use super::uri::host_port;
use crate::{ir::fault::TransportKind, upstream::dns::LookupError};

/// Why a connection could not be opened.
#[derive(Debug)]
pub(super) struct ConnectFault {
    pub(super) kind: TransportKind,
    pub(super) message: String,
}

impl fmt::Display for ConnectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ConnectFault {}

impl ConnectFault {
    /// Classifies the errors of resolver, socket and TLS.
    pub(super) fn from_error(to: &Uri, error: &(dyn Error + 'static)) -> Self {
        let (host, address) = (to.host().unwrap_or("?"), host_port(to));
        if let Some(error) = find_source::<rustls::Error>(error) {
            return Self {
                kind: TransportKind::Tls,
                message: describe_tls_error(error, host, &address),
            };
        }
        if find_source::<LookupError>(error).is_some() || error.to_string() == "dns error" {
            return Self::unresolved(to);
        }
        let Some(error) = find_source::<io::Error>(error) else {
            return Self {
                kind: TransportKind::Connect,
                message: sanitize(&format!("no connection to {address}: {error}")),
            };
        };
        let (kind, what) = describe_socket_error(error);
        let message = match what {
            Some(what) => format!("{what} ({address})"),
            None => sanitize(&format!("no connection to {address}: {error}")),
        };
        Self { kind, message }
    }

    pub(super) fn unresolved(to: &Uri) -> Self {
        Self {
            kind: TransportKind::Dns,
            message: format!("cannot resolve {}", to.host().unwrap_or("?")),
        }
    }

    pub(super) fn timed_out(to: &Uri, timeout: Duration) -> Self {
        let message = format!("no connection within {} ({})", format_span(timeout), host_port(to));
        Self { kind: TransportKind::ConnectTimeout, message }
    }

    pub(super) fn tls_failed(message: String) -> Self {
        Self { kind: TransportKind::Tls, message }
    }

    pub(super) fn proxy_failed(message: &str) -> Self {
        Self { kind: TransportKind::Connect, message: sanitize(message) }
    }

    /// Marks the unreachable host as a proxy, not the upstream.
    pub(super) fn at_proxy(self) -> Self {
        Self { message: format!("proxy: {}", self.message), ..self }
    }
}

fn describe_socket_error(error: &io::Error) -> (TransportKind, Option<&'static str>) {
    use io::ErrorKind as Is;
    #[cfg(unix)]
    if let Some(code) = error.raw_os_error()
        && [rustix::io::Errno::MFILE.raw_os_error(), rustix::io::Errno::NFILE.raw_os_error()]
            .contains(&code)
    {
        // A local shortage, not a fault of the upstream.
        return (
            TransportKind::NetworkDown,
            Some("too many open files here, no connection possible"),
        );
    }
    match error.kind() {
        Is::ConnectionRefused => (TransportKind::Connect, Some("connection refused")),
        Is::NetworkUnreachable | Is::NetworkDown => {
            (TransportKind::NetworkDown, Some("network unreachable"))
        }
        Is::HostUnreachable => (TransportKind::NetworkDown, Some("no route to the host")),
        Is::TimedOut => (TransportKind::ConnectTimeout, Some("connecting took too long")),
        Is::ConnectionReset | Is::ConnectionAborted | Is::BrokenPipe => {
            (TransportKind::Connect, Some("connection reset while connecting"))
        }
        Is::UnexpectedEof => {
            (TransportKind::Tls, Some("connection closed during the TLS handshake"))
        }
        _ => (TransportKind::Connect, None),
    }
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

fn format_span(span: Duration) -> String {
    if span.as_millis() < 1_000 {
        format!("{} ms", span.as_millis())
    } else {
        format!("{} s", span.as_secs_f64())
    }
}
