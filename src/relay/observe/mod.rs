//! What viewers see of a request: headers, the running answer, the conversation.

pub mod live_tap;
pub mod recent_headers;
pub mod transcript;
