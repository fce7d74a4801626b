//! Continuing a stream that broke off after content: another target is asked to go on from what was
//! said.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::time::Instant;

use super::{
    answer::{Broke, Lost, Won},
    attempt::attempt,
    budgets::{self, Reservation},
    hedge::twin,
    rounds::Job,
    said::Said,
    tally::Guard,
    translated,
};
use crate::{
    config::facts,
    dialect::flow::ResponseStream,
    ir::{
        block::{Block, BlockKind},
        fault::{TransportFault, TransportKind},
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        settings::{Effort, ResponseFormat},
        tool::Tool,
    },
    routing::{
        candidate::{Candidate, FailedAttempt, RouteQuery, Target, build_candidates},
        health::TokenEstimate,
        names::ResolvedModel,
        outcome::{self, Outcome, Retry},
    },
};

/// Attempts to continue one answer.
const MOST: u32 = 3;
/// Bytes of text that make a token, about.
const TOKEN: u64 = 4;

/// An attempt to go on; gives the request back with what came of it.
pub(super) type Going = Pin<Box<dyn Future<Output = (Box<Job>, Result<Won, Lost>)> + Send>>;

/// Who might continue a stream.
#[derive(Clone)]
pub struct Spares {
    /// What the model's name stands for.
    pub(super) resolved: ResolvedModel,
    /// Who was asked already.
    pub(super) tried: Vec<FailedAttempt>,
}

/// What a stream needs to be continued.
pub(super) struct Rescue {
    /// The request once more; `None` while an attempt has it.
    twin: Option<Box<Job>>,
    spares: Box<Spares>,
    left: u32,
}

/// An attempt that was begun.
pub(super) struct Begun {
    pub(super) candidate: Candidate,
    /// What it holds of budgets, where there are any.
    pub(super) reservation: Option<Reservation>,
    pub(super) going: Going,
    /// Characters that it goes on from.
    pub(super) from: usize,
}

impl Rescue {
    /// Keeps what is needed; `None` where the request does not ask for it, or its stream was not
    /// listened to.
    pub(super) fn of(job: &mut Job, flow: &ResponseStream) -> Option<Box<Self>> {
        let mut spares = job.spares.take()?;
        flow.recorded()?;
        let mut twin = twin(job);
        // Also where the dialect is the same, what was said has to be added.
        twin.ask.rewrite = true;
        twin.continues = true;
        // The body is kept as long as it may be needed, and counts as long.
        twin.ask.held.absorb(&mut job.ask.held);
        if let Some((upstream, key)) = job.chosen {
            spares.tried.push(FailedAttempt {
                key,
                upstream,
                model: Arc::clone(&job.tally.model),
                may_recover: false,
                upstream_failed: true,
            });
        }
        Some(Box::new(Self { twin: Some(twin), spares, left: MOST }))
    }

    /// Begins an attempt to go on from what was said, where that can be done and somebody is ready
    /// for it.
    pub(super) fn begin(&mut self, flow: &ResponseStream) -> Option<Begun> {
        let text = flow.recorded()?.text()?;
        self.left = self.left.checked_sub(1)?;
        let twin = self.twin.as_mut()?;
        let targets: Vec<Arc<Target>> = self
            .spares
            .resolved
            .targets
            .iter()
            .filter(|target| goes_on(target))
            .map(Arc::clone)
            .collect();
        twin.said = None;
        translated::read(twin, &mut targets.clone()).ok()?;
        let Some(Said::Chat(request)) = &mut twin.said else { return None };
        if !may_go_on(request) {
            return None;
        }
        add(request, &text);

        let engine = Arc::clone(&twin.engine);
        let mut found = build_candidates(&targets, &|key| engine.key_info(key));
        let asked = TokenEstimate { input: twin.ask.estimate, output: twin.ask.output() };
        let budgeted = budgets::concern(&engine, &twin.ask);
        let costs = if budgeted || self.spares.resolved.strategy.uses_cost() {
            engine.costs(&found, asked)
        } else {
            Vec::new()
        };
        if budgeted {
            budgets::mark(&engine, &twin.ask.caller.project.name, &mut found, &costs);
        }
        let question = RouteQuery {
            failed_attempts: &self.spares.tried,
            strategy: self.spares.resolved.strategy,
            input_estimate: asked.input,
            max_output: asked.output,
            costs: &costs,
            ..RouteQuery::first_attempt(&found)
        };
        let now = engine.clock.mono();
        let (at, ticket) =
            engine.with_luck(|luck| engine.board.decide_ready_only(&question, None, now, luck))?;
        let candidate = found.get(at)?.clone();
        let reservation = if budgeted {
            let cost = costs.get(at).copied().flatten();
            let Some(reservation) =
                Reservation::take(&engine, &twin.ask.caller.project.name, &candidate, cost)
            else {
                drop(Guard::new(&engine, ticket));
                return None;
            };
            Some(reservation)
        } else {
            None
        };
        self.spares.tried.push(FailedAttempt {
            key: candidate.key,
            upstream: candidate.upstream(),
            model: Arc::clone(&candidate.target.model),
            may_recover: false,
            upstream_failed: true,
        });
        let mut twin = self.twin.take()?;
        twin.chosen = Some((candidate.upstream(), candidate.key));
        let total = twin.overrides.total.unwrap_or(twin.generation.settings.timeouts.total);
        let (deadline, chosen) = (Instant::now() + total, candidate.clone());
        let going = Box::pin(async move {
            let result = attempt(&mut twin, &chosen, ticket, deadline).await;
            (twin, result)
        });
        Some(Begun { candidate, reservation, going, from: text.chars().count() })
    }

