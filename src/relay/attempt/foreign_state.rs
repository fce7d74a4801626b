//! Refuses requests about what is stored at a provider that will not answer them: conversations,
//! prompts, caches and files. Without it the model would answer another request.

use std::sync::Arc;

use crate::relay::{attempt::translate::is_needed, request::proxy_request::ProxyRequest};
use crate::{
    base::sanitize,
    ir::{
        block::{Block, BlockKind, MediaSource},
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
        request::ChatRequest,
    },
    routing::candidate::Target,
};

/// The longest part of an id in an error, in bytes.
const MAX_ID_SHOWN: usize = 80;

/// Fields that name what only a provider of their own API keeps, with the API's name.
const STORED_FIELDS: [(Dialect, &str, &str, &str); 3] = [
    (Dialect::Responses, "conversation", "Responses", "send its items as `input` instead"),
    (
        Dialect::Responses,
        "prompt",
        "Responses",
        "send its text as `instructions` and `input` instead",
    ),
    (Dialect::Gemini, "cachedContent", "Gemini", "send its `contents` instead"),
];

/// Refuses a request about a conversation, a prompt or a cache that is stored at a provider: no
/// upstream of another API knows it.
pub(super) fn refuse_stored_fields(request: &ChatRequest) -> Result<(), ProxyError> {
    for (dialect, field, api, advice) in STORED_FIELDS {
        if request.extras.is_from(dialect) && request.extras.get(dialect, field).is_some() {
            let message = format!(
                "`{field}` names what is stored at a provider of the {api} API, and no upstream for this model is one; {advice}"
            );
            return Err(refusal(message).param(field));
        }
    }
    Ok(())
}

/// Removes the targets that cannot have a file which the request names; the error is for a request
/// that has no target left.
pub(super) fn drop_targets_without_files(
    request: &ProxyRequest,
    conversation: &ChatRequest,
    targets: &mut Vec<Arc<Target>>,
) -> Option<ProxyError> {
    let mut ids = Vec::new();
    let messages = conversation.messages.iter().flat_map(|message| &message.blocks);
    conversation.system.iter().chain(messages).for_each(|block| collect_file_ids(block, &mut ids));
    let client = request.body_dialect;
    let mut unknown = None;
    targets.retain(|target| {
        let lacking = ids.iter().find(|id| !can_have_file(target.dialect, client, id));
        match lacking.filter(|_| is_needed(request, target)) {
            Some(id) => {
                unknown = Some(*id);
                false
            }
            None => true,
        }
    });
    let id = sanitize::clean(unknown?);
    let field = if client == Dialect::Gemini { "fileUri" } else { "file_id" };
    let message = format!(
        "`{field}` '{}' names a file that is stored at another provider, and no upstream for this model has it; send the file's data or a public URL instead",
        sanitize::truncate_end(&id, MAX_ID_SHOWN)
    );
    Some(refusal(message).param(field))
}

fn refusal(message: String) -> ProxyError {
    ProxyError::new(ProxyErrorKind::BadRequest, message).code("unsupported_parameter")
}

fn collect_file_ids<'r>(block: &'r Block, ids: &mut Vec<&'r str>) {
    match &block.kind {
        BlockKind::Media(media) => {
            if let MediaSource::FileId(id) = &media.source {
                ids.push(id);
            }
        }
        BlockKind::ToolResult(result) => {
            result.content.iter().for_each(|block| collect_file_ids(block, ids));
        }
        _ => {}
    }
}

/// Whether a provider of this dialect can have the file. Ids tell by their form who made them:
/// `file-…` OpenAI, `file_…` Anthropic and xAI, an address Gemini.
fn can_have_file(target: Dialect, client: Dialect, id: &str) -> bool {
    let is_address = id.contains("://") || id.starts_with("files/");
    match target {
        Dialect::Gemini => is_address,
        Dialect::Anthropic => id.starts_with("file_"),
        Dialect::Openai | Dialect::Responses => {
            let is_anthropic = client == Dialect::Anthropic && id.starts_with("file_");
            !is_address && !is_anthropic
        }
        Dialect::Ollama => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_exist_only_at_the_provider_that_created_them() {
        use Dialect::{Anthropic, Gemini, Ollama, Openai, Responses};
        let uri = "https://generativelanguage.googleapis.com/v1beta/files/abc";
        for (target, client, id, want) in [
            (Openai, Responses, "file-abc", true),
            (Responses, Openai, "file-abc", true),
            (Anthropic, Openai, "file-abc", false),
            (Gemini, Responses, "file-abc", false),
            (Ollama, Openai, "file-abc", false),
            (Openai, Anthropic, "file_abc", false),
            (Anthropic, Anthropic, "file_abc", true),
            (Openai, Gemini, uri, false),
            (Responses, Gemini, "files/abc", false),
            (Gemini, Gemini, uri, true),
        ] {
            assert_eq!(can_have_file(target, client, id), want, "{client} to {target}: {id}");
        }
    }
}
