//! The WHATWG event stream: finds events in chunks, reads their lines, writes frames.
//!
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use crate::base::framing::splitter::{self, Delimiter};

/// Splits into blocks: the lines up to and including a blank one.
pub type SseSplitter = splitter::DelimitedSplitter<SseDelimiter>;

/// A byte order mark, allowed only before the first block.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// Ends a block after its blank line. Lines end with LF, CR or CRLF, even if CR and LF arrive in
/// different chunks.
///
/// If the lines of a block did not end with a lone CR, the block waits for the byte after its last
/// CR, so that it includes the LF of a CRLF. After a lone CR the block does not wait, and an LF
/// that follows is skipped.
#[derive(Debug, Default)]
pub struct SseDelimiter {
    /// The current line has bytes.
    line_has_bytes: bool,
    /// The last byte was a CR that may be half of a CRLF.
    after_cr: bool,
    /// A lone CR ended a line of this block.
    has_lone_cr: bool,
    /// The last block ended with a CR: an LF now belongs to it.
    skip_lf: bool,
}

impl SseDelimiter {
    fn reset(&mut self, skip_lf: bool) {
        *self = Self { skip_lf, ..Self::default() };
    }
}

impl Delimiter for SseDelimiter {
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut i = 0;
        loop {
            if self.after_cr {
                let next = *bytes.get(i)?;
                self.after_cr = false;
                self.has_lone_cr |= next != b'\n';
                i += usize::from(next == b'\n');
                if !std::mem::take(&mut self.line_has_bytes) {
                    self.reset(false);
                    return Some(i);
                }
            }
            if self.skip_lf {
                // The LF is skipped as an empty start of the next block, which is then reported as
                // not clean.
                let next = *bytes.get(i)?;
                self.skip_lf = false;
                if next == b'\n' {
                    i += 1;
                }
            }
            let Some(at) = memchr::memchr2(b'\n', b'\r', bytes.get(i..)?) else {
                self.line_has_bytes |= bytes.len() > i;
                return None;
            };
            self.line_has_bytes |= at > 0;
            i += at + 1;
            if bytes[i - 1] == b'\r' {
                if self.has_lone_cr && !self.line_has_bytes {
                    self.reset(true);
                    return Some(i);
                }
                self.after_cr = true;
            } else if !std::mem::take(&mut self.line_has_bytes) {
                self.reset(false);
                return Some(i);
            }
        }
    }
}

/// The parts of a block other than one `data: ` line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SseFormat {
    /// Number of `data` lines.
    pub data_lines: u32,
    /// The block has an `event` line.
    pub has_event_name: bool,
    /// The block has a comment.
    pub has_comment: bool,
    /// The block has `id` or `retry`.
    pub has_id_or_retry: bool,
    /// The block has a field that the standard does not define.
    pub has_unknown_field: bool,
    /// A field has no space after its colon.
    pub lacks_space: bool,
    /// A line ended with CR alone, or a stray line end of the previous block.
    pub has_lone_cr: bool,
}

/// A parsed block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    pub name: &'a [u8],
    /// The `data` lines, joined by LF.
    pub data: Cow<'a, [u8]>,
    pub format: SseFormat,
}

/// Parses the lines of a block. A missing final blank line makes no difference.
#[must_use]
pub fn read_event(block: &[u8]) -> SseEvent<'_> {
    if let Some(rest) = block.strip_prefix(b"data: ")
        && let Some(at) = memchr::memchr2(b'\n', b'\r', rest)
        && (rest[at..] == *b"\n\n" || rest[at..] == *b"\r\n\r\n")
    {
        return SseEvent {
            name: b"",
            data: Cow::Borrowed(&rest[..at]),
            format: SseFormat { data_lines: 1, ..SseFormat::default() },
        };
    }
    let mut out = SseEvent { name: b"", data: Cow::Borrowed(b""), format: SseFormat::default() };
    let mut rest = block;
    // A blank line before the block's own lines is the LF of a CR that ended the previous block.
    if block.len() > 1 && block[0] == b'\n' {
        out.format.has_lone_cr = true;
        rest = &block[1..];
    }
    while !rest.is_empty() {
        let at = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let line = &rest[..at];
        let end = if rest[at..].starts_with(b"\r\n") { 2 } else { usize::from(at < rest.len()) };
        out.format.has_lone_cr |= end == 1 && rest[at] == b'\r';
        rest = &rest[at + end..];
        if line.is_empty() {
            continue;
        }
        let colon = memchr::memchr(b':', line);
        let (field, value) = colon.map_or((line, &b""[..]), |at| (&line[..at], &line[at + 1..]));
        let value = match value.strip_prefix(b" ") {
            Some(value) => value,
            None => {
                out.format.lacks_space |= !field.is_empty();
                value
            }
        };
        match field {
            b"" => out.format.has_comment = true,
            b"data" => {
                out.format.data_lines = out.format.data_lines.saturating_add(1);
                if out.format.data_lines == 1 {
                    out.data = Cow::Borrowed(value);
                } else {
                    let data = out.data.to_mut();
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            }
            b"event" => {
                out.format.has_event_name = true;
                out.name = value;
            }
            b"id" | b"retry" => out.format.has_id_or_retry = true,
            _ => out.format.has_unknown_field = true,
        }
    }
    out
}

