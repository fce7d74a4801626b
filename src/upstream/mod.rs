//! Sends HTTP requests to providers: moves bytes and does not interpret them.

pub mod auth;
pub mod aux_client;
pub mod body;
pub mod client;
pub mod connect;
mod connect_fault;
pub mod decode;
pub mod dns;
pub mod fault;
pub mod headers;
pub mod in_process;
pub mod keys;
pub mod local_probe;
pub mod models;
mod pinned;
pub mod plain_pool;
pub mod pool;
pub mod retry_headers;
pub mod tls;
pub mod tracked_io;
pub mod uri;
pub mod web_client;
pub mod webhook_client;
mod zstd;

pub use crate::upstream::client::{UpstreamClient, UpstreamRequest, UpstreamResponse};
pub use body::UpstreamBody;
pub use keys::ProviderKeys;
