//! Levels of log messages, least severe first.

/// The names, as in RFC 5424.
pub const LEVELS: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// Returns the position of a level.
#[must_use]
pub fn parse(name: &str) -> Option<usize> {
    LEVELS.iter().position(|level| *level == name)
}
