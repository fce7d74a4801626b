//! The revisions of the protocol, and what each of them calls things.

use crate::{base::json::raw::RawJson, mcp::message::with_members};

/// The revision without a handshake.
pub const STATELESS: &str = "2026-07-28";
/// The revisions with a handshake, oldest first.
pub const HANDSHAKE: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// The newest revision with a handshake.
pub const NEWEST_HANDSHAKE: &str = HANDSHAKE[3];

pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
pub const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
pub const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";
/// The extension for long-running calls.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// The revision that one side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    /// With a session that begins with `initialize`.
    Handshake(&'static str),
    /// Each request stands for itself.
    Stateless,
}

impl Revision {
    #[must_use]
    pub fn is_stateless(self) -> bool {
        self == Self::Stateless
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake(name) => name,
            Self::Stateless => STATELESS,
        }
    }
}

/// Returns the handshake revision of this name.
#[must_use]
pub fn handshake(name: &str) -> Option<&'static str> {
    HANDSHAKE.into_iter().find(|known| *known == name)
}

/// Whether a method returns a list or a content that stateless clients may cache.
fn is_cacheable(method: &str) -> bool {
    method.ends_with("/list") || matches!(method, "resources/read" | "server/discover")
}

/// Gives a result the form that a client of this revision expects.
#[must_use]
pub fn fit_result(result: &RawJson, method: &str, client: Revision) -> RawJson {
    let json = result.json();
    if client.is_stateless() {
        let kind =
            json.get("resultType").map_or_else(|| RawJson::string("complete"), RawJson::from_json);
        if !is_cacheable(method) {
            if json.get("resultType").is_some() {
                return result.clone();
            }
            return with_members(Some(result), &[("resultType", Some(&kind))]);
        }
        let ttl = json.get("ttlMs").map_or_else(|| RawJson::from(0), RawJson::from_json);
        // What one project may see is nothing that a shared cache should keep.
        let scope = RawJson::string("private");
        return with_members(
            Some(result),
            &[("resultType", Some(&kind)), ("ttlMs", Some(&ttl)), ("cacheScope", Some(&scope))],
        );
    }
    if ["resultType", "ttlMs", "cacheScope"].into_iter().any(|name| json.get(name).is_some()) {
        return with_members(
            Some(result),
            &[("resultType", None), ("ttlMs", None), ("cacheScope", None)],
        );
    }
    result.clone()
}
