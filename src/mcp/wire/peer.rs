//! One connection to a server: requests with everything that belongs to them, on any transport.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    mcp::{
        message::{self, INTERNAL_ERROR, RpcError, RpcMessage, with_members},
        revision::{
            self, META_CAPABILITIES, META_CLIENT, META_VERSION, NEWEST_HANDSHAKE, Revision,
            STATELESS,
        },
        wire::calls::{CallFault, OpenCalls, PendingCall},
        wire::old_sse::SseWire,
        wire::stdio::StdioWire,
        wire::streamable::{HttpWire, RequestRoute},
    },
};

/// A server that knows the stateless revision answers its probe within this time.
const PROBE_WAIT: Duration = Duration::from_secs(2);

/// A boxed future.
pub type BoxedAnswer<'a> = Pin<Box<dyn Future<Output = Result<RawJson, RpcError>> + Send + 'a>>;

/// A server inside the program.
pub trait LocalService: Send + Sync {
    /// Answers a request of the newest revision with a handshake.
    fn answer<'a>(&'a self, method: &'a str, params: Option<&'a RawJson>) -> BoxedAnswer<'a>;
}

/// The transport of a connection.
pub enum PeerWire {
    Http(Arc<HttpWire>),
    Local(Arc<dyn LocalService>),
    OldSse(SseWire),
    Stdio(StdioWire),
}

/// What was agreed with a server.
#[derive(Clone, Debug)]
pub struct Agreement {
    pub revision: Revision,
    pub capabilities: RawJson,
    pub info: Option<RawJson>,
    pub instructions: Option<RawJson>,
}

impl Agreement {
    /// Whether the server has a capability, such as `resources` or `resources.subscribe`.
    #[must_use]
    pub fn has(&self, path: &[&str]) -> bool {
        let found = self.capabilities.json().member_at(path);
        found.is_some_and(|value| value.bool() != Some(false))
    }
}

/// Why a server could not be spoken to.
#[derive(Debug)]
pub enum NegotiationFault {
    /// The program ended when it was asked for the stateless revision.
    DiedOnProbe,
    Failed(CallFault),
}

/// One connection.
pub struct Peer {
    pub wire: PeerWire,
    pub calls: Arc<OpenCalls>,
    pub agreement: Agreement,
    /// Cancelled by the end of the connection.
    pub closed: CancellationToken,
    tracker: TaskTracker,
}

/// A request whose answer is awaited. If it is dropped before that, the server is notified.
pub struct ActiveCall<'a> {
    pub open: PendingCall,
    /// Sends the request; must be polled until the answer is there. Ends only with a fault.
    pub pump: Pin<Box<dyn Future<Output = CallFault> + Send + 'a>>,
    peer: &'a Peer,
}

impl Drop for ActiveCall<'_> {
    fn drop(&mut self) {
        if self.peer.calls.forget(self.open.id) {
            self.peer.cancel(self.open.id);
        }
    }
}

impl Peer {
    #[must_use]
    pub fn new(
        wire: PeerWire,
        calls: Arc<OpenCalls>,
        agreement: Agreement,
        closed: CancellationToken,
        tracker: TaskTracker,
    ) -> Self {
        Self { wire, calls, agreement, closed, tracker }
    }

