//! A scripted upstream: it answers, fails, stalls, paces and cuts responses, and records the
//! requests.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Semaphore,
};

use super::poll_until;

/// The runtime of all upstreams in the test binary.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the upstreams")
});

/// Blocks a scene until the test opens it.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Opens the gate permanently.
    pub(crate) fn open(&self) {
        self.0.close();
    }

    async fn wait_open(&self) {
        // The semaphore has no permits; closing it ends the wait.
        drop(self.0.acquire().await);
    }
}

/// One scripted response.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    status: u16,
    headers: Vec<(String, String)>,
    pieces: Vec<Vec<u8>>,
    framing: Framing,
    delay: Duration,
    pace: Duration,
    head_gate: Option<Gate>,
    /// Wait for the gate before the piece with this index.
    gate: Option<(usize, Gate)>,
    /// Break the connection after this many pieces.
    cut_after: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    Chunked,
    Length,
    /// Only the pieces are sent, without a head; then the connection closes.
    Raw,
}

impl Scene {
    fn new(status: u16, framing: Framing, pieces: Vec<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            pieces,
            framing,
            delay: Duration::ZERO,
            pace: Duration::ZERO,
            head_gate: None,
            gate: None,
            cut_after: None,
        }
    }

    /// A response with a JSON body.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, Framing::Length, vec![body.to_string().into_bytes()])
            .header("content-type", "application/json")
    }

    /// An OpenAI error with this status.
    pub(crate) fn status(status: u16) -> Self {
        let error = json!({"message": format!("scripted {status}"), "type": "scripted", "param": null, "code": null});
        Self::json(status, &json!({ "error": error }))
    }

    /// A non-streaming OpenAI chat response.
    pub(crate) fn chat(text: &str) -> Self {
        Self::json(
            200,
            &json!({
                "id": "chatcmpl-it", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            }),
        )
    }

    /// An OpenAI chat stream: role, one event per text, finish, `[DONE]`. Each is one piece.
    pub(crate) fn sse(texts: &[&str]) -> Self {
        let mut events = vec![chunk(&json!({"role": "assistant", "content": ""}), None)];
        events.extend(texts.iter().map(|text| chunk(&json!({ "content": text }), None)));
        events.push(chunk(&json!({}), Some("stop")));
        events.push("data: [DONE]\n\n".to_owned());
        Self::events(events)
    }

    /// A stream of these pieces.
    pub(crate) fn events(pieces: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self::stream("text/event-stream", pieces)
    }

    /// A stream of these pieces with any content type.
    pub(crate) fn stream(
        content_type: &str,
        pieces: impl IntoIterator<Item = impl Into<Vec<u8>>>,
    ) -> Self {
        Self::new(200, Framing::Chunked, pieces.into_iter().map(Into::into).collect())
            .header("content-type", content_type)
    }

    /// Exactly these bytes; then the connection closes.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(0, Framing::Raw, vec![bytes.into()])
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits before sending the head.
    pub(crate) fn delay(mut self, span: Duration) -> Self {
        self.delay = span;
        self
    }

    /// Waits before each piece except the first.
    pub(crate) fn pace(mut self, span: Duration) -> Self {
        self.pace = span;
        self
    }

    /// Sends nothing at all until the gate opens.
    pub(crate) fn head_gate(mut self, gate: &Gate) -> Self {
        self.head_gate = Some(gate.clone());
        self
    }

    /// Delays the piece with this index until the gate opens.
    pub(crate) fn gate(mut self, before: usize, gate: &Gate) -> Self {
        self.gate = Some((before, gate.clone()));
        self
    }

    /// Closes the connection after this many pieces, in the middle of the response.
    pub(crate) fn cut_after(mut self, pieces: usize) -> Self {
        self.cut_after = Some(pieces);
        self
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        match self.framing {
            Framing::Chunked => head += "transfer-encoding: chunked\r\n",
            Framing::Length => {
                head += &format!(
                    "content-length: {}\r\n",
                    self.pieces.iter().map(Vec::len).sum::<usize>()
                );
            }
            Framing::Raw => return Vec::new(),
        }
        (head + "\r\n").into_bytes()
    }
}

