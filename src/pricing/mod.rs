//! What an attempt costs: finds the price in force and does the sum.

pub mod cost;
pub mod table;

pub use cost::{BillQuery, bill};
pub use table::PriceBook;
