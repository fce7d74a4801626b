//! The durable record of requests, attempts, tokens and money: one thread writes, everybody else
//! reads for themselves.

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
