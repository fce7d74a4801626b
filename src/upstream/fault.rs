//! What went wrong on the way, in one kind and one sentence.

use std::{error::Error, fmt, io, time::Duration};

use http::{Extensions, Uri};
use hyper_util::client::legacy;
use rustls::CertificateError;

use super::{
    lane::LaneError,
    line::LineState,
    lookup::LookupError,
    uri::{place, place_of},
};
use crate::{
    config::settings::{DialectEndpoint, Upstream},
    ir::fault::{TransportFault, TransportKind},
};

/// No connection came about.
#[derive(Debug)]
pub(super) struct ConnectFault {
    kind: TransportKind,
    message: String,
}

impl fmt::Display for ConnectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ConnectFault {}

impl ConnectFault {
    /// Reads the errors of resolver, socket and TLS.
    pub(super) fn of(to: &Uri, error: &(dyn Error + 'static)) -> Self {
        let (host, place) = (to.host().unwrap_or("?"), place(to));
        if let Some(error) = find::<rustls::Error>(error) {
            return Self { kind: TransportKind::Tls, message: tls(error, host, &place) };
        }
        if find::<LookupError>(error).is_some() || error.to_string() == "dns error" {
            return Self::unresolved(to);
        }
        let Some(error) = find::<io::Error>(error) else {
            return Self {
                kind: TransportKind::Connect,
                message: clean(&format!("no connection to {place}: {error}")),
            };
        };
        let (kind, what) = socket(error);
        let message = match what {
            Some(what) => format!("{what} ({place})"),
            None => clean(&format!("no connection to {place}: {error}")),
        };
        Self { kind, message }
    }

    pub(super) fn unresolved(to: &Uri) -> Self {
        Self {
            kind: TransportKind::Dns,
            message: format!("cannot resolve {}", to.host().unwrap_or("?")),
        }
    }

    pub(super) fn too_slow(to: &Uri, within: Duration) -> Self {
        let message = format!("no connection within {} ({})", seconds(within), place(to));
        Self { kind: TransportKind::ConnectTimeout, message }
    }

    pub(super) fn tls(message: String) -> Self {
        Self { kind: TransportKind::Tls, message }
    }

    pub(super) fn proxy(message: &str) -> Self {
        Self { kind: TransportKind::Connect, message: clean(message) }
    }

    /// The host that could not be reached is a proxy, not the upstream.
    pub(super) fn of_proxy(self) -> Self {
        Self { message: format!("proxy: {}", self.message), ..self }
    }
}

/// Reads why no head came. `waited` is the time since the request was handed over.
pub(super) fn of_send(
    error: &legacy::Error,
    upstream: &Upstream,
    end: &DialectEndpoint,
    waited: Duration,
) -> TransportFault {
    if let Some(fault) = find::<ConnectFault>(error) {
        return of_connect(fault, upstream);
    }
    let (mut reused, mut heard, mut h2) = (false, false, false);
    if let Some(info) = error.connect_info() {
        let mut extras = Extensions::new();
        info.get_extras(&mut extras);
        if let Some(state) = extras.get::<std::sync::Arc<LineState>>() {
            (reused, heard) =
                (state.reused(), state.heard.load(std::sync::atomic::Ordering::Relaxed));
        }
        h2 = info.is_negotiated_h2();
    }
    let Some(hyper) = find::<hyper::Error>(error) else {
        let message = format!("no connection ({})", place_of(&end.base_url));
        return TransportFault { kind: TransportKind::Connect, message, may_be_received: false };
    };
    of_exchange(hyper, &Used { reused, heard, h2 }, upstream, end, waited)
}

/// Reads why no head came over a plain-text connection.
pub(super) fn of_lane(
    error: &LaneError,
    upstream: &Upstream,
    end: &DialectEndpoint,
    waited: Duration,
) -> TransportFault {
    match error {
        LaneError::Connect(fault) => of_connect(fault, upstream),
        LaneError::Exchange(error, line) => {
            let heard = line.heard.load(std::sync::atomic::Ordering::Relaxed);
            of_exchange(
                error,
                &Used { reused: line.reused(), heard, h2: false },
                upstream,
                end,
                waited,
            )
        }
    }
}

fn of_connect(fault: &ConnectFault, upstream: &Upstream) -> TransportFault {
    // "No route" to this very machine says nothing of our network.
    let kind = if upstream.local && fault.kind == TransportKind::NetworkDown {
        TransportKind::Connect
    } else {
        fault.kind
    };
    TransportFault { kind, message: fault.message.clone(), may_be_received: false }
}

/// What is known of the connection that failed.
struct Used {
    reused: bool,
    heard: bool,
    h2: bool,
}

fn of_exchange(
    hyper: &hyper::Error,
    used: &Used,
    upstream: &Upstream,
    end: &DialectEndpoint,
    waited: Duration,
) -> TransportFault {
    let place = place_of(&end.base_url);
    let fault = |kind, sent, what: &str| TransportFault {
        kind,
        message: format!("{what} ({place})"),
        may_be_received: sent,
    };
    let Used { reused, mut heard, h2 } = *used;
    if hyper.is_canceled() {
        // The connection went away before the request was begun.
        return if reused {
            fault(TransportKind::Stale, false, "the kept connection was closed")
        } else {
            fault(TransportKind::Reset, false, "the connection was closed as soon as it was made")
        };
    }
    if h2 {
        let said = hyper.source().map(ToString::to_string).unwrap_or_default();
        // By RFC 9113 neither was looked at: a refused stream, and one above the last of an orderly
        // GOAWAY.
        if said.contains("refused stream") || said.ends_with("not a result of an error") {
            return fault(TransportKind::Stale, false, "the upstream closes this connection");
        }
        // A stream of its own that is reset says nothing of the connection.
        if said.starts_with("stream error") {
            return fault(TransportKind::Reset, true, &clean(&said));
        }
        if said.contains("protocol error") || said.contains("frame with invalid size") {
            return fault(TransportKind::InvalidHttp, true, "not a valid HTTP/2 response");
        }
        heard = false;
    }
    if hyper.is_parse_too_large() {
        return fault(TransportKind::InvalidHttp, true, "the head of the response is too large");
    }
    if hyper.is_parse() {
        let message = format!("not an HTTP response from {place}: {hyper}");
        return TransportFault { kind: TransportKind::InvalidHttp, message, may_be_received: true };
    }
    if reused && !heard && waited < STALE {
        return fault(TransportKind::Stale, true, "the kept connection was closed");
    }
    match find::<io::Error>(hyper).map(io::Error::kind) {
        Some(
            io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::HostUnreachable,
        ) if !upstream.local => fault(TransportKind::NetworkDown, true, "the network went away"),
        Some(io::ErrorKind::TimedOut) => {
            fault(TransportKind::Reset, true, "the connection went dead before the response")
        }
        Some(io::ErrorKind::ConnectionReset) => {
            fault(TransportKind::Reset, true, "connection reset before the response")
        }
        _ if heard => {
            fault(TransportKind::Reset, true, "connection closed inside the head of the response")
        }
        _ => fault(TransportKind::Reset, true, "connection closed before the response"),
    }
}

/// A kept connection that is dead shows it soon; one that ends later may have been at work.
const STALE: Duration = Duration::from_secs(30);

/// Reads how a body broke.
pub(super) fn of_body(error: &hyper::Error, from: &str) -> TransportFault {
    let what = match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::UnexpectedEof) => "was cut off",
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => "has a malformed chunk",
        Some(io::ErrorKind::TimedOut) => "stopped: the connection went dead",
        _ => "broke off",
    };
    TransportFault {
        kind: TransportKind::BodyBroken,
        message: format!("the response of {from} {what}"),
        may_be_received: true,
    }
}

