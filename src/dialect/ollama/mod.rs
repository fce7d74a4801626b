//! Implements Ollama's chat and generate API.

mod buffered;
mod images;
mod messages_write;
mod meter;
pub mod preload;
mod request_read;
mod request_write;
mod response_write;
mod schema;
mod stream_read;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use crate::{
    base::framing::Framing,
    dialect::{
        egress::{AttemptContext, Egress, EncodedRequest, StreamReader, TargetTraits},
        errors::{
            openai_codes,
            sanitize::{self, MAX_SENT_CHARS},
            status,
        },
        ingress::{ChatEndpoint, Ingress, ResponseSpec, StreamWriter},
        json_body,
        meter::{AnswerSummary, Meter},
    },
    ir::{
        fault::{Fault, ProxyError},
        op::Op,
        request::ChatRequest,
        response::ChatResponse,
    },
};

pub(super) struct Ollama;

impl Ingress for Ollama {
    fn write_error(&self, error: &ProxyError, _request_id: &str) -> (StatusCode, Bytes) {
        (status::status_code(openai_codes::error_code(error).status), error_body(error).into())
    }

    fn stream_error(&self, error: &ProxyError, _request_id: &str, _framing: Framing) -> Bytes {
        format!("{}\n", error_body(error)).into()
    }

    fn ping(&self, _framing: Framing) -> Option<&'static [u8]> {
        None
    }

    fn read_request(&self, place: ChatEndpoint, body: &[u8]) -> Result<ChatRequest, ProxyError> {
        request_read::read_request(place, body)
    }

    fn write_response(&self, response: &ChatResponse, shape: &ResponseSpec) -> Bytes {
        response_write::write_response(response, shape)
    }

    fn stream_writer(&self, shape: &ResponseSpec) -> Box<dyn StreamWriter> {
        Box::new(response_write::LineWriter::new(shape))
    }
}

fn error_body(error: &ProxyError) -> String {
    json!({ "error": sanitize::escape_controls(&error.message, MAX_SENT_CHARS) }).to_string()
}

impl Egress for Ollama {
    fn read_chat_summary(&self, content_type: &str, body: &[u8]) -> Result<AnswerSummary, Fault> {
        buffered::read_summary(content_type, body)
    }

    fn read_summary(
        &self,
        op: Op,
        content_type: &str,
        body: &[u8],
    ) -> Result<AnswerSummary, Fault> {
        match op {
            Op::Chat => self.read_chat_summary(content_type, body),
            Op::Embed => buffered::read_embedding_summary(content_type, body),
            _ => json_body::generic_summary(content_type, body),
        }
    }

    fn chat_meter(&self) -> Box<dyn Meter> {
        Box::new(meter::LineMeter::default())
    }

    fn models_path(&self) -> &'static str {
        "/api/tags"
    }

    fn synthesize_stream(&self, _op: Op, body: &[u8], _framing: Framing) -> Result<Bytes, Fault> {
        buffered::synthesize_stream(body)
    }

    fn collect_stream(&self, _op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
        buffered::collect_stream(events)
    }

    fn chat_path(&self, _stream: bool) -> (&'static str, &'static str) {
        ("/api/chat", "")
    }

    fn chat_framing(&self) -> Framing {
        Framing::Ndjson
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
        stream_read::read_response(content_type, body, carry)
    }

    fn stream_reader(&self, carry: &AttemptContext) -> Box<dyn StreamReader> {
        Box::new(stream_read::LineReader::new(carry))
    }
}
