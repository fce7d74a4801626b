//! Builds local answers when no upstream of the client's dialect can answer: a model card, a token
//! count.

use std::sync::Arc;

use bytes::Bytes;

use crate::relay::{
    attempt::{other_ops, translate},
    context::RequestContext,
    request::parsed::{COMPACT_PATH, INPUT_TOKENS_PATH},
};
use crate::{
    base::{clock::UnixMillis, json::writer},
    dialect::ollama::preload,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        model_facts::Modality,
        op::{Dialect, Op},
    },
    routing::{candidate::Target, name_resolver::OnUnknownList, resolve},
};

/// Whether the upstream's dialect has no such endpoint there.
fn is_endpoint_missing(error: &ProxyError) -> bool {
    error.kind == ProxyErrorKind::UpstreamError && matches!(error.status, Some(404 | 405 | 501))
}

/// Whether a conversation that an upstream of the client's dialect could not compact can be
/// compacted as for upstreams of other dialects: by asking the model for a summary.
pub(in crate::relay) fn can_be_translated(context: &RequestContext, error: &ProxyError) -> bool {
    let request = &context.request;
    request.endpoint.op == Op::Stored
        && request.endpoint.path == COMPACT_PATH
        && !request.must_rewrite
        && is_endpoint_missing(error)
}

/// Returns a local answer instead of the error, if there is one.
pub(in crate::relay) async fn fallback(
    context: &mut RequestContext,
    error: ProxyError,
) -> Result<Bytes, ProxyError> {
    let unspoken = context.no_upstream_dialect || is_endpoint_missing(&error);
    match context.request.endpoint.op {
        Op::ModelCard if unspoken => model_card(context).ok_or(error),
        Op::CountTokens if unspoken => other_ops::estimate_tokens(context).await,
        Op::Stored if unspoken && context.request.endpoint.path == INPUT_TOKENS_PATH => {
            other_ops::estimate_tokens(context).await
        }
        _ => Err(error),
    }
}

/// Returns the answer to an Ollama client that only loads or unloads a model, if an upstream of
/// another dialect serves the model. Nothing is sent.
pub(in crate::relay) fn preload_response(context: &RequestContext) -> Option<Bytes> {
    if context.request.endpoint.dialect != Dialect::Ollama
        || context.request.endpoint.op != Op::Chat
    {
        return None;
    }
    let answer = preload::preload_response(
        Dialect::Ollama,
        &translate::response_spec(context),
        &context.request.body,
    )?;
    let away = |target: &Arc<Target>| target.dialect != Dialect::Ollama;
    resolve_targets(context).filter(|targets| targets.iter().all(away)).map(|_| answer)
}

/// Returns the targets that serve the model, in any dialect.
fn resolve_targets(context: &RequestContext) -> Option<Vec<Arc<Target>>> {
    let learned = context.engine.model_lists.learned();
    let resolved = resolve::resolve(
        &context.generation.catalog,
        &context.request.requested_model,
        context.request.endpoint.dialect,
        true,
        &context.request.caller.project,
        &|id| learned.get(&id).cloned(),
        OnUnknownList::Assume,
    );
    Some(resolved.ok()?.targets)
}

/// Writes a model's card as Ollama does (`POST /api/show`).
fn model_card(context: &RequestContext) -> Option<Bytes> {
    if context.request.endpoint.dialect != Dialect::Ollama {
        return None;
    }
    let target = resolve_targets(context)?.into_iter().next()?;
    let model = Arc::clone(&target.model);
    let announced = context.generation.facts.announce(&target.upstream, target.dialect, &model);
    let facts = &announced.known.facts;
    let text = writer::object(|o| {
        o.str("modelfile", "").str("parameters", "").str("template", "");
        o.object("details", |d| {
            d.str("parent_model", "")
                .str("format", "")
                .str("family", "aiproxy")
                .str("parameter_size", "")
                .str("quantization_level", "");
            d.array("families", |_| {});
        });
        o.object("model_info", |info| {
            info.str("general.architecture", "aiproxy").str("general.basename", &model);
            if let Some(context) = facts.context {
                info.num("aiproxy.context_length", context);
            }
        });
        o.array("capabilities", |list| {
            list.str("completion");
            // Clients act on what is listed, so only known capabilities are. Editors offer no model
            // without tools, so an unknown one has them.
            if facts.tools != Some(false) {
                list.str("tools");
            }
            if facts.reads(Modality::Image) == Some(true) {
                list.str("vision");
            }
            if announced.thinks {
                list.str("thinking");
            }
        });
        o.str("modified_at", &UnixMillis(0).to_string());
    });
    Some(text.into())
}
