//! Streamable HTTP without sessions: each request stands for itself.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::{
    base::json::raw::RawJson,
    mcp::{
        caller::{McpCaller, requested_level},
        message::{self, HEADER_MISMATCH, INVALID_PARAMS, RpcError, RpcMessage},
        revision::{META_CAPABILITIES, META_CLIENT, META_VERSION, Revision, STATELESS},
        servers::hub::McpHub,
        session::ClientFacts,
        wire::peer::route_name,
    },
};

use super::{
    reply::{empty_response, header_text, refuse, start, unsupported},
    request::{McpBody, McpRequest},
};

pub(super) async fn post_stateless(
    hub: &Arc<McpHub>,
    mut caller: McpCaller,
    request: &McpRequest,
    message: RpcMessage,
    version: Option<&str>,
) -> Response<McpBody> {
    let RpcMessage::Request { id, method, params } = message else {
        return empty_response(StatusCode::ACCEPTED);
    };
    if let Err(error) = check_envelope(&request.headers, version, &method, params.as_ref()) {
        return refuse(StatusCode::BAD_REQUEST, Some(&id), error);
    }
    let meta = params.as_ref().and_then(|params| params.json().get("_meta"));
    if let Some(meta) = meta {
        let raw = |name: &str| meta.get(name).map(RawJson::from_json);
        caller.facts = ClientFacts {
            revision: Revision::Stateless,
            capabilities: raw(META_CAPABILITIES).unwrap_or_else(message::empty_object),
            info: raw(META_CLIENT),
        };
        caller.level = requested_level(meta);
    }
    start(hub, caller, request, id, method, params).await
}

/// Checks that headers and body of a stateless request say the same.
pub(super) fn check_envelope(
    headers: &HeaderMap,
    version: Option<&str>,
    method: &str,
    params: Option<&RawJson>,
) -> Result<(), RpcError> {
    let json = params.map(RawJson::json);
    let meta = json.and_then(|json| json.get("_meta"));
    let stated = meta.and_then(|meta| meta.string_at(META_VERSION));
    let Some(stated) = stated.filter(|_| meta.is_some_and(|m| m.get(META_CAPABILITIES).is_some()))
    else {
        let message = format!("`params._meta` needs `{META_VERSION}` and `{META_CAPABILITIES}`");
        return Err(RpcError::new(INVALID_PARAMS, message));
    };
    let mismatch = |name: &str| {
        RpcError::new(HEADER_MISMATCH, format!("the header {name} does not say what the body says"))
    };
    if version != Some(stated.as_str()) {
        return Err(mismatch("MCP-Protocol-Version"));
    }
    if header_text(headers, "mcp-method") != Some(method) {
        return Err(mismatch("Mcp-Method"));
    }
    if let Some(name) = json.and_then(|json| route_name(method, json)) {
        let said = headers.get("mcp-name").map(HeaderValue::as_bytes).and_then(decoded_name);
        if said.as_deref() != Some(name.as_str()) {
            return Err(mismatch("Mcp-Name"));
        }
    }
    if stated != STATELESS { Err(unsupported(&stated)) } else { Ok(()) }
}

pub(super) fn decoded_name(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim();
    match text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(coded) => String::from_utf8(STANDARD.decode(coded).ok()?).ok(),
        None => Some(text.to_owned()),
    }
}
