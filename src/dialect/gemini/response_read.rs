//! Reads an answer that came whole: one chunk that holds everything.

use crate::{
    dialect::{
        Carry,
        gemini::{answer, stream_read::ContentReader},
        shape,
    },
    ir::{assemble::Assembler, extras::Extras, fault::Fault, op::Dialect, response::ChatResponse},
};

pub(super) fn read(content_type: &str, body: &[u8], carry: &Carry) -> Result<ChatResponse, Fault> {
    answer::read(content_type, body)?;
    let json = shape::answer(content_type, body)?;
    let (mut reader, mut events) = (ContentReader::new(carry), Vec::new());
    reader.chunk(json, false, &mut events).map_err(|fault| *fault)?;
    reader.whole(&mut events);
    let mut assembler = Assembler::default();
    events.iter().for_each(|event| assembler.feed(event));
    let mut response = assembler.finish().unwrap_or_default();
    if let Some(candidate) = json.get("candidates").and_then(|list| list.items().next()) {
        const KNOWN: [&str; 7] =
            ["content", "finishReason", "finishMessage", "index", "logprobsResult", "avgLogprobs", "groundingMetadata"];
        response.extras = Extras::of(Dialect::Gemini, candidate, &KNOWN);
    }
    Ok(response)
}
