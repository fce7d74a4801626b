//! A project's limits on its way in: counted, reserved, waited for; settled and given back at the
//! end.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};
use tokio::time::{Instant, timeout_at};

use super::{
    engine::Engine,
    rounds::Job,
    waiting::{Line, set_of_project},
};
use crate::{
    config::settings::Project,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Op,
        usage::Usage,
    },
    routing::{
        candidate::print_span,
        limits::{
            AdmissionRequest, LimitAdmission, LimitExceeded, ProjectLimitKind, RemainingLimit,
        },
    },
};

/// What a request holds of its project's limits; given back when dropped.
pub struct Admission {
    engine: Arc<Engine>,
    project: Arc<Project>,
    booking: Option<LimitAdmission>,
    inside: bool,
}

/// Lets a request of a project with limits in.
///
/// # Errors
///
/// 429: over the requests or tokens a minute at once, over the requests at once after a wait.
pub(super) async fn enter(job: &mut Job) -> Result<(), ProxyError> {
    let project = &job.ask.caller.project;
    if project.rpm == 0 && project.tpm == 0 && project.max_concurrency == 0 {
        return Ok(());
    }
    let project = Arc::clone(project);
    let admission = Admission {
        engine: Arc::clone(&job.engine),
        project: Arc::clone(&project),
        booking: None,
        inside: false,
    };
    // Kept also where it lets nobody in: the refusal's head tells what is left.
    let admission = job.tally.admission.insert(Box::new(admission));
    let ask = &job.ask;
    let answers = matches!(ask.endpoint.op, Op::Chat | Op::Completions);
    let input = if matches!(ask.endpoint.op, Op::CountTokens | Op::ModelCard | Op::Stored | Op::Raw)
    {
        0
    } else {
        ask.estimate
    };
    let wanted = AdmissionRequest {
        model: &ask.asked,
        input,
        expects_output: answers,
        max_tokens: ask.max_tokens,
    };
    let now = job.engine.clock.mono();
    let booking = job
        .engine
        .projects
        .admit(&project, &wanted, now)
        .map_err(|full| over(&project, &full, full.until.since(now)))?;
    admission.booking = Some(booking);
    if project.max_concurrency == 0 {
        return Ok(());
    }
    let set = set_of_project(&project.name);
    if !job.engine.queue.awaits(set) && job.engine.projects.acquire_slot(&project) {
        admission.inside = true;
        return Ok(());
    }
    let patience = job.patience();
    let place = Line::join(&job.engine, set, &project.name)
        .ok_or_else(|| busy(&project, Duration::ZERO))?;
    job.tally.queued(format!(
        "waits for one of its project's {} places ({} before it)",
        project.max_concurrency,
        place.before()
    ));
    let give_up = Instant::now() + patience;
    loop {
        let changed = job.engine.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if place.before() == 0 && job.engine.projects.acquire_slot(&project) {
            break;
        }
        if timeout_at(give_up, changed).await.is_err() {
            return Err(busy(&project, patience));
        }
    }
    if let Some(admission) = &mut job.tally.admission {
        admission.inside = true;
    }
    Ok(())
}

fn over(project: &Project, full: &LimitExceeded, wait: Duration) -> ProxyError {
    let (what, key) = match full.kind {
        ProjectLimitKind::Requests => ("requests", "rpm"),
        ProjectLimitKind::Tokens => ("tokens", "tpm"),
    };
    let message = format!(
        "project `{}` has used its {} {what} a minute; there is room again in {} (`{key}` of its [[project]] row in the config)",
        project.name,
        full.limit,
        print_span(wait)
    );
    ProxyError::new(ProxyErrorKind::RateLimited, message)
        .code("project_rate_limit")
        .retry_after(Some(wait.max(Duration::from_secs(1))))
}

fn busy(project: &Project, waited: Duration) -> ProxyError {
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

impl Admission {
    /// The request is over: its place is free, and its tokens are what was used. `served`:
    /// something may have been used even where nobody said how much.
    pub(super) fn settle(&mut self, served: bool, usage: Option<Usage>) {
        if let Some(booking) = self.booking.take() {
            let real = usage
                .map(|usage| (usage.input_total(), usage.output_total()))
                .or(if served { None } else { Some((0, 0)) });
            self.engine.projects.settle(&self.project.name, &booking, real);
        }
        if std::mem::take(&mut self.inside) {
            self.engine.projects.release_slot(&self.project.name);
            self.engine.touch();
        }
    }

    /// Tells the client what is left, in the headers that SDKs and agents look at.
    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        let (requests, tokens) =
            self.engine.projects.remaining(&self.project, self.engine.clock.mono());
        let names = [
            [
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
            ],
            [
                "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
            ],
        ];
        for (names, left) in names.into_iter().zip([requests, tokens]) {
            let Some(RemainingLimit { limit, remaining, reset }) = left else { continue };
            headers.insert(names[0], HeaderValue::from(limit));
            headers.insert(names[1], HeaderValue::from(remaining));
            let seconds = format!("{}s", reset.as_secs_f64().ceil());
            if let Ok(value) = HeaderValue::from_str(&seconds) {
                headers.insert(names[2], value);
            }
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.settle(true, None);
    }
}
