//! Reads a complete response: one chunk that contains everything.

use crate::{
    base::json::reader::JsonRef,
    dialect::{
        egress::{AttemptContext, StreamReader},
        errors::read_error,
        gemini::{buffered, stream_read::ContentStreamReader},
        json_body,
    },
    ir::{assemble::Assembler, extras::Extras, fault::Fault, op::Dialect, response::ChatResponse},
};

/// Reads a response. A list of chunks also counts; upstreams send one if the stream was not
/// requested as events.
pub(super) fn read_response(
    content_type: &str,
    body: &[u8],
    context: &AttemptContext,
) -> Result<ChatResponse, Fault> {
    let root = json_body::parse(content_type, body)?;
    let (mut reader, mut events) = (ContentStreamReader::new(context), Vec::new());
    let mut last = root;
    if root.is_array()
        && !read_error::is_error(root)
        && root.items().next().is_some_and(JsonRef::is_object)
    {
        for chunk in root.items() {
            reader.read_chunk(chunk, false, &mut events).map_err(|fault| *fault)?;
            last = chunk;
        }
        // A list of chunks is a stream in another form: without a finish reason it was truncated.
        if !reader.read_eof(&mut events) {
            return Err(json_body::truncated_stream_fault());
        }
    } else {
        buffered::read_summary(content_type, body)?;
        reader.read_chunk(root, false, &mut events).map_err(|fault| *fault)?;
    }
    reader.end_complete(&mut events);
    let mut assembler = Assembler::default();
    events.iter().for_each(|event| assembler.feed(event));
    let mut response = assembler.finish().unwrap_or_default();
    if let Some(candidate) = last.get("candidates").and_then(|list| list.items().next()) {
        const KNOWN: [&str; 6] = [
            "content",
            "finishReason",
            "finishMessage",
            "index",
            "logprobsResult",
            "groundingMetadata",
        ];
        response.extras = Extras::from_object(Dialect::Gemini, candidate, &KNOWN);
    }
    Ok(response)
}
