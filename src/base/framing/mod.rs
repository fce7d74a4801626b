//! Cuts chunks of bytes into frames: SSE blocks, NDJSON lines, elements of a JSON array.

pub mod json_array;
pub mod ndjson;
pub mod splitter;
pub mod sse;
