//! The one place where a command takes a secret out of its wrapping: a client key the person asked
//! to see, or a header.

use crate::secrets::Secret;

/// The text of a secret, for stdout on request or for a request's own header.
#[must_use]
pub fn expose_secret(secret: &Secret) -> &str {
    secret.expose()
}
