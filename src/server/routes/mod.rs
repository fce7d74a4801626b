//! Routes that aiproxy answers itself, next to the provider paths.

pub mod builtin;
pub(crate) mod routing_api;
pub(crate) mod sessions;
pub(crate) mod stored_responses;
