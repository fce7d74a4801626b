//! Stores responses that a Responses client may refer to by `previous_response_id`, or fetch, list
//! and delete.
//!
//! Stored in memory, bounded in bytes and time, per project; a response with `store: false` is not
//! stored.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use crate::{
    base::{clock::Mono, json::reader, sanitize, sync::Mutex},
    config::settings::{KeyId, UpstreamId},
    dialect::stored,
    ir::{
        block::{BlockKind, CallKind, MediaSource},
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
        response::ChatResponse,
        tool::Tool,
    },
};

const TTL: Duration = Duration::from_secs(24 * 3600);
const MAX_BYTES: usize = 64 << 20;
pub(in crate::relay) const MAX_ENTRY_BYTES: usize = 8 << 20;

/// The stored responses of all projects.
#[derive(Default)]
pub struct ResponseStore(Mutex<ResponseStoreState>);

#[derive(Default)]
struct ResponseStoreState {
    by_id: HashMap<ResponseKey, ResponseEntry>,
    order: VecDeque<(Mono, ResponseKey)>,
    bytes: usize,
}

/// Project and response id.
type ResponseKey = (Arc<str>, Box<str>);

struct ResponseEntry {
    bytes: usize,
    location: StoredAt,
}

/// Where a response is stored.
#[derive(Clone)]
pub enum StoredAt {
    /// In aiproxy: the conversation including the response, and the response body that the client
    /// received. The first `request_messages` are the request's; a request that continues the
    /// conversation begins with the message `continue_from`.
    Local {
        conversation: Arc<ChatRequest>,
        request_messages: usize,
        continue_from: usize,
        body: Bytes,
    },
    /// At the provider, reachable with this key.
    Upstream { upstream: UpstreamId, key: Option<KeyId> },
}

impl ResponseStore {
    /// Stores a translated response, unless the request has `store: false`.
    pub fn insert(
        &self,
        project: &Arc<str>,
        request: &ChatRequest,
        response: &ChatResponse,
        body: Bytes,
        now: Mono,
    ) {
        if request
            .echoed_fields
            .get(Dialect::Responses, "store")
            .is_some_and(|store| store.text() == "false")
        {
            return;
        }
        let id = reader::parse(&body)
            .ok()
            .and_then(|json| json.get("id")?.str().map(|id| Box::from(&*id)));
        let Some(id) = id else { return };
        let mut conversation = ChatRequest {
            messages: request.messages.clone(),
            // The other tools come with every request.
            tools: request.tools.iter().filter(|tool| tool.is_from_input()).cloned().collect(),
            ..ChatRequest::default()
        };
        let mut continue_from = 0;
        let answer = if request.is_compaction() {
            // The summary stands for all before it, without aiproxy's own request for it.
            conversation.messages.pop();
            continue_from = conversation.messages.len();
            stored::summary_message(response)
        } else {
            ChatMessage::new(Role::Assistant, response.blocks.clone())
        };
        let asked = conversation.messages.len();
        conversation.messages.push(answer);
        let bytes = body.len() * 2
            + request.messages.iter().map(|message| message.blocks.len() * 256).sum::<usize>()
            + estimate_bytes(&conversation);
        self.insert_entry(
            project,
            id,
            ResponseEntry {
                bytes,
                location: StoredAt::Local {
                    conversation: Arc::new(conversation),
                    request_messages: asked,
                    continue_from,
                    body,
                },
            },
            now,
        );
    }

    /// Records which upstream stores a response that was passed through.
    pub fn record_upstream(
        &self,
        project: &Arc<str>,
        id: &str,
        upstream: UpstreamId,
        key: Option<KeyId>,
        now: Mono,
    ) {
        self.insert_entry(
            project,
            id.into(),
            ResponseEntry { bytes: 200, location: StoredAt::Upstream { upstream, key } },
            now,
        );
    }

    /// Returns where a response is stored.
    #[must_use]
    pub fn find(&self, project: &Arc<str>, id: &str) -> Option<StoredAt> {
        let state = self.0.lock();
        state.by_id.get(&(Arc::clone(project), id.into())).map(|entry| entry.location.clone())
    }

    /// Removes a response; returns whether it was known.
    pub fn remove(&self, project: &Arc<str>, id: &str) -> bool {
        let mut state = self.0.lock();
        let entry = state.by_id.remove(&(Arc::clone(project), id.into()));
        state.bytes -= entry.as_ref().map_or(0, |entry| entry.bytes);
        entry.is_some()
    }

