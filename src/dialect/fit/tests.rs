//! Tests of fitting.
