//! Words why prompt caches miss.

use crate::{
    events::record::CacheMissRecord,
    ir::reason::cache_miss::MissCause,
    tui::{
        reason_words::ReasonWords,
        strings::{Texts, fill},
    },
};

impl ReasonWords for MissCause {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.cache_miss;
        let moved = |words: &str, from: &str, to: &str| fill(words, &[("from", from), ("to", to)]);
        match self {
            Self::CacheControl => text.cache_control.clone(),
            Self::Expired { idle } => fill(&text.expired, &[("span", &idle.to_string())]),
            Self::Key { from, to } => moved(&text.key, from, to),
            Self::Message { number, role } => {
                let number = number.to_string();
                match role.name() {
                    Some(role) => fill(&text.message_role, &[("n", &number), ("role", role)]),
                    None => fill(&text.message, &[("n", &number)]),
                }
            }
            Self::Model { from, to } => moved(&text.model, from, to),
            Self::Provider => text.provider.clone(),
            Self::System => text.system.clone(),
            Self::Text { text } => text.to_string(),
            Self::ToolOrder => text.tool_order.clone(),
            Self::Tools => text.tools.clone(),
            Self::Translation { translated: true } => text.translated.clone(),
            Self::Translation { translated: false } => text.untranslated.clone(),
            Self::Upstream { from, to } => moved(&text.upstream, from, to),
        }
    }
}

impl ReasonWords for CacheMissRecord {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.cache_miss;
        let mut words = fill(
            &text.share,
            &[
                ("n", &self.cached.to_string()),
                ("all", &self.expected.to_string()),
                ("cause", &self.cause.words(texts)),
            ],
        );
        if let Some(cost) = self.displayed_cost() {
            words += &fill(&text.cost, &[("cost", &cost.to_string())]);
        }
        words
    }
}
