//! Why a server cannot be used.

use std::sync::Arc;

use crate::mcp::{
    message::{CONNECTION_CLOSED, REQUEST_TIMEOUT, RpcError},
    wire::calls::CallFault,
};

/// Why a server cannot be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFault {
    pub message: Arc<str>,
    /// A login would help.
    pub needs_login: bool,
    /// It was asked and did not answer in time.
    pub is_timeout: bool,
}

impl StartFault {
    #[must_use]
    pub fn new(message: impl Into<Arc<str>>) -> Self {
        Self { message: message.into(), needs_login: false, is_timeout: false }
    }

    /// Describes a request of a server that failed.
    #[must_use]
    pub fn from_call(server: &str, fault: &CallFault) -> Self {
        match fault {
            CallFault::LoginNeeded => Self {
                message: format!("it asks for a login: `aiproxy mcp login {server}`").into(),
                needs_login: true,
                is_timeout: false,
            },
            CallFault::TimedOut(_) => Self { is_timeout: true, ..Self::new(fault.to_string()) },
            other => Self::new(other.to_string()),
        }
    }

    /// Returns the error for a client that wanted this server.
    #[must_use]
    pub fn to_rpc(&self, server: &str) -> RpcError {
        let code = if self.is_timeout { REQUEST_TIMEOUT } else { CONNECTION_CLOSED };
        RpcError::new(code, format!("MCP server `{server}`: {}", self.message))
    }
}
