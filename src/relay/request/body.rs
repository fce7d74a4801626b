//! Reads and decodes a request body within its limits.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::relay::{engine::Generation, state::permits::BufferReservation};
use crate::{
    base::sanitize,
    ir::fault::{ProxyError, ProxyErrorKind},
    upstream::decode::{self, ContentCoding, DecodeError},
};

/// Slowest upload in bytes a second, averaged from [`UPLOAD_GRACE`] on.
const MIN_UPLOAD_RATE: u64 = 1_024;
const UPLOAD_GRACE: Duration = Duration::from_secs(30);
/// An encoded body above this size is not stored for forwarding unchanged.
const MAX_ENCODED_BYTES: usize = 8 << 20;

/// The limits of a request body.
pub(super) struct RequestLimits {
    pub(super) max_body: u64,
    pub(super) buffer_limit: u64,
    pub(super) idle_timeout: Duration,
    /// How long the whole body may take.
    pub(super) total_timeout: Duration,
}

pub(super) fn request_limits(generation: &Generation) -> RequestLimits {
    let settings = &generation.settings;
    RequestLimits {
        max_body: settings.server.max_request_bytes,
        buffer_limit: settings.server.max_buffered.unwrap_or(u64::MAX),
        idle_timeout: settings.timeouts.client_idle,
        total_timeout: settings.timeouts.total,
    }
}

/// Reads the whole body.
pub(super) async fn read_body(
    mut body: Incoming,
    limits: &RequestLimits,
    reservation: &mut BufferReservation,
) -> Result<Bytes, ProxyError> {
    if body.size_hint().lower() > limits.max_body {
        return Err(body_too_large(body.size_hint().lower(), limits.max_body));
    }
    let (mut first, mut rest): (Option<Bytes>, Option<BytesMut>) = (None, None);
    let mut total = 0_u64;
    let begin = Instant::now();
    loop {
        let frame = if body.is_end_stream() {
            None
        } else {
            // A sender that keeps the connection alive with a byte now and then is cut off too.
            let slowest = UPLOAD_GRACE + Duration::from_secs(total / MIN_UPLOAD_RATE);
            let overall = begin + limits.total_timeout.min(slowest);
            let idle = Instant::now() + limits.idle_timeout;
            timeout_at(idle.min(overall), body.frame()).await.map_err(|_| {
                if idle <= overall {
                    body_idle(limits.idle_timeout)
                } else {
                    body_too_slow(total, begin.elapsed())
                }
            })?
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| {
            ProxyError::new(ProxyErrorKind::BadRequest, format!("the request body broke off: {e}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        total += data.len() as u64;
        if total > limits.max_body {
            return Err(body_too_large(total, limits.max_body));
        }
        if !reservation.try_grow(data.len() as u64, limits.buffer_limit) {
            return Err(buffer_full(limits.buffer_limit));
        }
        match (&mut first, &mut rest) {
            (None, None) => first = Some(data),
            (Some(_), None) => {
                let mut all = BytesMut::with_capacity((total + body.size_hint().lower()) as usize);
                all.extend_from_slice(&first.take().unwrap_or_default());
                all.extend_from_slice(&data);
                rest = Some(all);
            }
            (_, Some(all)) => all.extend_from_slice(&data),
        }
    }
    Ok(rest.map(BytesMut::freeze).or(first).unwrap_or_default())
}

/// Decodes a compressed body. Returns the original with its coding as well, if that is small enough
/// to be forwarded unchanged.
pub(super) fn decode_body(
    raw: Bytes,
    headers: &mut HeaderMap,
    limits: &RequestLimits,
    reservation: &mut BufferReservation,
) -> Result<(Bytes, Option<(Bytes, HeaderValue)>), ProxyError> {
    let refused = |headers: &HeaderMap, error: DecodeError| {
        let name =
            headers.get(header::CONTENT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or("?");
        let name = sanitize::clean(name);
        match error {
            DecodeError::TooLarge => body_too_large(limits.max_body + 1, limits.max_body),
            DecodeError::Unknown => {
                let message = format!(
                    "content-encoding `{name}` is not known; gzip, br, zstd and deflate are, one at a time"
                );
                ProxyError::new(ProxyErrorKind::UnsupportedMedia, message)
            }
            DecodeError::Corrupt(_) | DecodeError::Truncated(_) => ProxyError::new(
                ProxyErrorKind::BadRequest,
                format!("the request body is not {name}: {error}"),
            ),
        }
    };
    let Some(found) = ContentCoding::from_headers(headers).map_err(|e| refused(headers, e))? else {
        return Ok((raw, None));
    };
    let max = usize::try_from(limits.max_body).unwrap_or(usize::MAX);
    let decoded = decode::decode_all(found, &raw, max).map_err(|e| refused(headers, e))?;
    let Some(coding) = headers.remove(header::CONTENT_ENCODING) else { return Ok((decoded, None)) };
    if !reservation.try_grow(decoded.len() as u64, limits.buffer_limit) {
        return Err(buffer_full(limits.buffer_limit));
    }
    let keep_encoded = raw.len() <= MAX_ENCODED_BYTES;
    Ok((decoded, keep_encoded.then_some((raw, coding))))
}

fn body_too_large(size: u64, limit: u64) -> ProxyError {
    ProxyError::new(
        ProxyErrorKind::TooLarge,
        format!(
            "the request body has {size} bytes or more; {limit} are allowed (`max_request_bytes` under [server] in the config)"
        ),
    )
}

pub(in crate::relay) fn buffer_full(limit: u64) -> ProxyError {
    ProxyError::new(
        ProxyErrorKind::Overloaded,
        format!("request and answer bodies already hold the {limit} bytes that `max_buffered` under [server] allows; try again shortly"),
    )
    .retry_after(Some(Duration::from_secs(1)))
}

fn body_too_slow(bytes: u64, elapsed: Duration) -> ProxyError {
    let message = format!(
        "the request body came too slowly: {bytes} bytes in {}s (at least {MIN_UPLOAD_RATE} bytes a second, and all of it within `total` under [timeouts])",
        elapsed.as_secs()
    );
    ProxyError::new(ProxyErrorKind::BadRequest, message).status(408)
}

fn body_idle(idle: Duration) -> ProxyError {
    ProxyError::new(
        ProxyErrorKind::BadRequest,
        format!(
            "no byte of the request body came for {}s (`client_idle` under [timeouts])",
            idle.as_secs()
        ),
    )
    .status(408)
}
