//! General mechanisms that know nothing of AI and import no other folder.

pub mod backoff;
pub mod choices;
pub mod clock;
pub mod data_url;
pub mod dot_segment;
pub mod framing;
pub mod fs;
pub mod id;
pub mod json;
pub mod message_template;
pub mod money;
pub mod pattern;
pub mod redact;
pub mod rng;
pub mod rolling;
pub mod sanitize;
pub mod suggest;
pub mod sync;
pub mod timezone;
pub mod units;
