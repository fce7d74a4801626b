//! Tracks the usage of project limits: requests and tokens over a sliding minute, and concurrent
//! requests.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    base::{
        clock::Mono,
        rolling::{MINUTE, RollingReservation, SlidingLog, SlidingSum},
        sync::{Mutex, MutexGuard},
    },
    config::settings::Project,
};

/// Output tokens that are reserved while a model's output length is unknown.
pub(super) const DEFAULT_OUTPUT_TOKENS: u64 = 1_024;
/// The weight of the newest response in the typical output length.
const NEWEST_WEIGHT: f64 = 0.2;
/// Models whose typical output is stored per project. Their names come from clients, so the number
/// is bounded.
const MAX_MODELS: usize = 64;

/// The typical number of output tokens, by model.
#[derive(Clone, Debug, Default)]
pub struct OutputEstimator(Vec<(Arc<str>, f64)>);

impl OutputEstimator {
    /// Returns the output tokens to reserve: the typical number, at most what the client allows.
    #[must_use]
    pub fn estimate(&self, model: &str, max_tokens: Option<u64>) -> u64 {
        let usual = self
            .0
            .iter()
            .find(|(name, _)| **name == *model)
            .map_or(DEFAULT_OUTPUT_TOKENS, |(_, tokens)| tokens.ceil() as u64);
        usual.min(max_tokens.unwrap_or(u64::MAX))
    }

    pub fn record(&mut self, model: &Arc<str>, output: u64) {
        let output = output as f64;
        if let Some((_, usual)) = self.0.iter_mut().find(|(name, _)| name == model) {
            *usual += NEWEST_WEIGHT * (output - *usual);
            return;
        }
        if self.0.len() >= MAX_MODELS {
            self.0.remove(0);
        }
        self.0.push((Arc::clone(model), output));
    }
}

/// An admitted request; the caller passes it to [`ProjectLimits::settle`] once its tokens are
/// known.
#[derive(Clone, Debug)]
pub struct LimitAdmission {
    model: Arc<str>,
    tokens: Option<RollingReservation>,
}

/// The input of an admission check.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionRequest<'a> {
    pub model: &'a Arc<str>,
    /// Estimated input tokens.
    pub input: u64,
    /// Whether the response has output tokens; `max_tokens` is the most that the client allows.
    pub expects_output: bool,
    pub max_tokens: Option<u64>,
}

/// Which limit is used up, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitExceeded {
    pub kind: ProjectLimitKind,
    pub limit: u32,
    pub until: Mono,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectLimitKind {
    Requests,
    Tokens,
}

/// One limit as reported to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemainingLimit {
    pub limit: u32,
    pub remaining: u64,
    /// The time until the full limit is available again.
    pub reset: Duration,
}

#[derive(Debug, Default)]
struct ProjectUsage {
    requests: SlidingLog,
    tokens: SlidingSum,
    running: u32,
    output_estimator: OutputEstimator,
}

/// All projects by name, behind one lock. Counts survive a reload; the limits are those of the
/// request's project row.
#[derive(Debug, Default)]
pub struct ProjectLimits(Mutex<HashMap<Arc<str>, ProjectUsage>>);

impl ProjectLimits {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, ProjectUsage>> {
        self.0.lock()
    }

    /// Counts a request and reserves its tokens, unless a limit is used up. A refused request is
    /// not counted, so that repeated requests do not extend the wait.
    ///
    /// # Errors
    ///
    /// The used-up limit that ends last.
    pub fn admit(
        &self,
        project: &Project,
        request: &AdmissionRequest<'_>,
        now: Mono,
    ) -> Result<LimitAdmission, LimitExceeded> {
        let mut all = self.lock();
        let used = all.entry(Arc::clone(&project.name)).or_default();
        let output = if request.expects_output {
            used.output_estimator.estimate(request.model, request.max_tokens)
        } else {
            0
        };
        let tokens = request.input.saturating_add(output);
        let over_rpm = used.requests.full_until(project.rpm, MINUTE, now);
        let over_tpm = used.tokens.full_until(u64::from(project.tpm), tokens, now);
        let full = over_rpm
            .map(|until| LimitExceeded {
                kind: ProjectLimitKind::Requests,
                limit: project.rpm,
                until,
            })
            .into_iter()
            .chain(over_tpm.map(|until| LimitExceeded {
                kind: ProjectLimitKind::Tokens,
                limit: project.tpm,
                until,
            }));
        if let Some(full) = full.max_by_key(|full| full.until) {
            return Err(full);
        }
        if project.rpm > 0 {
            used.requests.record(MINUTE, now);
        }
        let tokens = (project.tpm > 0).then(|| used.tokens.reserve(tokens, now));
        Ok(LimitAdmission { model: Arc::clone(request.model), tokens })
    }

    /// Settles the tokens of an admitted request with the provider's input and output counts. With
    /// `None` the provider reported no counts, and the reservation remains.
    pub fn settle(&self, project: &str, booking: &LimitAdmission, actual: Option<(u64, u64)>) {
        let mut all = self.lock();
        let (Some(used), Some(booked), Some((input, output))) =
            (all.get_mut(project), booking.tokens, actual)
        else {
            return;
        };
        used.tokens.correct(booked, input.saturating_add(output));
        if output > 0 {
            used.output_estimator.record(&booking.model, output);
        }
    }

