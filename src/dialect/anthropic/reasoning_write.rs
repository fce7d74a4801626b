//! Decides how much the model is to think and how many tokens it may write.

use crate::{
    base::json::writer,
    dialect::{
        anthropic::arrange_turns::ArrangedConversation,
        egress::{TargetTraits, Thinking},
        losses::Losses,
    },
    ir::{
        generation_settings::{Effort, GenerationSettings, ReasoningSettings},
        model_facts::ThinkingControl,
    },
};

/// The smallest thinking budget that the provider accepts.
const MIN_BUDGET: u64 = 1_024;
/// The output limit if neither the client nor the model's facts give one. The field is required.
const DEFAULT_MAX_TOKENS: u64 = 8_192;

/// The field `thinking` that turns thinking off.
const DISABLED: &str = r#"{"type":"disabled"}"#;

#[derive(Debug, Default, PartialEq)]
pub(super) struct ThinkingPlan {
    /// The field `thinking`, as JSON.
    pub thinking: Option<String>,
    pub effort: Option<&'static str>,
    pub max_tokens: u64,
    /// Whether thinking is on, which forbids some settings.
    pub enabled: bool,
}

/// Plans thinking from the requested settings, the model's abilities and the conversation.
///
/// In every dialect the limit covers reasoning and text together. So the budget is reduced to fit
/// the limit, and the limit is raised only if it is below the smallest budget. A thinking model
/// cannot be forced to call a tool. If a call is required (`forced`), for example for structured
/// output, thinking is off.
pub(super) fn plan_thinking(
    settings: &GenerationSettings,
    forced: bool,
    conversation: &ArrangedConversation<'_>,
    traits: &TargetTraits,
    losses: &mut Losses,
) -> ThinkingPlan {
    let max_output = traits.max_output.filter(|most| *most > 0).unwrap_or(u64::MAX);
    let limit = settings.max_tokens.filter(|limit| *limit > 0).map(|limit| limit.min(max_output));
    losses.when(settings.max_tokens.is_some_and(|requested| requested > max_output), "max_tokens");
    let default_limit = traits.max_output.filter(|most| *most > 0).unwrap_or(DEFAULT_MAX_TOKENS);
    let mut plan =
        ThinkingPlan { max_tokens: limit.unwrap_or(default_limit), ..ThinkingPlan::default() };
    let facts = &traits.facts;
    let thinks_by_default = facts.default_effort.is_some_and(|effort| effort > Effort::None);
    if forced && thinks_by_default && facts.thinking_off == Some(true) {
        plan.thinking = Some(DISABLED.to_owned());
    }
    let Some(wish) = &settings.reasoning else { return plan };
    if wish.summary.as_deref().is_some_and(|summary| summary != "auto") {
        losses.add("reasoning.summary");
    }
    let requested_effort = wish.effort.filter(|effort| *effort != Effort::None);
    if wish.enabled == Some(false)
        || !wish.adaptive && wish.effective_effort() == Some(Effort::None)
    {
        if traits.thinking != Thinking::Unsupported && facts.thinking_off != Some(false) {
            plan.thinking = Some(DISABLED.to_owned());
            plan.effort = requested_effort.map(effort_name);
        }
        return plan;
    }
    let wished = wish.enabled == Some(true)
        || wish.adaptive
        || wish.effective_effort().is_some()
        || shows_thoughts(wish) == Some(true);
    if !wished {
        return plan;
    }
    match traits.thinking {
        Thinking::Unsupported => losses.add("reasoning"),
        _ if forced => losses.add("reasoning"),
        Thinking::Effort => {
            plan.enabled = true;
            plan.effort = wish.effective_effort().map(effort_name);
            plan.thinking = Some(writer::object(|o| {
                // Models of other vendors have words but no adaptive thinking.
                if facts.thinking == Some(ThinkingControl::Effort) {
                    let budget = wish.effective_budget_tokens().unwrap_or(MIN_BUDGET);
                    let below_limit = plan.max_tokens.saturating_sub(1);
                    o.str("type", "enabled")
                        .num("budget_tokens", budget.min(below_limit).max(MIN_BUDGET));
                } else {
                    o.str("type", "adaptive");
                    write_display(o, wish);
                }
            }));
        }
        Thinking::Budget if conversation.missing_reasoning() => losses.add("reasoning"),
        Thinking::Budget => {
            let wanted = wish
                .effective_budget_tokens()
                .unwrap_or_else(|| Effort::Medium.budget_tokens())
                .max(MIN_BUDGET);
            let (budget, max_tokens) = fit_budget(wanted, limit, traits.max_output, default_limit);
            losses.when(limit.is_some_and(|limit| limit != max_tokens), "max_tokens");
            (plan.enabled, plan.max_tokens) = (true, max_tokens);
            // Together with a budget, a requested effort is passed on, but none is derived.
            plan.effort =
                requested_effort.filter(|_| wish.budget_tokens.is_some()).map(effort_name);
            plan.thinking = Some(writer::object(|o| {
                o.str("type", "enabled").num("budget_tokens", budget);
                write_display(o, wish);
            }));
        }
    }
    plan
}

