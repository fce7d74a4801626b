//! aiproxy's own errors in OpenAI's format.

use bytes::Bytes;

use crate::{
    dialect::errors::openai_codes,
    ir::fault::{ProxyError, ProxyErrorKind},
};

/// Writes an event without a name: OpenAI's SDKs raise an exception for any chunk with a truthy
/// `error`.
pub(super) fn write_error_event(error: &ProxyError) -> Bytes {
    format!("data: {}\n\n", openai_codes::error_body(error, &openai_codes::error_code(error)))
        .into()
}

/// Returns an error that names the field.
pub(super) fn invalid_param(param: impl Into<String>, message: impl Into<String>) -> ProxyError {
    ProxyError::new(ProxyErrorKind::BadRequest, message).param(param.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bodies_have_all_four_fields() {
        let (status, body) = openai_codes::write_error(
            &ProxyError::new(ProxyErrorKind::ModelNotFound, "no \u{1b}[x").param("model"),
        );
        assert_eq!(status, 404);
        assert_eq!(
            body,
            r#"{"error":{"code":"model_not_found","message":"no \\u001b[x","param":"model","type":"invalid_request_error"}}"#
        );
        assert_eq!(
            write_error_event(&ProxyError::new(ProxyErrorKind::Internal, "m")),
            "data: {\"error\":{\"code\":null,\"message\":\"m\",\"param\":null,\"type\":\"server_error\"}}\n\n"
        );
    }

    #[test]
    fn statuses_are_known_to_the_vendor_sdks() {
        for (kind, given, want) in [
            (ProxyErrorKind::Overloaded, None, 503),
            (ProxyErrorKind::OutOfCredit, None, 429),
            (ProxyErrorKind::TooLarge, None, 413),
            (ProxyErrorKind::Upstream, Some(529), 503),
            (ProxyErrorKind::Upstream, Some(524), 504),
            (ProxyErrorKind::Upstream, Some(520), 502),
            (ProxyErrorKind::Upstream, Some(999), 502),
            (ProxyErrorKind::UpstreamError, Some(422), 422),
        ] {
            let mut error = ProxyError::new(kind, "m");
            error.status = given;
            assert_eq!(openai_codes::write_error(&error).0, want, "{kind:?} {given:?}");
        }
    }
}
