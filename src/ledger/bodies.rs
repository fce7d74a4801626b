//! Stores captured bodies: redacted, split into deduplicated chunks and deflated; deletes the
//! oldest when space runs out.
//!
//! Agents send the whole conversation with every turn. A rolling hash over the last bytes decides
//! where a chunk ends, so equal text gives equal chunks at any position, even if text before it has
//! changed. Chunks already stored for the previous turn only get their reference count raised.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    base::{id::RequestId, redact::Redactor},
    events::ledger_queue::{CapturedBody, ExchangeSide},
};

/// Chunk size limits. The average is 8 KiB.
const MIN_CHUNK_BYTES: usize = 2 << 10;
const MAX_CHUNK_BYTES: usize = 64 << 10;
const BOUNDARY_MASK: u64 = 0x1FFF << 40;
/// Smaller chunks are stored uncompressed. Resetting the compressor would take longer than
/// compressing them, and the file size is bounded anyway.
const MIN_DEFLATE_BYTES: usize = 2 << 10;
/// Estimated bytes that a row takes on disk in addition to its data.
const ROW_OVERHEAD: i64 = 64;
/// Maximum number of bytes trimmed at a cut, so that no half of a key is stored.
const MAX_EDGE_TRIM: usize = 512;

/// A redacted body, ready to be written.
pub(super) struct StoredBody {
    id: RequestId,
    side: ExchangeSide,
    media: String,
    total: u64,
    head_len: usize,
    bytes: Vec<u8>,
}

impl StoredBody {
    /// Redacts secrets. Stores only the size of a body that is not UTF-8 text, because it cannot be
    /// searched for keys or shown.
    pub(super) fn redacted(body: &CapturedBody, redactor: &dyn Redactor) -> Self {
        let cut = !body.tail.is_empty();
        let (head, tail) = match (head_text(&body.head, cut), tail_text(&body.tail)) {
            (Some(head), Some(tail)) => {
                (if cut { trim_cut_end(head) } else { head }, trim_cut_start(tail))
            }
            _ => ("", ""),
        };
        let (head, tail) = (redactor.redact(head), redactor.redact(tail));
        let mut bytes = head.as_bytes().to_vec();
        bytes.extend_from_slice(tail.as_bytes());
        let media = redactor.redact(&body.content_type).chars().take(100).collect();
        Self {
            id: body.id,
            side: body.side,
            media,
            total: body.total_bytes,
            head_len: head.len(),
            bytes,
        }
    }
}

