//! The config file: read with every problem named, resolved into complete settings, edited without losing a comment.

pub mod settings;

pub use settings::Settings;
