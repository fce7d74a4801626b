//! Serves `/aiproxy/v1/*`: snapshot, events, requests, actions and dry-run routing, for the control
//! token or an admin project.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use subtle::ConstantTimeEq;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    action::Action,
    admin::Admin,
    feed::event_feed,
    history::LedgerHandle,
    mcp,
    route::{self, RouteExplainRequest},
    snapshot::Snapshot,
    views,
};
use crate::control::{active_alerts::ActiveAlerts, request_transcript};
use crate::{
    base::{clock::UnixMillis, id::RequestId},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
    },
    mcp::servers::hub::McpHub,
    relay::{
        engine::Engine,
        response::{self, ResponseBody},
    },
    secrets::Secret,
    telemetry::metrics::Metrics,
};

/// Limit for the body of an action.
const MAX_BODY_BYTES: usize = 64 << 10;
/// The body of an action must arrive within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The control API of a process.
pub struct ControlApi {
    pub engine: Arc<Engine>,
    pub admin: Arc<dyn Admin>,
    pub started: UnixMillis,
    pub listen: Vec<String>,
    /// `None` if the ledger could not be started.
    pub ledger_handle: Option<LedgerHandle>,
    pub alerts: Arc<ActiveAlerts>,
    pub metrics: Arc<Metrics>,
    /// The MCP servers.
    pub mcp: Option<Arc<McpHub>>,
    /// Ends event streams when the proxy stops.
    pub stop: CancellationToken,
    token: [u8; 32],
}

