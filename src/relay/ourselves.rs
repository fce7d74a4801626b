//! What we answer ourselves where no upstream of the client's dialect can: a model's card, a count
//! of tokens.

use std::sync::Arc;

use bytes::Bytes;

use super::{rounds::Job, small, translated};
use crate::{
    base::{clock::UnixMillis, write},
    config::facts::{self, ReasoningStyle},
    dialect::preload,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
    },
    routing::{
        candidate::Target,
        names::{self, OnUnknownList},
    },
};

/// What a card tells where the model's window is unknown; clients cut conversations by it.
const WINDOW: u64 = 128_000;

/// An answer instead of the error, where we have one.
pub(super) async fn instead(job: &mut Job, error: ProxyError) -> Result<Bytes, ProxyError> {
    let unspoken = job.unspoken
        || error.kind == ProxyErrorKind::UpstreamError
            && matches!(error.status, Some(404 | 405 | 501));
    match job.ask.endpoint.op {
        Op::ModelCard if unspoken => card(job).ok_or(error),
        Op::CountTokens if unspoken => small::counted(job).await,
        Op::Stored if job.unspoken && job.ask.endpoint.path == "/responses/input_tokens" => {
            small::counted(job).await
        }
        _ => Err(error),
    }
}

/// The answer to an Ollama client that only loads or unloads a model, where that model is
/// elsewhere: nothing is to be done.
pub(super) fn loaded(job: &Job) -> Option<Bytes> {
    if job.ask.endpoint.dialect != Dialect::Ollama || job.ask.endpoint.op != Op::Chat {
        return None;
    }
    let answer =
        preload::preload_response(Dialect::Ollama, &translated::shape(job), &job.ask.body)?;
    let away = |target: &Arc<Target>| target.dialect != Dialect::Ollama;
    targets(job).filter(|targets| targets.iter().all(away)).map(|_| answer)
}

/// Who serves the model, whatever they speak.
fn targets(job: &Job) -> Option<Vec<Arc<Target>>> {
    let learned = job.engine.lists.learned();
    let resolved = names::resolve(
        &job.generation.catalog,
        &job.ask.asked,
        job.ask.endpoint.dialect,
        true,
        &job.ask.caller.project,
        &|id| learned.get(&id).cloned(),
        OnUnknownList::Assume,
    );
    Some(resolved.ok()?.targets)
}

/// A model's card as Ollama shows it (`POST /api/show`).
fn card(job: &Job) -> Option<Bytes> {
    if job.ask.endpoint.dialect != Dialect::Ollama {
        return None;
    }
    let model = Arc::clone(&targets(job)?.first()?.model);
    let facts = facts::facts_of(&model);
    let text = write::object(|o| {
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
            info.num("aiproxy.context_length", facts.context.unwrap_or(WINDOW));
        });
        o.array("capabilities", |list| {
            list.str("completion");
            if facts.tools != Some(false) {
                list.str("tools");
            }
            if facts.vision != Some(false) {
                list.str("vision");
            }
            if !matches!(facts.thinking, Some(ReasoningStyle::Never)) {
                list.str("thinking");
            }
        });
        o.str("modified_at", &UnixMillis(0).to_string());
    });
    Some(text.into())
}
