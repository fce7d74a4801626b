//! Runs a request's dispatch loop: decide, attempt and record, until an attempt wins or no other
//! can help.

pub mod admission;
pub mod budget;
pub(crate) mod capability;
pub(crate) mod final_error;
pub mod hedge;
pub mod local_answer;
pub mod queue;
use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::relay::{
    attempt::{
        attempt_candidate,
        result::{AttemptFailure, AttemptResponse, FailureSource},
        translate,
    },
    context::{RequestContext, RescueTargets},
    dispatch::{
        capability::RequiredCapabilities,
        queue::{QueueGuard, queue_key},
    },
    engine::{Engine, Generation},
    record::{
        attempt_guard::AttemptGuard, budget_hold::BudgetHold, cache_monitor,
        recorder::RequestRecorder,
    },
    request::{
        conversation_key, parsed,
        proxy_request::{ModelLocation, ProxyRequest},
    },
    state::{
        cancellations::CancelReason,
        response_store::{self, StoredAt},
    },
};
use crate::{
    base::clock::Mono,
    config::settings::{KeyId, Strategy},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
    },
    routing::{
        affinity::{ConversationKeys, MAX_AFFINITY_WAIT},
        candidate::{self, Candidate, KeyState, Target},
        decision::{
            ChoiceReason, Decision, FailedAttempt, RouteQuery, SkipReason, Verdict, print_span,
        },
        health::TokenEstimate,
        name_resolver::{ModelOverrides, OnUnknownList},
        outcome::{Blame, CooldownClass},
        prompt_cache::ServedBy,
        resolve::{self, NameError, ResolvedModel},
        retry::{AttemptCounts, RetryDecision, RetryTarget},
    },
};

/// How long a request waits for model lists that were never learned.
const LIST_WAIT: Duration = Duration::from_secs(5);
/// How often the local network is checked again while it is down.
const OFFLINE_POLL: Duration = Duration::from_secs(2);

/// Runs the request until it is decided, and returns its context for what follows.
pub async fn dispatch_cancellable(
    mut context: Box<RequestContext>,
) -> (Box<RequestContext>, Result<AttemptResponse, ProxyError>) {
    let cancel = Arc::clone(&context.cancel);
    let result = tokio::select! {
        biased;
        cause = cancel.cancelled() => Err(cancelled_error(cause)),
        result = dispatch(&mut context) => result,
    };
    if result.is_ok()
        && context.engine.cache_monitor.is_active()
        && let Some((upstream, key)) = context.attempt_target
    {
        let served_by = || ServedBy {
            upstream,
            key_name: context.recorder.key_name(),
            account: context.engine.key_info(key).1,
            model: Arc::clone(&context.recorder.model),
            translated: context.attempt_context.is_some(),
        };
        let prefix =
            cache_monitor::prompt_prefix(&context.request, &context.engine.hash_key, served_by);
        context.recorder.pending_prefix = prefix.map(Box::new);
    }
    (context, result)
}

/// Returns the client's error when its request is cancelled from outside.
#[must_use]
pub fn cancelled_error(cause: CancelReason) -> ProxyError {
    match cause {
        CancelReason::Killed => {
            ProxyError::new(ProxyErrorKind::Unavailable, "the request was ended from the dashboard")
                .code("killed")
                .should_retry(false)
        }
        CancelReason::Shutdown => {
            ProxyError::new(ProxyErrorKind::Overloaded, "aiproxy is shutting down")
                .retry_after(Some(Duration::from_secs(2)))
        }
    }
}

/// The state of the dispatch loop.
#[derive(Default)]
struct RetryState {
    failed_attempts: Vec<FailedAttempt>,
    attempt_counts: AttemptCounts,
    /// A pause or a wait has already granted the next retry.
    retry_granted: bool,
    last_failure: Option<LastFailure>,
    /// Why each attempt was refused.
    failure_causes: Vec<(CooldownClass, Blame)>,
    waited: Duration,
    /// Its slot in the queue, reused for the next wait.
    queue_slot: Option<(u64, QueueGuard)>,
    /// Its conversation's affinity; computed once, if there is a choice.
    affinity: Option<Option<AffinityWait>>,
    /// What it requires of a model; computed once, if there is a choice.
    required: Option<Option<RequiredCapabilities>>,
}

