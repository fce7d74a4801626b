//! What happened, as facts: typed events, the record of a request, the table of current and recent
//! ones, the bus.

pub mod alert;
pub mod bus;
pub mod filter;
pub mod kind;
pub mod line;
pub mod live;
pub mod record;
pub mod sink;
