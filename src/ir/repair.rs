//! What an upstream was found to refuse, and what is sent instead.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ir::{
    generation_settings::Effort,
    model_facts::{
        Acceptance, ChoiceForm, InstructionRole, LimitField, Modality, ModelFacts,
        StructuredOutput, SystemPosition, ThinkingControl,
    },
    op::Dialect,
};

/// One change of requests to a model, learned from a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Repair {
    /// The model chooses how much it thinks.
    Adaptive,
    /// A field is left out. A dot separates an object from its member.
    Drop { field: String },
    /// A member is left out of everything in a list: of all messages with their content, or of all
    /// tools with their schemas.
    DropInside { list: String, field: String },
    /// The model is asked in another dialect of its upstream.
    Endpoint { dialect: Dialect },
    /// A number is at most this large.
    Limit { field: String, max: u64 },
    /// The conversation ends with the user.
    Prefill,
    /// A field is sent under another name.
    Rename { field: String, to: String },
    /// Instructions get the other role.
    Role { to: String },
    /// A weaker form of output is enforced.
    Schema,
    /// Instructions come before everything else.
    SystemFirst,
    /// Text in place of media.
    TextOnly,
    /// Thinking is not turned off.
    Thinks,
    /// Calls are sent back with the thoughts before them.
    ThoughtsBack,
    /// A field takes only these values.
    Values { field: String, allowed: Vec<String> },
}

/// The names of the amount of thinking in all dialects.
const EFFORT_FIELDS: [&str; 8] = [
    "reasoning_effort",
    "reasoning.effort",
    "reasoningEffort",
    "output_config.effort",
    "effort",
    "reasoning",
    "thinking",
    "think",
];

/// The names of the limit on the output in all dialects.
const LIMIT_FIELDS: [&str; 5] =
    ["max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "num_predict"];

impl Repair {
    /// Returns the facts that follow for requests that are written from the common form.
    #[must_use]
    pub fn facts(&self) -> ModelFacts {
        let mut facts = ModelFacts::default();
        match self {
            Self::Adaptive => facts.thinking = Some(ThinkingControl::Adaptive),
            Self::Drop { field } => drop_fact(&mut facts, field),
            Self::DropInside { .. } => {}
            Self::Endpoint { dialect } => facts.endpoints = Some(vec![*dialect]),
            Self::Limit { field, max } => {
                if LIMIT_FIELDS.iter().any(|name| field.ends_with(name)) {
                    facts.max_output = Some(*max);
                }
            }
            Self::Prefill => facts.prefill = Some(false),
            Self::Rename { to, .. } => {
                facts.limit_field = match to.as_str() {
                    "max_completion_tokens" => Some(LimitField::MaxCompletionTokens),
                    "max_tokens" => Some(LimitField::MaxTokens),
                    _ => None,
                };
            }
            Self::Role { to } => {
                facts.instruction_role = match to.as_str() {
                    "developer" => Some(InstructionRole::Developer),
                    _ => Some(InstructionRole::System),
                };
            }
            Self::Schema => facts.structured_output = Some(StructuredOutput::None),
            Self::SystemFirst => facts.system_messages = Some(SystemPosition::First),
            Self::TextOnly => facts.input = Some(vec![Modality::Text]),
            Self::Thinks => facts.thinking_off = Some(false),
            Self::ThoughtsBack => facts.thoughts_back = Some(true),
            Self::Values { field, allowed } if EFFORT_FIELDS.contains(&field.as_str()) => {
                let efforts: Vec<Effort> =
                    allowed.iter().filter_map(|word| Effort::parse(word)).collect();
                if !efforts.is_empty() {
                    facts.thinking = Some(ThinkingControl::Effort);
                    facts.thinking_off = Some(efforts.contains(&Effort::None));
                    facts.efforts = Some(efforts);
                }
            }
            Self::Values { field, .. } => drop_fact(&mut facts, field),
        }
        facts
    }

    /// Whether something that the client asked for is lost.
    #[must_use]
    pub fn loses(&self) -> Option<&str> {
        match self {
            Self::Drop { field }
            | Self::DropInside { field, .. }
            | Self::Limit { field, .. }
            | Self::Values { field, .. } => Some(field),
            Self::Schema => Some("response_format"),
            Self::TextOnly => Some("messages.image"),
            Self::Thinks => Some("reasoning"),
            Self::Adaptive
            | Self::Endpoint { .. }
            | Self::Prefill
            | Self::Rename { .. }
            | Self::Role { .. }
            | Self::SystemFirst
            | Self::ThoughtsBack => None,
        }
    }
}

/// The end of a sentence about the model: `takes no temperature`.
impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adaptive => f.write_str("chooses itself how much it thinks"),
            Self::Drop { field } => write!(f, "takes no {field}"),
            Self::DropInside { list, field } => write!(f, "takes no {field} in {list}"),
            Self::Endpoint { dialect } => write!(f, "is served as {dialect}"),
            Self::Limit { field, max } => write!(f, "takes at most {max} as {field}"),
            Self::Prefill => f.write_str("does not go on from an assistant's message"),
            Self::Rename { field, to } => write!(f, "takes {to} instead of {field}"),
            Self::Role { to } => write!(f, "takes instructions as {to}"),
            Self::Schema => f.write_str("enforces no schema"),
            Self::SystemFirst => f.write_str("takes instructions at the beginning only"),
            Self::TextOnly => f.write_str("reads text only"),
            Self::Thinks => f.write_str("cannot turn its thinking off"),
            Self::ThoughtsBack => f.write_str("wants its thoughts back with its calls"),
            Self::Values { field, allowed } => {
                write!(f, "takes only {} as {field}", allowed.join(", "))
            }
        }
    }
}

