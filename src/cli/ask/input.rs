//! Reads the question: its text, standard input and files.

use std::{
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::cli::{
    ask::media::{self, FileContent},
    error::{self, CliError},
    output,
};

/// Upper bound for each file and for standard input.
const MAX_INPUT_BYTES: u64 = 32 << 20;
/// After this time the command reports that it waits for the end of standard input.
const STDIN_NOTE_DELAY: Duration = Duration::from_secs(3);
/// The file that stands for standard input, and its name in the question.
const STDIN_FILE: &str = "-";
const STDIN_NAME: &str = "standard input";

/// Where the question comes from.
#[derive(Debug)]
pub(super) struct QuestionSource<'a> {
    pub(super) text: Option<String>,
    /// Reads standard input even if it is not a pipe or a file.
    pub(super) stdin: bool,
    pub(super) files: &'a [PathBuf],
}

impl QuestionSource<'_> {
    /// Returns whether there is anything to read besides a text.
    pub(super) fn has_input(&self) -> bool {
        self.stdin || !self.files.is_empty() || !io::stdin().is_terminal()
    }

    /// Reads everything and returns the content of the user message: text, or a list of parts if
    /// there are images, sounds or documents. `None` if it is empty.
    ///
    /// # Errors
    ///
    /// A file cannot be read, is too large, or contains nothing that a model can read.
    pub(super) async fn read(self) -> Result<Option<Value>, CliError> {
        let mut parts = Vec::new();
        let mut stdin_was_read = false;
        for (path, name) in self.files.iter().zip(display_names(self.files)) {
            if path.as_os_str() == STDIN_FILE {
                stdin_was_read = true;
                parts.push(read_part(STDIN_NAME, STDIN_NAME, &read_stdin().await?)?);
            } else {
                let bytes = read_file(path).await?;
                parts.push(read_part(&path.display().to_string(), &name, &bytes)?);
            }
        }
        let is_context = self.text.is_some() || !self.files.is_empty();
        let is_wanted = if is_context { stdin_is_piped() } else { !io::stdin().is_terminal() };
        if (self.stdin || is_wanted) && !stdin_was_read {
            let bytes = read_stdin().await?;
            match media::recognize(&bytes) {
                FileContent::Text(text) if text.trim().is_empty() => {}
                FileContent::Text(text) if !is_context => parts.push(QuestionPart::Text(text)),
                _ => parts.push(read_part(STDIN_NAME, STDIN_NAME, &bytes)?),
            }
        }
        // Context comes first: the provider's prompt cache then serves the next question about the
        // same files.
        parts.extend(self.text.filter(|text| !text.trim().is_empty()).map(QuestionPart::Text));
        Ok(message_content(parts))
    }
}

/// Returns whether standard input is a pipe or a file. A socket does not count: programs that start
/// others often leave one open and write nothing to it.
#[cfg(unix)]
fn stdin_is_piped() -> bool {
    use rustix::fs::FileType;
    rustix::fs::fstat(io::stdin()).is_ok_and(|stat| {
        matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::RegularFile)
    })
}

#[cfg(not(unix))]
fn stdin_is_piped() -> bool {
    false
}

/// One part of the question.
#[derive(Clone, Debug, PartialEq)]
enum QuestionPart {
    /// An image, a sound or a document, as a part of an OpenAI chat message, after its name.
    Media {
        name: String,
        part: Value,
    },
    Text(String),
}

/// The file names without their folders, which may name the user; with them if two files have the
/// same name.
fn display_names(files: &[PathBuf]) -> Vec<String> {
    let short =
        |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let names: Vec<String> = files.iter().map(|path| short(path)).collect();
    let is_repeated = |name: &String| names.iter().filter(|other| *other == name).count() > 1;
    let name_of = |(path, name): (&PathBuf, &String)| {
        if is_repeated(name) { path.display().to_string() } else { name.clone() }
    };
    files.iter().zip(&names).map(name_of).collect()
}

/// Turns the bytes of a file into a part; `path` names it in an error, `name` in the question.
fn read_part(path: &str, name: &str, bytes: &[u8]) -> Result<QuestionPart, CliError> {
    let data_url = |mime: &str| format!("data:{mime};base64,{}", STANDARD.encode(bytes));
    let part = match media::recognize(bytes) {
        FileContent::Text(text) => return Ok(QuestionPart::Text(quote_file(name, &text))),
        FileContent::Image(mime) => {
            json!({ "type": "image_url", "image_url": { "url": data_url(mime) } })
        }
        FileContent::Audio(format) => json!({
            "type": "input_audio",
            "input_audio": { "data": STANDARD.encode(bytes), "format": format },
        }),
        FileContent::Pdf => json!({
            "type": "file",
            "file": { "filename": name, "file_data": data_url("application/pdf") },
        }),
        FileContent::Unknown => {
            let text = format!("{path}: contains neither text, an image, a sound nor a PDF");
            return Err(CliError::failed(text));
        }
    };
    Ok(QuestionPart::Media { name: name.to_owned(), part })
}

