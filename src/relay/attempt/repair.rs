//! Repairs a request that an upstream refused for one part of it, sends it once more, and remembers
//! what was refused.

use std::sync::Arc;

use bytes::Bytes;

use crate::relay::{
    attempt::{classify::AttemptError, parse_request, result::FailureSource, translate},
    context::RequestContext,
    record::attempt_guard::publish_notice,
};
use crate::{
    config::settings::LossPolicy,
    dialect::{
        Loss,
        repair::{BodyRepair, find_repair, repair_body},
    },
    events::{severity::Severity, status_message::notice::NoticeMessage},
    ir::{op::Op, reason::failure::FailureReason, repair::Repair},
    relay::record::refusal::Refusal,
    routing::{candidate::Target, learned::LearnedPlace},
};

/// Returns the record of a refusal after which the request is sent again.
pub(super) fn refusal(context: &RequestContext, error: &AttemptError, repair: &Repair) -> Refusal {
    let (status, message) = match &error.source {
        FailureSource::Upstream { fault, .. } => (Some(fault.status), fault.message.as_str()),
        FailureSource::Transport(_) => (None, ""),
    };
    let cause = FailureReason::text(status.map_or_else(String::new, |s| s.to_string()));
    Refusal {
        status,
        reason: FailureReason::RefusedWith {
            cause: cause.into(),
            message: message.into(),
            cooling: None,
        },
        learned: repair.clone().into(),
        at: context.engine.clock.mono(),
    }
}

/// A request that is ready to be sent again.
pub(super) struct PreparedRepair {
    pub(super) target: Arc<Target>,
    pub(super) repair: Repair,
    place: LearnedPlace,
    /// This request was the first to be repaired so.
    is_new: bool,
}

/// Prepares a second sending of a request that was refused, and that was sent when what was learned
/// had this version; `None` if the error is the answer.
pub(super) fn prepare(
    context: &mut RequestContext,
    target: &Arc<Target>,
    version: u64,
    error: &AttemptError,
) -> Option<PreparedRepair> {
    if !matches!(context.request.endpoint.op, Op::Chat | Op::Completions | Op::Embed) {
        return None;
    }
    let repair = find_repair_of(error)?;
    if repair.loses().is_some() && is_strict(context) {
        return None;
    }
    let place = place(target);
    let engine = Arc::clone(&context.engine);
    let known = engine.learned.repairs.find(&place.upstream, place.dialect, &place.model);
    if known.iter().any(|learned| learned.repair == repair) {
        // Sent repaired already, the upstream means something else; another request may have
        // learned it meanwhile, though.
        let is_new = engine.learned.repairs.version() != version;
        let target = if is_new { apply(context, target, &repair) } else { None }?;
        return Some(PreparedRepair { target, repair, place, is_new: false });
    }
    if engine.learned.repairs.is_useless(&place, &repair) {
        return None;
    }
    let sent = translated_body(context, target);
    let repaired = apply(context, target, &repair)?;
    let is_new = engine.learned.repairs.insert(place.clone(), repair.clone(), engine.clock.unix());
    if sent.is_some() && sent == translated_body(context, &repaired) {
        engine.learned.repairs.remove(&place, &repair);
        return None;
    }
    Some(PreparedRepair { target: repaired, repair, place, is_new })
}

/// Keeps what was learned if it helped: the same refusal again shows that the upstream means
/// something else.
pub(super) fn conclude(
    context: &RequestContext,
    prepared: PreparedRepair,
    error: Option<&AttemptError>,
) {
    let engine = Arc::clone(&context.engine);
    let PreparedRepair { repair, place, is_new, .. } = prepared;
    if error.and_then(find_repair_of).is_some_and(|again| again == repair) {
        return engine.learned.repairs.mark_useless(place, repair);
    }
    engine.learned.count(&place.upstream);
    if is_new {
        let LearnedPlace { upstream, model, .. } = place;
        let notice = NoticeMessage::Learned { model, upstream, repair: repair.into() };
        publish_notice(&engine, Severity::Info, notice);
        tokio::task::spawn_blocking(move || engine.learned.save(engine.clock.unix()));
    }
}

