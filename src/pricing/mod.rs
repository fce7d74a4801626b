//! What an attempt costs: finds the price in force and does the sum.

pub mod cost;
pub mod table;

pub use cost::{Question, bill};
pub use table::Book;
