//! Sends questions to the running proxy with a project's client key, like any other client.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    base::{
        clock::{Clock, SystemClock},
        framing::splitter::NextFrame,
        framing::sse::SseSplitter,
    },
    cli::{
        ask::answer::{AnswerSink, StreamedAnswer},
        error::CliError,
        expose::expose_secret,
    },
    secrets::Secret,
};

/// Upper bound for bytes read from an error response.
const MAX_ERROR_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A failed question: the error, and the id of its request if the proxy received it.
#[derive(Debug)]
pub(super) struct AskFailure {
    pub(super) error: CliError,
    pub(super) request_id: Option<String>,
    /// The HTTP status, if the proxy rejected the request.
    pub(super) status: Option<u16>,
}

impl From<CliError> for AskFailure {
    fn from(error: CliError) -> Self {
        Self { error, request_id: None, status: None }
    }
}

impl AskFailure {
    /// The failure for scripts.
    pub(super) fn to_json(&self) -> Value {
        let mut out = json!({ "error": self.error.text });
        if let Some(hint) = &self.error.hint {
            out["hint"] = hint.as_str().into();
        }
        if let Some(status) = self.status {
            out["status"] = status.into();
        }
        if let Some(id) = &self.request_id {
            out["request_id"] = id.as_str().into();
        }
        out
    }

    /// The error for a person, with the command that shows the request.
    pub(super) fn into_error(self) -> CliError {
        match self.request_id {
            Some(id) if self.error.hint.is_none() && !self.error.text.is_empty() => {
                self.error.hint(format!("`aiproxy log show {id}` shows what was tried"))
            }
            _ => self.error,
        }
    }
}

/// The connection to the proxy.
pub(super) struct AskSession {
    client: reqwest::Client,
    url: String,
    key: Secret,
}

impl AskSession {
    /// Creates a session with the proxy at a base URL.
    ///
    /// # Errors
    ///
    /// The HTTP client cannot be created.
    pub(super) fn new(base: &str, key: Secret) -> Result<Self, CliError> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("aiproxy-ask/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| transport_error(&e))?;
        Ok(Self { client, url: format!("{base}/v1/chat/completions"), key })
    }

    /// Sends messages to a model and reads the whole answer. With `fresh`, no stored answer is
    /// used.
    ///
    /// # Errors
    ///
    /// The proxy cannot be reached, it or the provider rejects the request, or the answer ends
    /// early.
    pub(super) async fn ask(
        &self,
        model: &str,
        messages: &[Value],
        sink: AnswerSink,
        fresh: bool,
    ) -> Result<StreamedAnswer, AskFailure> {
        let body = json!({
            "model": model,
            "stream": true,
            "stream_options": { "include_usage": true },
            "messages": messages,
        });
        let mut request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .bearer_auth(expose_secret(&self.key))
            .body(body.to_string());
        if fresh {
            request = request.header("cache-control", "no-cache");
        }
        let start = SystemClock.mono();
        let mut response = request.send().await.map_err(|e| transport_error(&e))?;
        let (status, id) = (response.status(), header(&response, "x-request-id"));
        if !status.is_success() {
            let error = error_from_response(status.as_u16(), &read_error_body(&mut response).await);
            return Err(AskFailure { error, request_id: id, status: Some(status.as_u16()) });
        }
        let mut answer = StreamedAnswer {
            sink,
            upstream: header(&response, "x-aiproxy-upstream"),
            request_id: id.clone(),
            losses: header(&response, "x-aiproxy-losses"),
            ..StreamedAnswer::default()
        };
        let read = read_answer(&mut response, &mut answer, start).await;
        read.map_err(|error| AskFailure { error, request_id: id, status: None })?;
        Ok(answer)
    }
}

async fn read_answer(
    response: &mut reqwest::Response,
    answer: &mut StreamedAnswer,
    start: crate::base::clock::Mono,
) -> Result<(), CliError> {
    let mut splitter = SseSplitter::default();
    while let Some(chunk) = response.chunk().await.map_err(|e| transport_error(&e))? {
        let at = SystemClock.mono().since(start);
        let mut position = 0;
        loop {
            match splitter.next(&chunk, &mut position) {
                NextFrame::Borrowed(range) => answer.push_event(&chunk[range], at)?,
                NextFrame::Joined(block) => answer.push_event(&block, at)?,
                NextFrame::Incomplete => break,
                NextFrame::TooLong => {
                    return Err(CliError::failed(
                        "the answer contains an event of more than 8 MiB",
                    ));
                }
            }
        }
    }
    answer.total = SystemClock.mono().since(start);
    answer.push_event(&splitter.remainder(), answer.total)?;
    if answer.is_complete { Ok(()) } else { Err(CliError::failed("the answer ended early")) }
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// Reads the beginning of an error response. A read error ends the body early.
async fn read_error_body(response: &mut reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await
        && body.len() < MAX_ERROR_BYTES
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(MAX_ERROR_BYTES);
    body
}

fn error_from_response(status: u16, body: &[u8]) -> CliError {
    let message = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|v| v["error"]["message"].as_str().map(str::to_owned));
    CliError::failed(message.unwrap_or_else(|| format!("the proxy returned status {status}")))
}

/// A transport error with its cause but without its URL.
fn transport_error(error: &reqwest::Error) -> CliError {
    let mut text = if error.is_connect() {
        "the proxy cannot be reached"
    } else {
        "the connection to the proxy was lost"
    }
    .to_owned();
    if let Some(cause) =
        std::iter::successors(std::error::Error::source(error), |e| e.source()).last()
    {
        text.push_str(&format!(": {cause}"));
    }
    if error.is_connect() { CliError::unreachable(text) } else { CliError::failed(text) }
}
