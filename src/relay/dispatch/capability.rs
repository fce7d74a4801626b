//! Decides whether a target's model can serve a request, as far as the model's facts are known.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;

use crate::relay::request::proxy_request::ProxyRequest;
use crate::{
    base::json::reader::{self, JsonRef},
    ir::{
        model_facts::{Modality, ModelFacts, StructuredOutput},
        op::{Dialect, Op},
    },
    routing::{
        candidate::{Candidate, MissingCapability, Target},
        facts_book::FactsBook,
    },
};

/// Members that contain images, in all dialects.
const MEDIA_FIELDS: [&[u8]; 6] = [
    b"\"image_url\"",
    b"\"input_image\"",
    b"\"inlineData\"",
    b"\"inline_data\"",
    b"\"media_type\"",
    b"\"images\"",
];

/// Members and values that request output by a JSON schema.
const SCHEMA_FIELDS: [&[u8]; 5] = [
    b"\"json_schema\"",
    b"\"responseSchema\"",
    b"\"responseJsonSchema\"",
    b"\"response_schema\"",
    b"\"response_json_schema\"",
];

/// What a request requires of a model; computed once, if there is a choice of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) struct RequiredCapabilities {
    media: bool,
    schema: bool,
    tools: bool,
    /// Tokens of input and output; unknown if the request contains images, whose bytes are not
    /// tokens.
    tokens: Option<u64>,
}

impl RequiredCapabilities {
    /// Returns `None` if the request requires nothing of a model, or if there is only one model.
    pub(in crate::relay) fn for_candidates(
        request: &ProxyRequest,
        candidates: &[Candidate],
    ) -> Option<Self> {
        if request.endpoint.op != Op::Chat {
            return None;
        }
        let first = candidates.first()?;
        if candidates.iter().all(|candidate| candidate.target.model == first.target.model) {
            return None;
        }
        Some(Self::from_body(
            &request.body,
            request.endpoint.dialect,
            request.estimate,
            request.max_tokens,
        ))
    }

    fn from_body(body: &Bytes, dialect: Dialect, estimate: u64, max_tokens: Option<u64>) -> Self {
        let has = |needle: &[u8]| memmem::find(body, needle).is_some();
        // Matches a member's name, not text that mentions it: inside a string its quotes are
        // escaped.
        let media = MEDIA_FIELDS
            .iter()
            .any(|name| has(name) && (dialect == Dialect::Ollama || *name != b"\"images\""));
        let tokens = (!media).then(|| estimate.saturating_add(max_tokens.unwrap_or_default()));
        let schema = SCHEMA_FIELDS.iter().any(|name| has(name))
            || (dialect == Dialect::Ollama && member_is_object(body, b"\"format\""));
        Self { media, schema, tools: has(b"\"tools\""), tokens }
    }

    /// Marks the candidates whose model is known to lack a required capability.
    pub(in crate::relay) fn annotate(self, candidates: &mut [Candidate], book: &FactsBook) {
        let mut last: Option<(Arc<Target>, Option<MissingCapability>)> = None;
        for candidate in candidates {
            let target = &candidate.target;
            if last.as_ref().is_none_or(|(known, _)| !Arc::ptr_eq(known, target)) {
                let known = book.look_up(&target.upstream, target.dialect, &target.model);
                last = Some((Arc::clone(target), self.missing_in(&known.facts)));
            }
            candidate.missing_capability = last.as_ref().and_then(|(_, unfit)| *unfit);
        }
    }

    fn missing_in(self, facts: &ModelFacts) -> Option<MissingCapability> {
        let enforces_schema =
            facts.structured_output.is_none_or(|form| form == StructuredOutput::Schema);
        match (self.tokens, facts.context) {
            _ if self.media && facts.reads(Modality::Image) == Some(false) => {
                Some(MissingCapability::Vision)
            }
            _ if self.schema && !enforces_schema => Some(MissingCapability::Schema),
            _ if self.tools && facts.tools == Some(false) => Some(MissingCapability::Tools),
            (Some(needs), Some(holds)) if needs > holds => {
                Some(MissingCapability::Context { required: needs, limit: holds })
            }
            _ => None,
        }
    }
}

/// Returns whether a member of this name, in quotes, is an object.
fn member_is_object(body: &[u8], name: &[u8]) -> bool {
    let value = |at: usize| {
        body[at + name.len()..].trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start)
    };
    memmem::find_iter(body, name)
        .any(|at| value(at).is_some_and(|value| value.first() == Some(&b'{')))
}

/// Tools that clients run although the dialect's provider defines them.
const CLIENT_TOOL_TYPES: [&str; 6] =
    ["bash_", "computer_", "custom", "function", "memory_", "namespace"];
/// Members that make a provider do more than answer.
const PROVIDER_TASK_FIELDS: [&str; 4] =
    ["background", "container", "mcp_servers", "web_search_options"];

