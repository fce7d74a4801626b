//! Tests a key with a free call: the provider's list of models.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use crate::{
    base::sanitize::{clean, truncate_end},
    cli::expose::expose_secret,
    config::{
        presets,
        settings::{DialectEndpoint, KeyId, Upstream},
    },
    dialect::registry,
    ir::{fault::TransportFault, op::Dialect},
    secrets::Secret,
    upstream::{
        ProviderKeys, UpstreamClient,
        aux_client::{self, SmallResponse},
    },
};

/// The provider's verdict on a key.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum KeyVerdict {
    Good {
        models: Option<usize>,
    },
    Rejected {
        status: u16,
        message: String,
    },
    /// Undetermined, with the reason: the provider is unreachable or has no model list.
    Unknown(String),
}

/// Queries the upstream with only this key, or without a key if the upstream needs none.
pub(in crate::cli) async fn check_key(
    upstream: &Arc<Upstream>,
    secret: Option<&Secret>,
) -> KeyVerdict {
    let Some(end) = upstream.endpoints.first() else {
        return KeyVerdict::Unknown("it has no base URL".to_owned());
    };
    let egress = registry::egress(end.dialect);
    match fetch_models(upstream, end, secret).await {
        Err(fault) => KeyVerdict::Unknown(clean(&fault.reason.to_string()).into_owned()),
        Ok(answer) => classify(
            answer.status.as_u16(),
            egress.read_models(&answer.body).map(|list| list.len()),
            || {
                let content_type = content_type_of(&answer);
                egress.read_error(answer.status.as_u16(), content_type, &answer.body).message
            },
        ),
    }
}

/// Requests the list of models from an endpoint of the upstream, with only this key.
///
/// # Errors
///
/// As [`aux_client::get`].
pub(in crate::cli) async fn fetch_models(
    upstream: &Arc<Upstream>,
    end: &DialectEndpoint,
    secret: Option<&Secret>,
) -> Result<SmallResponse, TransportFault> {
    let keys = Arc::new(ProviderKeys::default());
    // The number only has to match the one below, because this table contains one key.
    let id = secret.map(|secret| {
        keys.set(KeyId(0), Arc::new(Secret::new(expose_secret(secret).to_owned())));
        KeyId(0)
    });
    let client = UpstreamClient::new(Arc::clone(&keys));
    let egress = registry::egress(end.dialect);
    let preset = upstream.preset.as_deref().and_then(presets::find);
    let path =
        preset.and_then(|p| p.models_path.as_deref()).unwrap_or_else(|| egress.models_path());
    let mut headers = HeaderMap::new();
    if end.dialect == Dialect::Anthropic {
        headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    }
    aux_client::get(&client, upstream, end, id, path, headers).await
}

/// The content type of a response; empty if it names none.
pub(in crate::cli) fn content_type_of(answer: &SmallResponse) -> &str {
    answer.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// Only an explicit rejection counts against a key. A provider without a model list returns 404 or
/// 405, a busy provider 429 and a failing provider 5xx.
fn classify(status: u16, models: Option<usize>, message: impl FnOnce() -> String) -> KeyVerdict {
    match status {
        200..=299 => KeyVerdict::Good { models },
        401 | 403 => KeyVerdict::Rejected {
            status,
            message: truncate_end(&clean(&message()), 200).into_owned(),
        },
        status => KeyVerdict::Unknown(format!("the model list returned status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_explicit_rejection_counts_against_a_key() {
        let message = || "Incorrect API key".to_owned();
        for (status, want) in [
            (200, "Good"),
            (401, "Rejected"),
            (403, "Rejected"),
            (404, "Unknown"),
            (429, "Unknown"),
            (503, "Unknown"),
        ] {
            let got = format!("{:?}", classify(status, Some(3), message));
            assert!(got.starts_with(want), "{status}: {got}");
        }
    }
}
