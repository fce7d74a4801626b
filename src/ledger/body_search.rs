//! Searches the stored bodies for text.

use std::collections::HashMap;

use memchr::memmem::Finder;
use rusqlite::Connection;

use super::bodies::read_chunk;

/// Chunks that are remembered; the turns of a conversation share most of theirs.
const MAX_REMEMBERED: usize = 4_096;

/// Finds texts in bodies, without regard to the case of ASCII letters. A chunk that several bodies
/// share is searched once.
pub(super) struct BodySearch {
    needles: Vec<Needle>,
    /// By needle and chunk.
    seen: HashMap<(usize, i64), ChunkMatch>,
}

/// One text, in the forms that JSON may have it in.
struct Needle {
    forms: Vec<Finder<'static>>,
    longest: usize,
}

/// What is known about a chunk.
#[derive(Clone)]
struct ChunkMatch {
    found: bool,
    /// The beginning and the end, as long as a needle less one byte: a text may lie across the
    /// border of two chunks.
    head: Box<[u8]>,
    tail: Box<[u8]>,
}

impl BodySearch {
    pub(super) fn new<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        Self { needles: texts.map(Needle::new).collect(), seen: HashMap::new() }
    }

    /// Returns whether the bodies of a request contain every text. A text is searched for in the
    /// request and the answer alike.
    pub(super) fn matches(
        &mut self,
        connection: &Connection,
        request: &str,
    ) -> rusqlite::Result<bool> {
        let mut query = connection.prepare_cached("SELECT chunks FROM body WHERE request = ?1")?;
        let rows = query.query_map([request], |row| row.get(0))?;
        let bodies = rows.collect::<Result<Vec<Vec<u8>>, _>>()?;
        for needle in 0..self.needles.len() {
            let mut found = false;
            for chunks in &bodies {
                found = found || self.contains(connection, needle, chunks)?;
            }
            if !found {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn contains(
        &mut self,
        connection: &Connection,
        needle: usize,
        chunks: &[u8],
    ) -> rusqlite::Result<bool> {
        let overlap = self.needles[needle].longest.saturating_sub(1);
        let mut before: Vec<u8> = Vec::new();
        for id in chunks.as_chunks().0 {
            let chunk = self.chunk(connection, needle, i64::from_be_bytes(*id))?;
            before.extend_from_slice(&chunk.head);
            if chunk.found || self.needles[needle].is_in(&before) {
                return Ok(true);
            }
            // A chunk that is shorter than the text keeps what came before it.
            if chunk.head.len() < overlap {
                before.drain(..before.len().saturating_sub(overlap));
            } else {
                before = chunk.tail.to_vec();
            }
        }
        Ok(false)
    }

    fn chunk(
        &mut self,
        connection: &Connection,
        needle: usize,
        id: i64,
    ) -> rusqlite::Result<ChunkMatch> {
        if let Some(known) = self.seen.get(&(needle, id)) {
            return Ok(known.clone());
        }
        let mut bytes = Vec::new();
        read_chunk(connection, id, &mut bytes)?;
        bytes.make_ascii_lowercase();
        let overlap = self.needles[needle].longest.saturating_sub(1).min(bytes.len());
        let found = ChunkMatch {
            found: self.needles[needle].is_in(&bytes),
            head: bytes[..overlap].into(),
            tail: bytes[bytes.len() - overlap..].into(),
        };
        if self.seen.len() >= MAX_REMEMBERED {
            self.seen.clear();
        }
        self.seen.insert((needle, id), found.clone());
        Ok(found)
    }
}

impl Needle {
    fn new(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        let mut forms = vec![text.clone().into_bytes()];
        // Some clients write every character beyond ASCII as `\u…`.
        if !text.is_ascii() {
            let escaped: String = text
                .chars()
                .map(|c| {
                    if c.is_ascii() {
                        return c.to_string();
                    }
                    let mut units = [0; 2];
                    c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
                })
                .collect();
            forms.push(escaped.into_bytes());
        }
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        Self { forms: forms.iter().map(|form| Finder::new(form).into_owned()).collect(), longest }
    }

    fn is_in(&self, text: &[u8]) -> bool {
        self.forms.iter().any(|form| form.find(text).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of these chunks, and a search for a text in it.
    fn is_found(chunks: &[&str], text: &str) -> bool {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE body (request TEXT, chunks BLOB);
                 CREATE TABLE chunk (id INTEGER PRIMARY KEY, packed INTEGER, data BLOB);",
            )
            .unwrap();
        let mut ids = Vec::new();
        for (id, chunk) in chunks.iter().enumerate() {
            let id = i64::try_from(id).unwrap();
            ids.extend_from_slice(&id.to_be_bytes());
            let row = rusqlite::params![id, chunk.as_bytes()];
            connection.execute("INSERT INTO chunk VALUES (?1, 0, ?2)", row).unwrap();
        }
        connection.execute("INSERT INTO body VALUES ('r', ?1)", [ids]).unwrap();
        BodySearch::new([text].into_iter()).matches(&connection, "r").unwrap()
    }

    #[test]
    fn text_is_found_across_chunks_and_in_its_escaped_form() {
        for (chunks, text, want) in [
            (&["one two three"][..], "Two", true),
            (&["one two", " three"], "two three", true),
            (&["one t", "w", "o three"], "two", true),
            (&["a", "b", "c", "d", "e"], "bcd", true),
            (&["a", "b", "c", "d", "e"], "bd", false),
            (&["K\\u00f6ln"], "köln", true),
            (&["Köln"], "köln", true),
            (&["\\u00", "f6"], "ö", true),
            (&[], "x", false),
        ] {
            assert_eq!(is_found(chunks, text), want, "{chunks:?} {text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn search_agrees_with_a_search_of_the_whole_text(
            chunks in proptest::collection::vec("[ab]{0,4}", 0..8),
            text in "[ab]{1,5}",
        ) {
            let parts: Vec<&str> = chunks.iter().map(String::as_str).collect();
            assert_eq!(is_found(&parts, &text), chunks.concat().contains(&text));
        }
    }
}
