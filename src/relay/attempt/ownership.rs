//! Records which upstream has what a request created, and finds it again by its id.

use std::sync::Arc;

use http::Method;

use crate::relay::{
    context::RequestContext,
    engine::Engine,
    request::proxy_request::ModelLocation,
    state::{
        resource_owners::{self, Ownership, ResourceOwner},
        response_store::StoredAt,
    },
};
use crate::{
    config::settings::{KeyId, UpstreamId},
    ir::op::Op,
};

/// Ids are at the beginning of an answer.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How often an answer that might be complete is read before its end.
const MAX_EARLY_READS: u8 = 4;

/// Returns where a response is stored, also if it was created before a restart.
#[must_use]
pub fn find_response(engine: &Engine, project: &Arc<str>, id: &str) -> Option<StoredAt> {
    engine.response_store.find(project, id).or_else(|| {
        let owner = engine.resource_owners.find(project, id)?;
        let (upstream, key) = ids_of(engine, &owner)?;
        Some(StoredAt::Upstream { upstream, key })
    })
}

/// Returns the ids of an owner's upstream and key; `None` if the upstream is not configured.
#[must_use]
pub(in crate::relay) fn ids_of(
    engine: &Engine,
    owner: &ResourceOwner,
) -> Option<(UpstreamId, Option<KeyId>)> {
    let settings = &engine.generation().settings;
    let upstream = settings.upstreams.iter().find(|each| *each.name == *owner.upstream)?;
    let key = upstream.keys.iter().find(|key| *key.name == *owner.key);
    Some((upstream.id, key.map(|key| key.id)))
}

/// Returns to whom the ids in a request belong that passes unchanged.
pub(in crate::relay) fn of_request(context: &RequestContext) -> Ownership {
    let request = &context.request;
    if request.endpoint.op != Op::Raw {
        return Ownership::Unknown;
    }
    let project = &request.caller.project.name;
    context.engine.resource_owners.ownership(project, &request.endpoint.path, &request.body)
}

/// Records that the last attempt's upstream has what a project created.
pub(in crate::relay) fn record(context: &RequestContext, id: &str) {
    let Some((upstream, key)) = context.attempt_target else { return };
    let settings = &context.generation.settings;
    let Some(upstream) = settings.upstreams.iter().find(|each| each.id == upstream) else { return };
    let Some(key) = upstream.keys.iter().find(|each| each.id == key) else { return };
    let owner = ResourceOwner {
        project: Arc::clone(&context.request.caller.project.name),
        upstream: Arc::from(&*upstream.name),
        key: Arc::from(&*key.name),
    };
    context.engine.resource_owners.record(id, owner, context.engine.clock.unix());
}

/// The beginning of an answer that names what a request created.
#[derive(Debug)]
pub(in crate::relay) struct CreationReader {
    head: Vec<u8>,
    early_reads: u8,
}

impl CreationReader {
    /// Returns a reader if the request creates something at an upstream, or concerns what its
    /// project created there.
    pub(in crate::relay) fn for_request(context: &RequestContext) -> Option<Self> {
        let request = &context.request;
        let is_kept = request.endpoint.op == Op::Raw
            && matches!(
                request.endpoint.model,
                ModelLocation::AnyUpstream | ModelLocation::Upstream(_)
            );
        let creates = request.method == Method::POST || request.owner.is_some();
        (is_kept && creates).then(|| Self { head: Vec::new(), early_reads: MAX_EARLY_READS })
    }

    /// Takes the next bytes. Records the ids before the last bytes reach the client, which may use
    /// them at once. Returns whether more bytes are needed.
    pub(in crate::relay) fn feed(&mut self, context: &RequestContext, data: &[u8]) -> bool {
        if self.head.is_empty() && !data.trim_ascii_start().starts_with(b"{") {
            return data.trim_ascii().is_empty();
        }
        let room = MAX_HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&data[..data.len().min(room)]);
        let is_full = data.len() >= room;
        if is_full || (self.early_reads > 0 && self.head.trim_ascii_end().ends_with(b"}")) {
            self.early_reads = self.early_reads.saturating_sub(1);
            self.finish(context);
        }
        !is_full
    }

    /// Records what the answer names as created.
    pub(in crate::relay) fn finish(&self, context: &RequestContext) {
        for id in resource_owners::created_ids(&self.head) {
            record(context, &id);
        }
    }
}
