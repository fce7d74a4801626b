//! Reads the members of an answer's chunk, its candidates and their parts, in either spelling.

use std::borrow::Cow;

use crate::{
    base::json::reader::JsonRef,
    dialect::gemini::field_names,
    ir::block::{Media, MediaSource},
};

/// A chunk's members.
#[derive(Default)]
pub(super) struct GeminiChunk<'a> {
    pub(super) candidates: Option<JsonRef<'a>>,
    pub(super) created: Option<JsonRef<'a>>,
    pub(super) has_error: bool,
    pub(super) prompt_feedback: Option<JsonRef<'a>>,
    pub(super) id: Option<JsonRef<'a>>,
    pub(super) model: Option<JsonRef<'a>>,
    pub(super) usage: Option<JsonRef<'a>>,
}

impl<'a> GeminiChunk<'a> {
    pub(super) fn read(json: JsonRef<'a>) -> Self {
        let mut chunk = Self::default();
        for (key, value) in json.members() {
            let value = || Some(value).filter(|value| value.kind() != "null");
            match key {
                "candidates" => chunk.candidates = value(),
                "createTime" | "create_time" => chunk.created = value(),
                "error" => {
                    chunk.has_error = value().is_some_and(|value| {
                        matches!(value.kind(), "object" | "string") && !value.is_blank()
                    });
                }
                "promptFeedback" | "prompt_feedback" => chunk.prompt_feedback = value(),
                "responseId" | "response_id" => chunk.id = value(),
                "modelVersion" | "model_version" => chunk.model = value(),
                "usageMetadata" | "usage_metadata" => {
                    chunk.usage = value().filter(|usage| usage.text().contains("TokenCount"));
                }
                _ => {}
            }
        }
        chunk
    }
}

#[derive(Default)]
pub(super) struct GeminiCandidate<'a> {
    pub(super) content: Option<JsonRef<'a>>,
    pub(super) finish_reason: Option<JsonRef<'a>>,
    pub(super) finish_message: Option<JsonRef<'a>>,
    pub(super) index: u64,
    pub(super) grounding: Option<JsonRef<'a>>,
    pub(super) citations: Option<JsonRef<'a>>,
    pub(super) logprobs: Option<JsonRef<'a>>,
}

impl<'a> GeminiCandidate<'a> {
    pub(super) fn read(json: JsonRef<'a>) -> Self {
        let mut candidate = Self::default();
        for (key, value) in json.members() {
            let value = Some(value).filter(|value| value.kind() != "null");
            match key {
                "content" => candidate.content = value,
                "finishReason" | "finish_reason" => candidate.finish_reason = value,
                "finishMessage" | "finish_message" => candidate.finish_message = value,
                "index" => candidate.index = value.and_then(JsonRef::u64).unwrap_or(0),
                "groundingMetadata" | "grounding_metadata" => candidate.grounding = value,
                "citationMetadata" | "citation_metadata" => candidate.citations = value,
                "logprobsResult" | "logprobs_result" => candidate.logprobs = value,
                _ => {}
            }
        }
        candidate
    }
}

#[derive(Default)]
pub(super) struct GeminiPart<'a> {
    pub(super) text: Option<Cow<'a, str>>,
    pub(super) thought: bool,
    pub(super) signature: Option<Cow<'a, str>>,
    pub(super) call: Option<JsonRef<'a>>,
    pub(super) inline: Option<JsonRef<'a>>,
    pub(super) file: Option<JsonRef<'a>>,
    pub(super) has_other: bool,
}

impl<'a> GeminiPart<'a> {
    pub(super) fn read(json: JsonRef<'a>) -> Self {
        let mut part = Self::default();
        if let Some(text) = json.str() {
            part.text = Some(text);
        }
        for (key, value) in json.members().filter(|(_, value)| value.kind() != "null") {
            match key {
                "text" => part.text = value.str(),
                "thought" => part.thought = value.bool() == Some(true),
                "thoughtSignature" | "thought_signature" => {
                    part.signature = value.str().filter(|text| !text.is_empty());
                }
                "functionCall" | "function_call" => part.call = Some(value),
                "inlineData" | "inline_data" => part.inline = Some(value),
                "fileData" | "file_data" => part.file = Some(value),
                _ => part.has_other = true,
            }
        }
        part
    }

    /// Returns the media of a part that contains some.
    pub(super) fn media(&self) -> Option<Media> {
        let member = |json, key: &str| field_names::string_member(json, key).map(Cow::into_owned);
        let (json, source) = match (self.inline, self.file) {
            (Some(json), _) => {
                (json, MediaSource::Base64(member(json, "data").unwrap_or_default()))
            }
            (None, Some(json)) => {
                (json, MediaSource::Url(member(json, "fileUri").unwrap_or_default()))
            }
            (None, None) => return None,
        };
        let mime = member(json, "mimeType");
        let kind = field_names::media_kind(mime.as_deref().unwrap_or_default());
        Some(Media { kind, source, mime, name: None, detail: None })
    }
}
