//! Removes known secrets and key-shaped text from foreign text: error bodies, log fields, exports.

use std::{borrow::Cow, ops::Range, sync::LazyLock};

use base64::{Engine, engine::general_purpose};
use memchr::memmem;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use regex::Regex;
use zeroize::Zeroizing;

use super::Secret;
use crate::base::{
    redact::{REDACTED, Redactor},
    sync::RwLock,
};

/// The secrets of this process, in every form in which a foreign text may repeat them.
#[derive(Default)]
pub struct KnownSecrets(RwLock<SecretGenerations>);

#[derive(Default)]
struct SecretGenerations {
    current: Vec<SecretForms>,
    /// The secrets before the last [`KnownSecrets::replace_all`]: requests that started with them
    /// are still running.
    previous: Vec<SecretForms>,
}

impl KnownSecrets {
    /// Creates an empty set; key-shaped text is found all the same.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a secret. Ignores one of fewer than 8 bytes, because replacing it would garble ordinary
    /// words.
    pub fn add(&self, secret: &Secret) {
        let Some(forms) = SecretForms::from_secret(secret) else { return };
        let mut known = self.0.write();
        if !known.current.iter().any(|other| other.digest == forms.digest) {
            known.current.push(forms);
        }
    }

    /// Replaces the known secrets; the previous ones stay known until the next call.
    pub fn replace_all<'a>(&self, secrets: impl IntoIterator<Item = &'a Secret>) {
        let mut current: Vec<SecretForms> =
            secrets.into_iter().filter_map(SecretForms::from_secret).collect();
        current.sort_by_key(|forms| forms.digest);
        current.dedup_by_key(|forms| forms.digest);
        let mut known = self.0.write();
        let mut previous = std::mem::replace(&mut known.current, current);
        // Searching for each secret once is enough.
        previous.retain(|forms| !known.current.iter().any(|other| other.digest == forms.digest));
        known.previous = previous;
    }
}

impl Redactor for KnownSecrets {
    fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut found = find_key_shapes(text);
        {
            let known = self.0.read();
            for form in
                known.current.iter().chain(&known.previous).flat_map(|forms| &forms.encodings)
            {
                // Forms are ASCII or complete UTF-8 texts, so every hit begins and ends between
                // characters.
                found.extend(
                    memmem::find_iter(text.as_bytes(), form.as_bytes())
                        .map(|at| at..at + form.len()),
                );
            }
        }
        redact_ranges(text, found)
    }
}

/// Removes key-shaped text, for callers that know no secrets.
#[must_use]
pub fn redact_key_shapes(text: &str) -> Cow<'_, str> {
    redact_ranges(text, find_key_shapes(text))
}

/// Returns a foreign text as one line that is safe to show: no control characters, no key-shaped
/// text, at most `max_chars` characters.
#[must_use]
pub(super) fn printable(text: &str, max_chars: usize) -> String {
    let flat: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_SCANNED_CHARS)
        .collect();
    let flat = redact_key_shapes(flat.trim());
    match flat.char_indices().nth(max_chars) {
        Some((at, _)) => format!("{}…", &flat[..at]),
        None => flat.into_owned(),
    }
}

/// One secret in all its possible spellings.
struct SecretForms {
    digest: [u8; 32],
    encodings: Vec<Zeroizing<String>>,
}

impl SecretForms {
    fn from_secret(secret: &Secret) -> Option<Self> {
        let plain = secret.expose();
        if plain.len() < MIN_SECRET_BYTES {
            return None;
        }
        let mut found = vec![Zeroizing::new(plain.to_owned())];
        let mut also = |form: String| {
            let form = Zeroizing::new(form);
            if form.len() >= MIN_SECRET_BYTES && !found.contains(&form) {
                found.push(form);
            }
        };
        for before in 0..3 {
            also(base64_core(plain, before, &general_purpose::STANDARD_NO_PAD));
            also(base64_core(plain, before, &general_purpose::URL_SAFE_NO_PAD));
        }
        let escaped = utf8_percent_encode(plain, ESCAPED_IN_URLS).to_string();
        also(lowercase_escapes(&escaped));
        also(escaped);
        if let Ok(json) = serde_json::to_string(plain).map(Zeroizing::new) {
            let inner = &json[1..json.len() - 1];
            also(inner.replace('/', "\\/"));
            also(inner.to_owned());
        }
        Some(Self { digest: secret.digest(), encodings: found })
    }
}

