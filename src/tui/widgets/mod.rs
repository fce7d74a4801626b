//! Pieces that screens are made of. All text goes through [`canvas::Canvas`], which cleans it.

pub mod canvas;
pub mod gauge;
pub mod table;
pub mod wrap;
