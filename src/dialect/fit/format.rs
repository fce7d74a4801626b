//! Asks in words for structured output that the model cannot be bound to.

use crate::{
    dialect::losses::Losses,
    ir::{
        generation_settings::{GenerationSettings, ResponseFormat},
        model_facts::{ModelFacts, StructuredOutput},
        op::Dialect,
    },
};

/// Removes or relaxes a format that is not accepted; returns the instruction that replaces it.
pub(super) fn fit(
    settings: &mut GenerationSettings,
    dialect: Dialect,
    facts: &ModelFacts,
    has_tools: bool,
    losses: &mut Losses,
) -> Option<String> {
    let format = settings.format.as_ref()?;
    let beside_tools = !has_tools || facts.structured_with_tools == Some(true);
    let strictest = facts.structured_output.filter(|_| beside_tools);
    match (format, strictest) {
        (ResponseFormat::Text, _) | (_, Some(StructuredOutput::Schema)) => None,
        // This dialect has no such mode; its writer asks in words.
        (ResponseFormat::Json, _) if dialect == Dialect::Anthropic => None,
        (ResponseFormat::Json, Some(StructuredOutput::Json)) => {
            // Providers with only this mode require the word in the prompt.
            Some("Answer with one JSON value and nothing else.".to_owned())
        }
        (ResponseFormat::Schema { schema, .. }, Some(StructuredOutput::Json)) => {
            let instruction = schema_instruction(schema.text());
            losses.add("response_format.schema");
            settings.format = Some(ResponseFormat::Json);
            Some(instruction)
        }
        (ResponseFormat::Json, _) => {
            losses.add("response_format");
            settings.format = None;
            Some(
                "Answer with one JSON value and nothing else: no words around it, no code fence."
                    .to_owned(),
            )
        }
        (ResponseFormat::Schema { schema, .. }, _) => {
            let instruction = schema_instruction(schema.text());
            losses.add("response_format");
            settings.format = None;
            Some(instruction)
        }
    }
}

fn schema_instruction(schema: &str) -> String {
    format!(
        "Answer with one JSON value that follows this JSON Schema, and nothing else: no words around it, no code fence.\n{schema}"
    )
}
