//! Enforces a project's limits: counts and reserves at admission, queues if needed.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::relay::{
    context::ActiveRequest,
    dispatch::queue::{QueueGuard, project_queue_key},
    state::permits::Admission,
};
use crate::{
    base::units::print_span,
    config::settings::Project,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Op,
        reason::route::RouteReason,
    },
    routing::project_limits::{AdmissionRequest, LimitExceeded, ProjectLimitKind},
};

/// Admits a request of a project with limits.
///
/// # Errors
///
/// 429: at once if the request exceeds the requests or tokens per minute; after a wait if it
/// exceeds the concurrent requests.
pub(in crate::relay) async fn admit(active: &mut ActiveRequest) -> Result<(), ProxyError> {
    let project = &active.context.request.caller.project;
    if project.rpm == 0 && project.tpm == 0 && project.max_concurrency == 0 {
        return Ok(());
    }
    let project = Arc::clone(project);
    let admission = Admission::new(
        &active.context.engine.project_limits,
        &active.context.engine.capacity_changed,
        &project,
    );
    // Stored also when the request is refused: the head of the 429 shows what is left.
    let admission = active.recorder.admission.insert(Box::new(admission));
    let request = &active.context.request;
    let answers = matches!(request.endpoint.op, Op::Chat | Op::Completions);
    let input =
        if matches!(request.endpoint.op, Op::CountTokens | Op::ModelCard | Op::Stored | Op::Raw) {
            0
        } else {
            request.estimate
        };
    let wanted = AdmissionRequest {
        model: &request.requested_model,
        input,
        expects_output: answers,
        max_tokens: request.max_tokens,
    };
    let now = active.context.engine.clock.mono();
    let booking = active
        .context
        .engine
        .project_limits
        .admit(&project, &wanted, now)
        .map_err(|full| rate_limited(&project, &full, full.until.since(now)))?;
    admission.limit_admission = Some(booking);
    if project.max_concurrency == 0 {
        return Ok(());
    }
    let set = project_queue_key(&project.name);
    if !active.context.engine.wait_queue.has_waiters(set)
        && active.context.engine.project_limits.acquire_slot(&project)
    {
        admission.holds_slot = true;
        return Ok(());
    }
    let timeout = active.context.queue_timeout();
    let engine = &active.context.engine;
    let slot = QueueGuard::join(&engine.wait_queue, &engine.capacity_changed, set, &project.name)
        .ok_or_else(|| concurrency_exceeded(&project, Duration::ZERO))?;
    active.recorder.publish_queued(RouteReason::WaitsForSlot {
        slots: project.max_concurrency,
        ahead: slot.position(),
    });
    let deadline = Instant::now() + timeout;
    loop {
        let changed = active.context.engine.capacity_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if slot.position() == 0 && active.context.engine.project_limits.acquire_slot(&project) {
            break;
        }
        if timeout_at(deadline, changed).await.is_err() {
            return Err(concurrency_exceeded(&project, timeout));
        }
    }
    if let Some(admission) = &mut active.recorder.admission {
        admission.holds_slot = true;
    }
    Ok(())
}

fn rate_limited(project: &Project, full: &LimitExceeded, wait: Duration) -> ProxyError {
    let (unit, key) = match full.kind {
        ProjectLimitKind::Requests => ("requests", "rpm"),
        ProjectLimitKind::Tokens => ("tokens", "tpm"),
    };
    let message = format!(
        "project `{}` has used its {} {unit} a minute; there is room again in {} (`{key}` of its [[project]] row in the config)",
        project.name,
        full.limit,
        print_span(wait)
    );
    ProxyError::new(ProxyErrorKind::RateLimited, message)
        .code("project_rate_limit")
        .retry_after(Some(wait.max(Duration::from_secs(1))))
}

fn concurrency_exceeded(project: &Project, waited: Duration) -> ProxyError {
    let message = format!(
        "project `{}` has {} requests under way and none ended within {} (`max_concurrency` of its [[project]] row in the config)",
        project.name,
        project.max_concurrency,
        print_span(waited)
    );
    ProxyError::new(ProxyErrorKind::RateLimited, message)
        .code("project_busy")
        .retry_after(Some(Duration::from_secs(1)))
}
