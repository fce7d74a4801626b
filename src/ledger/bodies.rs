//! Bodies on disk: without secrets, cut where their content says so, each piece kept once and
//! deflated, the oldest out when room runs short.
//!
//! Agents send the whole conversation with every turn. A rolling hash over the last bytes decides
//! where a chunk ends, so equal text gives equal chunks wherever it stands, also after something
//! before it has changed; what was kept for the turn before is only counted once more.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    base::redact::Redactor,
    events::ledger_queue::{CapturedBody, ExchangeSide},
};

/// Chunks are at least and at most so long, and 8 KiB on average.
const MIN_CHUNK_BYTES: usize = 2 << 10;
const MAX_CHUNK_BYTES: usize = 64 << 10;
const BOUNDARY_MASK: u64 = 0x1FFF << 40;
/// Less is not worth deflating: making ready for it takes longer than the work itself, and a file
/// that is bounded does not suffer from what is short.
const MIN_DEFLATE_BYTES: usize = 2 << 10;
/// What a chunk takes on disk beside its bytes.
const ROW_OVERHEAD: i64 = 64;
/// Where a body was cut, up to so many bytes go with the cut: half a key must not stay.
const MAX_EDGE_TRIM: usize = 512;

/// A body ready to be written.
pub(super) struct StoredBody {
    id: String,
    side: ExchangeSide,
    media: String,
    total: u64,
    head_len: usize,
    bytes: Vec<u8>,
}

impl StoredBody {
    /// Takes secrets out. What is no text is kept by its size only: nobody could read it, nor look
    /// for keys in it.
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
            id: body.id.to_string(),
            side: body.side,
            media,
            total: body.total_bytes,
            head_len: head.len(),
            bytes,
        }
    }
}

/// The text of a beginning; a character that was cut at its end is left out.
fn head_text(bytes: &[u8], cut: bool) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(e) if cut && e.error_len().is_none() => {
            std::str::from_utf8(&bytes[..e.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

/// The text of an end; what is left of a character at its beginning is left out.
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

/// Writes bodies; its buffers serve one after the other.
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
    /// Writes a body; gives back by how many bytes the file grew.
    pub(super) fn write(
        &mut self,
        tx: &Transaction<'_>,
        body: &StoredBody,
        at: i64,
    ) -> rusqlite::Result<i64> {
        let side = i64::from(body.side == ExchangeSide::Answer);
        let known = tx
            .prepare_cached("SELECT 1 FROM body WHERE request = ?1 AND side = ?2")?
            .query_row(params![body.id, side], |_| Ok(()))
            .optional()?;
        if known.is_some() {
            return Ok(0);
        }
        let (mut ids, mut added_bytes) = (Vec::new(), ROW_OVERHEAD);
        // Beginning and end are cut apart, so that they can be told apart again.
        for section in [&body.bytes[..body.head_len], &body.bytes[body.head_len..]] {
            for chunk in Chunks(section) {
                let (id, more) = self.write_chunk(tx, chunk)?;
                ids.extend_from_slice(&id.to_be_bytes());
                added_bytes += more;
            }
        }
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        tx.prepare_cached("INSERT INTO body (request, side, at, media, total, head, chunks) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![body.id, side, at, body.media, i64::try_from(body.total).unwrap_or(i64::MAX), count(body.head_len), ids])?;
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

    /// Whether the chunk became shorter.
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

/// The chunks of a text.
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
    // Only the last 64 bytes are in the hash, so those long before the shortest end need not be
    // looked at.
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

/// One random number for each byte; the same in every version, else nothing would be shared with
/// what is kept.
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

/// A body as it was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyView {
    pub side: ExchangeSide,
    pub media: String,
    /// Bytes that it had; more than are here where it was cut.
    pub total: u64,
    pub head: String,
    /// Its end, where the middle is left out.
    pub tail: String,
}

impl BodyView {
    /// Whether all of it is here; redacted parts may have another length.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.tail.is_empty() && (self.total == 0 || !self.head.is_empty())
    }
}

/// The kept bodies of a request.
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
        let mut chunk =
            connection.prepare_cached("SELECT packed, data FROM chunk WHERE id = ?1")?;
        for id in ids.chunks_exact(8) {
            let id = i64::from_be_bytes(id.try_into().unwrap_or_default());
            // A chunk that is not there is a gap in what is shown, no reason to show nothing.
            if let Some((packed, data)) = chunk
                .query_row([id], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, Vec<u8>>(1)?)))
                .optional()?
            {
                if packed { inflate(&data, &mut bytes) } else { bytes.extend_from_slice(&data) }
            }
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

fn inflate(data: &[u8], out: &mut Vec<u8>) {
    let mut chunk = Vec::with_capacity(MAX_CHUNK_BYTES);
    // No chunk is longer, whatever the file says.
    if Decompress::new(false).decompress_vec(data, &mut chunk, FlushDecompress::Finish).is_ok() {
        out.extend_from_slice(&chunk);
    }
}

/// Bytes that all kept bodies take.
pub(super) fn total_size(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row(
        "SELECT (SELECT coalesce(sum(length(data)), 0) + count(*) * ?1 FROM chunk)
              + (SELECT coalesce(sum(length(chunks)), 0) + count(*) * ?1 FROM body)",
        [ROW_OVERHEAD],
        |row| row.get(0),
    )
}

/// Takes out the oldest bodies, at most `most`: those from before `before`, or any while `over`
/// bytes are too many. Gives back how many went and how many bytes that freed.
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

    /// Text that does not repeat itself.
    fn prose(words: usize) -> String {
        (0..words as u64).map(|n| format!("{:x} ", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect()
    }

    #[test]
    fn the_turns_of_a_conversation_share_what_they_have_in_common() {
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
    fn secrets_do_not_reach_the_file_not_even_by_halves() {
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
    fn what_is_no_text_is_kept_by_its_size() {
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
    fn the_oldest_go_first_and_shared_pieces_stay_while_anybody_has_them() {
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
        fn what_is_written_is_read(text in "\\PC{0,40}", times in 1_usize..3_000) {
            let mut connection = ledger();
            let text = text.repeat(times);
            let request = id(1);
            write(&mut connection, &CapturedBody::new(request, ExchangeSide::Answer, "text/plain", Bytes::from(text.clone())), 0);
            let shown = read_bodies(&connection, &request.to_string()).unwrap();
            prop_assert_eq!(&shown[0].head, &TestRedactor.redact(&text));
        }

        #[test]
        fn chunks_are_of_bounded_length_and_miss_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..150_000)) {
            let chunks: Vec<&[u8]> = Chunks(&bytes).collect();
            prop_assert_eq!(chunks.concat(), bytes.as_slice());
            prop_assert!(chunks.iter().all(|chunk| chunk.len() <= MAX_CHUNK_BYTES));
            prop_assert!(chunks.iter().rev().skip(1).all(|chunk| chunk.len() > MIN_CHUNK_BYTES));
        }
    }
}
