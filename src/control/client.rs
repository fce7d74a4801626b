//! Connects to the control routes of a running proxy: one plain HTTP/1.1 connection per query, and
//! one for the events.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::{
    action::{Action, ActionReply},
    snapshot::Snapshot,
};
use crate::{events::event::Event, secrets::secret::Secret};

/// The port that the program listens on by default.
const DEFAULT_PORT: u16 = 8642;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit for a whole response; a key test waits for its upstream.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Pings arrive every 10 s; after this time the event stream counts as broken.
const EVENT_TIMEOUT: Duration = Duration::from_secs(35);
const MAX_RESPONSE_BYTES: usize = 64 << 20;
const MAX_FRAME_BYTES: usize = 4 << 20;

/// A client of one proxy.
#[derive(Debug)]
pub struct ControlClient {
    base_url: String,
    token: Secret,
}

/// Why a query has no usable response.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the connection to aiproxy broke off")]
    Broken,
    #[error("nothing listens at {addr}")]
    NotReachable { addr: String },
    /// Status and error message from the proxy.
    #[error("{1}")]
    Refused(u16, String),
    #[error("what answers there is not aiproxy")]
    NotAiproxy,
}

impl ControlError {
    /// Returns what the user can do next.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Broken => None,
            Self::NotReachable { .. } => Some("start it with `aiproxy serve`"),
            Self::Refused(401 | 403, _) => Some(
                "the control token changes at each start; --url takes it from AIPROXY_TOKEN or --token-file",
            ),
            Self::Refused(..) => None,
            Self::NotAiproxy => {
                Some("another program has this port; see `listen` in the config, or give --url")
            }
        }
    }
}

type DrivenResponse = (Response<Incoming>, ConnDriver);

/// A connection that progresses only while its driver is polled by the code that waits for the
/// response. `None` once the connection has ended; data that was read before may still be
/// unprocessed.
struct ConnDriver(Option<Pin<Box<HttpConnection>>>);

type HttpConnection = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

impl ConnDriver {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if self.0.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
    }
}

impl ControlClient {
    /// Creates a client of the proxy at `base_url` (`http://127.0.0.1:8642` or `127.0.0.1:8642`)
    /// without connecting.
    #[must_use]
    pub fn new(base_url: String, token: Secret) -> Self {
        Self { base_url, token }
    }

    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Returns the current snapshot.
    ///
    /// # Errors
    ///
    /// See [`ControlError`].
    pub async fn snapshot(&self) -> Result<Snapshot, ControlError> {
        self.get_json("/aiproxy/v1/snapshot").await
    }

    /// Performs an action.
    ///
    /// # Errors
    ///
    /// See [`ControlError`]. An action that was understood but failed is an [`ActionReply`] with
    /// `ok: false`.
    pub async fn send_action(&self, action: &Action) -> Result<ActionReply, ControlError> {
        self.post_json("/aiproxy/v1/act", action).await
    }

