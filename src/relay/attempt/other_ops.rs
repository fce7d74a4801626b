//! Translates embeddings, reranking and token counts to an upstream's form, and the responses back
//! to the client's.

use bytes::Bytes;

use crate::relay::{
    attempt::encode,
    context::RequestContext,
    request::{parsed::ParsedRequest, proxy_request::ProxyRequest},
};
use crate::{
    dialect::{
        AnswerSummary,
        ops::{EncodedOpRequest, count, embed, embed_response, estimate, rerank},
        tokenizer,
    },
    ir::{
        embed::EmbedForm,
        fault::{Fault, ProxyError, ProxyErrorKind},
        op::Op,
    },
    routing::candidate::Target,
};

/// Returns whether the target needs another form than the client's.
#[must_use]
pub(in crate::relay) fn is_needed(request: &ProxyRequest, target: &Target) -> bool {
    let other = target.dialect != request.endpoint.dialect;
    match request.endpoint.op {
        Op::Embed => {
            other
                || embed_form(target) != Some(EmbedForm::Openai) && target.upstream.embed.is_some()
        }
        Op::Rerank => target.upstream.rerank.is_some(),
        Op::CountTokens | Op::Stored => other || request.must_rewrite,
        _ => false,
    }
}

/// Returns the form of the target's embedding requests.
fn embed_form(target: &Target) -> Option<EmbedForm> {
    target.upstream.embed.or_else(|| embed::default_form(target.dialect))
}

/// Writes the request in the target's form; `None` if that form cannot express it, or if the
/// client's own body already has that form.
#[must_use]
pub(in crate::relay) fn write_request(
    context: &mut RequestContext,
    target: &Target,
) -> Option<EncodedOpRequest> {
    match context.parsed.as_ref()? {
        ParsedRequest::Embed(request) => {
            let form = embed_form(target)?;
            (form != request.form)
                .then(|| embed::write_request(form, request, &target.model))
                .flatten()
        }
        ParsedRequest::Rerank(request) => {
            let form = target.upstream.rerank?;
            (form != request.form).then(|| rerank::write_request(form, request, &target.model))
        }
        ParsedRequest::Count(_) => {
            let encoded = encode::encode_request(context, target)?;
            count::write_request(target.dialect, &encoded.body, &target.model)
        }
        ParsedRequest::Chat(_) | ParsedRequest::Compact { .. } => None,
    }
}

/// Returns whether the target can serve the request at all.
#[must_use]
pub(in crate::relay) fn can_serve(context: &mut RequestContext, target: &Target) -> bool {
    match &context.parsed {
        Some(ParsedRequest::Embed(request)) if embed_form(target) == Some(request.form) => true,
        Some(ParsedRequest::Embed(_)) => write_request(context, target).is_some(),
        Some(ParsedRequest::Count(_)) => write_request(context, target).is_some(),
        _ => true,
    }
}

/// Reads the target's response and writes it in the client's form.
pub(in crate::relay) fn translate_response(
    context: &RequestContext,
    content_type: &str,
    body: &[u8],
) -> Result<(Bytes, AnswerSummary), Fault> {
    let model = &*context.request.requested_model;
    match &context.parsed {
        Some(ParsedRequest::Embed(request)) => {
            let response = embed_response::read_response(content_type, body)?;
            let summary = AnswerSummary { usage: response.usage, ..AnswerSummary::default() };
            Ok((embed_response::write_response(&response, request, model), summary))
        }
        Some(ParsedRequest::Rerank(request)) => {
            let response = rerank::read_response(content_type, body)?;
            let summary = AnswerSummary { usage: response.usage, ..AnswerSummary::default() };
            Ok((rerank::write_response(&response, request, model), summary))
        }
        _ => Ok((
            count::write_response(
                context.request.endpoint.dialect,
                count::read_response(content_type, body)?,
            ),
            AnswerSummary::default(),
        )),
    }
}

/// Estimates the tokens locally when no upstream can count them. The estimate is rather too high,
/// so that clients truncate a conversation too early rather than too late.
pub(in crate::relay) async fn estimate_tokens(
    context: &mut RequestContext,
) -> Result<Bytes, ProxyError> {
    let parsed = match context.parsed.take() {
        Some(parsed) => parsed,
        None => ParsedRequest::parse(&context.request)?,
    };
    let dialect = context.request.endpoint.dialect;
    // Runs on a blocking thread: long texts take a while, and the vocabulary has to be unpacked
    // first.
    let counted = tokio::task::spawn_blocking(move || {
        parsed
            .upstream_conversation()
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
