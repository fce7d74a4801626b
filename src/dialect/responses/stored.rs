//! Answers requests about conversations that aiproxy stores: their input items, deletion,
//! compaction, token counts.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    base::json::{raw::RawJson, writer},
    dialect::{
        egress::{TargetTraits, Thinking},
        errors::read_error,
        ingress::ResponseSpec,
        losses::Losses,
        responses::{
            input_read::InputItemsReader, input_write::InputItemsWriter, schema,
            tools::names::ResponsesToolNames,
        },
    },
    ir::{
        block::{Block, BlockKind},
        fault::Fault,
        generation_settings::GenerationSettings,
        request::{ChatMessage, ChatRequest, Role},
        response::ChatResponse,
        tool::{Tool, ToolChoice},
    },
};

/// The part of a list that the client requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputItemsQuery {
    pub limit: usize,
    /// The id of the item before the first requested one.
    pub after: Option<String>,
    pub ascending: bool,
}

/// The prefix of the content of a compaction that aiproxy made. The plain summary follows it. It
/// begins like the ids of reasoning that aiproxy made: by them a request is recognised that a
/// provider of this API would refuse as it is.
const COMPACTION_PREFIX: &str = "rs_aip_summary:";
/// The prefix in earlier versions.
const EARLIER_COMPACTION_PREFIX: &str = "aip1:";
pub(super) const MISSING_SUMMARY: &str = "no summary of the conversation";
const SUMMARY_INTRO: &str = "The conversation so far, in short:\n\n";
const COMPACTION_PROMPT: &str = "Summarise this conversation for a reader who has to go on with it and will see nothing of it but your summary and the \
     user's own messages. Tell what was asked, what was found out, decided and done (with names, paths, numbers and code that will be \
     needed again), what is still open, and what the next step is. Answer with the summary only. Call no tools.";

impl InputItemsQuery {
    /// Reads the query of a list: `limit`, `after`, `order`. Invalid values count as absent.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let find = |key: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value)
        };
        Self {
            limit: find("limit")
                .and_then(|limit| limit.parse().ok())
                .unwrap_or(20_usize)
                .clamp(1, 100),
            after: find("after").map(str::to_owned),
            ascending: find("order") == Some("asc"),
        }
    }
}

/// Writes the response to `GET /v1/responses/{id}/input_items`: the request's input as items with
/// ids. `id` is the id of the response.
#[must_use]
pub fn write_input_items(request: &ChatRequest, id: &str, page: &InputItemsQuery) -> Bytes {
    let mut all: Vec<Value> = list_items(request, id);
    if !page.ascending {
        all.reverse();
    }
    let from = match &page.after {
        Some(after) => {
            all.iter().position(|item| item["id"] == after.as_str()).map_or(all.len(), |at| at + 1)
        }
        None => 0,
    };
    let rest = &all[from.min(all.len())..];
    let data = &rest[..rest.len().min(page.limit)];
    let id = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    let list = json!({
        "object": "list",
        "data": data,
        "first_id": id(data.first()),
        "last_id": id(data.last()),
        "has_more": rest.len() > data.len(),
    });
    list.to_string().into()
}

fn list_items(request: &ChatRequest, id: &str) -> Vec<Value> {
    let traits = TargetTraits {
        model: String::new(),
        stream: false,
        max_output: None,
        thinking: Thinking::Effort,
        max_tokens_field: "max_output_tokens",
        developer_role: false,
        accepts_reasoning: true,
        ask_usage: true,
        facts: Default::default(),
        call_id_seed: id.to_owned(),
    };
    let (names, mut losses) = (ResponsesToolNames::from_request(request), Losses::default());
    let mut items = InputItemsWriter::new(request, &names, &traits, &mut losses);
    items.write_all();
    let seed = id.strip_prefix("resp_").unwrap_or(id);
    let values = items
        .items
        .iter()
        .filter_map(|text| serde_json::from_str::<Value>(text).ok())
        .filter(Value::is_object);
    values.enumerate().map(|(n, item)| fill_item_defaults(item, seed, n)).collect()
}

