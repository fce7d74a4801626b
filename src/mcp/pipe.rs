//! What a pipe between a program's input and output and the endpoint must know of messages.

use bytes::Bytes;

use crate::{
    base::json::{raw::RawJson, reader},
    mcp::{
        message::{self, CONNECTION_CLOSED, RpcError, RpcMessage},
        revision::META_VERSION,
        wire::event_stream::EventReader,
        wire::peer::route_name,
        wire::streamable::encoded_name,
    },
};

/// One message on its way to the endpoint.
#[derive(Debug)]
pub struct PipeMessage {
    /// Of a request, as JSON.
    pub id: Option<String>,
    pub method: Option<String>,
    /// The id of the request that it cancels, as JSON.
    pub cancels: Option<String>,
    pub is_stateless: bool,
    /// What the headers repeat.
    pub headers: Vec<(&'static str, String)>,
}

/// Reads a line.
///
/// # Errors
///
/// It is no message; the text is the answer to it.
pub fn inspect(line: &Bytes) -> Result<PipeMessage, String> {
    let message = RpcMessage::parse(line).map_err(|error| message::stray_error(&error))?;
    let (id, method, params) = match message {
        RpcMessage::Request { id, method, params } => (Some(id), Some(method), params),
        RpcMessage::Notification { method, params } => (None, Some(method), params),
        RpcMessage::Answer { .. } => (None, None, None),
    };
    let json = params.as_ref().map(RawJson::json);
    let version = json.and_then(|json| json.member_at(&["_meta", META_VERSION])?.string());
    let mut headers = Vec::new();
    if let (Some(version), Some(method)) = (&version, &method) {
        headers.push(("mcp-protocol-version", version.clone()));
        headers.push(("mcp-method", method.clone()));
        if let Some(name) = json.and_then(|json| route_name(method, json)) {
            let name = encoded_name(&name);
            headers.push(("mcp-name", name.to_str().unwrap_or_default().to_owned()));
        }
    }
    let is_cancel = method.as_deref() == Some("notifications/cancelled");
    let cancels = json.filter(|_| is_cancel).and_then(|json| json.get("requestId"));
    Ok(PipeMessage {
        cancels: cancels.map(|id| id.text().to_owned()),
        is_stateless: version.is_some(),
        id: id.map(|id| id.text().to_owned()),
        method,
        headers,
    })
}

/// Returns the answer to a request that did not reach the endpoint.
#[must_use]
pub fn failure(id: &str, why: &str) -> String {
    let id = RawJson::parse(id).unwrap_or_else(|| RawJson::from(0));
    let error = RpcError::new(CONNECTION_CLOSED, format!("the proxy cannot be reached: {why}"));
    message::answer(&id, &Err(error))
}

/// Returns the revision that an answer to `initialize` agrees on.
#[must_use]
pub fn agreed_version(body: &[u8]) -> Option<String> {
    let json = reader::parse(body).ok()?;
    json.member_at(&["result", "protocolVersion"])?.string()
}

/// Returns the line for an answer that came as a whole; `None` if it is no message.
#[must_use]
pub fn answer_line(body: &[u8], id: Option<&str>) -> Option<String> {
    let json = reader::parse(body).ok()?;
    if let Some(error) = json.get("error").filter(|_| json.get("id").is_none()) {
        // An error about the request as a whole comes without its id.
        let id = RawJson::parse(id?)?;
        let error = error.is_object().then(|| RpcError::read(error))?;
        return Some(message::answer(&id, &Err(error)));
    }
    json.get("jsonrpc")?;
    Some(json.text().replace(['\n', '\r'], " "))
}

/// Cuts what comes from the endpoint into lines.
#[derive(Debug)]
pub struct PipeReader {
    events: Option<EventReader>,
    whole: Vec<u8>,
}

impl PipeReader {
    #[must_use]
    pub fn new(is_stream: bool) -> Self {
        Self { events: is_stream.then(EventReader::default), whole: Vec::new() }
    }

    /// Takes the next bytes; returns the messages that are complete.
    ///
    /// # Errors
    ///
    /// A message is too long.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<String>, String> {
        let Some(events) = &mut self.events else {
            self.whole.extend_from_slice(chunk);
            return Ok(Vec::new());
        };
        events.push(chunk).map_err(|_| "a message is too long".to_owned())?;
        let mut lines = Vec::new();
        while let Some(event) = events.next_event() {
            let text = String::from_utf8_lossy(&event.data).replace(['\n', '\r'], " ");
            lines.push(text);
        }
        Ok(lines)
    }

    /// Returns the body, unless it was a stream.
    #[must_use]
    pub fn finish(self) -> Option<Vec<u8>> {
        self.events.is_none().then_some(self.whole)
    }
}