/// Notes that a field of any dialect is not accepted.
fn drop_fact(facts: &mut ModelFacts, field: &str) {
    let no = Some(Acceptance::No);
    let name = field.rsplit('.').next().unwrap_or(field);
    match name {
        _ if EFFORT_FIELDS.contains(&field) => facts.thinking = Some(ThinkingControl::Fixed),
        "temperature" => facts.temperature = no,
        "top_p" | "topP" => facts.top_p = no,
        "top_k" | "topK" => facts.top_k = no,
        "presence_penalty" | "frequency_penalty" | "presencePenalty" | "frequencyPenalty"
        | "penalty" => facts.penalties = no,
        "stop" | "stop_sequences" | "stopSequences" => facts.stop = no,
        "seed" => facts.seed = no,
        "logprobs" | "top_logprobs" | "responseLogprobs" => facts.logprobs = no,
        "n" | "candidateCount" => facts.n = no,
        "parallel_tool_calls" | "disable_parallel_tool_use" => facts.parallel_calls = Some(false),
        "tool_choice" | "toolConfig" => facts.tool_choice = Some(vec![ChoiceForm::Auto]),
        "verbosity" => facts.verbosity = Some(false),
        "prompt_cache_key" => facts.prompt_cache_key = Some(false),
        "service_tier" => facts.service_tier = Some(false),
        "user" | "user_id" => facts.user = Some(false),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learned_repairs_become_model_facts() {
        let drop = |field: &str| Repair::Drop { field: field.to_owned() }.facts();
        assert_eq!(drop("temperature").temperature, Some(Acceptance::No));
        assert_eq!(drop("generationConfig.topK").top_k, Some(Acceptance::No));
        assert_eq!(drop("reasoning_effort").thinking, Some(ThinkingControl::Fixed));
        assert_eq!(drop("unheard_of"), ModelFacts::default());
        let values = Repair::Values {
            field: "reasoning_effort".to_owned(),
            allowed: vec!["low".to_owned(), "high".to_owned()],
        };
        assert_eq!(values.facts().efforts, Some(vec![Effort::Low, Effort::High]));
        let rename = Repair::Rename {
            field: "max_tokens".to_owned(),
            to: "max_completion_tokens".to_owned(),
        };
        assert_eq!(rename.facts().limit_field, Some(LimitField::MaxCompletionTokens));
        assert_eq!(rename.loses(), None);
    }

    #[test]
    fn repairs_are_stored_as_json() {
        for repair in [
            Repair::SystemFirst,
            Repair::Drop { field: "n".to_owned() },
            Repair::Endpoint { dialect: Dialect::Responses },
        ] {
            let text = serde_json::to_string(&repair).expect("JSON");
            assert_eq!(serde_json::from_str::<Repair>(&text).expect("the same"), repair, "{text}");
        }
    }
}
