//! Sends a stored request again, from the bodies in the ledger.

use std::sync::Arc;

use crate::cli::serve::proxy_admin::ProxyAdmin;
use crate::{
    base::id::RequestId,
    control::{action_message::ActionMessage, history::LedgerHandle},
    events::ledger_queue::ExchangeSide,
    relay::{handler, request::replay::Replay},
    server::endpoints::{self, StoredRequest},
};

impl ProxyAdmin {
    /// Returns the ids of the original and the new request.
    pub(super) async fn replay(
        self: &Arc<Self>,
        id: &str,
        model: Option<String>,
    ) -> Result<(RequestId, RequestId), ActionMessage> {
        let ledger = self.ledger.clone().ok_or(ActionMessage::NoLedger)?;
        let ledger_handle = LedgerHandle { engine: Arc::clone(&self.engine), ledger };
        let full = ledger_handle
            .request_detail(id)
            .await
            .map_err(|error| ActionMessage::text(error.message))?;
        let record = full.record;
        let body = full.bodies.iter().find(|body| body.side == ExchangeSide::Request);
        let body = body.filter(|body| body.is_complete()).ok_or(ActionMessage::BodyNotStored)?;
        let generation = self.engine.generation();
        let project =
            generation.settings.projects.iter().find(|project| project.name == record.project);
        let project = project
            .ok_or_else(|| ActionMessage::ProjectGone { project: Arc::clone(&record.project) })?;
        let stored = StoredRequest {
            dialect: record.dialect,
            op: record.op,
            model: &record.requested_model,
            stream: record.stream,
            body: &body.head,
        };
        let (endpoint, query) =
            endpoints::for_replay(stored).ok_or(ActionMessage::CannotReplay { op: record.op })?;
        let pending = handler::prepare_replay(
            &self.engine,
            Replay {
                original_id: record.id,
                endpoint,
                query: query.map(str::to_owned),
                project: Arc::clone(project),
                program: "replay".into(),
                body: body.head.clone().into(),
                model: model.filter(|model| !model.is_empty()),
            },
        )
        .map_err(ActionMessage::text)?;
        self.tracker.spawn(pending.run);
        Ok((record.id, pending.id))
    }
}