impl RetryState {
    /// Returns the last failure and why each attempt was refused.
    fn failures(&self) -> (Option<&LastFailure>, &[(CooldownClass, Blame)]) {
        (self.last_failure.as_ref(), &self.failure_causes)
    }
}

/// The wait of a conversation for the account that served it before.
struct AffinityWait {
    keys: Arc<ConversationKeys>,
    ttl: Duration,
    /// When it stops waiting for that account.
    wait_until: Mono,
}

impl AffinityWait {
    fn for_request(context: &RequestContext, candidates: &[Candidate], now: Mono) -> Option<Self> {
        let account = candidates.first()?.account;
        // With only one account there is no affinity.
        if candidates.iter().all(|candidate| candidate.account == account) {
            return None;
        }
        let settings = &context.generation.settings;
        let keys = conversation_key::conversation_keys(
            &context.engine.hash_key,
            &context.request,
            context.overrides.sticky.unwrap_or(settings.routing.sticky),
        )?;
        let ttl = context.overrides.sticky_ttl.unwrap_or(settings.routing.sticky_ttl);
        Some(Self { keys: Arc::new(keys), ttl, wait_until: now + MAX_AFFINITY_WAIT })
    }

    /// Stops waiting for the conversation's own account, so that others may serve it at once.
    /// Returns false if it was not waiting for that.
    fn stop_waiting(&mut self, now: Mono) -> bool {
        let waited = self.wait_until > now;
        self.wait_until = self.wait_until.min(now);
        waited
    }
}

/// The newest failed attempt.
pub(super) struct LastFailure {
    pub failure: AttemptFailure,
    pub key: KeyId,
    pub key_name: Arc<str>,
}

