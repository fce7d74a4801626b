//! Stores that live as long as the engine. A store never imports the engine.

pub mod balances;
pub mod cancellations;
pub mod health_checks;
pub mod health_store;
pub mod hedge_stats;
pub mod in_flight;
pub mod item_references;
pub mod learned_store;
pub mod model_lists;
pub mod network;
pub mod permits;
pub mod reasoning_cache;
pub mod resource_owners;
pub mod response_store;
pub mod unpriced_models;
