//! Words results of actions.

use crate::{
    control::action_message::{ActionMessage, AlertTestResult},
    tui::{
        format::short_id,
        reason_words::{ReasonWords, status::switched_words},
        strings::{Texts, fill},
    },
};

impl ReasonWords for ActionMessage {
    /// Requests have the short ids of their titles.
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.action;
        match self {
            Self::Aborted { id } => fill(&text.aborted, &[("id", &short_id(*id))]),
            Self::AlertsTested { channels } => {
                let lines: Vec<_> = channels.iter().map(|result| result.words(texts)).collect();
                lines.join("\n")
            }
            Self::BodyNotStored => text.body_not_stored.clone(),
            Self::BuiltIn => text.built_in.clone(),
            Self::CannotReplay { op } => fill(&text.cannot_replay, &[("op", op.name())]),
            Self::Forgotten { models: 0 } => text.nothing_learned.clone(),
            Self::Forgotten { models } => fill(&text.forgotten, &[("n", &models.to_string())]),
            Self::Health { change } => change.words(texts),
            Self::KeyFailed { name, problem } => {
                fill(&text.failed, &[("name", name), ("problem", problem)])
            }
            Self::KeyMissing { name, secret } => {
                fill(&text.failed, &[("name", name), ("problem", &secret.words(texts))])
            }
            Self::KeyWorks { name } => fill(&text.key_works, &[("name", name)]),
            Self::NoAlertChannel => text.no_channel.clone(),
            Self::NoLedger => text.no_ledger.clone(),
            Self::NotInFile { name } => fill(&text.not_in_file, &[("name", name)]),
            Self::NotRunning { id } => fill(&text.not_running, &[("id", &short_id(*id))]),
            Self::ProjectGone { project } => fill(&text.project_gone, &[("project", project)]),
            Self::Reload { result } => result.words(texts),
            Self::SentAgain { original, id } => fill(
                &text.sent_again,
                &[("original", &short_id(*original)), ("id", &short_id(*id))],
            ),
            Self::SeveralKeys { name, keys } => {
                let blanks =
                    [("name", &**name), ("n", &keys.len().to_string()), ("keys", &keys.join(", "))];
                fill(&text.several_keys, &blanks)
            }
            Self::Stopping => texts.notice.stopping.clone(),
            Self::Switched { name, enabled } => switched_words(name, *enabled, texts),
            Self::Text { text } => text.to_string(),
            Self::UnknownKey { name } => fill(&text.unknown_key, &[("name", name)]),
            Self::UnknownRequest => text.unknown_request.clone(),
            Self::UnknownUpstream { name } => fill(&text.unknown_upstream, &[("name", name)]),
        }
    }
}

impl ReasonWords for AlertTestResult {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.action;
        match self {
            Self::Accepted { channel, origin } => {
                fill(&text.accepted, &[("channel", channel), ("origin", origin)])
            }
            Self::Failed { channel, problem } => {
                fill(&text.failed, &[("name", channel), ("problem", problem)])
            }
            Self::Shown { program } => fill(&text.shown, &[("program", program)]),
        }
    }
}
