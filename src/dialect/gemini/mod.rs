//! Gemini's generateContent and streamGenerateContent.

mod answer;
mod answer_write;
mod cited_read;
mod contents_write;
mod error;
mod finish;
#[cfg(test)]
mod laws;
mod meter;
mod part_read;
mod part_write;
mod request_read;
mod request_write;
mod response_read;
mod response_write;
mod schema;
mod stream_read;
mod stream_write;
mod turns;
mod wire;

use bytes::Bytes;
use http::StatusCode;

use crate::{
    dialect::{
        Carry, Egress, Encoded, Framing, Ingress, Meter, Place, Shape, StreamReader, StreamWriter,
        Summary, Traits, any::AnyMeter, shape,
    },
    ir::{
        fault::{Fault, ProxyError},
        op::{Dialect, Op},
        request::ChatRequest,
        response::ChatResponse,
    },
};

pub(super) struct Gemini;

impl Ingress for Gemini {
    fn dialect(&self) -> Dialect {
        Dialect::Gemini
    }

    fn write_error(&self, error: &ProxyError, request_id: &str) -> (StatusCode, Bytes) {
        error::write(error, request_id)
    }

    fn stream_error(&self, error: &ProxyError, request_id: &str, framing: Framing) -> Bytes {
        error::event(error, request_id, framing, 0)
    }

    fn stream_error_after(
        &self,
        error: &ProxyError,
        request_id: &str,
        framing: Framing,
        events: u32,
    ) -> Bytes {
        error::event(error, request_id, framing, events)
    }

    /// A blank line: between events it is nothing, between the elements of an array it is white
    /// space.
    fn ping(&self, _framing: Framing) -> Option<&'static [u8]> {
        Some(b"\n")
    }

    fn read_request(&self, _place: Place, body: &[u8]) -> Result<ChatRequest, ProxyError> {
        request_read::read(body)
    }

    fn write_response(&self, response: &ChatResponse, shape: &Shape) -> Bytes {
        response_write::write(response, shape)
    }

    fn stream_writer(&self, shape: &Shape) -> Box<dyn StreamWriter> {
        Box::new(stream_write::ContentWriter::new(shape))
    }
}

impl Egress for Gemini {
    fn dialect(&self) -> Dialect {
        Dialect::Gemini
    }

    fn read_answer(&self, op: Op, content_type: &str, body: &[u8]) -> Result<Summary, Fault> {
        match op {
            Op::Chat => answer::read(content_type, body),
            _ => shape::other(content_type, body),
        }
    }

    fn meter(&self, op: Op) -> Box<dyn Meter> {
        match op {
            Op::Chat => Box::new(meter::ContentMeter::default()),
            _ => Box::new(AnyMeter::default()),
        }
    }

    fn as_stream(&self, _op: Op, body: &[u8], framing: Framing) -> Result<Bytes, Fault> {
        answer::as_stream(body, framing)
    }

    fn as_answer(&self, _op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
        answer::as_answer(events)
    }

    fn chat_path(&self, stream: bool) -> (&'static str, &'static str) {
        if stream {
            ("/models/{model}:streamGenerateContent", "alt=sse")
        } else {
            ("/models/{model}:generateContent", "")
        }
    }

    fn chat_framing(&self) -> Framing {
        Framing::Sse
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
        response_read::read(content_type, body, carry)
    }

    fn stream_reader(&self, carry: &Carry) -> Box<dyn StreamReader> {
        Box::new(stream_read::ContentReader::new(carry))
    }
}
