//! The file of another program: its text, its lines, and its content as a tree.

use std::path::{Path, PathBuf};

use jsonc_parser::{CollectOptions, ParseOptions, errors::ParseErrorKind};
use serde_json::{Map, Value};

use crate::cli::{
    error::CliError,
    tools::import::{draft::Draft, facts},
};

/// Maximum size; exports of many channels are larger than configs.
const MAX_BYTES: u64 = 16 << 20;
/// Maximum depth of brackets.
const MAX_DEPTH: usize = 64;
const BOM: char = '\u{feff}';

/// A file as it was read.
pub(super) struct ImportSource {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// The content of a file.
pub(super) enum Content {
    Tree(Value),
    /// Assignments of an env file, in their order.
    Env(Vec<(String, String)>),
}

impl ImportSource {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// It is missing, a folder, too large, or no text.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let failed = |text: &str| CliError::failed(format!("{}: {text}", path.display()));
        let found = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => failed("no such file"),
            _ => failed(&error.to_string()),
        })?;
        if found.is_dir() {
            return Err(failed("a folder, not a file"));
        }
        if found.len() > MAX_BYTES {
            return Err(failed("larger than 16MiB"));
        }
        let bytes = std::fs::read(path).map_err(|error| failed(&error.to_string()))?;
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(Self {
                path: path.to_owned(),
                text: text.strip_prefix(BOM).map(str::to_owned).unwrap_or(text),
            }),
            _ => Err(failed("not a text file").hint(facts::readable_hint())),
        }
    }

    /// Parses the content as JSON with comments, as an env file or as YAML, whichever it is.
    ///
    /// # Errors
    ///
    /// A syntax error, with its line. It quotes nothing, because the line may contain a key.
    pub(super) fn parse(&self) -> Result<Content, CliError> {
        if is_too_deep(&self.text) {
            return Err(self.error_at(1, "nested too deeply"));
        }
        let begin = self.text.trim_start();
        if begin.starts_with(['{', '[']) || begin.starts_with("//") || begin.starts_with("/*") {
            return self.parse_json().map(Content::Tree);
        }
        if let Some(assignments) = parse_env(&self.text) {
            return Ok(Content::Env(assignments));
        }
        self.parse_yaml().map(Content::Tree)
    }

    fn parse_json(&self) -> Result<Value, CliError> {
        let parsed = jsonc_parser::parse_to_ast(
            &self.text,
            &CollectOptions::default(),
            &ParseOptions::default(),
        );
        let tree = parsed.map_err(|error| {
            let unclosed = matches!(
                error.kind(),
                ParseErrorKind::UnterminatedArray
                    | ParseErrorKind::UnterminatedObject
                    | ParseErrorKind::UnterminatedCommentBlock
            );
            let line = if unclosed { self.text.lines().count() } else { error.line_display() };
            self.error_at(line, &format!("not valid JSON: {}", error.kind()))
        })?;
        Ok(tree.value.map_or(Value::Null, Value::from))
    }

    fn parse_yaml(&self) -> Result<Value, CliError> {
        serde_saphyr::from_str(&self.text).map_err(|error| {
            let last = self.text.lines().count();
            let line = error.location().and_then(|at| usize::try_from(at.line()).ok());
            let line = line.filter(|line| (1..=last).contains(line)).unwrap_or(last);
            self.error_at(line, "not valid YAML")
        })
    }

    /// Returns the first line that contains the word, comments excepted; 0 if none does.
    pub(super) fn line_of(&self, word: &str) -> usize {
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        let contains = |line: &str| {
            line.match_indices(word).any(|(at, found)| {
                !line[..at].ends_with(is_part) && !line[at + found.len()..].starts_with(is_part)
            })
        };
        let is_comment = |line: &str| line.starts_with('#') || line.starts_with("//");
        let mut lines = self.text.lines().map(str::trim_start);
        lines.position(|line| !is_comment(line) && contains(line)).map_or(0, |at| at + 1)
    }

    /// Builds the error that the file cannot be read, at a line.
    pub(super) fn error_at(&self, line: usize, message: &str) -> CliError {
        CliError::config(format!("{}:{}: {message}", self.path.display(), line.max(1)))
            .hint("nothing was changed")
    }
}

/// Whether brackets are nested deeper than a config needs.
fn is_too_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MAX_DEPTH
    })
}

/// Parses the lines `NAME=VALUE`; `None` if there are others.
fn parse_env(text: &str) -> Option<Vec<(String, String)>> {
    let mut out = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let (name, value) = line.split_once('=')?;
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if name.is_empty() || !is_name {
            return None;
        }
        out.push((name.to_owned(), unquote(value.trim())));
    }
    (!out.is_empty()).then_some(out)
}

