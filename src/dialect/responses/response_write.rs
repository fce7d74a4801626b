//! Writes a complete response: the response that its events would add up to.

use bytes::Bytes;

use crate::{
    dialect::{ingress::ResponseSpec, responses::stream_write::ResponseWriter},
    ir::{assemble, response::ChatResponse},
};

pub(super) fn write_response(response: &ChatResponse, shape: &ResponseSpec) -> Bytes {
    ResponseWriter::full_response(shape, assemble::to_events(response)).into()
}
