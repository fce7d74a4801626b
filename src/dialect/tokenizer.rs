//! Counts the tokens of texts with the o200k vocabulary, for estimates that do not ask a provider.
//!
//! The vocabulary is stored as the list of merges that generates it, two tokens each: 0.7 MB in the
//! program and, after the first use, 5 MB in memory (the token texts would take 3.6 MB and 46 MB).
//! Counting never needs the token texts.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{self, Read},
    sync::LazyLock,
};

use flate2::read::ZlibDecoder;

/// Compressed with deflate: three bytes of every merge's left token as planes, the same of the
/// right, the tokens of the single bytes, and the classes of characters as ranges.
/// `packed_vocabulary_equals_the_reference` generates it.
const PACKED_VOCABULARY: &[u8] = include_bytes!("../../assets/o200k.bin");
const MERGE_COUNT: usize = 199_742;
/// Number of tokens for single bytes.
const BYTE_TOKENS: u32 = 256;
/// Longer pieces are counted in parts. They are not words, and each cut makes the count at most one
/// too high.
const MAX_PIECE_BYTES: usize = 1 << 16;
/// Up to this length the next merge is found by a scan of the piece.
const MAX_SHORT_PIECE_BYTES: usize = 24;

static VOCABULARY: LazyLock<Vocabulary> =
    LazyLock::new(|| Vocabulary::unpack(PACKED_VOCABULARY).unwrap_or_default());

/// Returns the number of tokens in a text. The first call unpacks the vocabulary, which takes some
/// 20 ms.
#[must_use]
pub fn count_tokens(text: &str) -> u64 {
    let vocabulary = &*VOCABULARY;
    let (mut sum, mut buffer) = (0_usize, MergeBuffer::default());
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(vocabulary.piece_len(rest));
        for part in piece.as_bytes().chunks(MAX_PIECE_BYTES) {
            sum += vocabulary.merge(part, &mut buffer).len();
        }
        rest = later;
    }
    sum as u64
}

/// The class of a character in the rule that cuts a text into pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CharClass {
    #[default]
    Other,
    Upper,
    Lower,
    /// Letters without case.
    Letter,
    Mark,
    Number,
    Space,
}

impl CharClass {
    const ALL: [Self; 7] = [
        Self::Other,
        Self::Upper,
        Self::Lower,
        Self::Letter,
        Self::Mark,
        Self::Number,
        Self::Space,
    ];

    fn of_ascii(byte: u8) -> Self {
        match byte {
            b'A'..=b'Z' => Self::Upper,
            b'a'..=b'z' => Self::Lower,
            b'0'..=b'9' => Self::Number,
            b'\t'..=b'\r' | b' ' => Self::Space,
            _ => Self::Other,
        }
    }

    fn may_begin_word(self) -> bool {
        matches!(self, Self::Upper | Self::Letter | Self::Mark)
    }

    fn may_end_word(self) -> bool {
        matches!(self, Self::Lower | Self::Letter | Self::Mark)
    }

    fn may_precede_word(self) -> bool {
        matches!(self, Self::Other | Self::Mark | Self::Space)
    }

    fn is_symbol(self) -> bool {
        matches!(self, Self::Other | Self::Mark)
    }
}

#[derive(Default)]
struct Vocabulary {
    byte_tokens: Vec<u32>,
    merges: MergeTable,
    /// The first character of each run of characters with the same class.
    classes: Vec<(u32, CharClass)>,
}

