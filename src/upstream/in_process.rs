//! Defines upstreams inside this process: called like any other, without a socket.

use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

use crate::ir::fault::TransportFault;

/// The body of an in-process response.
pub type InProcessBody = UnsyncBoxBody<Bytes, TransportFault>;

/// Responds to requests without a network.
pub trait InProcess: Send + Sync {
    /// Responds to one request; its URI is path and query relative to the base URL.
    fn respond(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<InProcessBody>> + Send + '_>>;
}

/// Creates a body that is complete at once.
#[must_use]
pub fn full_body(bytes: impl Into<Bytes>) -> InProcessBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
