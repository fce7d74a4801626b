//! HTTP toward providers: bytes only, no meaning.

pub mod auth;
pub mod body;
pub mod connect;
pub mod decode;
pub mod fault;
pub mod headers;
pub mod hints;
pub mod keys;
pub mod lane;
pub mod line;
pub mod local;
pub mod lookup;
pub mod models;
pub mod pool;
pub mod post;
pub mod probe;
pub mod send;
pub mod side;
pub mod tls;
pub mod uri;

pub use body::UpstreamBody;
pub use keys::ProviderKeys;
pub use send::{UpstreamClient, UpstreamRequest, UpstreamResponse};
