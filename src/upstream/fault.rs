//! Classifies transport errors into one kind and one sentence.

use std::{error::Error, io, sync::Arc, time::Duration};

use http::Extensions;
use hyper_util::client::legacy;

use super::uri::host_port_of;
use crate::upstream::{
    connect_fault::{ConnectFault, find_source, sanitize},
    plain_pool::PlainSendError,
    tracked_io::IoState,
};
use crate::{
    config::settings::{DialectEndpoint, Upstream},
    ir::{
        fault::{TransportFault, TransportKind},
        reason::failure::{BodyProblem, ConnectionProblem, FailureReason},
    },
};

/// Classifies why no response head arrived. `waited` is the time since the request was sent.
pub(super) fn send_fault(
    error: &legacy::Error,
    upstream: &Upstream,
    endpoint: &DialectEndpoint,
    waited: Duration,
) -> TransportFault {
    if let Some(fault) = find_source::<ConnectFault>(error) {
        return connect_fault(fault, upstream);
    }
    let (mut reused, mut received_any, mut h2) = (false, false, false);
    if let Some(info) = error.connect_info() {
        let mut extras = Extensions::new();
        info.get_extras(&mut extras);
        if let Some(state) = extras.get::<Arc<IoState>>() {
            (reused, received_any) =
                (state.reused(), state.received_any.load(std::sync::atomic::Ordering::Relaxed));
        }
        h2 = info.is_negotiated_h2();
    }
    let Some(hyper) = find_source::<hyper::Error>(error) else {
        let reason = FailureReason::Connection {
            problem: ConnectionProblem::NoConnection,
            address: host_port_of(&endpoint.base_url).into(),
        };
        return TransportFault {
            kind: TransportKind::Connect,
            reason: reason.into(),
            may_be_received: false,
        };
    };
    exchange_fault(hyper, &ConnectionUse { reused, received_any, h2 }, upstream, endpoint, waited)
}

/// Classifies why no response head arrived over a plain-text connection.
pub(super) fn plain_send_fault(
    error: &PlainSendError,
    upstream: &Upstream,
    endpoint: &DialectEndpoint,
    waited: Duration,
) -> TransportFault {
    match error {
        PlainSendError::Connect(fault) => connect_fault(fault, upstream),
        PlainSendError::Exchange(error, line) => {
            let received_any = line.received_any.load(std::sync::atomic::Ordering::Relaxed);
            exchange_fault(
                error,
                &ConnectionUse { reused: line.reused(), received_any, h2: false },
                upstream,
                endpoint,
                waited,
            )
        }
    }
}

fn connect_fault(fault: &ConnectFault, upstream: &Upstream) -> TransportFault {
    // "No route" to this machine itself says nothing about the network.
    let kind = if upstream.local && fault.kind == TransportKind::NetworkDown {
        TransportKind::Connect
    } else {
        fault.kind
    };
    TransportFault { kind, reason: Arc::clone(&fault.reason), may_be_received: false }
}

/// What is known about the connection that failed.
struct ConnectionUse {
    reused: bool,
    received_any: bool,
    h2: bool,
}

