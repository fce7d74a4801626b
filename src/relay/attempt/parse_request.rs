//! Parses a request for the targets that need it in another dialect, and removes those that cannot
//! serve it.

use std::sync::Arc;

use crate::relay::{
    attempt::{encode::encode_request, foreign_state, other_ops, translate::is_needed},
    context::RequestContext,
    heavy_work,
    request::{body, parsed::ParsedRequest, proxy_request::ProxyRequest},
    state::{item_references, reasoning_cache},
};
use crate::{
    base::sanitize,
    config::settings::LossPolicy,
    dialect::{Loss, losses, stored},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
    },
    routing::candidate::Target,
};

/// The memory of a parsed request beyond its body, in multiples of that.
const PARSED_FACTOR: u64 = 7;
/// Smaller bodies take little whatever becomes of them.
const MIN_RESERVED_BYTES: u64 = 64 * 1024;

/// Parses the request if any target needs that and it was not parsed before. Removes targets that
/// cannot serve it; fails only if no target is left.
pub(in crate::relay) fn parse_for_targets(
    context: &mut RequestContext,
    targets: &mut Vec<Arc<Target>>,
) -> Result<(), ProxyError> {
    if context.parsed.is_some() || !targets.iter().any(|target| is_needed(&context.request, target))
    {
        return Ok(());
    }
    let to = targets
        .iter()
        .find(|target| is_needed(&context.request, target))
        .map(|target| target.dialect);
    reserve_for_parsing(context)?;
    let size = context.request.body.len();
    let parsed = heavy_work::run(size, || {
        ParsedRequest::parse(&context.request).and_then(|parsed| expand_stored(context, parsed, to))
    });
    let error = match parsed {
        Ok(parsed) => {
            context.turns_hash =
                parsed.upstream_conversation().map(reasoning_cache::turns_hash).unwrap_or_default();
            context.parsed = Some(parsed);
            let before = targets.len();
            targets.retain(|target| {
                !is_needed(&context.request, target) || other_ops::can_serve(context, target)
            });
            if targets.is_empty() && before > 0 {
                context.no_upstream_dialect = true;
            }
            let unknown_file = context.parsed.as_ref().and_then(|parsed| {
                let conversation = parsed.upstream_conversation()?;
                foreign_state::drop_targets_without_files(&context.request, conversation, targets)
            });
            let refused = match unknown_file {
                Some(error) if targets.is_empty() => Some(error),
                _ => reject_lossy(context, targets),
            };
            match refused {
                None if targets.is_empty() => unsupported_request(&context.request),
                None => return Ok(()),
                Some(error) => error,
            }
        }
        Err(error) => {
            targets.retain(|target| !is_needed(&context.request, target));
            error
        }
    };
    if targets.is_empty() { Err(error) } else { Ok(()) }
}

/// Counts what a parsed request takes of memory: several times its body.
fn reserve_for_parsing(context: &mut RequestContext) -> Result<(), ProxyError> {
    let bytes = context.request.body.len() as u64;
    let Some(limit) = context.generation.settings.server.max_buffered else { return Ok(()) };
    if bytes < MIN_RESERVED_BYTES
        || context.buffer_reservation.try_grow_or_alone(PARSED_FACTOR * bytes, limit)
    {
        return Ok(());
    }
    Err(body::buffer_full(limit))
}

fn unsupported_request(request: &ProxyRequest) -> ProxyError {
    let message = format!(
        "no upstream that serves `{}` takes this kind of {} request",
        sanitize::clean(&request.requested_model),
        request.endpoint.op
    );
    ProxyError::new(ProxyErrorKind::BadRequest, message)
}

/// Adds what the body does not contain: its endpoint, and what the proxy stores for the
/// conversation. `to` is the dialect in which the conversation is likely to continue.
fn expand_stored(
    context: &RequestContext,
    mut parsed: ParsedRequest,
    to: Option<Dialect>,
) -> Result<ParsedRequest, ProxyError> {
    let project = &context.request.caller.project.name;
    if let Some(request) = parsed.client_conversation_mut() {
        request.stream = context.request.stream;
        context.engine.response_store.expand(project, request)?;
        foreign_state::refuse_stored_fields(request)?;
        item_references::resolve(&context.engine.response_store, project, request)?;
        context.engine.reasoning_cache.restore(project, request, to, context.engine.clock.mono());
    }
    Ok(match parsed {
        ParsedRequest::Compact { original: whole, .. } => ParsedRequest::Compact {
            summary_request: Box::new(stored::compaction_request(&whole)),
            original: whole,
        },
        parsed => parsed,
    })
}

/// If losses are refused, removes the targets that would lose something; the error names the
/// losses.
fn reject_lossy(
    context: &mut RequestContext,
    targets: &mut Vec<Arc<Target>>,
) -> Option<ProxyError> {
    if !context.request.strict
        && context.generation.settings.translation.losses != LossPolicy::Refuse
    {
        return None;
    }
    let mut first_loss = None;
    targets.retain(|target| {
        let Some(encoded) =
            is_needed(&context.request, target).then(|| encode_request(context, target)).flatten()
        else {
            return true;
        };
        if !encoded.losses.is_empty() {
            first_loss.get_or_insert((target.dialect, encoded.losses));
            return false;
        }
        true
    });
    first_loss.map(|(dialect, losses)| {
        let reasons = describe_losses(dialect, &losses);
        let message = format!(
            "this request would lose {reasons} on the way to {dialect}, and losses are refused (`x-aiproxy-strict`, or `losses = \"refuse\"` under [translation])"
        );
        ProxyError::new(ProxyErrorKind::BadRequest, message).code("translation_loss")
    })
}

/// Lists the losses with their reasons, up to a limit.
fn describe_losses(dialect: Dialect, losses: &[Loss]) -> String {
    const MAX_LOSSES_SHOWN: usize = 5;
    let reason = |name: &str| {
        losses::find_row(name, dialect)
            .map(|row| format!(" ({})", row.explanation))
            .unwrap_or_default()
    };
    let mut shown: Vec<String> = losses
        .iter()
        .take(MAX_LOSSES_SHOWN)
        .map(|loss| format!("`{}`{}", loss.0, reason(&loss.0)))
        .collect();
    if losses.len() > MAX_LOSSES_SHOWN {
        shown.push(format!("and {} more", losses.len() - MAX_LOSSES_SHOWN));
    }
    shown.join(", ")
}

/// Lists the losses for a header, up to a size that every client accepts.
#[must_use]
pub(in crate::relay) fn loss_header(losses: &[Loss]) -> String {
    const MAX_HEADER_BYTES: usize = 2048;
    let mut names: Vec<&str> = losses.iter().map(|loss| &*loss.0).collect();
    names.sort_unstable();
    names.dedup();
    let mut out = String::new();
    for name in names {
        if out.len() + name.len() > MAX_HEADER_BYTES {
            out.push_str(", ...");
            break;
        }
        out.push_str(if out.is_empty() { "" } else { ", " });
        out.push_str(name);
    }
    out
}
