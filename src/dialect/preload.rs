//! Requests that ask for nothing: an Ollama client sends one to load a model before a conversation,
//! or to unload it.

use bytes::Bytes;

use crate::{
    base::json::{self, JsonRef},
    dialect::{Place, Shape, ollama},
    ir::op::Dialect,
};

/// The answer to such a request, where it is one; no upstream of another dialect needs to hear of
/// it.
#[must_use]
pub fn answer(dialect: Dialect, shape: &Shape, body: &[u8]) -> Option<Bytes> {
    if dialect != Dialect::Ollama {
        return None;
    }
    let root = json::parse(body).ok().filter(|root| root.is_object())?;
    let asked = if shape.place == Place::Generate {
        &["prompt", "images", "suffix"][..]
    } else {
        &["messages"][..]
    };
    if asked.iter().any(|key| root.get(key).is_some_and(|value| !value.is_blank())) {
        return None;
    }
    let unload = root.get("keep_alive").is_some_and(|span| {
        matches!(span.text(), "0" | "\"0\"" | "\"0s\"") || span.u64() == Some(0)
    });
    let line = ollama::loaded(shape, unload);
    let streams = root.get("stream").and_then(JsonRef::bool) != Some(false);
    Some(if streams { [&line[..], b"\n"].concat().into() } else { line })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dialect::Framing, ir::extras::Extras};

    #[test]
    fn only_a_request_without_words_loads() {
        let shape = |place| Shape {
            place,
            model: "m".to_owned(),
            id: String::new(),
            now: 0,
            framing: Framing::Ndjson,
            usage: true,
            custom: Vec::new(),
            namespaced: Vec::new(),
            echo: Extras::default(),
        };
        let told = |place, body: &str| answer(Dialect::Ollama, &shape(place), body.as_bytes());
        let want = r#"{"model":"m","created_at":"1970-01-01T00:00:00Z","response":"","done":true,"done_reason":"load"}"#;
        assert_eq!(
            told(Place::Generate, r#"{"model":"m","prompt":"","stream":false}"#).as_deref(),
            Some(want.as_bytes())
        );
        assert!(
            told(Place::Main, r#"{"model":"m","messages":[],"keep_alive":0}"#)
                .is_some_and(|line| line.ends_with(b"\"unload\"}\n"))
        );
        assert_eq!(told(Place::Main, r#"{"messages":[{"role":"user","content":"x"}]}"#), None);
        assert_eq!(told(Place::Generate, r#"{"prompt":"x"}"#), None);
        assert_eq!(answer(Dialect::Openai, &shape(Place::Main), b"{}"), None);
    }
}
