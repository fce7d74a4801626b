//! The servers of the config: their processes, connections and lists.

pub mod hub;
pub mod instance;
pub mod lists;
pub mod parts;
pub mod start_fault;
