//! Why a request goes where it goes, or what it waits for.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::ir::{
    op::Dialect,
    reason::{failure::FailureReason, skip::SkipReason, span::Span, text_field::Reason},
    repair::Repair,
};

/// Why the chosen candidate was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ChoiceReason {
    /// The conversation was served here before; the field says whether a better tier is ready.
    Affinity { better_tier_ready: bool },
    /// The best of its tier by the strategy.
    Best { tier: (u32, u32), ready_count: usize },
    /// No candidate is ready, so the least suspect one is tried.
    LeastSuspect,
    /// The only candidate that is ready.
    Only,
    /// One request is let through after a cooldown.
    Probe,
}

/// How a model name was resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NameSource {
    /// Aliases led from the requested name to the last of these names.
    Aliases {
        names: Vec<Arc<str>>,
    },
    /// An upstream accepts any name.
    AnyName,
    /// `upstream:model`
    ColonName,
    LogicalModel,
    /// The newest model that matches a pattern.
    NewestMatch,
    /// The upstream is named in the path of the request.
    Path,
    /// An upstream serves the name.
    #[default]
    ServedName,
    /// `upstream/model`
    SlashName,
}

/// Why an attempt goes to its target, or what the request waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RouteReason {
    Chosen(ChosenRoute),
    /// A concurrent attempt, because the first had sent no content for this long.
    Hedge {
        #[serde(rename = "waited_ms")]
        waited: Span,
        /// The wait is the 95th percentile of the target's latency.
        is_p95: bool,
    },
    /// The same candidate refused one part of the request, and the request was sent again without
    /// it: what the model was found to be like ("takes no temperature").
    Repaired {
        learned: Arc<Repair>,
    },
    /// Continues a response that broke off.
    Rescue {
        upstream: Arc<str>,
        characters: usize,
        cause: Arc<FailureReason>,
    },
    /// The same candidate is tried again after this pause.
    RetrySame {
        #[serde(rename = "pause_ms")]
        pause: Span,
    },
    /// A reason that is only known as a text.
    Text {
        text: Arc<str>,
    },
    /// Waits in a queue for a key.
    WaitsForKey {
        #[serde(rename = "wait_ms")]
        wait: Span,
        /// Requests that are served before it.
        ahead: usize,
    },
    /// Waits for one of the project's concurrent requests to end.
    WaitsForSlot {
        slots: u32,
        ahead: usize,
    },
    /// Waits for the result of a probe.
    WaitsForVerdict,
}

/// The choice of an ordinary attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChosenRoute {
    /// Number of the attempt, if it is not the first.
    pub attempt: Option<u32>,
    pub name: Arc<NameSource>,
    pub choice: ChoiceReason,
    /// Priority of the target.
    pub priority: u32,
    /// The upstream's dialect, if it differs from the client's.
    pub translated_to: Option<Dialect>,
    /// The candidates that rank before the chosen one or level with it.
    pub skipped: Vec<SkippedCandidate>,
    /// The number of others like them.
    pub more_skipped: usize,
}

/// A candidate that was skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkippedCandidate {
    /// `upstream/label`, or the upstream's name if it needs no key.
    pub key_name: Arc<str>,
    pub reason: SkipReason,
}

impl RouteReason {
    /// Makes a reason that is only a text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text { text: text.into() }
    }
}

impl Reason for RouteReason {
    fn from_text(text: Arc<str>) -> Self {
        Self::Text { text }
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

impl fmt::Display for NameSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aliases { names } => return f.write_str(&names.join(" → ")),
            Self::AnyName => "served by an upstream that takes any name",
            Self::ColonName => "upstream:model",
            Self::LogicalModel => "logical model",
            Self::NewestMatch => "the newest match",
            Self::Path => "named in the path",
            Self::ServedName => "served by that name",
            Self::SlashName => "upstream/model",
        })
    }
}

impl fmt::Display for RouteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen(route) => write!(f, "{route}"),
            Self::Hedge { waited, is_p95 } => {
                write!(f, "a hedge: attempt 1 had said nothing for {}", print_delay(waited.0))?;
                f.write_str(if *is_p95 { ", longer than 19 of 20 answers take" } else { "" })
            }
            Self::Repaired { learned } => write!(f, "sent again: the model {learned}"),
            Self::Rescue { upstream, characters, cause } => write!(
                f,
                "a rescue: {upstream} broke off after {characters} characters ({cause}), \
                 continued from there"
            ),
            Self::RetrySame { pause } => write!(f, "the same again in {} ms", pause.as_millis()),
            Self::Text { text } => f.write_str(text),
            Self::WaitsForKey { wait, ahead } => {
                write!(f, "waits {wait} for a key ({ahead} before it)")
            }
            Self::WaitsForSlot { slots, ahead } => {
                write!(f, "waits for one of its project's {slots} places ({ahead} before it)")
            }
            Self::WaitsForVerdict => f.write_str("waits for a verdict on the only candidate"),
        }
    }
}

impl fmt::Display for ChosenRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let priority = self.priority;
        if let Some(number) = self.attempt {
            write!(f, "try {number}: ")?;
        }
        write!(f, "{}; ", self.name)?;
        match &self.choice {
            ChoiceReason::Affinity { better_tier_ready: false } => {
                f.write_str("where its conversation was served before")?;
            }
            ChoiceReason::Affinity { better_tier_ready: true } => f.write_str(
                "where its conversation was served before, though a better tier is back",
            )?,
            ChoiceReason::Best { ready_count, .. } => {
                write!(f, "priority {priority}, one of {ready_count} ready")?;
            }
            ChoiceReason::LeastSuspect => {
                f.write_str("nothing is ready: the least suspect is tried")?;
            }
            ChoiceReason::Only => write!(f, "priority {priority}, the only candidate ready")?,
            ChoiceReason::Probe => f.write_str("let through as a probe after a cooldown")?,
        }
        if let Some(dialect) = self.translated_to {
            write!(f, "; translated to {dialect}")?;
        }
        for (at, skipped) in self.skipped.iter().enumerate() {
            f.write_str(if at == 0 { "; passed over: " } else { ", " })?;
            write!(f, "{} ({})", skipped.key_name, skipped.reason)?;
        }
        if self.more_skipped > 0 {
            write!(f, ", {} more", self.more_skipped)?;
        }
        Ok(())
    }
}

/// Prints the delay of a hedge, which may be a fraction of a second.
#[must_use]
pub fn print_delay(delay: Duration) -> String {
    if delay < Duration::from_secs(10) {
        format!("{:.2}s", delay.as_secs_f64())
    } else {
        Span(delay).to_string()
    }
}
