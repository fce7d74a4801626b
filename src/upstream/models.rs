//! Fetches an upstream's model list, as bytes.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE};

use super::send::{Call, Gateway};
use crate::{
    config::settings::{DialectEndpoint, KeyId, Upstream},
    ir::fault::{TransportFault, TransportKind},
};

/// Why there is no list.
#[derive(Debug)]
pub enum FetchError {
    Fault(TransportFault),
    /// The upstream said something else than a list.
    Status {
        status: StatusCode,
        content_type: String,
        body: Bytes,
    },
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => f.write_str(&fault.message),
            Self::Status { status, .. } => write!(f, "the model list is answered with {status}"),
        }
    }
}

const LARGEST: u64 = 8 << 20;
const LONGEST: Duration = Duration::from_secs(10);

/// Asks for `path` (below the base URL) with the key; `headers` are sent as they are.
///
/// # Errors
///
/// No connection, no answer within 10 s, more than 8 MiB, or a status other than 2xx.
pub async fn fetch(
    gateway: &Gateway,
    upstream: &Arc<Upstream>,
    end: &DialectEndpoint,
    key: Option<KeyId>,
    path: &str,
    headers: HeaderMap,
) -> Result<Bytes, FetchError> {
    let call = Call {
        upstream,
        end,
        key,
        method: Method::GET,
        path,
        query: None,
        headers,
        body: Bytes::new(),
    };
    let asked = async {
        let answer = gateway.send(call.clone()).await;
        // A kept connection that was dead says nothing.
        let answer = match answer {
            Err(fault) if fault.kind == TransportKind::Stale => gateway.send(call).await,
            other => other,
        };
        let answer = answer.map_err(FetchError::Fault)?;
        let (status, head) = (answer.status, answer.headers);
        let body = answer.body.read(LARGEST).await.map_err(FetchError::Fault)?;
        if status.is_success() {
            return Ok(body);
        }
        let content_type =
            head.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        Err(FetchError::Status { status, content_type, body })
    };
    match tokio::time::timeout(LONGEST, asked).await {
        Ok(result) => result,
        Err(_) => {
            let message =
                format!("no model list from {} within {} s", upstream.name, LONGEST.as_secs());
            Err(FetchError::Fault(TransportFault {
                kind: TransportKind::TotalTimeout,
                message,
                may_be_received: true,
            }))
        }
    }
}
