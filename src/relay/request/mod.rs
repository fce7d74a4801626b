//! Reads one request: its bytes, the fields a proxy needs, and its routing preferences.

pub(in crate::relay) mod body;
pub mod control_headers;
pub mod conversation_key;
mod fields;
pub mod multipart;
pub mod parsed;
pub mod preferences;
pub mod proxy_request;
pub mod read;
pub mod replay;
