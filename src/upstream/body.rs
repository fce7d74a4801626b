//! Reads the body of a response: decoded, bounded, with a single error type.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{
    decode::{DecodeError, Decoder},
    fault,
};
use crate::ir::fault::{TransportFault, TransportKind};
use crate::ir::reason::failure::FailureReason;
use crate::upstream::{in_process::InProcessBody, plain_pool::PooledBody};

/// The maximum prefix that is buffered to find out whether the body is encoded at all.
const MAX_RAW_PREFIX: usize = 64 << 10;

/// A response body as it arrives. Trailers are dropped. Dropping it closes the upstream's
/// connection, unless the body was read to its end.
pub struct UpstreamBody {
    source: BodySource,
    decoder: Option<Box<Decoder>>,
    /// Received and not yet decoded.
    encoded: Bytes,
    /// Bytes received before the first decoded byte, if a wrong coding label is tolerated.
    raw_prefix: Option<BytesMut>,
    /// The upstream's name, for messages.
    upstream_name: Arc<str>,
    limit: u64,
    delivered: u64,
    ended: bool,
}

enum BodySource {
    InProcess(InProcessBody),
    Network(Incoming),
    Pooled(PooledBody),
    Buffered(Option<Bytes>),
}

impl UpstreamBody {
    pub(super) fn from_network(
        body: Incoming,
        decoder: Option<Decoder>,
        upstream_name: Arc<str>,
    ) -> Self {
        Self::new(BodySource::Network(body), decoder.map(Box::new), upstream_name)
    }

    pub(super) fn from_pooled(
        body: PooledBody,
        decoder: Option<Decoder>,
        upstream_name: Arc<str>,
    ) -> Self {
        Self::new(BodySource::Pooled(body), decoder.map(Box::new), upstream_name)
    }

    pub(super) fn from_in_process(body: InProcessBody, upstream_name: Arc<str>) -> Self {
        Self::new(BodySource::InProcess(body), None, upstream_name)
    }

    /// Creates a body from bytes that are already complete.
    #[must_use]
    pub fn from_bytes(bytes: Bytes, upstream_name: Arc<str>) -> Self {
        Self::new(BodySource::Buffered(Some(bytes)), None, upstream_name)
    }

    fn new(source: BodySource, decoder: Option<Box<Decoder>>, upstream_name: Arc<str>) -> Self {
        Self {
            source,
            decoder,
            encoded: Bytes::new(),
            raw_prefix: None,
            upstream_name,
            limit: u64::MAX,
            delivered: 0,
            ended: false,
        }
    }

    /// Limits the decoded bytes delivered from here on; more is `TooLarge`.
    pub fn set_limit(&mut self, bytes: u64) {
        self.limit = self.delivered.saturating_add(bytes);
    }

    /// Passes a body that does not decode through unchanged: the party that wrote an error is often
    /// not the one that set the coding header.
    pub fn tolerate_wrong_coding(&mut self) {
        self.raw_prefix = self.decoder.is_some().then(BytesMut::new);
    }

    /// Reads the complete body, at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// The body broke, or it is larger.
    pub async fn read_to_end(mut self, limit: u64) -> Result<Bytes, TransportFault> {
        self.set_limit(limit);
        let mut first = Bytes::new();
        let mut all = Vec::new();
        while let Some(frame) = self.frame().await {
            let Ok(piece) = frame?.into_data() else { continue };
            if first.is_empty() && all.is_empty() {
                first = piece;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&piece);
        }
        Ok(if all.is_empty() { first } else { all.into() })
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportFault>>> {
        loop {
            let frame = match &mut self.source {
                BodySource::Network(body) => ready!(Pin::new(body).poll_frame(cx))
                    .map(|frame| frame.map_err(|e| fault::body_fault(&e, &self.upstream_name))),
                BodySource::Pooled(body) => ready!(Pin::new(body).poll_frame(cx))
                    .map(|frame| frame.map_err(|e| fault::body_fault(&e, &self.upstream_name))),
                BodySource::InProcess(body) => ready!(Pin::new(body).poll_frame(cx)),
                BodySource::Buffered(bytes) => return Poll::Ready(bytes.take().map(Ok)),
            };
            match frame {
                None => return Poll::Ready(None),
                Some(Err(fault)) => return Poll::Ready(Some(Err(fault))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }

    fn poll_decoded(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TransportFault>>> {
        loop {
            let Some(decoder) = &mut self.decoder else { return self.poll_source(cx) };
            match decoder.decode_step(&mut self.encoded) {
                Ok(Some(piece)) => {
                    self.raw_prefix = None;
                    return Poll::Ready(Some(Ok(piece)));
                }
                Ok(None) => {}
                Err(error) => {
                    let error = self.decode_fault(error);
                    let Some(undecoded) = self.raw_prefix.take() else {
                        return Poll::Ready(Some(Err(error)));
                    };
                    (self.decoder, self.encoded) = (None, Bytes::new());
                    return Poll::Ready(Some(Ok(undecoded.freeze())));
                }
            }
            match ready!(self.poll_source(cx)) {
                Some(Ok(data)) => {
                    if let Some(raw_prefix) = self
                        .raw_prefix
                        .as_mut()
                        .filter(|raw_prefix| raw_prefix.len() < MAX_RAW_PREFIX)
                    {
                        raw_prefix.extend_from_slice(&data);
                    }
                    self.encoded = data;
                }
                Some(Err(fault)) => return Poll::Ready(Some(Err(fault))),
                None => {
                    let finished = self.decoder.as_ref().map_or(Ok(()), |decoder| decoder.finish());
                    return Poll::Ready(finished.err().map(|error| Err(self.decode_fault(error))));
                }
            }
        }
    }

    fn decode_fault(&self, error: DecodeError) -> TransportFault {
        let message = format!("the response of {} cannot be decoded: {error}", self.upstream_name);
        TransportFault {
            kind: TransportKind::BodyBroken,
            reason: FailureReason::text(message).into(),
            may_be_received: true,
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = TransportFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportFault>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        match ready!(this.poll_decoded(cx)) {
            Some(Ok(data)) => {
                this.delivered = this.delivered.saturating_add(data.len() as u64);
                if this.delivered > this.limit {
                    this.ended = true;
                    let message = format!(
                        "the response of {} is larger than {} bytes",
                        this.upstream_name, this.limit
                    );
                    return Poll::Ready(Some(Err(TransportFault {
                        kind: TransportKind::TooLarge,
                        reason: FailureReason::text(message).into(),
                        may_be_received: true,
                    })));
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(fault)) => {
                this.ended = true;
                Poll::Ready(Some(Err(fault)))
            }
            None => {
                this.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // An empty source has nothing to decode, even if it is labelled as encoded. A source that
        // ended may still have bytes in the decoder.
        self.ended
            || (self.decoder.is_none()
                && match &self.source {
                    BodySource::Network(body) => body.is_end_stream(),
                    BodySource::Pooled(body) => body.is_end_stream(),
                    BodySource::InProcess(body) => body.is_end_stream(),
                    BodySource::Buffered(bytes) => bytes.is_none(),
                })
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.source, &self.decoder) {
            (_, Some(_)) => SizeHint::default(),
            (BodySource::Network(body), None) => body.size_hint(),
            (BodySource::Pooled(body), None) => body.size_hint(),
            (BodySource::InProcess(body), None) => body.size_hint(),
            (BodySource::Buffered(bytes), None) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
        }
    }
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerBody({}, {} bytes given)", self.upstream_name, self.delivered)
    }
}
