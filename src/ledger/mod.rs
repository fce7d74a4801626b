//! The durable record of requests, attempts, tokens and costs: one thread writes, and each reader
//! opens its own connection.

pub mod bodies;
mod body_search;
pub mod check;
mod daily;
pub mod export;
mod filter_sql;
pub mod migrate;
pub mod query;
pub mod rates;
pub mod retention;
mod rows;
pub mod store;
pub mod time_range;
pub mod totals;
pub mod writer;

pub use query::LedgerReader;
pub use writer::{Ledger, LedgerStatus, WriterConfig};
