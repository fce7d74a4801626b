//! Reading answer bodies with limits of size and time.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::engine::Held;
use crate::{
    ir::fault::{TransportFault, TransportKind},
    upstream::body::UpstreamBody,
};

/// Error bodies are read this far, for this long.
const ERROR_BYTES: usize = 64 << 10;
const ERROR_TIME: Duration = Duration::from_secs(5);

/// After a deadline the sockets are read once more: a process that slept, or whose machine did,
/// finds all its timers expired and what came meanwhile unread.
pub(super) const GRACE: Duration = Duration::from_millis(100);

/// Waits for something until a deadline that is only judged after what is there was read. It comes
/// pinned, as a future that is handed on by value has room made for it twice.
pub(super) async fn within<T>(
    deadline: Instant,
    mut wanted: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    if let Ok(got) = timeout_at(deadline, wanted.as_mut()).await {
        return Some(got);
    }
    timeout(GRACE, wanted).await.ok()
}

/// The next data chunk, or `None` at the end.
pub(super) async fn chunk(body: &mut UpstreamBody) -> Option<Result<Bytes, TransportFault>> {
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

/// As much of an error body as is worth reading; what breaks on the way is left out.
pub(super) async fn error_body(mut body: UpstreamBody) -> Bytes {
    let mut out = BytesMut::new();
    body.tolerate_wrong_coding();
    let read = async {
        while let Some(Ok(data)) = chunk(&mut body).await {
            let room = ERROR_BYTES - out.len();
            out.extend_from_slice(&data[..data.len().min(room)]);
            if out.len() >= ERROR_BYTES {
                break;
            }
        }
    };
    // A slow error body is an error all the same; what came is used.
    drop(timeout(ERROR_TIME, read).await);
    out.freeze()
}

/// Limits of a body that is held whole.
pub(super) struct Limits {
    pub bytes: u64,
    /// Bytes of all bodies together.
    pub held: u64,
    pub deadline: Instant,
    pub idle: Duration,
    /// What the deadline is of the time that a request has, in words.
    pub share: &'static str,
}

/// The whole body.
pub(super) async fn whole(
    first: Option<Bytes>,
    body: &mut UpstreamBody,
    limits: &Limits,
    held: &mut Held,
) -> Result<Bytes, TransportFault> {
    let (mut single, mut many): (Option<Bytes>, Option<BytesMut>) = (None, None);
    let mut total = 0_u64;
    let mut next = first.map(Ok);
    loop {
        let data = match next.take() {
            Some(data) => Some(data),
            None => {
                let until = limits.deadline.min(Instant::now() + limits.idle);
                within(until, pin!(chunk(body))).await.ok_or_else(|| silence(limits, until))?
            }
        };
        let Some(data) = data.transpose()? else { break };
        total += data.len() as u64;
        if total > limits.bytes || !held.grow(data.len() as u64, limits.held) {
            let message = format!(
                "the answer is larger than {} bytes (`max_response_bytes` under [server])",
                limits.bytes.min(limits.held)
            );
            return Err(TransportFault {
                kind: TransportKind::TooLarge,
                message,
                may_be_received: true,
            });
        }
        match (&mut single, &mut many) {
            (None, None) => single = Some(data),
            (Some(_), None) => {
                let mut all = BytesMut::with_capacity((total as usize) * 2);
                all.extend_from_slice(&single.take().unwrap_or_default());
                all.extend_from_slice(&data);
                many = Some(all);
            }
            (_, Some(all)) => all.extend_from_slice(&data),
        }
    }
    Ok(many.map(BytesMut::freeze).or(single).unwrap_or_default())
}

fn silence(limits: &Limits, until: Instant) -> TransportFault {
    if until >= limits.deadline {
        return TransportFault {
            kind: TransportKind::TotalTimeout,
            message: format!(
                "the answer was not complete in time ({} under [timeouts] for this attempt)",
                limits.share
            ),
            may_be_received: true,
        };
    }
    let message = format!(
        "no byte of the answer came for {}s (`idle` under [timeouts])",
        limits.idle.as_secs_f64()
    );
    TransportFault { kind: TransportKind::IdleTimeout, message, may_be_received: true }
}
