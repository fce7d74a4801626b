//! One response while it runs: a stream of the messages that the client gets.

use std::{borrow::Cow, pin::Pin};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::Response;
use http_body_util::BodyExt;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::server::activity::OpenRequest;
use crate::{
    base::{
        framing::{FrameSplitter, Framing, splitter::NextFrame, sse},
        json::{
            reader::{self, JsonRef},
            writer,
        },
    },
    relay::response::ResponseBody,
};

/// The largest error body that is read from a response of ours.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// What a running response gives, with the stream of the client that it belongs to.
pub(super) struct Output {
    pub(super) stream_id: Option<String>,
    pub(super) kind: OutputKind,
}

pub(super) enum OutputKind {
    /// A message for the client.
    Message(Utf8Bytes),
    /// The message with the whole response.
    Complete(Utf8Bytes),
    /// Nothing follows.
    End,
}

impl Output {
    /// Adds the name of the stream to the message.
    fn new(kind: OutputKind, stream_id: &Option<String>) -> Self {
        let kind = match (kind, stream_id) {
            (OutputKind::Message(text), Some(id)) => OutputKind::Message(with_id(&text, id)),
            (OutputKind::Complete(text), Some(id)) => OutputKind::Complete(with_id(&text, id)),
            (kind, _) => kind,
        };
        Self { stream_id: stream_id.clone(), kind }
    }
}

pub(super) type Outputs = Pin<Box<dyn Stream<Item = Output> + Send>>;

enum State<F> {
    /// The response has not begun.
    Asked(Pin<Box<F>>),
    Reading {
        body: ResponseBody,
        splitter: FrameSplitter,
        chunk: Bytes,
        at: usize,
    },
    Last,
    Over,
}

/// Runs a request.
pub(super) fn run(
    served: impl Future<Output = Response<ResponseBody>> + Send + 'static,
    stream_id: Option<String>,
    open: OpenRequest,
) -> Outputs {
    let begin = State::Asked(Box::pin(served));
    Box::pin(stream::unfold((begin, stream_id, open), |(state, stream_id, open)| async move {
        let (kind, state) = next(state).await?;
        Some((Output::new(kind, &stream_id), (state, stream_id, open)))
    }))
}

async fn next<F>(mut state: State<F>) -> Option<(OutputKind, State<F>)>
where
    F: Future<Output = Response<ResponseBody>>,
{
    loop {
        match state {
            State::Asked(served) => {
                let response = served.await;
                if !response.status().is_success() {
                    let text = read_error(response).await;
                    return Some((OutputKind::Message(text.into()), State::Last));
                }
                state = State::Reading {
                    body: response.into_body(),
                    splitter: FrameSplitter::new(Framing::Sse),
                    chunk: Bytes::new(),
                    at: 0,
                };
            }
            State::Reading { mut body, mut splitter, mut chunk, mut at } => {
                let block = match splitter.next(&chunk, &mut at) {
                    NextFrame::Borrowed(range) => Some(chunk.slice(range)),
                    NextFrame::Joined(block) => Some(block),
                    NextFrame::TooLong => {
                        return Some(broken("an event of the response is too long"));
                    }
                    NextFrame::Incomplete => None,
                };
                if let Some(block) = block {
                    let output = read_output(&block);
                    state = State::Reading { body, splitter, chunk, at };
                    match output {
                        Some(output) => return Some((output, state)),
                        None => continue,
                    }
                }
                match body.frame().await {
                    Some(Ok(frame)) => {
                        (chunk, at) = (frame.into_data().unwrap_or_default(), 0);
                        state = State::Reading { body, splitter, chunk, at };
                    }
                    Some(Err(_)) => return Some(broken("the response broke off")),
                    None => {
                        state = State::Last;
                        if let Some(output) = read_output(&splitter.remainder()) {
                            return Some((output, state));
                        }
                    }
                }
            }
            State::Last => return Some((OutputKind::End, State::Over)),
            State::Over => return None,
        }
    }
}

fn broken<F>(message: &str) -> (OutputKind, State<F>) {
    let text = error_message(502, |o| {
        o.str("type", "server_error").str("code", "upstream_error").str("message", message);
    });
    (OutputKind::Message(text.into()), State::Last)
}

/// Returns the message of an event.
fn read_output(block: &[u8]) -> Option<OutputKind> {
    let event = sse::read_event(block);
    let data = match event.data {
        Cow::Borrowed(data) => Bytes::copy_from_slice(data),
        Cow::Owned(data) => data.into(),
    };
    let text = Utf8Bytes::try_from(data).ok()?;
    if text.is_empty() || text.as_str() == "[DONE]" {
        return None;
    }
    Some(match event.name {
        b"response.completed" | b"response.incomplete" => OutputKind::Complete(text),
        b"" if is_complete(&text) => OutputKind::Complete(text),
        _ => OutputKind::Message(text),
    })
}

fn is_complete(event: &str) -> bool {
    reader::parse(event.as_bytes())
        .ok()
        .and_then(|event| event.string_at("type"))
        .is_some_and(|kind| matches!(&*kind, "response.completed" | "response.incomplete"))
}

/// Adds the client's name of the stream to a message, which is an object with members.
fn with_id(message: &Utf8Bytes, stream_id: &str) -> Utf8Bytes {
    let Some(members) = message.trim_start().strip_prefix('{') else { return message.clone() };
    let mut text = writer::object(|o| {
        o.str("stream_id", stream_id);
    });
    text.pop();
    text.reserve(members.len() + 1);
    if !members.trim_start().starts_with('}') {
        text.push(',');
    }
    text.push_str(members);
    text.into()
}

/// Reads the error of a response into the message for it, which always has a code.
async fn read_error(response: Response<ResponseBody>) -> String {
    let status = response.status().as_u16();
    let body = http_body_util::Limited::new(response.into_body(), MAX_ERROR_BYTES);
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let root = reader::parse(&body).ok();
    let error = root.and_then(|root| root.get("error"));
    error_message(status, |o| {
        for (key, value) in error.into_iter().flat_map(JsonRef::members) {
            if key != "code" {
                o.json(key, value);
            }
        }
        let word = |name: &str| error.and_then(|error| error.non_empty_at(name));
        let code = word("code").or_else(|| word("type"));
        o.str("code", code.as_deref().unwrap_or("server_error"));
    })
}

fn error_message(status: u16, error: impl FnOnce(&mut writer::ObjectWriter<'_>)) -> String {
    writer::object(|o| {
        o.str("type", "error").num("status", status).object("error", error);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_id_of_their_stream() {
        let named = |text: &'static str| with_id(&Utf8Bytes::from_static(text), "a\"b").to_string();
        assert_eq!(named(r#"{"type":"x"}"#), r#"{"stream_id":"a\"b","type":"x"}"#);
        assert_eq!(named(" { }"), r#"{"stream_id":"a\"b" }"#);
        assert_eq!(named("[]"), "[]");
    }

    #[test]
    fn end_of_a_response_is_detected_by_name_or_type() {
        let kind = |block: &str| match read_output(block.as_bytes()) {
            Some(OutputKind::Message(_)) => "message",
            Some(OutputKind::Complete(_)) => "complete",
            Some(OutputKind::End) => "end",
            None => "none",
        };
        assert_eq!(kind("event: response.completed\ndata: {}\n\n"), "complete");
        assert_eq!(kind("data: {\"type\":\"response.incomplete\"}\n\n"), "complete");
        assert_eq!(kind("event: response.created\ndata: {}\n\n"), "message");
        assert_eq!(kind("data: [DONE]\n\n"), "none");
        assert_eq!(kind(": keep-alive\n\n"), "none");
    }
}
