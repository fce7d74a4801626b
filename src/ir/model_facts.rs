//! Facts about a model at an upstream: which fields, values and media a request may contain.
//!
//! Every fact is optional. An unknown fact is `None`, and no reader fills it with a guess.

use std::fmt::Write as _;

use crate::ir::{generation_settings::Effort, op::Dialect};

/// Calls a macro with the list of all facts: field, type and purpose of each. The field's name is
/// also its key in `assets/models.toml` and in the config.
macro_rules! with_model_facts {
    ($apply:ident) => {
        $apply! {
            endpoints: Vec<Dialect>, "Dialects that it is served in, if its upstream has several";
            tool_endpoints: Vec<Dialect>, "Dialects in which it can call tools";
            thinking_tool_endpoints: Vec<Dialect>, "Dialects in which it can call tools while an amount of thinking is set";
            temperature: Acceptance, "Whether `temperature` is accepted";
            top_p: Acceptance, "Whether `top_p` is accepted";
            top_k: Acceptance, "Whether `top_k` is accepted";
            temperature_with_top_p: bool, "Whether `temperature` and `top_p` are accepted together";
            penalties: Acceptance, "Whether frequency and presence penalties are accepted";
            stop: Acceptance, "Whether stop sequences are accepted";
            seed: Acceptance, "Whether `seed` is accepted";
            logprobs: Acceptance, "Whether log probabilities are accepted";
            n: Acceptance, "Whether a number of choices is accepted";
            limit_field: LimitField, "The field of chat requests that limits the output";
            instruction_role: InstructionRole, "The role of instructions in chat requests";
            system_messages: SystemPosition, "Where instructions may be inside a conversation";
            thinking: ThinkingControl, "How the amount of thinking is set";
            efforts: Vec<Effort>, "Words for the amount of thinking that are accepted";
            default_effort: Effort, "The amount of thinking if a request sets none";
            min_budget: u64, "Smallest thinking budget that is accepted, in tokens";
            max_budget: u64, "Largest thinking budget that is accepted, in tokens";
            thinking_off: bool, "Whether thinking can be turned off";
            thinking_field: ThinkingField, "The field of chat requests that turns thinking on and off";
            thoughts_back: bool, "Whether calls must be sent back with the thoughts before them";
            prefill: bool, "Whether the client may begin the answer";
            tools: bool, "Whether it can call tools";
            tool_choice: Vec<ChoiceForm>, "Forms of tool choice that are accepted";
            parallel_calls: bool, "Whether the field for parallel tool calls is accepted";
            structured_output: StructuredOutput, "The strictest form of output that can be enforced";
            structured_with_tools: bool, "Whether that form is accepted together with tools";
            verbosity: bool, "Whether `verbosity` is accepted";
            prompt_cache_key: bool, "Whether `prompt_cache_key` is accepted";
            service_tier: bool, "Whether `service_tier` is accepted";
            user: bool, "Whether the end user's name is accepted";
            input: Vec<Modality>, "What it reads";
            output: Vec<Modality>, "What it writes";
            documents: Vec<String>, "Media types of the documents that it reads";
            context: u64, "Tokens of request and response together";
            max_output: u64, "Tokens of a response";
            deprecated: String, "The day on which its provider turns it off";
        }
    };
}
pub(crate) use with_model_facts;

macro_rules! define_facts {
    ($($name:ident: $kind:ty, $doc:literal;)*) => {
        /// What is known of a model at an upstream.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct ModelFacts {
            $(#[doc = $doc] #[doc = "."] pub $name: Option<$kind>,)*
        }

        impl ModelFacts {
            /// The names of all facts, with their purpose.
            pub const KEYS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($name), $doc)),*];

            /// Adds the facts of `other` that are unknown here; calls `added` with the name of each.
            pub fn fill_from(&mut self, other: &Self, mut added: impl FnMut(&'static str)) {
                $(if self.$name.is_none() && other.$name.is_some() {
                    self.$name.clone_from(&other.$name);
                    added(stringify!($name));
                })*
            }

            /// Returns the known facts: the name and the value of each, as TOML.
            #[must_use]
            pub fn to_toml_values(&self) -> Vec<(&'static str, String)> {
                let mut out = Vec::new();
                $(if let Some(value) = &self.$name {
                    out.push((stringify!($name), value.to_toml()));
                })*
                out
            }
        }
    };
}
with_model_facts!(define_facts);

impl ModelFacts {
    /// Returns whether the model is known to accept this kind of input; `None` if that is unknown.
    #[must_use]
    pub fn reads(&self, modality: Modality) -> Option<bool> {
        self.input.as_ref().map(|list| list.contains(&modality))
    }

