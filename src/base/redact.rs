//! Removes secrets from foreign text.

use std::borrow::Cow;

/// Replaces a secret.
pub const REDACTED: &str = "[redacted]";

/// Removes known secrets and key-shaped text. `secrets` implements it for modules that must not
/// know any secret.
pub trait Redactor: Send + Sync {
    /// Returns the text without secrets; borrowed if it contained none.
    fn redact<'a>(&self, text: &'a str) -> Cow<'a, str>;
}
