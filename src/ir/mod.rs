//! What is said, in nobody's dialect; types and pure functions.

pub mod fault;
pub mod op;
pub mod usage;
