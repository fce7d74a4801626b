//! Exports metrics for scraping and traces for a collector. The ledger thread supplies finished
//! requests, so that no request is delayed.

pub mod gauges;
mod histogram;
pub mod metrics;
pub mod otlp;
pub mod prometheus_text;
pub mod traces;
