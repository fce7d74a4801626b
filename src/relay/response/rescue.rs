//! Continues a stream that broke off after content: asks another target to continue from the
//! partial text.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::time::Instant;

use crate::relay::{
    attempt::{
        attempt_candidate,
        parse_request::parse_for_targets,
        result::{AttemptFailure, AttemptResponse, StreamFailure},
    },
    context::{ActiveRequest, RequestContext, RescueTargets},
    dispatch::candidates::CandidateSet,
    record::{attempt_guard::AttemptGuard, budget_hold::BudgetHold},
    request::parsed::ParsedRequest,
};
use crate::{
    dialect::response_stream::ResponseStream,
    ir::{
        block::{Block, BlockKind},
        fault::{TransportFault, TransportKind},
        generation_settings::{Effort, ResponseFormat},
        op::Dialect,
        reason::failure::FailureReason,
        request::{ChatMessage, ChatRequest, Role},
        tool::Tool,
    },
    routing::{
        candidate::{Candidate, Target, build_candidates},
        decision::FailedAttempt,
        facts_book::FactsBook,
        outcome::{self, Outcome, Retry},
        resolve::ResolvedModel,
    },
};

/// Maximum attempts to continue one response.
const MAX_RESCUES: u32 = 3;
/// Approximate bytes of text per token.
const BYTES_PER_TOKEN: u64 = 4;

/// An attempt to continue; returns the request context with the result.
pub(in crate::relay) type RescueFuture = Pin<
    Box<dyn Future<Output = (Box<RequestContext>, Result<AttemptResponse, AttemptFailure>)> + Send>,
>;

/// The state from which a stream can be continued.
pub(in crate::relay) struct Rescue {
    /// A copy of the request; `None` while an attempt uses it.
    context: Option<Box<RequestContext>>,
    targets: Box<RescueTargets>,
    attempts_left: u32,
}

/// An attempt that was started.
pub(in crate::relay) struct PendingRescue {
    pub(in crate::relay) candidate: Candidate,
    /// What it has reserved of budgets, if there are any.
    pub(in crate::relay) budget_hold: Option<BudgetHold>,
    pub(in crate::relay) future: RescueFuture,
    /// Characters of the partial text that it continues.
    pub(in crate::relay) resumed_chars: usize,
}

impl Rescue {
    /// Stores what a rescue needs; `None` if the request does not ask for it, or if its stream was
    /// not recorded.
    pub(in crate::relay) fn from_request(
        active: &mut ActiveRequest,
        stream: &ResponseStream,
    ) -> Option<Box<Self>> {
        let context = &mut active.context;
        let mut targets = context.rescue_targets.take()?;
        stream.recorded()?;
        let mut resumed = context.clone_context();
        // The partial text has to be added, even if the dialect is the same.
        resumed.request.must_rewrite = true;
        resumed.is_continuation = true;
        // The reservation lasts as long as the body may be needed.
        resumed.buffer_reservation.absorb(&mut context.buffer_reservation);
        if let Some((upstream, key)) = context.attempt_target {
            targets.failed_attempts.push(FailedAttempt {
                key,
                upstream,
                model: Arc::clone(active.recorder.model()),
                may_recover: false,
                upstream_failed: true,
                upstream_refuses: false,
            });
        }
        Some(Box::new(Self { context: Some(resumed), targets, attempts_left: MAX_RESCUES }))
    }

    /// Starts an attempt to continue from the partial text, if that is possible and a candidate is
    /// ready.
    pub(in crate::relay) fn start(&mut self, stream: &ResponseStream) -> Option<PendingRescue> {
        let text = stream.recorded()?.text()?;
        self.attempts_left = self.attempts_left.checked_sub(1)?;
        let context = self.context.as_mut()?;
        let resolved = &self.targets.resolved;
        let targets = parse_with_partial(context, resolved, &text)?;
        let engine = &context.engine;
        let found = build_candidates(&targets, &|key| engine.key_info(key));
        let set = CandidateSet::new(context, found, resolved.strategy);
        let query = set.query(&self.targets.failed_attempts, "");
        let now = engine.clock.mono();
        let (at, ticket) =
            engine.with_rng(|rng| engine.router.decide_ready_only(&query, None, now, rng))?;
        let Ok(budget_hold) = set.reserve_budget(context, at) else {
            drop(AttemptGuard::new(engine, ticket));
            return None;
        };
        let candidate = set.candidates.get(at)?.clone();
        self.targets.failed_attempts.push(FailedAttempt {
            key: candidate.key,
            upstream: candidate.upstream(),
            model: Arc::clone(&candidate.target.model),
            may_recover: false,
            upstream_failed: true,
            upstream_refuses: false,
        });
        let mut context = self.context.take()?;
        context.attempt_target = Some((candidate.upstream(), candidate.key));
        let total = context.overrides.total.unwrap_or(context.generation.settings.timeouts.total);
        let (deadline, chosen) = (Instant::now() + total, candidate.clone());
        let future = Box::pin(async move {
            let result = attempt_candidate(&mut context, &chosen, ticket, deadline).await;
            (context, result)
        });
        let resumed_chars = text.chars().count();
        Some(PendingRescue { candidate, budget_hold, future, resumed_chars })
    }

    /// Takes the request context back after an attempt, because it may be needed again.
    pub(in crate::relay) fn return_context(&mut self, context: Box<RequestContext>) {
        self.context = Some(context);
    }
}

