//! The durable record of requests, attempts, tokens and costs: one thread writes, and each reader
//! opens its own connection.

pub mod bodies;
pub mod export;
pub mod migrate;
pub mod query;
pub mod retention;
pub mod store;
pub mod totals;
pub mod writer;

pub use query::LedgerReader;
pub use writer::{Ledger, LedgerStatus, WriterConfig};
