//! Bends the requested amount of thinking to what the model accepts.

use crate::{
    dialect::losses::Losses,
    ir::{
        generation_settings::{Effort, GenerationSettings, ReasoningSettings},
        model_facts::{ModelFacts, ThinkingControl},
        op::Dialect,
    },
};

/// Efforts that every model with efforts accepts, if its own are unknown.
const COMMON_EFFORTS: [Effort; 3] = [Effort::Low, Effort::Medium, Effort::High];

pub(super) fn fit(
    settings: &mut GenerationSettings,
    dialect: Dialect,
    facts: &ModelFacts,
    losses: &mut Losses,
) {
    let Some(wish) = &mut settings.reasoning else { return };
    let off = wish.effective_effort() == Some(Effort::None) && !wish.adaptive;
    let wanted =
        !off && (wish.enabled == Some(true) || wish.adaptive || wish.effective_effort().is_some());
    match facts.thinking {
        None | Some(ThinkingControl::Never) => {
            let unknown = facts.thinking.is_none();
            losses.when(wanted, "reasoning");
            losses.when(off && unknown, "reasoning.enabled");
            settings.reasoning = None;
        }
        Some(ThinkingControl::Fixed) => {
            losses.when(off, "reasoning.enabled");
            losses.when(wanted && wish.effective_effort().is_some(), "reasoning.effort");
            // Only whether thoughts are shown remains, if it is a setting of its own.
            *wish = ReasoningSettings {
                show_thoughts: wish.show_thoughts,
                summary: wish.summary.take(),
                ..ReasoningSettings::default()
            };
            let is_separate = matches!(dialect, Dialect::Gemini | Dialect::Responses);
            if !is_separate || wish.show_thoughts.is_none() && wish.summary.is_none() {
                settings.reasoning = None;
            }
        }
        Some(ThinkingControl::Switch) => fit_switch(wish, off, wanted, facts, losses),
        Some(ThinkingControl::Budget) => fit_budget(wish, off, dialect, facts, losses),
        Some(ThinkingControl::Adaptive | ThinkingControl::Effort) => {
            fit_effort(wish, off, wanted, dialect, facts, losses);
        }
    }
}

fn fit_switch(
    wish: &mut ReasoningSettings,
    off: bool,
    wanted: bool,
    facts: &ModelFacts,
    losses: &mut Losses,
) {
    if off && facts.thinking_off != Some(true) {
        losses.add("reasoning.enabled");
        wish.enabled = None;
    } else if off || wanted {
        wish.enabled = Some(wanted);
    }
    losses.when(wanted && wish.effort.is_some(), "reasoning.effort");
    losses.when(wanted && wish.budget_tokens.is_some(), "reasoning.budget_tokens");
    (wish.effort, wish.budget_tokens, wish.adaptive) = (None, None, false);
}

fn fit_budget(
    wish: &mut ReasoningSettings,
    off: bool,
    dialect: Dialect,
    facts: &ModelFacts,
    losses: &mut Losses,
) {
    let min = facts.min_budget.unwrap_or_default();
    if off {
        if facts.thinking_off == Some(true) {
            return;
        }
        losses.add("reasoning.effort");
        (wish.enabled, wish.effort) = (Some(true), None);
        wish.budget_tokens = Some(min);
        hide_thoughts(wish, dialect);
        return;
    }
    if let Some(requested) = wish.effective_budget_tokens() {
        let accepted = requested.clamp(min, facts.max_budget.unwrap_or(u64::MAX).max(min));
        // A budget that was derived from a word is the writer's choice, not the client's.
        losses
            .when(wish.budget_tokens.is_some() && accepted != requested, "reasoning.budget_tokens");
        wish.budget_tokens = Some(accepted);
    }
    match (&facts.efforts, wish.effort) {
        (Some(words), Some(effort)) if dialect == Dialect::Anthropic => {
            let accepted = nearest(effort, words);
            losses.when(accepted != Some(effort), "reasoning.effort");
            wish.effort = accepted;
        }
        _ => wish.effort = None,
    }
}

fn fit_effort(
    wish: &mut ReasoningSettings,
    off: bool,
    wanted: bool,
    dialect: Dialect,
    facts: &ModelFacts,
    losses: &mut Losses,
) {
    let words = facts.efforts.as_deref().unwrap_or(&COMMON_EFFORTS);
    if off {
        let requested = wish.effort.filter(|effort| *effort != Effort::None);
        // Gemini has no level for it.
        if words.contains(&Effort::None) && dialect != Dialect::Gemini {
            (wish.enabled, wish.effort) = (Some(false), Some(Effort::None));
        } else if facts.thinking_off == Some(true)
            && (dialect == Dialect::Anthropic || facts.thinking_field.is_some())
        {
            // A field turns thinking off, and the effort still bounds the answer.
            (wish.enabled, wish.effort) =
                (Some(false), requested.and_then(|effort| nearest(effort, words)));
        } else {
            losses.add("reasoning.effort");
            let smallest = words.iter().copied().filter(|effort| *effort > Effort::None).min();
            (wish.enabled, wish.effort) = (None, smallest);
            hide_thoughts(wish, dialect);
        }
        wish.budget_tokens = None;
        return;
    }
    if !wanted {
        return;
    }
    // A budget becomes at most the highest word that every such model accepts.
    let requested = wish.effort.or_else(|| {
        wish.budget_tokens.map(|tokens| Effort::from_budget_tokens(tokens).min(Effort::High))
    });
    let Some(requested) = requested else { return };
    let accepted = nearest(requested, words);
    losses.when(accepted != Some(requested), "reasoning.effort");
    (wish.effort, wish.budget_tokens) = (accepted, None);
}

/// The client did not want thoughts, and these dialects can leave them out.
fn hide_thoughts(wish: &mut ReasoningSettings, dialect: Dialect) {
    if matches!(dialect, Dialect::Anthropic | Dialect::Gemini) {
        wish.show_thoughts = Some(false);
    }
}

/// Returns the accepted effort that is nearest to a requested one. Thinking that was requested
/// never becomes none. Of two at the same distance, the larger one is taken up to `high`, and the
/// smaller one above that, where cost grows fast.
fn nearest(requested: Effort, accepted: &[Effort]) -> Option<Effort> {
    let rank = |effort: Effort| {
        Effort::NAMES_AND_VALUES.iter().position(|(_, value)| *value == effort).unwrap_or_default()
    };
    let thinking = accepted.iter().copied().filter(|effort| *effort > Effort::None);
    thinking.min_by_key(|effort| {
        let distance = rank(*effort).abs_diff(rank(requested));
        let larger = *effort > requested;
        (distance, larger == (requested > Effort::High))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_accepted_effort_is_chosen() {
        let efforts =
            |words: &str| -> Vec<Effort> { words.split(' ').filter_map(Effort::parse).collect() };
        for (requested, accepted, want) in [
            ("xhigh", "minimal low medium high", Some("high")),
            ("max", "none low medium high xhigh", Some("xhigh")),
            ("xhigh", "low medium high max", Some("high")),
            ("medium", "low high", Some("high")),
            ("minimal", "none low medium high", Some("low")),
            ("low", "high", Some("high")),
            ("high", "none", None),
            ("low", "high max", Some("high")),
        ] {
            let got = nearest(Effort::parse(requested).expect("an effort"), &efforts(accepted));
            assert_eq!(got.map(Effort::name), want, "{requested} of {accepted}");
        }
    }
}