impl Vocabulary {
    fn unpack(packed: &[u8]) -> io::Result<Self> {
        let mut plain = Vec::with_capacity(MERGE_COUNT * 6 + 4096);
        ZlibDecoder::new(packed).read_to_end(&mut plain)?;
        let (planes, rest) =
            plain.split_at_checked(MERGE_COUNT * 6).ok_or(io::ErrorKind::UnexpectedEof)?;
        let (singles, ranges) =
            rest.split_at_checked(BYTE_TOKENS as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        let token = |plane: usize, at: usize| {
            let byte = |n: usize| u64::from(planes[(plane + n) * MERGE_COUNT + at]);
            byte(0) | byte(1) << 8 | byte(2) << 16
        };
        let mut merges = MergeTable::preallocated();
        for at in 0..MERGE_COUNT {
            merges.insert(token(0, at), token(3, at), at as u64 + u64::from(BYTE_TOKENS));
        }
        let (ranges, _) = ranges.as_chunks::<4>();
        let class =
            |number: u8| CharClass::ALL.get(usize::from(number)).copied().unwrap_or_default();
        let classes = ranges
            .iter()
            .map(|&[a, b, c, number]| (u32::from_le_bytes([a, b, c, 0]), class(number)))
            .collect();
        Ok(Self {
            byte_tokens: singles.iter().map(|&single| u32::from(single)).collect(),
            merges,
            classes,
        })
    }

    fn class(&self, c: char) -> CharClass {
        match u8::try_from(c) {
            Ok(byte) if byte.is_ascii() => CharClass::of_ascii(byte),
            _ => {
                let after = self.classes.partition_point(|(from, _)| *from <= u32::from(c));
                after.checked_sub(1).map_or(CharClass::Other, |at| self.classes[at].1)
            }
        }
    }

    /// Returns the length of the piece at the beginning of a text that is not empty: a word with at
    /// most one symbol before it, up to three digits, a run of symbols, or white space. Merges
    /// never cross pieces.
    fn piece_len(&self, text: &str) -> usize {
        let Some(first) = text.chars().next() else { return 0 };
        let class = self.class(first);
        let width = first.len_utf8();
        let leads = class.may_precede_word() && !matches!(first, '\r' | '\n');
        let word = leads
            .then(|| self.mixed_case_end(text, width))
            .flatten()
            .or_else(|| self.mixed_case_end(text, 0))
            .or_else(|| leads.then(|| self.capitals_end(text, width)).flatten())
            .or_else(|| self.capitals_end(text, 0));
        if let Some(end) = word {
            return end + contraction_len(&text[end..]);
        }
        if class == CharClass::Number {
            return self.run_end(text, 0, 3, |class| class == CharClass::Number);
        }
        let from = usize::from(first == ' ');
        let signs = self.run_end(text, from, usize::MAX, CharClass::is_symbol);
        if signs > from {
            return signs
                + text[signs..].bytes().take_while(|b| matches!(b, b'\r' | b'\n' | b'/')).count();
        }
        let space = self.run_end(text, 0, usize::MAX, |class| class == CharClass::Space);
        if let Some(line_end) = text[..space].rfind(['\r', '\n']) {
            return line_end + 1;
        }
        // The last space before a word belongs to the word.
        let last = text[..space].chars().next_back().map_or(0, char::len_utf8);
        if space < text.len() && last < space { space - last } else { space.max(width) }
    }

    /// Returns the end of a run of letters from `from` on that ends in lower case.
    fn mixed_case_end(&self, text: &str, from: usize) -> Option<usize> {
        let (mut at, mut caseless) = (from, None);
        for c in text[from..].chars() {
            let class = self.class(c);
            if !class.may_begin_word() {
                break;
            }
            at += c.len_utf8();
            if class.may_end_word() {
                caseless = Some(at);
            }
        }
        let end = self.run_end(text, at, usize::MAX, CharClass::may_end_word);
        // Without lower-case letters, the run ends with the last letter that has no case.
        if end > at { Some(end) } else { caseless }
    }

    /// Returns the end of a run of upper-case letters from `from` on.
    fn capitals_end(&self, text: &str, from: usize) -> Option<usize> {
        let end = self.run_end(text, from, usize::MAX, CharClass::may_begin_word);
        (end > from).then_some(end)
    }

    fn run_end(
        &self,
        text: &str,
        from: usize,
        max_chars: usize,
        fits: impl Fn(CharClass) -> bool,
    ) -> usize {
        from + text[from..]
            .chars()
            .take(max_chars)
            .take_while(|&c| fits(self.class(c)))
            .map(char::len_utf8)
            .sum::<usize>()
    }

    /// Merges a piece into tokens: applies the earliest possible merge of the vocabulary first, the
    /// leftmost first if it fits several times.
    fn merge<'b>(&self, piece: &[u8], buffer: &'b mut MergeBuffer) -> &'b [u32] {
        buffer.tokens.clear();
        buffer.tokens.extend(
            piece.iter().map(|&byte| self.byte_tokens.get(usize::from(byte)).copied().unwrap_or(0)),
        );
        if piece.len() > MAX_SHORT_PIECE_BYTES {
            self.merge_long(buffer);
        } else {
            self.merge_short(&mut buffer.tokens);
        }
        &buffer.tokens
    }

    fn merge_short(&self, tokens: &mut Vec<u32>) {
        loop {
            let pairs = tokens
                .windows(2)
                .enumerate()
                .filter_map(|(at, pair)| Some((self.merges.get(pair[0], pair[1])?, at)));
            let Some((token, at)) = pairs.min() else { return };
            tokens[at] = token;
            tokens.remove(at + 1);
        }
    }

    /// Does the same for pieces of any length, in n log n: possible merges wait in a heap, and
    /// merged tokens are skipped.
    fn merge_long(&self, buffer: &mut MergeBuffer) {
        let MergeBuffer { tokens, next, previous: before, heap } = buffer;
        let length = tokens.len();
        let gone = u32::MAX;
        next.clear();
        next.extend(1..=length);
        before.clear();
        before.extend((0..length).map(|at| at.wrapping_sub(1)));
        heap.clear();
        let pair = |tokens: &[u32], left: usize, right: usize| {
            let right = tokens.get(right)?;
            self.merges.get(tokens[left], *right)
        };
        heap.extend((0..length).filter_map(|at| Some(Reverse((pair(tokens, at, at + 1)?, at)))));
        while let Some(Reverse((token, at))) = heap.pop() {
            // The tokens at this position may have changed since.
            if tokens[at] == gone || pair(tokens, at, next[at]) != Some(token) {
                continue;
            }
            let right = next[at];
            tokens[at] = token;
            tokens[right] = gone;
            next[at] = next[right];
            if let Some(back) = before.get_mut(next[at]) {
                *back = at;
            }
            heap.extend(pair(tokens, at, next[at]).map(|token| Reverse((token, at))));
            if let Some(left) = before.get(at).copied().filter(|&left| left < length) {
                heap.extend(pair(tokens, left, at).map(|token| Reverse((token, left))));
            }
        }
        tokens.retain(|&token| token != gone);
    }
}

