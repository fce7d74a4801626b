//! `/mcp`: hands requests of authenticated clients to the gateway for MCP servers.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, request::Parts};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::{
    base::id::RequestId,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
    },
    mcp::endpoint::{self, McpBody, McpRequest, McpRoute},
    relay::{
        request::proxy_request::Caller,
        response::{self, ResponseBody},
    },
    server::state::ServerState,
};

/// A message must arrive within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// Answers a request below `/mcp`; the query comes without a client key.
pub(in crate::server) async fn respond(
    server: &ServerState,
    id: RequestId,
    caller: Caller,
    route: McpRoute,
    (parts, query): (Parts, Option<String>),
    body: Incoming,
) -> Response<ResponseBody> {
    let limit = server.engine.generation().settings.server.max_request_bytes;
    let body = match read_body(body, limit).await {
        Ok(body) => body,
        Err(error) => return response::error_response(Dialect::Openai, id, &error),
    };
    let request = McpRequest {
        route,
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query,
        headers: parts.headers,
        body,
        project: caller.project,
        program: caller.program,
        addr: caller.addr,
    };
    let mut response = endpoint::handle(&server.mcp, request).await.map(|body| match body {
        McpBody::Full(bytes) => ResponseBody::Full(Some(bytes)),
        McpBody::Events(events) => ResponseBody::Events(events),
    });
    response::set_request_id(response.headers_mut(), id);
    response
}

async fn read_body(body: Incoming, limit: u64) -> Result<Bytes, ProxyError> {
    let bad = |why: String| ProxyError::new(ProxyErrorKind::BadRequest, why);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let read = timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await;
    let read = read.map_err(|_| bad("the body did not come".to_owned()))?;
    match read {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("the body has more than {limit} bytes, `max_request_bytes`");
            Err(ProxyError::new(ProxyErrorKind::TooLarge, message))
        }
        Err(error) => Err(bad(format!("the body cannot be read: {error}"))),
    }
}