/// Returns the characters of a base64 text that encode the secret alone, if `before` bytes (modulo
/// 3) precede it.
fn base64_core(plain: &str, before: usize, engine: &impl Engine) -> String {
    let bytes = Zeroizing::new([&[0; 2][..before], plain.as_bytes()].concat());
    let all = Zeroizing::new(engine.encode(&*bytes));
    // The first characters contain bits of what precedes the secret. The last one, if the end is
    // not aligned, contains bits of what follows.
    let begin = [0, 2, 3][before];
    let end = all.len() - usize::from(bytes.len() % 3 != 0);
    all.get(begin..end).unwrap_or_default().to_owned()
}

/// Writes `%2F` as `%2f`, because encoders differ.
fn lowercase_escapes(text: &str) -> String {
    let mut digits = 0;
    let lower = |c: char| {
        let digit = digits > 0;
        digits = if c == '%' { 2_u8 } else { digits.saturating_sub(1) };
        if digit { c.to_ascii_lowercase() } else { c }
    };
    text.chars().map(lower).collect()
}

/// Finds the ranges of key-shaped text.
fn find_key_shapes(text: &str) -> Vec<Range<usize>> {
    // Nearly all texts have none. The check costs a few scans at memory speed.
    static FINDERS: LazyLock<Vec<memmem::Finder<'static>>> = LazyLock::new(|| {
        KEY_BEGINNINGS.iter().map(|beginning| memmem::Finder::new(*beginning)).collect()
    });
    if !FINDERS.iter().any(|finder| finder.find(text.as_bytes()).is_some()) {
        return Vec::new();
    }
    KEY_SHAPE
        .captures_iter(text)
        .filter_map(|found| found.name("token").or_else(|| found.get(0)).map(|part| part.range()))
        .collect()
}

fn redact_ranges(text: &str, mut found: Vec<Range<usize>>) -> Cow<'_, str> {
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    found.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in found {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for range in merged {
        out.push_str(&text[done..range.start]);
        out.push_str(REDACTED);
        done = range.end;
    }
    out.push_str(&text[done..]);
    Cow::Owned(out)
}

const MIN_SECRET_BYTES: usize = 8;
/// Characters of a foreign text that [`printable`] examines.
const MAX_SCANNED_CHARS: usize = 4096;
/// Everything but the characters that never need an escape in a URL.
const ESCAPED_IN_URLS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Every text that [`KEY_SHAPE`] matches contains one of these.
const KEY_BEGINNINGS: [&str; 11] =
    ["sk-", "gsk_", "xai-", "nvapi-", "hf_", "aip-", "AIza", "pplx-", "r8_", "earer", "EARER"];
