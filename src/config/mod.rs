//! The config file: read with every problem reported, resolved into complete settings, edited
//! without losing a comment.
//!
//! `reader` reads the TOML tree, `schema` defines the keys, `resolve` fills in presets and
//! defaults, and `validate` checks consistency. `load` runs all four. `edit` and `file` write
//! changes back.

pub mod base_url;
mod choices;
pub mod discover;
pub mod edit;
pub mod file;
mod ids;
pub mod keys;
mod kinds;
pub mod listen;
pub mod load;
pub mod model_facts;
pub mod origin;
pub mod presets;
pub mod prices;
pub mod problem;
mod reader;
pub mod redact_toml;
mod resolve;
mod schema;
pub mod settings;
mod table;
pub mod to_toml;
pub mod validate;
pub mod watch;
pub mod write;

pub use discover::Environment;
pub use ids::IdInterner;
pub use load::LoadResult;
pub use problem::{Problem, ProblemSeverity};
pub use schema::known_address;
pub use settings::Settings;
