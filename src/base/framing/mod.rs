//! Cuts chunks of bytes into frames: SSE blocks, NDJSON lines, elements of a JSON array.

pub mod json_array;
pub mod ndjson;
pub mod splitter;
pub mod sse;

use bytes::Bytes;

use crate::base::framing::{
    json_array::ArraySplitter, ndjson::LineSplitter, splitter::NextFrame, sse::SseSplitter,
};

/// How a streamed body is cut into events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Sse,
    /// Ollama.
    Ndjson,
    /// Gemini without `alt=sse`: one JSON array, an element per event.
    JsonArray,
}

/// Cuts one body into its frames, in any framing.
pub enum FrameSplitter {
    JsonArray(ArraySplitter),
    Ndjson(LineSplitter),
    Sse(SseSplitter),
}

impl FrameSplitter {
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::JsonArray => Self::JsonArray(ArraySplitter::default()),
            Framing::Ndjson => Self::Ndjson(LineSplitter::default()),
            Framing::Sse => Self::Sse(SseSplitter::default()),
        }
    }

    /// Returns the next frame of `chunk` from `at` on, and moves `at` behind it. Call it until it
    /// returns [`NextFrame::Incomplete`].
    pub fn next(&mut self, chunk: &[u8], at: &mut usize) -> NextFrame {
        match self {
            Self::JsonArray(splitter) => splitter.next(chunk, at),
            Self::Ndjson(splitter) => splitter.next(chunk, at),
            Self::Sse(splitter) => splitter.next(chunk, at),
        }
    }

    /// Returns the buffered incomplete frame at the end of the body.
    pub fn remainder(&mut self) -> Bytes {
        match self {
            Self::JsonArray(splitter) => splitter.remainder(),
            Self::Ndjson(splitter) => splitter.remainder(),
            Self::Sse(splitter) => splitter.remainder(),
        }
    }
}
