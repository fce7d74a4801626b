//! Reads upstream errors of every dialect into faults, and formats aiproxy's errors.

pub(crate) mod fault_rules;
pub(crate) mod openai_codes;
pub(crate) mod read_error;
pub(crate) mod sanitize;
pub(crate) mod status;
