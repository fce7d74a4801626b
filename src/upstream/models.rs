//! Fetches an upstream's model list, as bytes.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE};

use crate::upstream::client::{UpstreamClient, UpstreamRequest};
use crate::{
    config::settings::{DialectEndpoint, KeyId, Upstream},
    ir::{
        fault::{TransportFault, TransportKind},
        reason::failure::FailureReason,
    },
};

/// Why there is no list.
#[derive(Debug)]
pub enum ModelListError {
    Transport(TransportFault),
    /// The upstream returned something other than a list.
    Status {
        status: StatusCode,
        content_type: String,
        body: Bytes,
    },
}

impl fmt::Display for ModelListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(fault) => write!(f, "{}", fault.reason),
            Self::Status { status, .. } => write!(f, "the model list is answered with {status}"),
        }
    }
}

const MAX_LIST_BYTES: u64 = 8 << 20;
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests `path` (relative to the base URL) with the key; `headers` are sent unchanged.
///
/// # Errors
///
/// No connection, no response within 10 s, more than 8 MiB, or a status other than 2xx.
pub async fn fetch_model_list(
    gateway: &UpstreamClient,
    upstream: &Arc<Upstream>,
    endpoint: &DialectEndpoint,
    key: Option<KeyId>,
    path: &str,
    headers: HeaderMap,
) -> Result<Bytes, ModelListError> {
    let call = UpstreamRequest {
        upstream,
        endpoint,
        key,
        method: Method::GET,
        path,
        query: None,
        headers,
        body: Bytes::new(),
    };
    let exchange = async {
        let answer = gateway.send(call.clone()).await;
        // A stale idle connection says nothing about the upstream.
        let answer = match answer {
            Err(fault) if fault.kind == TransportKind::Stale => gateway.send(call).await,
            other => other,
        };
        let answer = answer.map_err(ModelListError::Transport)?;
        let (status, head) = (answer.status, answer.headers);
        let body =
            answer.body.read_to_end(MAX_LIST_BYTES).await.map_err(ModelListError::Transport)?;
        if status.is_success() {
            return Ok(body);
        }
        let content_type =
            head.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        Err(ModelListError::Status { status, content_type, body })
    };
    match tokio::time::timeout(FETCH_TIMEOUT, exchange).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!(
                "no model list from {} within {} s",
                upstream.name,
                FETCH_TIMEOUT.as_secs()
            );
            Err(ModelListError::Transport(TransportFault {
                kind: TransportKind::TotalTimeout,
                reason: FailureReason::text(message).into(),
                may_be_received: true,
            }))
        }
    }
}
