//! Defines what the five wire protocols share: the traits that read and write their requests,
//! answers, streams and errors.
//!
//! No I/O; a dialect does not know the other dialects. `Ingress` is the half that faces clients,
//! `Egress` the half that faces upstreams.

mod anthropic;
pub mod errors;
mod gemini;
mod generic_meter;
pub(crate) mod json_body;
pub mod losses;
mod model_list;
pub mod ollama;
mod openai;
pub mod ops;
pub mod passthrough;
pub mod registry;
pub mod rescue_splice;
pub mod response_stream;
mod responses;
#[cfg(test)]
pub(crate) mod tests;
pub mod tokenizer;
pub mod translate;
mod usage_read;

pub use anthropic::PLACEHOLDER_SIGNATURE;
use bytes::Bytes;
use http::StatusCode;

pub use responses::stored;

use crate::{
    base::json::reader::JsonError,
    ir::{
        event::ChatEvent,
        extras::Extras,
        fault::{Fault, ProxyError},
        op::{Dialect, Op},
        request::ChatRequest,
        response::ChatResponse,
        usage::Usage,
    },
};

/// The half that faces clients.
pub trait Ingress: Send + Sync {
    fn dialect(&self) -> Dialect;

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

    /// Reads an error answer (status >= 400), or a 200 whose body is not an answer. Never fails:
    /// HTML, plain text, empty and broken bodies become a fault with a readable message.
    fn read_error(&self, status: u16, content_type: &str, body: &[u8]) -> Fault {
        errors::read_error::from_body(status, content_type, body)
    }

    /// Reads a complete non-streaming answer of a generation op: its usage and finish, or the error
    /// hidden in it. The whole body must be valid JSON of the expected shape.
    ///
    /// # Errors
    ///
    /// The fault: an error object inside a 200, HTML, broken JSON, an unexpected shape.
    fn read_summary(&self, op: Op, content_type: &str, body: &[u8])
    -> Result<AnswerSummary, Fault>;

    /// Returns a watcher for a stream that is passed through.
    fn meter(&self, op: Op) -> Box<dyn Meter>;

    /// Reads the model ids of a model-list answer.
    fn read_models(&self, body: &[u8]) -> Option<Vec<ModelEntry>> {
        model_list::read_model_list(body)
    }

    /// Returns the path (relative to the base URL) that lists models.
    fn models_path(&self) -> &'static str {
        "/models"
    }

    /// Turns a complete JSON answer into a stream, for a client that requested a stream but whose
    /// upstream sent JSON.
    ///
    /// # Errors
    ///
    /// The fault, if the body is not an answer.
    fn synthesize_stream(&self, op: Op, body: &[u8], framing: Framing) -> Result<Bytes, Fault>;

    /// Turns the events of a complete stream into one JSON answer, for a client that requested JSON
    /// but whose upstream sent a stream.
    ///
    /// # Errors
    ///
    /// The fault, if the events are not a complete answer.
    fn collect_stream(&self, op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault>;

    /// Returns the path of a translated conversation, relative to the base URL, and its query
    /// without `?` (empty if absent). `{model}` marks where the path contains the model's
    /// name.
    fn chat_path(&self, stream: bool) -> (&'static str, &'static str);

    /// Returns how the stream of a translated conversation is framed.
    fn chat_framing(&self) -> Framing;

    /// Writes a conversation in this dialect. The losses name everything that the dialect cannot
    /// express.
    fn write_request(&self, request: &ChatRequest, traits: &TargetTraits) -> EncodedRequest;

    /// Reads a whole answer (status 2xx). An error inside it is a fault.
    ///
    /// # Errors
    ///
    /// The fault, if the body is not an answer.
    fn read_response(
        &self,
        content_type: &str,
        body: &[u8],
        context: &AttemptContext,
    ) -> Result<ChatResponse, Fault>;

    /// Returns a reader for an answer's stream.
    fn stream_reader(&self, context: &AttemptContext) -> Box<dyn StreamReader>;
}

/// Known properties of a target, from presets, config and model facts, never from a vendor's name.
#[derive(Clone, Debug)]
pub struct TargetTraits {
    /// The model's name at the upstream.
    pub model: String,
    pub stream: bool,
    /// The maximum number of output tokens of the model, if known.
    pub max_output: Option<u64>,
    /// How the request sets the amount of reasoning.
    pub thinking: Thinking,
    /// Name of the field that limits output tokens (`max_tokens`, `max_completion_tokens`).
    pub max_tokens_field: &'static str,
    /// Whether system messages get the role `developer`.
    pub developer_role: bool,
    /// Whether the upstream accepts reasoning text in `reasoning_content`.
    pub accepts_reasoning: bool,
    /// Seed for the ids of calls that have none.
    pub call_id_seed: String,
}