    /// Begins a request. `params` makes its params from its number, which is also the token of its
    /// progress. `takes_questions` says whether a client stands behind it.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub fn begin<'a>(
        &'a self,
        method: &'a str,
        params: impl FnOnce(u64) -> Option<RawJson>,
        takes_questions: bool,
    ) -> Result<ActiveCall<'a>, CallFault> {
        let open = self.calls.open(takes_questions)?;
        let id = open.id;
        let params = params(id);
        let pump = send(&self.wire, &self.calls, id, method, params);
        Ok(ActiveCall { open, pump, peer: self })
    }

    /// Sends a request that no client stands behind.
    ///
    /// # Errors
    ///
    /// As the request fails, or it takes too long.
    pub async fn ask(
        &self,
        method: &str,
        params: Option<RawJson>,
        limit: Duration,
    ) -> Result<RawJson, CallFault> {
        let params = |_| match self.agreement.revision {
            Revision::Stateless => Some(with_own_meta(params.as_ref())),
            Revision::Handshake(_) => params,
        };
        let mut call = self.begin(method, params, false)?;
        let finished = async {
            tokio::select! {
                biased;
                answer = &mut call.open.answer => answer.unwrap_or_else(|_| Err(lost())),
                fault = &mut call.pump => Err(fault),
            }
        };
        let limited = tokio::time::timeout(limit, finished).await;
        limited.unwrap_or(Err(CallFault::TimedOut(limit.as_secs())))
    }

    /// Reads the notifications of a stateless server until they end; returns whether it can do so.
    pub async fn subscribe(&self, params: RawJson) -> bool {
        let params = |_| Some(with_own_meta(Some(&params)));
        let Ok(mut call) = self.begin("subscriptions/listen", params, false) else {
            return true;
        };
        loop {
            tokio::select! {
                answer = &mut call.open.answer => {
                    return !matches!(answer, Ok(Err(CallFault::Rpc(_))));
                }
                fault = &mut call.pump => return !matches!(fault, CallFault::Status(..)),
                // Changes of lists and resources are reported apart; the rest says nothing.
                Some(_) = call.open.inbox.recv() => {}
            }
        }
    }

    /// Answers a question of the server.
    pub fn reply(&self, id: &RawJson, result: &Result<RawJson, RpcError>) {
        self.post(message::answer(id, result));
    }

    /// Sends a notification.
    pub fn notify(&self, method: &str, params: Option<&RawJson>) {
        self.post(message::notification(method, params));
    }

    fn post(&self, text: String) {
        match &self.wire {
            PeerWire::Stdio(wire) => wire.try_send(text),
            PeerWire::Http(wire) => {
                let wire = Arc::clone(wire);
                self.tracker.spawn(async move { wire.send_aside(text).await });
            }
            PeerWire::OldSse(wire) => {
                let sending = wire.send_later(text);
                self.tracker.spawn(sending);
            }
            PeerWire::Local(_) => {}
        }
    }

    /// Notifies the server that request `id` was cancelled.
    fn cancel(&self, id: u64) {
        let is_stateless = self.agreement.revision.is_stateless();
        if is_stateless && matches!(self.wire, PeerWire::Http(_)) {
            // There the end of the connection says it.
            return;
        }
        let params = RawJson::object(|o| {
            o.num("requestId", id).str("reason", "the client does not wait any more");
        });
        self.notify("notifications/cancelled", Some(&params));
    }

    /// Ends the connection.
    pub fn close(&self, reason: &str) {
        self.closed.cancel();
        self.calls.close(reason);
        match &self.wire {
            PeerWire::Stdio(wire) => wire.stop(),
            PeerWire::OldSse(wire) => wire.stop.cancel(),
            PeerWire::Http(wire) => {
                let wire = Arc::clone(wire);
                self.tracker.spawn(async move {
                    drop(tokio::time::timeout(Duration::from_secs(2), wire.close()).await);
                });
            }
            PeerWire::Local(_) => {}
        }
    }
}

/// Returns params with the members that the stateless revision wants on each request.
fn with_own_meta(params: Option<&RawJson>) -> RawJson {
    let meta = params.and_then(|params| params.json().get("_meta")).map(RawJson::from_json);
    let meta = with_members(
        meta.as_ref(),
        &[
            (META_VERSION, Some(&RawJson::string(STATELESS))),
            (META_CLIENT, Some(&own_info())),
            (META_CAPABILITIES, Some(&message::empty_object())),
        ],
    );
    with_members(params, &[("_meta", Some(&meta))])
}

/// Returns the name and version of this program.
#[must_use]
pub fn own_info() -> RawJson {
    RawJson::object(|o| {
        o.str("name", "aiproxy").str("version", env!("CARGO_PKG_VERSION"));
    })
}

fn lost() -> CallFault {
    CallFault::Rpc(RpcError::new(INTERNAL_ERROR, "the answer was lost"))
}

/// Returns the future that sends a request and takes what comes back.
fn send<'a>(
    wire: &'a PeerWire,
    calls: &'a Arc<OpenCalls>,
    id: u64,
    method: &'a str,
    params: Option<RawJson>,
) -> Pin<Box<dyn Future<Output = CallFault> + Send + 'a>> {
    match wire {
        PeerWire::Local(service) => Box::pin(async move {
            let result = service.answer(method, params.as_ref()).await;
            drop(calls.receive(RpcMessage::Answer { id: RawJson::from(id), result }, None));
            std::future::pending().await
        }),
        PeerWire::Stdio(wire) => Box::pin(async move {
            let text = message::request(&RawJson::from(id), method, params.as_ref());
            match wire.send(text).await {
                Ok(()) => std::future::pending().await,
                // The reader knows how the program ended, and ends the call with that.
                Err(_) => {
                    wire.ended().cancelled().await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    CallFault::Closed("the program has ended".into())
                }
            }
        }),
        PeerWire::OldSse(wire) => Box::pin(async move {
            let text = message::request(&RawJson::from(id), method, params.as_ref());
            match wire.send(text).await {
                Ok(()) => std::future::pending().await,
                Err(fault) => fault,
            }
        }),
        PeerWire::Http(wire) => Box::pin(async move {
            let text = message::request(&RawJson::from(id), method, params.as_ref());
            let json = params.as_ref().map(RawJson::json);
            let name = json.and_then(|json| route_name(method, json));
            let route = RequestRoute { method, name: name.as_deref() };
            match wire.exchange(text, Some(id), route).await {
                Ok(()) => std::future::pending().await,
                Err(fault) => fault,
            }
        }),
    }
}