impl ControlApi {
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        admin: Arc<dyn Admin>,
        listen: Vec<String>,
        stop: CancellationToken,
        token: &Secret,
    ) -> Self {
        let started = engine.clock.unix();
        Self {
            engine,
            admin,
            started,
            listen,
            ledger_handle: None,
            alerts: Arc::default(),
            metrics: Arc::default(),
            mcp: None,
            stop,
            token: token.digest(),
        }
    }

    /// Sets the ledger to query.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Option<LedgerHandle>) -> Self {
        self.ledger_handle = ledger;
        self
    }

    /// Sets the MCP servers.
    #[must_use]
    pub fn with_mcp(mut self, mcp: Arc<McpHub>) -> Self {
        self.mcp = Some(mcp);
        self
    }

    /// Sets the alerts and metrics.
    #[must_use]
    pub fn with_alerts_and_metrics(
        mut self,
        alerts: Arc<ActiveAlerts>,
        metrics: Arc<Metrics>,
    ) -> Self {
        (self.alerts, self.metrics) = (alerts, metrics);
        self
    }

    /// Returns whether this is the control token; compares in constant time.
    #[must_use]
    pub fn is_token(&self, token: &Secret) -> bool {
        bool::from(self.token.ct_eq(&token.digest()))
    }

    /// Answers one request below `/aiproxy/v1/` that was sent with this token.
    pub async fn handle(
        &self,
        method: &Method,
        path: &str,
        query: Option<&str>,
        body: Incoming,
        id: RequestId,
        token: Option<&Secret>,
    ) -> Response<ResponseBody> {
        let is_owner = token.is_some_and(|token| self.is_token(token));
        let mut response = self.dispatch(method, path, query, body, id, is_owner).await;
        // Errors get the headers too, so that the client can distinguish them from another
        // server's.
        set_control_headers(&mut response, id);
        response
    }

    async fn dispatch(
        &self,
        method: &Method,
        path: &str,
        query: Option<&str>,
        body: Incoming,
        id: RequestId,
        is_owner: bool,
    ) -> Response<ResponseBody> {
        let get = matches!(*method, Method::GET | Method::HEAD);
        match (path, get) {
            ("snapshot", true) => json_response(id, StatusCode::OK, &self.snapshot()),
            ("events", true) => self.events(),
            ("history", true) => self.query_ledger(LedgerQuery::History(query), id).await,
            ("usage", true) => self.query_ledger(LedgerQuery::Usage(query), id).await,
            ("requests", true) => {
                let all = self.engine.bus.view(|live| {
                    live.running
                        .iter()
                        .rev()
                        .chain(live.finished().rev())
                        .cloned()
                        .collect::<Vec<_>>()
                });
                json_response(id, StatusCode::OK, &all)
            }
            ("act", false) => match self.read_body::<Action>(body).await {
                Ok(Action::ClientKey { .. }) if !is_owner => {
                    let message =
                        "client keys are given to the control token (DATA/run/token) only";
                    let error = ProxyError::new(ProxyErrorKind::Forbidden, message);
                    response::error_response(Dialect::Openai, id, &error)
                }
                Ok(action) => json_response(id, StatusCode::OK, &self.admin.perform(action).await),
                Err(error) => response::error_response(Dialect::Openai, id, &error),
            },
            ("route", false) => match self.read_body::<RouteExplainRequest>(body).await {
                Ok(question) => {
                    json_response(id, StatusCode::OK, &route::explain(&self.engine, &question))
                }
                Err(error) => response::error_response(Dialect::Openai, id, &error),
            },
            ("reload", false) => self.reload(id).await,
            (path, _) if path == "mcp" || path.starts_with("mcp/") => {
                let below = path.trim_start_matches("mcp").trim_start_matches('/');
                Box::pin(self.answer_mcp(below, get, body, id)).await
            }
            (other, true) if other.starts_with("requests/") => {
                let wanted = other.trim_start_matches("requests/");
                if let Some(wanted) = wanted.strip_suffix("/story") {
                    return json_result(
                        id,
                        request_transcript::read_transcript(
                            &self.engine,
                            self.ledger_handle.as_ref(),
                            wanted,
                            request_transcript::parse_query(query),
                        )
                        .await,
                    );
                }
                if let Some(wanted) = wanted.strip_suffix("/full") {
                    return self.query_ledger(LedgerQuery::Detail(wanted), id).await;
                }
                match self.engine.bus.view(|live| live.find(wanted).cloned()) {
                    Some(record) => json_response(id, StatusCode::OK, &record),
                    None => self.query_ledger(LedgerQuery::Record(wanted), id).await,
                }
            }
            _ => {
                let message = "the control API has snapshot, events, requests, requests/ID, requests/ID/full, requests/ID/story, history, usage, mcp (GET) and act, route, reload (POST)";
                response::error_response(
                    Dialect::Openai,
                    id,
                    &ProxyError::new(ProxyErrorKind::UnknownPath, message).code("unknown_url"),
                )
            }
        }
    }

    /// Answers `mcp`, `mcp/NAME/logs`, `mcp/NAME/tools`, `mcp/NAME/test` and `mcp/NAME/call`.
    async fn answer_mcp(
        &self,
        below: &str,
        get: bool,
        body: Incoming,
        id: RequestId,
    ) -> Response<ResponseBody> {
        let generation = self.engine.generation();
        let projects = &generation.settings.projects;
        let admin = projects.iter().find(|project| &*project.name == "default");
        let answered = async {
            let unavailable =
                || ProxyError::new(ProxyErrorKind::Unavailable, "there are no MCP servers here");
            let hub = self.mcp.as_ref().ok_or_else(unavailable)?;
            let project = admin.or(projects.first()).ok_or_else(unavailable)?;
            if below.is_empty() {
                return Ok(json_response(id, StatusCode::OK, &mcp::servers(hub)));
            }
            let (name, what) = below.split_once('/').unwrap_or((below, ""));
            let entry = mcp::find(hub, name)?;
            match (what, get) {
                ("logs", true) => {
                    let lines = entry.errors.lines();
                    Ok(json_response(id, StatusCode::OK, &mcp::McpLogView { lines }))
                }
                ("tools" | "test", true) => {
                    let view = mcp::tools(hub, project, &entry, what == "test").await;
                    Ok(json_response(id, StatusCode::OK, &view))
                }
                ("call", false) => {
                    let call = self.read_body::<mcp::McpCallBody>(body).await?;
                    let view = mcp::call(hub, project, &entry, &call).await;
                    Ok(json_response(id, StatusCode::OK, &view))
                }
                _ => {
                    let message = "a server has logs, tools, test (GET) and call (POST)";
                    Err(ProxyError::new(ProxyErrorKind::UnknownPath, message).code("unknown_url"))
                }
            }
        };
        let answered: Result<_, ProxyError> = answered.await;
        answered.unwrap_or_else(|error| response::error_response(Dialect::Openai, id, &error))
    }

    /// Answers from the ledger, if there is one.
    async fn query_ledger(
        &self,
        question: LedgerQuery<'_>,
        id: RequestId,
    ) -> Response<ResponseBody> {
        let Some(ledger) = &self.ledger_handle else {
            return response::error_response(
                Dialect::Openai,
                id,
                &ProxyError::new(ProxyErrorKind::Unavailable, "no ledger is kept")
                    .code("no_ledger"),
            );
        };
        match question {
            LedgerQuery::Detail(wanted) => json_result(id, ledger.request_detail(wanted).await),
            LedgerQuery::History(query) => json_result(id, ledger.history(query).await),
            LedgerQuery::Record(wanted) => {
                json_result(id, ledger.request_detail(wanted).await.map(|full| full.record))
            }
            LedgerQuery::Usage(query) => json_result(id, ledger.usage(query).await),
        }
    }

    /// `POST /v1/reload`.
    pub async fn reload(&self, id: RequestId) -> Response<ResponseBody> {
        let reloaded = self.admin.reload().await;
        let status = if reloaded.ok { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
        let mut response = json_response(id, status, &reloaded);
        set_control_headers(&mut response, id);
        response
    }

    async fn read_body<T: serde::de::DeserializeOwned>(
        &self,
        body: Incoming,
    ) -> Result<T, ProxyError> {
        let bad = |why: String| ProxyError::new(ProxyErrorKind::BadRequest, why);
        let bytes = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect())
            .await
            .map_err(|_| bad("the body did not come".to_owned()))?;
        let bytes = bytes.map_err(|e| bad(format!("the body cannot be read: {e}")))?.to_bytes();
        serde_json::from_slice(&bytes)
            .map_err(|e| bad(format!("the body is not what this takes: {e}")))
    }

    /// Returns the complete state that a viewer starts with.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let engine = &self.engine;
        let generation = engine.generation();
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            at: engine.clock.unix(),
            started: self.started,
            listen: self.listen.clone(),
            config: self.admin.config(),
            upstreams: views::upstreams(engine, &generation),
            keys: views::keys(engine, &generation),
            models: views::models(engine, &generation),
            projects: generation
                .settings
                .projects
                .iter()
                .map(|project| project.name.to_string())
                .collect(),
            live: engine.bus.view(Clone::clone),
            offline: engine.network.down(),
            draining: engine.draining(),
            ledger: self
                .ledger_handle
                .as_ref()
                .map(|ledger| ledger.ledger.status(&ledger.engine.ledger_queue)),
            alerts: self.alerts.list(),
            budgets: views::budgets(engine),
        }
    }

    fn events(&self) -> Response<ResponseBody> {
        let (live, events) = self.engine.bus.subscribe_with_snapshot();
        let hello = Bytes::from(format!(": events after {}\n\n", live.seq));
        let body = ResponseBody::Events(Box::pin(event_feed(hello, events, self.stop.clone())));
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// A query for the ledger.
enum LedgerQuery<'a> {
    Detail(&'a str),
    History(Option<&'a str>),
    Record(&'a str),
    Usage(Option<&'a str>),
}

fn json_response<T: Serialize>(
    id: RequestId,
    status: StatusCode,
    value: &T,
) -> Response<ResponseBody> {
    match serde_json::to_vec(value) {
        Ok(body) => response::full_response(status, "application/json", id, body.into()),
        Err(e) => response::error_response(
            Dialect::Openai,
            id,
            &ProxyError::new(ProxyErrorKind::Internal, format!("cannot be written: {e}")),
        ),
    }
}

fn json_result<T: Serialize>(
    id: RequestId,
    answer: Result<T, ProxyError>,
) -> Response<ResponseBody> {
    match answer {
        Ok(value) => json_response(id, StatusCode::OK, &value),
        Err(error) => response::error_response(Dialect::Openai, id, &error),
    }
}

fn set_control_headers(response: &mut Response<ResponseBody>, id: RequestId) {
    response::set_request_id(response.headers_mut(), id);
    response.headers_mut().insert("x-aiproxy", HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    response
        .headers_mut()
        .insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
}
