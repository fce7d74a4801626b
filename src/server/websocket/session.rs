//! One WebSocket connection: its messages and responses, until either side ends it. Messages with
//! one `stream_id` are answered one after the other, others beside them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream::SelectAll};
use http::{HeaderMap, Method, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    conversation::Conversations,
    create_message,
    running::{self, Output, OutputKind, Outputs},
};
use crate::server::{
    activity::{ConnActivity, OpenRequest},
    state::ServerState,
};
use crate::{
    base::{id::RequestId, json::reader},
    dialect::warm_up,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
    },
    relay::{
        handler, heavy_work,
        request::{
            proxy_request::{Caller, Endpoint},
            read::RequestHead,
        },
        response::{self, ResponseBody},
    },
};

/// Messages that wait for the responses before them.
const MAX_WAITING: usize = 64;
/// Responses that run at a time.
const MAX_RUNNING: usize = 32;
/// A client from which nothing came for this long is gone, not even answers to pings. Clients that
/// run tools do not answer them meanwhile.
const MAX_SILENCE: Duration = Duration::from_secs(3600);
/// The frames of one message of ours; more are written before more are made.
const MAX_WRITE_BUFFER: usize = 1 << 20;

/// The times of a connection.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct SessionTimes {
    /// Time without a message of either side after which the client is asked for a sign of life.
    pub(in crate::server) ping: Duration,
    /// A client that does not read for this long is gone.
    pub(in crate::server) unread: Duration,
}

/// What the requests of one connection have in common.
pub(in crate::server) struct WebSocketSession {
    server: Arc<ServerState>,
    endpoint: Endpoint,
    caller: Caller,
    headers: HeaderMap,
    query: Option<String>,
    /// The project is one of the config, from which it may be removed.
    is_configured: bool,
}

/// An open connection.
struct Socket<I> {
    stream: WebSocketStream<I>,
    times: SessionTimes,
    close: CancellationToken,
    last_read: Instant,
    max_bytes: usize,
}

/// The messages of one `stream_id`, and of those without.
#[derive(Default)]
struct Lane {
    /// The request that is being answered.
    running: Option<RunningRequest>,
    waiting: VecDeque<Utf8Bytes>,
}

/// What the end of a response needs to know of its request.
#[derive(Default)]
struct RunningRequest {
    input: String,
    is_stored: bool,
}

/// The responses of a connection.
#[derive(Default)]
struct RunningResponses {
    lanes: HashMap<Option<String>, Lane>,
    running: SelectAll<Outputs>,
    waiting: usize,
    waiting_bytes: usize,
    conversations: Conversations,
}

/// The connection has ended.
struct Ended;

impl WebSocketSession {
    pub(super) fn new(
        server: &Arc<ServerState>,
        endpoint: Endpoint,
        caller: Caller,
        headers: HeaderMap,
        query: Option<String>,
    ) -> Self {
        let generation = server.engine.generation();
        let mut projects = generation.settings.projects.iter();
        let is_configured = projects.any(|project| project.name == caller.project.name);
        Self { server: Arc::clone(server), endpoint, caller, headers, query, is_configured }
    }

    /// Serves the connection until it ends; `read_before` was read of it already.
    pub(in crate::server) async fn run(
        self,
        io: impl AsyncRead + AsyncWrite + Unpin,
        read_before: Bytes,
        activity: &Arc<ConnActivity>,
        (close, times): (CancellationToken, SessionTimes),
    ) {
        let settings = Arc::clone(&self.server.engine.generation().settings);
        let max_bytes = usize::try_from(settings.server.max_request_bytes).unwrap_or(usize::MAX);
        let config = WebSocketConfig::default()
            .max_message_size(Some(max_bytes))
            .max_frame_size(Some(max_bytes))
            .max_write_buffer_size(MAX_WRITE_BUFFER.max(max_bytes.saturating_add(1)));
        let stream = WebSocketStream::from_partially_read(
            io,
            read_before.to_vec(),
            Role::Server,
            Some(config),
        )
        .await;
        let mut socket = Socket { stream, times, close, last_read: Instant::now(), max_bytes };
        let mut responses = RunningResponses::default();
        activity.record_end();
        while let Ok(()) = self.step(&mut socket, &mut responses, activity).await {}
    }

