//! Paths and requests of the endpoints.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::{
    config::settings::Project,
    mcp::{outlet::EventBody, session::EndpointScope},
};

/// What a path below `/mcp` is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum McpRoute {
    /// `/mcp` and `/mcp/NAME`.
    Main(EndpointScope),
    /// `/mcp/NAME/message`.
    OldMessage(Arc<str>),
    /// `/mcp/NAME/sse`.
    OldStream(Arc<str>),
}

impl McpRoute {
    /// Reads a path.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/mcp")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Some(Self::Main(EndpointScope::All));
        }
        let mut parts: Vec<&str> = rest.strip_prefix('/')?.split('/').collect();
        if parts.len() > 1 && matches!(parts[0], "public" | "group") && !is_old(parts[1]) {
            parts.remove(0);
        }
        let name: Arc<str> = parts[0].into();
        match parts[1..] {
            _ if name.is_empty() => None,
            [] => Some(Self::Main(EndpointScope::One(name))),
            ["sse"] => Some(Self::OldStream(name)),
            ["message"] => Some(Self::OldMessage(name)),
            _ => None,
        }
    }

    pub(super) fn scope(&self) -> EndpointScope {
        match self {
            Self::Main(scope) => scope.clone(),
            Self::OldMessage(name) | Self::OldStream(name) => EndpointScope::One(Arc::clone(name)),
        }
    }
}

pub(super) fn is_old(part: &str) -> bool {
    matches!(part, "sse" | "message")
}

/// A request of an authenticated client.
pub struct McpRequest {
    pub route: McpRoute,
    pub method: Method,
    /// As the client wrote it.
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub project: Arc<Project>,
    pub program: Arc<str>,
    pub addr: IpAddr,
}

/// The body of an answer.
pub enum McpBody {
    Events(EventBody),
    Full(Bytes),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_server_and_a_transport() {
        let one = |name: &str| Some(McpRoute::Main(EndpointScope::One(name.into())));
        for (path, route) in [
            ("/mcp", Some(McpRoute::Main(EndpointScope::All))),
            ("/mcp/", Some(McpRoute::Main(EndpointScope::All))),
            ("/mcp/files", one("files")),
            ("/mcp/public/files", one("files")),
            ("/mcp/group/files", one("files")),
            ("/mcp/public", one("public")),
            ("/mcp/files/sse", Some(McpRoute::OldStream("files".into()))),
            ("/mcp/public/sse", Some(McpRoute::OldStream("public".into()))),
            ("/mcp/public/files/message", Some(McpRoute::OldMessage("files".into()))),
            ("/mcp/files/other", None),
            ("/mcpx", None),
            ("/mcp//x", None),
        ] {
            assert_eq!(McpRoute::parse(path), route, "{path}");
        }
    }
}
