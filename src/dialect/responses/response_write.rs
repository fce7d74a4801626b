//! Writes a whole answer: what its events would have added up to.

use bytes::Bytes;

use crate::{
    dialect::{Shape, responses::stream_write::Writer},
    ir::{assemble, response::ChatResponse},
};

pub(super) fn write(response: &ChatResponse, shape: &Shape) -> Bytes {
    Writer::whole(shape, assemble::to_events(response)).into()
}
