//! Commands that bring users of other programs in and keep the proxy running.

pub mod doctor;
pub mod import;
pub mod run;
pub mod service;
