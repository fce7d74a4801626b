//! JSON as the wire has it: exact number text, key order, duplicate keys and spans.
//!
//! serde_json's `Value` changes numbers and drops duplicate keys, so proxied bodies are read here.

pub mod raw;
pub mod reader;
pub mod scan;
pub mod surrogates;
pub mod writer;
