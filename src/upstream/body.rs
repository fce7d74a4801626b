//! The body of an answer: decoded, bounded, broken only in one way.

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
    lane::LaneBody,
    local::LocalBody,
};
use crate::ir::fault::{TransportFault, TransportKind};

/// So much is looked at for whether it is coded at all.
const LABELLED: usize = 64 << 10;

/// What an upstream answers, as it comes. Trailers are dropped. Dropping it closes the upstream's
/// connection, unless all was read.
pub struct AnswerBody {
    source: Source,
    decoder: Option<Box<Decoder>>,
    /// Received and not yet decoded.
    coded: Bytes,
    /// Received up to the first byte that was decoded, where a wrong label is to be passed over.
    labelled: Option<BytesMut>,
    /// The upstream's name, for messages.
    from: Arc<str>,
    limit: u64,
    given: u64,
    ended: bool,
}

enum Source {
    Local(LocalBody),
    Network(Incoming),
    Lane(LaneBody),
    Whole(Option<Bytes>),
}

impl AnswerBody {
    pub(super) fn network(body: Incoming, decoder: Option<Decoder>, from: Arc<str>) -> Self {
        Self::new(Source::Network(body), decoder.map(Box::new), from)
    }

    pub(super) fn lane(body: LaneBody, decoder: Option<Decoder>, from: Arc<str>) -> Self {
        Self::new(Source::Lane(body), decoder.map(Box::new), from)
    }

    pub(super) fn local(body: LocalBody, from: Arc<str>) -> Self {
        Self::new(Source::Local(body), None, from)
    }

    /// A body that is there already.
    #[must_use]
    pub fn whole(bytes: Bytes, from: Arc<str>) -> Self {
        Self::new(Source::Whole(Some(bytes)), None, from)
    }

    fn new(source: Source, decoder: Option<Box<Decoder>>, from: Arc<str>) -> Self {
        Self {
            source,
            decoder,
            coded: Bytes::new(),
            labelled: None,
            from,
            limit: u64::MAX,
            given: 0,
            ended: false,
        }
    }

    /// Bounds what is given from here on, counted decoded; more is `TooLarge`.
    pub fn set_limit(&mut self, bytes: u64) {
        self.limit = self.given.saturating_add(bytes);
    }

    /// What does not decode at all is taken as it came: errors often come from others than the
    /// coding was named by.
    pub fn forgive_label(&mut self) {
        self.labelled = self.decoder.is_some().then(BytesMut::new);
    }

    /// Reads all of it, to at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// It broke, or was larger.
    pub async fn read(mut self, limit: u64) -> Result<Bytes, TransportFault> {
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
                Source::Network(body) => ready!(Pin::new(body).poll_frame(cx))
                    .map(|frame| frame.map_err(|e| fault::of_body(&e, &self.from))),
                Source::Lane(body) => ready!(Pin::new(body).poll_frame(cx))
                    .map(|frame| frame.map_err(|e| fault::of_body(&e, &self.from))),
                Source::Local(body) => ready!(Pin::new(body).poll_frame(cx)),
                Source::Whole(bytes) => return Poll::Ready(bytes.take().map(Ok)),
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
            match decoder.step(&mut self.coded) {
                Ok(Some(piece)) => {
                    self.labelled = None;
                    return Poll::Ready(Some(Ok(piece)));
                }
                Ok(None) => {}
                Err(error) => {
                    let error = self.undecodable(error);
                    let Some(plain) = self.labelled.take() else {
                        return Poll::Ready(Some(Err(error)));
                    };
                    (self.decoder, self.coded) = (None, Bytes::new());
                    return Poll::Ready(Some(Ok(plain.freeze())));
                }
            }
            match ready!(self.poll_source(cx)) {
                Some(Ok(data)) => {
                    if let Some(labelled) =
                        self.labelled.as_mut().filter(|labelled| labelled.len() < LABELLED)
                    {
                        labelled.extend_from_slice(&data);
                    }
                    self.coded = data;
                }
                Some(Err(fault)) => return Poll::Ready(Some(Err(fault))),
                None => {
                    let finished = self.decoder.as_ref().map_or(Ok(()), |decoder| decoder.finish());
                    return Poll::Ready(finished.err().map(|error| Err(self.undecodable(error))));
                }
            }
        }
    }

    fn undecodable(&self, error: DecodeError) -> TransportFault {
        let message = format!("the response of {} cannot be decoded: {error}", self.from);
        TransportFault { kind: TransportKind::BodyBroken, message, may_be_received: true }
    }
}

impl Body for AnswerBody {
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
                this.given = this.given.saturating_add(data.len() as u64);
                if this.given > this.limit {
                    this.ended = true;
                    let message = format!(
                        "the response of {} is larger than {} bytes",
                        this.from, this.limit
                    );
                    return Poll::Ready(Some(Err(TransportFault {
                        kind: TransportKind::TooLarge,
                        message,
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
        // Coded or not, an empty source has nothing to decode; a source that ended may still be
        // held by the decoder.
        self.ended
            || (self.decoder.is_none()
                && match &self.source {
                    Source::Network(body) => body.is_end_stream(),
                    Source::Lane(body) => body.is_end_stream(),
                    Source::Local(body) => body.is_end_stream(),
                    Source::Whole(bytes) => bytes.is_none(),
                })
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.source, &self.decoder) {
            (_, Some(_)) => SizeHint::default(),
            (Source::Network(body), None) => body.size_hint(),
            (Source::Lane(body), None) => body.size_hint(),
            (Source::Local(body), None) => body.size_hint(),
            (Source::Whole(bytes), None) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
        }
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerBody({}, {} bytes given)", self.from, self.given)
    }
}
