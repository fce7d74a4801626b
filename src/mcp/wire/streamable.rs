//! The connection to a server over Streamable HTTP.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::{
    base::{json::reader, sanitize, sync::Mutex},
    mcp::{
        message::{RpcError, RpcMessage},
        revision::Revision,
        wire::calls::{CallFault, OpenCalls},
        wire::event_stream::EventReader,
        wire::tokens::TokenSource,
    },
    upstream::{fault, web_client},
};

const SESSION_HEADER: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD_HEADER: HeaderName = HeaderName::from_static("mcp-method");
const NAME_HEADER: HeaderName = HeaderName::from_static("mcp-name");
/// Bytes of an error's body that are shown.
const MAX_ERROR_TEXT: usize = 300;
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The connection.
pub struct HttpWire {
    client: reqwest::Client,
    url: String,
    headers: HeaderMap,
    session: Mutex<Option<HeaderValue>>,
    revision: Mutex<Option<Revision>>,
    calls: Arc<OpenCalls>,
    tokens: Option<Arc<dyn TokenSource>>,
}

/// What the headers of a stateless request repeat.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestRoute<'a> {
    pub method: &'a str,
    pub name: Option<&'a str>,
}

impl HttpWire {
    #[must_use]
    pub fn new(
        client: reqwest::Client,
        url: String,
        headers: HeaderMap,
        calls: Arc<OpenCalls>,
        tokens: Option<Arc<dyn TokenSource>>,
    ) -> Self {
        let (session, revision) = (Mutex::default(), Mutex::default());
        Self { client, url, headers, session, revision, calls, tokens }
    }

    /// Sets the revision for all later messages.
    pub fn set_revision(&self, revision: Option<Revision>) {
        if revision.is_none() {
            // A handshake begins a session of its own.
            *self.session.lock() = None;
        }
        *self.revision.lock() = revision;
    }

    /// Sends a message, and takes what comes back until request `id` is answered.
    ///
    /// # Errors
    ///
    /// No connection, an answer that is no message, or a stream that ends without an answer.
    pub async fn exchange(
        &self,
        body: String,
        id: Option<u64>,
        route: RequestRoute<'_>,
    ) -> Result<(), CallFault> {
        let mut tried_again = false;
        loop {
            let mut headers = self.message_headers(route);
            if let Some(tokens) = &self.tokens {
                let token = tokens.token(tried_again).await.ok_or(CallFault::LoginNeeded)?;
                headers.insert(header::AUTHORIZATION, token);
            }
            let request = self.client.post(&self.url).headers(headers).body(body.clone());
            let response = request.send().await.map_err(|error| self.transport_fault(&error))?;
            let status = response.status();
            if status == http::StatusCode::UNAUTHORIZED {
                if self.tokens.is_some() && !tried_again {
                    tried_again = true;
                    continue;
                }
                return Err(CallFault::LoginNeeded);
            }
            return self.take_response(response, id).await;
        }
    }

    fn message_headers(&self, route: RequestRoute<'_>) -> HeaderMap {
        let mut headers = self.common_headers();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let both = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(header::ACCEPT, both);
        let stateless = self.revision.lock().is_some_and(Revision::is_stateless);
        if stateless {
            if let Ok(method) = HeaderValue::from_str(route.method) {
                headers.insert(METHOD_HEADER, method);
            }
            if let Some(name) = route.name {
                headers.insert(NAME_HEADER, encoded_name(name));
            }
        }
        headers
    }

