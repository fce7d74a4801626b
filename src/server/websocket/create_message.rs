//! `response.create` messages of clients.

use bytes::Bytes;

use crate::{
    base::json::{
        reader::{self, JsonRef},
        writer,
    },
    ir::fault::{ProxyError, ProxyErrorKind},
    server::websocket::conversation::Conversations,
};

/// Members of a message that a request over HTTP does not have.
const MESSAGE_MEMBERS: [&str; 6] =
    ["background", "generate", "stream", "stream_id", "stream_options", "type"];

/// A request, as it is sent over HTTP.
#[derive(Debug)]
pub(super) struct CreateMessage {
    pub(super) body: Bytes,
    /// The items of its input, separated by commas.
    pub(super) input: String,
    /// Whether the provider may store the response.
    pub(super) is_stored: bool,
    /// Whether a response is wanted; otherwise the input is only to be remembered.
    pub(super) generates: bool,
    pub(super) model: Option<String>,
}

/// Reads a message. A request that continues a response of this connection that no provider
/// has stored contains the whole conversation then.
///
/// # Errors
///
/// Not JSON, or another kind of message.
pub(super) fn read(message: &str, known: &Conversations) -> Result<CreateMessage, ProxyError> {
    let bad = |text: &str| ProxyError::new(ProxyErrorKind::BadRequest, text.to_owned());
    let root = reader::parse(message.as_bytes())
        .ok()
        .filter(|root| root.is_object())
        .ok_or_else(|| bad("a message must be a JSON object"))?;
    match root.string_at("type").as_deref() {
        Some("response.create") => {}
        Some(other) => {
            return Err(bad(&format!(
                "`{}` is no message that this server takes; send `response.create`",
                other.escape_debug()
            ))
            .param("type"));
        }
        None => return Err(bad("a message needs a `type`: `response.create`").param("type")),
    }
    // Some clients put the request into a member, as the Realtime API does.
    let request = root.get("response").filter(|inner| inner.is_object()).unwrap_or(root);
    let flag = |name: &str| request.get(name).and_then(JsonRef::bool);
    let previous = request.string_at("previous_response_id");
    let earlier = previous.as_deref().and_then(|id| known.items_up_to(id));
    let mut input = earlier.unwrap_or_default().to_owned();
    append_input(&mut input, request.get("input"));
    let mut body = String::with_capacity(message.len() + input.len() + 32);
    body.push_str("{\"stream\":true");
    for (key, value) in request.members() {
        let is_replaced = earlier.is_some() && matches!(key, "input" | "previous_response_id");
        if MESSAGE_MEMBERS.contains(&key) || is_replaced {
            continue;
        }
        body.push_str(",\"");
        body.push_str(key);
        body.push_str("\":");
        body.push_str(value.text());
    }
    if earlier.is_some() {
        body.push_str(",\"input\":[");
        body.push_str(&input);
        body.push(']');
    }
    body.push('}');
    Ok(CreateMessage {
        body: body.into(),
        input,
        is_stored: flag("store") != Some(false),
        generates: flag("generate") != Some(false),
        model: request.string_at("model"),
    })
}

/// What decides when a message is answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MessageEnvelope {
    /// Responses with one `stream_id` are made one after the other.
    pub(super) stream_id: Option<String>,
    /// The client only confirms that it has read a response.
    pub(super) is_confirmation: bool,
}

pub(super) fn read_envelope(message: &str) -> MessageEnvelope {
    let Ok(root) = reader::parse(message.as_bytes()) else { return MessageEnvelope::default() };
    MessageEnvelope {
        stream_id: root.string_at("stream_id"),
        is_confirmation: root.string_at("type").as_deref() == Some("response.processed"),
    }
}

/// Appends the items of an input, which may be a text.
fn append_input(items: &mut String, input: Option<JsonRef<'_>>) {
    let Some(input) = input else { return };
    let mut push = |item: &str| {
        if !items.is_empty() {
            items.push(',');
        }
        items.push_str(item);
    };
    match input.str() {
        Some(text) => push(&writer::object(|o| {
            o.str("type", "message").str("role", "user").str("content", &text);
        })),
        None => input.items().for_each(|item| push(item.text())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(message: &CreateMessage) -> Value {
        serde_json::from_slice(&message.body).expect("JSON")
    }

    #[test]
    fn message_becomes_a_streaming_request() {
        let message = json!({"type": "response.create", "model": "m", "input": "hi", "background": false, "store": false, "metadata": {"type": "x"}});
        let read = read(&message.to_string(), &Conversations::default()).expect("a request");
        assert_eq!(
            body(&read),
            json!({"stream": true, "model": "m", "input": "hi", "store": false, "metadata": {"type": "x"}})
        );
        assert!(read.generates && !read.is_stored);
        assert_eq!(read.model.as_deref(), Some("m"));
    }

    #[test]
    fn unstored_response_is_continued_with_all_its_items() {
        let mut known = Conversations::default();
        let output = reader::parse(br#"[{"b":2}]"#).ok();
        known.record("resp_1".to_owned(), r#"{"a":1}"#, output);
        let message = json!({"type": "response.create", "model": "m", "previous_response_id": "resp_1", "input": [{"c": 3}]});
        let read_message = |message: &Value| read(&message.to_string(), &known).expect("a request");
        let continued = read_message(&message);
        assert_eq!(
            body(&continued),
            json!({"stream": true, "model": "m", "input": [{"a": 1}, {"b": 2}, {"c": 3}]})
        );
        let mut other = message;
        other["previous_response_id"] = "resp_2".into();
        assert_eq!(body(&read_message(&other))["previous_response_id"], "resp_2");
    }

    #[test]
    fn other_messages_are_refused_with_their_type() {
        let refused = |message: &str| {
            read(message, &Conversations::default()).expect_err("no request").message
        };
        assert!(refused("[]").contains("JSON object"));
        assert!(refused("{").contains("JSON object"));
        assert!(refused("{}").contains("`response.create`"));
        assert!(refused(r#"{"type":"session.update"}"#).contains("`session.update`"));
        assert_eq!(read_envelope("{"), MessageEnvelope::default());
        assert!(read_envelope(r#"{"type":"response.processed"}"#).is_confirmation);
    }
}
