//! OpenAI's Responses API.

mod buffered;
mod error;
mod input_read;
mod input_write;
mod items_read;
mod items_write;
mod meter;
mod outcome;
mod parts_write;
mod request_read;
mod request_write;
mod response_read;
mod response_write;
mod schema;
pub mod stored;
pub mod stored_events;
mod stream_items_read;
mod stream_items_write;
mod stream_read;
mod stream_write;
#[cfg(test)]
mod tests;
mod tools;
pub mod warm_up;

use bytes::Bytes;
use http::StatusCode;

use crate::{
    base::framing::Framing,
    dialect::{
        egress::{AttemptContext, Egress, EncodedRequest, StreamReader, TargetTraits},
        errors::openai_codes,
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

pub(super) struct Responses;

impl Ingress for Responses {
    fn write_error(&self, error: &ProxyError, _request_id: &str) -> (StatusCode, Bytes) {
        openai_codes::write_error(error)
    }

    fn stream_error(&self, error: &ProxyError, request_id: &str, _framing: Framing) -> Bytes {
        error::failed_event(error, request_id, 0)
    }

    fn stream_error_after(
        &self,
        error: &ProxyError,
        request_id: &str,
        _framing: Framing,
        events: u32,
    ) -> Bytes {
        error::failed_event(error, request_id, events)
    }

    fn ping(&self, _framing: Framing) -> Option<&'static [u8]> {
        Some(b": keep-alive\n\n")
    }

    fn read_request(&self, _place: ChatEndpoint, body: &[u8]) -> Result<ChatRequest, ProxyError> {
        request_read::read_request(body)
    }

    fn write_response(&self, response: &ChatResponse, shape: &ResponseSpec) -> Bytes {
        response_write::write_response(response, shape)
    }

    fn stream_writer(&self, shape: &ResponseSpec) -> Box<dyn StreamWriter> {
        Box::new(stream_write::ResponseWriter::new(shape))
    }
}

impl Egress for Responses {
    fn read_chat_summary(&self, content_type: &str, body: &[u8]) -> Result<AnswerSummary, Fault> {
        buffered::read_summary(content_type, body)
    }

    fn chat_meter(&self) -> Box<dyn Meter> {
        Box::new(meter::ResponseMeter::default())
    }

    fn synthesize_stream(&self, _op: Op, body: &[u8], _framing: Framing) -> Result<Bytes, Fault> {
        buffered::synthesize_stream(body)
    }

    fn collect_stream(&self, _op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
        buffered::collect_stream(events)
    }

    fn chat_path(&self, _stream: bool) -> (&'static str, &'static str) {
        ("/responses", "")
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
        carry: &AttemptContext,
    ) -> Result<ChatResponse, Fault> {
        response_read::read_response(content_type, body, carry)
    }

    fn stream_reader(&self, carry: &AttemptContext) -> Box<dyn StreamReader> {
        Box::new(stream_read::ResponseReader::new(carry))
    }
}