/// Returns one framed OpenAI chunk.
pub(crate) fn chunk(delta: &Value, finish: Option<&str>) -> String {
    let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
    let data = json!({"id": "chatcmpl-it", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]});
    format!("data: {data}\n\n")
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) at: Instant,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// When the caller disconnected, if that was before the end of the response.
    pub(crate) hung_up_at: Option<Instant>,
    /// The complete response was sent.
    pub(crate) response_sent: bool,
}

impl ReceivedRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the bearer token.
    pub(crate) fn key(&self) -> &str {
        self.header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Returns whether this is a request for the model list, which the proxy sends on its own at
    /// any time.
    fn is_list(&self) -> bool {
        self.method == "GET" && (self.path.contains("/models") || self.path.contains("/tags"))
    }
}

type Director = dyn Fn(&ReceivedRequest, usize) -> Scene + Send + Sync;

/// A scripted upstream; stopped when dropped.
#[derive(Clone)]
pub(crate) struct Upstream {
    addr: SocketAddr,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
}

impl Upstream {
    /// Plays these scenes in order and repeats the last one. Model list requests (GET) use no
    /// scene; they return one model, `m`.
    pub(crate) fn start(scenes: Vec<Scene>) -> Self {
        Self::with_director(move |_, number| scenes[number.min(scenes.len() - 1)].clone())
    }

    /// Chooses each scene by the request and its number.
    pub(crate) fn with_director(
        director: impl Fn(&ReceivedRequest, usize) -> Scene + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("non-blocking");
        let addr = listener.local_addr().expect("an address");
        let (requests, director): (Arc<Mutex<Vec<ReceivedRequest>>>, Arc<Director>) =
            (Arc::default(), Arc::new(director));
        let stage = ConnectionState { journal: Arc::clone(&requests), director };
        RUNTIME.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((socket, _)) = listener.accept().await {
                RUNTIME.spawn(stage.clone().serve_connection(socket));
            }
        });
        Self { addr, requests }
    }

    /// Returns an address where no server listens.
    pub(crate) fn refused_addr() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the OpenAI base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Returns the requests so far, without model list requests.
    pub(crate) fn requests(&self) -> Vec<ReceivedRequest> {
        self.all_requests().into_iter().filter(|seen| !seen.is_list()).collect()
    }

    /// Returns the requests so far, including model list requests.
    pub(crate) fn all_requests(&self) -> Vec<ReceivedRequest> {
        self.requests.lock().expect("the journal").clone()
    }

    /// Waits until the request with this number (0 is the first) satisfies the condition.
    pub(crate) fn wait_for_request(
        &self,
        number: usize,
        what: &str,
        test: impl Fn(&ReceivedRequest) -> bool,
    ) -> ReceivedRequest {
        poll_until(what, || self.requests().get(number).filter(|seen| test(seen)).cloned())
    }

    /// Waits until the request with this number arrives.
    pub(crate) fn nth_request(&self, number: usize) -> ReceivedRequest {
        self.wait_for_request(number, &format!("request {number} at the upstream"), |_| true)
    }
}

/// State of a connection.
#[derive(Clone)]
struct ConnectionState {
    journal: Arc<Mutex<Vec<ReceivedRequest>>>,
    director: Arc<Director>,
}

