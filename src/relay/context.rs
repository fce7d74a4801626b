//! The data of one running request.

use std::{sync::Arc, time::Duration};

use crate::relay::{
    engine::{Engine, Generation},
    record::recorder::RequestRecorder,
    request::{parsed::ParsedRequest, proxy_request::ProxyRequest},
    state::{
        cancellations::CancelHandle, in_flight::InFlightPermit, permits::BufferReservation,
        reasoning_cache::TurnsHash,
    },
};
use crate::{
    config::settings::{KeyId, UpstreamId},
    dialect::{AttemptContext, Ingress, Loss},
    relay::record::refusal::Refusal,
    routing::{decision::FailedAttempt, name_resolver::ModelOverrides, resolve::ResolvedModel},
};

/// A running request: what its attempts work with, its record, and what it has taken.
pub struct ActiveRequest {
    pub context: RequestContext,
    pub recorder: RequestRecorder,
    pub cancel: Arc<CancelHandle>,
    /// Its slot among the requests in flight.
    pub permit: InFlightPermit,
}

/// What an attempt reads and what it leaves for the response.
pub struct RequestContext {
    pub engine: Arc<Engine>,
    pub generation: Arc<Generation>,
    pub request: Box<ProxyRequest>,
    /// What the bodies of request and response take of the memory for bodies.
    pub buffer_reservation: BufferReservation,
    pub ingress: &'static dyn Ingress,
    pub overrides: ModelOverrides,
    /// Strips usage from the stream, because aiproxy requested it and the client did not.
    pub hide_usage: bool,
    /// The request parsed into the IR, once a target needs it.
    pub parsed: Option<ParsedRequest>,
    /// Hash of what the user said, by which kept reasoning is found again.
    pub turns_hash: TurnsHash,
    /// No upstream supports this request; there may be a local answer.
    pub no_upstream_dialect: bool,
    /// What the newest attempt's request lost in translation.
    pub losses: Vec<Loss>,
    /// What the request writer passes to the response reader; `None` if the response passes
    /// unchanged.
    pub attempt_context: Option<AttemptContext>,
    /// The targets of its model name, if its stream is to continue elsewhere after it breaks off.
    pub rescue_targets: Option<Box<RescueTargets>>,
    /// It continues a response that broke off; the new content is only read.
    pub is_continuation: bool,
    /// The refusal before the newest attempt, if its request was repaired and sent again.
    pub refusal: Option<Box<Refusal>>,
    /// The upstream and key of the newest attempt.
    pub attempt_target: Option<(UpstreamId, KeyId)>,
}

impl RequestContext {
    /// Returns how long this request may wait in a queue: the configured time, but at most half of
    /// the client's timeout.
    pub(in crate::relay) fn queue_timeout(&self) -> Duration {
        let queue_for = self.generation.settings.retry.queue_for;
        self.request.client_timeout.map_or(queue_for, |timeout| queue_for.min(timeout / 2))
    }

    /// Drops what was stored for further attempts, because there will be none.
    pub(in crate::relay) fn drop_body(&mut self) {
        self.request.drop_body();
        self.buffer_reservation.release();
    }

    /// Copies what a separate attempt works with. The buffer reservation of the body stays with this
    /// one.
    pub(in crate::relay) fn clone_context(&self) -> Box<Self> {
        Box::new(Self {
            engine: Arc::clone(&self.engine),
            generation: Arc::clone(&self.generation),
            request: self.request.clone(),
            buffer_reservation: self.buffer_reservation.empty_sibling(),
            ingress: self.ingress,
            overrides: self.overrides.clone(),
            hide_usage: false,
            parsed: None,
            turns_hash: TurnsHash::default(),
            no_upstream_dialect: false,
            losses: Vec::new(),
            attempt_context: None,
            refusal: None,
            rescue_targets: self.rescue_targets.clone(),
            is_continuation: false,
            attempt_target: None,
        })
    }
}

/// The targets that might continue a stream.
#[derive(Clone)]
pub struct RescueTargets {
    /// The targets of the model name.
    pub(in crate::relay) resolved: ResolvedModel,
    /// The attempts that were already made.
    pub(in crate::relay) failed_attempts: Vec<FailedAttempt>,
}
