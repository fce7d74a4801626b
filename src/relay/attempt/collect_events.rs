//! Splits a complete event stream into events, for a client that did not ask for a stream.

use crate::{
    base::{
        framing::{
            splitter::NextFrame,
            sse::{self, SseSplitter},
        },
        json::{reader, surrogates},
    },
    dialect::Framing,
};

/// Returns the name and data of each event; `None` if the body is not an event stream of this
/// framing.
#[must_use]
pub fn collect_events(body: &[u8], framing: Framing) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    if framing != Framing::Sse {
        return None;
    }
    let body = body.strip_prefix(sse::BOM).unwrap_or(body);
    let (mut out, mut splitter, mut at) = (Vec::new(), SseSplitter::default(), 0);
    let mut add = |block: &[u8]| {
        let block = sse::read_event(block);
        if !block.data.trim_ascii().is_empty() {
            out.push((block.name.to_vec(), block.data.into_owned()));
        }
    };
    loop {
        match splitter.next(body, &mut at) {
            NextFrame::Borrowed(span) => add(&body[span]),
            NextFrame::Joined(block) => add(&block),
            NextFrame::Incomplete => break,
            NextFrame::TooLong => return None,
        }
    }
    // The last event may lack its blank line.
    let rest = splitter.remainder();
    add(&rest);
    // An error may follow the events as bare JSON.
    if reader::parse(&rest).is_ok_and(|rest| rest.get("error").is_some()) {
        out.push((b"error".to_vec(), rest.to_vec()));
    }
    for at in 1..out.len() {
        if surrogates::ends_with_high_surrogate(&out[at - 1].1) {
            let (before, after) = out.split_at_mut(at);
            surrogates::join_split_pairs(&mut before[at - 1].1, &mut after[0].1);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_data_of_all_events_are_collected() {
        let events = collect_events(b": hi\n\nevent: a\ndata: 1\n\ndata: 2", Framing::Sse)
            .expect("an event stream");
        assert_eq!(events, [(b"a".to_vec(), b"1".to_vec()), (Vec::new(), b"2".to_vec())]);
    }

    #[test]
    fn unframed_error_is_an_event() {
        let events =
            collect_events(b"data: 1\n\n{\"error\": {}}\n", Framing::Sse).expect("an event stream");
        assert_eq!(events[1], (b"error".to_vec(), b"{\"error\": {}}\n".to_vec()));
        assert_eq!(
            collect_events(b"data: 1\n\n{\"error\"\n", Framing::Sse).map(|events| events.len()),
            Some(1)
        );
    }

    #[test]
    fn split_character_is_joined() {
        let events = collect_events(b"data: \"\\ud83c\"\n\ndata: \"\\udf89\"\n\n", Framing::Sse)
            .expect("an event stream");
        assert_eq!(
            events.iter().map(|(_, data)| &data[..]).collect::<Vec<_>>(),
            [&b"\"\""[..], br#""\ud83c\udf89""#]
        );
    }
}
