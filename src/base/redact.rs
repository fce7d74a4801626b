//! Takes secrets out of text that came from elsewhere.

use std::borrow::Cow;

/// What replaces a secret.
pub const REDACTED: &str = "[redacted]";

/// Removes known secrets and key-shaped text; made by `secrets`, held by rooms that must not know
/// any secret.
pub trait Redactor: Send + Sync {
    /// The text without secrets; borrowed when there was none.
    fn redact<'a>(&self, text: &'a str) -> Cow<'a, str>;
}
