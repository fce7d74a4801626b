//! Records a request and its attempts: bytes, usage, cost, prompt-cache hits.

pub mod attempt_guard;
pub(crate) mod attempt_recorder;
pub(crate) mod billing;
pub mod budget_hold;
pub(crate) mod cache_monitor;
pub mod recorder;
pub mod refusal;
