//! One line of the report.

use serde::Serialize;

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckState {
    Ok,
    Warn,
    Fail,
}

/// What one check found. No text contains a key.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    /// The kind of check, one word.
    pub(super) check: &'static str,
    /// What was checked: an upstream, a key, a file, an address; may be empty.
    pub(super) subject: String,
    pub(super) state: CheckState,
    pub(super) text: String,
    /// What to do, as a command if possible.
    pub(super) fix: Option<String>,
}

impl Check {
    pub(super) fn ok(
        check: &'static str,
        subject: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        let (subject, text) = (subject.into(), text.into());
        Self { check, subject, state: CheckState::Ok, text, fix: None }
    }

    pub(super) fn warn(
        check: &'static str,
        subject: impl Into<String>,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let fix = Some(fix.into());
        Self { state: CheckState::Warn, fix, ..Self::ok(check, subject, text) }
    }

    pub(super) fn fail(
        check: &'static str,
        subject: impl Into<String>,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { state: CheckState::Fail, ..Self::warn(check, subject, text, fix) }
    }
}
