//! Commands that bring users of other programs in and keep the proxy running.

pub mod connect;
pub mod doctor;
mod edit;
pub mod import;
pub mod run;
pub mod service;
