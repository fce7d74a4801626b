//! Decides which key serves the next attempt, and why the others do not. Pure: the caller passes in
//! clock and randomness.

pub mod affinity;
pub mod budget;
pub mod candidate;
pub mod catalog;
pub mod cost;
pub mod decide;
pub mod decision;
pub mod facts_book;
pub mod health;
pub mod hedge;
pub mod learned;
pub mod listing;
pub mod name_resolver;
pub mod outcome;
pub mod project_limits;
pub mod prompt_cache;
pub mod resolve;
pub mod retry;
pub mod router;
pub mod strategy;
#[cfg(test)]
mod test_support;
mod version_order;
