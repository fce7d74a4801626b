//! Leaf mechanisms; nothing here knows what AI is.

pub mod backoff;
pub mod clean;
pub mod clock;
pub mod cut;
pub mod disk;
pub mod draw;
pub mod elements;
pub mod id;
pub mod json;
pub mod money;
pub mod ndjson;
pub mod near;
pub mod pattern;
pub mod raw;
pub mod redact;
pub mod splice;
pub mod sse;
pub mod surrogates;
pub mod units;
pub mod window;
pub mod write;
pub mod zone;