    /// Returns whether the model thinks, if that is known.
    #[must_use]
    pub fn thinks(&self) -> Option<bool> {
        self.thinking.map(|control| control != ThinkingControl::Never)
    }
}

/// The value of a fact.
pub(crate) trait FactValue {
    /// Returns the value as TOML.
    fn to_toml(&self) -> String;
}

/// A value that is one of several words.
pub(crate) trait FactWord: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

macro_rules! fact_words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $name {
                $($(#[$variant_doc])* $variant,)*
            }

            impl FactWord for $name {
                const WORDS: &'static [(&'static str, Self)] =
                    &[$(($word, Self::$variant),)*];
            }

            impl FactValue for $name {
                fn to_toml(&self) -> String {
                    quoted(self.word())
                }
            }
        )*
    };
}

fact_words! {
    /// The field that limits the output of a chat request.
    LimitField {
        MaxCompletionTokens = "max_completion_tokens",
        MaxTokens = "max_tokens",
    }
    /// The role of instructions.
    InstructionRole {
        Developer = "developer",
        System = "system",
    }
    /// The place of instructions in a conversation.
    SystemPosition {
        Anywhere = "anywhere",
        /// Only before everything else.
        First = "first",
    }
    /// How a request sets the amount of thinking.
    ThinkingControl {
        /// The model chooses; a word bounds it.
        Adaptive = "adaptive",
        /// A number of tokens.
        Budget = "budget",
        /// A word.
        Effort = "effort",
        /// It thinks, and a request cannot change that.
        Fixed = "fixed",
        /// It cannot think.
        Never = "never",
        /// On or off.
        Switch = "switch",
    }
    /// The field of a chat request that turns thinking on and off.
    ThinkingField {
        /// `enable_thinking`, true or false.
        EnableThinking = "enable_thinking",
        /// `thinking`, an object with `type`.
        Thinking = "thinking",
    }
    /// A form of tool choice.
    ChoiceForm {
        Auto = "auto",
        Named = "named",
        None = "none",
        Required = "required",
    }
    /// The strictest form of output that can be enforced.
    StructuredOutput {
        Json = "json",
        None = "none",
        Schema = "schema",
    }
    /// A kind of content.
    Modality {
        Audio = "audio",
        Document = "document",
        Image = "image",
        Text = "text",
        Video = "video",
    }
}

/// Whether a field is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    No,
    /// Only while the model does not think.
    WithoutThinking,
    Yes,
}

impl Acceptance {
    /// The word for [`Self::WithoutThinking`]; the others are `true` and `false`.
    pub const WITHOUT_THINKING: &'static str = "without_thinking";
}

impl FactValue for Acceptance {
    fn to_toml(&self) -> String {
        match self {
            Self::No => "false".to_owned(),
            Self::WithoutThinking => quoted(Self::WITHOUT_THINKING),
            Self::Yes => "true".to_owned(),
        }
    }
}

impl FactWord for Dialect {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("anthropic", Self::Anthropic),
        ("gemini", Self::Gemini),
        ("ollama", Self::Ollama),
        ("openai", Self::Openai),
        ("responses", Self::Responses),
    ];
}

impl FactValue for Dialect {
    fn to_toml(&self) -> String {
        quoted(self.word())
    }
}

impl FactWord for Effort {
    const WORDS: &'static [(&'static str, Self)] = &Self::NAMES_AND_VALUES;
}

impl FactValue for Effort {
    fn to_toml(&self) -> String {
        quoted(self.word())
    }
}

impl FactValue for bool {
    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl FactValue for u64 {
    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl FactValue for String {
    fn to_toml(&self) -> String {
        quoted(self)
    }
}

impl<T: FactValue> FactValue for Vec<T> {
    fn to_toml(&self) -> String {
        let items: Vec<String> = self.iter().map(FactValue::to_toml).collect();
        format!("[{}]", items.join(", "))
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_matching_row_sets_each_fact() {
        let first = ModelFacts { temperature: Some(Acceptance::No), ..ModelFacts::default() };
        let second = ModelFacts {
            temperature: Some(Acceptance::Yes),
            efforts: Some(vec![Effort::Low, Effort::High]),
            ..ModelFacts::default()
        };
        let (mut facts, mut added) = (ModelFacts::default(), Vec::new());
        facts.fill_from(&first, |name| added.push(name));
        facts.fill_from(&second, |name| added.push(name));
        assert_eq!(added, ["temperature", "efforts"]);
        assert_eq!(
            facts.to_toml_values(),
            [("temperature", "false".to_owned()), ("efforts", r#"["low", "high"]"#.to_owned())]
        );
    }

    #[test]
    fn text_is_written_as_a_toml_string() {
        assert_eq!(quoted("a\"b\\c\nd"), r#""a\"b\\c\u000Ad""#);
    }
}