/// Adds the fields that are optional in a request's item and required in a list's item.
fn fill_item_defaults(mut item: Value, seed: &str, n: usize) -> Value {
    let kind = item["type"].as_str().unwrap_or("message").to_owned();
    item["type"] = kind.as_str().into();
    if item["id"].as_str().is_none_or(str::is_empty) {
        let prefix = match kind.as_str() {
            "message" => "msg",
            "function_call" => "fc",
            "function_call_output" => "fco",
            "custom_tool_call" => "ctc",
            "custom_tool_call_output" => "ctco",
            "reasoning" => "rs_aip",
            _ => "item",
        };
        item["id"] = format!("{prefix}_{seed}_in{n}").into();
    }
    if item["status"].is_null() && kind != "reasoning" {
        item["status"] = "completed".into();
    }
    if kind == "message"
        && let Some(text) = item["content"].as_str()
    {
        let part = if item["role"] == "assistant" {
            json!({ "type": "output_text", "text": text, "annotations": [] })
        } else {
            json!({ "type": "input_text", "text": text })
        };
        item["content"] = json!([part]);
    }
    item
}

/// Writes the response to `DELETE /v1/responses/{id}`.
#[must_use]
pub fn write_deleted(id: &str) -> Bytes {
    json!({ "id": id, "object": "response", "deleted": true }).to_string().into()
}

/// Writes the response to `POST /v1/responses/input_tokens`.
#[must_use]
pub fn write_input_tokens(count: u64) -> Bytes {
    json!({ "object": "response.input_tokens", "input_tokens": count }).to_string().into()
}

/// The id of the response to which an output item of aiproxy belongs.
#[must_use]
pub fn response_of_item(id: &str) -> Option<String> {
    let (rest, number) = id.rsplit_once('_')?;
    number.parse::<u32>().ok()?;
    Some(format!("resp_{}", rest.rsplit('_').next()?))
}

/// Reads a stored output item as a part of a conversation; nothing if it is no item.
#[must_use]
pub fn read_item(item: &str, tools: &[Tool]) -> Vec<ChatMessage> {
    let Some(item) = RawJson::parse(item) else { return Vec::new() };
    let mut reader = InputItemsReader::new(tools);
    match reader.read_item(item.json(), 0) {
        Ok(()) => reader.finish().1,
        Err(_) => Vec::new(),
    }
}

/// The request that asks any model for the summary that [`write_compaction`] needs.
#[must_use]
pub fn compaction_request(request: &ChatRequest) -> ChatRequest {
    let mut messages = request.messages.clone();
    messages.push(ChatMessage::new(Role::User, vec![Block::text(COMPACTION_PROMPT)]));
    ChatRequest {
        system: request.system.clone(),
        messages,
        tools: request.tools.clone(),
        tool_choice: (!request.tools.is_empty()).then_some(ToolChoice::None),
        settings: GenerationSettings {
            user: request.settings.user.clone(),
            prompt_cache_key: request.settings.prompt_cache_key.clone(),
            ..GenerationSettings::default()
        },
        ..ChatRequest::default()
    }
}

/// Writes the response to `POST /v1/responses/compact`: the user's messages, and the model's
/// summary of the whole conversation as a `compaction` item. The item is not encrypted. The request
/// reader reads it on a later turn, so that it can go to any upstream.
#[must_use]
pub fn write_compaction(
    request: &ChatRequest,
    answer: &ChatResponse,
    shape: &ResponseSpec,
) -> Bytes {
    let has_user_content = |message: &&ChatMessage| {
        message.role == Role::User
            && message.blocks.iter().any(|block| {
                !matches!(block.kind, BlockKind::ToolResult(_) | BlockKind::Foreign { .. })
            })
    };
    let users = ChatRequest {
        messages: request.messages.iter().filter(has_user_content).cloned().collect(),
        ..ChatRequest::default()
    };
    let compaction = compaction_item(&format!("cmp_{}", shape.request_id), &summary_text(answer));
    let mut output = list_items(&users, &shape.request_id);
    output.push(serde_json::from_str(&compaction).unwrap_or_default());
    let body = writer::object(|o| {
        o.str("id", &format!("resp_{}", shape.request_id))
            .str("object", "response.compaction")
            .num("created_at", shape.created);
        o.raw_text("output", &Value::Array(output).to_string());
        o.object("usage", |o| schema::write_usage(o, &answer.usage.unwrap_or_default()));
    });
    body.into()
}

