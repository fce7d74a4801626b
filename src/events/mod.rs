//! Facts about what happened: typed events, the record of a request, the table of current and
//! recent requests, the bus.

pub mod alert;
pub mod bus;
pub mod event;
pub mod filter;
pub mod ledger_queue;
pub mod live;
pub mod log_line;
pub mod log_message;
pub mod record;
pub mod severity;
pub mod status_message;