async fn dispatch(context: &mut RequestContext) -> Result<AttemptResponse, ProxyError> {
    admission::admit(context).await?;
    let resolved = resolve_targets(context).await?;
    if context.overrides.rescue && can_resume(&context.request) {
        context.rescue_targets = Some(Box::new(RescueTargets {
            resolved: resolved.clone(),
            failed_attempts: Vec::new(),
        }));
    }
    let settings = Arc::clone(&context.generation.settings);
    let total = context.overrides.total.unwrap_or(settings.timeouts.total);
    let deadline = Instant::now() + total;
    let mut state = RetryState::default();
    context.engine.router.count_request(context.engine.clock.mono());
    loop {
        let mut candidates =
            candidate::build_candidates(&resolved.targets, &|key| context.engine.key_info(key));
        if let Some((_, Some(key))) = context.request.owner {
            candidates.retain(|candidate| candidate.key == key);
        }
        if let Some(needs) = state.required.get_or_insert_with(|| {
            RequiredCapabilities::for_candidates(&context.request, &candidates)
        }) {
            needs.annotate(&mut candidates);
        }
        let now = context.engine.clock.mono();
        let estimate = TokenEstimate {
            input: context.request.estimate,
            output: context.request.output_limit(),
        };
        let budgeted = budget::applies(&context.engine, &context.request);
        let costs = if budgeted || resolved.strategy.uses_cost() {
            context.engine.estimate_costs(&candidates, estimate)
        } else {
            Vec::new()
        };
        if budgeted {
            budget::annotate_candidates(
                &context.engine,
                &context.request.caller.project.name,
                &mut candidates,
                &costs,
            );
        }
        let first = RouteQuery {
            strategy: resolved.strategy,
            input_estimate: estimate.input,
            max_output: estimate.output,
            costs: &costs,
            region: &settings.routing.region,
            ..RouteQuery::first_attempt(&candidates)
        };
        let question = RouteQuery { failed_attempts: &state.failed_attempts, ..first };
        let affinity = state
            .affinity
            .get_or_insert_with(|| AffinityWait::for_request(context, &candidates, now))
            .as_ref();
        let (decision, ticket) = context.engine.with_rng(|rng| match affinity {
            Some(affinity) => context.engine.router.decide_with_affinity(
                &question,
                (&affinity.keys, affinity.ttl, affinity.wait_until),
                now,
                rng,
            ),
            None => context.engine.router.decide(&question, now, rng),
        });
        match (&decision.verdict, ticket) {
            (Verdict::Try { index, reason: why, .. }, Some(ticket)) => {
                state.queue_slot = None;
                let chosen = &candidates[*index];
                if budgeted {
                    let cost = costs.get(*index).copied().flatten();
                    let Some(reservation) = BudgetHold::reserve(
                        &context.engine,
                        &context.request.caller.project.name,
                        chosen,
                        cost,
                    ) else {
                        drop(AttemptGuard::new(&context.engine, ticket));
                        continue;
                    };
                    context.recorder.set_budget_hold(reservation);
                }
                if !std::mem::take(&mut state.retry_granted)
                    && !retry_pause(context, &mut state, RetryTarget::Other)
                        .is_some_and(|pause| pause.is_zero())
                {
                    drop(AttemptGuard::new(&context.engine, ticket));
                    return Err(final_error::final_error(
                        context,
                        state.failures(),
                        &decision,
                        &candidates,
                        None,
                    ));
                }
                context.attempt_target = Some((chosen.upstream(), chosen.key));
                let bound = matches!(why, ChoiceReason::Affinity { .. });
                let mut reason =
                    choice_reason(&resolved, chosen, why, context.request.endpoint.dialect);
                if let Some(skipped) = skipped_candidates(&decision, &candidates, chosen, now) {
                    reason = [&*reason, &skipped].concat().into();
                }
                if state.last_failure.is_some() {
                    reason = format!("try {}: {reason}", context.recorder.attempts() + 1).into();
                }
                context.recorder.attempt_started(chosen, bound, reason);
                if let Some(rule) =
                    context.overrides.hedge.clone().filter(|_| state.last_failure.is_none())
                {
                    match Box::pin(hedge::attempt_with_hedge(
                        context,
                        &rule,
                        &first,
                        (*index, ticket),
                        deadline,
                    ))
                    .await
                    {
                        Ok(response) => return Ok(response),
                        Err(failure) => {
                            for (index, failure) in failure {
                                let chosen = &candidates[index];
                                remember_failure(&mut state, chosen, failure);
                            }
                            if Instant::now() >= deadline {
                                return Err(final_error::final_error(
                                    context,
                                    state.failures(),
                                    &decision,
                                    &candidates,
                                    None,
                                ));
                            }
                            continue;
                        }
                    }
                }
                match attempt_candidate(context, chosen, ticket, deadline).await {
                    Ok(response) => {
                        if let Some(targets) = &mut context.rescue_targets {
                            targets.failed_attempts.append(&mut state.failed_attempts);
                        }
                        return Ok(response);
                    }
                    Err(failure) => record_failure(context, &mut state, chosen, failure),
                }
                if Instant::now() >= deadline {
                    return Err(final_error::final_error(
                        context,
                        state.failures(),
                        &decision,
                        &candidates,
                        None,
                    ));
                }
            }
            (Verdict::RetrySame { .. }, _) => {
                let Some(pause) = retry_pause(context, &mut state, RetryTarget::Same) else {
                    return Err(final_error::final_error(
                        context,
                        state.failures(),
                        &decision,
                        &candidates,
                        None,
                    ));
                };
                let pause = if context.engine.network.down() { OFFLINE_POLL } else { pause };
                if Instant::now() + pause >= deadline {
                    return Err(final_error::final_error(
                        context,
                        state.failures(),
                        &decision,
                        &candidates,
                        None,
                    ));
                }
                state.queue_slot = None;
                context
                    .recorder
                    .publish_queued(format!("the same again in {} ms", pause.as_millis()));
                sleep(pause).await;
                state.retry_granted = true;
                state.failed_attempts.retain(|tried| !tried.may_recover);
            }
            (Verdict::Wait { until }, _) => {
                // A candidate that was not tried yet and whose key is still being read: moving on
                // to it does not count as a retry.
                let is_untried = |c: &Candidate| {
                    c.key_state == KeyState::Waiting
                        && !state
                            .failed_attempts
                            .iter()
                            .any(|t| t.key == c.key && t.model == c.target.model)
                };
                let key_pending = state.last_failure.is_some() && candidates.iter().any(is_untried);
                let permitted = key_pending
                    || state.last_failure.is_none()
                    || state.retry_granted
                    || retry_pause(context, &mut state, RetryTarget::Same).is_some();
                if !permitted
                    || !wait_in_queue(context, &mut state, &decision, &candidates, *until, deadline)
                        .await
                {
                    if state
                        .affinity
                        .as_mut()
                        .and_then(Option::as_mut)
                        .is_some_and(|affinity| affinity.stop_waiting(now))
                    {
                        continue;
                    }
                    return Err(final_error::final_error(
                        context,
                        state.failures(),
                        &decision,
                        &candidates,
                        *until,
                    ));
                }
                if !key_pending {
                    state.retry_granted = true;
                    state.failed_attempts.retain(|tried| !tried.may_recover);
                }
            }
            (Verdict::Exhausted { retry_at }, _) => {
                return Err(final_error::final_error(
                    context,
                    state.failures(),
                    &decision,
                    &candidates,
                    *retry_at,
                ));
            }
            (Verdict::Try { .. }, None) => {
                return Err(ProxyError::new(
                    ProxyErrorKind::Internal,
                    "a candidate was chosen without a ticket; please report this",
                ));
            }
        }
    }
}

