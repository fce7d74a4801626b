//! The dashboard: shows a running proxy and acts on it, over the same control routes as any other
//! client.
//!
//! Events and keys become messages; `update` folds them into the state and says what is to be done;
//! `draw` makes a frame of the state and the time. Neither does I/O: that is `run`, with `source`
//! towards the proxy and `terminal` towards the reader.

pub mod app;
pub mod curl;
pub mod draw;
pub mod effect;
pub mod format;
pub mod keys;
pub mod layout;
pub mod msg;
pub mod past;
pub mod problem;
pub mod rates;
pub mod run;
pub mod said;
#[cfg(test)]
mod sample;
pub mod screens;
pub mod source;
pub mod terminal;
pub mod text;
pub mod theme;
mod top;
pub mod update;
pub mod widgets;