    /// Takes the next message or sends the next event.
    async fn step<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: &mut Socket<I>,
        responses: &mut RunningResponses,
        activity: &Arc<ConnActivity>,
    ) -> Result<(), Ended> {
        let is_idle = responses.running.is_empty();
        let gone_at = socket.last_read + MAX_SILENCE;
        let ping_at = (Instant::now() + socket.times.ping).min(gone_at);
        let output = tokio::select! {
            biased;
            () = socket.close.cancelled(), if is_idle => {
                return socket.end(CloseCode::Away, "connect again").await;
            }
            message = socket.stream.next() => {
                let Some(message) = socket.take(message).await? else { return Ok(()) };
                let envelope =
                    heavy_work::run(message.len(), || create_message::read_envelope(&message));
                if envelope.is_confirmation {
                    return Ok(());
                }
                if !responses.queue(message, &envelope.stream_id, socket.max_bytes) {
                    let reason = "too many messages wait for the responses before them";
                    return socket.end(CloseCode::Policy, reason).await;
                }
                self.start_next(responses, envelope.stream_id, activity);
                return Ok(());
            }
            output = responses.running.next(), if !is_idle => output,
            () = sleep_until(ping_at) => {
                if Instant::now() >= gone_at {
                    return socket.end(CloseCode::Away, "no sign of life").await;
                }
                return socket.send(Message::Ping(Bytes::new())).await;
            }
        };
        let Some(Output { stream_id, kind }) = output else { return Ok(()) };
        match kind {
            OutputKind::Message(text) => socket.send(Message::Text(text)).await,
            OutputKind::Complete(text) => {
                responses.record_end(&stream_id, &text);
                socket.send(Message::Text(text)).await
            }
            OutputKind::End => {
                if let Some(lane) = responses.lanes.get_mut(&stream_id) {
                    lane.running = None;
                }
                self.start_next(responses, stream_id, activity);
                // Others may have waited because too many were running.
                if let Some(other) = responses.lane_to_start() {
                    self.start_next(responses, other, activity);
                }
                Ok(())
            }
        }
    }

    /// Starts the next request of a lane, unless one is running.
    fn start_next(
        &self,
        responses: &mut RunningResponses,
        stream_id: Option<String>,
        activity: &Arc<ConnActivity>,
    ) {
        let Some(message) = responses.next_waiting(&stream_id) else { return };
        let now = self.server.engine.clock.unix();
        let id = RequestId::new(now);
        let open = OpenRequest::begin(activity);
        let conversations = &responses.conversations;
        let request = self.current_caller().and_then(|caller| {
            let read = || create_message::read(&message, conversations);
            Ok((caller, heavy_work::run(message.len(), read)?))
        });
        let mut running = RunningRequest::default();
        let outputs = match request {
            Ok((caller, request)) if request.generates => {
                running = RunningRequest { input: request.input, is_stored: request.is_stored };
                let head = self.request_head(id, caller);
                let server = Arc::clone(&self.server);
                let served =
                    async move { handler::serve_bytes(&server.engine, head, request.body).await };
                running::run(served, stream_id.clone(), open)
            }
            Ok((_, request)) => {
                let model = request.model.as_deref().unwrap_or_default();
                let id_text = id.to_string();
                let response =
                    match warm_up::empty_response(&request.body, model, &id_text, now.0 / 1000) {
                        Ok(events) => Response::new(ResponseBody::Full(Some(events))),
                        Err(error) => response::error_response(Dialect::Responses, id, &error),
                    };
                // No provider knows it, so this connection remembers it in any case.
                running = RunningRequest { input: request.input, is_stored: false };
                running::run(std::future::ready(response), stream_id.clone(), open)
            }
            Err(error) => {
                let response = response::error_response(Dialect::Responses, id, &error);
                running::run(std::future::ready(response), stream_id.clone(), open)
            }
        };
        responses.run(outputs, stream_id, running);
    }

    fn request_head(&self, id: RequestId, caller: Caller) -> RequestHead {
        RequestHead {
            id,
            endpoint: self.endpoint.clone(),
            caller,
            method: Method::POST,
            query: self.query.clone(),
            headers: self.headers.clone(),
            owner: None,
        }
    }

    /// Returns the caller with its project as the config has it now.
    fn current_caller(&self) -> Result<Caller, ProxyError> {
        let mut caller = self.caller.clone();
        if self.server.engine.draining() {
            let message = "aiproxy is shutting down; connect again";
            return Err(ProxyError::new(ProxyErrorKind::Overloaded, message));
        }
        if self.is_configured {
            let generation = self.server.engine.generation();
            let mut projects = generation.settings.projects.iter();
            let found = projects.find(|project| project.name == caller.project.name);
            match found.filter(|project| project.enabled) {
                Some(project) => caller.project = Arc::clone(project),
                None => {
                    let message =
                        format!("project `{}` is disabled or gone", self.caller.project.name);
                    return Err(ProxyError::new(ProxyErrorKind::Forbidden, message));
                }
            }
        }
        Ok(caller)
    }
}

