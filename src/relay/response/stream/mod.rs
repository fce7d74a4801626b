//! Forwards a stream to the client: whole events as they arrive, batched when ready, the first at
//! once.

mod output_buffer;
mod resume;

use std::{
    borrow::Cow,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::relay::{
    attempt::{
        read_body::{self, GRACE},
        result::{StreamFailure, StreamResponse},
        translate,
    },
    context::ActiveRequest,
    dispatch::final_error,
    record::attempt_guard::AttemptGuard,
    response::{
        rescue::{self, PendingRescue, Rescue},
        stream::output_buffer::OutputBuffer,
    },
};
use crate::{
    dialect::{
        event_decoder::{FeedResult, StreamEnd},
        response_stream::ResponseStream,
    },
    events::record::RequestState,
    ir::{fault::TransportKind, usage::Usage},
    routing::{health::record::AttemptEnd, outcome},
    upstream::body::UpstreamBody,
};

/// Silence after which the client gets a ping in its dialect.
pub(in crate::relay) const PING_AFTER: Duration = Duration::from_secs(10);
/// How long the upstream may take to end its body after the terminal event, so that its connection
/// can be reused.
const LINGER: Duration = Duration::from_millis(20);

/// A committed stream on its way to the client. Dropping it closes the upstream.
pub struct StreamBody {
    active: Box<ActiveRequest>,
    stream: ResponseStream,
    body: Option<UpstreamBody>,
    guard: AttemptGuard,
    output: OutputBuffer,
    idle_timeout: Duration,
    ttft: Duration,
    last_read_at: Instant,
    /// The idle limit has passed once, and the sockets are read once more.
    in_grace: bool,
    last_write_at: Instant,
    timer: Pin<Box<Sleep>>,
    state: StreamState,
    /// The state to continue it elsewhere, if its model has rescue enabled.
    rescue: Option<Box<Rescue>>,
    /// The upstream that failed, if no other target could continue the stream.
    failed_upstream: Option<Arc<str>>,
}

enum StreamState {
    Streaming,
    /// The terminal event has arrived; waits briefly for the end of the body.
    Lingering,
    Failed(StreamFailure),
    /// Another target continues from the partial text.
    Resuming(Box<Resuming>),
    Done,
}

/// An attempt to continue a stream, and what broke the stream.
struct Resuming {
    pending: PendingRescue,
    /// The attempt's number.
    number: u32,
    failure: StreamFailure,
    /// The upstream that failed.
    upstream: Arc<str>,
    /// What the response had used until then.
    prior_usage: Usage,
}

impl StreamBody {
    /// Takes over a stream whose first content is buffered.
    #[must_use]
    pub fn new(mut active: Box<ActiveRequest>, committed: StreamResponse) -> Self {
        let StreamResponse {
            status,
            buffered_frames,
            stream,
            body,
            terminal_seen: terminal,
            failure: broke,
            guard,
            idle_timeout,
            ..
        } = committed;
        let ttft = active.recorder.attempt_age();
        let rescue = if active.context.rescue_targets.is_some() {
            Rescue::from_request(&mut active, &stream)
        } else {
            None
        };
        active.context.drop_body();
        translate::release_parsed(&mut active.context);
        active.recorder.record_first_content(status.as_u16());
        guard.record(AttemptEnd::Content);
        let now = Instant::now();
        let state = match (broke, &body) {
            (Some(broke), _) => StreamState::Failed(broke),
            (None, Some(_)) if terminal => StreamState::Lingering,
            (None, _) => StreamState::Streaming,
        };
        let linger = if matches!(state, StreamState::Lingering) {
            LINGER
        } else {
            idle_timeout.min(PING_AFTER)
        };
        Self {
            active,
            stream,
            body,
            guard,
            output: OutputBuffer::new(buffered_frames),
            idle_timeout,
            ttft,
            last_read_at: now,
            in_grace: false,
            last_write_at: now,
            timer: Box::pin(sleep_until(now + linger)),
            state,
            rescue,
            failed_upstream: None,
        }
    }

    /// Returns the next bytes for the client; `None` at the end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if matches!(self.state, StreamState::Streaming | StreamState::Resuming(_))
            && let Poll::Ready(cause) = self.active.cancel.poll_cancelled(cx)
        {
            self.body = None;
            if let StreamState::Resuming(resuming) = &self.state {
                let recorder = &mut self.active.recorder;
                recorder.attempt_failed(resuming.number, None, &cause.failure_reason(), true);
            }
            self.state = StreamState::Failed(StreamFailure::Cancelled(cause));
        }
        loop {
            match self.state {
                StreamState::Streaming | StreamState::Lingering if self.body.is_some() => {
                    match self.poll_upstream(cx) {
                        Poll::Ready(()) => {}
                        Poll::Pending => return self.coalesce(cx),
                    }
                }
                StreamState::Streaming | StreamState::Lingering => {
                    if let Some(bytes) = self.take_buffered() {
                        return Poll::Ready(Some(bytes));
                    }
                    self.finish();
                }
                StreamState::Failed(_) => {
                    if let Some(bytes) = self.take_buffered() {
                        return Poll::Ready(Some(bytes));
                    }
                    if self.rescue.is_none() || !self.start_rescue(None) {
                        return Poll::Ready(Some(self.end_with_error()));
                    }
                }
                StreamState::Resuming(_) => return self.poll_rescue(cx),
                StreamState::Done => return Poll::Ready(None),
            }
            if self.output.is_full()
                && let Some(bytes) = self.take_buffered()
            {
                return Poll::Ready(Some(bytes));
            }
        }
    }

    /// Reads one chunk from the upstream, or its end.
    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(body) = &mut self.body else { return Poll::Ready(()) };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => return Poll::Pending,
        };
        match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
            Some(Ok(Ok(data))) if matches!(self.state, StreamState::Streaming) => {
                let now = Instant::now();
                let since_last_read = now - self.last_read_at;
                self.last_read_at = now;
                self.in_grace = false;
                let FeedResult { error, terminal, .. } =
                    self.output.fill(since_last_read, |frames| self.stream.feed(data, frames));
                if let Some(fault) = error {
                    self.body = None;
                    self.state = StreamState::Failed(StreamFailure::Upstream(fault));
                } else if terminal {
                    self.state = StreamState::Lingering;
                    self.timer.as_mut().reset(self.last_read_at + LINGER);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(_)) if matches!(self.state, StreamState::Lingering) => self.body = None,
            Some(Err(fault)) => {
                self.body = None;
                // The break may have lost only the end of a stream that is complete.
                let ending = self.output.append(|frames| self.stream.finish(frames));
                if ending == StreamEnd::Truncated || fault.kind != TransportKind::BodyBroken {
                    self.state = StreamState::Failed(StreamFailure::Transport(fault));
                }
            }
            None => {
                self.body = None;
                if matches!(self.state, StreamState::Streaming) {
                    let ending = self.output.append(|frames| self.stream.finish(frames));
                    if ending == StreamEnd::Truncated {
                        self.state = StreamState::Failed(
                            self.stream
                                .take_trailing_error()
                                .map_or(StreamFailure::Truncated, StreamFailure::Upstream),
                        );
                    }
                }
            }
        }
        Poll::Ready(())
    }

    /// Sends the buffered events after a few turns in which more may arrive.
    fn coalesce(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.output.is_empty() {
            if self.output.waits_for_more() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(self.take_buffered());
        }
        ready!(self.timer.as_mut().poll(cx));
        self.on_timer(cx)
    }

    /// Handles the timer: idle limit, ping, or the end of lingering.
    fn on_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let now = Instant::now();
        if matches!(self.state, StreamState::Lingering) {
            self.body = None;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if now >= self.last_read_at + self.idle_timeout
            && !std::mem::replace(&mut self.in_grace, true)
        {
            // Reads what arrived while this process slept before the limit counts.
            self.timer.as_mut().reset(now + GRACE);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if now >= self.last_read_at + self.idle_timeout {
            self.body = None;
            if self.stream.is_complete() {
                // The response is complete; only the end of the body is missing.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.state = StreamState::Failed(StreamFailure::Transport(read_body::idle_fault(
                self.idle_timeout,
            )));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut ping = None;
        if now >= self.last_write_at + PING_AFTER {
            self.last_write_at = now;
            ping = self.active.context.ingress.ping(self.active.context.request.framing);
        }
        self.timer
            .as_mut()
            .reset((self.last_read_at + self.idle_timeout).min(self.last_write_at + PING_AFTER));
        match ping {
            Some(ping) => Poll::Ready(Some(Bytes::from_static(ping))),
            None => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Takes all buffered bytes as one piece, and counts them as sent.
    fn take_buffered(&mut self) -> Option<Bytes> {
        let bytes = self.output.take()?;
        self.last_write_at = self.last_read_at;
        self.active.recorder.record_bytes(&bytes, u64::from(self.stream.content_events()));
        Some(bytes)
    }

    fn finish(&mut self) {
        let summary = self.stream.summary();
        if let Some(response) = self.stream.take_response() {
            translate::store_response(&self.active.context, &response);
        }
        translate::remember_upstream_response(
            &self.active.context,
            self.stream.response_id(),
            &Bytes::new(),
        );
        self.guard.finish(AttemptEnd::Finished { ttft: Some(self.ttft), usage: summary.usage });
        self.active.recorder.finish(RequestState::Done, Some(&summary), None);
        self.state = StreamState::Done;
    }

    /// Writes the error event of the client's dialect, and ends the stream.
    fn end_with_error(&mut self) -> Bytes {
        let StreamState::Failed(failure) = std::mem::replace(&mut self.state, StreamState::Done)
        else {
            return Bytes::new();
        };
        let upstream =
            self.failed_upstream.take().unwrap_or_else(|| self.active.recorder.upstream().clone());
        let error = match &failure {
            StreamFailure::Upstream(fault) => {
                let message = self.active.context.engine.sanitize(&fault.message);
                self.guard.finish(AttemptEnd::BrokeAfterContent(&outcome::classify_fault(
                    fault, None, true,
                )));
                final_error::stream_error(fault, format!("upstream {upstream}: {message}"))
            }
            StreamFailure::Transport(fault) => {
                self.guard
                    .finish(AttemptEnd::BrokeAfterContent(&outcome::classify_transport(fault)));
                final_error::transport_error(&self.active.context, fault, &upstream)
            }
            StreamFailure::Truncated => {
                let fault = rescue::truncated_fault();
                self.guard
                    .finish(AttemptEnd::BrokeAfterContent(&outcome::classify_transport(&fault)));
                final_error::transport_error(&self.active.context, &fault, &upstream)
            }
            StreamFailure::Cancelled(cause) => {
                self.guard.finish(AttemptEnd::Abandoned);
                final_error::cancelled_error(*cause)
            }
        };
        let summary = self.stream.summary();
        // Prefers the upstream's own error event if it may be shown unchanged.
        let upstream_event = self
            .stream
            .upstream_error_frame()
            .filter(|_| matches!(failure, StreamFailure::Upstream(_)));
        let upstream_event = upstream_event.filter(|event| {
            std::str::from_utf8(event).is_ok_and(|text| {
                matches!(self.active.context.engine.redactor.redact(text), Cow::Borrowed(_))
            })
        });
        let last = upstream_event.cloned().unwrap_or_else(|| {
            self.stream.error_frame(&error, &self.active.context.request.id.to_string())
        });
        self.active.recorder.record_local_bytes(&last);
        self.active.recorder.finish(RequestState::Failed, Some(&summary), Some(&error.message));
        last
    }
}

impl Drop for StreamBody {
    /// The client disconnected: only now is it known what was used until here.
    fn drop(&mut self) {
        match self.state {
            StreamState::Done => {}
            // The usage of the interrupted part is already booked.
            StreamState::Resuming(_) => {
                self.active.recorder.finish(RequestState::ClientGone, None, None);
            }
            _ => {
                let summary = self.stream.summary();
                self.active.recorder.finish(RequestState::ClientGone, Some(&summary), None);
            }
        }
    }
}
