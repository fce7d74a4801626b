//! Sends a stored request again, from the bodies in the ledger.

use std::sync::Arc;

use http::Method;

use crate::cli::serve::proxy_admin::ProxyAdmin;
use crate::{
    base::id::RequestId,
    control::history::LedgerHandle,
    events::{ledger_queue::ExchangeSide, record::RequestRecord},
    ir::op::{Dialect, Op},
    ledger::bodies::BodyView,
    relay::{handler, request::replay::Replay},
    server::paths::{self, Route},
};

impl ProxyAdmin {
    /// Returns the ids of the original and the new request.
    pub(super) async fn replay(
        self: &Arc<Self>,
        id: &str,
        model: Option<String>,
    ) -> Result<(RequestId, RequestId), String> {
        let ledger =
            self.ledger.clone().ok_or("no ledger is kept, so there is no request to send again")?;
        let ledger_handle = LedgerHandle { engine: Arc::clone(&self.engine), ledger };
        let full = ledger_handle.request_detail(id).await.map_err(|error| error.message)?;
        let record = full.record;
        let body = full.bodies.iter().find(|body| body.side == ExchangeSide::Request);
        let body = body
            .filter(|body| body.is_complete())
            .ok_or("its body was not kept whole (`bodies` under [ledger])")?;
        let generation = self.engine.generation();
        let project =
            generation.settings.projects.iter().find(|project| project.name == record.project);
        let project =
            project.ok_or_else(|| format!("there is no project `{}` any more", record.project))?;
        let (path, query) = endpoint_path(&record, body).ok_or_else(|| {
            format!("a request for `{}` cannot be sent again from here", record.op)
        })?;
        let Ok(Route::Relay(endpoint)) =
            paths::route(&Method::POST, &path, query).map(|routed| routed.route)
        else {
            return Err(format!("there is nothing at {path}"));
        };
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
        )?;
        self.tracker.spawn(pending.run);
        Ok((record.id, pending.id))
    }
}

/// The path the request came in on, from the dialect and operation in the ledger.
fn endpoint_path(
    record: &RequestRecord,
    body: &BodyView,
) -> Option<(String, Option<&'static str>)> {
    let path = match (record.dialect, record.op) {
        (Dialect::Openai, Op::Chat) => "/v1/chat/completions",
        (Dialect::Openai, Op::Completions) => "/v1/completions",
        (Dialect::Openai, Op::Embed) => "/v1/embeddings",
        (Dialect::Openai, Op::Rerank) => "/v1/rerank",
        (Dialect::Openai, Op::Moderate) => "/v1/moderations",
        (Dialect::Responses, Op::Chat) => "/v1/responses",
        (Dialect::Anthropic, Op::Chat) => "/v1/messages",
        (Dialect::Ollama, Op::Chat) if body.head.contains("\"messages\"") => "/api/chat",
        (Dialect::Ollama, Op::Chat) => "/api/generate",
        (Dialect::Gemini, Op::Chat) => {
            let name = percent_encoding::utf8_percent_encode(
                &record.requested_model,
                percent_encoding::NON_ALPHANUMERIC,
            );
            let (action, query) = if record.stream {
                ("streamGenerateContent", Some("alt=sse"))
            } else {
                ("generateContent", None)
            };
            return Some((format!("/v1beta/models/{name}:{action}"), query));
        }
        _ => return None,
    };
    Some((path.to_owned(), None))
}
