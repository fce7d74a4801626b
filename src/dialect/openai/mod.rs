//! OpenAI's chat and completions, and everything that speaks like them.

mod answer;
mod error;
mod meter;

use bytes::Bytes;
use http::StatusCode;

use crate::{
    dialect::{Egress, Framing, Ingress, Meter, ModelEntry, Summary, any::AnyMeter, fault, models, shape},
    ir::{
        fault::{ClientError, Fault},
        op::{Dialect, Op},
    },
};

pub(super) struct Openai;

impl Ingress for Openai {
    fn dialect(&self) -> Dialect {
        Dialect::Openai
    }

    fn write_error(&self, error: &ClientError, _request_id: &str) -> (StatusCode, Bytes) {
        error::write(error)
    }

    fn stream_error(&self, error: &ClientError, _request_id: &str, _framing: Framing) -> Bytes {
        error::event(error)
    }

    fn ping(&self, _framing: Framing) -> Option<&'static [u8]> {
        Some(b": keep-alive\n\n")
    }
}

impl Egress for Openai {
    fn dialect(&self) -> Dialect {
        Dialect::Openai
    }

    fn read_error(&self, status: u16, content_type: &str, body: &[u8]) -> Fault {
        fault::read(status, content_type, body)
    }

    fn read_answer(&self, op: Op, content_type: &str, body: &[u8]) -> Result<Summary, Fault> {
        match op {
            Op::Chat | Op::Completions => answer::read(content_type, body),
            _ => shape::other(content_type, body),
        }
    }

    fn meter(&self, op: Op) -> Box<dyn Meter> {
        match op {
            Op::Chat | Op::Completions => Box::new(meter::ChatMeter::default()),
            _ => Box::new(AnyMeter::default()),
        }
    }

    fn read_models(&self, body: &[u8]) -> Option<Vec<ModelEntry>> {
        models::read(body)
    }

    fn models_path(&self) -> &'static str {
        "/models"
    }

    fn as_stream(&self, op: Op, body: &[u8], _framing: Framing) -> Result<Bytes, Fault> {
        answer::as_stream(op, body)
    }

    fn as_answer(&self, op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
        answer::as_answer(op, events)
    }
}
