//! The half of a dialect that faces clients: reads their requests, writes their answers and errors.

use bytes::Bytes;
use http::StatusCode;

use crate::{
    base::framing::Framing,
    ir::{
        event::ChatEvent, extras::Extras, fault::ProxyError, request::ChatRequest,
        response::ChatResponse,
    },
};

/// The half that faces clients.
pub trait Ingress: Send + Sync {
    /// Returns the whole error answer: the status, and a JSON body of the dialect. The body
    /// contains `request_id` if the dialect has a field for it.
    fn write_error(&self, error: &ProxyError, request_id: &str) -> (StatusCode, Bytes);

    /// Returns the error as the last event of a stream, framed. Nothing may follow it.
    fn stream_error(&self, error: &ProxyError, request_id: &str, framing: Framing) -> Bytes;

    /// Returns the same after `events` events were sent, for framings in which the last event
    /// depends on those before it.
    fn stream_error_after(
        &self,
        error: &ProxyError,
        request_id: &str,
        framing: Framing,
        events: u32,
    ) -> Bytes {
        let _ = events;
        self.stream_error(error, request_id, framing)
    }

    /// Returns a keep-alive for a silent stream; `None` if the dialect has none.
    fn ping(&self, framing: Framing) -> Option<&'static [u8]>;

    /// Reads a whole generation request. Accepts what providers accept, within the bounds of the
    /// JSON checks that run first.
    ///
    /// # Errors
    ///
    /// If the dialect's own provider would refuse the request: messages are missing or have the
    /// wrong type. The error names the field.
    fn read_request(&self, endpoint: ChatEndpoint, body: &[u8]) -> Result<ChatRequest, ProxyError>;

    /// Writes a whole answer in this dialect.
    fn write_response(&self, response: &ChatResponse, spec: &ResponseSpec) -> Bytes;

    /// Returns a writer that streams an answer in `spec.framing`.
    fn stream_writer(&self, spec: &ResponseSpec) -> Box<dyn StreamWriter>;
}

/// The generation endpoint of a dialect that the client called; most dialects have only the main
/// one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChatEndpoint {
    #[default]
    Chat,
    /// OpenAI `/v1/completions`.
    Completions,
    /// Ollama `/api/generate`.
    Generate,
}

/// How to answer a client: framing, names and ids.
#[derive(Clone, Debug)]
pub struct ResponseSpec {
    pub endpoint: ChatEndpoint,
    /// The model's name as the client requested it.
    pub model: String,
    /// The id aiproxy gave the request, from which the writers derive the ids that an answer of
    /// this dialect needs (`chatcmpl-…`, `msg_…`, `resp_…`).
    pub request_id: String,
    /// Unix seconds at which the answer began.
    pub created: i64,
    pub framing: Framing,
    /// Whether the client asked for usage in the stream (OpenAI `stream_options.include_usage`).
    pub include_usage: bool,
    /// Names of the request's custom tools. The upstream returns their calls as functions with one
    /// argument, `input`.
    pub custom_tools: Vec<String>,
    /// Tools inside a namespace: the name that calls use, the namespace, and the name inside it.
    pub namespaced_tools: Vec<(String, String, String)>,
    /// The request's tools that its dialect defines by types and the client runs: the name that
    /// calls use, and the type. Their calls come back in forms of their own.
    pub client_tools: Vec<(String, String)>,
    /// Whether the answer is one item that stands for the conversation (Responses).
    pub compaction: bool,
    /// Fields of the request that the answer repeats.
    pub echo: Extras,
}

/// Writes an answer event by event.
pub trait StreamWriter: Send {
    /// Appends the bytes that the client gets for one event. Events are well formed (see
    /// `ir::validate`); `End` writes the terminator.
    fn write_event(&mut self, event: ChatEvent, out: &mut Vec<u8>);

    /// Sets the id of an answer that began in another writer and continues in this one.
    fn set_id(&mut self, id: &str) {
        let _ = id;
    }

    /// Appends the error that ends the stream in place of its `End`. The form fits the bytes
    /// written so far; the call is also valid before `Begin`.
    fn write_error(&mut self, error: &ProxyError, request_id: &str, out: &mut Vec<u8>);
}
