//! Checks the counts against those of the reference implementation.

use std::{collections::HashMap, io::Write};

use flate2::{Compression, write::ZlibEncoder};
use proptest::prelude::*;
use tiktoken_rs::CoreBPE;

use super::*;
use crate::dialect::tests::recorded;

static REFERENCE: LazyLock<CoreBPE> =
    LazyLock::new(|| tiktoken_rs::o200k_base().expect("a vocabulary"));

fn tokens(text: &str) -> Vec<u32> {
    let (mut all, mut buffer, mut rest) = (Vec::new(), MergeBuffer::default(), text);
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(VOCABULARY.piece_len(rest));
        all.extend_from_slice(VOCABULARY.merge(piece.as_bytes(), &mut buffer));
        rest = later;
    }
    all
}

#[test]
fn edge_case_texts_have_the_reference_tokens() {
    for text in [
        "",
        " ",
        "Hello, world!",
        "I'm sure they'LL've  don'T 'sſ it'ſ'x",
        "  leading\n\n  and\r\ntrailing  \n ",
        "a1234567890b 12.5e-3",
        "fn main() { println!(\"{}\", x /* ** */); }\n\n\n\treturn;//\n/",
        "中文AB中A文字、日本語テキストです。한국어 텍스트",
        "e\u{301}A\u{301}B\u{301}\u{301}1\u{301} \u{301}",
        "ǅabc ǅǅ ʰʰA ªº",
        "👩‍👩‍👧‍👦 🇩🇪🇫🇷 ✂️",
        "\u{a0}\u{a0}x \u{2003}y\u{85}z\u{1c}w",
        "١٢٣٤ Ⅻ½ ²³",
        "नमस्ते दुनिया สวัสดี",
        "<|endoftext|> <|im_start|>",
        "http://example.com/a/b//c?x=1&y=2#z",
    ] {
        assert_eq!(tokens(text), REFERENCE.encode_ordinary(text), "{text:?}");
        assert_eq!(count_tokens(text), REFERENCE.encode_ordinary(text).len() as u64, "{text:?}");
    }
}

#[test]
fn recorded_texts_have_the_reference_tokens() {
    let all = [
        "openai.chat",
        "anthropic.messages",
        "gemini.generateContent",
        "openai.responses",
        "openai.embeddings",
    ];
    for exchange in recorded::load_exchanges(&all) {
        for text in [exchange.request.to_string(), exchange.response] {
            let text: String = text.chars().take(8_000).collect();
            assert_eq!(tokens(&text), REFERENCE.encode_ordinary(&text), "{}", exchange.id);
        }
    }
}

#[test]
fn long_runs_are_counted_in_linear_time() {
    for run in ["a", " ", "aB", "中A", "A", "'", "\n ", "é", "abcdefghij", "0"] {
        let text = run.repeat(60_000 / run.len());
        assert_eq!(tokens(&text), REFERENCE.encode_ordinary(&text), "{run:?}");
        let long = run.repeat(1_000_000 / run.len());
        let few = count_tokens(&long);
        assert!(few > 1_000 && few <= 1_000_000, "{run:?}: {few}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_has_the_reference_tokens(text in "\\PC{0,60}") {
        prop_assert_eq!(tokens(&text), REFERENCE.encode_ordinary(&text));
    }

    #[test]
    fn any_mixed_text_has_the_reference_tokens(text in "([a-z]{1,40}|[A-Z]{1,5}| {0,4}|[\r\n\t]{0,3}|[0-9]{1,5}|'(s|LL|re)|[!-/]{1,4}|\\p{Lo}{1,4}|\\p{M}|\\p{Lm}|\\p{Lt}|\\p{N}|\\p{Z}){0,30}") {
        prop_assert_eq!(tokens(&text), REFERENCE.encode_ordinary(&text));
    }
}

/// Builds the vocabulary from the reference, before compression: the content of `assets/o200k.bin`.
fn pack() -> Vec<u8> {
    let texts: Vec<Vec<u8>> = (0..MERGE_COUNT as u32 + BYTE_TOKENS)
        .map(|token| REFERENCE.decode_bytes([token].as_slice()).expect("a token").to_vec())
        .collect();
    let ranks: HashMap<&[u8], u32> =
        texts.iter().zip(0..).map(|(text, rank)| (text.as_slice(), rank)).collect();
    let mut singles = [0_u8; BYTE_TOKENS as usize];
    for (token, text) in texts.iter().take(BYTE_TOKENS as usize).enumerate() {
        assert_eq!(text.len(), 1);
        singles[usize::from(text[0])] = token as u8;
    }
    let mut planes = vec![0_u8; MERGE_COUNT * 6];
    for (at, text) in texts.iter().skip(BYTE_TOKENS as usize).enumerate() {
        let limit = at as u32 + BYTE_TOKENS;
        let mut ends: Vec<usize> = (0..=text.len()).collect();
        while ends.len() > 3 {
            let merges = ends
                .windows(3)
                .enumerate()
                .filter_map(|(n, e)| ranks.get(&text[e[0]..e[2]]).map(|rank| (*rank, n)));
            let (_, n) = merges.filter(|(rank, _)| *rank < limit).min().expect("a merge");
            ends.remove(n + 1);
        }
        for (plane, half) in [&text[..ends[1]], &text[ends[1]..]].into_iter().enumerate() {
            for byte in 0..3 {
                planes[(plane * 3 + byte) * MERGE_COUNT + at] = ranks[half].to_le_bytes()[byte];
            }
        }
    }
    let patterns = [r"[\p{Lu}\p{Lt}]", r"\p{Ll}", r"[\p{Lm}\p{Lo}]", r"\p{M}", r"\p{N}", r"\s"];
    let patterns = patterns.map(|pattern| regex::Regex::new(pattern).expect("a class"));
    let (mut ranges, mut last) = (Vec::new(), u8::MAX);
    for c in char::MIN..=char::MAX {
        let mut buffer = [0; 4];
        let text: &str = c.encode_utf8(&mut buffer);
        let class =
            patterns.iter().position(|pattern| pattern.is_match(text)).map_or(0, |at| at as u8 + 1);
        if class != last {
            ranges.extend_from_slice(&u32::from(c).to_le_bytes()[..3]);
            ranges.push(class);
            last = class;
        }
    }
    [&planes, singles.as_slice(), &ranges].concat()
}

/// `WRITE_EXPECTED=1` regenerates the file.
#[test]
fn packed_vocabulary_equals_the_reference() {
    let wanted = pack();
    if std::env::var_os("WRITE_EXPECTED").is_some() {
        let mut out = ZlibEncoder::new(Vec::new(), Compression::best());
        out.write_all(&wanted).expect("memory");
        #[expect(clippy::disallowed_methods, reason = "a developer's tool, not the program")]
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/assets/o200k.bin"),
            out.finish().expect("memory"),
        )
        .expect("writable");
        return;
    }
    let mut found = Vec::new();
    ZlibDecoder::new(PACKED_VOCABULARY).read_to_end(&mut found).expect("the file");
    // Not `assert_eq`, which would print a megabyte of numbers.
    assert!(
        found == wanted,
        "assets/o200k.bin is not what the reference gives; WRITE_EXPECTED=1 makes it anew"
    );
}
