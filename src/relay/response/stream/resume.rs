//! Continues a stream that broke off with the stream of another target.

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::relay::{
    attempt::{
        result::{AttemptResponse, StreamResponse},
        translate,
    },
    context::RequestContext,
    dispatch::explain,
    response::{
        rescue,
        stream::{LINGER, PING_AFTER, Resuming, StreamBody, StreamState},
    },
};
use crate::{
    dialect::ResponseSpec,
    events::record::AttemptRole,
    ir::{
        reason::{failure::FailureReason, route::RouteReason},
        usage::Usage,
    },
    routing::health::record::AttemptEnd,
};

impl StreamBody {
    /// Starts to continue a stream that broke off; returns false if that is not possible.
    /// `earlier`: the failed upstream and what it used, if an attempt to continue has already
    /// failed.
    pub(super) fn start_rescue(&mut self, earlier: Option<(Arc<str>, Usage)>) -> bool {
        let StreamState::Failed(broke) = &self.state else { return false };
        let (Some(rescue), Some(outcome)) = (&mut self.rescue, rescue::recoverable_outcome(broke))
        else {
            return false;
        };
        self.guard.finish(AttemptEnd::BrokeAfterContent(&outcome));
        let Some(mut begun) = rescue.start(&self.stream) else {
            self.rescue = None;
            return false;
        };
        let StreamState::Failed(broke) = std::mem::replace(&mut self.state, StreamState::Done)
        else {
            return false;
        };
        let recorder = &mut self.active.recorder;
        let (upstream, before) = earlier.unwrap_or_else(|| {
            let reason = FailureReason::BrokeOff {
                characters: begun.resumed_chars,
                cause: Arc::clone(&outcome.cause),
            };
            let upstream = Arc::clone(recorder.upstream());
            (
                upstream,
                recorder
                    .attempt_interrupted(None, &reason, &self.stream.summary())
                    .unwrap_or_default(),
            )
        });
        let reason = RouteReason::Rescue {
            upstream: Arc::clone(&upstream),
            characters: begun.resumed_chars,
            cause: self.active.context.engine.sanitize_reason(&outcome.cause),
        };
        let role = (AttemptRole::Rescue, false);
        let budget_hold = begun.budget_hold.take();
        let number = recorder.attempt_started(&begun.candidate, role, budget_hold, reason.into());
        self.timer.as_mut().reset(Instant::now() + PING_AFTER);
        self.state = StreamState::Resuming(Box::new(Resuming {
            pending: begun,
            number,
            failure: broke,
            upstream,
            prior_usage: before,
        }));
        true
    }

    /// Polls the attempt that is to continue; keeps the client's connection alive meanwhile.
    pub(super) fn poll_rescue(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let StreamState::Resuming(rescuing) = &mut self.state else { return Poll::Ready(None) };
        let Poll::Ready((second, result)) = rescuing.pending.future.as_mut().poll(cx) else {
            loop {
                ready!(self.timer.as_mut().poll(cx));
                self.last_write_at = Instant::now();
                self.timer.as_mut().reset(self.last_write_at + PING_AFTER);
                if let Some(ping) =
                    self.active.context.ingress.ping(self.active.context.request.framing)
                {
                    return Poll::Ready(Some(Bytes::from_static(ping)));
                }
            }
        };
        let StreamState::Resuming(rescuing) = std::mem::replace(&mut self.state, StreamState::Done)
        else {
            return Poll::Ready(None);
        };
        let Resuming { pending: begun, number, failure: broke, upstream, prior_usage: before } =
            *rescuing;
        match result {
            Ok(AttemptResponse::Stream(committed)) => self.resume(second, *committed, before),
            other => {
                if let Err(failure) = &other {
                    explain::publish_failure(
                        &self.active.context.engine,
                        &mut self.active.recorder,
                        (number, &begun.candidate),
                        failure,
                    );
                }
                if let Some(rescue) = &mut self.rescue {
                    rescue.return_context(second);
                }
                self.state = StreamState::Failed(broke);
                // The first attempt is already recorded; another target may still continue.
                if !self.start_rescue(Some((Arc::clone(&upstream), before))) {
                    self.failed_upstream = Some(upstream);
                    self.rescue = None;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Continues with another target's stream.
    fn resume(
        &mut self,
        mut second: Box<RequestContext>,
        committed: StreamResponse,
        before: Usage,
    ) {
        let StreamResponse {
            status,
            stream: flow,
            body,
            terminal_seen: terminal,
            failure: broke,
            guard,
            idle_timeout: idle,
            ..
        } = committed;
        let context = &self.active.context;
        let writer = |model: &str| {
            context.ingress.stream_writer(&ResponseSpec {
                model: model.to_owned(),
                ..translate::response_spec(context)
            })
        };
        self.output.append(|frames| self.stream.resume(flow, writer, before, frames));
        self.guard = guard;
        self.guard.record(AttemptEnd::Content);
        self.ttft = self.active.recorder.attempt_age();
        self.active.recorder.record_first_content(status.as_u16());
        (self.active.context.attempt_context, self.active.context.attempt_target) =
            (second.attempt_context.take(), second.attempt_target);
        (self.idle_timeout, self.last_read_at, self.in_grace) = (idle, Instant::now(), false);
        self.state = match (broke, &body) {
            (Some(broke), _) => StreamState::Failed(broke),
            (None, Some(_)) if terminal => StreamState::Lingering,
            (None, _) => StreamState::Streaming,
        };
        let wait = if matches!(self.state, StreamState::Lingering) {
            LINGER
        } else {
            idle.min(PING_AFTER)
        };
        self.timer.as_mut().reset(self.last_read_at + wait);
        self.body = body;
        if let Some(rescue) = &mut self.rescue {
            rescue.return_context(second);
        }
    }
}
