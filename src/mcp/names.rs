//! Names and addresses of the combined endpoint: unique, and such that model vendors accept them.

use std::{collections::HashSet, fmt::Write as _};

use sha2::{Digest, Sha256};

/// What vendors accept as the name of a tool.
const MAX_NAME: usize = 64;
/// Hex digits that tell shortened names apart.
const HASH_DIGITS: usize = 8;
/// How addresses of resources begin at the combined endpoint.
const URI_SCHEME: &str = "aiproxy://";

/// Returns `server`'s `name` with its prefix: only letters, digits, `_` and `-`, at most 64.
#[must_use]
pub fn combined(prefix: &str, name: &str, server: &str) -> String {
    let whole = format!("{prefix}{name}");
    if !whole.is_empty() && whole.len() <= MAX_NAME && whole.bytes().all(is_plain) {
        return whole;
    }
    hashed(prefix, name, server)
}

/// Returns the name with a hash at its end, which no other tool has.
#[must_use]
pub fn hashed(prefix: &str, name: &str, server: &str) -> String {
    let plain: String = prefix
        .chars()
        .chain(name.chars())
        .map(|c| if c.is_ascii() && is_plain(c as u8) { c } else { '_' })
        .take(MAX_NAME - HASH_DIGITS - 1)
        .collect();
    format!("{plain}_{}", short_hash(&[server, name]))
}

fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')
}

/// Returns the first hex digits of the digest of these texts.
#[must_use]
pub fn short_hash(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_le_bytes());
        digest.update(part.as_bytes());
    }
    let mut out = String::new();
    for byte in digest.finalize().iter().take(HASH_DIGITS / 2) {
        // Writing to a `String` cannot fail.
        write!(out, "{byte:02x}").unwrap_or_default();
    }
    out
}

/// Gives each (prefix, server, name) a name of its own, in the order in which they come.
#[must_use]
pub fn unique(items: &[(&str, &str, &str)]) -> Vec<String> {
    let mut taken = HashSet::new();
    items
        .iter()
        .map(|(prefix, server, name)| {
            let plain = combined(prefix, name, server);
            let chosen = if taken.contains(&plain) { hashed(prefix, name, server) } else { plain };
            taken.insert(chosen.clone());
            chosen
        })
        .collect()
}

/// Returns the address of a resource at the combined endpoint.
#[must_use]
pub fn wrap_uri(server: &str, uri: &str) -> String {
    format!("{URI_SCHEME}{server}/{uri}")
}

/// Returns the server and its own address of a combined one.
#[must_use]
pub fn unwrap_uri(uri: &str) -> Option<(&str, &str)> {
    uri.strip_prefix(URI_SCHEME)?.split_once('/')
}

/// Returns the id of a task for the clients of a project. It names the server and is of no use to
/// other projects, which do not know the salt.
#[must_use]
pub fn wrap_task(salt: &str, project: &str, server: &str, task: &str) -> String {
    format!("{}.{server}.{task}", short_hash(&[salt, project, server, task]))
}

/// Returns the server of a task and its own id; `None` if the id is not one of this project.
#[must_use]
pub fn unwrap_task<'a>(salt: &str, project: &str, id: &'a str) -> Option<(&'a str, &'a str)> {
    let (hash, rest) = id.split_once('.')?;
    let (server, task) = rest.split_once('.')?;
    (short_hash(&[salt, project, server, task]) == hash).then_some((server, task))
}

/// Whether an address can come from a template (RFC 6570): its fixed parts occur in order.
#[must_use]
pub fn fits_template(template: &str, uri: &str) -> bool {
    let mut rest = uri;
    let mut parts = template.split('{');
    let Some(tail) = parts.next().and_then(|first| rest.strip_prefix(first)) else { return false };
    rest = tail;
    for part in parts {
        let fixed = part.split_once('}').map_or("", |(_, after)| after);
        if fixed.is_empty() {
            continue;
        }
        let Some(at) = rest.find(fixed) else { return false };
        rest = &rest[at + fixed.len()..];
    }
    template.ends_with('}') || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_by_vendors_and_differ() {
        let long = "x".repeat(80);
        let items = [
            ("a_", "a", "b_c"),
            ("a_b_", "a_b", "c"),
            ("f_", "f", "with.dot"),
            ("f_", "f", "with:dot"),
            ("f_", "f", long.as_str()),
            ("", "g", "你好"),
            ("", "h", "你好"),
        ];
        let names = unique(&items);
        let different: HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), items.len(), "{names:?}");
        for name in &names {
            assert!(!name.is_empty() && name.len() <= 64 && name.bytes().all(is_plain), "{name}");
        }
        assert_eq!(&names[..2], ["a_b_c", hashed("a_b_", "c", "a_b").as_str()]);
    }

    #[test]
    fn addresses_return_to_their_server() {
        let uri = wrap_uri("files", "file:///a b/{x}");
        assert_eq!(unwrap_uri(&uri), Some(("files", "file:///a b/{x}")));
        for (template, uri, fits) in [
            ("test://a/{id}", "test://a/7", true),
            ("test://a/{id}/x", "test://a/7/x", true),
            ("test://a/{id}/x", "test://a/7/y", false),
            ("test://a", "test://a", true),
            ("test://a", "test://ab", false),
        ] {
            assert_eq!(fits_template(template, uri), fits, "{template} {uri}");
        }
    }
}
