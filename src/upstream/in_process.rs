//! Upstreams inside this process: asked like any other, without a socket.

use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

use crate::ir::fault::TransportFault;

/// The body of an answer made here.
pub type InProcessBody = UnsyncBoxBody<Bytes, TransportFault>;

/// Something that answers requests without a network.
pub trait InProcess: Send + Sync {
    /// Answers one request; its URI is path and query below the base URL.
    fn respond(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<InProcessBody>> + Send + '_>>;
}

/// A body that is there at once.
#[must_use]
pub fn full_body(bytes: impl Into<Bytes>) -> InProcessBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
