//! Repairs requests that an upstream refuses for one part of them: finds what is meant by the
//! vendor's words, and changes a body that is passed through.

mod body;
mod rules;

pub use body::{BodyRepair, repair_body};
pub use rules::find_repair;
