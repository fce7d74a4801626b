//! Computes embedding vectors from words, so that texts with common words are close.

use crate::{
    base::{
        json::raw::RawJson,
        rng::{Rng, XorShiftRng},
    },
    demo::{
        call::{DemoCall, DemoError},
        models::DemoModel,
        reply::DemoReply,
        request::text_tokens,
    },
    dialect::ops::{embed, embed_response},
    ir::{
        embed::{EmbedInput, EmbedResponse, Vector},
        op::Dialect,
        usage::Usage,
    },
};

/// Vector length if the request specifies none.
const DEFAULT_DIMENSIONS: u64 = 256;
const MAX_DIMENSIONS: u64 = 4_096;
const MAX_WORDS: usize = 2_000;
const MAX_TEXTS: usize = 2_048;

/// Answers a request for vectors; the decoded path decides its form.
///
/// # Errors
///
/// The request cannot be read.
pub(super) fn answer_embeddings(
    call: &DemoCall<'_>,
    model: &DemoModel,
    path: &str,
) -> Result<DemoReply, DemoError> {
    let mut request = embed::read_request(call.dialect, path, call.body_text)
        .map_err(|error| DemoError::bad_request(error.message))?;
    request.inputs.truncate(MAX_TEXTS);
    let texts: Vec<&str> = request
        .inputs
        .iter()
        .map(|input| match input {
            EmbedInput::Text(text) => text,
            EmbedInput::Tokens(raw) | EmbedInput::Other(raw) => raw.text(),
        })
        .collect();
    let vectors = texts.iter().map(|text| to_vector(&embed_text(text, request.dimensions)));
    let response = EmbedResponse {
        id: call.new_id("emb_"),
        model: model.name.to_owned(),
        vectors: vectors.collect(),
        usage: Some(Usage {
            input: texts.iter().map(|text| text_tokens(text)).sum(),
            ..Usage::default()
        }),
    };
    // Ollama repeats the name that was asked for, with its tag.
    let name = call.model_name().filter(|_| call.dialect == Dialect::Ollama);
    let name = name.unwrap_or(model.name);
    Ok(DemoReply::json(embed_response::write_response(&response, &request, name)))
}

fn to_vector(numbers: &[f32]) -> Vector {
    let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    let list = RawJson::parse(&format!("[{}]", texts.join(",")));
    Vector::Numbers(list.unwrap_or_else(|| RawJson::string("")))
}

/// Returns the unit vector of a text.
fn embed_text(text: &str, dimensions: Option<u64>) -> Vec<f32> {
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
    fn texts_with_common_words_have_closer_vectors() {
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