/// A well-known key prefix and 16 or more characters of a key. A masked key (`sk-abc***xyz`) does
/// not match.
static KEY_SHAPE: LazyLock<Regex> = LazyLock::new(|| {
    let prefixes = "sk-|gsk_|xai-|nvapi-|hf_|aip-|AIza|pplx-|r8_";
    let shape = format!(
        r"(?-u:\b)(?:(?:{prefixes})[A-Za-z0-9_-]{{16,}}|(?:[Bb]earer|BEARER)[ \t]+(?<token>[A-Za-z0-9._~+/=-]{{16,}}))"
    );
    Regex::new(&shape).expect("a constant pattern that a test compiles")
});

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "k+y/with=odd\"chars\\0123456789";

    fn known(keys: &[&str]) -> KnownSecrets {
        let known = KnownSecrets::new();
        for key in keys {
            known.add(&Secret::new((*key).to_owned()));
        }
        known
    }

    #[test]
    fn known_secret_is_removed_in_every_encoding() {
        let redactor = known(&[KEY]);
        let json = serde_json::to_string(KEY).expect("json");
        let escaped = utf8_percent_encode(KEY, ESCAPED_IN_URLS).to_string();
        for form in [
            KEY.to_owned(),
            json[1..json.len() - 1].to_owned(),
            escaped.clone(),
            escaped
                .replace("%2B", "%2b")
                .replace("%2F", "%2f")
                .replace("%3D", "%3d")
                .replace("%5C", "%5c"),
        ] {
            assert_eq!(
                redactor.redact(&format!("<{form}> and <{form}>")),
                "<[redacted]> and <[redacted]>",
                "{form}"
            );
        }
    }

    #[test]
    fn base64_of_a_secret_is_found_at_any_offset() {
        for key in [
            "plain-key-of-20-char",
            "plain-key-of-21-chars",
            "plain-key-of-22-charsx",
            "k\u{fb}\u{fc}\u{ff}???>>>~~~",
        ] {
            let redactor = known(&[key]);
            for before in 0..7 {
                for after in 0..4 {
                    let whole = format!("{}{key}{}", &"prefix!"[..before], &"tail"[..after]);
                    for text in [
                        general_purpose::STANDARD.encode(&whole),
                        general_purpose::URL_SAFE_NO_PAD.encode(&whole),
                    ] {
                        let shown = redactor.redact(&text);
                        assert!(
                            shown.contains(REDACTED) && shown.len() < REDACTED.len() + 20,
                            "{key} {before} {after}: {shown}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn text_in_the_form_of_a_key_is_removed_and_other_text_is_not() {
        for (text, shown) in [
            ("Incorrect API key: sk-proj-abcdef0123456789ABCD.", "Incorrect API key: [redacted]."),
            ("x=AIzaSyA0123456789abcdefghij&y", "x=[redacted]&y"),
            ("aip-0123456789abcdef0123456789abcdef", "[redacted]"),
            (
                "Authorization: Bearer abc.def-0123456789==, next",
                "Authorization: Bearer [redacted], next",
            ),
            ("(hf_0123456789abcdefgh) (gsk_0123456789abcdefgh)", "([redacted]) ([redacted])"),
        ] {
            assert_eq!(KnownSecrets::new().redact(text), shown);
        }
        for text in [
            "",
            "sk-abc***********wxyz",
            "task-management-of-everything-here",
            "sk-short",
            "sk-\u{2026}ab12",
            "bearer of bad news",
        ] {
            assert!(matches!(KnownSecrets::new().redact(text), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn overlapping_secrets_are_removed_completely() {
        let redactor = known(&["abcdefghij", "fghijklmno", "klmno-and-more"]);

        assert_eq!(
            redactor.redact("<abcdefghijklmno> <abcdefghijklmno-and-more>"),
            "<[redacted]> <[redacted]>"
        );
        assert_eq!(redactor.redact("abcdefghij\u{e4}"), "[redacted]\u{e4}");
    }

    #[test]
    fn secrets_from_before_a_reload_are_still_removed() {
        let redactor = known(&["first-secret"]);
        redactor.replace_all([&Secret::new("second-secret".to_owned())]);
        assert_eq!(redactor.redact("first-secret second-secret"), "[redacted] [redacted]");

        redactor.replace_all([&Secret::new("third-secret".to_owned())]);
        assert_eq!(redactor.redact("first-secret second-secret"), "first-secret [redacted]");
    }

    proptest::proptest! {
        #[test]
        fn known_secrets_are_removed_from_any_text(before in ".*", key in "K%\\PC{8,40}", after in ".*") {
            let shown = known(&[&key]).redact(&format!("{before}{key}{after}")).into_owned();
            proptest::prop_assert!(!shown.contains(&key) && shown.contains(REDACTED), "{}", shown);
        }
    }

    #[test]
    fn short_values_are_not_registered_as_secrets() {
        assert_eq!(
            known(&["", "local", "1234567"]).redact("a local model 1234567"),
            "a local model 1234567"
        );
    }

    #[test]
    fn untrusted_text_becomes_one_bounded_sanitised_line() {
        assert_eq!(printable(" a\n\u{1b}[31mb sk-0123456789abcdefgh ", 100), "a  [31mb [redacted]");
        assert_eq!(printable(&"\u{e4}".repeat(20), 5), "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{2026}");
    }
}