/// Reads the errors of the client beside the request path.
pub(super) fn of_side(error: &reqwest::Error, url: &str, local: bool) -> TransportFault {
    let place = place_of(url);
    if error.is_connect() {
        let uri = url.parse().unwrap_or_default();
        let fault = ConnectFault::of(&uri, root(error));
        let kind = if local && fault.kind == TransportKind::NetworkDown {
            TransportKind::Connect
        } else {
            fault.kind
        };
        return TransportFault { kind, message: fault.message, may_be_received: false };
    }
    if error.is_timeout() {
        return TransportFault {
            kind: TransportKind::FirstByteTimeout,
            message: format!("no answer in time ({place})"),
            may_be_received: true,
        };
    }
    if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
        return TransportFault {
            kind: TransportKind::InvalidHttp,
            message: format!("not an HTTP response from {place}"),
            may_be_received: true,
        };
    }
    TransportFault {
        kind: TransportKind::Reset,
        message: format!("connection closed before the response ({place})"),
        may_be_received: true,
    }
}

/// The error under the layers of the HTTP client that says what the connection did.
fn root(error: &reqwest::Error) -> &(dyn Error + 'static) {
    let mut at: &(dyn Error + 'static) = error;
    while let Some(source) = at.source() {
        at = source;
        if at.to_string() == "dns error" {
            break;
        }
    }
    at
}

/// The first error of type `T` in the chain, also inside I/O errors, which hide theirs.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut at = Some(error);
    for _ in 0..16 {
        let error = at?;
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = find::<T>(inner)
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

fn socket(error: &io::Error) -> (TransportKind, Option<&'static str>) {
    use io::ErrorKind as Is;
    #[cfg(unix)]
    if let Some(code) = error.raw_os_error()
        && [rustix::io::Errno::MFILE.raw_os_error(), rustix::io::Errno::NFILE.raw_os_error()]
            .contains(&code)
    {
        // Our own want, no fault of the upstream.
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

fn tls(error: &rustls::Error, host: &str, place: &str) -> String {
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
            other => untrusted(&clean(&other.to_string())),
        },
        Is::AlertReceived(alert) => format!("TLS handshake refused by {place}: {alert:?}"),
        Is::InvalidMessage(_) => format!(
            "no TLS answer from {place}; if it speaks plain HTTP, its URL begins with http://"
        ),
        other => clean(&format!("TLS handshake with {place}: {other}")),
    }
}

/// Other people's words: no control characters, not too many.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(300).collect()
}

fn seconds(span: Duration) -> String {
    if span.as_millis() < 1_000 {
        format!("{} ms", span.as_millis())
    } else {
        format!("{} s", span.as_secs_f64())
    }
}
