//! Where the access tokens of servers with OAuth come from.

use std::{future::Future, pin::Pin};

use http::HeaderValue;

/// A boxed future, so that [`TokenSource`] can be a trait object.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Option<HeaderValue>> + Send + 'a>>;

/// Gives the value of the Authorization header.
pub trait TokenSource: Send + Sync {
    /// Returns a valid token; `None` if there was no login. `refused` says that the server did not
    /// take the last one.
    fn token(&self, refused: bool) -> TokenFuture<'_>;
}
