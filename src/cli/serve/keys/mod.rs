//! The keys of upstreams and projects: read in the background, and read again until they are there.

pub(super) mod clients;
pub(super) mod load;
pub(super) mod retry;
