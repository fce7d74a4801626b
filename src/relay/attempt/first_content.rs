//! Buffers the start of a stream until its first content, so that failover before it is invisible.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use crate::relay::attempt::{
    read_body::{next_chunk, timeout_with_grace},
    result::StreamFailure,
};
use crate::{
    dialect::{event_decoder::StreamEnd, response_stream::ResponseStream},
    ir::{
        fault::{Fault, TransportFault, TransportKind},
        reason::failure::FailureReason,
    },
    upstream::body::UpstreamBody,
};

/// Buffer limits. If a stream exceeds them without content, the events are forwarded.
const MAX_BUFFERED_EVENTS: u64 = 64;
const MAX_BUFFERED_BYTES: usize = 256 << 10;

/// A stream with content, or one that ended well without any.
pub(in crate::relay) struct FirstContent {
    pub buffered_frames: Vec<Bytes>,
    pub ended: bool,
    /// The terminal event is among the buffered frames.
    pub terminal_seen: bool,
    pub failure: Option<StreamFailure>,
}

/// What went wrong before any content.
pub(in crate::relay) enum NoContent {
    Upstream(Box<Fault>),
    Transport(TransportFault),
}

impl NoContent {
    fn empty_stream() -> Self {
        Self::Transport(TransportFault {
            kind: TransportKind::BodyBroken,
            reason: FailureReason::text("the stream ended before any content").into(),
            may_be_received: true,
        })
    }
}

/// Feeds the stream into `flow` until there is content, it ends, it breaks, or `deadline` passes.
pub(in crate::relay) async fn wait_for_first_content(
    stream: &mut ResponseStream,
    body: &mut UpstreamBody,
    first: Option<Bytes>,
    deadline: Instant,
    first_byte: Duration,
) -> Result<FirstContent, NoContent> {
    let (mut out, mut events) = (Vec::new(), 0_u64);
    let mut next = first.map(Ok);
    loop {
        let data = match next.take() {
            Some(data) => Some(data),
            None => timeout_with_grace(deadline, pin!(next_chunk(body)))
                .await
                .ok_or_else(|| NoContent::Transport(first_byte_timeout(first_byte)))?,
        };
        match data {
            Some(Ok(data)) => {
                let step = stream.feed(data, &mut out);
                events += u64::from(step.events);
                match step.error {
                    Some(fault) if !step.has_content => return Err(NoContent::Upstream(fault)),
                    error if step.has_content => {
                        return Ok(FirstContent {
                            buffered_frames: out,
                            ended: false,
                            terminal_seen: step.terminal,
                            failure: error.map(StreamFailure::Upstream),
                        });
                    }
                    _ => {}
                }
                let full = events > MAX_BUFFERED_EVENTS
                    || out.iter().map(Bytes::len).sum::<usize>() > MAX_BUFFERED_BYTES;
                if step.terminal || full {
                    return Ok(FirstContent {
                        buffered_frames: out,
                        ended: false,
                        terminal_seen: step.terminal,
                        failure: None,
                    });
                }
            }
            Some(Err(fault)) => {
                // A last event without its blank line may still be complete.
                return Err(NoContent::Transport(fault));
            }
            None => {
                let ending = stream.finish(&mut out);
                let parting = stream.take_trailing_error();
                return match ending {
                    StreamEnd::Complete => Ok(FirstContent {
                        buffered_frames: out,
                        ended: true,
                        terminal_seen: true,
                        failure: None,
                    }),
                    StreamEnd::Truncated if stream.content_events() > 0 => {
                        let broke =
                            Some(parting.map_or(StreamFailure::Truncated, StreamFailure::Upstream));
                        Ok(FirstContent {
                            buffered_frames: out,
                            ended: true,
                            terminal_seen: false,
                            failure: broke,
                        })
                    }
                    StreamEnd::Truncated => {
                        Err(parting.map_or_else(NoContent::empty_stream, NoContent::Upstream))
                    }
                };
            }
        }
    }
}

/// Returns the fault of a stream whose first content did not arrive in time.
pub(in crate::relay) fn first_byte_timeout(first_byte: Duration) -> TransportFault {
    TransportFault {
        kind: TransportKind::FirstByteTimeout,
        reason: FailureReason::NoContent { waited: first_byte.into() }.into(),
        may_be_received: true,
    }
}
