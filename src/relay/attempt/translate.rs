//! Writes parsed requests for an upstream of another dialect, and translates the responses back.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::utf8_percent_encode;

use crate::relay::{
    attempt::{
        build_request::{MODEL_NAME_ESCAPES, PreparedRequest, apply_patch, required_header},
        encode::encode_request,
        other_ops, ownership,
    },
    context::RequestContext,
    request::{
        parsed::{self, ParsedRequest},
        proxy_request::ProxyRequest,
    },
    state::{reasoning_cache, response_store as responses},
};
use crate::{
    base::json::reader,
    config::settings::Upstream,
    dialect::{
        AnswerSummary, AttemptContext, EncodedRequest, Framing, ResponseSpec,
        event_decoder::EventDecoder, ops::EncodedOpRequest, registry,
        response_stream::ResponseStream, stored, translate::Translator,
    },
    ir::{
        assemble::{self, Assembler},
        fault::Fault,
        op::{Dialect, Op},
        request::ChatRequest,
        response::ChatResponse,
        think_tags,
        tool::Tool,
    },
    routing::candidate::Target,
    upstream::headers,
};

/// Returns whether this target's response has to be translated. That is also the case if the
/// dialect is the same but something has to change.
#[must_use]
pub(in crate::relay) fn is_needed(request: &ProxyRequest, target: &Target) -> bool {
    let upstream = &target.upstream;
    let other = target.dialect != request.endpoint.dialect
        || request.body_dialect != request.endpoint.dialect
        || request.must_rewrite;
    match request.endpoint.op {
        Op::Chat => other || upstream.think_split || upstream.stream_keepalive && !request.stream,
        Op::Completions => other,
        _ => other_ops::is_needed(request, target),
    }
}

/// Writes the request for a target; `None` if it was not parsed.
pub(in crate::relay) fn build_request(
    context: &mut RequestContext,
    target: &Target,
) -> Option<PreparedRequest> {
    let upstream: &Upstream = &target.upstream;
    let egress = registry::egress(target.dialect);
    let is_chat =
        matches!(context.parsed, Some(ParsedRequest::Chat(_) | ParsedRequest::Compact { .. }));
    let (path, query, mut body, headers, losses, carry) = if is_chat {
        let EncodedRequest { body, headers, losses, context: carry } =
            encode_request(context, target)?;
        let (path, query) = egress.chat_path(context.request.stream || upstream.stream_keepalive);
        (path, query, body, headers, losses, carry)
    } else {
        let EncodedOpRequest { path, body, losses } = other_ops::write_request(context, target)?;
        (path, "", body, Vec::new(), losses, AttemptContext::default())
    };
    if !upstream.patch.is_empty() {
        body = apply_patch(body, &upstream.patch);
    }
    let mut out = headers::cross_dialect_headers(&context.request.headers);
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            out.append(HeaderName::from_static(name), value);
        }
    }
    if let Some((name, value)) = required_header(target.dialect)
        && !out.contains_key(&name)
    {
        out.insert(name, value);
    }
    context.losses = losses;
    context.attempt_context = Some(carry);
    Some(PreparedRequest {
        path: path
            .replace("{model}", &utf8_percent_encode(&target.model, MODEL_NAME_ESCAPES).to_string())
            .into(),
        query: (!query.is_empty()).then(|| query.to_owned()),
        headers: out,
        body,
        hide_usage: false,
        // Paths with a version are not relative to the base URL, which has a version of its own.
        from_origin: path.starts_with("/v1/") || path.starts_with("/v2/"),
    })
}

/// Returns the form of the response that the client expects.
pub(in crate::relay) fn response_spec(context: &RequestContext) -> ResponseSpec {
    let conversation = match &context.parsed {
        Some(ParsedRequest::Chat(request)) => Some(request),
        Some(ParsedRequest::Compact { original: whole, .. }) => Some(&**whole),
        _ => None,
    };
    let tools = conversation.map_or(&[][..], |request| &request.tools[..]);
    let custom = tools.iter().filter_map(|tool| match tool {
        Tool::Custom(tool) => Some(tool.name.clone()),
        _ => None,
    });
    ResponseSpec {
        endpoint: parsed::chat_endpoint(&context.request),
        model: context.request.requested_model.to_string(),
        request_id: context.request.id.to_string(),
        created: context.request.at.0 / 1000,
        framing: context.request.framing,
        include_usage: context.request.include_usage,
        custom_tools: custom.collect(),
        namespaced_tools: conversation.map(ChatRequest::namespaced_tools).unwrap_or_default(),
        client_tools: conversation.map(ChatRequest::client_tools).unwrap_or_default(),
        compaction: conversation.is_some_and(ChatRequest::is_compaction),
        echo: conversation.map(|request| request.echoed_fields.clone()).unwrap_or_default(),
    }
}

/// Returns how many bytes of a streamed response are recorded: what later turns may need, and
/// everything that a Responses client may request again.
fn retention_limit(context: &RequestContext) -> usize {
    if context.request.endpoint.dialect == Dialect::Responses {
        responses::MAX_ENTRY_BYTES
    } else {
        reasoning_cache::MAX_ENTRY_BYTES
    }
}

/// Drops the parsed request once its response streams, unless it is stored with the response.
pub(in crate::relay) fn release_parsed(context: &mut RequestContext) {
    if context.request.endpoint.dialect != Dialect::Responses {
        context.parsed = None;
    }
}