/// Decodes the head of a body; drops a character that was cut at its end.
fn head_text(bytes: &[u8], cut: bool) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(e) if cut && e.error_len().is_none() => {
            std::str::from_utf8(&bytes[..e.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

/// Decodes the tail of a body; drops the rest of a character that was cut at its start.
fn tail_text(bytes: &[u8]) -> Option<&str> {
    let skip = bytes.iter().take(4).take_while(|byte| (**byte & 0xC0) == 0x80).count();
    std::str::from_utf8(&bytes[skip..]).ok()
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/' | '=' | '%' | '\\')
}

fn trim_cut_end(text: &str) -> &str {
    let run = text.len() - text.trim_end_matches(is_key_char).len();
    &text[..text.len() - run.min(MAX_EDGE_TRIM)]
}

fn trim_cut_start(text: &str) -> &str {
    let run = text.len() - text.trim_start_matches(is_key_char).len();
    &text[run.min(MAX_EDGE_TRIM)..]
}

/// Writes bodies and reuses its buffers between them.
pub(super) struct Packer {
    deflate: Compress,
    out: Vec<u8>,
}

impl Default for Packer {
    fn default() -> Self {
        Self { deflate: Compress::new(Compression::fast(), false), out: Vec::new() }
    }
}

impl Packer {
    /// Writes a body; returns the number of bytes by which the file grew.
    pub(super) fn write(
        &mut self,
        tx: &Transaction<'_>,
        body: &StoredBody,
        at: i64,
    ) -> rusqlite::Result<i64> {
        let side = i64::from(body.side == ExchangeSide::Answer);
        let digits = body.id.hex_digits();
        let id = RequestId::text_of(&digits);
        let known = tx
            .prepare_cached("SELECT 1 FROM body WHERE request = ?1 AND side = ?2")?
            .query_row(params![id, side], |_| Ok(()))
            .optional()?;
        if known.is_some() {
            return Ok(0);
        }
        let (mut ids, mut added_bytes) = (Vec::new(), ROW_OVERHEAD);
        // The head and the tail are chunked separately, so that a reader can separate them again.
        for section in [&body.bytes[..body.head_len], &body.bytes[body.head_len..]] {
            for chunk in Chunks(section) {
                let (id, more) = self.write_chunk(tx, chunk)?;
                ids.extend_from_slice(&id.to_be_bytes());
                added_bytes += more;
            }
        }
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        tx.prepare_cached("INSERT INTO body (request, side, at, media, total, head, chunks) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![id, side, at, body.media, i64::try_from(body.total).unwrap_or(i64::MAX), count(body.head_len), ids])?;
        Ok(added_bytes + count(ids.len()))
    }

    fn write_chunk(&mut self, tx: &Transaction<'_>, chunk: &[u8]) -> rusqlite::Result<(i64, i64)> {
        let digest = Sha256::digest(chunk);
        let hash = &digest[..16];
        let known = tx
            .prepare_cached("UPDATE chunk SET refs = refs + 1 WHERE hash = ?1 RETURNING id")?
            .query_row([hash], |row| row.get(0))
            .optional()?;
        if let Some(id) = known {
            return Ok((id, 0));
        }
        let packed = chunk.len() >= MIN_DEFLATE_BYTES && self.deflate(chunk);
        let data: &[u8] = if packed { &self.out } else { chunk };
        tx.prepare_cached("INSERT INTO chunk (hash, refs, packed, data) VALUES (?1, 1, ?2, ?3)")?
            .execute(params![hash, packed, data])?;
        Ok((tx.last_insert_rowid(), i64::try_from(data.len()).unwrap_or(i64::MAX) + ROW_OVERHEAD))
    }

    /// Returns whether the deflated chunk is smaller.
    fn deflate(&mut self, chunk: &[u8]) -> bool {
        self.deflate.reset();
        self.out.clear();
        self.out.reserve(chunk.len());
        matches!(
            self.deflate.compress_vec(chunk, &mut self.out, FlushCompress::Finish),
            Ok(Status::StreamEnd)
        ) && self.out.len() < chunk.len()
    }
}

/// Iterates over the content-defined chunks of a text.
struct Chunks<'a>(&'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let (chunk, rest) = self.0.split_at(chunk_length(self.0));
        self.0 = rest;
        Some(chunk)
    }
}

fn chunk_length(bytes: &[u8]) -> usize {
    let limit = bytes.len().min(MAX_CHUNK_BYTES);
    // The hash covers only the last 64 bytes, so bytes further before the minimum chunk end are
    // skipped.
    let from = MIN_CHUNK_BYTES.saturating_sub(64).min(limit);
    let mut hash = 0_u64;
    for (at, byte) in bytes[..limit].iter().enumerate().skip(from) {
        hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
        if at >= MIN_CHUNK_BYTES && hash & BOUNDARY_MASK == 0 {
            return at + 1;
        }
    }
    limit
}

/// One random number per byte value. It must be the same in every version, otherwise new chunks
/// would not match the stored ones.
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    let mut seed: u64 = 0x6169_7072_6F78_7921;
    while at < 256 {
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        table[at] = z ^ (z >> 31);
        at += 1;
    }
    table
};

/// A body as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyView {
    pub side: ExchangeSide,
    pub media: String,
    /// Original size in bytes; larger than the stored text if the body was cut.
    pub total: u64,
    pub head: String,
    /// The end of the body, if the middle was cut out.
    pub tail: String,
}

impl BodyView {
    /// Returns whether the body was stored uncut. Redacted parts may have a different length.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.tail.is_empty() && (self.total == 0 || !self.head.is_empty())
    }
}

/// Reads the stored bodies of a request.
pub(super) fn read_bodies(
    connection: &Connection,
    request: &str,
) -> rusqlite::Result<Vec<BodyView>> {
    let mut bodies = connection.prepare_cached(
        "SELECT side, media, total, head, chunks FROM body WHERE request = ?1 ORDER BY side",
    )?;
    let rows = bodies.query_map([request], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, i64>(2)?,
            row.get::<_, i64>(3)?,
            row.get::<_, Vec<u8>>(4)?,
        ))
    })?;
    let mut out = Vec::new();
    for row in rows {
        let (side, media, total, head, ids) = row?;
        let mut bytes = Vec::new();
        for id in ids.as_chunks().0 {
            read_chunk(connection, i64::from_be_bytes(*id), &mut bytes)?;
        }
        let head = usize::try_from(head).unwrap_or(0).min(bytes.len());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let side = if side == 0 { ExchangeSide::Request } else { ExchangeSide::Answer };
        out.push(BodyView {
            side,
            media,
            total: u64::try_from(total).unwrap_or(0),
            head: text(&bytes[..head]),
            tail: text(&bytes[head..]),
        });
    }
    Ok(out)
}

