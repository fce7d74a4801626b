//! Records a request and its attempts: bytes, usage, cost, prompt-cache hits.

pub(crate) mod billing;
pub(crate) mod cache_monitor;
pub mod recorder;