    /// Requests a JSON document.
    ///
    /// # Errors
    ///
    /// See [`ControlError`].
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        self.request_json(Method::GET, path, Bytes::new()).await
    }

    /// Sends a JSON document and reads the JSON response.
    ///
    /// # Errors
    ///
    /// See [`ControlError`].
    pub async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl serde::Serialize + Sync),
    ) -> Result<T, ControlError> {
        let body = serde_json::to_vec(body).map_err(|_| ControlError::Broken)?;
        self.request_json(Method::POST, path, body.into()).await
    }

    /// Subscribes to all events from now on.
    ///
    /// # Errors
    ///
    /// See [`ControlError`].
    pub async fn events(&self) -> Result<EventStream, ControlError> {
        let (response, driver) =
            timeout(RESPONSE_TIMEOUT, self.send(Method::GET, "/aiproxy/v1/events", Bytes::new()))
                .await
                .map_err(|_| ControlError::Broken)??;
        let stream = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|t| t.as_bytes().starts_with(b"text/event-stream"));
        if response.status().is_success() && stream {
            return Ok(EventStream {
                driver,
                body: response.into_body(),
                buffer: Vec::new(),
                frame: EventFrame::default(),
            });
        }
        let (status, is_aiproxy) = (response.status().as_u16(), is_from_aiproxy(&response));
        let bytes = read_to_end(response.into_body(), driver).await?;
        Err(error_from_response(status, is_aiproxy, &bytes))
    }

    async fn request_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ControlError> {
        let question = async {
            let (response, driver) = self.send(method, path, body).await?;
            let (status, is_aiproxy) = (response.status(), is_from_aiproxy(&response));
            let bytes = read_to_end(response.into_body(), driver).await?;
            if !status.is_success() {
                return Err(error_from_response(status.as_u16(), is_aiproxy, &bytes));
            }
            // The response of another version may not parse; the server is still aiproxy.
            serde_json::from_slice(&bytes).map_err(|e| match is_aiproxy {
                true => ControlError::Refused(
                    status.as_u16(),
                    format!("the running aiproxy answers in another form than this version reads ({e}); restart it"),
                ),
                false => ControlError::NotAiproxy,
            })
        };
        timeout(RESPONSE_TIMEOUT, Box::pin(question)).await.map_err(|_| ControlError::Broken)?
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<DrivenResponse, ControlError> {
        let (host, port) = self
            .address()
            .ok_or_else(|| ControlError::NotReachable { addr: self.base_url.clone() })?;
        let addr = format!("{host}:{port}");
        let connect =
            timeout(CONNECT_TIMEOUT, TcpStream::connect((host.trim_matches(['[', ']']), port)))
                .await;
        let Ok(Ok(socket)) = connect else { return Err(ControlError::NotReachable { addr }) };
        // Without this option a small request may only wait for an acknowledgement.
        drop(socket.set_nodelay(true));
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(socket)).await.map_err(|_| ControlError::Broken)?;
        let mut driver = ConnDriver(Some(Box::pin(connection)));
        let request = self.build_request(method, path, &addr, body).ok_or(ControlError::Broken)?;
        let mut answer = pin!(sender.send_request(request));
        let response = poll_fn(|cx| {
            driver.poll(cx);
            answer.as_mut().poll(cx)
        })
        .await;
        match response {
            Ok(response) => Ok((response, driver)),
            Err(e) if e.is_parse() => Err(ControlError::NotAiproxy),
            Err(_) => Err(ControlError::Broken),
        }
    }

    fn build_request(
        &self,
        method: Method,
        path: &str,
        host: &str,
        body: Bytes,
    ) -> Option<Request<Full<Bytes>>> {
        let mut token = HeaderValue::try_from(format!("Bearer {}", self.token.expose())).ok()?;
        token.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, token);
        let request = if body.is_empty() {
            request
        } else {
            request.header(header::CONTENT_TYPE, "application/json")
        };
        request.body(Full::new(body)).ok()
    }

    fn address(&self) -> Option<(String, u16)> {
        let base = self.base_url.trim_end_matches('/');
        let plain = if base.contains("://") { base.strip_prefix("http://")? } else { base };
        let uri = plain.parse::<Uri>().ok()?;
        Some((uri.host()?.to_owned(), uri.port_u16().unwrap_or(DEFAULT_PORT)))
    }
}

fn is_from_aiproxy(response: &Response<Incoming>) -> bool {
    response.headers().contains_key("x-aiproxy")
}

/// Reads a whole response while driving its connection.
async fn read_to_end(body: Incoming, mut driver: ConnDriver) -> Result<Bytes, ControlError> {
    let mut body = pin!(Limited::new(body, MAX_RESPONSE_BYTES).collect());
    poll_fn(|cx| {
        driver.poll(cx);
        body.as_mut().poll(cx)
    })
    .await
    .map(http_body_util::Collected::to_bytes)
    .map_err(|_| ControlError::Broken)
}

/// Reads the message of an error response: aiproxy sends `{"error": {"message": …}}` or `{"error":
/// "…"}`.
fn error_from_response(status: u16, is_aiproxy: bool, body: &[u8]) -> ControlError {
    let printed = serde_json::from_slice::<Value>(body).ok().and_then(|value| {
        let error = value.get("error").unwrap_or(&value);
        let text = error.get("message").or_else(|| error.get("text")).unwrap_or(error);
        text.as_str().map(str::to_owned)
    });
    match printed {
        Some(text) if is_aiproxy || matches!(status, 401 | 403) => {
            ControlError::Refused(status, text)
        }
        None if is_aiproxy => {
            ControlError::Refused(status, format!("refused without a reason (status {status})"))
        }
        _ => ControlError::NotAiproxy,
    }
}

/// The event stream of one connection.
pub struct EventStream {
    driver: ConnDriver,
    body: Incoming,
    buffer: Vec<u8>,
    frame: EventFrame,
}

/// One item of the event stream.
#[derive(Debug)]
pub enum StreamItem {
    Event(Box<Event>),
    /// The viewer fell behind and needs a new snapshot.
    Resync,
}

#[derive(Debug, Default)]
struct EventFrame {
    name: Vec<u8>,
    data: Vec<u8>,
}