/// Appends a chunk. A missing one appears as a gap; the rest of the body is still shown.
pub(super) fn read_chunk(
    connection: &Connection,
    id: i64,
    out: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    let mut query = connection.prepare_cached("SELECT packed, data FROM chunk WHERE id = ?1")?;
    let found = query
        .query_row([id], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, Vec<u8>>(1)?)))
        .optional()?;
    match found {
        Some((true, data)) => inflate(&data, out),
        Some((false, data)) => out.extend_from_slice(&data),
        None => {}
    }
    Ok(())
}

fn inflate(data: &[u8], out: &mut Vec<u8>) {
    let mut chunk = Vec::with_capacity(MAX_CHUNK_BYTES);
    // Limits the output to the maximum chunk size, whatever the file contains.
    if Decompress::new(false).decompress_vec(data, &mut chunk, FlushDecompress::Finish).is_ok() {
        out.extend_from_slice(&chunk);
    }
}

/// Returns the bytes that all stored bodies take.
pub(super) fn total_size(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row(
        "SELECT (SELECT coalesce(sum(length(data)), 0) + count(*) * ?1 FROM chunk)
              + (SELECT coalesce(sum(length(chunks)), 0) + count(*) * ?1 FROM body)",
        [ROW_OVERHEAD],
        |row| row.get(0),
    )
}

