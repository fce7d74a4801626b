//! What commands print: stdout that survives a closed pipe, notes on stderr, colour where it is
//! wanted.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::exit::{CliError, Exit};

/// Writes to stdout as it is.
///
/// # Errors
///
/// A reader that went away (`aiproxy log | head -1`) has what it wanted: the command ends quietly,
/// and well. A full disk is told.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::quiet(Exit::Ok),
        _ => CliError::failed(format!("standard output: {error}")),
    })
}

/// Writes one line to stdout.
///
/// # Errors
///
/// As [`print()`].
pub fn line(text: &str) -> Result<(), CliError> {
    print(&format!("{text}\n"))
}

/// Writes a value as indented JSON.
///
/// # Errors
///
/// As [`print()`].
pub fn json(value: &impl Serialize) -> Result<(), CliError> {
    line(&serde_json::to_string_pretty(value).map_err(|e| CliError::failed(format!("JSON: {e}")))?)
}

/// Writes a value as one line of JSON.
///
/// # Errors
///
/// As [`print()`].
pub fn json_line(value: &impl Serialize) -> Result<(), CliError> {
    line(&serde_json::to_string(value).map_err(|e| CliError::failed(format!("JSON: {e}")))?)
}

/// Says something beside the result: a warning, a step of long work.
pub fn note(text: &str) {
    // Where even stderr is gone there is nobody to tell.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Whether a person sees stderr; progress is only written then.
#[must_use]
pub fn watched() -> bool {
    io::stderr().is_terminal()
}

/// Paints words by what they mean. Colour is never the only sign.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// For stdout: NO_COLOR, `TERM=dumb` and redirection turn it off.
    #[must_use]
    pub fn stdout() -> Self {
        Self { on: colour_wanted() && io::stdout().is_terminal() }
    }

    /// For stderr.
    #[must_use]
    pub fn stderr() -> Self {
        Self { on: colour_wanted() && io::stderr().is_terminal() }
    }

    #[must_use]
    pub fn none() -> Self {
        Self { on: false }
    }

    #[must_use]
    pub fn is_on(self) -> bool {
        self.on
    }

    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.paint(Role::Strong, text)
    }

    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.paint(Role::Dim, text)
    }

    #[must_use]
    pub fn paint(self, role: Role, text: &str) -> String {
        let code = match role {
            Role::Plain => return text.to_owned(),
            Role::Bad => "31",
            Role::Dim => "2",
            Role::Good => "32",
            Role::Strong => "1",
            Role::Warn => "33",
        };
        if self.on && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// What a word means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    Bad,
    Dim,
    Good,
    #[default]
    Plain,
    Strong,
    Warn,
}

/// Whether the environment lets us use colour.
#[must_use]
pub fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|v| v != "dumb")
}
