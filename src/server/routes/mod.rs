//! Routes that aiproxy answers itself, next to the provider paths.

pub mod builtin;
pub mod health;
pub(crate) mod mcp;
mod model_cards;
pub(crate) mod routing_api;
pub(crate) mod sessions;
pub(crate) mod stored_responses;

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::{
    base::sanitize,
    ir::fault::{ProxyError, ProxyErrorKind},
};

/// Returns a parameter of a query, decoded; the last one counts if it is there twice.
fn query_value<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next_back()?;
    Some(percent_decode_str(value).decode_utf8_lossy())
}

pub(in crate::server) fn not_found(what: &str, name: &str, hint: &str) -> ProxyError {
    let name = sanitize::clean(name);
    ProxyError::new(
        ProxyErrorKind::UnknownPath,
        format!("no {what} is named `{}`; {hint}", sanitize::truncate_end(&name, 80)),
    )
    .code("not_found")
}
