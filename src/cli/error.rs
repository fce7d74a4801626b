//! The exit code of a command and, for a failure, its message and hint.

use std::{fmt, io};

use crate::control::client::ControlError;

/// Exit codes, as documented in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Ok,
    Failed,
    Usage,
    Config,
    Unreachable,
    /// The exit code of a program that the command ran.
    Program(u8),
}

impl ExitStatus {
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Config => 3,
            Self::Unreachable => 4,
            Self::Program(code) => code,
        }
    }
}

/// Why a command failed: the error and a hint.
#[derive(Debug)]
pub struct CliError {
    pub exit: ExitStatus,
    /// Empty if there is nothing to print: a closed pipe, Ctrl-C, or problems that were already
    /// printed.
    pub text: String,
    pub hint: Option<String>,
}

impl CliError {
    fn new(exit: ExitStatus, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), hint: None }
    }

    #[must_use]
    pub fn failed(text: impl Into<String>) -> Self {
        Self::new(ExitStatus::Failed, text)
    }

    #[must_use]
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(ExitStatus::Usage, text)
    }

    #[must_use]
    pub fn config(text: impl Into<String>) -> Self {
        Self::new(ExitStatus::Config, text)
    }

    #[must_use]
    pub fn unreachable(text: impl Into<String>) -> Self {
        Self::new(ExitStatus::Unreachable, text)
    }

    /// An error whose message was already printed.
    #[must_use]
    pub fn quiet(exit: ExitStatus) -> Self {
        Self::new(exit, "")
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CliError {}

impl From<ControlError> for CliError {
    fn from(error: ControlError) -> Self {
        let exit = match &error {
            ControlError::NotReachable { .. } | ControlError::NotAiproxy => ExitStatus::Unreachable,
            ControlError::Broken | ControlError::Refused(..) => ExitStatus::Failed,
        };
        Self { hint: error.hint().map(str::to_owned), ..Self::new(exit, error.to_string()) }
    }
}

/// An error about a file or folder.
pub(super) fn path_error(path: &std::path::Path, error: &io::Error) -> CliError {
    CliError::failed(format!("{}: {error}", path.display()))
}
