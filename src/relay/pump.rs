//! Bytes on: whole events as they come, what is ready in one write, the first never waiting; the
//! meter watches beside.

use std::{
    borrow::Cow,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    answer::{Broke, Committed, Opaque, Won},
    body::GRACE,
    refusal,
    reply::BrokeOff,
    rescue::{self, Begun, Rescue},
    rounds::{self, Job},
    tally::Guard,
    translated,
};
use crate::{
    dialect::{
        ResponseSpec,
        flow::ResponseStream,
        passage::{FeedResult, StreamEnd},
    },
    events::record::RequestState,
    ir::{
        fault::{TransportFault, TransportKind},
        usage::Usage,
    },
    routing::{ending::AttemptEnd, outcome},
    upstream::body::UpstreamBody,
};

/// The scheduler's turns without a new chunk after which what is ready goes: measured, not timed.
/// The upstream's connection hands chunks over one at a time, a turn for each.
const TURNS: u8 = 3;
/// Only where chunks come closer together than this is there company to wait for; a lone one goes
/// at once.
const BURST: Duration = Duration::from_micros(300);
/// Gathered at most.
const GATHER: usize = 32 << 10;
/// Silence after which the client gets a ping of its own dialect.
pub(super) const PING: Duration = Duration::from_secs(10);
/// After the terminal event the upstream has this long to end its body, so that its connection can
/// be used again.
const LINGER: Duration = Duration::from_millis(20);

/// A committed stream on its way to the client. Dropping it closes the upstream.
pub struct Pump {
    job: Box<Job>,
    flow: ResponseStream,
    body: Option<UpstreamBody>,
    guard: Guard,
    ready: Vec<Bytes>,
    ready_bytes: usize,
    turns: u8,
    burst: bool,
    first: bool,
    idle: Duration,
    ttft: Duration,
    heard: Instant,
    /// The idle limit has passed once; this is the second look.
    last_look: bool,
    spoke: Instant,
    alarm: Pin<Box<Sleep>>,
    state: Stage,
    /// What is needed to continue it elsewhere, where its model asks for that.
    rescue: Option<Box<Rescue>>,
    /// Who was to answer, where nobody could continue it.
    broke_at: Option<Arc<str>>,
}

enum Stage {
    Flowing,
    /// The terminal event was seen: the body's end is awaited for a moment.
    Lingering,
    Broken(Broke),
    /// Another target is asked to go on from what was said.
    Rescuing(Box<Rescuing>),
    Over,
}

/// An attempt to continue a stream, and what broke it.
struct Rescuing {
    begun: Begun,
    broke: Broke,
    /// Who was to answer.
    upstream: Arc<str>,
    /// What was used up to then.
    before: Usage,
}

impl Pump {
    /// Takes over a stream whose first content is held.
    #[must_use]
    pub fn new(mut job: Box<Job>, committed: Committed) -> Self {
        let Committed { status, ready, flow, body, terminal, broke, guard, idle, .. } = committed;
        let ttft = job.tally.attempt_age();
        let rescue = if job.spares.is_some() { Rescue::of(&mut job, &flow) } else { None };
        job.ask.forget_body();
        translated::let_go(&mut job);
        job.tally.first_content(status.as_u16());
        guard.note(AttemptEnd::Content);
        let now = Instant::now();
        let state = match (broke, &body) {
            (Some(broke), _) => Stage::Broken(broke),
            (None, Some(_)) if terminal => Stage::Lingering,
            (None, _) => Stage::Flowing,
        };
        let ready_bytes = ready.iter().map(Bytes::len).sum();
        let linger = if matches!(state, Stage::Lingering) { LINGER } else { idle.min(PING) };
        Self {
            job,
            flow,
            body,
            guard,
            ready,
            ready_bytes,
            turns: TURNS,
            burst: false,
            first: true,
            idle,
            ttft,
            heard: now,
            last_look: false,
            spoke: now,
            alarm: Box::pin(sleep_until(now + linger)),
            state,
            rescue,
            broke_at: None,
        }
    }

