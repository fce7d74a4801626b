//! Logins at servers with OAuth 2.1: discovery, registration, the authorization code with PKCE, and
//! tokens that are kept in the keyring and refreshed.

pub mod discovery;
pub mod login;
pub mod source;
pub mod token_set;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stays as it is in forms.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Writes pairs as a form.
fn form(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    let each = pairs.iter().filter(|(_, value)| !value.is_empty());
    let each = each.map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    each.collect::<Vec<_>>().join("&")
}
