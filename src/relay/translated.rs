//! Requests whose upstream speaks another dialect than their client: read once, written for each
//! target, answered anew.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::utf8_percent_encode;

use super::{
    ask::Ask,
    continuity,
    prepare::{MODEL, Prepared, patched, required},
    rounds::Job,
    said::{self, Said},
    small, stored as responses,
};
use crate::{
    base::{clean, json},
    config::{
        facts::{self, ReasoningStyle},
        settings::{LossPolicy, Upstream},
    },
    dialect::{
        AnswerSummary, AttemptContext, EncodedRequest, Loss, ResponseSpec, TargetTraits, Thinking,
        flow::ResponseStream,
        lists::EncodedOpRequest,
        losses, registry, stored,
        translate::{EventDecoder, Translator},
    },
    ir::{
        assemble::{self, Assembler},
        fault::{Fault, ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
        response::ChatResponse,
        think,
        tool::Tool,
    },
    routing::candidate::Target,
    upstream::headers,
};

/// Whether this target's answer has to be translated; also where the dialect is the same, but
/// something is to be changed.
#[must_use]
pub(super) fn needed(ask: &Ask, target: &Target) -> bool {
    let upstream = &target.upstream;
    let other = target.dialect != ask.endpoint.dialect
        || ask.read_as != ask.endpoint.dialect
        || ask.rewrite;
    match ask.endpoint.op {
        Op::Chat => other || upstream.think_split || upstream.stream_keepalive && !ask.stream,
        Op::Completions => other,
        _ => small::needed(ask, target),
    }
}

/// Reads the request, if any of the targets needs that and it was not read before. Targets that
/// cannot be asked are left out; an error only where no target is left.
pub(super) fn read(job: &mut Job, targets: &mut Vec<Arc<Target>>) -> Result<(), ProxyError> {
    if job.said.is_some() || !targets.iter().any(|target| needed(&job.ask, target)) {
        return Ok(());
    }
    let to = targets.iter().find(|target| needed(&job.ask, target)).map(|target| target.dialect);
    let error = match Said::read(&job.ask).and_then(|said| complete(job, said, to)) {
        Ok(said) => {
            job.said = Some(said);
            let before = targets.len();
            targets.retain(|target| !needed(&job.ask, target) || small::reaches(job, target));
            if targets.is_empty() && before > 0 {
                job.unspoken = true;
            }
            match refused(job, targets) {
                None if targets.is_empty() => unreachable_in(&job.ask),
                None => return Ok(()),
                Some(error) => error,
            }
        }
        Err(error) => {
            targets.retain(|target| !needed(&job.ask, target));
            error
        }
    };
    if targets.is_empty() { Err(error) } else { Ok(()) }
}

fn unreachable_in(ask: &Ask) -> ProxyError {
    let message = format!(
        "no upstream that serves `{}` takes this kind of {} request",
        clean::clean(&ask.asked),
        ask.endpoint.op
    );
    ProxyError::new(ProxyErrorKind::BadRequest, message)
}

/// What the body does not say: where it was asked, and what the proxy keeps for the conversation,
/// which is likely to go on in dialect `to`.
fn complete(job: &Job, mut said: Said, to: Option<Dialect>) -> Result<Said, ProxyError> {
    let project = &job.ask.caller.project.name;
    if let Some(request) = said.asked() {
        request.stream = job.ask.stream;
        job.engine.stored.expand(project, request)?;
        job.engine.continuity.restore(project, request, to, job.engine.clock.mono());
    }
    Ok(match said {
        Said::Compact { whole, .. } => {
            Said::Compact { ask: Box::new(stored::compaction_request(&whole)), whole }
        }
        said => said,
    })
}

/// With losses refused, leaves out the targets that would lose something; the error names it.
fn refused(job: &Job, targets: &mut Vec<Arc<Target>>) -> Option<ProxyError> {
    if !job.ask.strict && job.generation.settings.losses != LossPolicy::Refuse {
        return None;
    }
    let mut lost = None;
    targets.retain(|target| {
        let Some(encoded) = needed(&job.ask, target).then(|| encode(job, target)).flatten() else {
            return true;
        };
        if !encoded.losses.is_empty() {
            lost.get_or_insert((target.dialect, encoded.losses));
            return false;
        }
        true
    });
    lost.map(|(dialect, losses)| {
        let reasons = reasons(dialect, &losses);
        let message = format!(
            "this request would lose {reasons} on the way to {dialect}, and losses are refused (`x-aiproxy-strict`, or `losses = \"refuse\"` under [translation])"
        );
        ProxyError::new(ProxyErrorKind::BadRequest, message).code("translation_loss")
    })
}

/// The losses with their reasons; a few speak for all.
fn reasons(dialect: Dialect, lost: &[Loss]) -> String {
    const TOLD: usize = 5;
    let why = |name: &str| {
        losses::find_row(name, dialect)
            .map(|row| format!(" ({})", row.explanation))
            .unwrap_or_default()
    };
    let mut told: Vec<String> =
        lost.iter().take(TOLD).map(|loss| format!("`{}`{}", loss.0, why(&loss.0))).collect();
    if lost.len() > TOLD {
        told.push(format!("and {} more", lost.len() - TOLD));
    }
    told.join(", ")
}

/// What is known of the target.
fn traits(job: &Job, target: &Target) -> TargetTraits {
    let facts = facts::facts_of(&target.model);
    TargetTraits {
        model: target.model.to_string(),
        stream: job.ask.stream || target.upstream.stream_keepalive,
        max_output: facts.max_output,
        thinking: match facts.thinking {
            Some(ReasoningStyle::Budget) => Thinking::Budget,
            Some(ReasoningStyle::Effort) | None => Thinking::Effort,
            Some(ReasoningStyle::Never) => Thinking::Unsupported,
        },
        max_tokens_field: if facts.limit_field.as_deref() == Some("max_completion_tokens") {
            "max_completion_tokens"
        } else {
            "max_tokens"
        },
        developer_role: facts.developer == Some(true),
        accepts_reasoning: target.upstream.accepts_reasoning,
        call_id_seed: job.ask.id.to_string(),
    }
}

/// The conversation in the target's dialect.
pub(super) fn encode(job: &Job, target: &Target) -> Option<EncodedRequest> {
    let request = job.said.as_ref()?.conversation()?;
    Some(registry::egress(target.dialect).write_request(request, &traits(job, target)))
}

/// Writes the request for a target; `None` where it was not read.
pub(super) fn prepare(job: &mut Job, target: &Target) -> Option<Prepared> {
    let upstream: &Upstream = &target.upstream;
    let egress = registry::egress(target.dialect);
    let (path, query, mut body, headers, losses, carry) = match &job.said {
        Some(Said::Chat(_) | Said::Compact { .. }) => {
            let EncodedRequest { body, headers, losses, context: carry } = encode(job, target)?;
            let (path, query) = egress.chat_path(job.ask.stream || upstream.stream_keepalive);
            (path, query, body, headers, losses, carry)
        }
        _ => {
            let EncodedOpRequest { path, body, losses } = small::write(job, target)?;
            (path, "", body, Vec::new(), losses, AttemptContext::default())
        }
    };
    if !upstream.patch.is_empty() {
        body = patched(body, &upstream.patch);
    }
    let mut out = headers::cross_dialect_headers(&job.ask.headers);
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            out.append(HeaderName::from_static(name), value);
        }
    }
    if let Some((name, value)) = required(target.dialect)
        && !out.contains_key(&name)
    {
        out.insert(name, value);
    }
    job.losses = losses;
    job.carry = Some(carry);
    Some(Prepared {
        path: path.replace("{model}", &utf8_percent_encode(&target.model, MODEL).to_string()),
        query: (!query.is_empty()).then(|| query.to_owned()),
        headers: out,
        body,
        hide_usage: false,
        // Forms that name their version stand beside the base URL, which has one of its own.
        at_host: path.starts_with("/v1/") || path.starts_with("/v2/"),
    })
}

