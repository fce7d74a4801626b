//! The config file: read with every problem named, resolved into complete settings, edited without
//! losing a comment.
//!
//! `read` takes the TOML tree apart, `schema` knows which keys there are, `resolve` fills in
//! presets and defaults, `check` looks at what must fit together; `load` is all four in a row.
//! `edit` and `file` go the other way.

pub mod base_url;
pub mod discover;
pub mod edit;
pub mod file;
mod ids;
pub mod keys;
pub mod listen;
pub mod load;
pub mod model_facts;
pub mod presets;
pub mod prices;
pub mod problem;
mod reader;
pub mod redact_toml;
mod resolve;
mod schema;
pub mod settings;
pub mod to_toml;
pub mod validate;
pub mod watch;

pub use discover::Environment;
pub use ids::IdInterner;
pub use load::LoadResult;
pub use problem::{Problem, ProblemSeverity};
pub use settings::Settings;
