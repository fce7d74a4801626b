//! Ollama's chat and generate.

mod answer;
mod answer_write;
mod image;
mod meter;
mod request_read;
mod request_write;
mod schema;
mod stream_read;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use crate::{
    dialect::{
        Carry, Egress, Encoded, Framing, Ingress, Meter, Place, Shape, StreamReader, StreamWriter,
        Summary, Traits,
        any::AnyMeter,
        classic, shape, status,
        words::{self, SENT},
    },
    ir::{
        fault::{Fault, ProxyError},
        op::{Dialect, Op},
        request::ChatRequest,
        response::ChatResponse,
    },
};

pub(super) use answer_write::loaded;

pub(super) struct Ollama;

impl Ingress for Ollama {
    fn dialect(&self) -> Dialect {
        Dialect::Ollama
    }

    fn write_error(&self, error: &ProxyError, _request_id: &str) -> (StatusCode, Bytes) {
        (status::code(classic::told(error).status), body(error).into())
    }

    fn stream_error(&self, error: &ProxyError, _request_id: &str, _framing: Framing) -> Bytes {
        format!("{}\n", body(error)).into()
    }

    fn ping(&self, _framing: Framing) -> Option<&'static [u8]> {
        None
    }

    fn read_request(&self, place: Place, body: &[u8]) -> Result<ChatRequest, ProxyError> {
        request_read::read(place, body)
    }

    fn write_response(&self, response: &ChatResponse, shape: &Shape) -> Bytes {
        answer_write::whole(response, shape)
    }

    fn stream_writer(&self, shape: &Shape) -> Box<dyn StreamWriter> {
        Box::new(answer_write::LineWriter::new(shape))
    }
}

fn body(error: &ProxyError) -> String {
    json!({ "error": words::escaped(&error.message, SENT) }).to_string()
}

impl Egress for Ollama {
    fn dialect(&self) -> Dialect {
        Dialect::Ollama
    }

    fn read_answer(&self, op: Op, content_type: &str, body: &[u8]) -> Result<Summary, Fault> {
        match op {
            Op::Chat => answer::read(content_type, body),
            Op::Embed => answer::read_embedding(content_type, body),
            _ => shape::other(content_type, body),
        }
    }

    fn meter(&self, op: Op) -> Box<dyn Meter> {
        match op {
            Op::Chat => Box::new(meter::LineMeter::default()),
            _ => Box::new(AnyMeter::default()),
        }
    }

    fn models_path(&self) -> &'static str {
        "/api/tags"
    }

    fn as_stream(&self, _op: Op, body: &[u8], _framing: Framing) -> Result<Bytes, Fault> {
        answer::as_stream(body)
    }

    fn as_answer(&self, _op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
        answer::as_answer(events)
    }

    fn chat_path(&self, _stream: bool) -> (&'static str, &'static str) {
        ("/api/chat", "")
    }

    fn chat_framing(&self) -> Framing {
        Framing::Ndjson
    }

    fn write_request(&self, request: &ChatRequest, traits: &Traits) -> Encoded {
        request_write::write(request, traits)
    }

    fn read_response(
        &self,
        content_type: &str,
        body: &[u8],
        carry: &Carry,
    ) -> Result<ChatResponse, Fault> {
        stream_read::whole(content_type, body, carry)
    }

    fn stream_reader(&self, carry: &Carry) -> Box<dyn StreamReader> {
        Box::new(stream_read::LineReader::new(carry))
    }
}
