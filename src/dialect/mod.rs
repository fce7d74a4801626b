//! The five wire protocols: what an answer means, how a stream of each is framed, how an error
//! looks.
//!
//! No I/O, no knowledge of each other. `Ingress` is the half that faces clients, `Egress` the half
//! that faces upstreams.

mod anthropic;
pub mod errors;
mod gemini;
mod generic_meter;
mod json_body;
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
pub mod tests;
pub mod tokenizer;
pub mod translate;
mod usage_read;

pub(crate) use crate::dialect::json_body::truncated_stream_fault;

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

    /// The whole error answer: status, and a JSON body of the dialect. `request_id` stands in the
    /// body where the dialect has a place for it.
    fn write_error(&self, error: &ProxyError, request_id: &str) -> (StatusCode, Bytes);

    /// The error as the last event of a stream, framed; never followed by anything.
    fn stream_error(&self, error: &ProxyError, request_id: &str, framing: Framing) -> Bytes;

    /// The same after `events` events have gone out, for framings where the last one depends on
    /// those before.
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

    /// A keep-alive for a stream that is silent; `None` where the dialect has none.
    fn ping(&self, framing: Framing) -> Option<&'static [u8]>;

    /// Reads a generation request whole. Lenient where providers are, and bounded by the JSON
    /// checks before it.
    ///
    /// # Errors
    ///
    /// What the dialect's own provider would refuse: messages missing or of the wrong type; names
    /// the field.
    fn read_request(&self, endpoint: ChatEndpoint, body: &[u8]) -> Result<ChatRequest, ProxyError>;

    /// A whole answer in this dialect.
    fn write_response(&self, response: &ChatResponse, spec: &ResponseSpec) -> Bytes;

    /// A writer of an answer as a stream, in `shape.framing`.
    fn stream_writer(&self, spec: &ResponseSpec) -> Box<dyn StreamWriter>;
}

/// Which of its dialect's generation endpoints a client asked; most dialects have only the main
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

/// How a client must be answered.
#[derive(Clone, Debug)]
pub struct ResponseSpec {
    pub endpoint: ChatEndpoint,
    /// The model's name as the client asked for it.
    pub model: String,
    /// Our request id: the seed of ids that an answer of this dialect must have (`chatcmpl-…`,
    /// `msg_…`, `resp_…`).
    pub request_id: String,
    /// Unix seconds at which the answer begins.
    pub created: i64,
    pub framing: Framing,
    /// Whether the client asked for usage in the stream (OpenAI `stream_options.include_usage`).
    pub include_usage: bool,
    /// Names of the request's custom tools, whose calls came back as functions with one argument
    /// `input`.
    pub custom_tools: Vec<String>,
    /// Tools that stand in a namespace: the name that calls bear, namespace, name inside it.
    pub namespaced_tools: Vec<(String, String, String)>,
    /// Fields of the request that the answer repeats.
    pub echo: Extras,
}

/// Writes an answer as it comes.
pub trait StreamWriter: Send {
    /// Appends what the client gets for one event. Events are well formed (see `ir::grammar`);
    /// `End` writes the terminator.
    fn write_event(&mut self, event: ChatEvent, out: &mut Vec<u8>);

    /// The answer that is written on has begun elsewhere, and bears this id.
    fn set_id(&mut self, id: &str) {
        let _ = id;
    }

    /// Appends the error that ends the stream instead of its `End`, fitting what has been written;
    /// also before `Begin`.
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

    /// Reads an error answer (status >= 400), or a 200 whose body is no answer. Never fails: HTML,
    /// plain text, empty and broken bodies become a fault with a readable message.
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

    /// A watcher for a stream that is passed through.
    fn meter(&self, op: Op) -> Box<dyn Meter>;

    /// Model ids of a model-list answer.
    fn read_models(&self, body: &[u8]) -> Option<Vec<ModelEntry>> {
        model_list::read_model_list(body)
    }

    /// The path (below the base URL) that lists models.
    fn models_path(&self) -> &'static str {
        "/models"
    }

    /// A complete JSON answer told as a stream, where a stream was asked and JSON came.
    ///
    /// # Errors
    ///
    /// The fault, when the body is no answer.
    fn synthesize_stream(&self, op: Op, body: &[u8], framing: Framing) -> Result<Bytes, Fault>;

    /// The events of a complete stream told as one JSON answer, where JSON was asked and a stream
    /// came.
    ///
    /// # Errors
    ///
    /// The fault, when the events are no complete answer.
    fn collect_stream(&self, op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault>;

    /// Where a translated conversation is sent, below the base URL; `{model}` stands where the path
    /// holds the model's name. With it the query, without `?`, empty where there is none.
    fn chat_path(&self, stream: bool) -> (&'static str, &'static str);

    /// How a translated conversation's stream is framed.
    fn chat_framing(&self) -> Framing;

    /// Writes a conversation in this dialect. What has no place here is named among the losses.
    fn write_request(&self, request: &ChatRequest, traits: &TargetTraits) -> EncodedRequest;

    /// Reads a whole answer (status 2xx). An error inside it is a fault.
    ///
    /// # Errors
    ///
    /// The fault, when the body is no answer.
    fn read_response(
        &self,
        content_type: &str,
        body: &[u8],
        context: &AttemptContext,
    ) -> Result<ChatResponse, Fault>;

    /// A reader of an answer's stream.
    fn stream_reader(&self, context: &AttemptContext) -> Box<dyn StreamReader>;
}

