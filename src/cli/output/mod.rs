//! Prints for commands: stdout that survives a closed pipe, notes on stderr, and colour if it is
//! enabled.

pub(super) mod budget_format;
pub(super) mod facts;
pub mod table;
pub mod time_format;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::{
    base::sanitize,
    cli::error::{CliError, ExitStatus},
};

/// Writes text to stdout unchanged.
///
/// # Errors
///
/// If the reader closed the pipe (`aiproxy log | head -1`), the command ends silently with success.
/// Other errors, such as a full disk, are reported.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::quiet(ExitStatus::Ok),
        _ => CliError::failed(format!("standard output: {error}")),
    })
}

/// Writes one line to stdout.
///
/// # Errors
///
/// As [`print()`].
pub fn print_line(text: &str) -> Result<(), CliError> {
    print(&format!("{text}\n"))
}

/// Writes a value as indented JSON.
///
/// # Errors
///
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    print_line(
        &serde_json::to_string_pretty(value).map_err(|e| CliError::failed(format!("JSON: {e}")))?,
    )
}

/// Writes a value as one line of JSON.
///
/// # Errors
///
/// As [`print()`].
pub fn print_json_line(value: &impl Serialize) -> Result<(), CliError> {
    print_line(&serde_json::to_string(value).map_err(|e| CliError::failed(format!("JSON: {e}")))?)
}

/// Prints a warning or a progress step on stderr.
pub fn print_note(text: &str) {
    // If stderr is closed, there is no other place for the note.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Shows the progress of a long command on stderr, if that is a terminal. Each call replaces the text
/// of the one before, and an empty text removes it.
pub fn print_progress(text: &str) {
    if stderr_is_terminal() {
        drop(write!(io::stderr().lock(), "\r\x1b[K{}", sanitize::clean(text)));
    }
}

/// Returns whether stderr is a terminal; progress is only written to one.
#[must_use]
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Styles text by its role. Colour is never the only indication.
#[derive(Clone, Copy, Debug)]
pub struct Styler {
    enabled: bool,
}

impl Styler {
    /// For stdout. NO_COLOR, `TERM=dumb` and redirection turn colour off.
    #[must_use]
    pub fn stdout() -> Self {
        Self { enabled: color_enabled() && io::stdout().is_terminal() }
    }

    /// For stderr.
    #[must_use]
    pub fn stderr() -> Self {
        Self { enabled: color_enabled() && io::stderr().is_terminal() }
    }

    #[must_use]
    pub fn plain() -> Self {
        Self { enabled: false }
    }

    #[must_use]
    pub fn is_enabled(self) -> bool {
        self.enabled
    }

    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.style(TextRole::Strong, text)
    }

    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.style(TextRole::Dim, text)
    }

    #[must_use]
    pub fn style(self, role: TextRole, text: &str) -> String {
        let code = match role {
            TextRole::Plain => return text.to_owned(),
            TextRole::Error => "31",
            TextRole::Dim => "2",
            TextRole::Success => "32",
            TextRole::Strong => "1",
            TextRole::Warn => "33",
        };
        if self.enabled && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The role of a piece of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextRole {
    Error,
    Dim,
    Success,
    #[default]
    Plain,
    Strong,
    Warn,
}

/// Whether the environment allows colour.
#[must_use]
pub fn color_enabled() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|v| v != "dumb")
}
