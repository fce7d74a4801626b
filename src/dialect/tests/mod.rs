//! Recorded exchanges and the matrix of all dialect pairs.

pub(crate) mod pair_matrix;
pub(crate) mod recorded;