/// Returns the pause before the next try, if one is allowed; a first try always is.
fn retry_pause(
    context: &RequestContext,
    state: &mut RetryState,
    to: RetryTarget,
) -> Option<Duration> {
    let Some(last) = &state.last_failure else { return Some(Duration::ZERO) };
    let now = context.engine.clock.mono();
    match context.engine.with_rng(|rng| {
        context.engine.router.may_retry(
            &last.failure.outcome,
            &mut state.attempt_counts,
            to,
            now,
            rng,
        )
    }) {
        RetryDecision::Immediately => Some(Duration::ZERO),
        RetryDecision::After(pause) => Some(pause),
        RetryDecision::Stop(_) => None,
    }
}

/// Resolves names to targets; waits for model lists that were never learned.
async fn resolve_targets(context: &mut RequestContext) -> Result<ResolvedModel, ProxyError> {
    let (engine, generation) = (Arc::clone(&context.engine), Arc::clone(&context.generation));
    if let ModelLocation::Upstream(name) = &context.request.endpoint.model {
        return resolve_raw(context, name).map_err(|e| *e);
    }
    let model = Arc::clone(&context.request.requested_model);
    let preferences = context.request.preferences.take();
    let mut resolved = resolve_name(context, &engine, &generation, &model).await;
    if let Some(preferences) = &preferences {
        let price = |target: &Target| engine.price(&target.upstream, &target.model);
        if let Ok(first) = &mut resolved {
            preferences.apply(&mut first.targets, 0, &price);
        }
        for (nth, name) in
            preferences.fallback_models.iter().filter(|name| **name != *model).enumerate()
        {
            let Ok(mut more) = resolve_name(context, &engine, &generation, name).await else {
                continue;
            };
            preferences.apply(&mut more.targets, nth + 1, &price);
            match &mut resolved {
                Ok(first) => first.targets.extend(more.targets),
                Err(_) => resolved = Ok(more),
            }
        }
        context.request.strict |= preferences.require_parameters;
    }
    let mut resolved = match resolved {
        Ok(resolved) => resolved,
        Err(e) => {
            context.no_upstream_dialect = matches!(e, NameError::UnsupportedDialect { .. });
            return Err(name_error(&e));
        }
    };
    if let Some(preferences) = preferences {
        resolved.strategy = preferences.strategy().unwrap_or(resolved.strategy);
        if resolved.targets.is_empty() {
            let message = format!(
                "no upstream that serves `{model}` matches the request's `provider` preferences"
            );
            return Err(ProxyError::new(
                ProxyErrorKind::ModelNotFound,
                crate::base::sanitize::clean(&message),
            )
            .param("provider"));
        }
    }
    if let Some(pin) = &context.request.pinned_upstream {
        resolved.targets.retain(|target| *target.upstream.name == **pin);
        if resolved.targets.is_empty() {
            let message = format!(
                "`x-aiproxy-upstream` pins this request to `{pin}`, which does not serve `{}`",
                context.request.requested_model
            );
            return Err(ProxyError::new(
                ProxyErrorKind::ModelNotFound,
                crate::base::sanitize::clean(&message),
            ));
        }
    }
    restrict_to_owner(context, &mut resolved.targets)?;
    if resolved.overrides.rescue
        && can_resume(&context.request)
        && context.request.endpoint.dialect == Dialect::Responses
    {
        // The events are numbered and the items have ids throughout, so one writer has to write
        // them all.
        context.request.must_rewrite = true;
    }
    translate::parse_for_targets(context, &mut resolved.targets)?;
    context.overrides = std::mem::take(&mut resolved.overrides);
    Ok(resolved)
}

