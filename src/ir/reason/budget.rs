//! Why a budget denies an attempt.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    base::money::NanoUsd,
    ir::{cost::Period, reason::span::Span},
};

/// The scope that a budget applies to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// All projects together.
    All,
    Project(Arc<str>),
    Upstream(Arc<str>),
    /// `upstream/label`
    Key(Arc<str>),
}

/// The budget that denies an attempt, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BudgetBlock {
    /// Attempts in flight may use up the rest.
    Reserved { holder: Holder, limit: NanoUsd, per: Period },
    /// The budget is spent.
    Spent {
        holder: Holder,
        spent: NanoUsd,
        limit: NanoUsd,
        per: Period,
        /// When the budget's period ends; `None` if it never ends.
        #[serde(rename = "again_in_ms")]
        again_in: Option<Span>,
    },
    /// The budget denies attempts of unknown price. `model` is `upstream/model`.
    Unpriced { holder: Holder, model: Arc<str> },
}

impl BudgetBlock {
    #[must_use]
    pub fn holder(&self) -> &Holder {
        match self {
            Self::Reserved { holder, .. }
            | Self::Spent { holder, .. }
            | Self::Unpriced { holder, .. } => holder,
        }
    }

    /// Whether the block applies to every candidate: the budget of the project or of all projects.
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.holder().refuses()
    }

    /// Returns when the budget's period ends, if that is known and ends the block.
    #[must_use]
    pub fn again_in(&self) -> Option<Span> {
        match self {
            Self::Spent { again_in, .. } => *again_in,
            Self::Reserved { .. } | Self::Unpriced { .. } => None,
        }
    }

    /// Returns the sentence without the end of the block.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Reserved { holder, limit, per } => {
                format!(
                    "requests under way may use up the rest of the {} {} of {}",
                    limit.format_short(),
                    describe_period(*per),
                    holder.description()
                )
            }
            Self::Spent { holder, spent, limit, per, .. } => {
                format!(
                    "{} has spent {} of its {} {}",
                    holder.description(),
                    spent.format_short(),
                    limit.format_short(),
                    describe_period(*per)
                )
            }
            Self::Unpriced { holder, model } => {
                format!(
                    "the price of `{model}` is unknown, and the budget of {} refuses models \
                     without a price",
                    holder.description()
                )
            }
        }
    }
}

impl fmt::Display for BudgetBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())?;
        self.again_in().map_or(Ok(()), |span| write!(f, "; again in {span}"))
    }
}

/// `a day`, as in `$5 a day`.
#[must_use]
pub fn describe_period(per: Period) -> &'static str {
    match per {
        Period::Day => "a day",
        Period::Week => "a week",
        Period::Month => "a month",
        Period::Total => "in total",
    }
}

impl Holder {
    /// Returns the text form, such as `project ide`; [`Holder::parse`] reads it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Project(name) => format!("project {name}"),
            Self::Upstream(name) => format!("upstream {name}"),
            Self::Key(name) => format!("key {name}"),
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            None if text == "all" => Some(Self::All),
            Some(("project", name)) => Some(Self::Project(name.into())),
            Some(("upstream", name)) => Some(Self::Upstream(name.into())),
            Some(("key", name)) => Some(Self::Key(name.into())),
            _ => None,
        }
    }

    /// Returns whether aiproxy refuses requests beyond this budget. Otherwise other candidates
    /// serve them.
    #[must_use]
    pub fn refuses(&self) -> bool {
        matches!(self, Self::All | Self::Project(_))
    }

    /// Returns the holder as the subject of a sentence.
    #[must_use]
    pub fn description(&self) -> String {
        match self {
            Self::All => "the whole proxy".to_owned(),
            Self::Project(name) => format!("project `{name}`"),
            Self::Upstream(name) => format!("upstream `{name}`"),
            Self::Key(name) => format!("key `{name}`"),
        }
    }
}

impl Serialize for Holder {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Holder {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not the holder of a budget"))
    }
}
