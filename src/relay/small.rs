//! Embeddings, reranking, counts of tokens: written for an upstream of another form, and answered
//! in the client's.

use bytes::Bytes;

use super::{ask::Ask, rounds::Job, said::Said, translated};
use crate::{
    dialect::{
        AnswerSummary,
        lists::{EncodedOpRequest, count, embed, estimate, rerank},
        tokenizer,
    },
    ir::{
        embed::EmbedForm,
        fault::{Fault, ProxyError, ProxyErrorKind},
        op::Op,
    },
    routing::candidate::Target,
};

/// Whether the target has to be asked in another form than the client's.
#[must_use]
pub(super) fn needed(ask: &Ask, target: &Target) -> bool {
    let other = target.dialect != ask.endpoint.dialect;
    match ask.endpoint.op {
        Op::Embed => {
            other || form(target) != Some(EmbedForm::Openai) && target.upstream.embed.is_some()
        }
        Op::Rerank => target.upstream.rerank.is_some(),
        Op::CountTokens | Op::Stored => other || ask.rewrite,
        _ => false,
    }
}

/// How the target's embeddings are asked for.
fn form(target: &Target) -> Option<EmbedForm> {
    target.upstream.embed.or_else(|| embed::default_form(target.dialect))
}

/// The request in the target's form; `None` where it cannot say it, or where the client's own body
/// already does.
#[must_use]
pub(super) fn write(job: &Job, target: &Target) -> Option<EncodedOpRequest> {
    match job.said.as_ref()? {
        Said::Embed(request) => {
            let form = form(target)?;
            (form != request.form)
                .then(|| embed::write_request(form, request, &target.model))
                .flatten()
        }
        Said::Rerank(request) => {
            let form = target.upstream.rerank?;
            (form != request.form).then(|| rerank::write_request(form, request, &target.model))
        }
        Said::Count(_) => {
            let encoded = translated::encode(job, target)?;
            count::write_request(target.dialect, &encoded.body, &target.model)
        }
        Said::Chat(_) | Said::Compact { .. } => None,
    }
}

/// Whether the target can be asked at all.
#[must_use]
pub(super) fn reaches(job: &Job, target: &Target) -> bool {
    match &job.said {
        Some(Said::Embed(request)) => {
            form(target) == Some(request.form) || write(job, target).is_some()
        }
        Some(Said::Count(_)) => write(job, target).is_some(),
        _ => true,
    }
}

/// Reads the target's answer and tells it in the client's form.
pub(super) fn answer(
    job: &Job,
    content_type: &str,
    body: &[u8],
) -> Result<(Bytes, AnswerSummary), Fault> {
    let asked = &*job.ask.asked;
    match &job.said {
        Some(Said::Embed(request)) => {
            let response = embed::read_response(content_type, body)?;
            let summary = AnswerSummary { usage: response.usage, ..AnswerSummary::default() };
            Ok((embed::write_response(&response, request, asked), summary))
        }
        Some(Said::Rerank(request)) => {
            let response = rerank::read_response(content_type, body)?;
            let summary = AnswerSummary { usage: response.usage, ..AnswerSummary::default() };
            Ok((rerank::write_response(&response, request, asked), summary))
        }
        _ => Ok((
            count::write_response(
                job.ask.endpoint.dialect,
                count::read_response(content_type, body)?,
            ),
            AnswerSummary::default(),
        )),
    }
}

/// Our own count, where no upstream could be asked: rather too high, so that clients cut a
/// conversation too early rather than too late.
pub(super) async fn counted(job: &mut Job) -> Result<Bytes, ProxyError> {
    let said = match job.said.take() {
        Some(said) => said,
        None => Said::read(&job.ask)?,
    };
    let dialect = job.ask.endpoint.dialect;
    // Long texts take a while, and the vocabulary is unpacked first.
    let counted = tokio::task::spawn_blocking(move || {
        said.conversation()
            .map_or(0, |request| estimate::estimate_tokens(request, &tokenizer::count_tokens))
    });
    let tokens = counted.await.map_err(|_| {
        ProxyError::new(
            ProxyErrorKind::Internal,
            "the tokens could not be counted; please report this",
        )
    })?;
    Ok(count::write_response(dialect, tokens))
}