    /// The next bytes for the client; `None` at the end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if matches!(self.state, Stage::Flowing | Stage::Rescuing(_))
            && let Poll::Ready(cause) = self.job.halt.poll(cx)
        {
            self.body = None;
            if matches!(self.state, Stage::Rescuing(_)) {
                self.job.tally.attempt_lost(None, &rounds::halted(cause).message, true);
            }
            self.state = Stage::Broken(Broke::Halted(cause));
        }
        loop {
            match self.state {
                Stage::Flowing | Stage::Lingering if self.body.is_some() => match self.pull(cx) {
                    Poll::Ready(()) => {}
                    Poll::Pending => return self.gather(cx),
                },
                Stage::Flowing | Stage::Lingering => {
                    if let Some(bytes) = self.take() {
                        return Poll::Ready(Some(bytes));
                    }
                    self.complete();
                }
                Stage::Broken(_) => {
                    if let Some(bytes) = self.take() {
                        return Poll::Ready(Some(bytes));
                    }
                    if self.rescue.is_none() || !self.rescues(None) {
                        return Poll::Ready(Some(self.fail()));
                    }
                }
                Stage::Rescuing(_) => return self.rescuing(cx),
                Stage::Over => return Poll::Ready(None),
            }
            if self.ready_bytes >= GATHER
                && let Some(bytes) = self.take()
            {
                return Poll::Ready(Some(bytes));
            }
        }
    }

    /// Reads one chunk of the upstream, or its end.
    fn pull(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(body) = &mut self.body else { return Poll::Ready(()) };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => return Poll::Pending,
        };
        match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
            Some(Ok(Ok(data))) if matches!(self.state, Stage::Flowing) => {
                let now = Instant::now();
                self.burst = now - self.heard < BURST;
                self.heard = now;
                self.last_look = false;
                let before = self.ready.len();
                let FeedResult { error, terminal, .. } = self.flow.feed(data, &mut self.ready);
                self.ready_bytes += self.ready[before..].iter().map(Bytes::len).sum::<usize>();
                if let Some(fault) = error {
                    self.body = None;
                    self.state = Stage::Broken(Broke::Said(fault));
                } else if terminal {
                    self.state = Stage::Lingering;
                    self.alarm.as_mut().reset(self.heard + LINGER);
                }
                self.turns = 0;
            }
            Some(Ok(_)) => {}
            Some(Err(_)) if matches!(self.state, Stage::Lingering) => self.body = None,
            Some(Err(fault)) => {
                self.body = None;
                // What was cut may have been only the end of a stream that is complete.
                let mut out = Vec::new();
                let ending = self.flow.finish(&mut out);
                self.push(out);
                if ending == StreamEnd::Truncated || fault.kind != TransportKind::BodyBroken {
                    self.state = Stage::Broken(Broke::Transport(fault));
                }
            }
            None => {
                self.body = None;
                if matches!(self.state, Stage::Flowing) {
                    let mut out = Vec::new();
                    let ending = self.flow.finish(&mut out);
                    self.push(out);
                    if ending == StreamEnd::Truncated {
                        self.state = Stage::Broken(
                            self.flow.take_trailing_error().map_or(Broke::Truncated, Broke::Said),
                        );
                    }
                }
            }
        }
        Poll::Ready(())
    }

    fn push(&mut self, out: Vec<Bytes>) {
        self.ready_bytes += out.iter().map(Bytes::len).sum::<usize>();
        self.ready.extend(out);
    }

    /// Nothing more came: what is ready goes, after a few turns in which more may come.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.ready.is_empty() {
            if self.burst && !self.first && self.turns < TURNS {
                self.turns += 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(self.take());
        }
        ready!(self.alarm.as_mut().poll(cx));
        self.silent(cx)
    }

    /// The alarm rang: idle limit, ping, or the end of lingering.
    fn silent(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let now = Instant::now();
        if matches!(self.state, Stage::Lingering) {
            self.body = None;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if now >= self.heard + self.idle && !std::mem::replace(&mut self.last_look, true) {
            // What came while this process slept is read before the limit is judged.
            self.alarm.as_mut().reset(now + GRACE);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if now >= self.heard + self.idle {
            self.body = None;
            if self.flow.is_complete() {
                // Everything was said; only the end of the body is missing.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let message = format!(
                "no byte came for {}s inside the stream (`idle` under [timeouts])",
                self.idle.as_secs_f64()
            );
            self.state = Stage::Broken(Broke::Transport(TransportFault {
                kind: TransportKind::IdleTimeout,
                message,
                may_be_received: true,
            }));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut ping = None;
        if now >= self.spoke + PING {
            self.spoke = now;
            ping = self.job.ingress.ping(self.job.ask.framing);
        }
        self.alarm.as_mut().reset((self.heard + self.idle).min(self.spoke + PING));
        match ping {
            Some(ping) => Poll::Ready(Some(Bytes::from_static(ping))),
            None => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Everything that is ready, as one piece.
    fn take(&mut self) -> Option<Bytes> {
        let last = self.ready.pop()?;
        let bytes = if self.ready.is_empty() {
            last
        } else {
            let mut all = BytesMut::with_capacity(self.ready_bytes);
            for piece in self.ready.drain(..) {
                all.extend_from_slice(&piece);
            }
            all.extend_from_slice(&last);
            all.freeze()
        };
        self.ready_bytes = 0;
        self.first = false;
        self.spoke = self.heard;
        self.job.tally.sent(&bytes, u64::from(self.flow.content_events()));
        Some(bytes)
    }

    /// Begins to continue a stream that broke off; false where that cannot be done. `earlier`: who
    /// was to answer and what was used for it, where an attempt to continue has failed already.
    fn rescues(&mut self, earlier: Option<(Arc<str>, Usage)>) -> bool {
        let Stage::Broken(broke) = &self.state else { return false };
        let (Some(rescue), Some(outcome)) = (&mut self.rescue, rescue::outcome_of(broke)) else {
            return false;
        };
        self.guard.close(AttemptEnd::BrokeAfterContent(&outcome));
        let Some(mut begun) = rescue.begin(&self.flow) else {
            self.rescue = None;
            return false;
        };
        let Stage::Broken(broke) = std::mem::replace(&mut self.state, Stage::Over) else {
            return false;
        };
        let tally = &mut self.job.tally;
        let (upstream, before) = earlier.unwrap_or_else(|| {
            let said = format!("broke off after {} characters: {}", begun.from, outcome.cause);
            let upstream = Arc::clone(tally.upstream());
            (upstream, tally.broke_off(None, &said, &self.flow.summary()).unwrap_or_default())
        });
        let why = format!(
            "a rescue: {upstream} broke off after {} characters ({}), continued from there",
            begun.from, outcome.cause
        );
        tally.rescue_started(&begun.candidate, why.into());
        if let Some(reservation) = begun.reservation.take() {
            tally.reserve(reservation);
        }
        self.alarm.as_mut().reset(Instant::now() + PING);
        self.state = Stage::Rescuing(Box::new(Rescuing { begun, broke, upstream, before }));
        true
    }

    /// Waits for whoever is to go on; the client is kept alive meanwhile.
    fn rescuing(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Stage::Rescuing(rescuing) = &mut self.state else { return Poll::Ready(None) };
        let Poll::Ready((twin, result)) = rescuing.begun.going.as_mut().poll(cx) else {
            loop {
                ready!(self.alarm.as_mut().poll(cx));
                self.spoke = Instant::now();
                self.alarm.as_mut().reset(self.spoke + PING);
                if let Some(ping) = self.job.ingress.ping(self.job.ask.framing) {
                    return Poll::Ready(Some(Bytes::from_static(ping)));
                }
            }
        };
        let Stage::Rescuing(rescuing) = std::mem::replace(&mut self.state, Stage::Over) else {
            return Poll::Ready(None);
        };
        let Rescuing { begun, broke, upstream, before } = *rescuing;
        match result {
            Ok(Won::Stream(committed)) => self.resume(twin, *committed, before),
            other => {
                if let Err(lost) = &other {
                    rounds::tell_lost(
                        &self.job.engine,
                        &mut self.job.tally,
                        &begun.candidate,
                        lost,
                    );
                }
                if let Some(rescue) = &mut self.rescue {
                    rescue.give_back(twin);
                }
                self.state = Stage::Broken(broke);
                // The first attempt is told of already; another may still go on.
                if !self.rescues(Some((Arc::clone(&upstream), before))) {
                    self.broke_at = Some(upstream);
                    self.rescue = None;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Goes on with what another target says.
    fn resume(&mut self, mut twin: Box<Job>, committed: Committed, before: Usage) {
        let Committed { status, flow, body, terminal, broke, guard, idle, .. } = committed;
        let (mut out, job) = (Vec::new(), &self.job);
        let writer = |model: &str| {
            job.ingress
                .stream_writer(&ResponseSpec { model: model.to_owned(), ..translated::shape(job) })
        };
        self.flow.resume(flow, writer, before, &mut out);
        self.push(out);
        self.guard = guard;
        self.guard.note(AttemptEnd::Content);
        self.ttft = self.job.tally.attempt_age();
        self.job.tally.first_content(status.as_u16());
        (self.job.carry, self.job.chosen) = (twin.carry.take(), twin.chosen);
        (self.idle, self.heard, self.last_look) = (idle, Instant::now(), false);
        self.state = match (broke, &body) {
            (Some(broke), _) => Stage::Broken(broke),
            (None, Some(_)) if terminal => Stage::Lingering,
            (None, _) => Stage::Flowing,
        };
        let wait = if matches!(self.state, Stage::Lingering) { LINGER } else { idle.min(PING) };
        self.alarm.as_mut().reset(self.heard + wait);
        self.body = body;
        if let Some(rescue) = &mut self.rescue {
            rescue.give_back(twin);
        }
    }

    fn complete(&mut self) {
        let summary = self.flow.summary();
        if let Some(response) = self.flow.take_response() {
            translated::remember(&self.job, &response);
        }
        translated::learn(&self.job, self.flow.response_id(), &Bytes::new());
        self.guard.close(AttemptEnd::Finished { ttft: Some(self.ttft), usage: summary.usage });
        self.job.tally.end(RequestState::Done, Some(&summary), None);
        self.state = Stage::Over;
    }

    /// The error event of the client's dialect, and the end.
    fn fail(&mut self) -> Bytes {
        let Stage::Broken(broke) = std::mem::replace(&mut self.state, Stage::Over) else {
            return Bytes::new();
        };
        let upstream = self.broke_at.take().unwrap_or_else(|| self.job.tally.upstream().clone());
        let error = match &broke {
            Broke::Said(fault) => {
                let words = self.job.engine.words(&fault.message);
                self.guard.close(AttemptEnd::BrokeAfterContent(&outcome::classify_fault(
                    fault, None, true,
                )));
                refusal::broke_off(fault, format!("upstream {upstream}: {words}"))
            }
            Broke::Transport(fault) => {
                self.guard
                    .close(AttemptEnd::BrokeAfterContent(&outcome::classify_transport(fault)));
                refusal::transport(&self.job, fault, &upstream)
            }
            Broke::Truncated => {
                let fault = rescue::truncated();
                self.guard
                    .close(AttemptEnd::BrokeAfterContent(&outcome::classify_transport(&fault)));
                refusal::transport(&self.job, &fault, &upstream)
            }
            Broke::Halted(cause) => {
                self.guard.close(AttemptEnd::Abandoned);
                rounds::halted(*cause)
            }
        };
        let summary = self.flow.summary();
        // The upstream's own words, where they are fit to be shown as they are.
        let own = self.flow.upstream_error_frame().filter(|_| matches!(broke, Broke::Said(_)));
        let own = own.filter(|event| {
            std::str::from_utf8(event)
                .is_ok_and(|text| matches!(self.job.engine.redactor.redact(text), Cow::Borrowed(_)))
        });
        let last = own
            .cloned()
            .unwrap_or_else(|| self.flow.error_frame(&error, &self.job.ask.id.to_string()));
        self.job.tally.told(&last);
        self.job.tally.end(RequestState::Failed, Some(&summary), Some(&error.message));
        last
    }
}

impl Drop for Pump {
    /// The client went away: what was used up to here is known only now.
    fn drop(&mut self) {
        match self.state {
            Stage::Over => {}
            // What was used for the part that broke off is booked already.
            Stage::Rescuing(_) => self.job.tally.end(RequestState::ClientGone, None, None),
            _ => {
                let summary = self.flow.summary();
                self.job.tally.end(RequestState::ClientGone, Some(&summary), None);
            }
        }
    }
}

/// A body of no known grammar on its way to the client.
pub struct Forward {
    job: Box<Job>,
    first: Option<Bytes>,
    body: Option<UpstreamBody>,
    guard: Guard,
    idle: Duration,
    ttft: Duration,
    alarm: Pin<Box<Sleep>>,
}

impl Forward {
    #[must_use]
    pub fn new(mut job: Box<Job>, opaque: Opaque) -> Self {
        let Opaque { status, first, body, guard, idle, .. } = opaque;
        let ttft = job.tally.attempt_age();
        job.ask.forget_body();
        job.tally.first_content(status.as_u16());
        guard.note(AttemptEnd::Content);
        Self {
            job,
            first,
            body: Some(body),
            guard,
            idle,
            ttft,
            alarm: Box::pin(sleep_until(Instant::now() + idle)),
        }
    }

    /// The next bytes; an error where the upstream broke off.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokeOff>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if let Poll::Ready(cause) = self.job.halt.poll(cx) {
            let error = rounds::halted(cause);
            return Poll::Ready(self.broke(AttemptEnd::Abandoned, &error.message));
        }
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.alarm.as_mut().reset(Instant::now() + self.idle);
                        self.job.tally.sent(&data, 0);
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(fault))) => {
                    return Poll::Ready(self.broke(
                        AttemptEnd::BrokeAfterContent(&outcome::classify_transport(&fault)),
                        &fault.message,
                    ));
                }
                Poll::Ready(None) => {
                    self.body = None;
                    self.guard.close(AttemptEnd::Finished { ttft: Some(self.ttft), usage: None });
                    self.job.tally.end(RequestState::Done, None, None);
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    ready!(self.alarm.as_mut().poll(cx));
                    let fault = TransportFault {
                        kind: TransportKind::IdleTimeout,
                        message: format!(
                            "no byte came for {}s inside the answer (`idle` under [timeouts])",
                            self.idle.as_secs_f64()
                        ),
                        may_be_received: true,
                    };
                    return Poll::Ready(self.broke(
                        AttemptEnd::BrokeAfterContent(&outcome::classify_transport(&fault)),
                        &fault.message,
                    ));
                }
            }
        }
    }

    fn broke(&mut self, end: AttemptEnd<'_>, message: &str) -> Option<Result<Bytes, BrokeOff>> {
        self.body.take()?;
        self.guard.close(end);
        self.job.tally.end(RequestState::Failed, None, Some(message));
        Some(Err(BrokeOff))
    }
}
