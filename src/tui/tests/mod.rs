//! Sample data of the dashboard: a snapshot, running and finished requests.

pub(crate) mod sample;
