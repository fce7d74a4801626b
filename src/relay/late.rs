//! A stream without content for ten seconds: its head and our pings leave, failover goes on behind
//! them.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    answer::{Whole, Won},
    pump::{PING, Pump},
    rounds::Job,
};
use crate::{
    dialect::{Framing, Ingress},
    events::record::RequestState,
    ir::fault::ProxyError,
    routing::ending::AttemptEnd,
};

/// The future of a request's rounds.
pub type Rounds = Pin<Box<dyn Future<Output = (Box<Job>, Result<Won, ProxyError>)> + Send>>;

/// The body of an answer whose head left before its content was known.
pub struct Late {
    ingress: &'static dyn Ingress,
    framing: Framing,
    alarm: Pin<Box<Sleep>>,
    stage: Stage,
}

enum Stage {
    Waiting(Rounds),
    Flowing(Box<Pump>),
    Last(Bytes),
    Over,
}

impl Late {
    #[must_use]
    pub fn new(ingress: &'static dyn Ingress, framing: Framing, rounds: Rounds) -> Self {
        Self {
            ingress,
            framing,
            alarm: Box::pin(sleep_until(Instant::now())),
            stage: Stage::Waiting(rounds),
        }
    }

    /// The next bytes: pings while nothing is decided, then the stream or the error event.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match &mut self.stage {
                Stage::Waiting(rounds) => {
                    let Poll::Ready((mut job, result)) = rounds.as_mut().poll(cx) else {
                        if self.alarm.as_mut().poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                        self.alarm.as_mut().reset(Instant::now() + PING);
                        match self.ingress.ping(self.framing) {
                            Some(ping) => return Poll::Ready(Some(Bytes::from_static(ping))),
                            None => continue,
                        }
                    };
                    self.stage = match result {
                        Ok(Won::Stream(committed)) => {
                            Stage::Flowing(Box::new(Pump::new(job, *committed)))
                        }
                        Ok(Won::Whole(whole)) => {
                            let Whole { body, mut guard, summary, .. } = *whole;
                            guard.close(AttemptEnd::Finished { ttft: None, usage: summary.usage });
                            job.tally.sent(&body, 0);
                            job.tally.set_status(200);
                            job.tally.end(RequestState::Done, Some(&summary), None);
                            Stage::Last(body)
                        }
                        // Only conversations are answered late, and those are never opaque.
                        Ok(Won::Opaque(_)) => Stage::Over,
                        Err(error) => {
                            let last = job.ingress.stream_error(
                                &error,
                                &job.ask.id.to_string(),
                                self.framing,
                            );
                            job.tally.set_status(200);
                            job.tally.told(&last);
                            job.tally.end(RequestState::Failed, None, Some(&error.message));
                            Stage::Last(last)
                        }
                    };
                }
                Stage::Flowing(pump) => return pump.poll(cx),
                Stage::Last(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.stage = Stage::Over;
                    return Poll::Ready((!bytes.is_empty()).then_some(bytes));
                }
                Stage::Over => return Poll::Ready(None),
            }
        }
    }
}
