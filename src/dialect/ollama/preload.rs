//! Answers requests without a prompt: an Ollama client sends one to load a model before a
//! conversation, or to unload it.

use bytes::Bytes;

use crate::{
    base::json::reader::{self, JsonRef},
    dialect::{
        ingress::{ChatEndpoint, ResponseSpec},
        ollama,
    },
    ir::op::Dialect,
};

/// Returns the answer if this is such a request; upstreams of other dialects never get it.
#[must_use]
pub fn preload_response(dialect: Dialect, spec: &ResponseSpec, body: &[u8]) -> Option<Bytes> {
    if dialect != Dialect::Ollama {
        return None;
    }
    let root = reader::parse(body).ok().filter(|root| root.is_object())?;
    let content_keys = if spec.endpoint == ChatEndpoint::Generate {
        &["prompt", "images", "suffix"][..]
    } else {
        &["messages"][..]
    };
    if content_keys.iter().any(|key| root.get(key).is_some_and(|value| !value.is_blank())) {
        return None;
    }
    let unload = root.get("keep_alive").is_some_and(|span| {
        matches!(span.text(), "0" | "\"0\"" | "\"0s\"") || span.u64() == Some(0)
    });
    let line = ollama::response_write::write_preload_response(spec, unload);
    let streams = root.get("stream").and_then(JsonRef::bool) != Some(false);
    Some(if streams { [&line[..], b"\n"].concat().into() } else { line })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::framing::Framing, ir::extras::Extras};

    #[test]
    fn only_a_request_without_content_preloads() {
        let spec = |place| ResponseSpec {
            endpoint: place,
            model: "m".to_owned(),
            request_id: String::new(),
            created: 0,
            framing: Framing::Ndjson,
            include_usage: true,
            custom_tools: Vec::new(),
            namespaced_tools: Vec::new(),
            client_tools: Vec::new(),
            compaction: false,
            echo: Extras::default(),
        };
        let preload = |endpoint, body: &str| {
            preload_response(Dialect::Ollama, &spec(endpoint), body.as_bytes())
        };
        let want = r#"{"model":"m","created_at":"1970-01-01T00:00:00Z","response":"","done":true,"done_reason":"load"}"#;
        assert_eq!(
            preload(ChatEndpoint::Generate, r#"{"model":"m","prompt":"","stream":false}"#)
                .as_deref(),
            Some(want.as_bytes())
        );
        assert!(
            preload(ChatEndpoint::Chat, r#"{"model":"m","messages":[],"keep_alive":0}"#)
                .is_some_and(|line| line.ends_with(b"\"unload\"}\n"))
        );
        assert_eq!(
            preload(ChatEndpoint::Chat, r#"{"messages":[{"role":"user","content":"x"}]}"#),
            None
        );
        assert_eq!(preload(ChatEndpoint::Generate, r#"{"prompt":"x"}"#), None);
        assert_eq!(preload_response(Dialect::Openai, &spec(ChatEndpoint::Chat), b"{}"), None);
    }
}
