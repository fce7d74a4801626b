//! The screens that the user can open, with their names and digit keys.

use crate::tui::strings::Texts;

/// The screens that the user can open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    Live,
    Upstreams,
    Keys,
    Models,
    Usage,
    Log,
    Config,
}

impl Screen {
    /// In the order of the tabs.
    pub const ALL: [Self; 7] = [
        Self::Live,
        Self::Upstreams,
        Self::Keys,
        Self::Models,
        Self::Usage,
        Self::Log,
        Self::Config,
    ];

    /// The name used in commands.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Config => "Config",
            Self::Keys => "Keys",
            Self::Live => "Live",
            Self::Log => "Log",
            Self::Models => "Models",
            Self::Upstreams => "Upstreams",
            Self::Usage => "Usage",
        }
    }

    /// The name shown to the user.
    #[must_use]
    pub fn label(self, text: &Texts) -> &str {
        let text = &text.screen;
        match self {
            Self::Config => &text.config,
            Self::Keys => &text.keys,
            Self::Live => &text.live,
            Self::Log => &text.log,
            Self::Models => &text.models,
            Self::Upstreams => &text.upstreams,
            Self::Usage => &text.usage,
        }
    }

    /// The screen with this title, ignoring case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|screen| screen.title().eq_ignore_ascii_case(name))
    }

    pub(super) fn index(self) -> usize {
        Self::ALL.iter().position(|screen| *screen == self).unwrap_or(0)
    }

    /// The digit key that opens the screen.
    pub(super) fn digit(self) -> usize {
        self.index() + 1
    }

    pub(super) fn cycled(self, steps: usize) -> Self {
        Self::ALL[(self.index() + steps) % Self::ALL.len()]
    }
}
