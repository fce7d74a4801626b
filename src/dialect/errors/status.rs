//! Maps an upstream's status to the status that a client gets.

use http::StatusCode;

/// Returns error statuses unchanged. Statuses that only proxies and content networks use (520 to
/// 527, 530) become 502 or 504; every status that is not an error becomes 502.
#[must_use]
pub(in crate::dialect) fn client_status(status: u16) -> u16 {
    match status {
        522 | 524 => 504,
        520..=527 | 530 => 502,
        400..600 => status,
        _ => 502,
    }
}

/// Converts a number into a status; every number that aiproxy uses is valid.
#[must_use]
pub(in crate::dialect) fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)
}