/// Returns a budget below the limit, and the limit.
fn fit_budget(
    wanted: u64,
    limit: Option<u64>,
    max_output: Option<u64>,
    default_limit: u64,
) -> (u64, u64) {
    let clamped = |limit: u64| (limit / 4 * 3).max(MIN_BUDGET);
    match limit.or(max_output) {
        Some(limit) if wanted < limit => (wanted, limit),
        Some(limit) if clamped(limit) < limit => (clamped(limit), limit),
        Some(limit) => (MIN_BUDGET, limit.saturating_add(MIN_BUDGET)),
        None if wanted < default_limit => (wanted, default_limit),
        None => (wanted, wanted.saturating_add(default_limit)),
    }
}

fn shows_thoughts(wish: &ReasoningSettings) -> Option<bool> {
    wish.show_thoughts.or(wish.summary.as_ref().map(|_| true))
}

fn write_display(o: &mut writer::ObjectWriter<'_>, wish: &ReasoningSettings) {
    o.opt_str(
        "display",
        shows_thoughts(wish).map(|show| if show { "summarized" } else { "omitted" }),
    );
}

fn effort_name(effort: Effort) -> &'static str {
    match effort {
        Effort::None | Effort::Minimal | Effort::Low => "low",
        other => other.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(thinking: Thinking, max_output: Option<u64>) -> TargetTraits {
        TargetTraits {
            model: "m".to_owned(),
            stream: false,
            max_output,
            thinking,
            max_tokens_field: "max_tokens",
            developer_role: false,
            accepts_reasoning: false,
            ask_usage: true,
            facts: Default::default(),
            call_id_seed: "s".to_owned(),
        }
    }

    #[test]
    fn thinking_budgets_are_below_max_tokens() {
        for (limit, most, effort, want) in [
            (Some(32_000), None, Effort::Medium, (8_192, 32_000)),
            (Some(8_000), None, Effort::High, (6_000, 8_000)),
            (Some(500), None, Effort::High, (1_024, 1_524)),
            (None, None, Effort::Low, (2_048, 8_192)),
            (None, None, Effort::High, (24_576, 32_768)),
            (None, Some(16_000), Effort::High, (12_000, 16_000)),
            (None, Some(64_000), Effort::High, (24_576, 64_000)),
        ] {
            let wish = ReasoningSettings { effort: Some(effort), ..ReasoningSettings::default() };
            let settings = GenerationSettings {
                max_tokens: limit,
                reasoning: Some(wish),
                ..GenerationSettings::default()
            };
            let plan = plan_thinking(
                &settings,
                false,
                &ArrangedConversation::default(),
                &traits(Thinking::Budget, most),
                &mut Losses::default(),
            );
            let thinking = format!(r#"{{"type":"enabled","budget_tokens":{}}}"#, want.0);
            assert_eq!(
                plan,
                ThinkingPlan {
                    thinking: Some(thinking),
                    effort: None,
                    max_tokens: want.1,
                    enabled: true
                },
                "{limit:?} {most:?} {effort:?}"
            );
        }
    }

    #[test]
    fn efforts_are_sent_by_name_or_omitted() {
        let wish = |effort| ReasoningSettings {
            effort: Some(effort),
            show_thoughts: Some(true),
            ..ReasoningSettings::default()
        };
        for (wish, thinking, want) in [
            (
                wish(Effort::Minimal),
                Thinking::Effort,
                Some((r#"{"type":"adaptive","display":"summarized"}"#, Some("low"), true)),
            ),
            (
                wish(Effort::Max),
                Thinking::Effort,
                Some((r#"{"type":"adaptive","display":"summarized"}"#, Some("max"), true)),
            ),
            (wish(Effort::None), Thinking::Effort, Some((r#"{"type":"disabled"}"#, None, false))),
            (wish(Effort::None), Thinking::Unsupported, None),
            (wish(Effort::High), Thinking::Unsupported, None),
            (
                ReasoningSettings { show_thoughts: Some(false), ..ReasoningSettings::default() },
                Thinking::Effort,
                None,
            ),
        ] {
            let mut losses = Losses::default();
            let settings = GenerationSettings {
                reasoning: Some(wish.clone()),
                ..GenerationSettings::default()
            };
            let plan = plan_thinking(
                &settings,
                false,
                &ArrangedConversation::default(),
                &traits(thinking, None),
                &mut losses,
            );
            let got = plan.thinking.as_deref().map(|json| (json, plan.effort, plan.enabled));
            assert_eq!(got, want, "{wish:?}");
            assert_eq!(losses.into_vec().len(), usize::from(wish.effort == Some(Effort::High)));
        }
    }
}
