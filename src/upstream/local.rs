//! Upstreams inside this process: asked like any other, without a socket.

use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

use crate::ir::fault::TransportFault;

/// The body of an answer made here.
pub type LocalBody = UnsyncBoxBody<Bytes, TransportFault>;

/// Something that answers requests without a network.
pub trait Local: Send + Sync {
    /// Answers one request; its URI is path and query below the base URL.
    fn answer(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<LocalBody>> + Send + '_>>;
}

/// A body that is there at once.
#[must_use]
pub fn whole(bytes: impl Into<Bytes>) -> LocalBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
