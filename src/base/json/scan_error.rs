//! Why a request body is refused, and at which position.

use std::fmt;

/// Why a body is refused, and at which position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanError {
    pub kind: ScanErrorKind,
    /// Counts from 1; 0 if there is no position.
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanErrorKind {
    Duplicate(&'static str),
    Empty,
    /// The type that the root has instead.
    NotAnObject(&'static str),
    NotUtf8,
    /// The parser's message, without the position.
    Syntax(String),
    WrongType {
        field: &'static str,
        expected: &'static str,
        got: &'static str,
    },
}

impl ScanError {
    /// Returns the invalid field, if the error concerns one.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match &self.kind {
            ScanErrorKind::Duplicate(field) | ScanErrorKind::WrongType { field, .. } => Some(field),
            ScanErrorKind::Empty
            | ScanErrorKind::NotAnObject(_)
            | ScanErrorKind::NotUtf8
            | ScanErrorKind::Syntax(_) => None,
        }
    }

    /// Returns the message for the client.
    #[must_use]
    pub fn message(&self) -> String {
        let Self { line, column, .. } = self;
        match &self.kind {
            ScanErrorKind::Duplicate(field) => {
                format!("`{field}` stands twice in the body (line {line} column {column})")
            }
            ScanErrorKind::Empty => "the request body is empty; expected a JSON object".to_owned(),
            ScanErrorKind::NotAnObject(what) => format!("expected a JSON object, got {what}"),
            ScanErrorKind::NotUtf8 => {
                format!("invalid JSON at line {line} column {column}: not UTF-8")
            }
            ScanErrorKind::Syntax(what) => {
                format!("invalid JSON at line {line} column {column}: {what}")
            }
            ScanErrorKind::WrongType { field, expected, got } => {
                format!("`{field}`: expected {expected}, got {got}")
            }
        }
    }
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for ScanError {}

pub(super) fn syntax_error(e: &serde_json::Error) -> ScanError {
    let text = e.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    ScanError { kind: ScanErrorKind::Syntax(what.to_owned()), line: e.line(), column: e.column() }
}

pub(super) fn error_at(kind: ScanErrorKind, body: &[u8], offset: usize) -> ScanError {
    let before = &body[..offset.min(body.len())];
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    let column = offset - before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1) + 1;
    ScanError { kind, line, column }
}
