//! A refusal after which the same request was repaired and sent again.

use std::sync::Arc;

use crate::{
    base::clock::Mono,
    ir::{reason::failure::FailureReason, repair::Repair},
};

/// What the upstream refused, and when.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: Option<u16>,
    pub reason: FailureReason,
    /// What was learned of the model.
    pub learned: Arc<Repair>,
    pub at: Mono,
}
