//! Forwards a body in an unknown format to the client, as it arrives.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::relay::{
    attempt::{ownership::CreationReader, result::RawResponse},
    context::ActiveRequest,
    dispatch::final_error,
    record::attempt_guard::AttemptGuard,
};
use crate::{
    events::record::RequestState,
    relay::attempt::read_body,
    routing::{health::record::AttemptEnd, outcome},
    upstream::body::UpstreamBody,
};

/// The upstream's body broke while it was forwarded without parsing. Only closing the connection
/// can signal that to the client.
#[derive(Debug, thiserror::Error)]
#[error("the upstream's answer broke off")]
pub struct BodyAborted;

/// A body in an unknown format on its way to the client.
pub struct RawBody {
    active: Box<ActiveRequest>,
    body: Option<UpstreamBody>,
    guard: AttemptGuard,
    idle_timeout: Duration,
    ttft: Duration,
    /// Present while ids of what the request created may follow.
    created: Option<CreationReader>,
    timer: Pin<Box<Sleep>>,
}

impl RawBody {
    #[must_use]
    pub fn new(mut active: Box<ActiveRequest>, opaque: RawResponse) -> Self {
        let RawResponse { status, body, guard, idle_timeout, .. } = opaque;
        let ttft = active.recorder.attempt_age();
        active.context.drop_body();
        active.recorder.record_first_content(status.as_u16());
        guard.record(AttemptEnd::Content);
        let created = CreationReader::for_request(&active.context).filter(|_| status.is_success());
        Self {
            active,
            body: Some(body),
            guard,
            idle_timeout,
            ttft,
            created,
            timer: Box::pin(sleep_until(Instant::now() + idle_timeout)),
        }
    }

    /// Returns the next bytes; an error if the upstream broke off.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyAborted>>> {
        if let Poll::Ready(cause) = self.active.cancel.poll_cancelled(cx) {
            let error = final_error::cancelled_error(cause);
            return Poll::Ready(self.fail(AttemptEnd::Abandoned, &error.message));
        }
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.timer.as_mut().reset(Instant::now() + self.idle_timeout);
                        self.active.recorder.record_bytes(&data, 0);
                        if let Some(created) = &mut self.created
                            && !created.feed(&self.active.context, &data)
                        {
                            self.created = None;
                        }
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(fault))) => {
                    return Poll::Ready(self.fail(
                        AttemptEnd::BrokeAfterContent(&outcome::classify_transport(&fault)),
                        &fault.reason.to_string(),
                    ));
                }
                Poll::Ready(None) => {
                    self.body = None;
                    if let Some(created) = self.created.take() {
                        created.finish(&self.active.context);
                    }
                    self.guard.finish(AttemptEnd::Finished { ttft: Some(self.ttft), usage: None });
                    self.active.recorder.finish(RequestState::Done, None, None);
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    ready!(self.timer.as_mut().poll(cx));
                    let fault = read_body::idle_fault(self.idle_timeout);
                    return Poll::Ready(self.fail(
                        AttemptEnd::BrokeAfterContent(&outcome::classify_transport(&fault)),
                        &fault.reason.to_string(),
                    ));
                }
            }
        }
    }

    fn fail(&mut self, end: AttemptEnd<'_>, message: &str) -> Option<Result<Bytes, BodyAborted>> {
        self.body.take()?;
        self.guard.finish(end);
        self.active.recorder.finish(RequestState::Failed, None, Some(message));
        Some(Err(BodyAborted))
    }
}
