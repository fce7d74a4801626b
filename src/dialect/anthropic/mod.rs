//! Anthropic's Messages API.

mod arrange_turns;
mod blocks_read;
mod blocks_write;
mod buffered;
mod client_tools;
mod context_overflow;
mod error;
mod media;
mod meter;
mod names;
mod reasoning_write;
mod request_read;
mod request_write;
mod response_read;
mod response_write;
mod schema;
mod stream_blocks;
mod stream_read;
mod stream_write;
#[cfg(test)]
mod tests;
mod tools_write;
mod web_search;

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

pub use blocks_read::PLACEHOLDER_SIGNATURE;

pub(super) struct Anthropic;

impl Ingress for Anthropic {
    fn write_error(&self, error: &ProxyError, request_id: &str) -> (StatusCode, Bytes) {
        error::write_error(error, request_id)
    }

    fn stream_error(&self, error: &ProxyError, request_id: &str, _framing: Framing) -> Bytes {
        error::error_event(error, request_id)
    }

    fn ping(&self, _framing: Framing) -> Option<&'static [u8]> {
        Some(b"event: ping\ndata: {\"type\":\"ping\"}\n\n")
    }

    fn read_request(&self, _place: ChatEndpoint, body: &[u8]) -> Result<ChatRequest, ProxyError> {
        request_read::read_request(body)
    }

    fn write_response(&self, response: &ChatResponse, spec: &ResponseSpec) -> Bytes {
        response_write::write_response(response, spec)
    }

    fn stream_writer(&self, spec: &ResponseSpec) -> Box<dyn StreamWriter> {
        Box::new(stream_write::MessageStreamWriter::new(spec))
    }
}

impl Egress for Anthropic {
    fn read_chat_summary(&self, content_type: &str, body: &[u8]) -> Result<AnswerSummary, Fault> {
        buffered::read_summary(content_type, body)
    }

    fn chat_meter(&self) -> Box<dyn Meter> {
        Box::new(meter::MessageMeter::default())
    }

    fn synthesize_stream(&self, _op: Op, body: &[u8], _framing: Framing) -> Result<Bytes, Fault> {
        buffered::synthesize_stream(body)
    }

    fn collect_stream(&self, _op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
        buffered::collect_stream(events)
    }

    fn chat_path(&self, _stream: bool) -> (&'static str, &'static str) {
        ("/messages", "")
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
        Box::new(stream_read::MessageStreamReader::new(context))
    }
}