/// How a request sets the model's amount of reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Thinking {
    /// A named effort (`reasoning_effort`, Anthropic `output_config.effort` with adaptive thinking,
    /// Gemini `thinkingLevel`).
    Effort,
    /// A number of tokens (`thinking.budget_tokens`, `thinkingBudget`).
    #[default]
    Budget,
    /// The model cannot reason, or its reasoning cannot be set.
    Unsupported,
}

/// A request in an upstream's dialect.
#[derive(Clone, Debug)]
pub struct EncodedRequest {
    pub body: Bytes,
    /// Headers that the body requires (beta features).
    pub headers: Vec<(&'static str, String)>,
    pub losses: Vec<Loss>,
    pub context: AttemptContext,
}

/// A field that was left out because the upstream's dialect cannot express it, named as in the
/// client's request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss(pub std::borrow::Cow<'static, str>);

/// Passed from the writer of a request to the reader of its answer.
#[derive(Clone, Debug, Default)]
pub struct AttemptContext {
    /// Tools sent under another name: the name sent, then the client's name.
    pub renamed_tools: Vec<(String, String)>,
    /// Seed for the ids of calls that have none.
    pub call_id_seed: String,
}

impl AttemptContext {
    /// Returns the client's name of a tool.
    #[must_use]
    pub fn client_tool_name<'a>(&'a self, sent: &'a str) -> &'a str {
        self.renamed_tools
            .iter()
            .find(|(as_sent, _)| as_sent == sent)
            .map_or(sent, |(_, name)| name)
    }
}

/// Reads an answer event by event.
pub trait StreamReader: Send {
    /// Reads one event (name and data of an SSE event, a line, an array's element) and appends its
    /// content as events. Appends nothing after `End`.
    ///
    /// # Errors
    ///
    /// The upstream's error event, or data that is not a valid event.
    fn read_event(
        &mut self,
        name: &[u8],
        data: &[u8],
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>>;

    /// Ends the body and returns whether the answer is complete. Appends `End` if the answer is
    /// complete by the dialect's grammar but its terminator is missing.
    fn read_eof(&mut self, out: &mut Vec<ChatEvent>) -> bool;

    /// Returns what is known so far.
    fn summary(&self) -> AnswerSummary;
}

/// One row of an upstream's model list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelEntry {
    pub id: String,
    /// Unix seconds, if the upstream reports them.
    pub created: Option<i64>,
    pub owned_by: Option<String>,
    pub context_window: Option<u64>,
}

/// Totals and facts of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerSummary {
    pub usage: Option<Usage>,
    /// The finish reason in the upstream's own word.
    pub finish_reason: Option<String>,
    /// The model that answered, as the upstream reports it.
    pub model: Option<String>,
}

/// Watches the events of a passed-through stream. Reads only those that can contain content, usage,
/// finish or error.
pub trait Meter: Send {
    /// Classifies one event: its name (empty if it has none) and its data with lines joined.
    fn observe(&mut self, name: &[u8], data: &[u8]) -> MeterEvent;

    /// Whether the stream has ended by its grammar.
    fn is_complete(&self) -> bool;

    fn summary(&self) -> AnswerSummary;

    /// Returns the answer's id if clients of the dialect can request the answer later (Responses).
    fn response_id(&self) -> Option<&str> {
        None
    }

    /// Returns the bytes that supply a missing terminator (OpenAI's `[DONE]`) if a stream without
    /// an error ended well.
    fn missing_terminator(&self) -> Option<&'static [u8]>;
}

/// The class of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeterEvent {
    /// An event that is not JSON of the expected kind.
    Invalid(JsonError),
    /// Role, metadata, empty choices: nothing that counts as content.
    Metadata,
    /// A keep-alive of the upstream.
    Ping,
    /// Usage and nothing else; hidden from the client if only aiproxy requested it.
    UsageOnly,
    /// Text, reasoning, a tool call, media.
    Content,
    /// The stream's last event; `is_complete()` is true from here on.
    Terminal,
    /// No content; the event is replaced by these bytes because clients of the dialect cannot read
    /// it.
    Replace(Vec<u8>),
    /// The event is removed: a `[DONE]` in a dialect that has none.
    Drop,
    /// The upstream's error event.
    Error(Box<Fault>),
}