/// How the client must be answered.
pub(super) fn shape(job: &Job) -> ResponseSpec {
    let asked = match &job.said {
        Some(Said::Chat(request)) => Some(request),
        Some(Said::Compact { whole, .. }) => Some(&**whole),
        _ => None,
    };
    let tools = asked.map_or(&[][..], |request| &request.tools[..]);
    let custom = tools.iter().filter_map(|tool| match tool {
        Tool::Custom(tool) => Some(tool.name.clone()),
        _ => None,
    });
    let namespaced = tools.iter().filter_map(|tool| match tool {
        Tool::Function(tool) => {
            let space = tool.namespace.clone()?;
            let inner =
                tool.name.strip_prefix(&format!("{space}__")).unwrap_or(&tool.name).to_owned();
            Some((tool.name.clone(), space, inner))
        }
        _ => None,
    });
    ResponseSpec {
        endpoint: said::place(&job.ask),
        model: job.ask.asked.to_string(),
        request_id: job.ask.id.to_string(),
        created: job.ask.at.0 / 1000,
        framing: job.ask.framing,
        include_usage: job.ask.include_usage,
        custom_tools: custom.collect(),
        namespaced_tools: namespaced.collect(),
        echo: asked.map(|request| request.echoed_fields.clone()).unwrap_or_default(),
    }
}

/// How much of an answer is kept beside its stream: what later turns may need, and all that a
/// Responses client may ask for again.
fn room(job: &Job) -> usize {
    if job.ask.endpoint.dialect == Dialect::Responses {
        responses::LARGEST
    } else {
        continuity::LARGEST
    }
}

/// What was read of a request is of use no longer, once its answer flows; unless the answer is kept
/// with it.
pub(super) fn let_go(job: &mut Job) {
    if job.ask.endpoint.dialect != Dialect::Responses {
        job.said = None;
    }
}

