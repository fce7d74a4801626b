//! Computes embedding vectors from words, so that texts with common words are close.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::json::Json;
use crate::base::rng::{Rng, XorShiftRng};

/// Vector length if the request specifies none.
pub(super) const DEFAULT_DIMENSIONS: u64 = 256;
const MAX_DIMENSIONS: u64 = 4_096;
const MAX_WORDS: usize = 2_000;
const MAX_TEXTS: usize = 2_048;

/// Reads the texts of an input field: a string, a list of strings, or lists of token ids.
pub(super) fn read_texts(input: &serde_json::Value) -> Vec<String> {
    match input {
        serde_json::Value::String(text) => vec![text.clone()],
        serde_json::Value::Array(items) if items.iter().any(serde_json::Value::is_number) => {
            vec![input.to_string()]
        }
        serde_json::Value::Array(items) => items
            .iter()
            .take(MAX_TEXTS)
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// Returns the unit vector of a text.
pub(super) fn embed_text(text: &str, dimensions: Option<u64>) -> Vec<f32> {
    let length = usize::try_from(dimensions.unwrap_or(DEFAULT_DIMENSIONS).clamp(1, MAX_DIMENSIONS))
        .unwrap_or(1);
    let mut sum = vec![0.0_f64; length];
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    // A text without words gets the vector of the empty word.
    for word in words.take(MAX_WORDS).map(str::to_lowercase).chain(std::iter::once(String::new())) {
        let mut rng = XorShiftRng::new(hash_word(&word));
        let weight = if word.is_empty() { 0.01 } else { 1.0 };
        for component in &mut sum {
            *component += (rng.next_f64() - 0.5) * weight;
        }
    }
    let norm = sum
        .iter()
        .map(|component| component * component)
        .sum::<f64>()
        .sqrt()
        .max(f64::MIN_POSITIVE);
    sum.iter().map(|component| (component / norm) as f32).collect()
}

/// Writes a vector as a list of numbers.
pub(super) fn write_numbers(vector: &[f32]) -> Json {
    vector.iter().map(|&number| Json::float(number)).collect::<Vec<_>>().into()
}

/// Writes a vector as base64 of little-endian floats, which the OpenAI SDK requests.
pub(super) fn write_base64(vector: &[f32]) -> Json {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    STANDARD.encode(bytes).as_str().into()
}

/// Hashes a word with 64-bit FNV-1a.
fn hash_word(word: &str) -> u64 {
    word.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_with_common_words_lie_closer() {
        let near = |a: &str, b: &str| {
            embed_text(a, None).iter().zip(embed_text(b, None)).map(|(x, y)| x * y).sum::<f32>()
        };

        assert!(
            near("the red car", "a red car") > near("the red car", "quarterly tax report") + 0.3
        );
        assert!((near("same", "same") - 1.0).abs() < 1e-3);
        assert_eq!(embed_text("", Some(7)).len(), 7);
    }
}
