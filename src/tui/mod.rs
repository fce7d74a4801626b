//! The dashboard: shows a running proxy and acts on it, over the same control routes as any other
//! client.
//!
//! Events and keys become messages; `update` folds them into the state and says what is to be done;
//! `draw` makes a frame of the state and the time. Neither does I/O: that is `run`, with `source`
//! towards the proxy and `terminal` towards the reader.

pub mod app;
pub mod connection;
pub mod curl;
pub mod effect;
pub mod event_loop;
pub mod format;
pub mod frame;
pub mod history;
pub mod keys;
pub mod layout;
pub mod msg;
pub mod problem;
pub mod rates;
#[cfg(test)]
mod sample;
pub mod screens;
mod status_bar;
pub mod strings;
pub mod terminal;
pub mod theme;
pub mod translate_message;
pub mod update;
pub mod widgets;