/// The way of a streamed answer of this target.
pub(super) fn flow(job: &Job, target: &Target, framing: crate::dialect::Framing) -> ResponseStream {
    let carry = job.carry.clone().unwrap_or_default();
    let reader = registry::egress(target.dialect).stream_reader(&carry);
    let reading = EventDecoder::new(framing, reader, target.upstream.think_split);
    if job.continues {
        return ResponseStream::Translated(Box::new(Translator::without_writer(reading)));
    }
    let mut translator =
        Box::new(Translator::new(reading, job.ingress.stream_writer(&shape(job)), room(job)));
    if job.spares.is_some() {
        translator.start_recording();
    }
    ResponseStream::Translated(translator)
}

/// An answer that came whole, for a client that wants a stream.
pub(super) fn told(
    job: &Job,
    target: &Target,
    response: &ChatResponse,
    ready: &mut Vec<Bytes>,
) -> ResponseStream {
    let mut flow = flow(job, target, crate::dialect::Framing::Sse);
    if let ResponseStream::Translated(translator) = &mut flow {
        translator.write_complete(assemble::to_events(response), summary(response), ready);
    }
    flow
}

/// Reads a whole answer.
pub(super) fn response(
    job: &Job,
    target: &Target,
    content_type: &str,
    body: &[u8],
) -> Result<ChatResponse, Fault> {
    let carry = job.carry.clone().unwrap_or_default();
    let mut response =
        registry::egress(target.dialect).read_response(content_type, body, &carry)?;
    if target.upstream.think_split {
        think::split_response(&mut response);
    }
    Ok(response)
}

/// Reads a stream that is complete, for a client that wants a whole answer.
pub(super) fn gathered(
    job: &Job,
    target: &Target,
    framing: crate::dialect::Framing,
    body: &Bytes,
) -> Result<ChatResponse, Fault> {
    let carry = job.carry.clone().unwrap_or_default();
    let reader = registry::egress(target.dialect).stream_reader(&carry);
    let mut reading = EventDecoder::new(framing, reader, target.upstream.think_split);
    let mut said = Vec::new();
    if let Some(fault) = reading.feed(body, &mut said).error {
        return Err(*fault);
    }
    if let Some(fault) = reading.finish(&mut said).1.error {
        return Err(*fault);
    }
    let mut assembler = Assembler::default();
    said.iter().for_each(|event| assembler.feed(event));
    assembler.finish().ok_or_else(crate::dialect::truncated_stream_fault)
}

/// The whole answer in the client's dialect.
pub(super) fn written(job: &Job, response: &ChatResponse) -> Bytes {
    if let Some(Said::Compact { whole, .. }) = &job.said {
        return stored::write_compaction(whole, response, &shape(job));
    }
    job.ingress.write_response(response, &shape(job))
}

/// Keeps of an answer what later turns of the conversation need.
pub(super) fn remember(job: &Job, response: &ChatResponse) {
    let project = &job.ask.caller.project.name;
    job.engine.continuity.keep(project, response, job.engine.clock.mono());
    if let (Some(Said::Chat(request)), Dialect::Responses) = (&job.said, job.ask.endpoint.dialect) {
        let body = job.ingress.write_response(response, &shape(job));
        job.engine.stored.keep(project, request, response, body, job.engine.clock.mono());
    }
}

/// Remembers which upstream holds a response that passed as it was.
pub(super) fn learn(job: &Job, id: Option<&str>, body: &Bytes) {
    let (Dialect::Responses, Op::Chat, None, Some((upstream, key))) =
        (job.ask.endpoint.dialect, job.ask.endpoint.op, &job.carry, job.chosen)
    else {
        return;
    };
    let said = || Some(json::parse(body).ok()?.get("id")?.str()?.into_owned());
    if let Some(id) = id.map(str::to_owned).or_else(said) {
        job.engine.stored.learn(
            &job.ask.caller.project.name,
            &id,
            upstream,
            Some(key),
            job.engine.clock.mono(),
        );
    }
}

/// What an answer added up to.
#[must_use]
pub(super) fn summary(response: &ChatResponse) -> AnswerSummary {
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

/// The headers of a translated answer: what the upstream's say is about another body.
#[must_use]
pub(super) fn headers(from: &HeaderMap, content_type: HeaderValue) -> HeaderMap {
    let mut out = HeaderMap::new();
    let id = HeaderName::from_static(headers::UPSTREAM_REQUEST_ID);
    if let Some(value) = from.get(&id) {
        out.insert(id, value.clone());
    }
    out.insert(header::CONTENT_TYPE, content_type);
    out
}

/// The losses as a header tells them: all that fit into what every client takes.
#[must_use]
pub(super) fn names(losses: &[Loss]) -> String {
    const LONGEST: usize = 2048;
    let mut names: Vec<&str> = losses.iter().map(|loss| &*loss.0).collect();
    names.sort_unstable();
    names.dedup();
    let mut out = String::new();
    for name in names {
        if out.len() + name.len() > LONGEST {
            out.push_str(", ...");
            break;
        }
        out.push_str(if out.is_empty() { "" } else { ", " });
        out.push_str(name);
    }
    out
}
