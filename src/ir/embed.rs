//! Texts that ask for vectors, and the vectors, in nobody's dialect.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    ir::{extras::Extras, usage::Usage},
};

/// How embeddings are asked for and answered. Dialects have several ways; all but the last four are
/// spoken at `/embeddings`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmbedForm {
    /// `input`, `dimensions`, `encoding_format`.
    #[default]
    Openai,
    /// OpenAI's with `task`, `embedding_type` and inputs that may be objects.
    Task,
    /// OpenAI's with `input_type`, `output_dimension`, `truncation`.
    InputType,
    /// `texts` and `embedding_types`, answered by type.
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

/// A request, read whole. The model's name is not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbedRequest {
    /// How the client asked, and so how it is answered.
    pub form: EmbedForm,
    pub inputs: Vec<EmbedInput>,
    /// Whether the one input stood alone, not in a list.
    pub is_single: bool,
    pub dimensions: Option<u64>,
    /// `float`, `base64`, or a quantised kind.
    pub encoding: Option<String>,
    pub task: Option<EmbedTask>,
    /// Of a document.
    pub title: Option<String>,
    pub user: Option<String>,
    /// Whether inputs that are too long are to be cut rather than refused.
    pub truncate: Option<bool>,
    pub extras: Extras,
}

impl EmbedRequest {
    /// Whether vectors are to be packed in base64.
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
    /// A picture or the like, as its form says it.
    Other(RawJson),
}

/// What the vectors are for.
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
    /// A word that only its form knows.
    Other(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbedResponse {
    /// The upstream's own id; empty where it gives none.
    pub id: String,
    pub model: String,
    /// In the order of the inputs.
    pub vectors: Vec<Vector>,
    pub usage: Option<Usage>,
}

/// One vector as its upstream wrote it.
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    /// A JSON array; the numbers keep their text.
    Numbers(RawJson),
    /// Base64 of 32-bit floats, least byte first.
    Base64(String),
}

impl Vector {
    /// As a JSON value, packed or not: what is packed already, or is not yet, goes as it is. A
    /// vector that cannot be unpacked stays what it was.
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

/// Each number is read as the nearest 32-bit float, so that nothing is rounded twice.
fn encode_base64(numbers: JsonRef<'_>) -> String {
    let bytes: Vec<u8> = numbers
        .items()
        .flat_map(|number| number.text().parse::<f32>().unwrap_or(0.0).to_le_bytes())
        .collect();
    STANDARD.encode(bytes)
}

/// Each float in the shortest text that reads as the same float; what JSON has no number for is 0.
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
    fn numbers_keep_their_text_unless_packed() {
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
        fn packing_is_exact(floats in proptest::collection::vec(proptest::num::f32::NORMAL | proptest::num::f32::ZERO | proptest::num::f32::SUBNORMAL, 0..20)) {
            let packed = STANDARD.encode(floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<u8>>());
            let numbers = Vector::Base64(packed.clone()).to_json(false);
            prop_assert_eq!(Vector::Numbers(numbers).to_json(true), RawJson::string(&packed));
        }
    }
}
