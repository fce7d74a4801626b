//! Cuts a body that comes in chunks into its units (events, lines, elements), copying only those
//! that span chunks.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// The most bytes that one unit may have.
pub const LIMIT: usize = 8 << 20;

/// Where units end; a scanner that remembers what it has seen of the current one.
pub trait Edge {
    /// Looks at further bytes of the current unit: the length that completes it, or `None` where it
    /// goes on.
    fn find(&mut self, bytes: &[u8]) -> Option<usize>;
}

/// One step of cutting.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A unit that lies whole in the chunk.
    Inside(Range<usize>),
    /// A unit that began in an earlier chunk.
    Joined(Bytes),
    /// The chunk is used up; an unfinished unit may wait.
    More,
    /// The unit is larger than [`LIMIT`]; nothing after it can be trusted.
    TooLong,
}

/// A splitter for one body.
#[derive(Debug, Default)]
pub struct Splitter<E> {
    edge: E,
    held: BytesMut,
}

impl<E: Edge> Splitter<E> {
    pub fn new(edge: E) -> Self {
        Self { edge, held: BytesMut::new() }
    }

    /// The next unit of `chunk` from `at` on; moves `at` behind it. To be called until it says
    /// `More`.
    pub fn next(&mut self, chunk: &[u8], at: &mut usize) -> Piece {
        let Some(rest) = chunk.get(*at..).filter(|rest| !rest.is_empty()) else {
            return Piece::More;
        };
        let Some(length) = self.edge.find(rest) else {
            *at = chunk.len();
            if self.held.len() + rest.len() > LIMIT {
                return Piece::TooLong;
            }
            self.held.extend_from_slice(rest);
            return Piece::More;
        };
        let start = *at;
        *at += length;
        if self.held.len() + length > LIMIT {
            return Piece::TooLong;
        }
        if self.held.is_empty() {
            return Piece::Inside(start..*at);
        }
        self.held.extend_from_slice(&rest[..length]);
        Piece::Joined(self.held.split().freeze())
    }

    /// What waits unfinished, at the end of the body.
    pub fn rest(&mut self) -> Bytes {
        self.held.split().freeze()
    }

    pub fn edge(&self) -> &E {
        &self.edge
    }
}
