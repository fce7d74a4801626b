//! Typed reasons: why a target was chosen or skipped, why an attempt failed, why a cache missed.
//!
//! A reason is made where the decision is made. It contains names, numbers and spans measured at
//! that instant, and no sentence. `Display` is its English text, which the log, the ledger and the
//! API show; the dashboard words the value in the user's language. The text of an upstream stays
//! text inside the reason.

pub mod budget;
pub mod cache_miss;
pub mod failure;
pub mod missing_secret;
pub mod route;
pub mod skip;
pub mod span;
pub mod text_field;
pub mod unused_variable;