/// Deletes at most `most` bodies, oldest first: those from before `before`, or any while the total
/// exceeds the limit by `over` bytes. Returns how many were deleted and how many bytes that freed.
pub(super) fn drop_oldest(
    tx: &Transaction<'_>,
    before: i64,
    excess: i64,
    max_bodies: usize,
) -> rusqlite::Result<(usize, i64)> {
    let (mut removed, mut freed) = (0, 0);
    let mut oldest = tx.prepare_cached(
        "SELECT request, side, at, chunks FROM body ORDER BY request, side LIMIT ?1",
    )?;
    let rows: Vec<(String, i64, i64, Vec<u8>)> = oldest
        .query_map([i64::try_from(max_bodies).unwrap_or(i64::MAX)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<Result<_, _>>()?;
    for (request, side, at, ids) in rows {
        if at >= before && freed >= excess {
            break;
        }
        for id in ids.chunks_exact(8) {
            let id = i64::from_be_bytes(id.try_into().unwrap_or_default());
            let refs: Option<(i64, i64)> = tx
                .prepare_cached(
                    "UPDATE chunk SET refs = refs - 1 WHERE id = ?1 RETURNING refs, length(data)",
                )?
                .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((..=0, length)) = refs {
                tx.prepare_cached("DELETE FROM chunk WHERE id = ?1")?.execute([id])?;
                freed += length + ROW_OVERHEAD;
            }
        }
        tx.prepare_cached("DELETE FROM body WHERE request = ?1 AND side = ?2")?
            .execute(params![request, side])?;
        freed += ROW_OVERHEAD + i64::try_from(ids.len()).unwrap_or(0);
        removed += 1;
    }
    Ok((removed, freed))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        base::{clock::UnixMillis, id::RequestId},
        ledger::migrate,
    };

    struct TestRedactor;

    impl Redactor for TestRedactor {
        fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
            if text.contains("SECRET") {
                Cow::Owned(text.replace("SECRET", "[redacted]"))
            } else {
                Cow::Borrowed(text)
            }
        }
    }

    fn ledger() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate::migrate(&mut connection).unwrap();
        connection
    }

    fn write(connection: &mut Connection, body: &CapturedBody, at: i64) -> i64 {
        let tx = connection.transaction().unwrap();
        let grown =
            Packer::default().write(&tx, &StoredBody::redacted(body, &TestRedactor), at).unwrap();
        tx.commit().unwrap();
        grown
    }

    fn id(n: i64) -> RequestId {
        RequestId::new(UnixMillis(1_700_000_000_000 + n))
    }

    /// Generates text that does not repeat itself.
    fn prose(words: usize) -> String {
        (0..words as u64).map(|n| format!("{:x} ", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect()
    }

    #[test]
    fn turns_of_a_conversation_share_stored_chunks() {
        let mut connection = ledger();
        let talk = prose(20_000);
        let turn = |n: i64| {
            CapturedBody::new(
                id(n),
                ExchangeSide::Request,
                "application/json",
                Bytes::from(format!("{{\"max\":{n},{talk}, turn {n}")),
            )
        };

        let first = write(&mut connection, &turn(1), 0);
        let later: Vec<i64> = (2..10).map(|n| write(&mut connection, &turn(n), 0)).collect();

        assert!(first > 100_000, "{first}");
        assert!(later.iter().all(|grown| *grown < first / 10), "{later:?} after {first}");
        assert_eq!(read_bodies(&connection, &id(0).to_string()).unwrap(), []);
    }

    #[test]
    fn secrets_and_parts_of_them_are_never_written() {
        let mut connection = ledger();
        let request = id(1);
        let mut body = CapturedBody::new(
            request,
            ExchangeSide::Request,
            "text/plain",
            Bytes::from_static(b"my key is SECRET, and then SEC"),
        );
        body.tail = Bytes::from_static(b"\xa9RET-tail and more SECRET");
        body.total_bytes = 1_000;

        write(&mut connection, &body, 0);

        let shown = read_bodies(&connection, &request.to_string()).unwrap();
        assert_eq!(
            (shown[0].head.as_str(), shown[0].tail.as_str()),
            ("my key is [redacted], and then ", " and more [redacted]")
        );
        assert!(!shown[0].is_complete());
    }

    #[test]
    fn binary_bodies_are_stored_as_their_size() {
        let mut connection = ledger();
        let request = id(1);
        write(
            &mut connection,
            &CapturedBody::new(
                request,
                ExchangeSide::Answer,
                "audio/mpeg",
                Bytes::from_static(&[0xff, 0xfb, 0x90, 0x44]),
            ),
            0,
        );
        let shown = read_bodies(&connection, &request.to_string()).unwrap();
        assert_eq!(
            (shown[0].total, shown[0].head.as_str(), shown[0].is_complete()),
            (4, "", false)
        );
    }

    #[test]
    fn oldest_bodies_are_deleted_first_and_shared_chunks_last() {
        let mut connection = ledger();
        let shared = prose(5_000);
        let ids: Vec<RequestId> = (0..4).map(id).collect();
        for (n, id) in ids.iter().enumerate() {
            write(
                &mut connection,
                &CapturedBody::new(
                    *id,
                    ExchangeSide::Request,
                    "a",
                    Bytes::from(format!("{shared} {}", prose(n * 1_000))),
                ),
                n as i64,
            );
        }
        let before = total_size(&connection).unwrap();

        let tx = connection.transaction().unwrap();
        let (gone, freed) = drop_oldest(&tx, 2, 0, 100).unwrap();
        tx.commit().unwrap();

        assert_eq!((gone, before - freed), (2, total_size(&connection).unwrap()));
        assert!(read_bodies(&connection, &ids[0].to_string()).unwrap().is_empty());
        assert!(
            read_bodies(&connection, &ids[3].to_string()).unwrap()[0].head.starts_with(&shared)
        );
        let tx = connection.transaction().unwrap();
        assert_eq!(drop_oldest(&tx, 0, i64::MAX, 100).unwrap().0, 2);
        tx.commit().unwrap();
        assert_eq!(total_size(&connection).unwrap(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn written_bodies_round_trip(text in "\\PC{0,40}", times in 1_usize..3_000) {
            let mut connection = ledger();
            let text = text.repeat(times);
            let request = id(1);
            write(&mut connection, &CapturedBody::new(request, ExchangeSide::Answer, "text/plain", Bytes::from(text.clone())), 0);
            let shown = read_bodies(&connection, &request.to_string()).unwrap();
            prop_assert_eq!(&shown[0].head, &TestRedactor.redact(&text));
        }

        #[test]
        fn chunks_have_bounded_length_and_cover_the_body(bytes in proptest::collection::vec(any::<u8>(), 0..150_000)) {
            let chunks: Vec<&[u8]> = Chunks(&bytes).collect();
            prop_assert_eq!(chunks.concat(), bytes.as_slice());
            prop_assert!(chunks.iter().all(|chunk| chunk.len() <= MAX_CHUNK_BYTES));
            prop_assert!(chunks.iter().rev().skip(1).all(|chunk| chunk.len() > MIN_CHUNK_BYTES));
        }
    }
}