fn find_repair_of(error: &AttemptError) -> Option<Repair> {
    match &error.source {
        FailureSource::Upstream { fault, body } => {
            find_repair(fault, body.as_deref().unwrap_or_default())
        }
        FailureSource::Transport(_) => None,
    }
}

/// Returns what would be sent to a target by what is known now; `None` if the client's own bytes
/// are sent.
fn translated_body(context: &mut RequestContext, target: &Target) -> Option<Bytes> {
    if !translate::is_needed(&context.request, target) {
        return None;
    }
    let prepared = translate::build_request(context, target)?;
    Some(repair_learned(context, target, prepared.body))
}

fn place(target: &Target) -> LearnedPlace {
    LearnedPlace {
        upstream: Arc::clone(&target.upstream.name),
        dialect: target.dialect,
        model: Arc::clone(&target.model),
    }
}

/// Whether the client or the config refuses what loses something.
fn is_strict(context: &RequestContext) -> bool {
    context.request.strict || context.generation.settings.translation.losses == LossPolicy::Refuse
}

/// Applies a new repair; `None` if it changes nothing of this request.
fn apply(
    context: &mut RequestContext,
    target: &Arc<Target>,
    repair: &Repair,
) -> Option<Arc<Target>> {
    if let Repair::Endpoint { dialect } = repair {
        if *dialect == target.dialect || target.upstream.endpoint(*dialect).is_none() {
            return None;
        }
        let other = Arc::new(Target { dialect: *dialect, ..Target::clone(target) });
        return parse_for(context, &other).then_some(other);
    }
    if translate::is_needed(&context.request, target) {
        return Some(Arc::clone(target));
    }
    match repair_body(&context.request.body, target.dialect, repair) {
        BodyRepair::Changed(_) => Some(Arc::clone(target)),
        BodyRepair::Unchanged => None,
        BodyRepair::NeedsRewrite => {
            context.request.must_rewrite = true;
            if parse_for(context, target) {
                return Some(Arc::clone(target));
            }
            context.request.must_rewrite = false;
            None
        }
    }
}

fn parse_for(context: &mut RequestContext, target: &Arc<Target>) -> bool {
    parse_request::parse_for_targets(context, &mut vec![Arc::clone(target)]).is_ok()
}

/// Whether a request to this target has to be written from the common form, because of what was
/// learned of the model.
pub(in crate::relay) fn needs_rewrite(context: &RequestContext, target: &Target) -> bool {
    let place = place(target);
    let learned = context.engine.learned.repairs.find(&place.upstream, place.dialect, &place.model);
    learned.iter().any(|learned| {
        repair_body(&context.request.body, target.dialect, &learned.repair)
            == BodyRepair::NeedsRewrite
    })
}

/// Applies what was learned of the model to a body in the target's dialect, and adds what is lost.
/// Returns the body unchanged if nothing was learned.
pub(super) fn repair_learned(
    context: &mut RequestContext,
    target: &Target,
    mut body: Bytes,
) -> Bytes {
    if context.engine.learned.repairs.version() == 0 || context.request.is_multipart {
        return body;
    }
    let place = place(target);
    let strict = is_strict(context);
    for learned in context.engine.learned.repairs.find(&place.upstream, place.dialect, &place.model)
    {
        let loss = learned.repair.loses();
        if strict && loss.is_some() {
            continue;
        }
        if let BodyRepair::Changed(changed) = repair_body(&body, target.dialect, &learned.repair) {
            body = changed;
            let named = |known: &Loss| Some(&*known.0) == loss;
            if let Some(field) = loss
                && !context.losses.iter().any(named)
            {
                context.losses.push(Loss(field.to_owned().into()));
            }
        }
    }
    body
}
