//! Masks secrets in a config file's text, so that its lines can be shown.

use std::{ops::Range, sync::LazyLock};

use regex::Regex;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Keys whose strings are credentials unless they are references.
const SECRET_KEYS: [&str; 7] = ["key", "keys", "ref", "secret", "headers", "webhook", "feishu"];
const REFERENCE_SCHEMES: [&str; 5] = ["keyring:", "env:", "file:", "cmd:", "vault:"];

/// Returns the text with every literal credential replaced by asterisks. The number of bytes and
/// the line ends stay the same.
#[must_use]
pub fn mask_secrets(text: &str) -> String {
    let mut spans = Vec::new();
    let (table, _) = DeTable::parse_recoverable(text);
    for (name, value) in table.get_ref() {
        // The URL of a receiver is as confidential as a password.
        if name.get_ref() == "alert_receiver" {
            collect_urls(value, &mut spans);
        }
        collect_spans(name.get_ref(), value, false, &mut spans);
    }
    collect_by_shape(text, &mut spans);
    let mut out = text.as_bytes().to_vec();
    for span in spans {
        for byte in out.get_mut(span).unwrap_or_default() {
            if !matches!(byte, b'\n' | b'\r' | b'"' | b'\'') {
                *byte = b'*';
            }
        }
    }
    // Complete strings were replaced. If a character was cut nevertheless, the whole text is
    // masked.
    String::from_utf8(out).unwrap_or_else(|e| "*".repeat(e.as_bytes().len()))
}

/// Collects the spans in the tree under a secret name.
fn collect_spans(
    name: &str,
    value: &Spanned<DeValue<'_>>,
    secret: bool,
    spans: &mut Vec<Range<usize>>,
) {
    let secret = secret || SECRET_KEYS.contains(&name);
    match value.get_ref() {
        DeValue::String(text) if secret && !is_reference(text) => spans.push(value.span()),
        DeValue::Array(items) => {
            items.iter().for_each(|item| collect_spans("", item, secret, spans));
        }
        DeValue::Table(rows) => {
            for (name, row) in rows {
                // A key's table also contains its label and limits, which are not secret.
                let inherits =
                    secret && !matches!(name.get_ref().as_ref(), "label" | "account" | "refresh");
                collect_spans(name.get_ref(), row, inherits, spans);
            }
        }
        _ => {}
    }
}

/// Collects the spans of `url` in every row.
fn collect_urls(rows: &Spanned<DeValue<'_>>, spans: &mut Vec<Range<usize>>) {
    let DeValue::Array(rows) = rows.get_ref() else { return };
    for row in rows {
        let DeValue::Table(keys) = row.get_ref() else { continue };
        let urls = keys.iter().filter(|(name, _)| name.get_ref() == "url");
        spans.extend(urls.map(|(_, value)| value.span()));
    }
}

fn is_reference(text: &str) -> bool {
    REFERENCE_SCHEMES.iter().any(|scheme| text.starts_with(scheme))
}

/// Collects by shape what is missing from the tree, because the file is broken there.
fn collect_by_shape(text: &str, spans: &mut Vec<Range<usize>>) {
    static RULES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
        [
            // The rest of a line that sets a credential.
            r#"(?m)^[^#\n]*?\b(?:key|keys|ref|secret)"?\s*=\s*\[?\s*["']?([^\n]*)"#,
            // Key-shaped words.
            r"((?:sk-|gsk_|xai-|aip-|AIza|nvapi-|hf_|pplx-|r8_|ghp_|github_pat_)[A-Za-z0-9_\-\.]{6,})",
            // Credentials in a URL.
            r#"://([^/@\s"']+)@"#,
        ]
        .iter()
        .filter_map(|rule| Regex::new(rule).ok())
        .collect()
    });
    for (index, rule) in RULES.iter().enumerate() {
        for found in rule.captures_iter(text) {
            let Some(part) = found.get(1) else { continue };
            if index > 0 || !is_fully_parsed(part.as_str()) {
                spans.push(part.range());
            }
        }
    }
}

/// Whether the tree reader has seen this: the line's strings are closed, or it begins with a
/// reference.
fn is_fully_parsed(rest: &str) -> bool {
    let quotes = rest.bytes().filter(|b| matches!(b, b'"' | b'\'')).count();
    quotes > 0 || rest.trim().is_empty() || is_reference(rest) || rest.starts_with(['{', '[', '$'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_keys_are_redacted_and_references_are_not() {
        let text = concat!(
            "keys = [\"abcdefghij\", { ref = 'klmnopqrst', label = \"main\" }, \"env:NAME\"]\n",
            "[[project]]\nkey = \"uvwxyz1234\"\nproxy = \"http://user:passw0rd@h:1\"\n",
            "headers = { authorization = \"Bearer zzzzyyyyxxxx\" }\n",
        );
        let shown = mask_secrets(text);
        assert_eq!(shown.len(), text.len());
        for gone in ["abcdefghij", "klmnopqrst", "uvwxyz1234", "passw0rd", "zzzzyyyyxxxx"] {
            assert!(!shown.contains(gone), "{shown}");
        }
        for kept in ["main", "env:NAME", "[[project]]", "http://"] {
            assert!(shown.contains(kept), "{shown}");
        }
    }

    #[test]
    fn key_on_an_invalid_line_is_redacted() {
        for text in [
            "key = \"neverclosed99",
            "keys = [\"neverclosed99",
            "key = neverclosed99\n",
            "x = sk-neverclosed99\n[bro",
        ] {
            assert!(
                !mask_secrets(text).contains("neverclosed99"),
                "{text}: {}",
                mask_secrets(text)
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn redaction_preserves_the_length(text in "(?s).{0,80}") {
            proptest::prop_assert_eq!(mask_secrets(&text).len(), text.len());
        }
    }
}
