//! What the dashboard wants done outside of itself.

use crate::control::action::Action;

/// One wish; the loop carries it out and answers with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Act(Action),
    /// Into the clipboard of the terminal.
    Copy(String),
    FetchSnapshot,
    Leave {
        stop_proxy: bool,
    },
}
