//! Words lines of the log.

use crate::{
    events::log_message::{LogMessage, RequestEnd, RequestSummary},
    tui::{
        reason_words::ReasonWords,
        strings::{Texts, fill},
    },
};

impl ReasonWords for LogMessage {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.line;
        match self {
            Self::AttemptEnded { number, model, target, outcome } => fill(
                &text.attempt,
                &[
                    ("n", &number.to_string()),
                    ("model", model),
                    ("target", target),
                    ("outcome", &outcome.words(texts)),
                ],
            ),
            Self::CacheMissed { project, model, miss } => fill(
                &text.cache_missed,
                &[("project", project), ("model", model), ("miss", &miss.words(texts))],
            ),
            Self::Ended { summary } => summary.words(texts),
            Self::Health { change } => change.words(texts),
            Self::Notice { notice } => notice.words(texts),
            Self::Reload { result } => result.words(texts),
            Self::Text { text } => text.to_string(),
        }
    }
}

impl ReasonWords for RequestSummary {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.line;
        let mut words = format!("{} {} {}", self.project, self.model, self.displayed_status());
        if let Some(target) = &self.target {
            words += &fill(&text.by, &[("target", target)]);
        }
        words += &fill(&text.took, &[("n", &self.duration_ms.to_string())]);
        match &self.end {
            RequestEnd::ClientGone => words += &text.client_left,
            RequestEnd::Done => {}
            RequestEnd::Failed { error } => words += &fill(&text.error, &[("error", error)]),
        }
        words
    }
}