fn summary_text(answer: &ChatResponse) -> String {
    let texts = answer.blocks.iter().filter_map(|block| match &block.kind {
        BlockKind::Text(text) => Some(text.text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// The message with which a conversation continues after its compaction by this answer.
#[must_use]
pub fn summary_message(answer: &ChatResponse) -> ChatMessage {
    let text = format!("{SUMMARY_INTRO}{}", summary_text(answer));
    ChatMessage::new(Role::User, vec![Block::text(text)])
}

/// Whether an answer is to be a compaction but has no text that could stand for the conversation.
#[must_use]
pub fn is_summary_missing(answer: &ChatResponse) -> bool {
    summary_text(answer).trim().is_empty()
}

/// The fault of such an answer: an empty summary would end the conversation's memory.
#[must_use]
pub fn missing_summary_fault() -> Fault {
    read_error::unexpected_shape(MISSING_SUMMARY)
}

/// An item that holds a summary. It is not encrypted; [`read_compaction`] reads it.
pub(super) fn compaction_item(id: &str, summary: &str) -> String {
    writer::object(|o| {
        o.str("id", id).str("type", "compaction");
        o.str("encrypted_content", &format!("{COMPACTION_PREFIX}{summary}"));
    })
}

/// The text of a compaction that aiproxy made; `None` for a provider's own.
pub(super) fn read_compaction(content: &str) -> Option<String> {
    let summary = content
        .strip_prefix(COMPACTION_PREFIX)
        .or_else(|| content.strip_prefix(EARLIER_COMPACTION_PREFIX))?;
    Some(format!("{SUMMARY_INTRO}{summary}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{framing::Framing, json::reader},
        dialect::{ingress::ChatEndpoint, responses::request_read},
        ir::extras::Extras,
    };

    fn value(bytes: &Bytes) -> Value {
        serde_json::from_slice(bytes).expect("json")
    }

    fn request(body: &str) -> ChatRequest {
        request_read::read_request(body.as_bytes()).expect("a request")
    }

    #[test]
    fn input_items_are_listed_newest_first_page_by_page() {
        let request = request(
            r#"{"input":[{"role":"user","content":"a"},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"x"}]}"#,
        );
        let list = value(&write_input_items(&request, "resp_7", &InputItemsQuery::parse("")));
        let kinds: Vec<_> = list["data"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|item| item["type"].as_str().expect("a type"))
            .collect();
        assert_eq!(
            (kinds, &list["has_more"]),
            (vec!["function_call_output", "function_call", "message"], &json!(false))
        );
        assert_eq!(
            list["data"][2],
            json!({"type":"message","role":"user","id":"msg_7_in0","status":"completed","content":[{"type":"input_text","text":"a"}]})
        );
        let page = value(&write_input_items(
            &request,
            "resp_7",
            &InputItemsQuery::parse("limit=1&order=asc&after=msg_7_in0"),
        ));
        assert_eq!(
            (&page["data"][0]["type"], &page["has_more"], &page["first_id"]),
            (&json!("function_call"), &json!(true), &json!("fc_7_in1"))
        );
    }

    #[test]
    fn local_compaction_is_continued_on_any_upstream() {
        let asked = request(
            r#"{"input":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"tools":[{"type":"function","name":"f"}]}"#,
        );
        let ask = compaction_request(&asked);
        assert_eq!((ask.messages.len(), ask.tool_choice), (3, Some(ToolChoice::None)));
        let shape = ResponseSpec {
            endpoint: ChatEndpoint::Chat,
            model: "m".to_owned(),
            request_id: "7".to_owned(),
            created: 5,
            framing: Framing::Sse,
            include_usage: true,
            custom_tools: Vec::new(),
            namespaced_tools: Vec::new(),
            client_tools: Vec::new(),
            compaction: false,
            echo: Extras::default(),
        };
        let answer =
            ChatResponse { blocks: vec![Block::text("they reply b")], ..ChatResponse::default() };
        let body = value(&write_compaction(&asked, &answer, &shape));
        assert_eq!(
            (&body["object"], body["output"].as_array().map(Vec::len)),
            (&json!("response.compaction"), Some(2))
        );
        let next = request(&json!({ "input": body["output"] }).to_string());
        assert_eq!(
            next.messages[1].blocks,
            vec![Block::text("The conversation so far, in short:\n\nthey reply b")]
        );
        assert!(
            reader::parse(&write_deleted("resp_7")).is_ok()
                && reader::parse(&write_input_tokens(3)).is_ok()
        );
    }
}
