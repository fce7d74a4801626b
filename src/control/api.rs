//! `/aiproxy/v1/*`: snapshot, events, requests, acts, dry-run routing; all behind the control token
//! or an admin project.

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
    alerts::Standing,
    feed::feed,
    history::Books,
    metrics,
    route::{self, RouteQuestion},
    snapshot::Snapshot,
    story, views,
};
use crate::{
    base::{clock::UnixMillis, id::RequestId},
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
    },
    relay::{
        engine::Engine,
        reply::{self, ResponseBody},
    },
    secrets::Secret,
    telemetry::{self, metrics::Metrics},
};

/// Bodies of acts are small.
const BODY: usize = 64 << 10;
/// The body of an act comes within this.
const READ: Duration = Duration::from_secs(10);

/// The control API of a process.
pub struct Control {
    pub engine: Arc<Engine>,
    pub admin: Arc<dyn Admin>,
    pub started: UnixMillis,
    pub listen: Vec<String>,
    /// `None` where no ledger could be started.
    pub books: Option<Books>,
    pub alerts: Arc<Standing>,
    pub metrics: Arc<Metrics>,
    /// Ends event streams when the proxy stops.
    pub stop: CancellationToken,
    token: [u8; 32],
}

impl Control {
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
            books: None,
            alerts: Arc::default(),
            metrics: Arc::default(),
            stop,
            token: token.digest(),
        }
    }

    /// The same with a ledger to ask.
    #[must_use]
    pub fn with_books(mut self, books: Option<Books>) -> Self {
        self.books = books;
        self
    }

    /// The same with what others put together.
    #[must_use]
    pub fn with_news(mut self, alerts: Arc<Standing>, metrics: Arc<Metrics>) -> Self {
        (self.alerts, self.metrics) = (alerts, metrics);
        self
    }

    /// Whether this is the control token; compared in constant time.
    #[must_use]
    pub fn is_token(&self, token: &Secret) -> bool {
        bool::from(self.token.ct_eq(&token.digest()))
    }

    /// Answers one request below `/aiproxy/v1/`.
    pub async fn answer(
        &self,
        method: &Method,
        path: &str,
        query: Option<&str>,
        body: Incoming,
        id: RequestId,
    ) -> Response<ResponseBody> {
        let mut response = self.find(method, path, query, body, id).await;
        // Refusals too: who asks can tell them from somebody else's.
        mark(&mut response, id);
        response
    }

    async fn find(
        &self,
        method: &Method,
        path: &str,
        query: Option<&str>,
        body: Incoming,
        id: RequestId,
    ) -> Response<ResponseBody> {
        let get = matches!(*method, Method::GET | Method::HEAD);
        match (path, get) {
            ("snapshot", true) => json(id, StatusCode::OK, &self.snapshot()),
            ("events", true) => self.events(),
            ("history", true) => self.ledger(Asked::History(query), id).await,
            ("usage", true) => self.ledger(Asked::Usage(query), id).await,
            ("requests", true) => {
                let all = self.engine.bus.view(|live| {
                    live.running
                        .iter()
                        .rev()
                        .chain(live.finished().rev())
                        .cloned()
                        .collect::<Vec<_>>()
                });
                json(id, StatusCode::OK, &all)
            }
            ("act", false) => match self.read::<Action>(body).await {
                Ok(action) => json(id, StatusCode::OK, &self.admin.act(action).await),
                Err(error) => reply::error_response(Dialect::Openai, id, &error),
            },
            ("route", false) => match self.read::<RouteQuestion>(body).await {
                Ok(question) => json(id, StatusCode::OK, &route::explain(&self.engine, &question)),
                Err(error) => reply::error_response(Dialect::Openai, id, &error),
            },
            ("reload", false) => self.reload(id).await,
            (other, true) if other.starts_with("requests/") => {
                let wanted = other.trim_start_matches("requests/");
                if let Some(wanted) = wanted.strip_suffix("/story") {
                    return told(
                        id,
                        story::tell(&self.engine, self.books.as_ref(), wanted, story::wish(query))
                            .await,
                    );
                }
                if let Some(wanted) = wanted.strip_suffix("/full") {
                    return self.ledger(Asked::Full(wanted), id).await;
                }
                match self.engine.bus.view(|live| live.find(wanted).cloned()) {
                    Some(record) => json(id, StatusCode::OK, &record),
                    None => self.ledger(Asked::Record(wanted), id).await,
                }
            }
            _ => {
                let message = "the control API has snapshot, events, requests, requests/ID, requests/ID/full, requests/ID/story, history, usage (GET) and act, route, reload (POST)";
                reply::error_response(
                    Dialect::Openai,
                    id,
                    &ProxyError::new(ProxyErrorKind::UnknownPath, message).code("unknown_url"),
                )
            }
        }
    }

    /// What the ledger says, where there is one.
    async fn ledger(&self, question: Asked<'_>, id: RequestId) -> Response<ResponseBody> {
        let Some(books) = &self.books else {
            return reply::error_response(
                Dialect::Openai,
                id,
                &ProxyError::new(ProxyErrorKind::Unavailable, "no ledger is kept")
                    .code("no_ledger"),
            );
        };
        match question {
            Asked::Full(wanted) => told(id, books.full(wanted).await),
            Asked::History(query) => told(id, books.history(query).await),
            Asked::Record(wanted) => told(id, books.full(wanted).await.map(|full| full.record)),
            Asked::Usage(query) => told(id, books.usage(query).await),
        }
    }

    /// `POST /v1/reload`.
    pub async fn reload(&self, id: RequestId) -> Response<ResponseBody> {
        let reloaded = self.admin.reload().await;
        let status = if reloaded.ok { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
        let mut response = json(id, status, &reloaded);
        mark(&mut response, id);
        response
    }

    /// `GET /metrics`.
    pub async fn metrics(&self, id: RequestId) -> Response<ResponseBody> {
        reply::full_response(
            StatusCode::OK,
            telemetry::text::CONTENT_TYPE,
            id,
            metrics::page(self).await.into(),
        )
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, body: Incoming) -> Result<T, ProxyError> {
        let bad = |why: String| ProxyError::new(ProxyErrorKind::BadRequest, why);
        let bytes = timeout(READ, Limited::new(body, BODY).collect())
            .await
            .map_err(|_| bad("the body did not come".to_owned()))?;
        let bytes = bytes.map_err(|e| bad(format!("the body cannot be read: {e}")))?.to_bytes();
        serde_json::from_slice(&bytes)
            .map_err(|e| bad(format!("the body is not what this takes: {e}")))
    }

    /// Everything a viewer needs to begin with.
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
                .books
                .as_ref()
                .map(|books| books.ledger.status(&books.engine.ledger_queue)),
            alerts: self.alerts.list(),
            budgets: views::budgets(engine),
        }
    }

    fn events(&self) -> Response<ResponseBody> {
        let (live, events) = self.engine.bus.subscribe_with_snapshot();
        let hello = Bytes::from(format!(": events after {}\n\n", live.seq));
        let body = ResponseBody::Events(Box::pin(feed(hello, events, self.stop.clone())));
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// What the ledger is asked.
enum Asked<'a> {
    Full(&'a str),
    History(Option<&'a str>),
    Record(&'a str),
    Usage(Option<&'a str>),
}

fn json<T: Serialize>(id: RequestId, status: StatusCode, value: &T) -> Response<ResponseBody> {
    match serde_json::to_vec(value) {
        Ok(body) => reply::full_response(status, "application/json", id, body.into()),
        Err(e) => reply::error_response(
            Dialect::Openai,
            id,
            &ProxyError::new(ProxyErrorKind::Internal, format!("cannot be written: {e}")),
        ),
    }
}

fn told<T: Serialize>(id: RequestId, answer: Result<T, ProxyError>) -> Response<ResponseBody> {
    match answer {
        Ok(value) => json(id, StatusCode::OK, &value),
        Err(error) => reply::error_response(Dialect::Openai, id, &error),
    }
}

fn mark(response: &mut Response<ResponseBody>, id: RequestId) {
    reply::set_request_id(response.headers_mut(), id);
    response.headers_mut().insert("x-aiproxy", HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    response
        .headers_mut()
        .insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
}
