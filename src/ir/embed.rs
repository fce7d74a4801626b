//! Embedding requests and responses, neutral of any dialect.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    ir::{extras::Extras, usage::Usage},
};

/// The wire form of an embedding request and its response. Dialects have several; all but the last
/// four are used at `/embeddings`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmbedForm {
    /// `input`, `dimensions`, `encoding_format`.
    #[default]
    Openai,
    /// OpenAI's form with `task`, `embedding_type` and inputs that may be objects.
    Task,
    /// OpenAI's form with `input_type`, `output_dimension`, `truncation`.
    InputType,
    /// `texts` and `embedding_types`; the response groups vectors by type.
    Texts,
    /// `:embedContent`.
    Gemini,
    /// `:batchEmbedContents`.
    GeminiBatch,
    /// `/api/embed`.
    Ollama,
    /// `/api/embeddings`: one `prompt`, one vector.
    OllamaPrompt,
}

/// A parsed request. It does not contain the model name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbedRequest {
    /// The form of the request, and so of the response.
    pub form: EmbedForm,
    pub inputs: Vec<EmbedInput>,
    /// Whether the single input was a bare value, not a list.
    pub is_single: bool,
    pub dimensions: Option<u64>,
    /// `float`, `base64`, or a quantised kind.
    pub encoding: Option<String>,
    pub task: Option<EmbedTask>,
    /// Title of a document.
    pub title: Option<String>,
    pub user: Option<String>,
    /// Whether too long inputs are truncated rather than refused.
    pub truncate: Option<bool>,
    pub extras: Extras,
}

impl EmbedRequest {
    /// Whether the client wants vectors packed in base64.
    #[must_use]
    pub fn wants_base64(&self) -> bool {
        self.encoding.as_deref() == Some("base64")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum EmbedInput {
    Text(String),
    /// A JSON array of token numbers.
    Tokens(RawJson),
    /// An image or similar input, as its form writes it.
    Other(RawJson),
}

/// The purpose of the vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmbedTask {
    Classification,
    Clustering,
    CodeQuery,
    Document,
    FactVerification,
    Query,
    QuestionAnswering,
    Similarity,
    /// A value that only its form has.
    Other(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbedResponse {
    /// The upstream's own id; empty if absent.
    pub id: String,
    pub model: String,
    /// Vectors in the order of the inputs.
    pub vectors: Vec<Vector>,
    pub usage: Option<Usage>,
}

/// One vector as its upstream wrote it.
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    /// A JSON array; the numbers retain their text.
    Numbers(RawJson),
    /// Base64 of 32-bit floats, little-endian.
    Base64(String),
}

impl Vector {
    /// Returns a JSON value, packed or not. A vector already in the requested form is returned
    /// unchanged, and so is one that cannot be unpacked.
    #[must_use]
    pub fn to_json(&self, packed: bool) -> RawJson {
        match self {
            Self::Numbers(numbers) if !packed => numbers.clone(),
            Self::Numbers(numbers) => RawJson::string(&encode_base64(numbers.json())),
            Self::Base64(text) if packed => RawJson::string(text),
            Self::Base64(text) => decode_base64(text).unwrap_or_else(|| RawJson::string(text)),
        }
    }
}

/// Reads each number as the nearest 32-bit float, so that no number is rounded twice.
fn encode_base64(numbers: JsonRef<'_>) -> String {
    let bytes: Vec<u8> = numbers
        .items()
        .flat_map(|number| number.text().parse::<f32>().unwrap_or(0.0).to_le_bytes())
        .collect();
    STANDARD.encode(bytes)
}

/// Writes each float as the shortest text that reads as the same float; values that JSON cannot
/// represent become 0.
fn decode_base64(text: &str) -> Option<RawJson> {
    let bytes = STANDARD.decode(text).ok()?;
    let (floats, []) = bytes.as_chunks::<4>() else { return None };
    let mut out = String::with_capacity(floats.len() * 13 + 2);
    out.push('[');
    for (at, &float) in floats.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        let float = f32::from_le_bytes(float);
        out.push_str(&(if float.is_finite() { float } else { 0.0 }).to_string());
    }
    out.push(']');
    RawJson::parse(&out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_written_verbatim_unless_packed() {
        let numbers = Vector::Numbers(RawJson::parse("[0.10, -1e-3,\n2]").expect("json"));
        assert_eq!(numbers.to_json(false).text(), "[0.10, -1e-3,\n2]");
        assert_eq!(numbers.to_json(true).text(), r#""zczMPW8Sg7oAAABA""#);
        assert_eq!(
            Vector::Base64("zczMPW8Sg7oAAABA".to_owned()).to_json(false).text(),
            "[0.1,-0.001,2]"
        );
        assert_eq!(Vector::Base64("no base64".to_owned()).to_json(false).text(), "\"no base64\"");
        assert_eq!(Vector::Base64("AADAfw==".to_owned()).to_json(false).text(), "[0]");
    }

    proptest! {
        #[test]
        fn base64_packing_is_exact(floats in proptest::collection::vec(proptest::num::f32::NORMAL | proptest::num::f32::ZERO | proptest::num::f32::SUBNORMAL, 0..20)) {
            let packed = STANDARD.encode(floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<u8>>());
            let numbers = Vector::Base64(packed.clone()).to_json(false);
            prop_assert_eq!(Vector::Numbers(numbers).to_json(true), RawJson::string(&packed));
        }
    }
}
