//! Lists every loss. A writer that leaves something out under a new name needs a row here.

use super::LossRow;
use crate::ir::op::Dialect::{
    self, Anthropic as A, Gemini as G, Ollama as L, Openai as O, Responses as R,
};

const fn row(name: &'static str, to: &'static [Dialect], why: &'static str) -> LossRow {
    LossRow { name, dialects: to, explanation: why }
}

const NO_SUCH_SETTING: &str = "there is no such setting";
const NOT_ACCEPTED: &str = "the model does not accept it, or is not known to";
const DIALECT_ONLY_FIELD: &str = "a field that only the client's own dialect knows";

pub(super) const CHAT_ROWS: &[LossRow] = &[
    // Settings.
    row("n", &[O, R, A, G, L], "one answer is asked for, the first one that the client sees"),
    row(
        "max_tokens",
        &[O, R, A, G],
        "a limit above what the model can answer, or below what is taken, is bent to the nearest that is",
    ),
    row("temperature", &[O, R, G, L], NOT_ACCEPTED),
    row(
        "temperature",
        &[A],
        "the model does not accept it; a thinking model accepts only 1, and none accepts more than 1",
    ),
    row("top_p", &[O, R, G, L], NOT_ACCEPTED),
    row(
        "top_p",
        &[A],
        "the model does not accept it, or not together with `temperature`; a thinking model accepts it only from 0.95 up",
    ),
    row("top_k", &[O, R], NO_SUCH_SETTING),
    row("top_k", &[G, L], NOT_ACCEPTED),
    row("top_k", &[A], "the model does not accept it; a thinking model never does"),
    row("min_p", &[O, R, A, G], NO_SUCH_SETTING),
    row("frequency_penalty", &[R, A], NO_SUCH_SETTING),
    row("frequency_penalty", &[O, G, L], NOT_ACCEPTED),
    row("presence_penalty", &[R, A], NO_SUCH_SETTING),
    row("presence_penalty", &[O, G, L], NOT_ACCEPTED),
    row("repetition_penalty", &[O, R, A, G], NO_SUCH_SETTING),
    row("seed", &[R, A], NO_SUCH_SETTING),
    row("seed", &[O, G, L], NOT_ACCEPTED),
    row("stop", &[R], NO_SUCH_SETTING),
    row("stop", &[O, L], NOT_ACCEPTED),
    row(
        "stop",
        &[A],
        "the model does not accept them, or they are white space, which is refused there; the others are kept",
    ),
    row("stop", &[G], "the model does not accept them, or the first five are kept of more"),
    row("logprobs", &[A], NO_SUCH_SETTING),
    row("logprobs", &[O, R, G, L], NOT_ACCEPTED),
    row("top_logprobs", &[A], NO_SUCH_SETTING),
    row("top_logprobs", &[O, R, G, L], NOT_ACCEPTED),
    row("verbosity", &[A, G, L], NO_SUCH_SETTING),
    row("verbosity", &[O, R], NOT_ACCEPTED),
    row(
        "service_tier",
        &[O, R, A, G, L],
        "the tier has no equal there, or the model is not known to accept one; the provider's usual one serves",
    ),
    row("user", &[O], NOT_ACCEPTED),
    row("user", &[R], "names of users longer than 64 characters are refused there"),
    row("user", &[G, L], NO_SUCH_SETTING),
    row("metadata", &[O, A, G, L], "the provider keeps no such records, or refuses them unasked"),
    row("prompt_cache_key", &[A, G, L], "prompt caches are kept otherwise there"),
    row("prompt_cache_key", &[O, R], NOT_ACCEPTED),
    row("parallel_tool_calls", &[G, L], "models may always call several tools at once"),
    row("parallel_tool_calls", &[O, R, A], NOT_ACCEPTED),
    row(
        "response_format",
        &[O, R, A, G, L],
        "the format cannot be enforced, or not together with tools; the model is asked for it in the system prompt",
    ),
    row(
        "response_format.schema",
        &[A],
        "a looser schema is enforced, without the keywords that are not taken",
    ),
    row(
        "response_format.schema",
        &[O, R, G, L],
        "only JSON is enforced; the model is asked for the schema in the system prompt",
    ),
    row("response_format.schema.<keyword>", &[G], "the schema goes without this keyword"),
    row("best_of", &[O], "only the old completions endpoint has it"),
    row("echo", &[O], "only the old completions endpoint has it"),
    // Reasoning.
    row(
        "reasoning",
        &[O, L],
        "the model cannot think or is not known to, or thoughts of earlier turns are not taken back",
    ),
    row(
        "reasoning",
        &[R],
        "the model cannot think or is not known to, thinking cannot be turned off, or thoughts of earlier turns are not taken back",
    ),
    row(
        "reasoning",
        &[A],
        "the model cannot think or is not known to, or not while it must call a tool or lacks its own earlier thought; unsigned thoughts are refused",
    ),
    row("reasoning", &[G], "the model cannot think, or is not known to"),
    row(
        "reasoning.effort",
        &[O, R, A, G, L],
        "the nearest amount that the model accepts; one that cannot stop thinking thinks as little as it can",
    ),
    row(
        "reasoning.enabled",
        &[O, R, A, G, L],
        "the model's thinking cannot be turned off, or is not known to be",
    ),
    row(
        "reasoning.budget_tokens",
        &[O, R, A, G, L],
        "the nearest budget that the model accepts, or none if thinking is only on or off",
    ),
    row("reasoning.show", &[O], "whether thoughts are shown is the provider's choice"),
    row("reasoning.summary", &[O, A], "there is one kind of summary, the provider's"),
    row(
        "reasoning.proof",
        &[O, R, A, G, L],
        "another provider's signed or encrypted reasoning means nothing here: the proof goes, its readable text is kept where it is taken",
    ),
    // Tools.
    row(
        "tool_choice",
        &[O, R, A, G],
        "the model accepts no such choice, or there is no tool left to choose from; a named tool is the only one offered",
    ),
    row(
        "tool_choice",
        &[L],
        "the model chooses; a named tool is the only one offered, and with `none` there is none",
    ),
    row("tools", &[O, R, A, G, L], "the model cannot call tools"),
    row(
        "tools.strict",
        &[A],
        "the schema cannot be enforced; the tool is offered without that promise",
    ),
    row("tools.strict", &[G, L], "arguments are not enforced there"),
    row("tools.schema", &[A], "the schema was bent to what is taken"),
    row(
        "tools.schema.<keyword>",
        &[G],
        "the schema goes without this keyword; a recursive `$ref` is cut where it comes back",
    ),
    row(
        "tools.cache_control",
        &[O, R, G, L],
        "there are no cache breakpoints; the provider caches by itself",
    ),
    row("tools.web_search", &[O, L], "there is no such tool on the provider's side"),
    row("tools.web_search", &[G], "it is not accepted together with functions, or does not exist"),
    row("tools.web_search.<field>", &[R, G], "the search has no such setting there"),
    row("tools.web_search.search_context_size", &[A], "the search has no such setting there"),
    row("tools.code_execution", &[O, L], "there is no such tool on the provider's side"),
    row("tools.code_execution", &[G], "it is not taken beside functions"),
    row("tools.code_execution.<field>", &[G], "the tool has no such setting there"),
    row("tools.url_context", &[O, L], "there is no such tool on the provider's side"),
    row("tools.url_context", &[G], "it is not taken beside functions"),
    row("tools.url_context.<field>", &[G], "the tool has no such setting there"),
    row("tools.hosted", &[O, R, A, G, L], "a tool that only the client's own provider runs"),
    row(
        "tools.<type or field>",
        &[R, A, G],
        "a tool that only the client's own provider runs, or a field of a tool that only its dialect knows",
    ),
    row("tools.<field>", &[O, L], "a field of a tool that only the client's own dialect knows"),
    // Messages.
    row(
        "system.cache_control",
        &[R, G, L],
        "there are no cache breakpoints; the provider caches by itself",
    ),
    row("system.media", &[O, R, A, G, L], "instructions are text only"),
    row("system.<field>", &[O, R, G], DIALECT_ONLY_FIELD),
    row(
        "messages.cache_control",
        &[O, R, G, L],
        "there are no cache breakpoints; the provider caches by itself",
    ),
    row("messages.name", &[R, A, G, L], "participants have no names"),
    row(
        "messages.prefill",
        &[O, R, A, G, L],
        "the model does not continue a begun answer; a user turn asks it to",
    ),
    row("messages.citations", &[O, A, G, L], "earlier answers are sent without their sources"),
    row("messages.is_error", &[R, L], "a failed tool result is marked by its text alone"),
    row("messages.image_url.detail", &[A, G, L], "the provider chooses the resolution"),
    row("messages.image_url", &[L], "images are not fetched; the model gets the address"),
    row("messages.filename", &[G], "media have no names"),
    row("messages.file_id", &[A, G], "the file is stored at another provider"),
    row("messages.document_url", &[O], "only images are fetched; the model gets the address"),
    row(
        "messages.image",
        &[R, A, L],
        "the medium has no place here: the assistant's own, or of a kind or source that is not taken",
    ),
    row("messages.image", &[O, G], "the model does not read images"),
    row("messages.audio", &[R, A, L], "audio is not taken, or not from this source"),
    row("messages.audio", &[O, G], "the model does not read audio"),
    row(
        "messages.document",
        &[R, A, L],
        "only texts are taken, or only PDF and texts, and not from the assistant",
    ),
    row("messages.document", &[O, G], "the model does not read documents of this type"),
    row("messages.video", &[R, A, L], "video is not taken"),
    row("messages.video", &[O, G], "the model does not read video"),
    row("messages.file", &[R, A, L], "files of this kind are not taken"),
    row("messages.assistant_media", &[O], "an assistant's message holds text only"),
    row("messages.tool_result", &[O], "a part of a result that is neither text nor a medium"),
    row("messages.tools", &[O], "a call or a result where none can stand"),
    row("messages.misplaced", &[L], "a part of a message where it cannot stand"),
    row("messages.server_tools", &[O], "what another provider's own tools did in earlier turns"),
    row(
        "messages.foreign",
        &[R, A, G, L],
        "a part of a message that only the client's own provider understands",
    ),
    row(
        "messages.<type or field>",
        &[R, A, G, L],
        "a part of a message, or a field of one, that only the client's own dialect knows",
    ),
    row("messages.<field>", &[O], "a field of a message that only the client's own dialect knows"),
    row("<field>", &[O, R, A, G, L], DIALECT_ONLY_FIELD),
];

pub(super) const OP_ROWS: &[LossRow] = &[
    row("dimensions", &[], "the length of vectors cannot be chosen there"),
    row("encoding_format", &[], "vectors come as numbers; quantised ones are not made there"),
    row("task", &[], "the purpose of the vectors cannot be given there"),
    row("title", &[], "documents have no titles there"),
    row("truncate", &[], "too long inputs are treated as the provider does"),
    row("user", &[], NO_SUCH_SETTING),
    row("<field>", &[], DIALECT_ONLY_FIELD),
];