/// What is known of a target: data from presets, config and model facts, never a vendor's name.
#[derive(Clone, Debug)]
pub struct TargetTraits {
    /// The model as the upstream knows it.
    pub model: String,
    pub stream: bool,
    /// The most that the model can answer, where known.
    pub max_output: Option<u64>,
    /// How the model is told how much to think.
    pub thinking: Thinking,
    /// Name of the field that limits output tokens (`max_tokens`, `max_completion_tokens`).
    pub max_tokens_field: &'static str,
    /// Whether system messages are to bear the role `developer`.
    pub developer_role: bool,
    /// Whether the upstream takes reasoning text back in `reasoning_content`.
    pub accepts_reasoning: bool,
    /// Seed of ids that are made for calls that have none.
    pub call_id_seed: String,
}

/// How a model is told how much to think.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Thinking {
    /// An effort by name (`reasoning_effort`, Anthropic `output_config.effort` with adaptive
    /// thinking, Gemini `thinkingLevel`).
    Effort,
    /// A number of tokens (`thinking.budget_tokens`, `thinkingBudget`).
    #[default]
    Budget,
    /// It cannot think, or not be told.
    Unsupported,
}

/// A request in an upstream's dialect.
#[derive(Clone, Debug)]
pub struct EncodedRequest {
    pub body: Bytes,
    /// Headers that the body needs (beta features).
    pub headers: Vec<(&'static str, String)>,
    pub losses: Vec<Loss>,
    pub context: AttemptContext,
}

/// What has no place in the upstream's dialect and was left out: the field, in the words of whoever
/// said it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss(pub std::borrow::Cow<'static, str>);

/// What the writer of a request tells the reader of its answer.
#[derive(Clone, Debug, Default)]
pub struct AttemptContext {
    /// Tools that went by another name: as sent, as the client knows them.
    pub renamed_tools: Vec<(String, String)>,
    /// Seed of ids that are made for calls that have none.
    pub call_id_seed: String,
}

impl AttemptContext {
    /// The tool's name as the client knows it.
    #[must_use]
    pub fn client_tool_name<'a>(&'a self, sent: &'a str) -> &'a str {
        self.renamed_tools
            .iter()
            .find(|(as_sent, _)| as_sent == sent)
            .map_or(sent, |(_, name)| name)
    }
}

/// Reads an answer as it comes.
pub trait StreamReader: Send {
    /// Takes one event (name and data of an SSE event, a line, an array's element) and appends what
    /// it says. After `End` nothing more is said.
    ///
    /// # Errors
    ///
    /// The upstream's error event, or an event that is none.
    fn read_event(
        &mut self,
        name: &[u8],
        data: &[u8],
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>>;

    /// The body has ended: where the answer is complete by the dialect's grammar though its
    /// terminator is missing, says its `End`. Whether the answer is complete.
    fn read_eof(&mut self, out: &mut Vec<ChatEvent>) -> bool;

    /// What is known so far.
    fn summary(&self) -> AnswerSummary;
}

/// One row of an upstream's model list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelEntry {
    pub id: String,
    /// Unix seconds, where told.
    pub created: Option<i64>,
    pub owned_by: Option<String>,
    pub context_window: Option<u64>,
}

/// What an answer added up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerSummary {
    pub usage: Option<Usage>,
    /// The finish reason as the upstream said it.
    pub finish_reason: Option<String>,
    /// The model that answered, as it says.
    pub model: Option<String>,
}

/// Watches the events of a passed-through stream: looks only at those that can hold content, usage,
/// finish or error.
pub trait Meter: Send {
    /// One event: its name (empty where there is none) and its data, lines joined.
    fn observe(&mut self, name: &[u8], data: &[u8]) -> MeterEvent;

    /// Whether the stream has ended by its grammar.
    fn is_complete(&self) -> bool;

    fn summary(&self) -> AnswerSummary;

    /// The answer's id, where its dialect can be asked for it later (Responses).
    fn response_id(&self) -> Option<&str> {
        None
    }

    /// Where a non-error stream ends well without its terminator: the bytes that supply it
    /// (OpenAI's `[DONE]`).
    fn missing_terminator(&self) -> Option<&'static [u8]>;
}

/// What one event was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeterEvent {
    /// An event that is not JSON of the expected kind.
    Invalid(JsonError),
    /// Role, metadata, empty choices: nothing that a client would call an answer.
    Metadata,
    /// A keep-alive of the upstream.
    Ping,
    /// Usage and nothing else; hidden where only we asked for it.
    UsageOnly,
    /// Text, reasoning, a tool call, media.
    Content,
    /// The stream's last event; `complete()` is true from here.
    Terminal,
    /// Nothing; and clients of the dialect cannot read it as it is, but this in its place.
    Replace(Vec<u8>),
    /// To be dropped: a `[DONE]` toward a dialect that has none.
    Drop,
    /// The upstream's error event.
    Error(Box<Fault>),
}
