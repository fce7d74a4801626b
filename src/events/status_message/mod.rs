//! What the proxy reports about itself, as values: changes of health, reloads of the config, and
//! notices. `Display` is the English text of the log and the API; the dashboard words the value in
//! the user's language.

pub mod health;
pub mod notice;
pub mod reload;
