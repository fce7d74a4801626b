//! Reads an answer that came whole: one chunk that holds everything.

use crate::{
    base::json::JsonRef,
    dialect::{
        Carry, StreamReader, fault,
        gemini::{answer, stream_read::ContentReader},
        shape,
    },
    ir::{assemble::Assembler, extras::Extras, fault::Fault, op::Dialect, response::ChatResponse},
};

/// A list of chunks, as streams come where they were not asked as events, counts too.
pub(super) fn read(content_type: &str, body: &[u8], carry: &Carry) -> Result<ChatResponse, Fault> {
    let root = shape::proven(content_type, body)?;
    let (mut reader, mut events) = (ContentReader::new(carry), Vec::new());
    let mut last = root;
    if root.is_array()
        && !fault::is_error(root)
        && root.items().next().is_some_and(JsonRef::is_object)
    {
        for chunk in root.items() {
            reader.chunk(chunk, false, &mut events).map_err(|fault| *fault)?;
            last = chunk;
        }
        // A stream, if only in another form: without a reason it was cut.
        if !reader.end(&mut events) {
            return Err(shape::cut());
        }
    } else {
        answer::read(content_type, body)?;
        reader.chunk(root, false, &mut events).map_err(|fault| *fault)?;
    }
    reader.whole(&mut events);
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
