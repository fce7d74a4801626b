//! News for the owner: when an alert arises, whether it goes out, and the ways it takes.
//!
//! `rules`, `spike` and `throttle` decide and do nothing; `message` writes; `post` and `desktop`
//! send.

pub mod deliver;
pub mod desktop;
pub mod message;
pub mod rules;
pub mod throttle;
pub mod usage_spike;