/// Returns whether another target could continue a stream that breaks off.
fn can_resume(request: &ProxyRequest) -> bool {
    request.stream && request.endpoint.op == Op::Chat && request.owner.is_none()
}

/// Resolves one name to its targets, without its suffix if the suffix selects a strategy.
async fn resolve_name(
    context: &RequestContext,
    engine: &Engine,
    generation: &Generation,
    model: &str,
) -> Result<ResolvedModel, NameError> {
    let project = &context.request.caller.project;
    let deadline = Instant::now() + LIST_WAIT;
    let mut on_unknown = OnUnknownList::Wait;
    loop {
        let learned = engine.model_lists.learned();
        let learned = |id| learned.get(&id).cloned();
        let (name, strategy) = match resolve::strategy_suffix(&generation.catalog, model, &learned)
        {
            Some((name, strategy)) => (name, Some(strategy)),
            None => (model, None),
        };
        let (dialect, translates) =
            (context.request.endpoint.dialect, parsed::is_translatable(&context.request));
        match resolve::resolve(
            &generation.catalog,
            name,
            dialect,
            translates,
            project,
            &learned,
            on_unknown,
        ) {
            Ok(mut resolved) => {
                resolved.strategy = strategy.unwrap_or(resolved.strategy);
                return Ok(resolved);
            }
            Err(NameError::ListUnknown { upstreams, .. }) if on_unknown == OnUnknownList::Wait => {
                if !engine.model_lists.wait_until_known(&upstreams, deadline).await {
                    on_unknown = OnUnknownList::Assume;
                }
            }
            Err(e) => return Err(e),
        }
    }
}

/// Restricts the targets to the owner of the previous response: aiproxy or one upstream.
fn restrict_to_owner(
    context: &mut RequestContext,
    targets: &mut Vec<Arc<Target>>,
) -> Result<(), ProxyError> {
    let Some(id) = &context.request.previous_response_id else { return Ok(()) };
    match context.engine.response_store.find(&context.request.caller.project.name, id) {
        Some(StoredAt::Local { .. }) => context.request.must_rewrite = true,
        Some(StoredAt::Upstream { upstream, key }) => {
            targets.retain(|target| {
                target.upstream.id == upstream && target.dialect == Dialect::Responses
            });
            if targets.is_empty() {
                return Err(response_store::unknown_response(id));
            }
            context.request.owner = Some((upstream, key));
        }
        None => {}
    }
    Ok(())
}

/// Returns the target of `/u/UPSTREAM/…`.
fn resolve_raw(context: &RequestContext, name: &str) -> Result<ResolvedModel, Box<ProxyError>> {
    let upstream =
        context.generation.settings.upstreams.iter().find(|upstream| *upstream.name == *name);
    let project = &context.request.caller.project;
    let Some(upstream) = upstream.filter(|upstream| project.upstreams.matches(&upstream.name))
    else {
        let message = format!(
            "no upstream is named `{}`; `aiproxy upstream list` shows all",
            crate::base::sanitize::clean(name)
        );
        return Err(Box::new(ProxyError::new(ProxyErrorKind::UnknownPath, message)));
    };
    let dialect = match context.request.endpoint.op {
        Op::Stored => Dialect::Responses,
        _ => upstream.endpoints.first().map_or(Dialect::Openai, |end| end.dialect),
    };
    let target = Target {
        upstream: Arc::clone(upstream),
        model: Arc::from(""),
        dialect,
        priority: upstream.priority,
        weight: upstream.weight,
    };
    Ok(ResolvedModel {
        targets: vec![Arc::new(target)],
        strategy: Strategy::Priority,
        overrides: ModelOverrides::default(),
        via: "named in the path".to_owned(),
        unsupported: Vec::new(),
    })
}