/// Buffers for merging, reused for each piece.
#[derive(Default)]
struct MergeBuffer {
    tokens: Vec<u32>,
    next: Vec<usize>,
    previous: Vec<usize>,
    heap: BinaryHeap<Reverse<(u32, usize)>>,
}

/// Returns the length of an English ending like `'s` or `'ll` at the beginning of the text.
fn contraction_len(text: &str) -> usize {
    let mut chars = text.chars();
    if chars.next() != Some('\'') {
        return 0;
    }
    let small = |c: Option<char>| c.map(|c| c.to_ascii_lowercase());
    match small(chars.next()) {
        Some('s' | 't' | 'm' | 'd') => 2,
        // The long s, which equals `s` if case is ignored.
        Some('ſ') => 3,
        Some('r' | 'v') if small(chars.next()) == Some('e') => 3,
        Some('l') if small(chars.next()) == Some('l') => 3,
        _ => 0,
    }
}

/// Maps two tokens to the token they merge into: 18 bits each, in a table with open addressing.
#[derive(Default)]
struct MergeTable(Vec<u64>);

impl MergeTable {
    const SLOTS: usize = 1 << 19;

    fn preallocated() -> Self {
        Self(vec![u64::MAX; Self::SLOTS])
    }

    fn insert(&mut self, left: u64, right: u64, token: u64) {
        let key = left << 18 | right;
        let mut slot = Self::slot(key);
        while self.0[slot] != u64::MAX {
            slot = (slot + 1) % Self::SLOTS;
        }
        self.0[slot] = key << 18 | token;
    }

    fn get(&self, left: u32, right: u32) -> Option<u32> {
        let key = u64::from(left) << 18 | u64::from(right);
        let mut slot = Self::slot(key);
        loop {
            match self.0.get(slot) {
                Some(&entry) if entry >> 18 == key => return u32::try_from(entry & 0x3_FFFF).ok(),
                None | Some(&u64::MAX) => return None,
                Some(_) => slot = (slot + 1) % Self::SLOTS,
            }
        }
    }

    fn slot(key: u64) -> usize {
        // Fibonacci hashing; the top 19 bits.
        (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 45) as usize
    }
}

#[cfg(test)]
mod tests;
