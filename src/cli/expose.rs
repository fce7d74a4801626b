//! The only place where commands unwrap a secret: a client key that the user asked to see, or a
//! header.

use crate::secrets::Secret;

/// The text of a secret, for stdout on request or for a request header.
#[must_use]
pub fn expose_secret(secret: &Secret) -> &str {
    secret.expose()
}
