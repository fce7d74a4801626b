//! What is said, in nobody's dialect; types and pure functions.

pub mod allowance;
pub mod assemble;
pub mod block;
pub mod blocks;
pub mod cost;
pub mod embed;
pub mod event;
pub mod extras;
pub mod fault;
pub mod grammar;
pub mod op;
pub mod progress;
pub mod request;
pub mod rerank;
pub mod response;
pub mod sequence;
pub mod settings;
pub mod think;
pub mod tool;
pub mod usage;