/// Writes one event: its name if it has one, a `data: ` line for each line of the data, and a blank
/// line.
pub fn write_event(out: &mut BytesMut, name: &[u8], data: &[u8]) {
    out.reserve(name.len() + data.len() + 24);
    if !name.is_empty() {
        out.put_slice(b"event: ");
        out.put_slice(name);
        out.put_slice(b"\n");
    }
    for line in data.split(|&b| b == b'\n') {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_slice(b"\n");
    }
    out.put_slice(b"\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::framing::splitter::NextFrame;

    fn events(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let (mut splitter, mut out) = (SseSplitter::default(), Vec::new());
        let mut push = |block: &[u8]| {
            let block = read_event(block.strip_prefix(BOM).unwrap_or(block));
            if !block.data.is_empty() {
                out.push((
                    String::from_utf8_lossy(block.name).into_owned(),
                    String::from_utf8_lossy(&block.data).into_owned(),
                ));
            }
        };
        for chunk in chunks {
            let mut at = 0;
            loop {
                match splitter.next(chunk, &mut at) {
                    NextFrame::Borrowed(span) => push(&chunk[span]),
                    NextFrame::Joined(block) => push(&block),
                    NextFrame::Incomplete => break,
                    NextFrame::TooLong => panic!("too long"),
                }
            }
        }
        push(&splitter.remainder());
        out
    }

    const HARD: &[(&str, &[(&str, &str)])] = &[
        ("data: a\n\ndata: b\n\n", &[("", "a"), ("", "b")]),
        ("data: a\r\n\r\ndata: b\r\n\r\n", &[("", "a"), ("", "b")]),
        ("data: a\r\rdata: b\r\r", &[("", "a"), ("", "b")]),
        (
            "data: a\n\ndata: b\r\n\r\ndata: c\r\rdata: d\n\n",
            &[("", "a"), ("", "b"), ("", "c"), ("", "d")],
        ),
        ("data: a\r\r\ndata: b\r\r\n\ndata: c\r\r", &[("", "a"), ("", "b"), ("", "c")]),
        ("data: a\r\n\rdata: b\r\n\rdata: c\n\r\n", &[("", "a"), ("", "b"), ("", "c")]),
        ("\u{feff}data: a\n\n", &[("", "a")]),
        (": hi\n\n:\ndata:a\n: inside\ndata\ndata:  b\n\n", &[("", "a\n\n b")]),
        ("event: x\nid: 1\nretry: 5\nfoo: bar\njunk\ndata: a\n\n", &[("x", "a")]),
        ("event:x\ndata:a\n\nevent: y\n\ndata:\n\n\n\n\ndata: z", &[("x", "a"), ("", "z")]),
    ];

    #[test]
    fn edge_case_documents_decode_equally_at_any_cut() {
        for (document, want) in HARD {
            let bytes = document.as_bytes();
            let want: Vec<_> =
                want.iter().map(|(n, d)| ((*n).to_owned(), (*d).to_owned())).collect();
            assert_eq!(events(&[bytes]), want, "{document:?} whole");
            for cut in 0..=bytes.len() {
                assert_eq!(
                    events(&[&bytes[..cut], &bytes[cut..]]),
                    want,
                    "{document:?} cut at {cut}"
                );
            }
            assert_eq!(events(&bytes.chunks(1).collect::<Vec<_>>()), want, "{document:?} bytewise");
        }
    }

    #[test]
    fn event_with_bare_cr_line_ends_is_read_at_once() {
        let (mut splitter, mut at) = (SseSplitter::default(), 0);
        assert_eq!(splitter.next(b"data: a\r\r", &mut at), NextFrame::Borrowed(0..9));
    }

    #[test]
    fn line_over_the_limit_is_refused() {
        let (mut splitter, chunk) = (SseSplitter::default(), vec![b'x'; 1 << 20]);
        let refused = (0..9).find(|_| splitter.next(&chunk, &mut 0) == NextFrame::TooLong);
        assert_eq!(refused, Some(8));
    }

    #[test]
    fn events_are_written_in_canonical_form() {
        let mut out = BytesMut::new();
        write_event(&mut out, b"x", b"a\nb");
        write_event(&mut out, b"", b"c");
        assert_eq!(&out[..], b"event: x\ndata: a\ndata: b\n\ndata: c\n\n");
    }

    proptest! {
        #[test]
        fn events_decode_equally_at_any_cut(
            text in "(data: ?a\u{e9}?|event: x|id: 1|: c|\n|\r|\r\n|\n\n|\r\r|\r\n\r\n){0,20}",
            cuts in proptest::collection::vec(0_usize..200, 0..8),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(events(&pieces), events(&[bytes]));
        }
    }
}
