//! The half of a dialect that faces upstreams: writes their requests, reads their answers and
//! errors.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    base::framing::Framing,
    dialect::{
        errors::read_error,
        generic_meter::GenericMeter,
        json_body,
        losses::Loss,
        meter::{AnswerSummary, Meter},
        model_list::{self, ModelEntry},
    },
    ir::{
        event::ChatEvent,
        fault::Fault,
        model_facts::{InstructionRole, LimitField, ModelFacts, ThinkingControl},
        op::Op,
        request::ChatRequest,
        response::ChatResponse,
    },
};

/// The half that faces upstreams.
pub trait Egress: Send + Sync {
    /// Reads an error answer (status >= 400), or a 200 whose body is not an answer. Never fails:
    /// HTML, plain text, empty and broken bodies become a fault with a readable message.
    fn read_error(&self, status: u16, content_type: &str, body: &[u8]) -> Fault {
        read_error::from_body(status, content_type, body)
    }

    /// Reads a complete answer of a conversation that did not stream: its usage and finish, or the
    /// error hidden in it. The whole body must be valid JSON of the expected shape.
    ///
    /// # Errors
    ///
    /// The fault: an error object inside a 200, HTML, broken JSON, an unexpected shape.
    fn read_chat_summary(&self, content_type: &str, body: &[u8]) -> Result<AnswerSummary, Fault>;

    /// Reads a complete answer of any op. An op that the dialect does not read may have any shape.
    ///
    /// # Errors
    ///
    /// As [`read_chat_summary`](Self::read_chat_summary).
    fn read_summary(
        &self,
        op: Op,
        content_type: &str,
        body: &[u8],
    ) -> Result<AnswerSummary, Fault> {
        match op {
            Op::Chat | Op::Completions => self.read_chat_summary(content_type, body),
            _ => json_body::generic_summary(content_type, body),
        }
    }

    /// Returns a watcher for the stream of a conversation that is passed through.
    fn chat_meter(&self) -> Box<dyn Meter>;

    /// Returns a watcher for a stream of any op that is passed through.
    fn meter(&self, op: Op) -> Box<dyn Meter> {
        match op {
            Op::Chat | Op::Completions | Op::Stored => self.chat_meter(),
            _ => Box::new(GenericMeter::default()),
        }
    }

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
    /// Whether the upstream accepts a request for usage in streams.
    pub ask_usage: bool,
    /// What is known of the model in this dialect.
    pub facts: Arc<ModelFacts>,
    /// Seed for the ids of calls that have none.
    pub call_id_seed: String,
}

impl TargetTraits {
    /// Derives the traits of a target from the facts about its model.
    #[must_use]
    pub fn from_facts(model: &str, facts: Arc<ModelFacts>, call_id_seed: String) -> Self {
        Self {
            model: model.to_owned(),
            stream: false,
            max_output: facts.max_output,
            thinking: match facts.thinking {
                None | Some(ThinkingControl::Never) => Thinking::Unsupported,
                Some(ThinkingControl::Budget | ThinkingControl::Switch) => Thinking::Budget,
                Some(
                    ThinkingControl::Adaptive | ThinkingControl::Effort | ThinkingControl::Fixed,
                ) => Thinking::Effort,
            },
            max_tokens_field: match facts.limit_field {
                Some(LimitField::MaxCompletionTokens) => "max_completion_tokens",
                Some(LimitField::MaxTokens) | None => "max_tokens",
            },
            developer_role: facts.instruction_role == Some(InstructionRole::Developer),
            accepts_reasoning: true,
            ask_usage: true,
            facts,
            call_id_seed,
        }
    }
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
