//! Which key serves the next attempt, and why the others do not. Pure: clock and chance are handed in.

pub mod board;
pub mod candidate;
pub mod catalog;
pub mod circuit;
pub mod decide;
pub mod names;
pub mod outcome;
pub mod retry;
pub mod strategy;
