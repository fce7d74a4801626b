//! JSON as it is on the wire: exact number text, key order, duplicate keys and spans.
//!
//! `serde_json::Value` changes numbers and drops duplicate keys, so this module reads the proxied
//! bodies.

pub mod grammar;
pub mod raw;
pub mod reader;
pub mod scan;
pub mod scan_error;
pub mod surrogates;
pub mod writer;
