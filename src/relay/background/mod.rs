//! Tasks that run beside the requests: they fill and save the stores of the engine.

pub mod check_health;
pub mod poll_balances;
pub mod refresh_models;
pub mod save_health;
