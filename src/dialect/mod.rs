//! The five wire protocols: what an answer means, how a stream of each is framed, how an error looks.
//!
//! No I/O, no knowledge of each other. `Ingress` is the half that faces clients, `Egress` the half that faces upstreams.

mod anthropic;
mod any;
mod classic;
mod evidence;
mod fault;
mod gemini;
mod models;
mod ollama;
mod openai;
pub mod passage;
pub mod registry;
mod responses;
mod shape;
mod status;
mod tokens;
mod words;

use bytes::Bytes;
use http::StatusCode;

use crate::{
    base::json::Bad,
    ir::{
        fault::{ClientError, Fault},
        op::{Dialect, Op},
        usage::Usage,
    },
};

/// The half that faces clients.
pub trait Ingress: Send + Sync {
    fn dialect(&self) -> Dialect;

    /// The whole error answer: status, and a JSON body of the dialect. `request_id` stands in the body where the
    /// dialect has a place for it.
    fn write_error(&self, error: &ClientError, request_id: &str) -> (StatusCode, Bytes);

    /// The error as the last event of a stream, framed; never followed by anything.
    fn stream_error(&self, error: &ClientError, request_id: &str, framing: Framing) -> Bytes;

    /// The same after `events` events have gone out, for framings where the last one depends on those before.
    fn stream_error_after(&self, error: &ClientError, request_id: &str, framing: Framing, events: u32) -> Bytes {
        let _ = events;
        self.stream_error(error, request_id, framing)
    }

    /// A keep-alive for a stream that is silent; `None` where the dialect has none.
    fn ping(&self, framing: Framing) -> Option<&'static [u8]>;
}

/// How a streamed body is cut into events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Sse,
    /// Ollama.
    Ndjson,
    /// Gemini without `alt=sse`: one JSON array, an element per event.
    JsonArray,
}

/// The half that faces upstreams.
pub trait Egress: Send + Sync {
    fn dialect(&self) -> Dialect;

    /// Reads an error answer (status >= 400), or a 200 whose body is no answer. Never fails: HTML, plain text, empty
    /// and broken bodies become a fault with a readable message.
    fn read_error(&self, status: u16, content_type: &str, body: &[u8]) -> Fault;

    /// Reads a complete non-streaming answer of a generation op: its usage and finish, or the error hidden in it.
    /// The whole body must be valid JSON of the expected shape.
    ///
    /// # Errors
    ///
    /// The fault: an error object inside a 200, HTML, broken JSON, an unexpected shape.
    fn read_answer(&self, op: Op, content_type: &str, body: &[u8]) -> Result<Summary, Fault>;

    /// A watcher for a stream that is passed through.
    fn meter(&self, op: Op) -> Box<dyn Meter>;

    /// Model ids of a model-list answer.
    fn read_models(&self, body: &[u8]) -> Option<Vec<ModelEntry>>;

    /// The path (below the base URL) that lists models.
    fn models_path(&self) -> &'static str;

    /// A complete JSON answer told as a stream, where a stream was asked and JSON came.
    ///
    /// # Errors
    ///
    /// The fault, when the body is no answer.
    fn as_stream(&self, op: Op, body: &[u8], framing: Framing) -> Result<Bytes, Fault>;

    /// The events of a complete stream told as one JSON answer, where JSON was asked and a stream came.
    ///
    /// # Errors
    ///
    /// The fault, when the events are no complete answer.
    fn as_answer(&self, op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault>;
}

/// One row of an upstream's model list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelEntry {
    pub id: String,
    /// Unix seconds, where told.
    pub created: Option<i64>,
    pub owned_by: Option<String>,
    pub context: Option<u64>,
}

/// What an answer added up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub usage: Option<Usage>,
    /// The finish reason as the upstream said it.
    pub finish: Option<String>,
    /// The model that answered, as it says.
    pub model: Option<String>,
}

/// Watches the events of a passed-through stream: looks only at those that can hold content, usage, finish or error.
pub trait Meter: Send {
    /// One event: its name (empty where there is none) and its data, lines joined.
    fn event(&mut self, name: &[u8], data: &[u8]) -> Heed;

    /// Whether the stream has ended by its grammar.
    fn complete(&self) -> bool;

    fn summary(&self) -> Summary;

    /// Where a non-error stream ends well without its terminator: the bytes that supply it (OpenAI's `[DONE]`).
    fn terminator(&self) -> Option<&'static [u8]>;
}

/// What one event was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heed {
    /// An event that is not JSON of the expected kind.
    Bad(Bad),
    /// Role, metadata, empty choices: nothing that a client would call an answer.
    Nothing,
    /// A keep-alive of the upstream.
    Ping,
    /// Usage and nothing else; hidden where only we asked for it.
    UsageOnly,
    /// Text, reasoning, a tool call, media.
    Content,
    /// The stream's last event; `complete()` is true from here.
    Terminal,
    /// To be dropped: a `[DONE]` toward a dialect that has none.
    Hide,
    /// The upstream's error event.
    Error(Box<Fault>),
}
