//! Translates the small operations, which need no ingress or egress traits: embeddings, reranking
//! and token counts.

pub mod count;
pub mod embed;
mod embed_fields;
pub mod embed_response;
pub mod estimate;
mod media_size;
pub mod rerank;

use bytes::Bytes;

use crate::{
    base::json::reader::{self, JsonRef},
    dialect::losses::Loss,
    ir::{
        extras::Extras,
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
    },
};

/// A request in an upstream's form.
#[derive(Clone, Debug)]
pub struct EncodedOpRequest {
    /// Relative to the base URL; `{model}` marks where the path contains the model's name.
    pub path: &'static str,
    pub body: Bytes,
    pub losses: Vec<Loss>,
}

fn bad_request(message: impl Into<String>) -> ProxyError {
    ProxyError::new(ProxyErrorKind::BadRequest, message)
}

fn parse_object(body: &[u8]) -> Result<JsonRef<'_>, ProxyError> {
    let root = reader::parse(body)
        .map_err(|bad| bad_request(format!("invalid JSON: {}", bad.describe(body))))?;
    if root.is_object() {
        Ok(root)
    } else {
        Err(bad_request(format!("expected an object, got {}", root.kind())))
    }
}

fn add_loss(losses: &mut Vec<Loss>, lost: bool, name: &'static str) {
    if lost {
        losses.push(Loss(name.into()));
    }
}

fn add_extra_losses(losses: &mut Vec<Loss>, extras: &Extras, dialect: Dialect) {
    losses.extend(extras.iter_foreign_to(dialect).map(|(key, _)| Loss(key.to_owned().into())));
}
