//! Alerts for the owner: when an alert is raised, whether it is sent, and how it is delivered.
//!
//! `rules`, `usage_spike` and `throttle` only decide; `message` formats; `deliver` and `desktop`
//! send; `formats` and `mail` know the receivers.

pub mod deliver;
pub mod desktop;
pub mod formats;
pub mod mail;
pub mod message;
pub mod rules;
pub mod throttle;
pub mod usage_spike;