fn name_error(error: &NameError) -> ProxyError {
    let text = format!("{}; {}", error.text(), error.hint());
    match error {
        NameError::Unknown { .. } | NameError::ListUnknown { .. } => {
            ProxyError::new(ProxyErrorKind::ModelNotFound, text).param("model")
        }
        NameError::NotAllowed { .. } => ProxyError::new(ProxyErrorKind::Forbidden, text)
            .code("model_not_allowed")
            .param("model"),
        NameError::UnsupportedDialect { .. } => {
            ProxyError::new(ProxyErrorKind::ModelNotFound, text).param("model")
        }
    }
}

fn choice_reason(
    resolved: &ResolvedModel,
    chosen: &Candidate,
    reason: &ChoiceReason,
    client_dialect: Dialect,
) -> Arc<str> {
    let (tier, _) = chosen.tier;
    let via = &resolved.via;
    let text = match reason {
        ChoiceReason::Only => format!("{via}; priority {tier}, the only candidate ready"),
        ChoiceReason::Best { ready_count: of, .. } => {
            format!("{via}; priority {tier}, one of {of} ready")
        }
        ChoiceReason::Affinity { better_tier_ready: false } => {
            [via, "; where its conversation was served before"].concat()
        }
        ChoiceReason::Affinity { better_tier_ready: true } => {
            [via, "; where its conversation was served before, though a better tier is back"]
                .concat()
        }
        ChoiceReason::Probe => [via, "; let through as a probe after a cooldown"].concat(),
        ChoiceReason::LeastSuspect => {
            [via, "; nothing is ready: the least suspect is tried"].concat()
        }
    };
    let to = chosen.target.dialect;
    if to == client_dialect { text } else { format!("{text}; translated to {to}") }.into()
}

/// Returns the candidates that rank before or level with the chosen one, and why they were skipped.
/// Candidates that this request has tried are left out, because they are shown as its attempts.
fn skipped_candidates(
    decision: &Decision,
    candidates: &[Candidate],
    chosen: &Candidate,
    now: Mono,
) -> Option<String> {
    let keeps = |reason: &SkipReason| {
        !matches!(
            reason,
            SkipReason::AlreadyFailed
                | SkipReason::LowerTier
                | SkipReason::NotPicked
                | SkipReason::OtherRegion
        )
    };
    let others = decision.skipped.iter().filter(|(_, reason)| keeps(reason));
    let others = others
        .filter_map(|(index, reason)| Some((candidates.get(*index)?, reason)))
        .filter(|(other, _)| other.tier <= chosen.tier);
    let (mut text, mut more) = (String::new(), 0_usize);
    for (at, (other, reason)) in others.enumerate() {
        if at >= MAX_SKIPPED_SHOWN {
            more += 1;
            continue;
        }
        text.push_str(if at == 0 { "; passed over: " } else { ", " });
        text.push_str(&format!("{} ({})", other.key_name, reason.text(now)));
    }
    if more > 0 {
        text.push_str(&format!(", {more} more"));
    }
    (!text.is_empty()).then_some(text)
}

/// At most this many skipped candidates are named.
const MAX_SKIPPED_SHOWN: usize = 3;

/// Records a failed attempt.
fn record_failure(
    context: &mut RequestContext,
    state: &mut RetryState,
    chosen: &Candidate,
    failure: AttemptFailure,
) {
    publish_failure(&context.engine, &mut context.recorder, chosen, &failure);
    remember_failure(state, chosen, failure);
}

