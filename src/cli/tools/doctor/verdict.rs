//! What a response to the free call says about an upstream and its key.

use crate::{
    cli::key::verify::content_type_of, dialect::registry, ir::fault::FaultKind, ir::op::Dialect,
    upstream::aux_client::SmallResponse,
};

/// The meaning of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FreeCallVerdict {
    /// A list of this many models.
    Works(usize),
    Rejected,
    /// The key works and may not list models.
    Forbidden,
    NoCredit,
    Limited,
    /// Nothing is at this address, and whether a web page says so.
    NotThere {
        page: bool,
    },
    /// The status of an answer that says nothing about the key.
    Broken(u16),
}

/// Reads a response.
pub(super) fn read(dialect: Dialect, answer: &SmallResponse) -> FreeCallVerdict {
    let status = answer.status.as_u16();
    let egress = registry::egress(dialect);
    let page = content_type_of(answer).starts_with("text/html")
        || answer.body.trim_ascii_start().starts_with(b"<");
    if answer.status.is_success() {
        return match egress.read_models(&answer.body) {
            Some(list) => FreeCallVerdict::Works(list.len()),
            None => FreeCallVerdict::NotThere { page },
        };
    }
    let kind = egress.read_error(status, content_type_of(answer), &answer.body).kind;
    match (status, kind) {
        (402, _) | (_, FaultKind::Quota) => FreeCallVerdict::NoCredit,
        (401, _) | (_, FaultKind::KeyRejected) => FreeCallVerdict::Rejected,
        (403, _) if page => FreeCallVerdict::Broken(status),
        (403, _) => FreeCallVerdict::Forbidden,
        (429, _) => FreeCallVerdict::Limited,
        (300..=399 | 404 | 405 | 410, _) => FreeCallVerdict::NotThere { page },
        _ => FreeCallVerdict::Broken(status),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn verdict(status: u16, content_type: &'static str, body: &'static str) -> FreeCallVerdict {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", content_type.parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        read(Dialect::Openai, &SmallResponse { status, headers, body: body.into() })
    }

    #[test]
    fn each_response_maps_to_a_verdict() {
        const JSON: &str = "application/json";
        let quota = r#"{"error":{"message":"x","code":"insufficient_quota"}}"#;
        for (status, kind, body, want) in [
            (200, JSON, r#"{"data":[{"id":"a"}]}"#, FreeCallVerdict::Works(1)),
            (200, "text/html", "<html>", FreeCallVerdict::NotThere { page: true }),
            (401, JSON, "{}", FreeCallVerdict::Rejected),
            (402, JSON, "{}", FreeCallVerdict::NoCredit),
            (403, JSON, r#"{"error":{"message":"no right to list"}}"#, FreeCallVerdict::Forbidden),
            (404, JSON, "{}", FreeCallVerdict::NotThere { page: false }),
            (429, JSON, quota, FreeCallVerdict::NoCredit),
            (429, JSON, r#"{"error":{"message":"slow down"}}"#, FreeCallVerdict::Limited),
            (301, "text/html", "", FreeCallVerdict::NotThere { page: true }),
            (503, JSON, "{}", FreeCallVerdict::Broken(503)),
        ] {
            assert_eq!(verdict(status, kind, body), want, "{status} {body}");
        }
    }
}
