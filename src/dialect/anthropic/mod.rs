//! Anthropic's messages.

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

pub(super) struct Anthropic;

impl Ingress for Anthropic {
    fn dialect(&self) -> Dialect {
        Dialect::Anthropic
    }

    fn write_error(&self, error: &ClientError, request_id: &str) -> (StatusCode, Bytes) {
        error::write(error, request_id)
    }

    fn stream_error(&self, error: &ClientError, request_id: &str, _framing: Framing) -> Bytes {
        error::event(error, request_id)
    }

    fn ping(&self, _framing: Framing) -> Option<&'static [u8]> {
        Some(b"event: ping\ndata: {\"type\":\"ping\"}\n\n")
    }
}

impl Egress for Anthropic {
    fn dialect(&self) -> Dialect {
        Dialect::Anthropic
    }

    fn read_error(&self, status: u16, content_type: &str, body: &[u8]) -> Fault {
        fault::read(status, content_type, body)
    }

    fn read_answer(&self, op: Op, content_type: &str, body: &[u8]) -> Result<Summary, Fault> {
        match op {
            Op::Chat => answer::read(content_type, body),
            _ => shape::other(content_type, body),
        }
    }

    fn meter(&self, op: Op) -> Box<dyn Meter> {
        match op {
            Op::Chat => Box::new(meter::MessageMeter::default()),
            _ => Box::new(AnyMeter::default()),
        }
    }

    fn read_models(&self, body: &[u8]) -> Option<Vec<ModelEntry>> {
        models::read(body)
    }

    fn models_path(&self) -> &'static str {
        "/models"
    }

    fn as_stream(&self, _op: Op, body: &[u8], _framing: Framing) -> Result<Bytes, Fault> {
        answer::as_stream(body)
    }

    fn as_answer(&self, _op: Op, events: &[(Vec<u8>, Vec<u8>)]) -> Result<Bytes, Fault> {
        answer::as_answer(events)
    }
}
