//! Tools of requests, and the names that their calls have.

pub(super) mod additional;
pub(super) mod client_arguments;
pub(super) mod client_tools;
pub(super) mod names;
pub(super) mod read;
pub(super) mod write;
