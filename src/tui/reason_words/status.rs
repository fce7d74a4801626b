//! Words changes of health, reloads and notices.

use std::sync::Arc;

use crate::{
    events::status_message::{
        health::HealthMessage,
        notice::NoticeMessage,
        reload::{ReloadCause, ReloadMessage},
    },
    ir::reason::unused_variable::UnusedVariable,
    tui::{
        reason_words::ReasonWords,
        strings::{Texts, fill},
    },
};

impl ReasonWords for HealthMessage {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.health;
        let of_model = |model: Option<&Arc<str>>| {
            model.map_or_else(String::new, |model| fill(&text.for_model, &[("model", model)]))
        };
        match self {
            Self::AnswersProbe { name } => fill(&text.answers_probe, &[("name", name)]),
            Self::CooledByUser { name, span } => {
                fill(&text.cooled, &[("name", name), ("span", &span.to_string())])
            }
            Self::Cools { name, account, span, cause, model } => {
                let words = if *account { &text.account_cools } else { &text.cools };
                let cause_words = cause.words(texts);
                let blanks =
                    [("name", &**name), ("span", &span.to_string()), ("cause", &cause_words)];
                fill(words, &blanks) + &of_model(Self::model_to_name(cause, model))
            }
            Self::Rejected { name, cause, model } => {
                let blanks = [("name", &**name), ("cause", &cause.words(texts))];
                fill(&text.rejected, &blanks) + &of_model(Self::model_to_name(cause, model))
            }
            Self::Text { text } => text.to_string(),
            Self::Warmed { name: None } => text.warmed_all.clone(),
            Self::Warmed { name: Some(name) } => fill(&text.warmed, &[("name", name)]),
            Self::Works { name, account, model } => {
                let words = if *account { &text.account_works } else { &text.works };
                fill(words, &[("name", name)]) + &of_model(model.as_ref())
            }
        }
    }
}

impl ReasonWords for ReloadCause {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.reload;
        match self {
            Self::FileChanged => text.file_changed.clone(),
            Self::LocalServers => text.local_servers.clone(),
            Self::Requested => text.requested.clone(),
            Self::Signal => text.signal.clone(),
            Self::Switched { name, enabled } => switched_words(name, *enabled, texts),
        }
    }
}

impl ReasonWords for ReloadMessage {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.reload;
        match self {
            Self::Applied { cause, upstreams, projects, needs_restart } => {
                let words = fill(
                    &text.applied,
                    &[
                        ("cause", &cause.words(texts)),
                        ("upstreams", &upstreams.to_string()),
                        ("projects", &projects.to_string()),
                    ],
                );
                if *needs_restart { words + &text.restart } else { words }
            }
            Self::Rejected { problem } => {
                let problem = problem.as_deref().unwrap_or(&text.unreadable);
                fill(&text.rejected, &[("problem", problem)])
            }
            Self::Text { text } => text.to_string(),
        }
    }
}

impl ReasonWords for NoticeMessage {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.notice;
        match self {
            Self::BodiesSkipped { requests } => {
                fill(&text.bodies_skipped, &[("n", &requests.to_string())])
            }
            Self::BodiesStored { only_failed, keep, limit } => {
                let words = if *only_failed { &text.bodies_failed } else { &text.bodies_all };
                fill(words, &[("keep", keep), ("limit", limit)])
            }
            Self::DataDirNotWritable { path, problem } => {
                fill(&text.data_dir_not_writable, &[("path", path), ("problem", problem)])
            }
            Self::KeyKept { name, secret } => {
                fill(&text.key_kept, &[("name", name), ("why", &secret.words(texts))])
            }
            Self::KeyNotUsable { name, secret } => {
                fill(&text.key_not_usable, &[("name", name), ("why", &secret.words(texts))])
            }
            Self::Learned { model, upstream, repair } => fill(
                &text.learned,
                &[("model", model), ("upstream", upstream), ("learned", &repair.words(texts))],
            ),
            Self::LedgerDamaged { path, problem, aside } => fill(
                &text.ledger_damaged,
                &[("path", path), ("problem", problem), ("aside", aside)],
            ),
            Self::LedgerNotStarted { problem } => {
                fill(&text.ledger_not_started, &[("problem", problem)])
            }
            Self::LedgerNotWritable { path, problem } => {
                fill(&text.ledger_not_writable, &[("path", path), ("problem", problem)])
            }
            Self::LedgerReplaced { path } => fill(&text.ledger_replaced, &[("path", path)]),
            Self::LedgerWritable { path } => fill(&text.ledger_writable, &[("path", path)]),
            Self::NetworkBack => text.network_back.clone(),
            Self::NetworkDown => text.network_down.clone(),
            Self::Stopping => text.stopping.clone(),
            Self::Text { text } => text.to_string(),
            Self::Unpriced { model } => fill(&text.unpriced, &[("model", model)]),
            Self::UnusedVariable { variable } => variable.words(texts),
        }
    }
}

impl ReasonWords for UnusedVariable {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.notice;
        match self {
            Self::ClientKey { variable, provider } => {
                fill(&text.client_key, &[("variable", variable), ("provider", provider)])
            }
            Self::NeedsUrl { variable, provider, upstream } => fill(
                &text.needs_url,
                &[("variable", variable), ("provider", provider), ("upstream", upstream)],
            ),
            Self::Spaces { variable } => fill(&text.spaces, &[("variable", variable)]),
        }
    }
}

/// Words that say whether a key or an upstream is on.
pub(super) fn switched_words(name: &str, enabled: bool, texts: &Texts) -> String {
    let text = &texts.reload;
    fill(if enabled { &text.switched_on } else { &text.switched_off }, &[("name", name)])
}
