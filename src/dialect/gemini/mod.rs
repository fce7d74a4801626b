//! Gemini's generateContent and streamGenerateContent.

mod arrange_turns;
mod buffered;
mod chunk_read;
mod contents_write;
mod error;
mod field_names;
mod finish;
mod grounding_read;
mod meter;
mod part_read;
mod part_write;
mod request_read;
mod request_write;
mod response_parts;
mod response_read;
mod response_write;
#[cfg(test)]
mod roundtrip_tests;
mod schema;
mod schema_read;
mod stream_read;
mod stream_write;

use bytes::Bytes;
use http::StatusCode;

use crate::{
    base::framing::Framing,
    dialect::{
        egress::{AttemptContext, Egress, EncodedRequest, StreamReader, TargetTraits},
        ingress::{ChatEndpoint, Ingress, ResponseSpec, StreamWriter},
        meter::{AnswerSummary, Meter},
    },
    ir::{
        fault::{Fault, ProxyError},
        op::Op,
        request::ChatRequest,
        response::ChatResponse,
    },
};

pub(super) struct Gemini;

impl Ingress for Gemini {
    fn write_error(&self, error: &ProxyError, request_id: &str) -> (StatusCode, Bytes) {
        error::write_error(error, request_id)
    }

    fn stream_error(&self, error: &ProxyError, request_id: &str, framing: Framing) -> Bytes {
        error::error_event(error, request_id, framing, 0)
    }

    fn stream_error_after(
        &self,
        error: &ProxyError,
        request_id: &str,
        framing: Framing,
        events: u32,
    ) -> Bytes {
        error::error_event(error, request_id, framing, events)
    }

    /// A blank line. Between events it has no meaning; between array elements it is white space.
    fn ping(&self, _framing: Framing) -> Option<&'static [u8]> {
        Some(b"\n")
    }

    fn read_request(&self, _place: ChatEndpoint, body: &[u8]) -> Result<ChatRequest, ProxyError> {
        request_read::read_request(body)
    }

    fn write_response(&self, response: &ChatResponse, spec: &ResponseSpec) -> Bytes {
        response_write::write_response(response, spec)
    }

    fn stream_writer(&self, spec: &ResponseSpec) -> Box<dyn StreamWriter> {
        Box::new(stream_write::ContentStreamWriter::new(spec))
    }
}

impl Egress for Gemini {
    fn read_chat_summary(&self, content_type: &str, body: &[u8]) -> Result<AnswerSummary, Fault> {
        buffered::read_summary(content_type, body)
    }

    fn chat_meter(&self) -> Box<dyn Meter> {
        Box::new(meter::ContentMeter::default())
    }

    fn synthesize_stream(&self, _op: Op, body: &[u8], framing: Framing) -> Result<Bytes, Fault> {
        buffered::synthesize_stream(body, framing)
    }

    fn collect_stream(&self, _op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
        buffered::collect_stream(events)
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

    fn write_request(&self, request: &ChatRequest, traits: &TargetTraits) -> EncodedRequest {
        request_write::write_request(request, traits)
    }

    fn read_response(
        &self,
        content_type: &str,
        body: &[u8],
        context: &AttemptContext,
    ) -> Result<ChatResponse, Fault> {
        response_read::read_response(content_type, body, context)
    }

    fn stream_reader(&self, context: &AttemptContext) -> Box<dyn StreamReader> {
        Box::new(stream_read::ContentStreamReader::new(context))
    }
}
