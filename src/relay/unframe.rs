//! Takes a whole event stream apart, where one came although one answer was asked for.

use crate::{
    base::{
        cut::Piece,
        sse::{self, Splitter},
    },
    dialect::Framing,
};

/// Name and data of each event; `None` where the body is no event stream of this framing.
#[must_use]
pub fn events(body: &[u8], framing: Framing) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    if framing != Framing::Sse {
        return None;
    }
    let body = body.strip_prefix(sse::BOM).unwrap_or(body);
    let (mut out, mut splitter, mut at) = (Vec::new(), Splitter::default(), 0);
    let mut add = |block: &[u8]| {
        let block = sse::read(block);
        if !block.data.trim_ascii().is_empty() {
            out.push((block.name.to_vec(), block.data.into_owned()));
        }
    };
    loop {
        match splitter.next(body, &mut at) {
            Piece::Inside(span) => add(&body[span]),
            Piece::Joined(block) => add(&block),
            Piece::More => break,
            Piece::TooLong => return None,
        }
    }
    // The last event may lack its blank line.
    add(&splitter.rest());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_data_of_all_events_are_told() {
        let events = events(b": hi\n\nevent: a\ndata: 1\n\ndata: 2", Framing::Sse).expect("an event stream");
        assert_eq!(events, [(b"a".to_vec(), b"1".to_vec()), (Vec::new(), b"2".to_vec())]);
    }
}
