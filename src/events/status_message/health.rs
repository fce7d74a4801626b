//! Changes of the health of keys and upstreams.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::ir::reason::{failure::FailureReason, span::Span, text_field::Reason};

/// What changed for a key or an upstream. `name` is `upstream/label` or the upstream's name;
/// `model` is given if the change is about this model only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HealthMessage {
    /// A probe succeeded during a cooldown.
    AnswersProbe { name: Arc<str> },
    /// A user cooled it for this long.
    CooledByUser {
        name: Arc<str>,
        #[serde(rename = "cooling_ms")]
        span: Span,
    },
    /// Failures cool it for this long.
    Cools {
        name: Arc<str>,
        /// The whole account of the key cools.
        account: bool,
        #[serde(rename = "cooling_ms")]
        span: Span,
        cause: Arc<FailureReason>,
        model: Option<Arc<str>>,
    },
    /// The provider rejected the key.
    Rejected { name: Arc<str>, cause: Arc<FailureReason>, model: Option<Arc<str>> },
    /// A message that is only known as a text.
    Text { text: Arc<str> },
    /// A user ended the cooldown of one key or upstream, or of all if there is no name.
    Warmed { name: Option<Arc<str>> },
    /// A request or a check succeeded after a cooldown.
    Works { name: Arc<str>, account: bool, model: Option<Arc<str>> },
}

impl HealthMessage {
    /// The key or upstream that the message is about.
    #[must_use]
    pub fn subject(&self) -> Arc<str> {
        match self {
            Self::AnswersProbe { name }
            | Self::CooledByUser { name, .. }
            | Self::Cools { name, .. }
            | Self::Rejected { name, .. }
            | Self::Warmed { name: Some(name) }
            | Self::Works { name, .. } => Arc::clone(name),
            Self::Text { .. } => "".into(),
            Self::Warmed { name: None } => "all keys".into(),
        }
    }

    /// The model to name after the cause. A cause that names the model needs no second mention.
    #[must_use]
    pub fn model_to_name<'m>(
        cause: &FailureReason,
        model: &'m Option<Arc<str>>,
    ) -> Option<&'m Arc<str>> {
        model.as_ref().filter(|model| !cause.names_model(model))
    }

    /// Returns the message with its texts passed through `clean`, which redacts them.
    #[must_use]
    pub fn map_texts(mut self, clean: &dyn Fn(&str) -> Arc<str>) -> Self {
        match &mut self {
            Self::Cools { cause, model, .. } | Self::Rejected { cause, model, .. } => {
                *cause = Arc::new(cause.map_texts(clean));
                model.iter_mut().for_each(|model| *model = clean(model));
            }
            Self::Works { model: Some(model), .. } => *model = clean(model),
            Self::Text { text } => *text = clean(text),
            Self::AnswersProbe { .. }
            | Self::CooledByUser { .. }
            | Self::Warmed { .. }
            | Self::Works { model: None, .. } => {}
        }
        self
    }
}

impl Reason for HealthMessage {
    fn from_text(text: Arc<str>) -> Self {
        Self::Text { text }
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

impl fmt::Display for HealthMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account_words = |account: bool| if account { "its account " } else { "" };
        let write_model = |f: &mut fmt::Formatter<'_>, model: Option<&Arc<str>>| {
            model.map_or(Ok(()), |model| write!(f, " for {model}"))
        };
        match self {
            Self::AnswersProbe { name } => {
                write!(f, "{name} answers its probe: the next request tests it")
            }
            Self::CooledByUser { name, span } => write!(f, "{name} is cooling for {span}"),
            Self::Cools { name, account, span, cause, model } => {
                write!(f, "{name} {}cools for {span}: {cause}", account_words(*account))?;
                write_model(f, Self::model_to_name(cause, model))
            }
            Self::Rejected { name, cause, model } => {
                write!(f, "{name} was rejected and is not used until its secret changes: {cause}")?;
                write_model(f, Self::model_to_name(cause, model))
            }
            Self::Text { text } => f.write_str(text),
            Self::Warmed { name: None } => f.write_str("all keys are no longer cooling"),
            Self::Warmed { name: Some(name) } => write!(f, "{name} is no longer cooling"),
            Self::Works { name, account, model } => {
                write!(f, "{name} {}works again", account_words(*account))?;
                write_model(f, model.as_ref())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_is_not_repeated_after_a_cause_that_names_it() {
        let refused = |code: Option<&str>| {
            Arc::new(FailureReason::Refused {
                status: 429,
                code: code.map(Into::into),
                model: Some("m".into()),
            })
        };
        let with_message = FailureReason::RefusedWith {
            cause: refused(None),
            message: "slow down".into(),
            cooling: None,
        };
        for (cause, want) in [
            (refused(None), "a cools for 3s: 429 for m"),
            (refused(Some("rate")), "a cools for 3s: 429 rate for m"),
            (with_message.into(), "a cools for 3s: 429 for m: slow down"),
        ] {
            let cools = HealthMessage::Cools {
                name: "a".into(),
                account: false,
                span: Span(std::time::Duration::from_secs(3)),
                cause,
                model: Some("m".into()),
            };
            assert_eq!(cools.to_string(), want);
        }
    }
}
