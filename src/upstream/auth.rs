//! Adds the headers that an upstream expects: credential, configured headers, and aiproxy's hop id.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT_ENCODING, AUTHORIZATION},
};

use super::{headers, keys::ProviderKeys};
use crate::{
    config::settings::{Auth, KeyId, Upstream},
    ir::{
        fault::{TransportFault, TransportKind},
        op::Dialect,
        reason::failure::FailureReason,
    },
};

/// Completes already filtered client headers for the endpoint of `upstream` that speaks `dialect`.
///
/// # Errors
///
/// The key's secret is missing, or no longer there.
pub(super) fn set_upstream_headers(
    headers: &mut HeaderMap,
    upstream: &Upstream,
    dialect: Dialect,
    key: Option<KeyId>,
    keys: &ProviderKeys,
) -> Result<(), TransportFault> {
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers::append_hop(headers);
    for (name, value) in &upstream.headers {
        // The config was checked when it was read; a header that still cannot be written is left
        // out.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            headers.insert(name, value);
        }
    }
    let Some(key) = key else { return Ok(()) };
    let written = match upstream.auth_for(dialect) {
        Auth::None => true,
        Auth::Bearer => {
            keys.bearer_header(key).map(|value| headers.insert(AUTHORIZATION, value)).is_some()
        }
        Auth::Header(name) => {
            match (HeaderName::from_bytes(name.as_bytes()), keys.bare_header(key)) {
                (Ok(name), Some(value)) => {
                    headers.insert(name, value);
                    true
                }
                _ => false,
            }
        }
    };
    if written { Ok(()) } else { Err(missing_key_fault(upstream)) }
}

fn missing_key_fault(upstream: &Upstream) -> TransportFault {
    let name = Arc::clone(&upstream.name);
    TransportFault {
        kind: TransportKind::Connect,
        reason: FailureReason::text(format!("the key of `{name}` is not there any more")).into(),
        may_be_received: false,
    }
}
