//! Removes fields in the spelling of the target's own dialect, if the settings that they spell were
//! fitted.

use crate::ir::{
    extras::Extras,
    generation_settings::GenerationSettings,
    model_facts::{Acceptance, ModelFacts},
    op::Dialect,
    request::ChatRequest,
};

/// Fields of chat requests that set the amount of thinking.
const CHAT_REASONING_FIELDS: [&str; 7] = [
    "chat_template_kwargs",
    "enable_thinking",
    "include_reasoning",
    "reasoning",
    "reasoning_effort",
    "thinking",
    "thinking_budget",
];

/// Returns the original fields if some were removed.
pub(super) fn fit(
    request: &mut ChatRequest,
    before: &GenerationSettings,
    dialect: Dialect,
    facts: &ModelFacts,
) -> Option<Extras> {
    if !request.extras.is_from(dialect) {
        return None;
    }
    let after = &request.settings;
    let reasoning = after.reasoning != before.reasoning;
    let format = after.format != before.format;
    let tier = after.service_tier != before.service_tier;
    let user = after.user != before.user;
    let refused = |acceptance| acceptance == Some(Acceptance::No);
    let is_stale = |key: &str| match key {
        "response_format" => format,
        "service_tier" => tier,
        "safety_identifier" => user,
        "top_k" => refused(facts.top_k),
        "stop" => refused(facts.stop),
        "seed" => refused(facts.seed),
        "n" => refused(facts.n),
        "frequency_penalty" | "presence_penalty" => refused(facts.penalties),
        _ => {
            reasoning
                && (key.starts_with("reasoning.")
                    || dialect == Dialect::Openai && CHAT_REASONING_FIELDS.contains(&key))
        }
    };
    let original = request.extras.clone();
    request.extras.remove_where(is_stale);
    Some(original)
}