impl EventStream {
    /// Returns the next event. Cancel-safe: a dropped call loses nothing.
    ///
    /// # Errors
    ///
    /// `Broken` if the stream ended, timed out, or sent something that does not parse.
    pub async fn next(&mut self) -> Result<StreamItem, ControlError> {
        loop {
            while let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if let Some(item) = self.frame.push_line(line.trim_ascii_end())? {
                    return Ok(item);
                }
            }
            if self.buffer.len() > MAX_FRAME_BYTES {
                return Err(ControlError::Broken);
            }
            let chunk = timeout(EVENT_TIMEOUT, self.read_chunk())
                .await
                .map_err(|_| ControlError::Broken)??;
            self.buffer.extend_from_slice(&chunk);
        }
    }

    async fn read_chunk(&mut self) -> Result<Bytes, ControlError> {
        poll_fn(|cx| {
            self.driver.poll(cx);
            loop {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Ok(data) = frame.into_data() {
                            return Poll::Ready(Ok(data));
                        }
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(ControlError::Broken)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

impl EventFrame {
    /// Reads one line; an empty line ends a frame.
    fn push_line(&mut self, line: &[u8]) -> Result<Option<StreamItem>, ControlError> {
        if line.is_empty() {
            let frame = std::mem::take(self);
            return match (frame.name.as_slice(), frame.data.as_slice()) {
                (b"resync", _) => Ok(Some(StreamItem::Resync)),
                (_, b"") => Ok(None),
                (_, data) => serde_json::from_slice(data)
                    .map(|event| Some(StreamItem::Event(Box::new(event))))
                    .map_err(|_| ControlError::Broken),
            };
        }
        if let Some(name) = line.strip_prefix(b"event:") {
            self.name = name.trim_ascii().to_vec();
        } else if let Some(data) = line.strip_prefix(b"data:") {
            if self.data.len() + data.len() > MAX_FRAME_BYTES {
                return Err(ControlError::Broken);
            }
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.trim_ascii_start());
        }
        // Comments (pings) and unknown fields are skipped.
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control::action_message::ActionMessage, events::event::EventKind};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Plays one response to one connection; returns the request.
    async fn serve_once(listener: &TcpListener, answer: &str) -> String {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4_096];
        let read = socket.read(&mut asked).await.unwrap();
        socket.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&asked[..read]).into_owned()
    }

    async fn listen() -> (TcpListener, ControlClient) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        (listener, ControlClient::new(base, Secret::new("token-1".to_owned())))
    }

    fn json(status: &str, head: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\n{head}content-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn action_sends_the_token_and_returns_a_reply() {
        let (listener, client) = listen().await;

        let answer = json("200 OK", "x-aiproxy: 1\r\n", r#"{"ok":true,"text":"warmed"}"#);
        let (asked, reply) =
            tokio::join!(serve_once(&listener, &answer), client.send_action(&Action::Reload));

        assert_eq!(*reply.unwrap().text, ActionMessage::text("warmed"));
        assert!(asked.starts_with("POST /aiproxy/v1/act HTTP/1.1\r\n"), "{asked}");
        assert!(
            asked.contains("authorization: Bearer token-1\r\n")
                && asked.ends_with(r#"{"action":"reload"}"#),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn another_program_is_distinguished_from_a_refusal() {
        for (answer, want) in [
            (
                json("401 Unauthorized", "x-aiproxy: 1\r\n", r#"{"error":{"message":"no"}}"#),
                "Refused(401, \"no\")",
            ),
            (json("404 Not Found", "", "<html>nginx</html>"), "NotAiproxy"),
            (json("200 OK", "", "<html>hello</html>"), "NotAiproxy"),
            ("SSH-2.0-OpenSSH_9\r\n".to_owned(), "NotAiproxy"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{".to_owned(), "Broken"),
        ] {
            let (listener, client) = listen().await;
            let (_, got) =
                tokio::join!(serve_once(&listener, &answer), client.get_json::<ActionReply>("/x"));
            assert_eq!(format!("{:?}", got.unwrap_err()), want, "{answer}");
        }
    }

    #[tokio::test]
    async fn closed_port_is_unreachable() {
        let (listener, client) = listen().await;
        let addr = listener.local_addr().unwrap().to_string();
        drop(listener);

        let got = client.snapshot().await.unwrap_err();

        assert!(matches!(&got, ControlError::NotReachable { addr: at } if *at == addr), "{got:?}");
        let https =
            ControlClient::new("https://127.0.0.1:1".to_owned(), Secret::new(String::new()));
        assert!(matches!(https.snapshot().await, Err(ControlError::NotReachable { .. })));
    }

    #[tokio::test]
    async fn events_arrive_one_by_one_and_a_resync_is_reported() {
        let (listener, client) = listen().await;
        let frames = ": ping\n\ndata: {\"seq\":7,\"at\":1,\"kind\":\"notice\",\"text\":\"hi\",\"level\":\"info\"}\n\nevent: resync\ndata: {}\n\n";
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{frames}");

        let (_, stream) = tokio::join!(serve_once(&listener, &answer), client.events());
        let mut stream = stream.unwrap();

        let StreamItem::Event(event) = stream.next().await.unwrap() else { panic!("an event") };
        assert!(event.seq == 7 && matches!(event.kind, EventKind::Notice { .. }));
        assert!(matches!(stream.next().await.unwrap(), StreamItem::Resync));
        assert!(matches!(stream.next().await, Err(ControlError::Broken)));
    }
}
