//! Words why requests go where they go.

use crate::{
    ir::reason::route::{ChoiceReason, ChosenRoute, NameSource, RouteReason, print_delay},
    tui::{
        reason_words::ReasonWords,
        strings::{Texts, fill},
    },
};

impl ReasonWords for RouteReason {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.route;
        match self {
            Self::Chosen(route) => route.words(texts),
            Self::Hedge { waited, is_p95 } => {
                let mut words = fill(&text.hedge, &[("span", &print_delay(waited.0))]);
                if *is_p95 {
                    words += &text.hedge_p95;
                }
                words
            }
            Self::Repaired { learned } => {
                fill(&text.repaired, &[("learned", &learned.words(texts))])
            }
            Self::Rescue { upstream, characters, cause } => fill(
                &text.rescue,
                &[
                    ("upstream", upstream),
                    ("n", &characters.to_string()),
                    ("cause", &cause.words(texts)),
                ],
            ),
            Self::RetrySame { pause } => {
                fill(&text.retry, &[("n", &pause.as_millis().to_string())])
            }
            Self::Text { text } => text.to_string(),
            Self::WaitsForKey { wait, ahead } => {
                fill(&text.wait_key, &[("span", &wait.to_string()), ("n", &ahead.to_string())])
            }
            Self::WaitsForSlot { slots, ahead } => {
                fill(&text.wait_slot, &[("slots", &slots.to_string()), ("n", &ahead.to_string())])
            }
            Self::WaitsForVerdict => text.wait_verdict.clone(),
        }
    }
}

impl ReasonWords for ChosenRoute {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.route;
        let name = self.name.words(texts);
        let mut words =
            fill(&text.chosen, &[("name", &name), ("choice", &choice_words(self, texts))]);
        if let Some(dialect) = self.translated_to {
            words += &fill(&text.translated, &[("dialect", &dialect.to_string())]);
        }
        for (at, skipped) in self.skipped.iter().enumerate() {
            words += if at == 0 { &text.skipped_first } else { &text.skipped_next };
            let why = skipped.reason.words(texts);
            words += &fill(&text.skipped_one, &[("name", &skipped.key_name), ("why", &why)]);
        }
        if self.more_skipped > 0 {
            words += &fill(&text.more, &[("n", &self.more_skipped.to_string())]);
        }
        match self.attempt {
            Some(n) => fill(&text.attempt, &[("n", &n.to_string()), ("route", &words)]),
            None => words,
        }
    }
}

fn choice_words(route: &ChosenRoute, texts: &Texts) -> String {
    let (text, priority) = (&texts.route, route.priority.to_string());
    match &route.choice {
        ChoiceReason::Affinity { better_tier_ready: false } => text.affinity.clone(),
        ChoiceReason::Affinity { better_tier_ready: true } => text.affinity_lower.clone(),
        ChoiceReason::Best { ready_count, .. } => {
            fill(&text.best, &[("priority", &priority), ("n", &ready_count.to_string())])
        }
        ChoiceReason::LeastSuspect => text.least_suspect.clone(),
        ChoiceReason::Only => fill(&text.only, &[("priority", &priority)]),
        ChoiceReason::Probe => text.probe.clone(),
    }
}

impl ReasonWords for NameSource {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.route;
        match self {
            Self::Aliases { names } => names.join(" → "),
            Self::AnyName => text.any_name.clone(),
            Self::ColonName => text.colon_name.clone(),
            Self::LogicalModel => text.logical.clone(),
            Self::NewestMatch => text.newest.clone(),
            Self::Path => text.path.clone(),
            Self::ServedName => text.served.clone(),
            Self::SlashName => text.slash_name.clone(),
        }
    }
}
