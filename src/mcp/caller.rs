//! The client behind a request.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    config::settings::Project,
    mcp::{
        message::{
            self, CONNECTION_CLOSED, METHOD_NOT_FOUND, REQUEST_TIMEOUT, RpcError, with_members,
        },
        outlet::Outlet,
        revision::{
            META_CAPABILITIES, META_CLIENT, META_LOG_LEVEL, META_VERSION, Revision, STATELESS,
            TASKS_EXTENSION,
        },
        session::{ClientFacts, EndpointScope, McpSession},
        wire::peer::own_info,
    },
};

/// The client behind a request.
#[derive(Clone)]
pub struct McpCaller {
    pub project: Arc<Project>,
    pub scope: EndpointScope,
    pub facts: ClientFacts,
    /// The log level that a stateless client requests for this request.
    pub level: Option<usize>,
    pub session: Option<Arc<McpSession>>,
    /// The first word of its User-Agent.
    pub program: Arc<str>,
    pub addr: Option<IpAddr>,
}

impl McpCaller {
    #[must_use]
    pub fn is_stateless(&self) -> bool {
        self.facts.revision.is_stateless()
    }

    /// Whether the client answers questions of this kind.
    #[must_use]
    pub fn can_answer(&self, method: &str, params: Option<&RawJson>) -> bool {
        let capabilities = self.facts.capabilities.json();
        match method {
            "elicitation/create" => {
                let Some(elicitation) = capabilities.get("elicitation") else { return false };
                match message::text_param(params, "mode").as_deref() {
                    Some("url") => elicitation.get("url").is_some(),
                    _ => elicitation.get("form").is_some() || elicitation.get("url").is_none(),
                }
            }
            "sampling/createMessage" => capabilities.get("sampling").is_some(),
            "roots/list" => capabilities.get("roots").is_some(),
            _ => false,
        }
    }

    /// Whether the client knows tasks.
    #[must_use]
    pub fn knows_tasks(&self) -> bool {
        self.is_stateless()
            && self.facts.capabilities.json().member_at(&["extensions", TASKS_EXTENSION]).is_some()
    }

    /// Whether a log message of this level is wanted.
    #[must_use]
    pub fn wants_log(&self, params: Option<&RawJson>) -> bool {
        let wanted = match &self.session {
            Some(session) => session.level().or(Some(0)),
            None => self.level,
        };
        let level = message::text_param(params, "level");
        let level = level.and_then(|level| crate::mcp::log_level::parse(&level)).unwrap_or(1);
        wanted.is_some_and(|wanted| level >= wanted)
    }

    /// Gives params the form that a server of this revision expects. `token` is the token of the
    /// request's progress at the server.
    #[must_use]
    pub fn fit_params(&self, params: Option<&RawJson>, server: Revision, token: u64) -> RawJson {
        let meta = params.and_then(|params| params.json().get("_meta"));
        let has_token = meta.is_some_and(|meta| meta.get("progressToken").is_some());
        let token = RawJson::from(token);
        let meta = meta.map(RawJson::from_json);
        let meta = match server {
            Revision::Stateless => {
                let version = RawJson::string(STATELESS);
                let info = self.facts.info.clone().unwrap_or_else(own_info);
                let capabilities = self.stateless_capabilities();
                let level = match &self.session {
                    Some(session) => session.level(),
                    None => self.level,
                };
                let level =
                    level.map(|level| RawJson::string(crate::mcp::log_level::LEVELS[level]));
                with_members(
                    meta.as_ref(),
                    &[
                        ("progressToken", has_token.then_some(&token)),
                        (META_VERSION, Some(&version)),
                        (META_CLIENT, Some(&info)),
                        (META_CAPABILITIES, Some(&capabilities)),
                        (META_LOG_LEVEL, level.as_ref()),
                    ],
                )
            }
            Revision::Handshake(_) => with_members(
                meta.as_ref(),
                &[
                    ("progressToken", has_token.then_some(&token)),
                    (META_VERSION, None),
                    (META_CLIENT, None),
                    (META_CAPABILITIES, None),
                    (META_LOG_LEVEL, None),
                ],
            ),
        };
        let meta = (!meta.json().is_blank()).then_some(meta);
        with_members(params, &[("_meta", meta.as_ref())])
    }

    fn stateless_capabilities(&self) -> RawJson {
        if self.is_stateless() {
            return self.facts.capabilities.clone();
        }
        let json = self.facts.capabilities.json();
        RawJson::object(|o| {
            for name in ["elicitation", "sampling", "roots"] {
                if let Some(value) = json.get(name) {
                    o.json(name, value);
                }
            }
        })
    }

    /// Asks a client with a session, and waits for its answer.
    ///
    /// # Errors
    ///
    /// The client cannot answer this, leaves, or takes too long.
    pub async fn ask(
        &self,
        outlet: &Outlet,
        method: &str,
        params: Option<&RawJson>,
        limit: Duration,
    ) -> Result<RawJson, RpcError> {
        let Some(session) = self.session.as_ref().filter(|_| self.can_answer(method, params))
        else {
            let message = format!("the client does not answer `{method}`");
            return Err(RpcError::new(METHOD_NOT_FOUND, message));
        };
        let (id, answer) = session.ask();
        outlet.send(message::request(&RawJson::string(&id), method, params)).await;
        let answered = tokio::select! {
            answered = timeout(limit, answer) => answered,
            () = outlet.gone.cancelled() => {
                session.forget_question(&id);
                return Err(RpcError::new(CONNECTION_CLOSED, "the client has left"));
            }
        };
        match answered {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RpcError::new(CONNECTION_CLOSED, "the client ended its session")),
            Err(_) => {
                session.forget_question(&id);
                let message = format!("the client did not answer within {} s", limit.as_secs());
                Err(RpcError::new(REQUEST_TIMEOUT, message))
            }
        }
    }
}

/// Returns the token that a client wants to see in notifications of progress.
#[must_use]
pub fn progress_token(params: Option<&RawJson>) -> Option<RawJson> {
    let json = params.map(RawJson::json)?;
    json.member_at(&["_meta", "progressToken"]).map(RawJson::from_json)
}

/// Returns the level of log messages that a stateless request asks for.
#[must_use]
pub fn requested_level(meta: JsonRef<'_>) -> Option<usize> {
    meta.string_at(META_LOG_LEVEL).and_then(|level| crate::mcp::log_level::parse(&level))
}