/// Writes a file's text between fences that it does not contain.
fn quote_file(name: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    format!("{name}:\n{fence}\n{text}{end}{fence}")
}

/// Joins the parts. Texts without media are one text, which every provider accepts.
fn message_content(parts: Vec<QuestionPart>) -> Option<Value> {
    if parts.iter().all(|part| matches!(part, QuestionPart::Text(text) if text.trim().is_empty())) {
        return None;
    }
    let has_media = parts.iter().any(|part| matches!(part, QuestionPart::Media { .. }));
    let mut content: Vec<Value> = Vec::new();
    let mut text = String::new();
    for part in parts {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        match part {
            QuestionPart::Text(part) => text.push_str(&part),
            QuestionPart::Media { name, part } => {
                text.push_str(&format!("{name}:"));
                content.push(json!({ "type": "text", "text": std::mem::take(&mut text) }));
                content.push(part);
            }
        }
    }
    if !has_media {
        return Some(Value::String(text));
    }
    if !text.is_empty() {
        content.push(json!({ "type": "text", "text": text }));
    }
    Some(Value::Array(content))
}

async fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    let owned = path.to_owned();
    let read =
        tokio::task::spawn_blocking(move || std::fs::File::open(owned).and_then(read_limited));
    let bytes = read.await.unwrap_or_else(|e| Err(io::Error::other(e)));
    let bytes = bytes.map_err(|error| error::path_error(path, &error))?;
    check_size(&path.display().to_string(), bytes)
}

async fn read_stdin() -> Result<Vec<u8>, CliError> {
    let mut read = tokio::task::spawn_blocking(|| read_limited(io::stdin().lock()));
    let is_terminal = io::stdin().is_terminal();
    let bytes = tokio::select! {
        bytes = &mut read => bytes,
        () = tokio::time::sleep(STDIN_NOTE_DELAY), if !is_terminal => {
            output::print_note(
                "note: waiting for the end of standard input; `</dev/null` leaves it out",
            );
            read.await
        }
    };
    let bytes = bytes.unwrap_or_else(|e| Err(io::Error::other(e)));
    let bytes = bytes.map_err(|error| CliError::failed(format!("{STDIN_NAME}: {error}")))?;
    check_size(STDIN_NAME, bytes)
}

/// Reads one byte more than allowed, so that a longer input can be distinguished.
fn read_limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_size(name: &str, bytes: Vec<u8>) -> Result<Vec<u8>, CliError> {
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_INPUT_BYTES) {
        return Ok(bytes);
    }
    let limit = crate::base::units::print_size(MAX_INPUT_BYTES);
    Err(CliError::failed(format!("{name}: more than {limit}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_content_cannot_close_its_code_fence() {
        assert_eq!(quote_file("a.rs", "x\n"), "a.rs:\n```\nx\n```");
        assert_eq!(quote_file("b.md", "````\ny"), "b.md:\n`````\n````\ny\n`````");
    }

    #[test]
    fn files_are_listed_by_base_name_unless_two_are_equal() {
        let files = ["/home/me/a/x.rs", "/home/me/b/x.rs", "/home/me/y.rs"].map(PathBuf::from);
        assert_eq!(display_names(&files), ["/home/me/a/x.rs", "/home/me/b/x.rs", "y.rs"]);
    }

    #[test]
    fn text_is_one_string_and_media_are_ordered_parts() {
        let text = |text: &str| QuestionPart::Text(text.to_owned());
        assert_eq!(message_content(vec![text("a"), text("b")]), Some(json!("a\n\nb")));
        assert_eq!(message_content(vec![text(" \n")]), None);
        assert_eq!(message_content(Vec::new()), None);

        let image = read_part("/x/p.png", "p.png", b"\x89PNG\r\n\x1a\n").unwrap();
        assert_eq!(
            message_content(vec![text("a"), image, text("b")]),
            Some(json!([
                { "type": "text", "text": "a\n\np.png:" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,iVBORw0KGgo=" } },
                { "type": "text", "text": "b" },
            ]))
        );
    }

    #[test]
    fn unsupported_media_type_is_refused_by_name() {
        let error = read_part("/x/a.out", "a.out", b"\x7fELF\0").unwrap_err();
        assert!(error.text.starts_with("/x/a.out: "), "{}", error.text);
        let pdf = read_part("/x/d.pdf", "d.pdf", b"%PDF-1.7\n\0").unwrap();
        assert!(matches!(pdf, QuestionPart::Media { part, .. }
            if part["file"]["filename"] == "d.pdf"));
    }
}
