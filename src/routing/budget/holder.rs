//! Names the scopes that a budget can apply to.

use std::sync::Arc;

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
}
