//! The contents of cells that several lists share.

use crate::{
    base::sanitize::{clean, truncate_middle},
    tui::{
        format::{self, UNKNOWN},
        theme::ThemeRole,
        widgets::canvas::{StyledSpan, span},
    },
};

/// A name, cut in the middle if it is too long; an empty name is unknown.
pub(super) fn name(name: &str, max_width: usize) -> Vec<StyledSpan> {
    if name.is_empty() {
        return unknown();
    }
    vec![span(truncate_middle(&clean(name), max_width), ThemeRole::Text)]
}

/// A number; zero is dimmed.
pub(super) fn number(n: u64) -> Vec<StyledSpan> {
    vec![span(format::count(n), if n == 0 { ThemeRole::Dim } else { ThemeRole::Text })]
}

/// A measured duration in milliseconds.
pub(super) fn duration(ms: Option<u32>) -> Vec<StyledSpan> {
    optional(ms.map(|ms| format::duration(u64::from(ms))))
}

/// A text that may be unknown.
pub(super) fn optional(text: Option<String>) -> Vec<StyledSpan> {
    text.map_or_else(unknown, |text| vec![span(text, ThemeRole::Text)])
}

pub(super) fn unknown() -> Vec<StyledSpan> {
    vec![span(UNKNOWN, ThemeRole::Dim)]
}