impl ConnectionState {
    async fn serve_connection(self, socket: TcpStream) {
        drop(socket.set_nodelay(true));
        let (mut reader, mut writer) = socket.into_split();
        let mut buffer = Vec::new();
        while let Some(seen) = read_request(&mut reader, &mut buffer).await {
            let (row, scene) = {
                let mut journal = self.journal.lock().expect("the journal");
                let number = journal.iter().filter(|seen| !seen.is_list()).count();
                let list = json!({"object": "list", "data": [{"id": "m", "object": "model"}]});
                let scene = if seen.is_list() {
                    Scene::json(200, &list)
                } else {
                    (self.director)(&seen, number)
                };
                journal.push(seen);
                (journal.len() - 1, scene)
            };
            let ended = tokio::select! {
                ended = play_scene(&scene, &mut writer) => ended,
                () = wait_hang_up(&mut reader, &mut buffer) => {
                    self.journal.lock().expect("the journal")[row].hung_up_at = Some(Instant::now());
                    return;
                }
            };
            self.journal.lock().expect("the journal")[row].response_sent =
                ended == SceneEnd::Complete;
            if ended != SceneEnd::Complete || scene.framing == Framing::Raw {
                return;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum SceneEnd {
    Cut,
    ClientGone,
    Complete,
}

async fn play_scene(scene: &Scene, writer: &mut OwnedWriteHalf) -> SceneEnd {
    if let Some(gate) = &scene.head_gate {
        gate.wait_open().await;
    }
    if !scene.delay.is_zero() {
        tokio::time::sleep(scene.delay).await;
    }
    let chunked = scene.framing == Framing::Chunked;
    if writer.write_all(&scene.head()).await.is_err() {
        return SceneEnd::ClientGone;
    }
    for (index, piece) in scene.pieces.iter().enumerate() {
        if scene.cut_after == Some(index) {
            return SceneEnd::Cut;
        }
        if let Some((_, gate)) = scene.gate.as_ref().filter(|(before, _)| *before == index) {
            gate.wait_open().await;
        }
        if index > 0 && !scene.pace.is_zero() {
            tokio::time::sleep(scene.pace).await;
        }
        let framed = if chunked {
            [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
        } else {
            piece.clone()
        };
        if writer.write_all(&framed).await.is_err() {
            return SceneEnd::ClientGone;
        }
    }
    if scene.cut_after.is_some() {
        return SceneEnd::Cut;
    }
    if chunked && writer.write_all(b"0\r\n\r\n").await.is_err() {
        return SceneEnd::ClientGone;
    }
    SceneEnd::Complete
}

/// Waits until the caller disconnects; buffers what the caller sends in the meantime.
async fn wait_hang_up(reader: &mut OwnedReadHalf, buffer: &mut Vec<u8>) {
    while reader.read_buf(buffer).await.is_ok_and(|count| count > 0) {}
}

async fn read_request(reader: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> Option<ReceivedRequest> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        read_more(reader, buffer).await?;
    };
    let head: Vec<_> = buffer.drain(..end).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let find = |name: &str| {
        headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    let mut body = Vec::new();
    if find("transfer-encoding").is_some() {
        loop {
            let line = loop {
                if let Some(line) = buffer.windows(2).position(|window| window == b"\r\n") {
                    break line;
                }
                read_more(reader, buffer).await?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&buffer[..line]).ok()?.trim(), 16)
                .ok()?;
            while buffer.len() < line + 2 + size + 2 {
                read_more(reader, buffer).await?;
            }
            body.extend_from_slice(&buffer[line + 2..line + 2 + size]);
            buffer.drain(..line + 2 + size + 2);
            if size == 0 {
                break;
            }
        }
    } else {
        let length =
            find("content-length").and_then(|length| length.parse().ok()).unwrap_or(0_usize);
        while buffer.len() < length {
            read_more(reader, buffer).await?;
        }
        body = buffer.drain(..length).collect();
    }
    Some(ReceivedRequest {
        at: Instant::now(),
        method,
        path,
        headers,
        body,
        hung_up_at: None,
        response_sent: false,
    })
}

async fn read_more(reader: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> Option<()> {
    let count = reader.read_buf(buffer).await.ok()?;
    (count > 0).then_some(())
}
