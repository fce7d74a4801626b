//! The dashboard: shows a running proxy and controls it through the same control API as any other
//! client.
//!
//! Events and keys become messages. `update` applies them to the state and returns the effects;
//! `frame` draws the state and the time. Neither does I/O: `event_loop` does, with `connection` for
//! the proxy and `terminal` for the user.

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
pub mod reason_words;
pub mod screen;
pub mod screens;
mod selection;
mod status_bar;
pub mod strings;
mod suspend;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod theme;
pub mod update;
pub mod widgets;