/// Parses the request and appends the partial text; returns the targets that can continue it, or
/// `None` if the rest would not make sense.
fn parse_with_partial(
    context: &mut RequestContext,
    resolved: &ResolvedModel,
    text: &str,
) -> Option<Vec<Arc<Target>>> {
    let facts = &context.generation.facts;
    let continues = |target: &&Arc<Target>| supports_prefill(facts, target);
    let targets: Vec<_> = resolved.targets.iter().filter(continues).map(Arc::clone).collect();
    context.parsed = None;
    parse_for_targets(context, &mut targets.clone()).ok()?;
    let Some(ParsedRequest::Chat(request)) = &mut context.parsed else { return None };
    if !is_resumable(request) {
        return None;
    }
    append_partial(request, text);
    Some(targets)
}

/// Returns how a broken stream counts against its upstream; `None` if another target cannot recover
/// it.
pub(in crate::relay) fn recoverable_outcome(failure: &StreamFailure) -> Option<Outcome> {
    let outcome = match failure {
        StreamFailure::Upstream(fault) => outcome::classify_fault(fault, None, true),
        StreamFailure::Transport(fault) => outcome::classify_transport(fault),
        StreamFailure::Truncated => outcome::classify_transport(&truncated_fault()),
        StreamFailure::Cancelled(_) => return None,
    };
    (outcome.retry != Retry::No).then_some(outcome)
}

/// Returns the fault of a stream that ended without an error but is incomplete.
pub(in crate::relay) fn truncated_fault() -> TransportFault {
    TransportFault {
        kind: TransportKind::BodyBroken,
        reason: FailureReason::Truncated.into(),
        may_be_received: true,
    }
}

/// Returns whether a target accepts a partial response and continues it.
fn supports_prefill(book: &FactsBook, target: &Target) -> bool {
    let known = || book.look_up(&target.upstream, target.dialect, &target.model);
    matches!(target.dialect, Dialect::Anthropic | Dialect::Openai)
        && known().facts.prefill == Some(true)
}

/// Returns whether the rest of a response makes sense without its beginning.
fn is_resumable(request: &ChatRequest) -> bool {
    let settings = &request.settings;
    let thinks = settings.reasoning.as_ref().is_some_and(|wish| {
        wish.adaptive || !matches!(wish.effective_effort(), None | Some(Effort::None))
    });
    settings.n.is_none_or(|n| n <= 1)
        && settings.logprobs != Some(true)
        && settings.top_logprobs.is_none_or(|n| n == 0)
        && matches!(settings.format, None | Some(ResponseFormat::Text))
        && !thinks
        && !request.tools.iter().any(|tool| matches!(tool, Tool::Hosted(_)))
}

/// Appends the partial text to the conversation, without trailing white space, which providers
/// reject.
fn append_partial(request: &mut ChatRequest, text: &str) {
    let text = text.trim_end();
    let last_block = request
        .messages
        .last_mut()
        .filter(|message| message.role == Role::Assistant)
        .and_then(|message| message.blocks.last_mut());
    match last_block {
        // The client had started the response itself.
        Some(Block { kind: BlockKind::Text(existing), .. }) => existing.text.push_str(text),
        _ => request.messages.push(ChatMessage::new(Role::Assistant, vec![Block::text(text)])),
    }
    if let Some(limit) = &mut request.settings.max_tokens {
        *limit = limit.saturating_sub(text.len() as u64 / BYTES_PER_TOKEN).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::generation_settings::{GenerationSettings, ReasoningSettings};

    fn asked(settings: GenerationSettings) -> ChatRequest {
        ChatRequest {
            messages: vec![ChatMessage::new(Role::User, vec![Block::text("hi")])],
            settings,
            ..ChatRequest::default()
        }
    }

    #[test]
    fn only_plain_answers_are_rescued() {
        let plain = GenerationSettings::default();
        for (settings, want) in [
            (plain.clone(), true),
            (
                GenerationSettings {
                    n: Some(1),
                    format: Some(ResponseFormat::Text),
                    ..plain.clone()
                },
                true,
            ),
            (GenerationSettings { n: Some(2), ..plain.clone() }, false),
            (GenerationSettings { logprobs: Some(true), ..plain.clone() }, false),
            (GenerationSettings { format: Some(ResponseFormat::Json), ..plain.clone() }, false),
            (
                GenerationSettings {
                    reasoning: Some(ReasoningSettings {
                        budget_tokens: Some(2_000),
                        ..ReasoningSettings::default()
                    }),
                    ..plain.clone()
                },
                false,
            ),
            (
                GenerationSettings {
                    reasoning: Some(ReasoningSettings {
                        enabled: Some(false),
                        ..ReasoningSettings::default()
                    }),
                    ..plain
                },
                true,
            ),
        ] {
            assert_eq!(is_resumable(&asked(settings.clone())), want, "{settings:?}");
        }
    }

    #[test]
    fn rescued_text_ends_the_conversation_and_counts_as_answered() {
        let mut request =
            asked(GenerationSettings { max_tokens: Some(100), ..GenerationSettings::default() });
        append_partial(&mut request, "It is a long way \n");
        assert_eq!(request.messages.len(), 2);
        assert_eq!(request.settings.max_tokens, Some(96));
        append_partial(&mut request, " to go");
        assert_eq!(request.messages.len(), 2, "what had been begun is gone on with");
        assert_eq!(request.messages[1].blocks, [Block::text("It is a long way to go")]);
        let mut short =
            asked(GenerationSettings { max_tokens: Some(1), ..GenerationSettings::default() });
        append_partial(&mut short, "It is a long way");
        assert_eq!(short.settings.max_tokens, Some(1));
    }
}
