//! What monitoring systems are told: sums for those that ask, traces for those that want to be sent
//! them. Fed with finished requests by the ledger's thread, so that no request pays for it.

pub mod metrics;
pub mod otlp;
pub mod prometheus_text;
pub mod traces;
