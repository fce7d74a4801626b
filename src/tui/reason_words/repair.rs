//! Words what models were found to refuse.

use crate::{
    ir::repair::Repair,
    tui::{
        reason_words::ReasonWords,
        strings::{Texts, fill},
    },
};

impl ReasonWords for Repair {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.repair;
        match self {
            Self::Adaptive => text.adaptive.clone(),
            Self::Drop { field } => fill(&text.drop, &[("field", field)]),
            Self::DropInside { list, field } => {
                fill(&text.drop_inside, &[("list", list), ("field", field)])
            }
            Self::Endpoint { dialect } => fill(&text.endpoint, &[("dialect", dialect.name())]),
            Self::Limit { field, max } => {
                fill(&text.limit, &[("field", field), ("max", &max.to_string())])
            }
            Self::Prefill => text.prefill.clone(),
            Self::Rename { field, to } => fill(&text.rename, &[("field", field), ("to", to)]),
            Self::Role { to } => fill(&text.role, &[("to", to)]),
            Self::Schema => text.schema.clone(),
            Self::SystemFirst => text.system_first.clone(),
            Self::TextOnly => text.text_only.clone(),
            Self::Thinks => text.thinks.clone(),
            Self::ThoughtsBack => text.thoughts_back.clone(),
            Self::Values { field, allowed } => {
                fill(&text.values, &[("field", field), ("allowed", &allowed.join(", "))])
            }
        }
    }
}
