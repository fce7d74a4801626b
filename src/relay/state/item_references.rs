//! Replaces references to items of stored responses (`item_reference`) by the items.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use crate::relay::state::response_store::{ResponseStore, StoredAt, fill_result_names};
use crate::{
    base::sanitize,
    dialect::stored,
    ir::{
        block::{Block, BlockKind},
        fault::{ProxyError, ProxyErrorKind},
        op::Dialect,
        request::{ChatMessage, ChatRequest, Role},
    },
};

/// The longest part of an id in an error, in bytes.
const MAX_ID_SHOWN: usize = 80;

/// Replaces every reference by the item that it names.
///
/// # Errors
///
/// The item is not stored here, or named twice: then the conversation would have a hole.
pub fn resolve(
    store: &ResponseStore,
    project: &Arc<str>,
    request: &mut ChatRequest,
) -> Result<(), ProxyError> {
    let has_reference =
        |message: &ChatMessage| message.blocks.iter().any(|block| reference(block).is_some());
    if !request.messages.iter().any(has_reference) {
        return Ok(());
    }
    let mut items = StoredItems { store, project, responses: HashMap::new() };
    let mut seen = HashSet::new();
    let mut messages = Vec::with_capacity(request.messages.len());
    for message in std::mem::take(&mut request.messages) {
        if !has_reference(&message) {
            messages.push(message);
            continue;
        }
        let mut open = ChatMessage { blocks: Vec::new(), ..message };
        for block in message.blocks {
            let Some(id) = reference(&block) else {
                open.blocks.push(block);
                continue;
            };
            let Some(item) = items.find(&id).filter(|_| seen.insert(id.clone())) else {
                return Err(unknown_item(&id));
            };
            for found in stored::read_item(&item.to_string(), &request.tools) {
                if found.role == Role::Assistant {
                    open.blocks.extend(found.blocks);
                } else {
                    messages.push(ChatMessage {
                        blocks: std::mem::take(&mut open.blocks),
                        ..open.clone()
                    });
                    messages.push(found);
                }
            }
        }
        messages.push(open);
    }
    messages.retain(|message| !message.blocks.is_empty() || !message.extras.is_empty());
    request.messages = messages;
    fill_result_names(request);
    Ok(())
}

/// The id of the item that a block stands for.
fn reference(block: &Block) -> Option<String> {
    let BlockKind::Foreign { dialect: Dialect::Responses, body } = &block.kind else { return None };
    let json = body.json();
    (json.string_at("type")? == "item_reference").then(|| json.string_at("id").unwrap_or_default())
}

/// The items of stored responses; each response is read once.
struct StoredItems<'s> {
    store: &'s ResponseStore,
    project: &'s Arc<str>,
    responses: HashMap<String, HashMap<String, Value>>,
}

impl StoredItems<'_> {
    fn find(&mut self, id: &str) -> Option<&Value> {
        let response = stored::response_of_item(id)?;
        if !self.responses.contains_key(&response) {
            let items = match self.store.find(self.project, &response)? {
                StoredAt::Local { body, .. } => read_output(&body),
                StoredAt::Upstream { .. } => return None,
            };
            self.responses.insert(response.clone(), items);
        }
        self.responses.get(&response)?.get(id)
    }
}

fn read_output(body: &[u8]) -> HashMap<String, Value> {
    let Ok(Value::Object(mut response)) = serde_json::from_slice(body) else {
        return HashMap::new();
    };
    let Some(Value::Array(output)) = response.remove("output") else { return HashMap::new() };
    output.into_iter().filter_map(|item| Some((item["id"].as_str()?.to_owned(), item))).collect()
}

fn unknown_item(id: &str) -> ProxyError {
    let id = sanitize::clean(id);
    let message = format!(
        "Item with id '{}' not found, or named twice. aiproxy keeps items of its own responses in memory for a day, for the project that asked, unless `store` is false; send the item itself instead of an `item_reference`",
        sanitize::truncate_end(&id, MAX_ID_SHOWN)
    );
    ProxyError::new(ProxyErrorKind::BadRequest, message).code("item_not_found").param("input")
}
