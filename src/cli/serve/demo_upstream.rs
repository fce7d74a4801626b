//! Connects the demo to the engine as an in-process upstream without a socket.

use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};

use crate::{
    demo::Demo,
    ir::op::Dialect,
    upstream::in_process::{InProcess, InProcessBody},
};

/// The demo as an in-process upstream.
pub(super) struct DemoUpstream(pub Demo);

impl InProcess for DemoUpstream {
    fn respond(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<InProcessBody>> + Send + '_>> {
        let dialect = request.extensions().get::<Dialect>().copied().unwrap_or(Dialect::Openai);
        Box::pin(self.0.answer(dialect, &request))
    }
}
