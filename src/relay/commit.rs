//! Holds the head of a stream until its first content, so that failover before it is invisible.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    answer::Broke,
    body::{chunk, within},
};
use crate::{
    dialect::{flow::ResponseStream, passage::StreamEnd},
    ir::fault::{Fault, TransportFault, TransportKind},
    upstream::body::UpstreamBody,
};

/// What is held at most; more than this without content is let through.
const HELD_EVENTS: u64 = 64;
const HELD_BYTES: usize = 256 << 10;

/// The stream has shown content (or ended well without any).
pub(super) struct Shown {
    pub ready: Vec<Bytes>,
    pub ended: bool,
    /// The terminal event is among them.
    pub terminal: bool,
    pub broke: Option<Broke>,
}

/// What went wrong before any content.
pub(super) enum Unshown {
    Said(Box<Fault>),
    Transport(TransportFault),
}

impl Unshown {
    fn empty() -> Self {
        let message = "the stream ended before any content".to_owned();
        Self::Transport(TransportFault {
            kind: TransportKind::BodyBroken,
            message,
            may_be_received: true,
        })
    }
}

/// Feeds the stream into `flow` until there is content, it ends, it breaks, or `deadline` passes.
pub(super) async fn hold(
    flow: &mut ResponseStream,
    body: &mut UpstreamBody,
    first: Option<Bytes>,
    deadline: Instant,
    first_byte: Duration,
) -> Result<Shown, Unshown> {
    let (mut out, mut events) = (Vec::new(), 0_u64);
    let mut next = first.map(Ok);
    loop {
        let data = match next.take() {
            Some(data) => Some(data),
            None => within(deadline, pin!(chunk(body)))
                .await
                .ok_or_else(|| Unshown::Transport(late(first_byte)))?,
        };
        match data {
            Some(Ok(data)) => {
                let step = flow.feed(data, &mut out);
                events += u64::from(step.events);
                match step.error {
                    Some(fault) if !step.has_content => return Err(Unshown::Said(fault)),
                    error if step.has_content => {
                        return Ok(Shown {
                            ready: out,
                            ended: false,
                            terminal: step.terminal,
                            broke: error.map(Broke::Said),
                        });
                    }
                    _ => {}
                }
                let full =
                    events > HELD_EVENTS || out.iter().map(Bytes::len).sum::<usize>() > HELD_BYTES;
                if step.terminal || full {
                    return Ok(Shown {
                        ready: out,
                        ended: false,
                        terminal: step.terminal,
                        broke: None,
                    });
                }
            }
            Some(Err(fault)) => {
                // A last event that was cut from its blank line may still be whole.
                return Err(Unshown::Transport(fault));
            }
            None => {
                let ending = flow.finish(&mut out);
                let parting = flow.take_trailing_error();
                return match ending {
                    StreamEnd::Complete => {
                        Ok(Shown { ready: out, ended: true, terminal: true, broke: None })
                    }
                    StreamEnd::Truncated if flow.content_events() > 0 => {
                        let broke = Some(parting.map_or(Broke::Truncated, Broke::Said));
                        Ok(Shown { ready: out, ended: true, terminal: false, broke })
                    }
                    StreamEnd::Truncated => Err(parting.map_or_else(Unshown::empty, Unshown::Said)),
                };
            }
        }
    }
}

/// The fault of a stream whose first content did not come in time.
pub(super) fn late(first_byte: Duration) -> TransportFault {
    let message = format!(
        "no content came within {}s (`first_byte` under [timeouts])",
        first_byte.as_secs_f64()
    );
    TransportFault { kind: TransportKind::FirstByteTimeout, message, may_be_received: true }
}
