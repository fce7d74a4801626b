//! Where calls of tools are recorded.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;

use crate::base::json::raw::RawJson;

/// A call of a tool at its start.
pub struct CallStart {
    pub project: Arc<str>,
    /// The first word of the client's User-Agent.
    pub client: Arc<str>,
    pub addr: Option<IpAddr>,
    pub server: Arc<str>,
    /// The server's own name of it.
    pub tool: String,
    pub arguments: Bytes,
    /// Dollars.
    pub price: f64,
}

/// How a call ended.
pub enum CallOutcome {
    /// The server's result, which may say that the tool failed.
    Answered(RawJson),
    /// An error of the server or of the way to it.
    Failed(String),
}

/// A running call. If it is dropped without an end, the client has left.
pub trait LoggedCall: Send {
    fn end(self: Box<Self>, outcome: CallOutcome);
}

/// Records calls.
pub trait CallLog: Send + Sync {
    fn begin(&self, start: CallStart) -> Box<dyn LoggedCall>;
}
