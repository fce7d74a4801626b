//! Reads response bodies with limits of size and time.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::relay::state::permits::BufferReservation;
use crate::{
    ir::{
        fault::{TransportFault, TransportKind},
        reason::failure::FailureReason,
    },
    upstream::body::UpstreamBody,
};

/// Limits of reading an error body.
const MAX_ERROR_BYTES: usize = 64 << 10;
const ERROR_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How long sockets are read once more after a deadline. After the process or its machine slept,
/// all timers have expired and data that arrived meanwhile is unread.
pub(in crate::relay) const GRACE: Duration = Duration::from_millis(100);

/// Waits for a future until a deadline, which counts only after data that is already there was
/// read. The future is pinned, because a future passed by value takes its memory twice.
pub(in crate::relay) async fn timeout_with_grace<T>(
    deadline: Instant,
    mut wanted: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    if let Ok(got) = timeout_at(deadline, wanted.as_mut()).await {
        return Some(got);
    }
    timeout(GRACE, wanted).await.ok()
}

/// Returns the next data chunk, or `None` at the end.
pub(in crate::relay) async fn next_chunk(
    body: &mut UpstreamBody,
) -> Option<Result<Bytes, TransportFault>> {
    loop {
        match body.frame().await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Some(Ok(data));
                }
            }
            Err(fault) => return Some(Err(fault)),
        }
    }
}

/// Reads an error body up to the limits; returns what arrived if the body breaks.
pub(in crate::relay) async fn read_error_body(mut body: UpstreamBody) -> Bytes {
    let mut out = BytesMut::new();
    body.tolerate_wrong_coding();
    let read = async {
        while let Some(Ok(data)) = next_chunk(&mut body).await {
            let remaining = MAX_ERROR_BYTES - out.len();
            out.extend_from_slice(&data[..data.len().min(remaining)]);
            if out.len() >= MAX_ERROR_BYTES {
                break;
            }
        }
    };
    // A slow error body is still an error, so use what has arrived.
    drop(timeout(ERROR_READ_TIMEOUT, read).await);
    out.freeze()
}

/// Limits of a body that is buffered whole.
pub(in crate::relay) struct BodyLimits {
    pub max_bytes: u64,
    /// Bytes of all bodies together.
    pub buffer_limit: u64,
    pub deadline: Instant,
    pub idle_timeout: Duration,
    /// The deadline is half of the request's total timeout.
    pub half_of_total: bool,
}

/// Reads the whole body.
pub(in crate::relay) async fn read_to_end(
    first: Option<Bytes>,
    body: &mut UpstreamBody,
    limits: &BodyLimits,
    reservation: &mut BufferReservation,
) -> Result<Bytes, TransportFault> {
    let (mut single, mut joined): (Option<Bytes>, Option<BytesMut>) = (None, None);
    let mut total = 0_u64;
    let mut next = first.map(Ok);
    loop {
        let data = match next.take() {
            Some(data) => Some(data),
            None => {
                let until = limits.deadline.min(Instant::now() + limits.idle_timeout);
                timeout_with_grace(until, pin!(next_chunk(body)))
                    .await
                    .ok_or_else(|| timeout_fault(limits, until))?
            }
        };
        let Some(data) = data.transpose()? else { break };
        total += data.len() as u64;
        if total > limits.max_bytes || !reservation.try_grow(data.len() as u64, limits.buffer_limit)
        {
            let limit = limits.max_bytes.min(limits.buffer_limit);
            return Err(TransportFault {
                kind: TransportKind::TooLarge,
                reason: FailureReason::TooLarge { limit }.into(),
                may_be_received: true,
            });
        }
        match (&mut single, &mut joined) {
            (None, None) => single = Some(data),
            (Some(_), None) => {
                let mut all = BytesMut::with_capacity((total as usize) * 2);
                all.extend_from_slice(&single.take().unwrap_or_default());
                all.extend_from_slice(&data);
                joined = Some(all);
            }
            (_, Some(all)) => all.extend_from_slice(&data),
        }
    }
    Ok(joined.map(BytesMut::freeze).or(single).unwrap_or_default())
}

fn timeout_fault(limits: &BodyLimits, until: Instant) -> TransportFault {
    if until >= limits.deadline {
        return TransportFault {
            kind: TransportKind::TotalTimeout,
            reason: FailureReason::Incomplete { half: limits.half_of_total }.into(),
            may_be_received: true,
        };
    }
    idle_fault(limits.idle_timeout)
}

/// Returns the fault of a body of which no byte came for the idle timeout.
pub(in crate::relay) fn idle_fault(waited: Duration) -> TransportFault {
    TransportFault {
        kind: TransportKind::IdleTimeout,
        reason: FailureReason::Idle { waited: waited.into() }.into(),
        may_be_received: true,
    }
}
