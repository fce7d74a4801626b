//! The connection to a server of the SSE transport of revision 2024-11-05: one stream for all that
//! comes, one address for what is sent.

use std::{future::Future, sync::Arc};

use http::{HeaderMap, HeaderValue, header};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    mcp::{
        message::RpcMessage,
        wire::calls::{CallFault, OpenCalls},
        wire::event_stream::EventReader,
    },
    upstream::{fault, web_client},
};

/// The connection.
pub struct SseWire {
    client: reqwest::Client,
    endpoint: String,
    headers: HeaderMap,
    /// Ends the stream.
    pub stop: CancellationToken,
}

impl SseWire {
    /// Opens the stream and waits for the address to send to.
    ///
    /// # Errors
    ///
    /// No connection, or an answer that is no such stream.
    pub async fn open(
        client: reqwest::Client,
        url: &str,
        headers: HeaderMap,
        calls: Arc<OpenCalls>,
        tracker: &TaskTracker,
    ) -> Result<Self, CallFault> {
        let mut stream_headers = headers.clone();
        stream_headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        let local = web_client::is_local(url);
        let broken = |error: &reqwest::Error, url: &str| {
            CallFault::Closed(fault::aux_fault(error, url, local).reason.to_string().into())
        };
        let request = client.get(url).headers(stream_headers);
        let mut response = request.send().await.map_err(|error| broken(&error, url))?;
        let is_stream = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if !response.status().is_success() || !is_stream {
            return Err(CallFault::Status(response.status().as_u16(), String::new()));
        }
        let mut reader = EventReader::default();
        let endpoint = loop {
            let Some(chunk) = response.chunk().await.map_err(|error| broken(&error, url))? else {
                return Err(CallFault::Closed("the stream ended before it began".into()));
            };
            let pushed = reader.push(&chunk);
            pushed.map_err(|_| CallFault::Closed("an event is too long".into()))?;
            if let Some(event) = reader.next_event()
                && event.name == "endpoint"
            {
                break String::from_utf8_lossy(&event.data).into_owned();
            }
        };
        let endpoint = same_origin(url, &endpoint).ok_or_else(|| {
            CallFault::Closed("the server wants messages at another origin than its own".into())
        })?;
        let stop = CancellationToken::new();
        let wire = Self { client: client.clone(), endpoint, headers, stop: stop.clone() };
        let sender = Self { stop: stop.clone(), ..wire.clone_parts() };
        tracker.spawn(async move {
            let reason = tokio::select! {
                () = stop.cancelled() => "the connection was closed".to_owned(),
                reason = sender.read(response, reader, &calls) => reason,
            };
            stop.cancel();
            calls.close(&reason);
        });
        Ok(wire)
    }

    /// Returns another handle of the same connection.
    fn clone_parts(&self) -> Self {
        Self {
            client: self.client.clone(),
            endpoint: self.endpoint.clone(),
            headers: self.headers.clone(),
            stop: self.stop.clone(),
        }
    }

    async fn read(
        &self,
        mut response: reqwest::Response,
        mut reader: EventReader,
        calls: &OpenCalls,
    ) -> String {
        loop {
            while let Some(event) = reader.next_event() {
                if let Ok(message) = RpcMessage::parse(&event.data)
                    && let Some(reply) = calls.receive(message, None)
                {
                    // A failure ends the stream too.
                    drop(self.send(reply).await);
                }
            }
            match response.chunk().await {
                Ok(Some(chunk)) if reader.push(&chunk).is_ok() => {}
                Ok(Some(_)) => return "the server sent an event that is too long".to_owned(),
                Ok(None) => return "the server ended the stream".to_owned(),
                Err(error) => return error.without_url().to_string(),
            }
        }
    }

    /// Returns the future that sends one message; a failure shows itself at the stream.
    pub fn send_later(&self, body: String) -> impl Future<Output = ()> + Send + 'static {
        let wire = self.clone_parts();
        async move { drop(wire.send(body).await) }
    }

    /// Sends one message; the answer comes on the stream.
    ///
    /// # Errors
    ///
    /// No connection, or the server refuses the message.
    pub async fn send(&self, body: String) -> Result<(), CallFault> {
        let request = self.client.post(&self.endpoint).headers(self.headers.clone());
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.map_err(|error| {
            let local = web_client::is_local(&self.endpoint);
            let fault = fault::aux_fault(&error, &self.endpoint, local);
            CallFault::Closed(fault.reason.to_string().into())
        })?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(CallFault::Status(response.status().as_u16(), String::new()))
    }
}

/// Resolves the address to send to; `None` if it leaves the origin of the stream.
fn same_origin(base: &str, endpoint: &str) -> Option<String> {
    let base = reqwest::Url::parse(base).ok()?;
    let target = base.join(endpoint.trim()).ok()?;
    (target.origin() == base.origin()).then(|| target.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_at_the_origin_of_the_stream() {
        let base = "http://127.0.0.1:9/a/sse";
        assert_eq!(same_origin(base, "/m?s=1").as_deref(), Some("http://127.0.0.1:9/m?s=1"));
        assert_eq!(same_origin(base, "m").as_deref(), Some("http://127.0.0.1:9/a/m"));
        assert_eq!(same_origin(base, "http://evil.example/m"), None);
        assert_eq!(same_origin(base, "//evil.example/m"), None);
    }
}
