//! One request that goes to a server, with everything that comes in between: progress, log
//! messages, questions in the form of either revision, cancellation and time limits.

use std::{sync::Arc, time::Duration};

use tokio::sync::{broadcast, oneshot};

use crate::{
    base::{json::raw::RawJson, sync::Mutex},
    mcp::{
        caller::{McpCaller, progress_token},
        message::{
            self, INTERNAL_ERROR, INVALID_PARAMS, MISSING_CAPABILITY, REQUEST_TIMEOUT, RpcError,
            with_members,
        },
        names,
        outlet::Exchange,
        servers::instance::Instance,
        servers::parts::{HubEvent, Waiters, random_token},
        servers::start_fault::StartFault,
        wire::calls::{CallFault, FromServer, ServerEvent},
        wire::peer::{ActiveCall, Peer},
    },
};

/// Rounds of questions in one call.
const MAX_ROUNDS: usize = 16;
/// Calls that wait for an answer of their client, of all projects.
const MAX_PARKED: usize = 1_000;
/// Pauses between questions for the state of a task.
const MIN_POLL: Duration = Duration::from_millis(100);
const MAX_POLL: Duration = Duration::from_secs(10);

/// A call that waits for the client to come back with answers.
pub struct ParkedCall {
    /// Who may come back, and with what: project, server, method, name and arguments.
    owner: String,
    resume: oneshot::Sender<(Exchange, RawJson)>,
}

/// The calls that wait for their clients, by state.
#[derive(Default)]
pub struct ParkedCalls(Mutex<Waiters<ParkedCall>>);

impl ParkedCalls {
    /// Continues a call with the client's answers.
    ///
    /// # Errors
    ///
    /// There is no such call of this project with these arguments; the exchange comes back.
    pub fn resume(
        &self,
        state: &str,
        owner: &str,
        exchange: Exchange,
        answers: RawJson,
    ) -> Result<(), Exchange> {
        let mut waiting = self.0.lock();
        if waiting.get(state).is_none_or(|call| call.owner != owner) {
            return Err(exchange);
        }
        let Some(call) = waiting.remove(state) else { return Err(exchange) };
        call.resume.send((exchange, answers)).map_err(|(exchange, _)| exchange)
    }

    fn park(&self, state: &str, call: ParkedCall) -> bool {
        let mut waiting = self.0.lock();
        if waiting.len() >= MAX_PARKED {
            return false;
        }
        waiting.insert(state.to_owned(), call);
        true
    }

    fn forget(&self, state: &str) {
        self.0.lock().remove(state);
    }
}

/// What is asked of a server.
pub struct ServerRequest<'a> {
    pub caller: &'a McpCaller,
    pub instance: &'a Arc<Instance>,
    pub parked: &'a ParkedCalls,
    pub method: &'a str,
    /// With the server's own names.
    pub params: Option<RawJson>,
    /// See [`owner`].
    pub owner: String,
}

/// Returns the text that binds the state of a call to its client and its arguments.
#[must_use]
pub fn owner(caller: &McpCaller, server: &str, method: &str, params: Option<&RawJson>) -> String {
    let json = params.map(RawJson::json);
    let text = |name: &str| json.and_then(|json| json.get(name)).map_or("", |value| value.text());
    names::short_hash(&[&caller.project.name, server, method, text("name"), text("uri")])
        + &names::short_hash(&[text("arguments")])
}

/// How a request ended.
pub enum CallEnd {
    /// The client has disconnected.
    Left,
    Done(Result<RawJson, RpcError>),
}

