//! Encodes the parsed conversation for a target, as far as its model accepts it.

use std::sync::Arc;

use crate::{
    dialect::{EncodedRequest, TargetTraits, fit},
    relay::context::RequestContext,
    routing::candidate::Target,
};

/// Returns what is known of the target.
fn target_traits(context: &RequestContext, target: &Target) -> TargetTraits {
    let upstream = &target.upstream;
    let known = context.generation.facts.look_up(upstream, target.dialect, &target.model);
    let seed = context.request.id.to_string();
    TargetTraits {
        stream: context.request.stream || upstream.stream_keepalive,
        accepts_reasoning: upstream.accepts_reasoning,
        // Usage is asked for unless the upstream is known to refuse the field.
        ask_usage: upstream.ask_usage || upstream.preset.is_none(),
        ..TargetTraits::from_facts(&target.model, Arc::clone(&known.facts), seed)
    }
}

/// Encodes the conversation in the target's dialect. The parsed request is unchanged afterwards.
pub(in crate::relay) fn encode_request(
    context: &mut RequestContext,
    target: &Target,
) -> Option<EncodedRequest> {
    let traits = target_traits(context, target);
    let request = context.parsed.as_mut()?.upstream_conversation_mut()?;
    Some(fit::encode_fitted(request, target.dialect, &traits))
}

#[cfg(test)]
mod tests;