fn exchange_fault(
    hyper: &hyper::Error,
    used: &ConnectionUse,
    upstream: &Upstream,
    endpoint: &DialectEndpoint,
    waited: Duration,
) -> TransportFault {
    let address = host_port_of(&endpoint.base_url);
    let fault = |kind, sent, problem| TransportFault {
        kind,
        reason: FailureReason::Connection { problem, address: address.as_str().into() }.into(),
        may_be_received: sent,
    };
    let ConnectionUse { reused, mut received_any, h2 } = *used;
    if hyper.is_canceled() {
        // The connection closed before the request was started.
        return if reused {
            fault(TransportKind::Stale, false, ConnectionProblem::Stale)
        } else {
            fault(TransportKind::Reset, false, ConnectionProblem::ClosedWhenMade)
        };
    }
    if h2 {
        let reason = hyper.source().map(ToString::to_string).unwrap_or_default();
        // By RFC 9113 the upstream processed neither a refused stream nor one above the last of a
        // graceful GOAWAY.
        if reason.contains("refused stream") || reason.ends_with("not a result of an error") {
            return fault(TransportKind::Stale, false, ConnectionProblem::ClosedByUpstream);
        }
        // The reset of a single stream says nothing about the connection.
        if reason.starts_with("stream error") {
            let text = format!("{} ({address})", sanitize(&reason));
            return TransportFault {
                kind: TransportKind::Reset,
                reason: FailureReason::text(text).into(),
                may_be_received: true,
            };
        }
        if reason.contains("protocol error") || reason.contains("frame with invalid size") {
            return fault(TransportKind::InvalidHttp, true, ConnectionProblem::NotHttp2);
        }
        received_any = false;
    }
    if hyper.is_parse_too_large() {
        return fault(TransportKind::InvalidHttp, true, ConnectionProblem::HeadTooLarge);
    }
    if hyper.is_parse() {
        let text = format!("not an HTTP response from {address}: {hyper}");
        return TransportFault {
            kind: TransportKind::InvalidHttp,
            reason: FailureReason::text(text).into(),
            may_be_received: true,
        };
    }
    if reused && !received_any && waited < STALE_WITHIN {
        return fault(TransportKind::Stale, true, ConnectionProblem::Stale);
    }
    match find_source::<io::Error>(hyper).map(io::Error::kind) {
        Some(
            io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::HostUnreachable,
        ) if !upstream.local => {
            fault(TransportKind::NetworkDown, true, ConnectionProblem::NetworkLost)
        }
        Some(io::ErrorKind::TimedOut) => fault(TransportKind::Reset, true, ConnectionProblem::Dead),
        Some(io::ErrorKind::ConnectionReset) => {
            fault(TransportKind::Reset, true, ConnectionProblem::ResetBeforeResponse)
        }
        _ if received_any => fault(TransportKind::Reset, true, ConnectionProblem::ClosedInHead),
        _ => fault(TransportKind::Reset, true, ConnectionProblem::ClosedBeforeResponse),
    }
}

/// A closed idle connection fails soon; a connection that ends later may have been processing the
/// request.
const STALE_WITHIN: Duration = Duration::from_secs(30);

/// Classifies how a body broke.
pub(super) fn body_fault(error: &hyper::Error, upstream_name: &str) -> TransportFault {
    let problem = match find_source::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::UnexpectedEof) => BodyProblem::CutOff,
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            BodyProblem::MalformedChunk
        }
        Some(io::ErrorKind::TimedOut) => BodyProblem::ConnectionDead,
        _ => BodyProblem::BrokeOff,
    };
    TransportFault {
        kind: TransportKind::BodyBroken,
        reason: FailureReason::Body { upstream: upstream_name.into(), problem }.into(),
        may_be_received: true,
    }
}

/// Classifies the errors of the auxiliary client.
pub fn aux_fault(error: &reqwest::Error, url: &str, local: bool) -> TransportFault {
    let address = host_port_of(url);
    if error.is_connect() {
        let uri = url.parse().unwrap_or_default();
        let fault = ConnectFault::from_error(&uri, root_cause(error));
        let kind = if local && fault.kind == TransportKind::NetworkDown {
            TransportKind::Connect
        } else {
            fault.kind
        };
        return TransportFault { kind, reason: fault.reason, may_be_received: false };
    }
    if find_source::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) && !error.is_timeout()
    {
        return TransportFault {
            kind: TransportKind::InvalidHttp,
            reason: FailureReason::text(format!("not an HTTP response from {address}")).into(),
            may_be_received: true,
        };
    }
    let (kind, problem) = if error.is_timeout() {
        (TransportKind::FirstByteTimeout, ConnectionProblem::NoAnswer)
    } else {
        (TransportKind::Reset, ConnectionProblem::ClosedBeforeResponse)
    };
    let address = address.into();
    TransportFault {
        kind,
        reason: FailureReason::Connection { problem, address }.into(),
        may_be_received: true,
    }
}

/// Returns the error below the layers of the HTTP client that describes the connection.
fn root_cause(error: &reqwest::Error) -> &(dyn Error + 'static) {
    let mut at: &(dyn Error + 'static) = error;
    while let Some(source) = at.source() {
        at = source;
        if at.to_string() == "dns error" {
            break;
        }
    }
    at
}