impl ServerRequest<'_> {
    /// Carries the request out.
    pub async fn run(mut self, exchange: &mut Exchange) -> CallEnd {
        let token = progress_token(self.params.as_ref());
        let mut is_repeated = false;
        for _ in 0..MAX_ROUNDS {
            let peer = tokio::select! {
                () = exchange.outlet.gone.cancelled() => return CallEnd::Left,
                peer = self.instance.peer() => peer,
            };
            let peer = match peer {
                Ok(peer) => peer,
                Err(fault) => return CallEnd::Done(Err(fault.to_rpc(&self.instance.row.name))),
            };
            let answer = self.round(exchange, &peer, token.as_ref()).await;
            self.instance.touch();
            let result = match answer {
                RoundEnd::Left => return CallEnd::Left,
                RoundEnd::NotSent if !is_repeated => {
                    is_repeated = true;
                    continue;
                }
                RoundEnd::NotSent => Err(CallFault::Closed("the connection ended".into())),
                RoundEnd::Answered(Err(CallFault::SessionLost)) if !is_repeated => {
                    is_repeated = true;
                    self.instance.drop_peer(&peer);
                    continue;
                }
                RoundEnd::Answered(answer) => answer,
            };
            let result = match result {
                Ok(result) => result,
                Err(fault) => return CallEnd::Done(Err(self.error(fault))),
            };
            let kind = result.json().string_at("resultType");
            match kind.as_deref() {
                Some("input_required") if !self.caller.is_stateless() => {
                    match self.answer_inputs(exchange, &result).await {
                        Some(params) => self.params = Some(params),
                        None => return CallEnd::Left,
                    }
                }
                Some("task") if !self.caller.knows_tasks() => {
                    return self.follow_task(exchange, &peer, &result).await;
                }
                _ => return CallEnd::Done(Ok(result)),
            }
        }
        let message = "the server asked again and again".to_owned();
        CallEnd::Done(Err(RpcError::new(INTERNAL_ERROR, message)))
    }

    fn error(&self, fault: CallFault) -> RpcError {
        match fault {
            CallFault::Rpc(error) => error,
            CallFault::TimedOut(seconds) => RpcError::new(
                REQUEST_TIMEOUT,
                format!(
                    "MCP server `{}` did not answer within {seconds} s, its `timeout`; the call was cancelled",
                    self.instance.row.name
                ),
            ),
            other => StartFault::from_call(&self.instance.row.name, &other)
                .to_rpc(&self.instance.row.name),
        }
    }

    /// Sends the request once and follows it to its answer.
    async fn round(
        &self,
        exchange: &mut Exchange,
        peer: &Arc<Peer>,
        token: Option<&RawJson>,
    ) -> RoundEnd {
        let fit =
            |id| Some(self.caller.fit_params(self.params.as_ref(), peer.agreement.revision, id));
        let Ok(mut call) = peer.begin(self.method, fit, true) else { return RoundEnd::NotSent };
        let limit = self.instance.row.timeout;
        let mut logs = self.instance.events();
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                () = exchange.outlet.gone.cancelled() => return RoundEnd::Left,
                answer = &mut call.open.answer => {
                    while let Ok(item) = call.open.inbox.try_recv() {
                        self.forward(exchange, item, token);
                    }
                    let lost = || Err(CallFault::Closed("the answer was lost".into()));
                    return RoundEnd::Answered(answer.unwrap_or_else(|_| lost()));
                }
                Some(item) = call.open.inbox.recv() => {
                    let FromServer::Question { id, method, params } = item else {
                        self.forward(exchange, item, token);
                        continue;
                    };
                    let end = self.question(exchange, &mut call, peer, (id, method, params)).await;
                    if let Some(end) = end {
                        return end;
                    }
                    deadline.set(tokio::time::sleep(limit));
                }
                event = logs.recv() => self.forward_log(exchange, event),
                fault = &mut call.pump => return RoundEnd::Answered(Err(fault)),
                () = &mut deadline => {
                    return RoundEnd::Answered(Err(CallFault::TimedOut(limit.as_secs())));
                }
            }
        }
    }

    /// Passes a notification on, if the client wants it.
    fn forward(&self, exchange: &Exchange, item: FromServer, token: Option<&RawJson>) {
        let FromServer::Notification { method, params } = item else { return };
        match method.as_str() {
            "notifications/progress" => {
                let Some(token) = token else { return };
                let params = with_members(params.as_ref(), &[("progressToken", Some(token))]);
                exchange.outlet.try_send(message::notification(&method, Some(&params)));
            }
            "notifications/message" if self.caller.wants_log(params.as_ref()) => {
                exchange.outlet.try_send(message::notification(&method, params.as_ref()));
            }
            _ => {}
        }
    }

    /// Passes on what a server logs apart from requests, if the client has no stream for it.
    fn forward_log(
        &self,
        exchange: &Exchange,
        event: Result<HubEvent, broadcast::error::RecvError>,
    ) {
        let Ok(HubEvent { server, project, event: ServerEvent::Log(params) }) = event else {
            return;
        };
        let is_here = server.as_deref() == Some(&*self.instance.row.name)
            && project.as_deref() == Some(&*self.caller.project.name);
        let elsewhere = self.caller.session.as_ref().is_some_and(|session| session.has_stream());
        if is_here && !elsewhere && self.caller.wants_log(params.as_ref()) {
            let text = message::notification("notifications/message", params.as_ref());
            exchange.outlet.try_send(text);
        }
    }

    /// Lets the client answer a question of an old server.
    async fn question(
        &self,
        exchange: &mut Exchange,
        call: &mut ActiveCall<'_>,
        peer: &Peer,
        (id, method, params): (RawJson, String, Option<RawJson>),
    ) -> Option<RoundEnd> {
        let limit = self.instance.row.timeout;
        if !self.caller.can_answer(&method, params.as_ref()) {
            let why = format!("the client does not answer `{method}`");
            peer.reply(&id, &Err(RpcError::new(message::METHOD_NOT_FOUND, why)));
            return None;
        }
        if !self.caller.is_stateless() {
            let asking = self.caller.ask(&exchange.outlet, &method, params.as_ref(), limit);
            tokio::select! {
                answer = asking => peer.reply(&id, &answer),
                answer = &mut call.open.answer => {
                    let lost = || Err(CallFault::Closed("the answer was lost".into()));
                    return Some(RoundEnd::Answered(answer.unwrap_or_else(|_| lost())));
                }
            }
            return exchange.outlet.gone.is_cancelled().then_some(RoundEnd::Left);
        }
        let Some(state) = random_token() else { return Some(RoundEnd::Left) };
        let (resume, resumed) = oneshot::channel();
        let owner = self.owner.clone();
        if !self.parked.park(&state, ParkedCall { owner, resume }) {
            let why = "too many calls wait for their clients";
            peer.reply(&id, &Err(RpcError::new(INTERNAL_ERROR, why)));
            return None;
        }
        exchange.finish(&Ok(input_required(&state, &method, params.as_ref()))).await;
        let resumed = tokio::select! {
            resumed = resumed => resumed.ok(),
            () = tokio::time::sleep(limit) => None,
            _ = &mut call.open.answer => None,
        };
        self.parked.forget(&state);
        let Some((next, answers)) = resumed else { return Some(RoundEnd::Left) };
        *exchange = next;
        let answer = answers.json().get("q1").map(RawJson::from_json);
        let missing = || RpcError::new(INVALID_PARAMS, "the client gave no answer");
        peer.reply(&id, &answer.ok_or_else(missing));
        None
    }

    /// Asks an old client what a new server wants to know; returns the params of the next round.
    async fn answer_inputs(&self, exchange: &Exchange, result: &RawJson) -> Option<RawJson> {
        let json = result.json();
        let limit = self.instance.row.timeout;
        let mut answers = Vec::new();
        for (key, question) in json.get("inputRequests").into_iter().flat_map(|all| all.members()) {
            let method = question.string_at("method").unwrap_or_default();
            let params = question.get("params").map(RawJson::from_json);
            let answer = self.caller.ask(&exchange.outlet, &method, params.as_ref(), limit).await;
            if exchange.outlet.gone.is_cancelled() {
                return None;
            }
            let answer = answer.unwrap_or_else(|error| match method.as_str() {
                // The form in which a client declines.
                "elicitation/create" => RawJson::object(|o| {
                    o.str("action", "cancel");
                }),
                _ => RawJson::object(|o| {
                    o.raw("error", &error.to_json());
                }),
            });
            answers.push((key.to_owned(), answer));
        }
        let answers = RawJson::object(|o| {
            for (key, answer) in &answers {
                o.raw(key, answer);
            }
        });
        let state = json.get("requestState").map(RawJson::from_json);
        Some(with_members(
            self.params.as_ref(),
            &[("inputResponses", Some(&answers)), ("requestState", state.as_ref())],
        ))
    }

    /// Waits for the end of a task, for a client that does not know tasks.
    async fn follow_task(
        &self,
        exchange: &mut Exchange,
        peer: &Arc<Peer>,
        created: &RawJson,
    ) -> CallEnd {
        let Some(task) = created.json().string_at("taskId") else {
            let message = "the server began a task without a `taskId`";
            return CallEnd::Done(Err(RpcError::new(INTERNAL_ERROR, message)));
        };
        let params = RawJson::object(|o| {
            o.str("taskId", &task);
        });
        let limit = self.instance.row.timeout;
        let polling = async {
            let mut status = created.clone();
            loop {
                let pause = status.json().get("pollIntervalMs").and_then(|ms| ms.u64());
                let pause = Duration::from_millis(pause.unwrap_or(1_000));
                tokio::time::sleep(pause.clamp(MIN_POLL, MAX_POLL)).await;
                status = peer.ask("tasks/get", Some(params.clone()), limit).await?;
                let json = status.json();
                match json.string_at("status").as_deref() {
                    Some("completed") => {
                        let result = json.get("result").map(RawJson::from_json);
                        return Ok(result.unwrap_or_else(message::empty_object));
                    }
                    Some("failed") => {
                        let error = json.get("error").map(RpcError::read);
                        let unknown = || RpcError::new(INTERNAL_ERROR, "the task failed");
                        return Err(CallFault::Rpc(error.unwrap_or_else(unknown)));
                    }
                    Some("cancelled") => {
                        let error = RpcError::new(INTERNAL_ERROR, "the server cancelled the task");
                        return Err(CallFault::Rpc(error));
                    }
                    Some("input_required") => {
                        let why = "the task asks for something that its client cannot answer";
                        return Err(CallFault::Rpc(RpcError::new(MISSING_CAPABILITY, why)));
                    }
                    _ => {}
                }
            }
        };
        let ended = tokio::select! {
            () = exchange.outlet.gone.cancelled() => None,
            ended = tokio::time::timeout(limit, polling) => {
                Some(ended.unwrap_or(Err(CallFault::TimedOut(limit.as_secs()))))
            }
        };
        if matches!(ended, None | Some(Err(CallFault::TimedOut(_)))) {
            drop(peer.ask("tasks/cancel", Some(params), Duration::from_secs(5)).await);
        }
        match ended {
            None => CallEnd::Left,
            Some(ended) => CallEnd::Done(ended.map_err(|fault| self.error(fault))),
        }
    }
}

enum RoundEnd {
    Answered(Result<RawJson, CallFault>),
    Left,
    /// The connection had ended before anything was sent.
    NotSent,
}

fn input_required(state: &str, method: &str, params: Option<&RawJson>) -> RawJson {
    RawJson::object(|o| {
        o.str("resultType", "input_required");
        o.object("inputRequests", |o| {
            o.object("q1", |o| {
                o.str("method", method).opt_raw("params", params);
            });
        });
        o.str("requestState", state);
    })
}
