//! Sends the response head and keep-alive pings when no content has arrived after 10 s, while
//! failover continues in the background.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::relay::{
    attempt::result::{AttemptResponse, FullResponse},
    context::ActiveRequest,
    response::stream::{PING_AFTER, StreamBody},
};
use crate::{
    dialect::{Framing, Ingress},
    events::record::RequestState,
    ir::fault::ProxyError,
    routing::health::record::AttemptEnd,
};

/// The future of a request's dispatch loop.
pub type ResponseFuture =
    Pin<Box<dyn Future<Output = (Box<ActiveRequest>, Result<AttemptResponse, ProxyError>)> + Send>>;

/// The body of a response whose head left before its content was known.
pub struct KeepAliveBody {
    ingress: &'static dyn Ingress,
    framing: Framing,
    timer: Pin<Box<Sleep>>,
    state: KeepAliveState,
}

enum KeepAliveState {
    Pending(ResponseFuture),
    Streaming(Box<StreamBody>),
    Final(Bytes),
    Done,
}

impl KeepAliveBody {
    #[must_use]
    pub fn new(ingress: &'static dyn Ingress, framing: Framing, future: ResponseFuture) -> Self {
        Self {
            ingress,
            framing,
            timer: Box::pin(sleep_until(Instant::now())),
            state: KeepAliveState::Pending(future),
        }
    }

    /// Returns the next bytes: pings while dispatch is running, then the stream or the error event.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match &mut self.state {
                KeepAliveState::Pending(future) => {
                    let Poll::Ready((mut active, result)) = future.as_mut().poll(cx) else {
                        if self.timer.as_mut().poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                        self.timer.as_mut().reset(Instant::now() + PING_AFTER);
                        match self.ingress.ping(self.framing) {
                            Some(ping) => return Poll::Ready(Some(Bytes::from_static(ping))),
                            None => continue,
                        }
                    };
                    self.state = match result {
                        Ok(AttemptResponse::Stream(committed)) => {
                            KeepAliveState::Streaming(Box::new(StreamBody::new(active, *committed)))
                        }
                        Ok(AttemptResponse::Full(full)) => {
                            let FullResponse { body, mut guard, summary, .. } = *full;
                            guard.finish(AttemptEnd::Finished { ttft: None, usage: summary.usage });
                            active.recorder.record_bytes(&body, 0);
                            active.recorder.set_status(200);
                            active.recorder.finish(RequestState::Done, Some(&summary), None);
                            KeepAliveState::Final(body)
                        }
                        // Only conversations get an early head, and their bodies are never opaque.
                        Ok(AttemptResponse::Raw(_)) => KeepAliveState::Done,
                        Err(error) => {
                            let last = active.context.ingress.stream_error(
                                &error,
                                &active.context.request.id.to_string(),
                                self.framing,
                            );
                            active.recorder.set_status(200);
                            active.recorder.record_local_bytes(&last);
                            active.recorder.finish(
                                RequestState::Failed,
                                None,
                                Some(&error.message),
                            );
                            KeepAliveState::Final(last)
                        }
                    };
                }
                KeepAliveState::Streaming(pump) => return pump.poll(cx),
                KeepAliveState::Final(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.state = KeepAliveState::Done;
                    return Poll::Ready((!bytes.is_empty()).then_some(bytes));
                }
                KeepAliveState::Done => return Poll::Ready(None),
            }
        }
    }
}
