//! Defines what the five wire protocols share: the traits that read and write their requests,
//! answers, streams and errors.
//!
//! No I/O; a dialect does not know the other dialects. `Ingress` is the half that faces clients,
//! `Egress` the half that faces upstreams.

mod answer_call_ids;
mod anthropic;
mod call_index;
pub mod egress;
pub mod errors;
pub mod event_decoder;
mod event_json;
pub mod fit;
mod gemini;
mod generic_meter;
pub mod ingress;
pub(crate) mod json_body;
pub mod losses;
pub mod meter;
pub mod model_list;
pub mod ollama;
mod openai;
pub mod ops;
pub mod passthrough;
pub mod registry;
mod renamed_tools;
pub mod repair;
pub mod rescue_splice;
pub mod response_stream;
mod responses;
mod results_by_call;
mod schema_references;
#[cfg(test)]
pub(crate) mod tests;
pub mod tokenizer;
pub mod translate;
mod usage_read;

pub use anthropic::PLACEHOLDER_SIGNATURE;
pub use egress::{AttemptContext, Egress, EncodedRequest, StreamReader, TargetTraits, Thinking};
pub use ingress::{ChatEndpoint, Ingress, ResponseSpec, StreamWriter};
pub use losses::Loss;
pub use meter::{AnswerSummary, Meter, MeterEvent};
pub use model_list::ModelEntry;
pub use responses::{stored, stored_events, warm_up};

pub use crate::base::framing::Framing;
