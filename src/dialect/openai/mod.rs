//! Implements OpenAI's chat and completions API, for OpenAI and all compatible providers.

mod assistant_parts;
mod buffered;
mod completions;
mod error;
mod messages_read;
mod messages_write;
mod meter;
mod names;
mod parts_read;
mod parts_write;
mod reasoning;
mod request_read;
mod request_write;
mod response_read;
mod response_write;
mod stream_calls;
mod stream_read;
mod stream_write;
#[cfg(test)]
mod tests;
mod tools_read;
mod tools_write;

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

pub(super) struct Openai;

impl Ingress for Openai {
    fn write_error(&self, error: &ProxyError, _request_id: &str) -> (StatusCode, Bytes) {
        openai_codes::write_error(error)
    }

    fn stream_error(&self, error: &ProxyError, _request_id: &str, _framing: Framing) -> Bytes {
        error::write_error_event(error)
    }

    fn ping(&self, _framing: Framing) -> Option<&'static [u8]> {
        Some(b": keep-alive\n\n")
    }

    fn read_request(&self, endpoint: ChatEndpoint, body: &[u8]) -> Result<ChatRequest, ProxyError> {
        request_read::read_request(endpoint, body)
    }

    fn write_response(&self, response: &ChatResponse, spec: &ResponseSpec) -> Bytes {
        response_write::write_response(response, spec)
    }

    fn stream_writer(&self, spec: &ResponseSpec) -> Box<dyn StreamWriter> {
        Box::new(stream_write::ChunkWriter::new(spec))
    }
}

impl Egress for Openai {
    fn read_chat_summary(&self, content_type: &str, body: &[u8]) -> Result<AnswerSummary, Fault> {
        buffered::read_summary(content_type, body)
    }

    fn chat_meter(&self) -> Box<dyn Meter> {
        Box::new(meter::ChatMeter::default())
    }

    fn synthesize_stream(&self, op: Op, body: &[u8], _framing: Framing) -> Result<Bytes, Fault> {
        buffered::synthesize_stream(op, body)
    }

    fn collect_stream(&self, op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
        buffered::collect_stream(op, events)
    }

    fn chat_path(&self, _stream: bool) -> (&'static str, &'static str) {
        ("/chat/completions", "")
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
        Box::new(stream_read::ChunkReader::new(context))
    }
}