    fn common_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        if let Some(session) = &*self.session.lock() {
            headers.insert(SESSION_HEADER, session.clone());
        }
        if let Some(revision) = *self.revision.lock() {
            headers.insert(VERSION_HEADER, HeaderValue::from_static(revision.name()));
        }
        headers
    }

    async fn take_response(
        &self,
        mut response: reqwest::Response,
        id: Option<u64>,
    ) -> Result<(), CallFault> {
        let status = response.status();
        let had_session = self.session.lock().is_some();
        let stateless = self.revision.lock().is_some_and(Revision::is_stateless);
        if let Some(session) = response.headers().get(SESSION_HEADER).filter(|_| !stateless) {
            *self.session.lock() = Some(session.clone());
        }
        let kind = response.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        if status.is_success() && kind.starts_with("text/event-stream") {
            return self.take_stream(&mut response, id).await;
        }
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.transport_fault(&error))?
        {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER_BYTES {
                return Err(too_long());
            }
        }
        if id.is_none() && status.is_success() {
            return Ok(());
        }
        if status == http::StatusCode::NOT_FOUND && had_session {
            return Err(CallFault::SessionLost);
        }
        if let Ok(message @ RpcMessage::Answer { .. }) = RpcMessage::parse(&body) {
            let message = match (message, id) {
                // Errors about the request as a whole may come without its id.
                (RpcMessage::Answer { id: found, result: Err(error) }, Some(id))
                    if found.text() != id.to_string() =>
                {
                    return Err(CallFault::Rpc(error));
                }
                (message, _) => message,
            };
            drop(self.calls.receive(message, id));
            return Ok(());
        }
        let text = String::from_utf8_lossy(&body[..body.len().min(MAX_ERROR_TEXT)]).into_owned();
        let text = sanitize::clean(text.trim()).into_owned();
        let text = if text.is_empty() { text } else { format!(": {text}") };
        let location = response.headers().get(header::LOCATION);
        if let Some(location) = location.and_then(|value| value.to_str().ok()) {
            let message = format!(": it redirects to {}", sanitize::clean(location));
            return Err(CallFault::Status(status.as_u16(), message));
        }
        if let Some(error) = stray_error(&body) {
            return Err(CallFault::Rpc(error));
        }
        Err(CallFault::Status(status.as_u16(), text))
    }

    async fn take_stream(
        &self,
        response: &mut reqwest::Response,
        id: Option<u64>,
    ) -> Result<(), CallFault> {
        let mut reader = EventReader::default();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.transport_fault(&error))?
        {
            reader.push(&chunk).map_err(|_| too_long())?;
            while let Some(event) = reader.next_event() {
                let Ok(message) = RpcMessage::parse(&event.data) else { continue };
                let is_answer = matches!(&message, RpcMessage::Answer { id: found, .. }
                    if id.is_some_and(|id| found.text().trim_matches('"') == id.to_string()));
                if let Some(reply) = self.calls.receive(message, id) {
                    self.send_aside(reply).await;
                }
                if is_answer {
                    return Ok(());
                }
            }
        }
        Err(CallFault::Closed("the server ended its answer before it was whole".into()))
    }

    /// Sends an answer or a notification; a failure shows itself elsewhere.
    pub async fn send_aside(&self, body: String) {
        let route = RequestRoute { method: "", name: None };
        if let Err(fault) = Box::pin(self.exchange(body, None, route)).await {
            tracing::debug!(%fault, "a message to an MCP server was lost");
        }
    }

    /// Reads what the server sends of its own accord, until it stops. Servers need not offer this.
    pub async fn listen(&self) -> Result<(), CallFault> {
        let mut headers = self.common_headers();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(tokens) = &self.tokens {
            let token = tokens.token(false).await.ok_or(CallFault::LoginNeeded)?;
            headers.insert(header::AUTHORIZATION, token);
        }
        let request = self.client.get(&self.url).headers(headers);
        let mut response = request.send().await.map_err(|error| self.transport_fault(&error))?;
        if !response.status().is_success() {
            return Err(CallFault::Status(response.status().as_u16(), String::new()));
        }
        match self.take_stream(&mut response, None).await {
            Err(CallFault::Closed(_)) => Ok(()),
            other => other,
        }
    }

    /// Ends the session.
    pub async fn close(&self) {
        if self.session.lock().is_some() {
            let request = self.client.request(Method::DELETE, &self.url);
            // The server may be gone, which ends the session too.
            drop(request.headers(self.common_headers()).send().await);
        }
    }

    fn transport_fault(&self, error: &reqwest::Error) -> CallFault {
        let fault = fault::aux_fault(error, &self.url, web_client::is_local(&self.url));
        CallFault::Closed(fault.reason.to_string().into())
    }
}

fn too_long() -> CallFault {
    CallFault::Closed(format!("the answer has more than {} MiB", MAX_ANSWER_BYTES >> 20).into())
}

/// Reads an error whose `id` is null.
fn stray_error(body: &[u8]) -> Option<RpcError> {
    let json = reader::parse(body).ok()?;
    let error = json.get("error").filter(|error| error.get("code").is_some())?;
    Some(RpcError::read(error))
}

/// Names of other scripts are sent in Base64.
#[must_use]
pub fn encoded_name(name: &str) -> HeaderValue {
    let plain = name.bytes().all(|b| (0x20..0x7f).contains(&b)) && name.trim() == name;
    let plain = plain.then(|| HeaderValue::from_str(name).ok()).flatten();
    plain.unwrap_or_else(|| {
        let text = format!("=?base64?{}?=", STANDARD.encode(name));
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    })
}
