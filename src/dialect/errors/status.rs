//! Statuses on their way from an upstream to a client.

use http::StatusCode;

/// What may be told of an upstream's status: errors as they are, those that only proxies and
/// content networks speak (520 to 527, 530) as 502 or 504, everything that is no error status as
/// 502.
#[must_use]
pub(in crate::dialect) fn client_status(status: u16) -> u16 {
    match status {
        522 | 524 => 504,
        520..=527 | 530 => 502,
        400..600 => status,
        _ => 502,
    }
}

/// A number as a status; all that we use are valid.
#[must_use]
pub(in crate::dialect) fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)
}
