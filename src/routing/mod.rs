//! Which key serves the next attempt, and why the others do not. Pure: clock and chance are handed
//! in.

pub mod affinity;
pub mod board;
pub mod budget;
pub mod cache;
pub mod candidate;
pub mod catalog;
pub mod circuit;
pub mod cost;
pub mod decide;
pub mod ending;
#[cfg(test)]
mod fixture;
pub mod health;
pub mod hedge;
pub mod kept;
pub mod learned;
pub mod limits;
pub mod names;
mod newest;
pub mod outcome;
pub mod recent;
pub mod retry;
pub mod spent;
pub mod stats;
pub mod strategy;
pub mod view;
