//! Conversations, neutral of any dialect: types and pure functions.

pub mod assemble;
pub mod block;
pub mod cost;
pub mod embed;
pub mod event;
pub mod extras;
pub mod fault;
pub mod generation_settings;
pub mod model_facts;
pub mod op;
pub mod open_blocks;
pub mod partial_json;
pub mod rate_limit;
pub mod reason;
pub mod repair;
pub mod request;
pub mod rerank;
pub mod response;
pub mod serialize_blocks;
pub mod think_tags;
pub mod tool;
pub mod usage;
pub mod validate;