/// Returns what the header `Mcp-Name` repeats.
#[must_use]
pub fn route_name(method: &str, params: JsonRef<'_>) -> Option<String> {
    let key = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    };
    params.string_at(key)
}

/// Finds out what a server speaks, and agrees on it. `probe` is false if it is known to want the
/// handshake.
pub async fn negotiate(
    wire: &PeerWire,
    calls: &Arc<OpenCalls>,
    probe: bool,
) -> Result<Agreement, NegotiationFault> {
    if !probe {
        return initialize(wire, calls).await.map_err(NegotiationFault::Failed);
    }
    if let PeerWire::Http(http) = wire {
        http.set_revision(Some(Revision::Stateless));
    }
    let discover = exchange(wire, calls, "server/discover", with_own_meta(None));
    tokio::pin!(discover);
    let discovered = match tokio::time::timeout(PROBE_WAIT, &mut discover).await {
        Ok(discovered) => discovered,
        Err(_) => {
            if let PeerWire::Http(http) = wire {
                http.set_revision(None);
            }
            let handshake = initialize(wire, calls);
            tokio::pin!(handshake);
            tokio::select! {
                agreed = &mut handshake => return agreed.map_err(NegotiationFault::Failed),
                discovered = &mut discover => match discovered {
                    Ok(found) => Ok(found),
                    Err(_) => return handshake.await.map_err(NegotiationFault::Failed),
                },
            }
        }
    };
    match discovered {
        Ok(found) if speaks_stateless(&found) => {
            if let PeerWire::Http(http) = wire {
                http.set_revision(Some(Revision::Stateless));
            }
            Ok(agreement(Revision::Stateless, &found))
        }
        Err(CallFault::Closed(reason)) if matches!(wire, PeerWire::Stdio(_)) => {
            tracing::debug!(%reason, "a server ended when it was asked for the newest revision");
            Err(NegotiationFault::DiedOnProbe)
        }
        Err(fault @ (CallFault::Closed(_) | CallFault::LoginNeeded)) => {
            Err(NegotiationFault::Failed(fault))
        }
        Ok(_) | Err(_) => {
            if let PeerWire::Http(http) = wire {
                http.set_revision(None);
            }
            initialize(wire, calls).await.map_err(NegotiationFault::Failed)
        }
    }
}

fn speaks_stateless(found: &RawJson) -> bool {
    let versions = found.json().get("supportedVersions");
    versions.is_some_and(|versions| versions.strings().iter().any(|name| name == STATELESS))
}

fn agreement(revision: Revision, found: &RawJson) -> Agreement {
    let json = found.json();
    let raw = |name: &str| json.get(name).map(RawJson::from_json);
    let meta_info = || json.member_at(&["_meta", revision::META_SERVER]).map(RawJson::from_json);
    Agreement {
        revision,
        capabilities: raw("capabilities").unwrap_or_else(message::empty_object),
        info: raw("serverInfo").or_else(meta_info),
        instructions: raw("instructions"),
    }
}

async fn initialize(wire: &PeerWire, calls: &Arc<OpenCalls>) -> Result<Agreement, CallFault> {
    let params = RawJson::object(|o| {
        o.str("protocolVersion", NEWEST_HANDSHAKE);
        o.object("capabilities", |o| {
            // What the client of a call cannot do is refused when it is asked for.
            o.object("elicitation", |o| {
                o.object("form", |_| {}).object("url", |_| {});
            });
            o.object("sampling", |_| {});
            o.object("roots", |o| {
                o.bool("listChanged", true);
            });
        });
        o.raw("clientInfo", &own_info());
    });
    let found = exchange(wire, calls, "initialize", params).await?;
    let name = found.json().string_at("protocolVersion").unwrap_or_default();
    let Some(version) = revision::handshake(&name) else {
        let name = crate::base::sanitize::clean(&name).into_owned();
        let message = format!("the server speaks revision `{name}`, which is not known here");
        return Err(CallFault::Closed(message.into()));
    };
    let revision = Revision::Handshake(version);
    if let PeerWire::Http(http) = wire {
        http.set_revision(Some(revision));
    }
    let initialized = message::notification("notifications/initialized", None);
    match wire {
        PeerWire::Http(wire) => wire.send_aside(initialized).await,
        PeerWire::OldSse(wire) => wire.send(initialized).await?,
        PeerWire::Stdio(wire) => wire.send(initialized).await?,
        PeerWire::Local(_) => {}
    }
    Ok(agreement(revision, &found))
}

async fn exchange(
    wire: &PeerWire,
    calls: &Arc<OpenCalls>,
    method: &str,
    params: RawJson,
) -> Result<RawJson, CallFault> {
    let open = calls.open(false)?;
    let mut pump = send(wire, calls, open.id, method, Some(params));
    tokio::select! {
        biased;
        answer = open.answer => answer.unwrap_or_else(|_| Err(lost())),
        fault = &mut pump => {
            calls.forget(open.id);
            Err(fault)
        }
    }
}
