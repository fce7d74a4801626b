//! Ollama's chat and generate.

mod answer;
mod meter;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use crate::{
    dialect::{
        Egress, Framing, Ingress, Meter, ModelEntry, Summary,
        any::AnyMeter,
        classic, fault, models, shape, status,
        words::{self, SENT},
    },
    ir::{
        fault::{ClientError, Fault},
        op::{Dialect, Op},
    },
};

pub(super) struct Ollama;

impl Ingress for Ollama {
    fn dialect(&self) -> Dialect {
        Dialect::Ollama
    }

    fn write_error(&self, error: &ClientError, _request_id: &str) -> (StatusCode, Bytes) {
        (status::code(classic::told(error).status), body(error).into())
    }

    fn stream_error(&self, error: &ClientError, _request_id: &str, _framing: Framing) -> Bytes {
        format!("{}\n", body(error)).into()
    }

    fn ping(&self, _framing: Framing) -> Option<&'static [u8]> {
        None
    }
}

fn body(error: &ClientError) -> String {
    json!({ "error": words::escaped(&error.message, SENT) }).to_string()
}

impl Egress for Ollama {
    fn dialect(&self) -> Dialect {
        Dialect::Ollama
    }

    fn read_error(&self, status: u16, content_type: &str, body: &[u8]) -> Fault {
        fault::read(status, content_type, body)
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

    fn read_models(&self, body: &[u8]) -> Option<Vec<ModelEntry>> {
        models::read(body)
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::fault::ErrorKind;

    #[test]
    fn errors_are_one_line_with_a_sentence() {
        let error = ClientError::new(ErrorKind::ModelNotFound, "model \"x\" not found");
        assert_eq!(Ollama.write_error(&error, "r"), (StatusCode::NOT_FOUND, Bytes::from_static(br#"{"error":"model \"x\" not found"}"#)));
        assert_eq!(Ollama.stream_error(&error, "r", Framing::Ndjson), "{\"error\":\"model \\\"x\\\" not found\"}\n");
    }
}
