//! What a response to the free call says about an upstream and its key.

use crate::{
    cli::key::verify::content_type_of, dialect::registry, ir::fault::FaultKind, ir::op::Dialect,
    upstream::aux_client::SmallResponse,
};

/// The meaning of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
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
pub(super) fn read(dialect: Dialect, answer: &SmallResponse) -> Verdict {
    let status = answer.status.as_u16();
    let egress = registry::egress(dialect);
    let page = content_type_of(answer).starts_with("text/html")
        || answer.body.trim_ascii_start().starts_with(b"<");
    if answer.status.is_success() {
        return match egress.read_models(&answer.body) {
            Some(list) => Verdict::Works(list.len()),
            None => Verdict::NotThere { page },
        };
    }
    let kind = egress.read_error(status, content_type_of(answer), &answer.body).kind;
    match (status, kind) {
        (402, _) | (_, FaultKind::Quota) => Verdict::NoCredit,
        (401, _) | (_, FaultKind::KeyRejected) => Verdict::Rejected,
        (403, _) if page => Verdict::Broken(status),
        (403, _) => Verdict::Forbidden,
        (429, _) => Verdict::Limited,
        (300..=399 | 404 | 405 | 410, _) => Verdict::NotThere { page },
        _ => Verdict::Broken(status),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn verdict(status: u16, content_type: &'static str, body: &'static str) -> Verdict {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", content_type.parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        read(Dialect::Openai, &SmallResponse { status, headers, body: body.into() })
    }

    #[test]
    fn each_answer_has_its_meaning() {
        const JSON: &str = "application/json";
        let quota = r#"{"error":{"message":"x","code":"insufficient_quota"}}"#;
        for (status, kind, body, want) in [
            (200, JSON, r#"{"data":[{"id":"a"}]}"#, Verdict::Works(1)),
            (200, "text/html", "<html>", Verdict::NotThere { page: true }),
            (401, JSON, "{}", Verdict::Rejected),
            (402, JSON, "{}", Verdict::NoCredit),
            (403, JSON, r#"{"error":{"message":"no right to list"}}"#, Verdict::Forbidden),
            (404, JSON, "{}", Verdict::NotThere { page: false }),
            (429, JSON, quota, Verdict::NoCredit),
            (429, JSON, r#"{"error":{"message":"slow down"}}"#, Verdict::Limited),
            (301, "text/html", "", Verdict::NotThere { page: true }),
            (503, JSON, "{}", Verdict::Broken(503)),
        ] {
            assert_eq!(verdict(status, kind, body), want, "{status} {body}");
        }
    }
}