    /// Inserts the conversation that `previous_response_id` names before the request's own
    /// messages.
    ///
    /// # Errors
    ///
    /// The response is not known here.
    pub fn expand(&self, project: &Arc<str>, request: &mut ChatRequest) -> Result<(), ProxyError> {
        let Some(id) = previous_response_id(request) else { return Ok(()) };
        match self.find(project, &id) {
            Some(StoredAt::Local { conversation, continue_from, .. }) => {
                request
                    .messages
                    .splice(0..0, conversation.messages[continue_from..].iter().cloned());
                add_known_tools(request, &conversation.tools);
                fill_result_names(request);
                request.extras.remove("previous_response_id");
                Ok(())
            }
            _ => Err(unknown_response(&id)),
        }
    }

    fn insert_entry(&self, project: &Arc<str>, id: Box<str>, entry: ResponseEntry, now: Mono) {
        if entry.bytes > MAX_ENTRY_BYTES {
            return;
        }
        let name = (Arc::clone(project), id);
        let mut state = self.0.lock();
        state.bytes += entry.bytes;
        if let Some(old) = state.by_id.insert(name.clone(), entry) {
            state.bytes -= old.bytes;
        }
        state.order.push_back((now, name));
        while let Some((at, _)) = state.order.front() {
            if state.bytes <= MAX_BYTES && now.since(*at) < TTL {
                break;
            }
            if let Some((_, name)) = state.order.pop_front()
                && let Some(old) = state.by_id.remove(&name)
            {
                state.bytes -= old.bytes;
            }
        }
    }
}

/// Adds the tools that earlier input brought, unless the request has tools of their names.
fn add_known_tools(request: &mut ChatRequest, known: &[Tool]) {
    let names: HashSet<&str> = request.tools.iter().filter_map(Tool::name).collect();
    let is_new = |tool: &&Tool| tool.name().is_some_and(|name| !names.contains(name));
    let added: Vec<Tool> = known.iter().filter(is_new).cloned().collect();
    request.tools.extend(added);
}

/// Adds the tools' names to results of calls in the earlier part, because some dialects require
/// them.
pub(super) fn fill_result_names(request: &mut ChatRequest) {
    let mut names: HashMap<String, (String, CallKind)> = HashMap::new();
    for block in request.messages.iter_mut().flat_map(|message| &mut message.blocks) {
        match &mut block.kind {
            BlockKind::ToolCall(call) => {
                names.insert(call.id.clone(), (call.name.clone(), call.form));
            }
            BlockKind::ToolResult(result) if result.name.is_none() => {
                if let Some((name, form)) = names.get(&result.call) {
                    (result.name, result.form) = (Some(name.clone()), *form);
                }
            }
            _ => {}
        }
    }
}

/// Returns the response that a request continues.
#[must_use]
pub fn previous_response_id(request: &ChatRequest) -> Option<String> {
    let id = request.extras.get(Dialect::Responses, "previous_response_id")?;
    id.json().str().map(std::borrow::Cow::into_owned)
}

/// Returns the error for an unknown response id.
#[must_use]
pub fn unknown_response(id: &str) -> ProxyError {
    let id = sanitize::clean(id);
    let id = sanitize::truncate_end(&id, 80);
    let message = format!(
        "Previous response with id '{id}' not found. aiproxy keeps responses in memory for a day, for the project that asked; send the whole conversation as `input` instead"
    );
    ProxyError::new(ProxyErrorKind::BadRequest, message)
        .code("previous_response_not_found")
        .param("previous_response_id")
}

fn estimate_bytes(conversation: &ChatRequest) -> usize {
    let blocks = conversation.messages.iter().flat_map(|message| &message.blocks);
    blocks
        .map(|block| match &block.kind {
            BlockKind::Text(text) => text.text.len(),
            BlockKind::Reasoning(reasoning) => {
                reasoning.text.len() + block.signature.as_ref().map_or(0, |proof| proof.value.len())
            }
            BlockKind::ToolCall(call) => call.arguments.len(),
            BlockKind::ToolResult(result) => result.content.len() * 1024,
            BlockKind::Media(media) => match &media.source {
                MediaSource::Base64(data) | MediaSource::Text(data) => data.len(),
                MediaSource::Url(_) | MediaSource::FileId(_) => 100,
            },
            BlockKind::Refusal(text) => text.len(),
            BlockKind::Foreign { body, .. } => body.text().len(),
        })
        .sum()
}
