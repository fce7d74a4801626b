//! HTTP toward providers: bytes only, no meaning.

pub mod auth;
pub mod connect;
pub mod decode;
pub mod headers;
pub mod hints;
pub mod keys;
pub mod local;
pub mod models;
pub mod pool;
pub mod send;
pub mod side;
