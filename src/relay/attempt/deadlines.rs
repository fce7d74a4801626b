//! The deadlines of one attempt.

use std::time::Duration;

use tokio::time::Instant;

use crate::relay::{
    attempt::{first_content, read_body::BodyLimits},
    context::RequestContext,
};
use crate::{
    config::settings::Settings,
    ir::{
        fault::{TransportFault, TransportKind},
        reason::failure::FailureReason,
    },
    routing::candidate::Target,
};

/// When an attempt and its parts have to be over.
pub(super) struct AttemptDeadlines {
    pub(super) first_byte_timeout: Duration,
    pub(super) first_byte_deadline: Instant,
    pub(super) idle_timeout: Duration,
    /// A non-streaming attempt ends here.
    total_deadline: Instant,
    /// The deadline is half of `total`.
    half_of_total: bool,
}

impl AttemptDeadlines {
    /// Derives the deadlines of an attempt at a target that starts now. The request ends at
    /// `deadline`.
    pub(super) fn new(context: &RequestContext, target: &Target, deadline: Instant) -> Self {
        let timeouts = &target.upstream.timeouts;
        let now = Instant::now();
        let first_byte_timeout = context.overrides.first_byte.unwrap_or(timeouts.first_byte);
        let total = context.overrides.total.unwrap_or(timeouts.total);
        // A non-streaming attempt may take half of the total timeout. A hanging attempt then fails
        // while there is still time for another before the client times out.
        let half = now + total / 2;
        let half_of_total = half < deadline;
        let total_deadline = if half_of_total { half } else { deadline };
        Self {
            half_of_total,
            first_byte_timeout,
            first_byte_deadline: if context.request.stream {
                now + first_byte_timeout
            } else {
                total_deadline
            },
            idle_timeout: context.overrides.idle.unwrap_or(timeouts.idle),
            total_deadline,
        }
    }

    pub(super) fn body_limits(&self, settings: &Settings) -> BodyLimits {
        BodyLimits {
            max_bytes: settings.server.max_response_bytes,
            buffer_limit: settings.server.max_buffered.unwrap_or(u64::MAX),
            deadline: self.total_deadline.max(self.first_byte_deadline),
            idle_timeout: self.idle_timeout,
            half_of_total: self.half_of_total,
        }
    }

    /// Returns the fault of an attempt that got no response in time.
    pub(super) fn no_answer_fault(&self, stream: bool) -> TransportFault {
        if stream {
            return first_content::first_byte_timeout(self.first_byte_timeout);
        }
        TransportFault {
            kind: TransportKind::TotalTimeout,
            reason: FailureReason::NoAnswer { half: self.half_of_total }.into(),
            may_be_received: true,
        }
    }
}
