//! Routes that aiproxy answers itself, next to the provider paths.

pub mod builtin;
pub mod health;
mod model_cards;
pub(crate) mod routing_api;
pub(crate) mod sessions;
pub(crate) mod stored_responses;

use crate::{
    base::sanitize,
    ir::fault::{ProxyError, ProxyErrorKind},
};

pub(in crate::server) fn not_found(what: &str, name: &str, hint: &str) -> ProxyError {
    let name = sanitize::clean(name);
    ProxyError::new(
        ProxyErrorKind::UnknownPath,
        format!("no {what} is named `{}`; {hint}", sanitize::truncate_end(&name, 80)),
    )
    .code("not_found")
}