/// Returns the translating stream for a response of this target.
pub(in crate::relay) fn response_stream(
    context: &RequestContext,
    target: &Target,
    framing: Framing,
) -> ResponseStream {
    let carry = context.attempt_context.clone().unwrap_or_default();
    let reader = registry::egress(target.dialect).stream_reader(&carry);
    let reading = EventDecoder::new(framing, reader, target.upstream.think_split);
    if context.is_continuation {
        return ResponseStream::Translated(Box::new(Translator::without_writer(reading)));
    }
    let mut translator = Box::new(Translator::new(
        reading,
        context.ingress.stream_writer(&response_spec(context)),
        retention_limit(context),
    ));
    if context.rescue_targets.is_some() {
        translator.start_recording();
    }
    ResponseStream::Translated(translator)
}

/// Writes a complete response as a stream, for a client that wants one.
pub(in crate::relay) fn as_stream(
    context: &RequestContext,
    target: &Target,
    response: &ChatResponse,
    ready: &mut Vec<Bytes>,
) -> ResponseStream {
    let mut stream = response_stream(context, target, Framing::Sse);
    if let ResponseStream::Translated(translator) = &mut stream {
        translator.write_complete(assemble::to_events(response), summarize(response), ready);
    }
    stream
}

/// Reads a complete response.
pub(in crate::relay) fn read_response(
    context: &RequestContext,
    target: &Target,
    content_type: &str,
    body: &[u8],
) -> Result<ChatResponse, Fault> {
    let carry = context.attempt_context.clone().unwrap_or_default();
    let mut response =
        registry::egress(target.dialect).read_response(content_type, body, &carry)?;
    if target.upstream.think_split {
        think_tags::split_response(&mut response);
    }
    Ok(response)
}

/// Reads a complete stream, for a client that wants a complete response.
pub(in crate::relay) fn from_events(
    context: &RequestContext,
    target: &Target,
    framing: Framing,
    body: &Bytes,
) -> Result<ChatResponse, Fault> {
    let carry = context.attempt_context.clone().unwrap_or_default();
    let reader = registry::egress(target.dialect).stream_reader(&carry);
    let mut reading = EventDecoder::new(framing, reader, target.upstream.think_split);
    let mut events = Vec::new();
    if let Some(fault) = reading.feed(body, &mut events).error {
        return Err(*fault);
    }
    if let Some(fault) = reading.finish(&mut events).1.error {
        return Err(*fault);
    }
    let mut assembler = Assembler::default();
    events.iter().for_each(|event| assembler.feed(event));
    assembler.finish().ok_or_else(crate::dialect::json_body::truncated_stream_fault)
}

/// Whether the answer is to stand for the conversation from then on and says nothing.
pub(in crate::relay) fn is_summary_missing(
    context: &RequestContext,
    response: &ChatResponse,
) -> bool {
    let is_asked = match &context.parsed {
        Some(ParsedRequest::Chat(request)) => request.is_compaction(),
        parsed => matches!(parsed, Some(ParsedRequest::Compact { .. })),
    };
    is_asked && stored::is_summary_missing(response)
}

/// Writes the complete response in the client's dialect.
pub(in crate::relay) fn write_response(context: &RequestContext, response: &ChatResponse) -> Bytes {
    if let Some(ParsedRequest::Compact { original: whole, .. }) = &context.parsed {
        return stored::write_compaction(whole, response, &response_spec(context));
    }
    context.ingress.write_response(response, &response_spec(context))
}

/// Stores what later turns of the conversation need of a response.
pub(in crate::relay) fn store_response(context: &RequestContext, response: &ChatResponse) {
    let project = &context.request.caller.project.name;
    let now = context.engine.clock.mono();
    context.engine.reasoning_cache.insert(project, context.turns_hash, response, now);
    if let (Some(ParsedRequest::Chat(request)), Dialect::Responses) =
        (&context.parsed, context.request.endpoint.dialect)
    {
        let body = context.ingress.write_response(response, &response_spec(context));
        context.engine.response_store.insert(
            project,
            request,
            response,
            body,
            context.engine.clock.mono(),
        );
    }
}

/// Stores which upstream has a response that passed unchanged.
pub(in crate::relay) fn remember_upstream_response(
    context: &RequestContext,
    id: Option<&str>,
    body: &Bytes,
) {
    let (Dialect::Responses, Op::Chat, None, Some((upstream, key))) = (
        context.request.endpoint.dialect,
        context.request.endpoint.op,
        &context.attempt_context,
        context.attempt_target,
    ) else {
        return;
    };
    let body_id = || Some(reader::parse(body).ok()?.get("id")?.str()?.into_owned());
    if let Some(id) = id.map(str::to_owned).or_else(body_id) {
        context.engine.response_store.record_upstream(
            &context.request.caller.project.name,
            &id,
            upstream,
            Some(key),
            context.engine.clock.mono(),
        );
        ownership::record(context, &id);
    }
}

/// Summarizes a response.
#[must_use]
pub(in crate::relay) fn summarize(response: &ChatResponse) -> AnswerSummary {
    let finish = response
        .finish
        .raw_reason
        .clone()
        .unwrap_or_else(|| format!("{:?}", response.finish.kind).to_lowercase());
    AnswerSummary {
        usage: response.usage,
        finish_reason: Some(finish),
        model: (!response.model.is_empty()).then(|| response.model.clone()),
    }
}

/// Returns the headers of a translated response. The upstream's body headers are not copied,
/// because they describe another body.
#[must_use]
pub(in crate::relay) fn response_headers(from: &HeaderMap, content_type: HeaderValue) -> HeaderMap {
    let mut out = HeaderMap::new();
    let id = HeaderName::from_static(headers::UPSTREAM_REQUEST_ID);
    if let Some(value) = from.get(&id) {
        out.insert(id, value.clone());
    }
    out.insert(header::CONTENT_TYPE, content_type);
    out
}
