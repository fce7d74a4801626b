//! Decides which requests are admitted: Host, Origin, credential and subnet are all checked on
//! every request.

pub mod credential;
pub mod host;
pub mod origin;
