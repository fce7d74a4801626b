//! Recorded exchanges and the matrix of all dialect pairs.

#[cfg(test)]
pub(crate) mod pair_matrix;
#[cfg(test)]
pub(crate) mod recorded;
