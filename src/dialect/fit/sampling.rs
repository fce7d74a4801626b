//! Leaves out the settings that the model does not accept.

use crate::{
    base::json::raw::RawJson,
    dialect::{fit::accepts, losses::Losses},
    ir::{
        generation_settings::{Effort, GenerationSettings},
        model_facts::{ModelFacts, ThinkingControl},
        op::Dialect,
    },
};

/// Runs after the amount of thinking is fitted, because some fields depend on it.
pub(super) fn fit(
    settings: &mut GenerationSettings,
    dialect: Dialect,
    facts: &ModelFacts,
    losses: &mut Losses,
) {
    let thinks = thinks(settings, facts);
    let mut number = |field: &mut Option<RawJson>, accepted, default: f64, name| {
        // A field with its default value has no effect, so leaving it out loses nothing.
        let is_default = |raw: &RawJson| raw.text().parse::<f64>().ok() == Some(default);
        if !accepts(accepted, thinks)
            && let Some(raw) = field.take()
        {
            losses.when(!is_default(&raw), name);
        }
    };
    number(&mut settings.temperature, facts.temperature, 1.0, "temperature");
    number(&mut settings.top_p, facts.top_p, 1.0, "top_p");
    if matches!(dialect, Dialect::Anthropic | Dialect::Gemini | Dialect::Ollama) {
        number(&mut settings.top_k, facts.top_k, f64::NAN, "top_k");
    }
    // The dialects without these fields name the loss themselves.
    if matches!(dialect, Dialect::Gemini | Dialect::Ollama | Dialect::Openai) {
        number(&mut settings.frequency_penalty, facts.penalties, 0.0, "frequency_penalty");
        number(&mut settings.presence_penalty, facts.penalties, 0.0, "presence_penalty");
        number(&mut settings.seed, facts.seed, f64::NAN, "seed");
    }
    if facts.temperature_with_top_p != Some(true) {
        keep_one_sampler(settings, losses);
    }
    if dialect != Dialect::Responses && !settings.stop.is_empty() && !accepts(facts.stop, thinks) {
        settings.stop.clear();
        losses.add("stop");
    }
    if dialect != Dialect::Anthropic && !accepts(facts.logprobs, thinks) {
        losses.when(settings.logprobs.take() == Some(true), "logprobs");
        losses.when(settings.top_logprobs.take().is_some_and(|count| count > 0), "top_logprobs");
    }
    if dialect == Dialect::Openai && !accepts(facts.n, thinks) && settings.n == Some(1) {
        settings.n = None;
    }
    fit_account_fields(settings, dialect, facts, losses);
}

/// Returns whether the model will think, as far as known.
fn thinks(settings: &GenerationSettings, facts: &ModelFacts) -> bool {
    if facts.thinking == Some(ThinkingControl::Never) {
        return false;
    }
    match settings.reasoning.as_ref().and_then(|wish| wish.effective_effort()) {
        Some(effort) => effort > Effort::None,
        None => facts.default_effort != Some(Effort::None),
    }
}

/// Leaves out one of two fields that are not accepted together: the one without effect, else
/// `top_p`.
fn keep_one_sampler(settings: &mut GenerationSettings, losses: &mut Losses) {
    let (Some(temperature), Some(top_p)) = (&settings.temperature, &settings.top_p) else {
        return;
    };
    let is_one = |raw: &RawJson| raw.text().parse::<f64>().ok() == Some(1.0);
    match (is_one(temperature), is_one(top_p)) {
        (_, true) => settings.top_p = None,
        (true, false) => settings.temperature = None,
        (false, false) => {
            settings.top_p = None;
            losses.add("top_p");
        }
    }
}

/// Fields that do not change the answer much, but that strict servers refuse.
fn fit_account_fields(
    settings: &mut GenerationSettings,
    dialect: Dialect,
    facts: &ModelFacts,
    losses: &mut Losses,
) {
    if matches!(dialect, Dialect::Openai | Dialect::Responses) {
        let mut text = |field: &mut Option<String>, accepted, default: &str, name| {
            if accepted != Some(true)
                && let Some(value) = field.take()
            {
                losses.when(value != default, name);
            }
        };
        text(&mut settings.verbosity, facts.verbosity, "medium", "verbosity");
        text(&mut settings.prompt_cache_key, facts.prompt_cache_key, "", "prompt_cache_key");
        text(&mut settings.service_tier, facts.service_tier, "auto", "service_tier");
        text(&mut settings.user, facts.user, "", "user");
    }
    if matches!(dialect, Dialect::Anthropic | Dialect::Openai | Dialect::Responses)
        && facts.parallel_calls != Some(true)
    {
        losses.when(settings.parallel_tools.take() == Some(false), "parallel_tool_calls");
    }
}