    /// Acquires one of the project's concurrency slots; returns false if none is free.
    #[must_use]
    pub fn acquire_slot(&self, project: &Project) -> bool {
        let mut all = self.lock();
        let used = all.entry(Arc::clone(&project.name)).or_default();
        let free = project.max_concurrency == 0 || used.running < project.max_concurrency;
        used.running += u32::from(free);
        free
    }

    /// Releases a slot.
    pub fn release_slot(&self, project: &str) {
        if let Some(used) = self.lock().get_mut(project) {
            used.running = used.running.saturating_sub(1);
        }
    }

    /// Returns what is left of the project's limits: requests, tokens.
    #[must_use]
    pub fn remaining(
        &self,
        project: &Project,
        now: Mono,
    ) -> (Option<RemainingLimit>, Option<RemainingLimit>) {
        let all = self.lock();
        let Some(used) = all.get(&project.name) else { return (None, None) };
        let (requests, until) = used.requests.count_within(MINUTE, now);
        let tokens = used.tokens.sum(now);
        let remaining = |limit: u32, used: u64, reset| {
            (limit > 0).then(|| RemainingLimit {
                limit,
                remaining: u64::from(limit).saturating_sub(used),
                reset,
            })
        };
        (
            remaining(
                project.rpm,
                requests as u64,
                until.map_or(Duration::ZERO, |until| until.since(now)),
            ),
            remaining(project.tpm, tokens, if tokens == 0 { Duration::ZERO } else { MINUTE }),
        )
    }

    /// Returns the number of running requests of a project.
    #[must_use]
    pub fn running(&self, project: &str) -> u32 {
        self.lock().get(project).map_or(0, |used| used.running)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::test_support::{at, cases, project};

    fn limited(rpm: u32, tpm: u32, max_concurrency: u32) -> Project {
        Project { rpm, tpm, max_concurrency, ..project(&["*"], &["*"]) }
    }

    fn admit(
        projects: &ProjectLimits,
        project: &Project,
        input: u64,
        max_tokens: Option<u64>,
        now: u64,
    ) -> Result<LimitAdmission, LimitExceeded> {
        let model: Arc<str> = "m".into();
        projects.admit(
            project,
            &AdmissionRequest { model: &model, input, expects_output: true, max_tokens },
            at(now),
        )
    }

    #[test]
    fn request_over_the_rate_is_refused_until_the_minute_has_passed() {
        let (projects, ide) = (ProjectLimits::default(), limited(2, 0, 0));
        admit(&projects, &ide, 1, None, 0).expect("the first");
        admit(&projects, &ide, 1, None, 10).expect("the second");

        for now in [20, 59] {
            let full = admit(&projects, &ide, 1, None, now).expect_err("a third");
            assert_eq!(
                full,
                LimitExceeded { kind: ProjectLimitKind::Requests, limit: 2, until: at(60) }
            );
        }
        assert!(
            admit(&projects, &ide, 1, None, 60).is_ok(),
            "refusals did not make the wait longer"
        );
        assert_eq!(
            projects.remaining(&ide, at(60)).0,
            Some(RemainingLimit { limit: 2, remaining: 0, reset: MINUTE })
        );
    }

    #[test]
    fn tokens_are_reserved_and_settled_by_actual_use() {
        let (projects, ide) = (ProjectLimits::default(), limited(0, 2_000, 0));
        let first = admit(&projects, &ide, 500, None, 0).expect("1,524 reserved");
        assert_eq!(
            admit(&projects, &ide, 500, None, 1).expect_err("no room").kind,
            ProjectLimitKind::Tokens
        );

        projects.settle("ide", &first, Some((480, 20)));

        assert_eq!(projects.remaining(&ide, at(1)).1.map(|left| left.remaining), Some(1_500));
        admit(&projects, &ide, 500, None, 2).expect("answers are usually of 20 tokens");
        assert_eq!(projects.remaining(&ide, at(2)).1.map(|left| left.remaining), Some(980));
    }

    #[test]
    fn reservation_never_exceeds_the_limit_of_the_client() {
        let (projects, ide) = (ProjectLimits::default(), limited(0, 1_000, 0));
        admit(&projects, &ide, 100, Some(50), 0).expect("150 reserved");
        assert_eq!(projects.remaining(&ide, at(0)).1.map(|left| left.remaining), Some(850));
    }

    #[test]
    fn concurrency_slots_are_released() {
        let (projects, ide) = (ProjectLimits::default(), limited(0, 0, 2));
        assert_eq!([(); 3].map(|()| projects.acquire_slot(&ide)), [true, true, false]);
        projects.release_slot("ide");
        assert!(projects.acquire_slot(&ide));
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn requests_per_minute_never_exceed_the_limit(passes in proptest::collection::vec(0_u64..20, 1..80)) {
            let (projects, ide) = (ProjectLimits::default(), limited(5, 0, 0));
            let (mut now, mut went) = (0, Vec::new());
            for pass in passes {
                now += pass;
                match admit(&projects, &ide, 1, None, now) {
                    Ok(_) => went.push(now),
                    Err(full) => prop_assert!(full.until > at(now) && full.until <= at(now + 60)),
                }
                prop_assert!(went.iter().filter(|&&at| now - at < 60).count() <= 5);
            }
        }
    }
}
