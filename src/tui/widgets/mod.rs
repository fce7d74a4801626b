//! The widgets of the screens. All text goes through [`canvas::Canvas`], which sanitizes it.

pub mod canvas;
pub mod gauge;
pub mod table;
pub mod wrap;
