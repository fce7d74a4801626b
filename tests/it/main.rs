//! The tests that look at the program from outside, in one binary.
#![allow(clippy::disallowed_methods, reason = "tests have real clocks, real files and an environment of their own")]

mod architecture;
mod harness;
mod support;