    /// The attempt is over; the request may be needed again.
    pub(super) fn give_back(&mut self, twin: Box<Job>) {
        self.twin = Some(twin);
    }
}

/// Whether what broke a stream may be mended by somebody else; how it counts against who was to
/// answer.
pub(super) fn outcome_of(broke: &Broke) -> Option<Outcome> {
    let outcome = match broke {
        Broke::Said(fault) => outcome::classify_fault(fault, None, true),
        Broke::Transport(fault) => outcome::classify_transport(fault),
        Broke::Truncated => outcome::classify_transport(&truncated()),
        Broke::Halted(_) => return None,
    };
    (outcome.retry != Retry::No).then_some(outcome)
}

/// A stream that ended as if it were whole.
pub(super) fn truncated() -> TransportFault {
    let message = "the stream ended before it was complete".to_owned();
    TransportFault { kind: TransportKind::BodyBroken, message, may_be_received: true }
}

/// Whether a target takes an answer that was begun, and goes on with it.
fn goes_on(target: &Target) -> bool {
    matches!(target.dialect, Dialect::Anthropic | Dialect::Openai)
        && facts::facts_of(&target.model).prefill == Some(true)
}

/// Whether the answer to a request is such that its rest makes sense alone.
fn may_go_on(request: &ChatRequest) -> bool {
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

/// Puts what was said at the end of the conversation. White space at its end is refused by
/// providers.
fn add(request: &mut ChatRequest, text: &str) {
    let text = text.trim_end();
    let begun = request
        .messages
        .last_mut()
        .filter(|message| message.role == Role::Assistant)
        .and_then(|message| message.blocks.last_mut());
    match begun {
        // The client had begun the answer itself.
        Some(Block { kind: BlockKind::Text(own), .. }) => own.text.push_str(text),
        _ => request.messages.push(ChatMessage::new(Role::Assistant, vec![Block::text(text)])),
    }
    if let Some(most) = &mut request.settings.max_tokens {
        *most = most.saturating_sub(text.len() as u64 / TOKEN).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::settings::{GenerationSettings, ReasoningSettings};

    fn asked(settings: GenerationSettings) -> ChatRequest {
        ChatRequest {
            messages: vec![ChatMessage::new(Role::User, vec![Block::text("hi")])],
            settings,
            ..ChatRequest::default()
        }
    }

    #[test]
    fn only_plain_answers_are_gone_on_from() {
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
            assert_eq!(may_go_on(&asked(settings.clone())), want, "{settings:?}");
        }
    }

    #[test]
    fn what_was_said_ends_the_conversation_and_counts_as_answered() {
        let mut request =
            asked(GenerationSettings { max_tokens: Some(100), ..GenerationSettings::default() });
        add(&mut request, "It is a long way \n");
        assert_eq!(request.messages.len(), 2);
        assert_eq!(request.settings.max_tokens, Some(96));
        add(&mut request, " to go");
        assert_eq!(request.messages.len(), 2, "what had been begun is gone on with");
        assert_eq!(request.messages[1].blocks, [Block::text("It is a long way to go")]);
        let mut short =
            asked(GenerationSettings { max_tokens: Some(1), ..GenerationSettings::default() });
        add(&mut short, "It is a long way");
        assert_eq!(short.settings.max_tokens, Some(1));
    }
}