/// Returns whether the provider itself runs tools for a request; true if that is unknown.
#[must_use]
pub(in crate::relay) fn provider_runs_tools(body: &[u8]) -> bool {
    let Ok(body) = reader::parse(body) else { return true };
    let is_requested =
        |name: &&str| body.get(name).is_some_and(|value| !matches!(value.text(), "null" | "false"));
    let is_provider_tool = |tool: JsonRef<'_>| match tool.get("type").and_then(JsonRef::str) {
        Some(kind) => {
            !CLIENT_TOOL_TYPES.iter().any(|known| kind.starts_with(known))
                && !kind.starts_with("text_editor_")
        }
        None => {
            let named = tool.get("name").or_else(|| tool.get("function")).is_some();
            !named
                && tool.members().any(|(name, _)| {
                    !matches!(name, "functionDeclarations" | "function_declarations")
                })
        }
    };
    PROVIDER_TASK_FIELDS.iter().any(is_requested)
        || body.get("tools").is_some_and(|tools| tools.items().any(is_provider_tool))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_tools_are_distinguished_from_client_tools() {
        for (body, want) in [
            (r#"{"messages":[]}"#, false),
            (r#"{"tools":[{"type":"function","function":{"name":"a"}}]}"#, false),
            (
                r#"{"tools":[{"name":"a","input_schema":{}},{"type":"text_editor_20250728","name":"b"}]}"#,
                false,
            ),
            (r#"{"tools":[{"functionDeclarations":[]}]}"#, false),
            (r#"{"tools":[{"functionDeclarations":[]},{"googleSearch":{}}]}"#, true),
            (r#"{"tools":[{"functionDeclarations":[],"googleSearch":{}}]}"#, true),
            (r#"{"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#, true),
            (r#"{"tools":[{"type":"code_interpreter","container":{"type":"auto"}}]}"#, true),
            (r#"{"web_search_options":{}}"#, true),
            (r#"{"background":false}"#, false),
            (r#"{"background":true}"#, true),
            ("no JSON", true),
        ] {
            assert_eq!(provider_runs_tools(body.as_bytes()), want, "{body}");
        }
    }

    fn read(body: &str) -> RequiredCapabilities {
        RequiredCapabilities::from_body(
            &Bytes::from(body.to_owned()),
            Dialect::Openai,
            1_000,
            Some(50),
        )
    }

    #[test]
    fn required_capabilities_are_read_from_members_and_not_from_text() {
        for (body, media, tools) in [
            (r#"{"messages":[{"content":"hi"}]}"#, false, false),
            (r#"{"messages":[{"content":"about \"tools\" and \"image_url\""}]}"#, false, false),
            (r#"{"tools":[{}],"messages":[]}"#, false, true),
            (
                r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:"}}]}]}"#,
                true,
                false,
            ),
        ] {
            let needs = read(body);
            assert_eq!((needs.media, needs.tools), (media, tools), "{body}");
            assert_eq!(needs.tokens, (!media).then_some(1_050), "{body}");
        }
    }

    #[test]
    fn structured_output_is_detected_in_every_dialect() {
        let json_only =
            ModelFacts { structured_output: Some(StructuredOutput::Json), ..ModelFacts::default() };
        for (dialect, body, want) in [
            (
                Dialect::Openai,
                r#"{"response_format":{"type":"json_schema","json_schema":{"name":"a"}}}"#,
                true,
            ),
            (Dialect::Openai, r#"{"response_format":{"type":"json_object"}}"#, false),
            (Dialect::Responses, r#"{"text":{"format":{"type":"json_schema"}}}"#, true),
            (Dialect::Anthropic, r#"{"output_config":{"format":{"type":"json_schema"}}}"#, true),
            (Dialect::Gemini, r#"{"generationConfig":{"responseSchema":{}}}"#, true),
            (
                Dialect::Gemini,
                r#"{"generationConfig":{"responseMimeType":"application/json"}}"#,
                false,
            ),
            (Dialect::Ollama, r#"{"format" : {"type":"object"}}"#, true),
            (Dialect::Ollama, r#"{"format":"json"}"#, false),
            (Dialect::Openai, r#"{"messages":[{"content":"what is \"json_schema\"?"}]}"#, false),
        ] {
            let needs =
                RequiredCapabilities::from_body(&Bytes::from(body.to_owned()), dialect, 1, None);
            assert_eq!(needs.schema, want, "{body}");
            let unfit = Some(MissingCapability::Schema).filter(|_| want);
            assert_eq!(
                (needs.missing_in(&json_only), needs.missing_in(&ModelFacts::default())),
                (unfit, None),
                "{body}"
            );
        }
    }

    #[test]
    fn unknown_model_is_not_excluded_by_capability() {
        let needs =
            RequiredCapabilities { media: true, schema: true, tools: true, tokens: Some(u64::MAX) };
        assert_eq!(needs.missing_in(&ModelFacts::default()), None);
    }
}
