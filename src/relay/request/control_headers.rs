//! Reads the client's headers that are for aiproxy rather than for an upstream.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::base::sanitize;

/// Pins a request to an upstream; in answers, the upstream that served it.
pub const PINNED_UPSTREAM_HEADER: HeaderName = HeaderName::from_static("x-aiproxy-upstream");

/// The client's headers for aiproxy rather than for an upstream; the first one wins if a name is
/// repeated.
#[derive(Default)]
pub(super) struct ControlHeaders {
    pub(super) session: Option<Arc<str>>,
    pub(super) pinned_upstream: Option<Arc<str>>,
    pub(super) strict: bool,
    pub(super) client_timeout: Option<Duration>,
}

impl ControlHeaders {
    /// Reads all headers in one pass, because a lookup per name costs more.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let (mut session, mut pin, mut strict) = (None, None, None);
        // Timeouts in the headers of the SDK families, in order of precedence.
        let mut waits = [None; 3];
        for (name, value) in headers {
            let slot = match name.as_str() {
                "x-session-id" => &mut session,
                "x-aiproxy-upstream" => &mut pin,
                "x-aiproxy-strict" => &mut strict,
                "x-stainless-read-timeout" => &mut waits[0],
                "x-stainless-timeout" => &mut waits[1],
                "x-server-timeout" => &mut waits[2],
                _ => continue,
            };
            *slot = slot.or(Some(value));
        }
        fn text(value: &HeaderValue) -> Option<&str> {
            value.to_str().ok()
        }
        let (session, pin) = (session.and_then(text), pin.and_then(text));
        Self {
            session: session
                .map(|s| Arc::from(sanitize::truncate_end(&sanitize::clean(s), 128).as_ref())),
            pinned_upstream: pin.map(Arc::from),
            strict: strict.is_some_and(|v| matches!(v.as_bytes(), b"1" | b"true")),
            client_timeout: waits
                .into_iter()
                .flatten()
                .next()
                .and_then(text)
                .and_then(parse_timeout),
        }
    }
}

/// Parses the read timeout of the client's SDK, in seconds.
fn parse_timeout(seconds: &str) -> Option<Duration> {
    let seconds: f64 = seconds.parse().ok()?;
    (seconds.is_finite() && seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(86_400.0)))
}