/// Publishes a failed attempt.
pub(super) fn publish_failure(
    engine: &Engine,
    recorder: &mut RequestRecorder,
    chosen: &Candidate,
    failure: &AttemptFailure,
) {
    let status = match &failure.source {
        FailureSource::Upstream { fault, .. } => Some(fault.status),
        FailureSource::Transport(_) => None,
    };
    let now = engine.clock.mono();
    let detail = match (
        &failure.source,
        final_error::key_cooldown(engine, chosen.key, &chosen.target.model, now),
    ) {
        (FailureSource::Upstream { fault, .. }, Some(wait)) => {
            format!("{}: {} (cooling {})", failure.outcome.cause, fault.message, print_span(wait))
        }
        (FailureSource::Upstream { fault, .. }, None) => {
            format!("{}: {}", failure.outcome.cause, fault.message)
        }
        (FailureSource::Transport(fault), _) => fault.message.clone(),
    };
    recorder.attempt_failed(status, &detail, failure.outcome.maybe_billed);
    if failure.outcome.cooldown == CooldownClass::Rejected {
        // A closed channel means that the process is ending.
        engine.rejected_keys.send(chosen.key).unwrap_or_default();
    }
    if failure.outcome.cooldown == CooldownClass::Quota && failure.outcome.blame == Blame::Account {
        engine.balances.recheck_soon(chosen.key, now);
    }
}

/// Stores a failed attempt for the next decision.
fn remember_failure(state: &mut RetryState, chosen: &Candidate, lost: AttemptFailure) {
    state.attempt_counts.count_failure(&lost.outcome);
    state.failure_causes.push((lost.outcome.cooldown, lost.outcome.blame));
    state.failed_attempts.push(FailedAttempt {
        key: chosen.key,
        upstream: chosen.upstream(),
        model: Arc::clone(&chosen.target.model),
        may_recover: lost.may_recover,
        upstream_failed: lost.outcome.blames_upstream(),
    });
    state.last_failure = Some(LastFailure {
        failure: lost,
        key: chosen.key,
        key_name: Arc::clone(&chosen.key_name),
    });
}

/// Waits in the queue; returns false if waiting does not help in time.
async fn wait_in_queue(
    context: &RequestContext,
    state: &mut RetryState,
    decision: &Decision,
    candidates: &[Candidate],
    until: Option<Mono>,
    deadline: Instant,
) -> bool {
    let Some(remaining) =
        context.queue_timeout().checked_sub(state.waited).filter(|remaining| !remaining.is_zero())
    else {
        return false;
    };
    let now = context.engine.clock.mono();
    let span = until.map(|until| until.since(now));
    // Waiting does not help if no upstream has the model.
    if span.is_some_and(|span| span > remaining)
        || final_error::unanimous_kind(&state.failure_causes, decision)
            == Some(ProxyErrorKind::ModelNotFound)
    {
        return false;
    }
    // A request that waits for its own account does not block others.
    let own_line = state
        .affinity
        .as_ref()
        .and_then(Option::as_ref)
        .is_some_and(|affinity| affinity.wait_until > now)
        .then_some(context.request.id);
    let set = queue_key(candidates, &state.failed_attempts, own_line);
    if state.queue_slot.as_ref().is_none_or(|(known, _)| *known != set) {
        state.queue_slot = None;
        let engine = &context.engine;
        let project = &context.request.caller.project.name;
        state.queue_slot =
            QueueGuard::join(&engine.wait_queue, &engine.capacity_changed, set, project)
                .map(|guard| (set, guard));
    }
    let Some((_, guard)) = &state.queue_slot else { return false };
    let started = Instant::now();
    let give_up_at = (started + remaining).min(deadline);
    context.recorder.publish_queued(match span {
        Some(span) => {
            format!("waits {} for a key ({} before it)", print_span(span), guard.position())
        }
        None => "waits for a verdict on the only candidate".to_owned(),
    });
    // The end of the cooldown or any change wakes the task; the first in the queue proceeds, the
    // others check again.
    let ok = loop {
        let changed = context.engine.capacity_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let wake_at = started + span.unwrap_or(remaining);
        tokio::select! {
            () = &mut changed => {}
            () = sleep_until(wake_at.min(give_up_at)) => {}
        }
        let at = Instant::now();
        if guard.position() == 0 {
            break at < give_up_at || span.is_some();
        }
        if at >= give_up_at {
            break false;
        }
        if at >= wake_at {
            // Behind another request, whose departure wakes this one.
            drop(timeout_at(give_up_at, context.engine.capacity_changed.notified()).await);
        }
    };
    state.waited += started.elapsed();
    ok
}