impl RunningResponses {
    /// Queues a message; false if too much waits already.
    fn queue(&mut self, message: Utf8Bytes, stream_id: &Option<String>, max_bytes: usize) -> bool {
        let bytes = self.waiting_bytes.saturating_add(message.len());
        if self.waiting >= MAX_WAITING || bytes > max_bytes {
            return false;
        }
        self.waiting += 1;
        self.waiting_bytes = bytes;
        self.lanes.entry(stream_id.clone()).or_default().waiting.push_back(message);
        true
    }

    /// Takes the message that may be answered now; forgets a lane without messages.
    fn next_waiting(&mut self, stream_id: &Option<String>) -> Option<Utf8Bytes> {
        if self.running.len() >= MAX_RUNNING {
            return None;
        }
        let lane = self.lanes.get_mut(stream_id)?;
        if lane.running.is_some() {
            return None;
        }
        let message = lane.waiting.pop_front();
        match &message {
            Some(message) => {
                self.waiting -= 1;
                self.waiting_bytes -= message.len();
            }
            None => drop(self.lanes.remove(stream_id)),
        }
        message
    }

    /// A lane whose next message could be answered now.
    fn lane_to_start(&self) -> Option<Option<String>> {
        if self.waiting == 0 {
            return None;
        }
        let can_start = |lane: &Lane| lane.running.is_none() && !lane.waiting.is_empty();
        self.lanes.iter().find(|(_, lane)| can_start(lane)).map(|(id, _)| id.clone())
    }

    fn run(&mut self, outputs: Outputs, stream_id: Option<String>, request: RunningRequest) {
        self.running.push(outputs);
        self.lanes.entry(stream_id).or_default().running = Some(request);
    }

    /// Remembers a complete response, which a later message may continue.
    fn record_end(&mut self, stream_id: &Option<String>, event: &str) {
        let running = self.lanes.get(stream_id).and_then(|lane| lane.running.as_ref());
        let Some(request) = running.filter(|request| !request.is_stored) else { return };
        let Ok(root) = reader::parse(event.as_bytes()) else { return };
        let Some(response) = root.get("response") else { return };
        if let Some(id) = response.string_at("id") {
            self.conversations.record(id, &request.input, response.get("output"));
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Socket<I> {
    /// Takes what the client sent; `None` if it is no message for us.
    async fn take(
        &mut self,
        received: Option<Result<Message, Error>>,
    ) -> Result<Option<Utf8Bytes>, Ended> {
        self.last_read = Instant::now();
        match received {
            Some(Ok(Message::Text(text))) => Ok(Some(text)),
            Some(Ok(Message::Binary(_))) => {
                self.end(CloseCode::Unsupported, "messages are JSON in text frames").await
            }
            // Pings are answered by the library with the next write or read.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
            Some(Ok(Message::Close(_))) | None => Err(Ended),
            Some(Err(Error::Capacity(_))) => {
                self.end(CloseCode::Size, "larger than max_request_bytes under [server]").await
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "WebSocket ended");
                Err(Ended)
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Ended> {
        match timeout(self.times.unread, self.stream.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Ended),
        }
    }

    /// Closes the connection.
    async fn end<T>(&mut self, code: CloseCode, reason: &'static str) -> Result<T, Ended> {
        let frame = CloseFrame { code, reason: reason.into() };
        drop(timeout(Duration::from_secs(1), self.stream.close(Some(frame))).await);
        Err(Ended)
    }
}