/// Removes quotes, or the comment behind a value without quotes.
fn unquote(value: &str) -> String {
    for quote in ['"', '\''] {
        if let Some((inner, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote))
        {
            return inner.to_owned();
        }
    }
    value.split(" #").next().unwrap_or_default().trim_end().to_owned()
}

/// The keys of one table; those that no reader takes have no equal.
pub(super) struct Fields {
    map: Map<String, Value>,
    path: String,
}

impl Fields {
    /// The fields of a value; none if it is no table.
    pub(super) fn new(value: Value, path: &str) -> Self {
        let map = match value {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        Self { map, path: path.to_owned() }
    }

    /// Takes a value; nothing for null.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// Takes a text or number as text; nothing if it is empty.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.take(key).as_ref().and_then(text_of)
    }

    pub(super) fn number(&mut self, key: &str) -> Option<f64> {
        self.text(key).and_then(|text| text.parse().ok()).filter(|number: &f64| number.is_finite())
    }

    /// Takes a number that counts something.
    pub(super) fn count(&mut self, key: &str) -> Option<u64> {
        self.text(key).and_then(|text| text.parse().ok())
    }

    /// Takes a list of texts: a list, or one text with commas or line ends.
    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        self.take(key).map(|value| texts_of(&value)).unwrap_or_default()
    }

    /// Takes the rows of a list.
    pub(super) fn rows(&mut self, key: &str) -> Vec<Value> {
        match self.take(key) {
            Some(Value::Array(rows)) => rows,
            Some(row @ Value::Object(_)) => vec![row],
            _ => Vec::new(),
        }
    }

    /// Takes a table.
    pub(super) fn table(&mut self, key: &str) -> Self {
        let path = self.path_of(key);
        Self::new(self.take(key).unwrap_or_default(), &path)
    }

    /// Takes a table of texts; also one that is written as JSON in a text.
    pub(super) fn text_map(&mut self, key: &str) -> Vec<(String, String)> {
        let value = match self.take(key) {
            Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or_default(),
            Some(value) => value,
            None => return Vec::new(),
        };
        let Value::Object(map) = value else { return Vec::new() };
        map.into_iter().filter_map(|(name, value)| Some((name, text_of(&value)?))).collect()
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports the keys that were not taken and say something.
    pub(super) fn finish(self, source: &ImportSource, draft: &mut Draft) {
        for (key, value) in &self.map {
            let is_silent = match value {
                Value::Null | Value::Bool(false) => true,
                Value::String(text) => text.is_empty() || text == "{}" || text == "[]",
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                Value::Number(number) => number.as_f64() == Some(0.0),
                Value::Bool(true) => false,
            };
            if is_silent || facts::is_ignored(key) {
                continue;
            }
            let name = self.path_of(key);
            if !draft.unequal.iter().any(|known| known.name == name) {
                draft.lose(name, facts::reason(key), source.line_of(key));
            }
        }
    }
}

/// Returns a text, number or truth value as text; nothing if it is empty.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Returns the texts of a list, or those that commas and line ends separate.
pub(super) fn texts_of(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().filter_map(text_of).collect(),
        value => {
            let text = text_of(value).unwrap_or_default();
            let words = text.split([',', '\n']).map(str::trim).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> ImportSource {
        ImportSource { path: "old.yaml".into(), text: text.to_owned() }
    }

    #[test]
    fn each_kind_of_file_is_recognised() {
        let tree = |text: &str| matches!(source(text).parse(), Ok(Content::Tree(_)));
        assert!(tree("{\n // a comment\n \"a\": [1,],}"));
        assert!(tree("a:\n  - b: 1\n"));
        let Ok(Content::Env(env)) =
            source("# c\nexport A='x y' # z\nB=\"q\"\nC=plain # note\n").parse()
        else {
            panic!("an env file");
        };
        let values: Vec<_> = env.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["x y", "q", "plain"]);
    }

    #[test]
    fn errors_name_the_line_and_quote_nothing() {
        for (text, line) in [
            ("{\n\"a\": [\n1,\n", 3),
            ("a:\n  b: \"sk-secret\n  c: d: e\n", 2),
            ("{\"a\": sk-secret}", 1),
        ] {
            let Err(error) = source(text).parse() else { panic!("{text}") };
            assert!(error.text.contains(&format!("old.yaml:{line}")), "{}", error.text);
            assert!(!error.text.contains("secret"), "{}", error.text);
        }
        assert!(source(&"[".repeat(100_000)).parse().is_err());
        assert!(source(&"- ".repeat(5_000)).parse().is_err());
    }

    #[test]
    fn line_is_found_by_a_complete_word() {
        let found = source("# port\nexport: 1\nport: 2\n");
        assert_eq!((found.line_of("port"), found.line_of("none")), (3, 0));
    }
}
