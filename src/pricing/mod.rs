//! The cost of an attempt: finds the price in force and calculates the sum.

pub mod cost;
pub mod table;

pub use cost::{BillQuery, bill};
pub use table::PriceBook;
